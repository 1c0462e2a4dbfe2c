"""Benchmarks of gvcore: ``python -m benchmarks``; how to read them is in README.md beside this file."""

"""Data to try things on: digits come with the package, MNIST files are read where they lie."""

from __future__ import annotations

from gvcore.datasets.idx import load_idx
from gvcore.datasets.optdigits import digits

__all__ = ["digits", "load_idx"]

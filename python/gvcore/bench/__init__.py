"""Measuring gvcore: the harness, the limits of the machine, the timed net, the suites of `gvcore bench`.

Private by convention: nothing here is promised to stay. Nobody imports it but the command line and the
``benchmarks`` folder of the sources, so it costs ``import gvcore`` nothing.
"""

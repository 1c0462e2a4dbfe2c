"""Suite ``batchnorm``: `functional.batch_norm` and its backward against the bandwidth of the memory.

Five passes over an array are the least: forward reads x and writes y, backward reads dy and x and writes dx.
Arrays that no cache holds need eight, because the sums must be complete before a result can be written:
x, x, y and dy, x, dy, x, dx.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import gvcore as gv
from benchmarks import workloads as w
from benchmarks.kernels import ROOT, large, measure, thread_counts
from gvcore.bench.figures import Figure, ratio
from gvcore.bench.harness import Options
from gvcore.bench.prepared import Prepared
from gvcore.bench.remote import start
from gvcore.bench.report import OURS, Result

__all__ = ["figures", "ours", "run"]

FUNCTIONS = {
    "numpy": "benchmarks.peers.numpy_kernels:batchnorm",
    "torch": "benchmarks.peers.torch_kernels:batchnorm",
}
COLUMNS = 256
LEAST, PASSES, TARGET = 5, 8, 0.85


def ours(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """Forward into an array that is there already, then backward."""
    x, dy, gamma, beta = w.batchnorm_arrays(**case)
    out = np.empty_like(x)
    f = gv.functional

    def call() -> Any:
        y, mean, rstd = f.batch_norm(x, gamma, beta, eps=w.EPS, out=out)
        return y, *f.batch_norm_backward(dy, x, mean, rstd, gamma)

    yield Prepared(call, "functional", lambda: w.batchnorm_answers(*call()))


def figures(result: Result, array: int, beyond: bool, options: Options) -> list[Figure]:
    """Return the share of the bandwidth in both ways of counting, and the ratio to PyTorch."""
    assert result.limit is not None
    seconds = {name: options.seconds(time) for name, time in result.times.items()}
    share = array / result.limit.bytes_per_second / seconds[OURS]
    return [
        Figure("8 passes", PASSES * share, "%", TARGET if beyond else None),
        Figure("5 passes", LEAST * share, "%"),
        Figure("x torch", ratio(seconds.get("torch"), seconds[OURS])),
    ]


def run(options: Options) -> Iterator[Result]:
    """Time arrays beyond every cache, and one that a second-level cache holds."""
    for threads in thread_counts(options):
        with start(FUNCTIONS, threads, options, ROOT) as (remotes, skipped):
            for array in (large(options), 128 << 10):
                case = {"rows": array // 4 // COLUMNS, "columns": COLUMNS}
                size = f"{array >> 20} MB" if array >= 1 << 20 else f"{array >> 10} KB"
                label = f"{case['rows']} x {COLUMNS}, {size} an array"
                result = Result("batchnorm", label, case, threads, skipped=dict(skipped))
                measure(
                    result,
                    case,
                    ours(case, threads),
                    w.batchnorm_oracle(**case),
                    remotes,
                    bytes=LEAST * array,
                    working_set=4 * array,
                    options=options,
                )
                result.figures = figures(result, array, array > 1 << 20, options)
                yield result

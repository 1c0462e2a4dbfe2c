"""Suite ``elementwise``: activations into an array that is there already, against the memory's bandwidth."""

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

__all__ = ["ours", "run"]

FUNCTIONS = {
    "numpy": "benchmarks.peers.numpy_kernels:elementwise",
    "torch": "benchmarks.peers.torch_kernels:elementwise",
}


def ours(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """One activation."""
    x = w.values(case["count"], 0)
    out = np.empty_like(x)
    function = getattr(gv.functional, case["name"])

    def call() -> Any:
        return function(x, out=out)

    yield Prepared(call, "functional", lambda: w.elementwise_answers(call()))


def run(options: Options) -> Iterator[Result]:
    """Time activations in a second-level cache and beyond every cache."""
    for threads in thread_counts(options):
        with start(FUNCTIONS, threads, options, ROOT) as (remotes, skipped):
            for name in w.ACTIVATIONS:
                for array in (256 << 10, large(options) // 2):
                    case = {"name": name, "count": array // 4}
                    size = f"{array >> 20} MB" if array >= 1 << 20 else f"{array >> 10} KB"
                    result = Result("elementwise", f"{name}, {size}", case, threads, skipped=dict(skipped))
                    measure(
                        result,
                        case,
                        ours(case, threads),
                        w.elementwise_oracle(name, array // 4),
                        remotes,
                        bytes=2 * array,
                        working_set=2 * array,
                        options=options,
                    )
                    seconds = {who: options.seconds(time) for who, time in result.times.items()}
                    torch = Figure("x torch", ratio(seconds.get("torch"), seconds[OURS]))
                    result.figures = [result.share(options), torch]
                    yield result

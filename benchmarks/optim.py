"""Suite ``optim``: `functional.sgd_update` with momentum and decay against the bandwidth of the memory.

Five passes: parameter, gradient and velocity are read, parameter and velocity written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
    "numpy": "benchmarks.peers.numpy_kernels:sgd",
    "torch default": "benchmarks.peers.torch_kernels:sgd",
    "torch fused": "benchmarks.peers.torch_kernels:sgd_fused",
}
PASSES = 5
IN_CACHE = 1 << 16  # parameters: three arrays of 256 KB


def ours(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """One update in place."""
    param, grad, velocity = w.optim_arrays(case["count"])
    settings = {"lr": w.LR, "momentum": w.MOMENTUM, "weight_decay": w.DECAY}

    def call() -> None:
        gv.functional.sgd_update(param, grad, velocity, **settings)

    def answers() -> list[float]:
        for _ in range(w.OPTIM_STEPS):
            call()
        return w.optim_answers(param)

    yield Prepared(call, "functional", answers)


def figures(result: Result, beyond: bool, options: Options) -> list[Figure]:
    """Return the share of the bandwidth and the ratios to both of PyTorch's ways."""
    seconds = {name: options.seconds(time) for name, time in result.times.items()}
    default, fused = (ratio(seconds.get(f"torch {way}"), seconds[OURS]) for way in ("default", "fused"))
    return [
        result.share(options, 0.90 if beyond else None),
        Figure("x torch default", default, target=2.0 if beyond else None),
        Figure("x torch fused", fused, target=0.98 if beyond else 1.1),
    ]


def run(options: Options) -> Iterator[Result]:
    """Time parameters beyond every cache and in a second-level cache."""
    for threads in thread_counts(options):
        with start(FUNCTIONS, threads, options, ROOT) as (remotes, skipped):
            for count in (large(options) // 4, IN_CACHE):
                case = {"count": count}
                label = f"{count} parameters, {12 * count / 2**20:g} MB in all"
                result = Result("optim", label, case, threads, skipped=dict(skipped))
                measure(
                    result,
                    case,
                    ours(case, threads),
                    w.optim_oracle(count),
                    remotes,
                    bytes=PASSES * 4 * count,
                    working_set=3 * 4 * count,
                    options=options,
                )
                result.figures = figures(result, count > IN_CACHE, options)
                yield result

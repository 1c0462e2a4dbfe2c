"""Suite ``gemm``: `gvcore.functional.matmul(a, b, out=…)` against the machine's peak and NumPy's product."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import gvcore as gv
from gvcore.bench.figures import Figure
from gvcore.bench.harness import Contestant, Local, Options, interleave, summarize
from gvcore.bench.machine import Memory, Peak
from gvcore.bench.product import Product, check
from gvcore.bench.remote import Remote, start
from gvcore.bench.report import OURS, Limit, Result

__all__ = ["CASES", "NUMPY", "QUICK", "Case", "local", "measure", "run", "share_target"]

NUMPY = {"numpy": "gvcore.bench.product:prepare"}
SIDES = (256, 384, 512, 1024, 2048)
LAYOUTS = ("nn", "nt", "tn")


def share_target(product: Product) -> float | None:
    """Return which share of the peak one thread should reach, None where nobody said.

    Of AVX2 the share of its own peak is meant.
    """
    sizes = (product.m, product.n, product.k)
    if len(set(sizes)) == 1 and 256 <= product.m <= 2048:
        return 0.90 if product.dtype == "float32" else 0.88
    small = {(128, 128, 128): 0.80, (64, 64, 64): 0.60, (32, 256, 256): 0.70}
    return small.get(sizes) if product.dtype == "float32" else None


@dataclass(frozen=True)
class Case:
    """A product, and the instruction set that is forced; None: the best."""

    product: Product
    isa: str | None = None


def _squares(isa: str | None, dtype: str, sides: tuple[int, ...] = SIDES) -> list[Case]:
    return [Case(Product(n, n, n, layout, dtype), isa) for n in sides for layout in LAYOUTS]


CASES = {
    "float32": _squares(None, "float32"),
    "float32, AVX2": _squares("avx2", "float32"),
    "float64": _squares(None, "float64"),
    "small": [
        Case(Product(*sizes, layout))
        for sizes in ((128, 128, 128), (64, 64, 64), (32, 256, 256))
        for layout in LAYOUTS
    ],
    # Products of the timed nets, forward (nt) and of the weights (tn), one row, and nothing a multiple of 16.
    "others": [
        Case(Product(*sizes))
        for sizes in (
            (8, 64, 64, "nt"),
            (32, 32, 32, "nt"),
            (32, 64, 64, "nt"),
            (128, 256, 256, "nt"),
            (256, 512, 512, "nt"),
            (512, 512, 256, "tn"),
            (256, 256, 1024, "tn"),
            (1, 1024, 1024, "nt"),
            (1023, 1025, 1021, "nn"),
        )
    ],
}
QUICK = {
    "float32": [Case(Product(n, n, n, layout)) for n, layout in ((256, "nn"), (512, "nt"), (1024, "tn"))],
    "float32, AVX2": [Case(Product(512, 512, 512), "avx2")],
    "float64": [Case(Product(512, 512, 512, "nt", "float64"))],
    "small": [Case(Product(*sizes)) for sizes in ((128, 128, 128), (64, 64, 64), (32, 256, 256))],
}


def local(product: Product) -> Local:
    """Return the product of this process, checked."""
    a, b = product.operands()
    out = np.empty((product.m, product.n), a.dtype)
    gv.functional.matmul(a, b, out=out)
    check(product, a, b, out)
    return Local(lambda: gv.functional.matmul(a, b, out=out))


def measure(group: str, case: Case, threads: int, remotes: Mapping[str, Remote], options: Options) -> Result:
    """Time one product by everybody."""
    product = case.product
    result = Result("gemm", str(product), product.to_dict(), threads, group=group)
    contestants: dict[str, Contestant] = {}
    for peer, remote in remotes.items():
        if remote.prepare(product.to_dict()):
            contestants[peer], result.settings[peer] = remote, remote.settings
        else:
            result.skipped[peer] = str(remote.skipped)
    isa = case.isa or gv.available_isas()[0]
    with gv.threads(threads), gv.isa(isa):
        peak, memory = Peak(threads, product.dtype), Memory(threads, product.bytes)
        contestants = {"peak": peak, "memory": memory, OURS: local(product), **contestants}
        samples = interleave(contestants, options.effort)
    rates = peak.rate(samples.pop("peak")), memory.rate(samples.pop("memory"))
    result.times = {name: summarize(seconds) for name, seconds in samples.items()}
    result.limit = Limit(product.flop, product.bytes, *rates)
    share = product.flop / rates[0] / options.seconds(result.times[OURS])
    # The targets were set for one thread, and for AVX2 where it is forced.
    aimed = threads == 1 and isa != "scalar"
    result.figures = [Figure("of peak", share, "%", share_target(product) if aimed else None)]
    return result


def run(options: Options, peers: Mapping[str, str] = NUMPY, paths: tuple[Path, ...] = ()) -> Iterator[Result]:
    """Time all products, on one thread and on as many as gvcore uses."""
    counts = [1] if options.quick else sorted({1, gv.get_num_threads()})
    # There are many of them, and the shortest are done thousands of times in such a turn.
    options = replace(options, effort=replace(options.effort, seconds=min(0.15, options.effort.seconds)))
    for threads in [options.threads] if options.threads else counts:
        with start(peers, threads, options, paths) as (remotes, skipped):
            for group, cases in (QUICK if options.quick else CASES).items():
                for case in cases:
                    # What threads do for all kinds of work is the business of the suite scaling.
                    wanted = threads == counts[0] or options.threads or group == "float32"
                    if wanted and (case.isa is None or case.isa in gv.available_isas()):
                        result = measure(group, case, threads, remotes, options)
                        result.skipped |= skipped
                        yield result

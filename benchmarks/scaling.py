"""Suite ``scaling``: the same products on several threads and on one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import gvcore as gv
from gvcore.bench.figures import Figure
from gvcore.bench.gemm import local
from gvcore.bench.harness import Local, Options, interleave, summarize
from gvcore.bench.product import Product
from gvcore.bench.program import LeftOut
from gvcore.bench.report import OURS, Result

__all__ = ["CASES", "Threads", "run", "target"]

CASES = [
    *(Product(n, n, n) for n in (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)),
    Product(8, 64, 64, "nt"),
    Product(32, 256, 256, "nt"),
    Product(128, 256, 256, "tn"),
    Product(1, 2048, 2048, "nt"),
    Product(2048, 2048, 4),
]
LARGE = 2 * 512**3  # flop from which two threads should be worth almost two


@dataclass
class Threads:
    """Contestant: a product on so many threads."""

    contestant: Local
    threads: int

    def turn(self, seconds: float) -> Sequence[float]:
        with gv.threads(self.threads):
            return self.contestant.turn(seconds)


def target(product: Product, threads: int) -> float:
    """Return how many times faster more threads should be; of a small product at most 5 % slower."""
    return 1.85 if product.flop >= LARGE and threads == 2 else 1 / 1.05


def run(options: Options) -> Iterator[Result]:
    """Time every product on one thread, on two, and on all."""
    most = options.threads or gv.get_num_threads()
    if most < 2:
        raise LeftOut("this process may use one thread")
    counts = sorted({2, most})
    for product in CASES[::3] if options.quick else CASES:
        call = local(product)
        contestants = {f"{n} threads": Threads(call, n) for n in counts}
        samples = interleave({"1 thread": Threads(call, 1), **contestants}, options.effort)
        single = options.seconds(summarize(samples["1 thread"]))
        for n in counts:
            times = {OURS: summarize(samples[f"{n} threads"]), "1 thread": summarize(samples["1 thread"])}
            faster = single / options.seconds(times[OURS])
            figure = Figure("x 1 thread", faster, target=target(product, n))
            yield Result("scaling", str(product), product.to_dict(), n, times=times, figures=[figure])

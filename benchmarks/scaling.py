"""Suite ``scaling``: the same work on several threads and on one: products, other kernels, training steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gvcore as gv
from benchmarks import batchnorm, optim
from benchmarks import workloads as w
from gvcore.bench import gvcore_step
from gvcore.bench.check import check_answers, check_losses
from gvcore.bench.figures import Figure
from gvcore.bench.gemm import local
from gvcore.bench.harness import Local, Options, interleave, summarize
from gvcore.bench.product import Product
from gvcore.bench.program import LeftOut
from gvcore.bench.report import OURS, Result
from gvcore.bench.residual_net import Net

__all__ = ["CASES", "Threads", "Work", "run", "target"]

LARGE = 2 * 512**3  # flop of a product from which two threads should be worth almost two


@dataclass(frozen=True)
class Work:
    """Something to do on any number of threads; `make` checks it."""

    label: str
    make: Callable[[], Local]
    sizes: dict[str, Any]
    flop: float = 0.0  # of a product


def _product(*sizes: Any) -> Work:
    product = Product(*sizes)
    return Work(str(product), lambda: local(product), product.to_dict(), product.flop)


def _batchnorm(rows: int, columns: int) -> Work:
    case = {"rows": rows, "columns": columns}

    def make() -> Local:
        prepared = next(batchnorm.ours(case, 1))
        answers = {OURS: {prepared.settings: prepared.first_answers()}}
        check_answers("batchnorm", w.batchnorm_oracle(**case), answers, 1e-4)
        return Local(prepared.step)

    return Work(f"batchnorm {rows} x {columns}", make, case)


def _optim(count: int) -> Work:
    def make() -> Local:
        prepared = next(optim.ours({"count": count}, 1))
        answers = {OURS: {prepared.settings: prepared.first_answers()}}
        check_answers("optim", w.optim_oracle(count), answers, 1e-4)
        return Local(prepared.step)

    return Work(f"optim {count}", make, {"count": count})


def _step(net: Net) -> Work:
    def make() -> Local:
        prepared = next(gvcore_step.prepare(net.to_dict(), 1))
        check_losses(net, {OURS: {prepared.settings: prepared.first_answers()}})
        return Local(prepared.step)

    return Work(f"step {net}", make, net.to_dict())


CASES = [
    *(_product(n, n, n) for n in (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)),
    _product(8, 64, 64, "nt"),
    _product(32, 256, 256, "nt"),
    _product(128, 256, 256, "tn"),
    _product(1, 2048, 2048, "nt"),
    _product(2048, 2048, 4),
    _batchnorm(1024, 64),
    _batchnorm(1024, 256),
    _optim(1 << 16),
    _step(Net(8, 64, 64)),
    _step(Net(128, 128, 16)),
    _step(Net(1024, 256, 8)),
]


@dataclass
class Threads:
    """Contestant: a call on so many threads."""

    contestant: Local
    threads: int

    def turn(self, seconds: float) -> Sequence[float]:
        with gv.threads(self.threads):
            return self.contestant.turn(seconds)


def target(flop: float, threads: int) -> float:
    """Return how many times faster more threads should be; of small work at most 5 % slower."""
    return 1.85 if flop >= LARGE and threads == 2 else 1 / 1.05


def run(options: Options) -> Iterator[Result]:
    """Time everything on one thread, on two, and on all."""
    most = options.threads or gv.get_num_threads()
    if most < 2:
        raise LeftOut("this process may use one thread")
    counts = sorted({2, most})
    for work in CASES[::3] if options.quick else CASES:
        with gv.threads(1):
            call = work.make()
        contestants = {f"{n} threads": Threads(call, n) for n in counts}
        samples = interleave({"1 thread": Threads(call, 1), **contestants}, options.effort)
        single = options.seconds(summarize(samples["1 thread"]))
        for n in counts:
            times = {OURS: summarize(samples[f"{n} threads"]), "1 thread": summarize(samples["1 thread"])}
            faster = single / options.seconds(times[OURS])
            figure = Figure("x 1 thread", faster, target=target(work.flop, n))
            yield Result("scaling", work.label, work.sizes, n, times=times, figures=[figure])

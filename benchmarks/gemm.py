"""Suite ``gemm``: `gvcore.functional.matmul` against the peak of the machine and NumPy's product."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gvcore as gv
from benchmarks.harness import Contestant, Effort, Local, interleave, summarize
from benchmarks.machine import Memory, Peak
from benchmarks.report import OURS, Limit, Result

__all__ = ["CASES", "QUICK", "Product", "run"]


@dataclass(frozen=True)
class Product:
    """c (m, n) = a (m, k) b (k, n) in float32; "t" says that an operand is a transposed view."""

    m: int
    n: int
    k: int
    layout: str = "nn"

    def __str__(self) -> str:
        return f"{self.m} x {self.n} x {self.k} {self.layout}"

    @property
    def flop(self) -> int:
        return 2 * self.m * self.n * self.k

    @property
    def bytes(self) -> int:
        """Each operand read once, the result written once."""
        return 4 * (self.m * self.k + self.k * self.n + self.m * self.n)

    def operands(self) -> tuple[NDArray[Any], NDArray[Any]]:
        random = np.random.default_rng(0)
        shapes = [(self.m, self.k), (self.k, self.n)]
        made = [
            random.standard_normal(shape if layout == "n" else shape[::-1], dtype=np.float32)
            for shape, layout in zip(shapes, self.layout, strict=True)
        ]
        a, b = (x if layout == "n" else x.T for x, layout in zip(made, self.layout, strict=True))
        return a, b


CASES = [
    Product(8, 64, 64, "nt"),
    Product(32, 32, 32, "nt"),
    Product(32, 64, 64, "nt"),
    Product(128, 128, 128, "nt"),
    Product(128, 256, 256, "nt"),
    Product(256, 512, 512, "nt"),
    Product(512, 512, 256, "tn"),
    Product(256, 256, 1024, "tn"),
    Product(1, 1024, 1024, "nt"),
    Product(256, 256, 256),
    Product(512, 512, 512),
    Product(1024, 1024, 1024),
    Product(1023, 1025, 1021),
]
QUICK = [CASES[0], CASES[3], CASES[7], CASES[10]]


def check(product: Product, a: NDArray[Any], b: NDArray[Any], found: NDArray[Any]) -> None:
    """Raise if an element is further off than k roundings of its sum of magnitudes allow."""
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    bound = product.k * 2.0**-24 * (np.abs(wide_a) @ np.abs(wide_b))
    if not np.all(np.abs(found - wide_a @ wide_b) <= bound):
        raise AssertionError(f"[benchmarks] expected the product {product}, got something else")


def limit_blas(threads: int) -> Any:
    """Return what keeps NumPy to so many threads while it lives, None without threadpoolctl."""
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ModuleNotFoundError:
        return None
    return threadpoolctl.threadpool_limits(threads, user_api="blas")


def measure(product: Product, threads: int, effort: Effort) -> Result:
    a, b = product.operands()
    out = np.empty((product.m, product.n), np.float32)
    skipped: dict[str, str] = {}
    contestants: dict[str, Contestant] = {}
    kept = limit_blas(threads)
    with gv.threads(threads):
        gv.functional.matmul(a, b, out=out)
        check(product, a, b, out)
        contestants[OURS] = Local(lambda: gv.functional.matmul(a, b, out=out))
        if kept is None:
            skipped["numpy"] = "threadpoolctl is not installed"
        else:
            contestants["numpy"] = Local(lambda: np.matmul(a, b, out=out))
        peak, memory = Peak(threads), Memory(threads, product.bytes)
        samples = interleave({"peak": peak, "memory": memory, **contestants}, effort)
    if kept is not None:
        kept.restore_original_limits()
    rates = peak.rate(samples.pop("peak")), memory.rate(samples.pop("memory"))
    times = {name: summarize(seconds) for name, seconds in samples.items()}
    limit = Limit(product.flop, product.bytes, *rates)
    return Result("gemm", str(product), asdict(product), threads, limit, times, {}, skipped)


def run(effort: Effort, *, quick: bool, threads: int | None) -> Iterator[Result]:
    counts = [threads] if threads else [1] if quick else sorted({1, gv.get_num_threads()})
    for count in counts:
        for product in QUICK if quick else CASES:
            yield measure(product, count, effort)

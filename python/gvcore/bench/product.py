"""A product to time: its sizes and layout, its operands, its check, and the product of NumPy.

NumPy alone is needed, because every peer reads this file in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcore.bench.prepared import Prepared

__all__ = ["Product", "check", "prepare"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Product:
    """c (m, n) = a (m, k) b (k, n); "t" says that an operand is a transposed view."""

    m: int
    n: int
    k: int
    layout: str = "nn"
    dtype: str = "float32"

    def __str__(self) -> str:
        kind = "" if self.dtype == "float32" else f" {self.dtype}"
        return f"{self.m} x {self.n} x {self.k} {self.layout}{kind}"

    def to_dict(self) -> dict[str, Any]:
        """Return the sizes, to send to another process."""
        return asdict(self)

    @property
    def flop(self) -> int:
        """A multiplication and an addition for each of m n k."""
        return 2 * self.m * self.n * self.k

    @property
    def bytes(self) -> int:
        """Each operand read once, the result written once."""
        size = np.dtype(self.dtype).itemsize
        return size * (self.m * self.k + self.k * self.n + self.m * self.n)

    def operands(self) -> tuple[Array, Array]:
        """Draw a and b, in memory as the layout says."""
        random = np.random.default_rng(0)
        shapes = [(self.m, self.k), (self.k, self.n)]
        made = [
            random.standard_normal(shape if layout == "n" else shape[::-1], dtype=np.dtype(self.dtype).type)
            for shape, layout in zip(shapes, self.layout, strict=True)
        ]
        a, b = (x if layout == "n" else x.T for x, layout in zip(made, self.layout, strict=True))
        return a, b


_MOST = 4096  # elements that are checked: all of a small product, some rows and columns of a large one


def check(product: Product, a: Array, b: Array, found: Array) -> None:
    """Raise if an element is further off than k roundings of its sum of magnitudes allow.

    The reference is a sum in float64 by `numpy.einsum`, or in the widest float for float64, which goes
    through no BLAS.
    """
    random = np.random.default_rng(1)
    total = product.m * product.n
    chosen = np.arange(total) if total <= _MOST else random.integers(0, total, _MOST)
    wide = np.float64 if product.dtype == "float32" else np.longdouble
    ok = True
    for part in np.array_split(chosen, max(1, len(chosen) * product.k // 2**20)):
        rows, columns = np.divmod(part, product.n)
        left, right = a[rows].astype(wide), b[:, columns].T.astype(wide)
        wanted = np.einsum("ij,ij->i", left, right)
        bound = product.k * np.finfo(product.dtype).eps / 2 * np.einsum("ij,ij->i", abs(left), abs(right))
        ok &= bool(np.all(np.abs(found[rows, columns] - wanted) <= bound))
    if not ok:
        raise AssertionError(f"[bench] expected the product {product}, got something else")


def prepare(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """Yield the product of NumPy."""
    product = Product(**case)
    a, b = product.operands()
    out = np.empty((product.m, product.n), a.dtype)

    def answers() -> list[float]:
        np.matmul(a, b, out=out)
        check(product, a, b, out)
        return []

    yield Prepared(lambda: np.matmul(a, b, out=out), f"NumPy {np.__version__}", answers)

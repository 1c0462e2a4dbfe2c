"""The timed net: its sizes, what a step of it costs at least, its first values and its batches.

``Linear(64, W)``, then D times ``x + relu(BatchNorm(Linear(W, W, bias=False)(x)))``, then ``Linear(W, 10)``,
cross-entropy, SGD with momentum 0.9 and decay 1e-4, B rows. NumPy alone is needed, because every peer reads
this file in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CLASSES",
    "DECAY",
    "EPS",
    "FEATURES",
    "MOMENTUM",
    "RATE",
    "RUNNING_MOMENTUM",
    "Net",
    "Values",
]

FEATURES, CLASSES = 64, 10
# The rate is small, so that a thousand steps leave the loss where it was and no number becomes subnormal.
RATE, MOMENTUM, DECAY = 1e-5, 0.9, 1e-4
EPS, RUNNING_MOMENTUM = 1e-5, 0.1
BATCHES = 8
BYTES = 4  # of a float32

Array = NDArray[Any]


@dataclass
class Values:
    """Parameters, the blocks' stacked along the first axis: weight (D, W, W), gamma and beta (D, W)."""

    first_weight: Array
    first_bias: Array
    weight: Array
    gamma: Array
    beta: Array
    last_weight: Array
    last_bias: Array

    def __iter__(self) -> Iterator[tuple[str, Array]]:
        return iter(vars(self).items())

    def named(self, first: str, block: str, last: str) -> dict[str, Array]:
        """Return them by a framework's names; `block` holds ``{i}`` and ``{part}`` (linear or norm)."""
        names = {
            f"{first}.weight": self.first_weight,
            f"{first}.bias": self.first_bias,
            f"{last}.weight": self.last_weight,
            f"{last}.bias": self.last_bias,
        }
        for i in range(len(self.weight)):
            linear, norm = (block.format(i=i, j=i + 1, part=part) for part in ("linear", "norm"))
            names[f"{linear}.weight"] = self.weight[i]
            names[f"{norm}.weight"], names[f"{norm}.bias"] = self.gamma[i], self.beta[i]
        return names


@dataclass(frozen=True)
class Net:
    """One size: B rows, width W, D blocks."""

    batch: int
    width: int
    depth: int

    def __str__(self) -> str:
        return f"{self.batch}, {self.width}, {self.depth}"

    def to_dict(self) -> dict[str, int]:
        """Return the sizes, to send to another process."""
        return asdict(self)

    @property
    def flop(self) -> int:
        """Of the products: two of three for the first layer, whose input needs no gradient."""
        b, w, d = self.batch, self.width, self.depth
        return 4 * b * FEATURES * w + 6 * b * (d * w * w + CLASSES * w)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        w = self.width
        return FEATURES * w + w + self.depth * (w * w + 2 * w) + CLASSES * w + CLASSES

    @property
    def activations(self) -> int:
        """Elements that forward keeps for backward: the input of each block and its product."""
        return 2 * self.depth * self.batch * self.width

    @property
    def working_set(self) -> int:
        """Bytes of the parameters, their velocity and the activations."""
        return BYTES * (2 * self.parameters + self.activations)

    @property
    def bytes(self) -> int:
        """Least traffic: parameters read forward and backward and written, velocity and activations read
        and written, once each; no gradient is stored."""
        return BYTES * (5 * self.parameters + 2 * self.activations)

    def values(self, dtype: Any = np.float32) -> Values:
        """Draw the first values; the same for every peer."""
        draw = np.random.default_rng(0).standard_normal
        w, d = self.width, self.depth
        values = Values(
            first_weight=draw((w, FEATURES)) / np.sqrt(FEATURES),
            first_bias=np.zeros(w),
            weight=draw((d, w, w)) / np.sqrt(w),
            gamma=np.full((d, w), d**-0.5),
            beta=np.zeros((d, w)),
            last_weight=draw((CLASSES, w)) / np.sqrt(w),
            last_bias=np.zeros(CLASSES),
        )
        # Through float32, so that the oracle in float64 starts from the very same numbers.
        return Values(**{name: value.astype(np.float32).astype(dtype) for name, value in values})

    def data(self, dtype: Any = np.float32) -> tuple[Array, NDArray[np.int64]]:
        """Draw eight batches, one after the other: x (8 B, 64) and labels (8 B,)."""
        random = np.random.default_rng(1)
        rows = BATCHES * self.batch
        x = random.standard_normal((rows, FEATURES), dtype=np.float32).astype(dtype, copy=False)
        return x, random.integers(0, CLASSES, rows)

    def starts(self) -> Iterator[int]:
        """First rows of the batches, round and round."""
        while True:
            yield from range(0, BATCHES * self.batch, self.batch)

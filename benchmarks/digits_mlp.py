"""The net of the MNIST epoch: 784-100-100-10 with ReLU, cross-entropy, SGD with momentum, batches of 200.

NumPy alone is needed, because every peer reads this file in a process of its own. The data come from a folder
that holds ``x.npy`` and ``y.npy``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BATCH",
    "CHECKED",
    "MOMENTUM",
    "RATE",
    "SIZES",
    "data",
    "epoch_bytes",
    "epoch_flop",
    "first_losses",
    "values",
]

Array = NDArray[Any]

SIZES = (784, 100, 100, 10)
BATCH, RATE, MOMENTUM = 200, 0.01, 0.9
CHECKED = 10  # batches whose losses are compared before the clock starts


def data(folder: str | Path) -> tuple[Array, NDArray[np.int64]]:
    """Return x (rows, 784) float32 and labels (rows,)."""
    return np.load(Path(folder) / "x.npy"), np.load(Path(folder) / "y.npy")


def values() -> tuple[list[Array], list[Array]]:
    """Draw weights (out, in) and biases, the same for every peer."""
    random = np.random.default_rng(0)
    layers = list(zip(SIZES, SIZES[1:], strict=False))
    weights = [
        (random.standard_normal((outputs, inputs)) * np.sqrt(2 / inputs)).astype(np.float32)
        for inputs, outputs in layers
    ]
    return weights, [np.zeros(outputs, np.float32) for _, outputs in layers]


def epoch_flop(rows: int) -> int:
    """Of the products: two of three for the first layer, whose input needs no gradient."""
    first, *others = (inputs * outputs for inputs, outputs in zip(SIZES, SIZES[1:], strict=False))
    return rows * (4 * first + 6 * sum(others))


def epoch_bytes(rows: int) -> int:
    """Every row read once; the parameters stay in a cache."""
    return 4 * rows * SIZES[0]


def first_losses(x: Array, y: NDArray[np.int64], count: int = CHECKED) -> list[float]:
    """Train on the first batches in their order in float64 and return the loss of each."""
    weights, biases = ([part.astype(np.float64) for part in parts] for parts in values())
    moving = [np.zeros_like(part) for part in (*weights, *biases)]
    losses = []
    for start in range(0, count * BATCH, BATCH):
        inputs = [x[start : start + BATCH].astype(np.float64)]
        labels = y[start : start + BATCH]
        rows = np.arange(len(labels))
        for weight, bias in zip(weights, biases, strict=True):
            z = inputs[-1] @ weight.T + bias
            inputs.append(np.maximum(z, 0))
        z -= z.max(axis=1, keepdims=True)
        total = np.exp(z).sum(axis=1)
        losses.append(float((np.log(total) - z[rows, labels]).mean()))
        g = np.exp(z) / total[:, None]
        g[rows, labels] -= 1
        g /= len(labels)
        dweights: list[Array] = []
        dbiases: list[Array] = []
        for i in reversed(range(len(weights))):
            dweights.insert(0, g.T @ inputs[i])
            dbiases.insert(0, g.sum(axis=0))
            g = (g @ weights[i]) * (inputs[i] > 0)
        gradients = [*dweights, *dbiases]
        for part, velocity, gradient in zip([*weights, *biases], moving, gradients, strict=True):
            velocity *= MOMENTUM
            velocity += gradient
            part -= RATE * velocity
    return losses

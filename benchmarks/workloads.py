"""The arrays that kernels are timed on, and the answers that everybody must find on them.

NumPy alone is needed, because every peer reads this file in a process of its own. An answer is computed in
float64 from a few columns or elements, so that arrays of any size are checked where they are timed.
"""

from __future__ import annotations

from math import erf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ACTIVATIONS",
    "DECAY",
    "EPS",
    "LR",
    "MOMENTUM",
    "OPTIM_STEPS",
    "batchnorm_answers",
    "batchnorm_arrays",
    "batchnorm_oracle",
    "elementwise_answers",
    "elementwise_oracle",
    "optim_answers",
    "optim_arrays",
    "optim_oracle",
    "some",
    "values",
]

Array = NDArray[Any]

EPS = 1e-5
LR, MOMENTUM, DECAY = 1e-3, 0.9, 1e-4
OPTIM_STEPS = 3  # before the parameters are compared
ACTIVATIONS = ("relu", "gelu", "tanh", "sigmoid")
_PERIOD = 1_000_003  # of the random numbers in an array: a prime, so that columns differ


def values(count: int, seed: int) -> Array:
    """Draw float32 numbers; a large array repeats them, because drawing takes longer than timing."""
    random = np.random.default_rng(seed)
    return np.resize(random.standard_normal(min(count, _PERIOD), dtype=np.float32), count)


def some(count: int) -> NDArray[np.int64]:
    """Return the places of the elements that are looked at."""
    return np.unique(np.linspace(0, count - 1, 64).astype(np.int64))


def batchnorm_arrays(rows: int, columns: int) -> tuple[Array, Array, Array, Array]:
    """Draw x and dy (rows, columns), gamma and beta (columns,)."""
    x, dy = (values(rows * columns, seed).reshape(rows, columns) for seed in (0, 1))
    return x, dy, 1 + 0.1 * values(columns, 2), values(columns, 3)


def _edges(array: Array) -> Array:
    """Return the first and last rows of the first and last columns."""
    return np.asarray(array, np.float64)[np.ix_([0, 1, -1], [0, -1])].ravel()


def batchnorm_answers(y: Array, dx: Array, dgamma: Array, dbeta: Array) -> list[float]:
    """Pick what is compared, sums over the rows scaled to the size of an element."""
    scale = 1 / np.sqrt(len(y))
    parts = [_edges(y), _edges(dx), scale * dgamma[[0, -1]], scale * dbeta[[0, -1]]]
    return [float(value) for part in parts for value in part]


def batchnorm_oracle(rows: int, columns: int) -> list[float]:
    """The answers in float64; columns do not need each other, so two of them are enough."""
    made = batchnorm_arrays(rows, columns)
    x, dy = (array[:, [0, -1]].astype(np.float64) for array in made[:2])
    gamma, beta = (array[[0, -1]].astype(np.float64) for array in made[2:])
    centred = x - x.mean(axis=0)
    rstd = 1 / np.sqrt((centred**2).mean(axis=0) + EPS)
    xhat = centred * rstd
    dgamma, dbeta = (dy * xhat).sum(axis=0), dy.sum(axis=0)
    dx = gamma * rstd * (dy - dbeta / rows - xhat * dgamma / rows)
    return batchnorm_answers(xhat * gamma + beta, dx, dgamma, dbeta)


def elementwise_answers(y: Array) -> list[float]:
    """Pick the elements that are compared."""
    return [float(value) for value in y.ravel()[some(y.size)]]


def elementwise_oracle(name: str, count: int) -> list[float]:
    """The activation of those elements in float64."""
    x = values(count, 0)[some(count)].astype(np.float64)
    if name == "relu":
        y = np.maximum(x, 0)
    elif name == "gelu":
        y = np.array([0.5 * v * (1 + erf(v / sqrt(2))) for v in x])
    elif name == "tanh":
        y = np.tanh(x)
    else:
        y = 1 / (1 + np.exp(-x))
    return [float(value) for value in y]


def optim_arrays(count: int) -> tuple[Array, Array, Array]:
    """Draw parameters and their gradient, and a velocity of zeros."""
    return values(count, 0), values(count, 1), np.zeros(count, np.float32)


def optim_answers(parameters: Array) -> list[float]:
    """Pick the elements that are compared after three steps."""
    return [float(value) for value in parameters[some(parameters.size)]]


def optim_oracle(count: int) -> list[float]:
    """Three steps of SGD with momentum and decay in float64."""
    chosen = some(count)
    p, g = (values(count, seed)[chosen].astype(np.float64) for seed in (0, 1))
    v = np.zeros_like(p)
    for _ in range(OPTIM_STEPS):
        v = MOMENTUM * v + g + DECAY * p
        p = p - LR * v
    return [float(value) for value in p]

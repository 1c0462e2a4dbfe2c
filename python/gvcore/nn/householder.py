"""Householder QR with the same bits on every processor, for the orthogonal initialiser.

Golub & Van Loan, "Matrix Computations", section 5.2, reflection by reflection, unblocked. Only
elementwise operations, which IEEE 754 fixes to the last bit: the order of a dot product or a sum of
NumPy's depends on the processor, and a LAPACK's more so.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["orthonormal"]


def _tree_sum(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over the first axis in a fixed tree: fold the last half onto the first."""
    while len(terms) > 1:
        half = len(terms) // 2
        folded = terms[:half] + terms[len(terms) - half :]
        terms = folded if 2 * half == len(terms) else np.concatenate((folded, terms[half : half + 1]))
    result: NDArray[np.float64] = terms[0]
    return result


def orthonormal(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Q (rows, columns) of a = QR with R's diagonal positive; rows >= columns; a is destroyed.

    Memory: the matrix, its reflections and Q. Work: about 4 rows columns² operations.
    """
    rows, columns = a.shape
    reflections: list[tuple[NDArray[np.float64], float]] = []
    signs = np.ones(columns)
    for j in range(columns):
        v = a[j:, j].copy()
        norm = math.sqrt(float(_tree_sum(v * v)))
        signs[j] = -1.0 if v[0] >= 0.0 else 1.0
        v[0] -= signs[j] * norm  # away from v[0]: no cancellation
        square = float(_tree_sum(v * v))
        scale = 2.0 / square if square > 0.0 else 0.0
        reflections.append((v, scale))
        _reflect(a[j:, j + 1 :], v, scale)
    q = np.zeros((rows, columns))
    q[np.arange(columns), np.arange(columns)] = 1.0
    for j in reversed(range(columns)):
        _reflect(q[j:, j:], *reflections[j])
    q *= signs
    return q


def _reflect(a: NDArray[np.float64], v: NDArray[np.float64], scale: float) -> None:
    if a.size:
        column = v[:, np.newaxis]
        a -= column * (scale * _tree_sum(column * a))

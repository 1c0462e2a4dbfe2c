"""Single kernels in NumPy, without allocations: batch norm, activations, SGD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import workloads as w
from gvcore.bench.prepared import Prepared

__all__ = ["batchnorm", "elementwise", "sgd"]

PIECE = 1 << 15  # elements of an update that stay in a second-level cache
NAME = f"NumPy {np.__version__}"


def batchnorm(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """Forward and backward over whole arrays."""
    x, dy, gamma, beta = w.batchnorm_arrays(**case)
    y, dx = np.empty_like(x), np.empty_like(x)
    rows = len(x)

    def call() -> Any:
        mean = x.mean(axis=0)
        np.subtract(x, mean, out=y)
        rstd = 1 / np.sqrt(np.einsum("ij,ij->j", y, y) / rows + w.EPS)
        dbeta = dy.sum(axis=0)
        dgamma = np.einsum("ij,ij->j", dy, y) * rstd
        # dx = scale (dy - dbeta/n) - (x - mean) scale rstd dgamma/n
        scale = gamma * rstd
        np.multiply(y, scale * rstd * dgamma / rows, out=dx)
        np.subtract(scale * dy, dx, out=dx)
        np.subtract(dx, scale * dbeta / rows, out=dx)
        np.multiply(y, scale, out=y)
        np.add(y, beta, out=y)
        return y, dx, dgamma, dbeta

    yield Prepared(call, NAME, lambda: w.batchnorm_answers(*call()))


def elementwise(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """An activation; NumPy has no erf, so gelu is not there."""
    x = w.values(case["count"], 0)
    out = np.empty_like(x)
    if case["name"] == "gelu":
        raise NotImplementedError("NumPy has no erf")

    def sigmoid() -> Any:
        np.negative(x, out=out)
        np.exp(out, out=out)
        np.add(out, 1, out=out)
        return np.reciprocal(out, out=out)

    call = {
        "relu": lambda: np.maximum(x, 0, out=out),
        "tanh": lambda: np.tanh(x, out=out),
        "sigmoid": sigmoid,
    }[case["name"]]
    yield Prepared(call, NAME, lambda: w.elementwise_answers(call()))


def sgd(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """The update by pieces that stay in cache."""
    p, g, v = w.optim_arrays(case["count"])
    t = np.empty(min(PIECE, p.size), np.float32)

    def call() -> None:
        for start in range(0, p.size, PIECE):
            part = slice(start, start + PIECE)
            piece = t[: p[part].size]
            np.multiply(p[part], w.DECAY, out=piece)
            np.add(piece, g[part], out=piece)
            v[part] *= w.MOMENTUM
            v[part] += piece
            np.multiply(v[part], w.LR, out=piece)
            p[part] -= piece

    def answers() -> list[float]:
        for _ in range(w.OPTIM_STEPS):
            call()
        return w.optim_answers(p)

    yield Prepared(call, NAME, answers)

"""The step written by hand in NumPy, as somebody who cares would: no allocation in it, one flat array of
parameters, the update by pieces that stay in cache. In float64 it is the oracle for everybody else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcore.bench.prepared import Prepared
from gvcore.bench.residual_net import DECAY, EPS, MOMENTUM, RATE, RUNNING_MOMENTUM, Net, Values

__all__ = ["NumpyStep", "prepare"]

Array = NDArray[Any]
PIECE = 1 << 15  # elements of an update: five arrays of them fit in a second-level cache


def _flat(values: Values) -> tuple[Array, Values]:
    """Return one array and views of it in the shapes of `values`."""
    flat = np.concatenate([value.ravel() for _, value in values])
    views, start = {}, 0
    for name, value in values:
        views[name] = flat[start : start + value.size].reshape(value.shape)
        start += value.size
    return flat, Values(**views)


class NumpyStep:
    """A training step of the timed net in one dtype; a call trains on the next batch and returns the loss."""

    def __init__(self, net: Net, dtype: Any = np.float32) -> None:
        b, w, d = net.batch, net.width, net.depth
        self.net = net
        self.x, self.y = net.data(dtype)
        self.flat, self.p = _flat(net.values(dtype))
        self.gradient, self.g = _flat(net.values(dtype))
        self.velocity = np.zeros_like(self.flat)
        self.piece = np.empty(PIECE, dtype)
        self.inputs = np.empty((d + 1, b, w), dtype)  # of each block; the last is its output
        self.centred = np.empty((d, b, w), dtype)
        self.positive = np.empty((d, b, w), bool)
        self.mean, self.variance = np.empty((d, w), dtype), np.empty((d, w), dtype)
        self.running_mean, self.running_variance = np.zeros((d, w), dtype), np.ones((d, w), dtype)
        self.rstd = np.empty((d, w), dtype)
        self.t, self.dz, self.dx = (np.empty((b, w), dtype) for _ in range(3))
        self.rows = np.arange(b)
        self.starts = net.starts()

    def __call__(self) -> float:
        start = next(self.starts)
        stop = start + self.net.batch
        x, y = self.x[start:stop], self.y[start:stop]
        self._forward(x)
        loss = self._backward(x, y)
        self._update()
        return loss

    def _forward(self, x: Array) -> None:
        p, b, t = self.p, self.net.batch, self.t
        np.matmul(x, p.first_weight.T, out=self.inputs[0])
        self.inputs[0] += p.first_bias
        for i in range(self.net.depth):
            z = self.centred[i]
            np.matmul(self.inputs[i], p.weight[i].T, out=z)
            np.add.reduce(z, axis=0, out=self.mean[i])
            self.mean[i] /= b
            z -= self.mean[i]
            np.einsum("ij,ij->j", z, z, out=self.variance[i])
            self.variance[i] /= b
            self.rstd[i] = 1.0 / np.sqrt(self.variance[i] + EPS)
            np.multiply(z, self.rstd[i] * p.gamma[i], out=t)
            t += p.beta[i]
            np.greater(t, 0, out=self.positive[i])
            np.maximum(t, 0, out=t)
            np.add(self.inputs[i], t, out=self.inputs[i + 1])
        self.running_mean += RUNNING_MOMENTUM * (self.mean - self.running_mean)
        self.running_variance += RUNNING_MOMENTUM * (b / (b - 1) * self.variance - self.running_variance)

    def _backward(self, x: Array, y: Array) -> float:
        p, g, b, dx, dz = self.p, self.g, self.net.batch, self.dx, self.dz
        logits = self.inputs[-1] @ p.last_weight.T
        logits += p.last_bias
        logits -= logits.max(axis=1, keepdims=True)
        picked = logits[self.rows, y]
        np.exp(logits, out=logits)
        total = logits.sum(axis=1)
        loss = float((np.log(total) - picked).mean())
        logits /= total[:, None]
        logits[self.rows, y] -= 1
        logits /= b
        np.matmul(logits.T, self.inputs[-1], out=g.last_weight)
        np.add.reduce(logits, axis=0, out=g.last_bias)
        np.matmul(logits, p.last_weight, out=dx)
        for i in reversed(range(self.net.depth)):
            z = self.centred[i]
            np.multiply(dx, self.positive[i], out=dz)
            np.add.reduce(dz, axis=0, out=g.beta[i])
            np.einsum("ij,ij->j", dz, z, out=g.gamma[i])
            g.gamma[i] *= self.rstd[i]
            scale = p.gamma[i] * self.rstd[i]
            # dz = scale * (g - mean(g) - xhat * mean(g * xhat)); z holds xhat / rstd and is not used again.
            dz *= scale
            dz -= scale * g.beta[i] / b
            z *= scale * self.rstd[i] * g.gamma[i] / b
            dz -= z
            np.matmul(dz.T, self.inputs[i], out=g.weight[i])
            np.matmul(dz, p.weight[i], out=self.t)
            dx += self.t
        np.matmul(dx.T, x, out=g.first_weight)
        np.add.reduce(dx, axis=0, out=g.first_bias)
        return loss

    def _update(self) -> None:
        for start in range(0, self.flat.size, PIECE):
            part = slice(start, start + PIECE)
            p, g, v = self.flat[part], self.gradient[part], self.velocity[part]
            t = self.piece[: p.size]
            np.multiply(p, DECAY, out=t)
            g += t
            v *= MOMENTUM
            v += g
            np.multiply(v, RATE, out=t)
            p -= t


def prepare(case: dict[str, int], threads: int) -> Iterator[Prepared]:
    """Yield the step of a net given by its sizes."""
    # The threads are those of OPENBLAS_NUM_THREADS, set before NumPy was imported.
    yield Prepared(NumpyStep(Net(**case)), f"NumPy {np.__version__}")

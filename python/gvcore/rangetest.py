"""`find_lr`: a range test of the learning rate (Smith 2017, arXiv 1506.01186).

A copy of the net is trained for some steps while the rate grows by a constant factor. The net itself is not
touched. Not here: schedules, and training in earnest.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcore import _core
from gvcore._settings import integer, real
from gvcore.data import Input
from gvcore.diagnostics.picture import Axes, draw_rates
from gvcore.nn.module import Module
from gvcore.optim import SGD, Optimizer
from gvcore.schedules.exact import power
from gvcore.seeding import as_seed
from gvcore.train.batch import as_batch, check_loss
from gvcore.train.rows import first_bad
from gvcore.train.step import TrainStep

__all__ = ["RangeTest", "find_lr"]

_SHUFFLE_SITE = 0x52414E47
_SMOOTHING = 0.9
_WORSE = 4.0
_BELOW_MINIMUM = 10.0
_LEAST_FALL = 0.05


@dataclass(frozen=True, repr=False)
class RangeTest:
    """What `find_lr` saw.

    Attributes
    ----------
    lrs : ndarray of shape (steps,)
        The rates tried, ascending; fewer than asked for if the loss soared.
    losses : ndarray of shape (steps,)
        The loss of each batch before the update with the rate of the same place.
    smoothed : ndarray of shape (steps,)
        Its running mean, see `find_lr`.
    suggestion : float
        The rate to begin with; NaN if the loss never fell.
    steepest : float
        The rate at which the running mean fell fastest; NaN if it never fell.
    stopped : str
        Why the test ended.
    """

    lrs: NDArray[np.float64]
    losses: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    suggestion: float
    steepest: float
    stopped: str

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the loss and its running mean by learning rate.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            Without matplotlib, naming the extra that brings it.
        """
        return draw_rates(self.lrs, self.losses, self.smoothed, self.suggestion, ax)

    def __str__(self) -> str:
        lines = [f"{len(self.lrs)} rates from {self.lrs[0]:.3g} to {self.lrs[-1]:.3g}; {self.stopped}"]
        if math.isnan(self.suggestion):
            lines.append("suggestion: none, the loss never fell; try a smaller min_lr or more steps")
        else:
            lines.append(
                f"suggestion: {self.suggestion:.3g}, a tenth of the rate with the lowest loss (running mean "
                f"{np.nanmin(self.smoothed):.4g}); steepest descent at {self.steepest:.3g}"
            )
        lines += ["", f"{'rate':>10}  {'loss':>10}  {'running mean':>12}"]
        for i in np.unique(np.linspace(0, len(self.lrs) - 1, 12).round().astype(int)):
            lines.append(f"{self.lrs[i]:>10.3g}  {self.losses[i]:>10.4g}  {self.smoothed[i]:>12.4g}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"RangeTest({len(self.lrs)} rates, suggestion={self.suggestion:.3g})"


def find_lr(
    net: Module,
    x: Any,
    y: Any,
    loss: Any,
    *,
    optimizer: Optimizer | None = None,
    min_lr: float = 1e-6,
    max_lr: float = 10.0,
    steps: int = 100,
    batch_size: int = 64,
    seed: int | np.random.SeedSequence | None = 0,
) -> RangeTest:
    r"""Train a copy of the net with a growing learning rate, and say at which rate to begin.

    Step i of n uses the rate :math:`\eta_i = \eta_{\min} (\eta_{\max} / \eta_{\min})^{i / (n - 1)}`. The net
    itself stays as it was, to the bit.

    Parameters
    ----------
    net : Module
    x : array_like of shape (samples, ...), or a tuple of them
    y : array_like
        What the loss wants, one row per sample.
    loss : a loss of `gvcore.nn`, or a callable ``(prediction, target) -> (loss, dprediction)``
    optimizer : SGD, Adam or AdamW, optional
        The one to train with later; its rate and schedule are not used. By default SGD with momentum 0.9.
    min_lr, max_lr : float, default 1e-6 and 10
        0 < min_lr < max_lr.
    steps : int, default 100
        At least 10.
    batch_size : int, default 64
        Batches are cut from shuffled passes over the samples, across the seams; at most all samples.
    seed : int, numpy.random.SeedSequence or None, default 0
        Of the shuffling and of dropout.

    Returns
    -------
    RangeTest

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or x or y holds NaN or infinity.

    Notes
    -----
    The running mean is :math:`m_i = 0.9\,m_{i-1} + 0.1\,l_i`, divided by :math:`1 - 0.9^{i+1}`, which
    takes out the zero it starts from. The test stops after the first step whose running mean exceeds the
    smallest so far by more than three times its distance from 0 (for a positive loss: four times the best),
    or whose loss is not finite.

    The suggestion is a tenth of the rate at which the running mean is lowest: there the loss is about to
    rise, and the mean lags behind. It is NaN unless the mean fell by at least 5 % of its first value.
    With a warm-up or a decaying schedule it can serve as the peak.

    References
    ----------
    L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, arXiv 1506.01186.

    Examples
    --------
    >>> import gvcore as gv
    >>> from gvcore import nn
    >>> x, y = gv.datasets.digits()
    >>> net = gv.models.mlp(64, 10, [64], seed=0)
    >>> found = gv.find_lr(net, x, y, nn.CrossEntropyLoss())
    >>> 1e-3 < found.suggestion < 0.3
    True
    """
    op = "find_lr"
    if not isinstance(net, Module):
        raise TypeError(f"[{op}] expected net to be a gvcore.nn.Module, got {type(net).__name__}")
    check_loss(op, loss)
    if optimizer is None:
        optimizer = SGD(lr=0.0, momentum=0.9)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"[{op}] expected optimizer to be SGD, Adam or AdamW, got {optimizer!r}")
    low = real(op, "min_lr", min_lr, above=0.0)
    high = real(op, "max_lr", max_lr, above=low)
    steps = integer(op, "steps", steps, at_least=10)
    batch_size = integer(op, "batch_size", batch_size, at_least=1)
    key = as_seed(seed)
    data = as_batch(op, x, y, net.dtype, loss)
    looked_at: list[tuple[str, Input, np.dtype[Any]]] = [("x", part, net.dtype) for part in data.inputs]
    if data.target.dtype.kind == "f":
        looked_at.append(("y", data.target, data.target.dtype))
    for name, values, dtype in looked_at:
        if (bad := first_bad(values, dtype)) is not None:
            raise ValueError(f"[{op}] expected {name} to be finite, got {bad[1]} at index {bad[0]}")

    step = TrainStep(copy.deepcopy(net), loss, optimizer, seed=key)
    rows = len(data.inputs[0])
    batches = _batches(rows, min(batch_size, rows), key)
    rates = np.array([low * power(high / low, i / (steps - 1)) for i in range(steps)])
    losses: list[float] = []
    smoothed: list[float] = []
    mean, stopped = 0.0, "all steps done"
    for rate in rates:
        try:
            value = step.run(replace(data, order=next(batches)), lr=float(rate))
        except FloatingPointError:
            losses.append(math.nan)
            smoothed.append(math.nan)
            stopped = f"stopped at rate {rate:.3g}, where the loss was no longer finite"
            break
        losses.append(value)
        mean = _SMOOTHING * mean + (1.0 - _SMOOTHING) * value
        smoothed.append(mean / (1.0 - _SMOOTHING ** len(losses)))
        best = min(smoothed)
        if smoothed[-1] - best > (_WORSE - 1.0) * abs(best):
            stopped = f"stopped at rate {rate:.3g}, where the loss was {_WORSE:g} times the best"
            break
    tried = rates[: len(losses)]
    suggestion, steepest = _suggest(tried, np.array(smoothed))
    return RangeTest(tried, np.array(losses), np.array(smoothed), suggestion, steepest, stopped)


def _batches(rows: int, batch_size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the places of the samples of one batch after another, from one shuffled pass after another."""
    waiting, passes = np.empty(0, np.int64), 0
    while True:
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, _core.permutation(rows, seed, _SHUFFLE_SITE + passes)])
            passes += 1
        yield np.ascontiguousarray(waiting[:batch_size])
        waiting = waiting[batch_size:]


def _suggest(rates: NDArray[np.float64], smoothed: NDArray[np.float64]) -> tuple[float, float]:
    known = np.isfinite(smoothed)
    if known.sum() < 3:
        return math.nan, math.nan
    rates, smoothed = rates[known], smoothed[known]
    lowest = int(smoothed.argmin())
    if smoothed[lowest] > smoothed[0] - _LEAST_FALL * abs(smoothed[0]):
        return math.nan, math.nan
    descent = np.gradient(smoothed[: lowest + 1], np.log(rates[: lowest + 1]))
    return float(rates[lowest] / _BELOW_MINIMUM), float(rates[int(descent.argmin())])

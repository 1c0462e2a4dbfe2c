"""`diagnose`: how a batch and its gradient flow through a net, before anything is trained.

Here arguments are checked and brought into the form that the plan takes; the measuring, the judging and
the showing are in `gvcore.diagnostics`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gvcore.data import Input
from gvcore.diagnostics.probe import probe
from gvcore.diagnostics.report import Report
from gvcore.nn.inference import Recorded
from gvcore.nn.losses import Loss
from gvcore.nn.module import Module
from gvcore.seeding import as_seed
from gvcore.train.batch import as_batch, check_loss, fit_target, loss_settings
from gvcore.train.plans import check_inputs, python_loss
from gvcore.train.rows import first_bad

__all__ = ["diagnose"]


def diagnose(
    net: Module, x: Any, y: Any, loss: Any, *, seed: int | np.random.SeedSequence | None = 0
) -> Report:
    r"""Measure how a batch and its gradient flow through a net; change nothing.

    One step of training without its update: batch norm uses the statistics of the batch and does not move
    the running ones, dropout drops by `seed`. Weights, running statistics and random states stay as they
    were, to the bit.

    Parameters
    ----------
    net : Module
    x : array_like of shape (batch, ...), or a tuple of them
        One batch; 64 to 256 rows of the training data tell enough.
    y : array_like
        What the loss wants.
    loss : a loss of `gvcore.nn`, or a callable ``(prediction, target) -> (loss, dprediction)``
    seed : int, numpy.random.SeedSequence or None, default 0
        Of dropout.

    Returns
    -------
    Report
        ``print`` it for a table, `Report.plot` it for a picture.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or x or y holds NaN or infinity (the first such index is named).

    Notes
    -----
    *Blocks.* A net is looked at as a chain: the modules that its ``forward`` calls, with the items of each
    plain `nn.Sequential` in its place; a chain of a single module is opened. `nn.Residual` and modules of
    your own are one link each. A block begins at every link that holds weight matrices; links without any
    (normalisation, activation, dropout) belong to the block before them, at the front to the first one. So
    ``Linear, BatchNorm, ReLU`` is a block, and so is a residual connection.

    *Growth per layer.* A layer is a weight matrix; of branches the deepest counts. With g the norm of the
    gradient with respect to a block's input, :math:`\log g` is fitted by a line over the number of layers
    before the block, whose slope is the median of the slopes between all pairs of blocks (Theil and Sen).
    Norms that are not finite, or that underflow has robbed of bits, are left out.

    *Verdict.* All gradient norms are compared with that before the last block whose norm is not 0. They may
    differ by a factor of 1,000, and in nets of more than ten layers by 100 for each layer: a power of
    the depth is what residual nets with batch norm and nets at a critical point have, and it does no harm;
    an exponential leaves this band soon. Above it the verdict is "exploding"; below it, or where all
    gradients are 0, "vanishing". An activation, loss or gradient that is not finite is "exploding" too.
    ``starts_at`` is the first module whose output is not finite; or the first block whose output is 0
    throughout and that passes no gradient; otherwise the block nearest to the output from which on, up to the
    worst one, all norms differ by more than a factor of 10. If the gradient of the loss itself is 0, the
    batch is fitted exactly and the verdict is "healthy".

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010. P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 1968.

    Examples
    --------
    >>> import gvcore as gv
    >>> from gvcore import nn
    >>> x, y = gv.datasets.digits()
    >>> deep = gv.models.mlp(64, 10, [64] * 20, activation="sigmoid", seed=0)
    >>> report = gv.diagnose(deep, x[:128], y[:128], nn.CrossEntropyLoss())
    >>> report.verdict, round(report.growth_per_layer, 2)
    ('vanishing', 0.24)
    >>> cured = gv.models.resnet(64, 10, width=64, depth=20, seed=0)
    >>> gv.diagnose(cured, x[:128], y[:128], nn.CrossEntropyLoss()).verdict
    'healthy'
    """
    if not isinstance(net, Module):
        raise TypeError(f"[diagnose] expected net to be a gvcore.nn.Module, got {type(net).__name__}")
    check_loss("diagnose", loss)
    key = as_seed(seed)
    check_inputs("diagnose", net, len(x) if isinstance(x, tuple) else 1)
    batch = as_batch("diagnose", x, y, net.dtype, loss)
    for part in batch.inputs:
        _require_finite("x", part, net.dtype)
    if batch.target.dtype.kind == "f":
        _require_finite("y", batch.target, batch.target.dtype)

    def settings(recorded: Recorded) -> dict[str, Any] | None:
        if isinstance(loss, Loss):
            fit_target("diagnose", batch, recorded.output_shape(), loss)
        return loss_settings(loss, batch.labels, recorded.output_shape())

    def run(core: Any, request: Any) -> float:
        if isinstance(loss, Loss):
            return float(core.step(batch.inputs, batch.target, None, None, request)[0])
        value, gradient = python_loss(loss, core.forward(batch.inputs, None, request), batch.target)
        core.backward(gradient, request)
        return value

    return probe(net, batch.shapes, len(batch.inputs[0]), settings, run, key)


def _require_finite(name: str, values: Input, dtype: np.dtype[Any]) -> None:
    if (bad := first_bad(values, dtype)) is not None:
        raise ValueError(f"[diagnose] expected {name} to be finite, got {bad[1]} at index {bad[0]}")

"""Loss and metrics at inference, chunk by chunk: only one chunk of predictions is in memory at a time.

Functions of the user, losses written in Python included, are the exception: they get all rows at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gvcore.data import Input
from gvcore.metrics import Running, Whole
from gvcore.nn.losses import Loss
from gvcore.nn.module import Module
from gvcore.train.batch import as_batch, fit_target
from gvcore.train.plans import python_loss

__all__ = ["Held", "Measure", "evaluate", "normaliser", "predict", "shares", "summed"]

Measure = Callable[[], Running] | Whole


@dataclasses.dataclass
class Held:
    """What to validate on: arrays, or some rows of them."""

    parts: tuple[Input, ...]
    target: NDArray[Any]
    rows: NDArray[np.int64] | None = None


_LossType = TypeVar("_LossType", bound=Loss)

_CHUNK = 1 << 20  # elements of the input that are run together
_FEWEST, _MOST = 256, 8192  # rows


def _chunk(parts: Sequence[Input]) -> int:
    each = max(1, sum(part.size // max(len(part), 1) for part in parts))
    return min(max(_CHUNK // each, _FEWEST), _MOST)


def summed(loss: _LossType) -> _LossType:
    """Return the loss with ``reduction="sum"``."""
    return dataclasses.replace(loss, reduction="sum")  # type: ignore[type-var]


def shares(loss: Loss, target: NDArray[Any], labels: bool, output: tuple[int, ...]) -> NDArray[np.float64]:
    """Return what each row adds to what a mean divides by: elements, or the weights of their classes."""
    native = loss.native()
    rows = len(target)
    if native["kind"] != "cross_entropy":
        return np.full(rows, float(np.prod(output)))
    if labels and native["weight"] is not None:
        each: NDArray[np.float64] = native["weight"][target.reshape(rows, -1)].sum(axis=1)
        return each
    return np.full(rows, float(np.prod(output[:-1])))


def normaliser(
    loss: Loss,
    target: NDArray[Any],
    labels: bool,
    output: tuple[int, ...],
    weights: NDArray[Any] | None = None,
) -> float:
    """Return what a mean of these rows divides by."""
    each = shares(loss, target, labels, output)
    return float(np.sum(each if weights is None else each * weights))


def predict(net: Module, parts: Sequence[Input], rows: int) -> Any:
    """Return the net's output for all rows, an array or a tuple of them, a chunk at a time."""
    chunk = _chunk(parts)
    if rows <= chunk:
        return net(*parts)
    results: list[NDArray[Any]] = []
    for first in range(0, rows, chunk):
        prediction = net(*(part[first : first + chunk] for part in parts))
        values = prediction if isinstance(prediction, tuple) else (prediction,)
        if not results:
            results = [np.empty((rows, *value.shape[1:]), value.dtype) for value in values]
        for result, value in zip(results, values, strict=True):
            result[first : first + chunk] = value
    return tuple(results) if isinstance(prediction, tuple) else results[0]


def _single(op: str, prediction: Any) -> NDArray[Any]:
    """Return the one output of a net, which its forward may have put into a tuple."""
    values: tuple[NDArray[Any], ...] = prediction if isinstance(prediction, tuple) else (prediction,)
    if len(values) != 1:
        raise ValueError(f"[{op}] expected forward to return one value, got {len(values)}")
    return values[0]


def evaluate(
    op: str,
    net: Module,
    loss: Any,
    parts: Sequence[Input],
    target: NDArray[Any],
    measures: Sequence[Measure],
    *,
    rows: NDArray[np.int64] | None = None,
    with_loss: bool = True,
) -> dict[str, float]:
    """Return the loss and the metrics over all rows, or over those given."""
    count = len(target) if rows is None else len(rows)
    running = [measure if isinstance(measure, Whole) else measure() for measure in measures]
    native = isinstance(loss, Loss)
    whole = with_loss and not native or any(isinstance(measure, Whole) for measure in running)
    kept: list[NDArray[Any]] = []
    total = divisor = 0.0
    chunk = _chunk(parts)
    for first in range(0, count, chunk):
        which: Any = slice(first, first + chunk) if rows is None else rows[first : first + chunk]
        prediction = _single(op, net(*(part[which] for part in parts)))
        wanted = target[which]
        if whole:
            kept.append(prediction)
        for measure in running:
            if isinstance(measure, Running):
                measure.update(prediction, wanted)
        if with_loss and native:
            value, by = _chunk_loss(op, loss, prediction, wanted, alone=count <= chunk)
            total, divisor = total + value, divisor + by
    result: dict[str, float] = {}
    everything = kept[0] if len(kept) == 1 else np.concatenate(kept) if kept else None
    known = target if rows is None else target[rows] if whole else target
    if with_loss:
        if native:
            result["loss"] = total / (divisor or 1.0)
        else:
            assert everything is not None
            result["loss"] = python_loss(loss, everything, known)[0]
    for measure in running:
        if isinstance(measure, Running):
            result[measure.name] = measure.result()
        else:
            assert everything is not None
            result[measure.name] = measure(everything, known)
    return result


def _chunk_loss(
    op: str, loss: Loss, prediction: NDArray[Any], target: NDArray[Any], *, alone: bool
) -> tuple[float, float]:
    """Return the loss of some rows, and by what the sum over chunks is to be divided."""
    batch = as_batch(op, prediction, target, prediction.dtype, loss)
    fit_target(op, batch, prediction.shape[1:], loss)
    if loss.native()["kind"] == "cross_entropy" and prediction.ndim > 2:  # each position counts as a row
        prediction = prediction.reshape(-1, prediction.shape[-1])
    shaped = batch.target.reshape(prediction.shape[:-1] if batch.labels else prediction.shape)
    if alone:
        return loss(prediction, shaped)[0], 1.0
    value = summed(loss)(prediction, shaped)[0]
    if loss.reduction == "sum":
        return value, 0.0
    return value, normaliser(loss, shaped, batch.labels, prediction.shape[1:])

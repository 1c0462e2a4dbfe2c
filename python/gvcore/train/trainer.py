"""The training loop: epochs, batches, validation, metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcore import _core
from gvcore._settings import boolean, integer
from gvcore.data import train_test_split
from gvcore.nn.losses import Loss
from gvcore.nn.module import Module
from gvcore.optim import Optimizer
from gvcore.seeding import as_seed
from gvcore.train.batch import Batch, as_batch
from gvcore.train.history import History
from gvcore.train.step import TrainStep

__all__ = ["Trainer"]

_SHUFFLE_SITE = 0x53485546
_VALIDATION_SITE = 0x56414C49
Metric = Callable[[NDArray[Any], NDArray[Any]], float]


def _accuracy(prediction: NDArray[Any], target: NDArray[Any]) -> float:
    if prediction.ndim == target.ndim and prediction.shape == target.shape:
        target = target.argmax(axis=-1)
    return float(np.mean(prediction.argmax(axis=-1) == target.reshape(prediction.shape[:-1])))


_METRICS: dict[str, Metric] = {"accuracy": _accuracy}


def _metrics(given: Any) -> list[tuple[str, Metric]]:
    found = []
    for metric in (given,) if isinstance(given, str) else given:
        if callable(metric):
            found.append((getattr(metric, "__name__", type(metric).__name__), metric))
        elif metric in _METRICS:
            found.append((metric, _METRICS[metric]))
        else:
            raise ValueError(
                f"[fit] expected metrics among {', '.join(_METRICS)} or functions, got {metric!r}"
            )
    return found


def _require_finite(name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"[fit] expected {name} to be finite, got {array[at]} at index {at}")


def _starts(rows: int, batch_size: int, drop_last: bool, lone_row: bool) -> list[tuple[int, int]]:
    """Return (first, last) of each batch; with `lone_row` a last batch of one row joins the one before it."""
    cuts = [(at, min(at + batch_size, rows)) for at in range(0, rows, batch_size)]
    if drop_last and cuts[-1][1] - cuts[-1][0] < batch_size and len(cuts) > 1:
        cuts.pop()
    elif lone_row and len(cuts) > 1 and cuts[-1][1] - cuts[-1][0] == 1:
        cuts.pop()
        cuts[-1] = (cuts[-1][0], rows)
    return cuts


class Trainer:
    """Train a net on arrays for some epochs.

    Parameters
    ----------
    net : Module
    loss : a loss of `gvcore.nn`, or a callable ``(prediction, target) -> (loss, dprediction)``
    optimizer : SGD, Adam or AdamW
        A schedule whose ``total_steps`` is None is given the length of the first `fit`.
    clip_norm : float, optional
        See `TrainStep`.
    seed : int, numpy.random.SeedSequence or None
        Of the shuffling, the validation split and dropout.
    telemetry : bool, default True
        Whether the history keeps a record per step.

    Examples
    --------
    >>> import gvcore as gv
    >>> from gvcore import nn
    >>> x, y = gv.datasets.digits()
    >>> net = gv.models.mlp(64, 10, [32], seed=0)
    >>> trainer = gv.Trainer(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1, momentum=0.9), seed=0)
    >>> history = trainer.fit(x, y, epochs=3, batch_size=64, validation=0.2, metrics=["accuracy"])
    >>> history.epoch[-1]["val_accuracy"] > 0.85
    True
    """

    def __init__(
        self,
        net: Module,
        loss: Any,
        optimizer: Optimizer,
        *,
        clip_norm: float | None = None,
        seed: int | np.random.SeedSequence | None = None,
        telemetry: bool = True,
    ) -> None:
        self.seed = as_seed(seed)
        self.telemetry = boolean("Trainer", "telemetry", telemetry)
        self.step = TrainStep(net, loss, optimizer, clip_norm=clip_norm, seed=self.seed)
        self.net, self.loss = net, loss
        self.history = History()
        self._epochs = 0

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: int,
        batch_size: int,
        validation: float | tuple[Any, Any] | None = None,
        sample_weight: Any = None,
        shuffle: bool = True,
        drop_last: bool = False,
        metrics: Sequence[str | Metric] = (),
        callbacks: Sequence[Callable[[Trainer], Any]] = (),
    ) -> History:
        """Train for `epochs` passes over the data; a second call continues.

        Parameters
        ----------
        x : array_like of shape (samples, ...)
        y : array_like
            Labels or values, one row per sample.
        epochs : int
        batch_size : int
            Batches are gathered from x and y in C++. A last batch of one row joins the one before it, if
            the net has batch norm.
        validation : float or (x, y), optional
            A share of the samples set apart (drawn by the seed, the same in every call), or a pair of arrays.
        sample_weight : array_like of shape (samples,), optional
        shuffle : bool, default True
            Draw a new order in each epoch.
        drop_last : bool, default False
            Leave out a last batch that is smaller.
        metrics : sequence of str or callable
            ``"accuracy"``, or functions of (prediction, target), evaluated after each epoch.
        callbacks : sequence of callable
            Each is called with the trainer after each epoch; returning True stops training.

        Returns
        -------
        History
            Of this and all earlier calls; also ``trainer.history``.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or x or y holds NaN or infinity (the first such index is named).
        FloatingPointError
            If the loss stops being finite; the last weights are kept.
        """
        epochs = integer("fit", "epochs", epochs, at_least=0)
        batch_size = integer("fit", "batch_size", batch_size, at_least=1)
        shuffle, drop_last = boolean("fit", "shuffle", shuffle), boolean("fit", "drop_last", drop_last)
        measures = _metrics(metrics)
        data = as_batch("fit", x, y, self.net.dtype, self.loss, sample_weight)
        for part in data.inputs:
            _require_finite("x", part)
        _require_finite("y", np.asarray(data.target))
        rows = np.arange(len(data.inputs[0]), dtype=np.int64)
        held: tuple[Any, Any] | None = None
        if isinstance(validation, tuple):
            held = validation
        elif validation is not None:
            key = np.random.SeedSequence([self.seed, _VALIDATION_SITE])
            rows, apart = train_test_split(rows, test_size=validation, seed=key)
            parts = tuple(part[apart] for part in data.inputs)
            held = (parts if len(parts) > 1 else parts[0], np.asarray(data.target)[apart])
        cuts = _starts(len(rows), batch_size, drop_last, self._normalises())
        if epochs and self.step.optimizer.needs_total_steps:
            self.step.optimizer = self.step.optimizer.with_total_steps(self.step.updates + epochs * len(cuts))
        for _ in range(epochs):
            self._epoch(data, rows, cuts, shuffle, held, measures)
            answers = [callback(self) for callback in callbacks]
            if any(answer is True for answer in answers):
                break
        return self.history

    def _normalises(self) -> bool:
        from gvcore.nn import BatchNorm

        return any(isinstance(module, BatchNorm) for _, module in self.net.named_modules())

    def _epoch(
        self,
        data: Batch,
        rows: NDArray[np.int64],
        cuts: list[tuple[int, int]],
        shuffle: bool,
        held: tuple[Any, Any] | None,
        measures: list[tuple[str, Metric]],
    ) -> None:
        began = time.perf_counter()
        order = (
            rows[_core.permutation(len(rows), self.seed, _SHUFFLE_SITE + self._epochs)] if shuffle else rows
        )
        batch = Batch(data.inputs, data.target, data.labels, data.sample_weight)
        total, rate = 0.0, 0.0
        for first, last in cuts:
            batch.order = order[first:last]
            rate = self.step.optimizer.lr_at(self.step.updates)
            loss = self.step.run(batch, lr=rate)
            total += loss * (last - first)
            if self.telemetry:
                self.history.step.append({"step": self.step.updates, "loss": loss, "lr": rate})
        self._epochs += 1
        record: dict[str, Any] = {"epoch": self._epochs, "loss": total / cuts[-1][1], "lr": rate}
        if measures:
            inputs = [part[rows] for part in data.inputs]
            record |= self._measure(inputs, np.asarray(data.target)[rows], measures, "")
        if held is not None:
            record |= {f"val_{k}": v for k, v in self._evaluate(*held, measures).items()}
        record["seconds"] = time.perf_counter() - began
        self.history.epoch.append(record)

    def _measure(
        self,
        inputs: list[NDArray[Any]],
        target: NDArray[Any],
        measures: list[tuple[str, Metric]],
        prefix: str,
    ) -> dict[str, float]:
        prediction = self.net(*inputs)
        return {prefix + name: float(metric(prediction, target)) for name, metric in measures}

    def _evaluate(self, x: Any, y: Any, measures: list[tuple[str, Metric]]) -> dict[str, float]:
        data = as_batch("evaluate", x, y, self.net.dtype, self.loss)
        prediction = self.net(*data.inputs)
        target = data.target if isinstance(self.loss, Loss) else y
        loss = self.loss(prediction, _shaped(target, prediction, data.labels))[0]
        return {"loss": float(loss), **{name: float(metric(prediction, target)) for name, metric in measures}}

    def predict(self, x: Any) -> NDArray[Any]:
        """Return the net's output for x (inference)."""
        result: NDArray[Any] = self.net(*(x if isinstance(x, tuple) else (x,)))
        return result

    def evaluate(self, x: Any, y: Any, *, metrics: Sequence[str | Metric] = ()) -> dict[str, float]:
        """Return the loss on x and y at inference, and the metrics asked for.

        Examples
        --------
        >>> import numpy as np
        >>> import gvcore as gv
        >>> from gvcore import nn
        >>> trainer = gv.Trainer(nn.Linear(1, 1, init="ones"), nn.MSELoss(), gv.optim.SGD(lr=0.1))
        >>> trainer.evaluate(np.array([[1.0]]), np.array([[3.0]]))
        {'loss': 4.0}
        """
        return self._evaluate(x, y, _metrics(metrics))


def _shaped(target: Any, prediction: NDArray[Any], labels: bool) -> Any:
    """Give a target the shape of the prediction where only axes of length 1 differ."""
    array = np.asarray(target)
    wanted = prediction.shape[:-1] if labels else prediction.shape
    return array.reshape(wanted) if array.size == int(np.prod(wanted)) and array.shape != wanted else target

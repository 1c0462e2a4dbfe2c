"""The training loop: epochs, validation, metrics, callbacks, and what happens when something goes wrong.

The steps themselves are in C++ (step.py), stretches of them and the way back in loop.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gvcore import _core
from gvcore._settings import boolean, integer
from gvcore.callbacks import Callback
from gvcore.data import Input, as_array
from gvcore.metrics import MetricLike, Whole, resolve
from gvcore.nn.losses import Loss
from gvcore.nn.module import Module
from gvcore.optim import Optimizer
from gvcore.seeding import as_seed
from gvcore.train.batch import Batch, as_parts
from gvcore.train.epoch import Run, says_stop
from gvcore.train.evaluation import Held, Measure, evaluate, predict
from gvcore.train.history import History
from gvcore.train.loop import Averaging, Interrupts, Progress
from gvcore.train.plans import check_inputs, fixed, uncopied
from gvcore.train.rows import Unread, check_finite, cut, prepare, split
from gvcore.train.step import TrainStep

__all__ = ["Trainer"]

_SHUFFLE_SITE = 0x53485546


class _EachEpoch(Callback):
    """A plain function as a callback."""

    def __init__(self, function: Callable[[Trainer], Any]) -> None:
        self._function = function

    def on_epoch_end(self, trainer: Trainer) -> bool | None:
        return says_stop(self._function(trainer))


def _callbacks(given: Any) -> list[Callback]:
    found: list[Callback] = []
    if given is None:
        return found
    if isinstance(given, Callback) or callable(given) or not isinstance(given, Iterable):
        given = [given]
    for callback in given:
        if isinstance(callback, Callback):
            found.append(callback)
        elif callable(callback) and not isinstance(callback, type):
            found.append(_EachEpoch(callback))
        else:
            raise TypeError(
                "[fit] expected callbacks to be objects of gvcore.callbacks or functions of the trainer, "
                f"got {callback!r}"
            )
    return found


def _warn_if_all_rates_are_zero(optimizer: Optimizer, first: int, count: int) -> None:
    """Warn of a schedule that gives 0 in all updates; of many, a thousand spread over them are looked at."""
    asked = np.unique(np.linspace(first, first + count - 1, min(count, 1000)).astype(np.int64)).tolist()
    if not asked or isinstance(optimizer.lr, float) or any(optimizer.lr_at(step) > 0.0 for step in asked):
        return
    warnings.warn(
        f"[fit] expected a schedule with rates above 0, got 0 in all {count:,} updates from step {first + 1} "
        "on, so that nothing is learned; give total_steps for all calls of fit together to the schedule, or "
        "make a new Trainer of the net",
        RuntimeWarning,
        stacklevel=3,
    )


class Trainer:
    """Train a net on arrays for some epochs.

    Parameters
    ----------
    net : Module
    loss : a loss of `gvcore.nn`, or a callable ``(prediction, target) -> (loss, dprediction)``
        A callable gets arrays; it makes each step two native calls.
    optimizer : SGD, Adam or AdamW
        A schedule whose ``total_steps`` is None is given the length of the first `fit` that trains.
    clip_norm : float, optional
        See `TrainStep`.
    seed : int, numpy.random.SeedSequence or None
        Of the shuffling, the validation split and dropout.
    telemetry : bool, default True
        Whether the history keeps a record per step.
    checkpoint_every : int, optional
        Compute activations again in backward instead of keeping them: less memory for the same bits, see
        `TrainStep`.

    Attributes
    ----------
    net, loss
        As given; they cannot be replaced.
    step : TrainStep
        What does the steps; ``step.updates`` counts them, ``step.optimizer`` has the schedule in use.
    history : History
        Of all calls of `fit`.
    last_step : dict
        ``step``, ``loss`` and ``lr`` of the last update; for callbacks, up to date in `Callback.on_step_end`.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range.

    Notes
    -----
    Ctrl-C ends `fit` with KeyboardInterrupt, at most a tenth of a second or one step later; net, optimiser
    and history then hold all steps that were done. An epoch that did not come to its end has step records
    but no epoch record. The same holds when a callback, a metric or a loss of the user raises; the exception
    reaches the caller as it is. A later `fit` goes on from there.

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
        checkpoint_every: int | None = None,
    ) -> None:
        self.seed = as_seed(seed)  # drawn once where it is None: the step has the same
        self.telemetry = telemetry
        self.step = TrainStep(
            net, loss, optimizer, clip_norm=clip_norm, seed=self.seed, checkpoint_every=checkpoint_every
        )
        self.history = History()
        self.last_step: dict[str, Any] = {}
        self._passes = 0  # epochs begun: each has an order of its own, also after an interruption
        self._stopping = False
        self._fitting = False

    def __reduce__(self) -> NoReturn:
        raise uncopied("Trainer")

    @property
    def net(self) -> Module:
        """The net, as given."""
        return self.step.net

    @net.setter
    def net(self, value: NoReturn) -> None:
        raise fixed("Trainer", "net")

    @property
    def loss(self) -> Any:
        """The loss, as given."""
        return self.step.loss

    @loss.setter
    def loss(self, value: NoReturn) -> None:
        raise fixed("Trainer", "loss")

    @property
    def seed(self) -> int:
        """Of the shuffling and the validation split; may be changed. That of dropout is ``step.seed``."""
        return self._seed

    @seed.setter
    def seed(self, value: int | np.random.SeedSequence | None) -> None:
        self._seed = as_seed(value)

    @property
    def telemetry(self) -> bool:
        """Whether the history keeps a record per step; may be changed."""
        return self._telemetry

    @telemetry.setter
    def telemetry(self, value: bool) -> None:
        self._telemetry = boolean("Trainer", "telemetry", value)

    def stop(self) -> None:
        """End training after the current step; its epoch is measured as far as it came. For callbacks."""
        self._stopping = True

    def fit(
        self,
        x: ArrayLike | tuple[ArrayLike, ...],
        y: ArrayLike,
        *,
        epochs: int,
        batch_size: int,
        validation: float | tuple[Any, Any] | None = None,
        sample_weight: ArrayLike | None = None,
        class_weight: dict[Any, float] | str | None = None,
        accumulate: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
        metrics: Sequence[MetricLike] = (),
        callbacks: Sequence[Callback | Callable[[Trainer], Any]] | None = (),
    ) -> History:
        """Train for `epochs` passes over the data.

        A second call continues: weights, optimiser, schedule, numbering of steps and epochs go on from where
        they are. A schedule whose length was filled in by the first call stays at its end then; give
        ``total_steps`` for all calls together to a schedule that should go on. A RuntimeWarning tells of a
        schedule that gives 0 from the first to the last update.

        Parameters
        ----------
        x : array_like of shape (rows, ...), or a tuple of them for a net with several inputs
            float16/32/64, integer or bool, `scaled` or not. Used as it lies, a memory map too: the rows of a
            batch are converted to the dtype of the net when they are gathered. Only an array whose
            trailing axes are not contiguous or in another byte order is copied at the start.
        y : array_like
            What the loss wants, one entry per row. Labels for `nn.CrossEntropyLoss` are 0, 1, … below the
            number of the net's outputs; a class without rows, or all rows of one class, are no error.
        epochs : int
            With 0, arguments are checked and nothing else happens.
        batch_size : int
            Rows of a batch. Batches are gathered from x and y in C++. A last batch of one row joins the one
            before it. With more than there are rows, all rows are one batch.
        validation : float or (x, y), optional
            A share of the rows in (0, 1), which is set apart (drawn by the seed, the same in every call),
            or a pair of arrays. With integer labels the share is stratified: drawn from each class in
            proportion, if every class has two rows and both parts can hold one of each.
        sample_weight : array_like of shape (rows,), optional
            How much each row counts in the loss, finite and >= 0; a mean is divided by the sum of the
            weights of its batch. Rows of weight 0 are left out. Validation is not weighted.
        class_weight : dict of label -> weight, or "balanced", optional
            Multiplies the weights of the rows by those of their labels, 1 for labels not named;
            ``"balanced"`` gives n / (classes · rows of the class), over the classes that have rows.
        accumulate : int, default 1
            How many batches make one update, by the gradient of the mean over all of their rows: as with
            a batch so many times larger, in the memory of one. Only batch norm sees the small ones. With a
            loss of reduction "sum" gradients add up; one written in Python is taken for a mean over rows.
            The last update of an epoch has the batches that are left.
        shuffle : bool, default True
            Draw a new order in each epoch.
        drop_last : bool, default False
            Leave out a last batch that is smaller, unless it is the only one.
        metrics : sequence of str or callable
            ``"accuracy"``, ``"top_5"`` (any number), ``"rmse"``, ``"mae"``, ``"r2"``, or functions of
            (prediction, target) under their ``__name__``. They are measured after each epoch, at inference,
            on the rows trained on, which takes about a third of the epoch's time, and on the validation set.
        callbacks : sequence of Callback or callable, optional
            See `gvcore.callbacks`. A plain function is called with the trainer after each epoch; returning
            True stops training.

        Returns
        -------
        History
            Of this and all earlier calls; also ``trainer.history``.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or x or y holds NaN or infinity; the first such index is named.
            Memory maps are looked at when their rows are about to be used, so for them this may come later.
        FloatingPointError
            If the loss or the weights stop being finite. The text names the step, the first bad layer and
            the likely cause; net and optimiser are as they were before that step.
        KeyboardInterrupt
            On Ctrl-C; see the notes of `Trainer`.
        """
        op = "fit"
        epochs = integer(op, "epochs", epochs, at_least=0)
        batch_size = integer(op, "batch_size", batch_size, at_least=1)
        accumulate = integer(op, "accumulate", accumulate, at_least=1)
        shuffle, drop_last = boolean(op, "shuffle", shuffle), boolean(op, "drop_last", drop_last)
        measures = resolve(op, metrics)
        hooks = _callbacks(callbacks)
        if self._fitting:
            raise RuntimeError("[fit] expected no fit of this trainer to be running already")
        check_inputs(op, self.net, len(x) if isinstance(x, tuple) else 1)
        data = prepare(op, x, y, self.net.dtype, self.loss, sample_weight, class_weight)
        unread = Unread(op, data, self.net.dtype)
        rows, held = self._parts(data, validation)
        self._check(data, held, measures, class_weight, stored=accumulate > 1)
        cuts = cut(len(rows), batch_size, drop_last)
        marks = np.append(np.arange(0, len(cuts) - 1, accumulate), len(cuts) - 1)
        given, updates = self.step.optimizer, self.step.updates
        filled = given.with_total_steps(updates + epochs * (len(marks) - 1)) if epochs else given
        _warn_if_all_rates_are_zero(filled, updates, epochs * (len(marks) - 1))
        averaging = Averaging(self.step) if accumulate > 1 else None
        progress = Progress(epochs, len(marks) - 1)
        self.step._optimizer = filled
        self._fitting, self._stopping = True, False
        try:
            with Interrupts() as interrupts:
                run = Run(self, data, rows, unread, held, measures, hooks, averaging, interrupts, progress)
                for hook in hooks:
                    hook.on_fit_begin(self)
                for number in range(epochs):
                    if self._stopping:
                        break
                    progress.epoch(number + 1)
                    for hook in hooks:
                        hook.on_epoch_begin(self)
                    run.epoch(self._order(rows, shuffle), cuts, marks)
                    # All of them are called, whatever the first says.
                    answers = [hook.on_epoch_end(self) for hook in hooks]
                    if any(says_stop(answer) for answer in answers):
                        break
                for hook in hooks:
                    hook.on_fit_end(self)
        finally:
            self._fitting = False
            progress.close()
            for hook in hooks:
                hook._on_fit_left(self)
            if self.step.updates == updates:  # the length is that of a fit that trains
                self.step._optimizer = given
        return self.history

    def _parts(self, data: Batch, validation: Any) -> tuple[NDArray[np.int64], Held | None]:
        """Return the rows to train on, and the arrays to validate on."""
        rows = np.arange(len(data.inputs[0]), dtype=np.int64)
        held: Held | None = None
        if isinstance(validation, (tuple, list)):
            if len(validation) != 2:
                raise ValueError(
                    f"[fit] expected validation to be a share or a pair (x, y), got {len(validation)} values"
                )
            other = prepare("fit", validation[0], validation[1], self.net.dtype, self.loss)
            for part in other.inputs:
                check_finite("fit", "validation", part, self.net.dtype)
            if other.target.dtype.kind == "f":
                check_finite("fit", "validation", other.target, other.target.dtype)
            held = Held(tuple(other.inputs), other.target)
        elif validation is not None:
            rows, apart = split("fit", data, validation, self.seed)
            held = Held(tuple(data.inputs), data.target, apart)
        if data.sample_weight is not None:
            rows = rows[data.sample_weight[rows] > 0]
            if len(rows) == 0:
                raise ValueError("[fit] expected sample_weight to leave rows to train on, got weights of 0")
        return rows, held

    def _check(
        self,
        data: Batch,
        held: Held | None,
        measures: Sequence[Measure],
        class_weight: dict[Any, float] | str | None,
        *,
        stored: bool,
    ) -> None:
        """Check shapes, labels and metrics before anything happens."""
        stored = stored or self.step.clip_norm is not None
        plan = self.step._ready(data, stored=stored)
        targets = [data.target] if held is None else [data.target, held.target]
        if data.labels:
            classes = plan.output[-1]
            for label in class_weight if isinstance(class_weight, Mapping) else ():
                if not 0 <= label < classes:
                    raise ValueError(
                        f"[cross_entropy] expected labels in [0, {classes}), got {label} in class_weight"
                    )
            for target in targets:
                if target.dtype.kind != "i" or not target.size:
                    continue
                if target.min() < 0 or target.max() >= classes:
                    at = int(np.flatnonzero((target < 0) | (target >= classes))[0])
                    raise ValueError(
                        f"[cross_entropy] expected labels in [0, {classes}), got {target.reshape(-1)[at]} in "
                        f"row {at * len(target) // target.size}; classes, y = numpy.unique(y, "
                        "return_inverse=True) numbers the classes"
                    )
        if held is not None:
            labels = isinstance(self.loss, Loss) and held.target.dtype.kind == "i"
            self.step._ready(Batch(list(held.parts), held.target, labels), stored=stored)
        for measure in measures:
            if not isinstance(measure, Whole):
                measure().update(np.zeros((1, *plan.output), plan.recorded.dtype), targets[0][:1])

    def _order(self, rows: NDArray[np.int64], shuffle: bool) -> NDArray[np.int64]:
        self._passes += 1
        if not shuffle:
            return rows
        return rows[_core.permutation(len(rows), self.seed, _SHUFFLE_SITE + self._passes - 1)]

    def predict(self, x: ArrayLike | tuple[ArrayLike, ...]) -> Any:
        """Return the net's output for x, at inference.

        Parameters
        ----------
        x : array_like of shape (rows, ...), or a tuple of them
            As in `fit`; any number of rows.

        Returns
        -------
        ndarray of shape (rows, ...), or tuple of ndarray
            What ``forward`` returns, in the dtype of the net. A row's result does not depend on the others.

        Raises
        ------
        TypeError, ValueError
            If x has the wrong dtype or shape, or is not as many inputs as ``forward`` takes.

        Examples
        --------
        >>> import numpy as np
        >>> import gvcore as gv
        >>> from gvcore import nn
        >>> trainer = gv.Trainer(nn.Linear(1, 1, init="ones"), nn.MSELoss(), gv.optim.SGD(lr=0.1))
        >>> trainer.predict(np.array([[1.0], [2.0]]))
        array([[1.],
               [2.]], dtype=float32)
        """
        parts, rows = _inputs("predict", self.net, x)
        return predict(self.net, parts, rows)

    def evaluate(
        self, x: ArrayLike | tuple[ArrayLike, ...], y: ArrayLike, *, metrics: Sequence[MetricLike] = ()
    ) -> dict[str, float]:
        """Return the loss on x and y at inference, and the metrics asked for.

        Parameters
        ----------
        x, y, metrics
            As in `fit`.

        Returns
        -------
        dict of str to float
            ``"loss"`` and the metrics by name. NaN and infinity in x propagate.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or ``forward`` returns several values.

        Examples
        --------
        >>> import numpy as np
        >>> import gvcore as gv
        >>> from gvcore import nn
        >>> trainer = gv.Trainer(nn.Linear(1, 1, init="ones"), nn.MSELoss(), gv.optim.SGD(lr=0.1))
        >>> trainer.evaluate(np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]]), metrics=["mae"])
        {'loss': 4.0, 'mae': 2.0}
        """
        op = "evaluate"
        measures = resolve(op, metrics)
        parts, rows = _inputs(op, self.net, x)
        target = as_array(op, "y", y)
        if target.ndim == 0 or len(target) != rows:
            raise ValueError(f"[{op}] expected y with {rows} rows as in x, got shape {target.shape}")
        if rows == 0:
            raise ValueError(f"[{op}] expected at least one row, got x of shape {parts[0].shape}")
        return evaluate(op, self.net, self.loss, parts, target, measures)


def _inputs(op: str, net: Module, x: Any) -> tuple[tuple[Input, ...], int]:
    parts = tuple(as_parts(op, x))
    check_inputs(op, net, len(parts))
    if any(part.ndim == 0 for part in parts):
        raise ValueError(f"[{op}] expected x of shape (rows, …), got {[part.shape for part in parts]}")
    if any(len(part) != len(parts[0]) for part in parts):
        raise ValueError(f"[{op}] expected inputs of one length, got {[part.shape for part in parts]}")
    return parts, len(parts[0])

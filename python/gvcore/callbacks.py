"""What may happen between the steps of training: stop early, keep the best weights, write a log.

A callback is a `Callback`, or a plain function of the trainer, called after each epoch. An exception in one
stops training, leaves net and trainer as they are, and reaches the caller of `gvcore.Trainer.fit` unchanged.
"""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gvcore._settings import boolean, choice, integer, real

if TYPE_CHECKING:
    from gvcore.train.trainer import Trainer

__all__ = ["CSVLogger", "Callback", "Checkpoint", "EarlyStopping", "LearningRateLogger", "Timer"]


class Callback:
    """What all callbacks share; derive from it and write the hooks that you need.

    A hook gets the trainer, which has ``net``, ``history`` and ``stop()``. Returning True from `on_step_end`
    or `on_epoch_end` stops training as well. `on_step_end` makes training come back to Python after each
    step; with all other hooks the steps of an epoch run on in native code.

    Examples
    --------
    >>> import gvcore as gv
    >>> class Announce(gv.callbacks.Callback):
    ...     def on_epoch_end(self, trainer):
    ...         print("epoch", trainer.history.epoch[-1]["epoch"])
    >>> x, y = gv.datasets.digits()
    >>> net = gv.models.mlp(64, 10, [16], seed=0)
    >>> trainer = gv.Trainer(net, gv.nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1), seed=0)
    >>> history = trainer.fit(x, y, epochs=2, batch_size=100, callbacks=[Announce()])
    epoch 1
    epoch 2
    """

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Called before the first epoch of each `fit`."""

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Called before each epoch."""

    def on_step_end(self, trainer: Trainer) -> bool | None:
        """Called after each update, whose record is ``trainer.last_step``; returning True stops training."""
        return None

    def on_epoch_end(self, trainer: Trainer) -> bool | None:
        """Called after each epoch, validation included; returning True stops training.

        The record of the epoch is ``trainer.history.epoch[-1]``.
        """
        return None

    def on_fit_end(self, trainer: Trainer) -> None:
        """Called when training ends by itself or was stopped by a callback; not after an error or Ctrl-C."""

    def _on_fit_left(self, trainer: Trainer) -> None:
        """Called last of all, after an error or Ctrl-C as well."""


class _Best:
    """Which epoch was the best so far by one of the numbers in its record."""

    def __init__(self, op: str, monitor: str, mode: str | None, min_delta: float = 0.0) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"[{op}] expected monitor to be a name (str), got {monitor!r}")
        if mode is None:
            plain = monitor.removeprefix("val_")
            mode = "max" if plain in ("accuracy", "r2") or plain.startswith("top_") else "min"
        self.op, self.monitor = op, monitor
        self.sign = 1.0 if choice(op, "mode", mode, ("min", "max")) == "min" else -1.0
        self.min_delta = min_delta
        self.value = math.nan

    def improved(self, trainer: Trainer) -> bool:
        """Look at the last record; NaN is never an improvement."""
        record = trainer.history.epoch[-1]
        if self.monitor not in record:
            hint = "; pass validation= to fit" if self.monitor.startswith("val_") else ""
            raise ValueError(
                f"[{self.op}] expected monitor to be a number of the epoch's record "
                f"({', '.join(record)}), got {self.monitor!r}{hint}"
            )
        value = float(record[self.monitor])
        if math.isnan(value):
            return False
        if math.isnan(self.value) or self.sign * value < self.sign * self.value - self.min_delta:
            self.value = value
            return True
        return False


class EarlyStopping(Callback):
    """Stop when a number has not improved for some epochs, and go back to the best weights.

    Parameters
    ----------
    monitor : str, default "val_loss"
        A key of the epoch's record: ``"loss"``, a metric, or either with ``val_``.
    patience : int, default 5
        How many epochs in a row without improvement end training; at least 1.
    min_delta : float, default 0.0
        An improvement is a change by more than this.
    mode : {"min", "max"}, optional
        Whether smaller or larger is better; None: larger for accuracy, top_k and r2, else smaller.
    restore_best : bool, default True
        Whether `on_fit_end` puts back parameters and running statistics of the best epoch, also when all
        epochs have run. The optimiser's state stays as it is. After an error or Ctrl-C nothing is put back.

    Attributes
    ----------
    best_value, best_epoch : float, int
        Of the current or last `fit`; NaN and 0 before the first epoch. Each `fit` starts anew.
    stopped : bool
        Whether it was this callback that ended training.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range; and after the first epoch, if its
        record has no `monitor`.

    Examples
    --------
    >>> import gvcore as gv
    >>> x, y = gv.datasets.digits()
    >>> net = gv.models.mlp(64, 10, [32], seed=0)
    >>> trainer = gv.Trainer(net, gv.nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.5, momentum=0.9), seed=0)
    >>> stop = gv.callbacks.EarlyStopping(patience=2)
    >>> history = trainer.fit(x, y, epochs=100, batch_size=50, validation=0.3, callbacks=[stop])
    >>> stop.best_epoch == len(history.epoch) - 2 < 98
    True
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best: bool = True,
    ) -> None:
        op = "EarlyStopping"
        self._settings = (op, monitor, mode, real(op, "min_delta", min_delta, at_least=0.0))
        self.patience = integer(op, "patience", patience, at_least=1)
        self.restore_best = boolean(op, "restore_best", restore_best)
        self._start()

    def _start(self) -> None:
        self._best = _Best(*self._settings)
        self._weights: dict[str, NDArray[Any]] | None = None
        self._waited = 0
        self.best_epoch = 0
        self.stopped = False

    @property
    def best_value(self) -> float:
        """The best value of `monitor` so far."""
        return self._best.value

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Forget earlier calls of `fit`."""
        self._start()

    def on_epoch_end(self, trainer: Trainer) -> bool | None:
        """Compare with the best epoch; return True when patience is at its end."""
        if self._best.improved(trainer):
            self.best_epoch, self._waited = trainer.history.epoch[-1]["epoch"], 0
            if self.restore_best:
                self._weights = trainer.net.state_dict()
            return None
        self._waited += 1
        self.stopped = self._waited >= self.patience
        return self.stopped

    def on_fit_end(self, trainer: Trainer) -> None:
        """Put the best weights back."""
        if self._weights is not None and self._waited > 0:
            trainer.net.load_state_dict(self._weights)
        self._weights = None


class Checkpoint(Callback):
    """Save the weights after epochs, or let a function do it.

    Parameters
    ----------
    target : path, or callable
        A file for ``numpy.savez`` with parameters and running statistics by name; what
        ``net.load_state_dict(dict(numpy.load(path)))`` takes back. Fields such as ``{epoch}`` or
        ``{val_loss:.3f}`` are filled in from the epoch's record. The file is replaced at once, never half
        written. A callable gets the trainer and saves what it likes.
    monitor : str, optional
        Save only when this key of the epoch's record is better than before; None: always.
    mode : {"min", "max"}, optional
        As for `EarlyStopping`.
    every : int, default 1
        Look only at each so many-th epoch.

    Attributes
    ----------
    saved : list
        The paths written, or the epochs for which the callable was called.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range; and after the first epoch, if its
        record has no `monitor` or no field of the path.
    OSError
        After an epoch, if the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import gvcore as gv
    >>> net = gv.nn.Linear(1, 1)
    >>> trainer = gv.Trainer(net, gv.nn.MSELoss(), gv.optim.SGD(lr=0.1), seed=0)
    >>> x = np.ones((4, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keep = gv.callbacks.Checkpoint(pathlib.Path(folder, "epoch{epoch:02d}.npz"))
    ...     history = trainer.fit(x, x, epochs=2, batch_size=4, callbacks=[keep])
    ...     net.load_state_dict(dict(np.load(keep.saved[0])))
    ...     [path.name for path in keep.saved]
    ['epoch01.npz', 'epoch02.npz']
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | Callable[[Trainer], Any],
        monitor: str | None = None,
        mode: str | None = None,
        every: int = 1,
    ) -> None:
        op = "Checkpoint"
        if not callable(target):
            target = os.fspath(target) if isinstance(target, (str, os.PathLike)) else target
            if not isinstance(target, str):
                raise TypeError(f"[{op}] expected a path or a function of the trainer, got {target!r}")
            _check_fields(target)
        self.target = target
        self._best = None if monitor is None else _Best(op, monitor, mode)
        self.every = integer(op, "every", every, at_least=1)
        self.saved: list[Any] = []

    def on_epoch_end(self, trainer: Trainer) -> bool | None:
        """Save if it is time and the epoch is good enough."""
        record = trainer.history.epoch[-1]
        if record["epoch"] % self.every == 0 and (self._best is None or self._best.improved(trainer)):
            if callable(self.target):
                self.target(trainer)
                self.saved.append(record["epoch"])
            else:
                self.saved.append(_save(_filled(self.target, record), trainer.net.state_dict()))
        return None


class _AnyRecord(dict[str, Any]):
    """A record that has every name: which ones an epoch's has is not known before its end."""

    def __missing__(self, name: str) -> float:
        return 1 if name in ("epoch", "step") else 1.0


def _check_fields(pattern: str) -> None:
    try:
        pattern.format_map(_AnyRecord())
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"[Checkpoint] expected a path with fields such as {{epoch:02d}} or {{loss:.3f}}, "
            f"got {pattern!r} ({error})"
        ) from None


def _filled(pattern: str, record: dict[str, Any]) -> str:
    try:
        return pattern.format(**record)
    except KeyError as error:
        raise ValueError(
            f"[Checkpoint] expected the fields of the path to be among {', '.join(record)}, got {pattern!r}"
        ) from error


def _save(path: str, state: dict[str, NDArray[Any]]) -> Any:
    import pathlib

    goal = pathlib.Path(path)
    part = goal.with_name(f"{goal.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            np.savez(file, **state)  # type: ignore[arg-type]
        os.replace(part, goal)
    finally:
        part.unlink(missing_ok=True)
    return goal


class CSVLogger(Callback):
    """Write one line per epoch to a file, at once.

    Parameters
    ----------
    path : path
    append : bool, default False
        Whether to go on with a file that is there already. A last line that has no end, as a killed process
        leaves it, gets one; it is dropped if columns are missing. Later calls of `fit` with the same object
        always append.

    Raises
    ------
    TypeError
        If `path` is no path or `append` no bool.
    ValueError
        When a file is continued whose columns are not those of the epoch's record.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import gvcore as gv
    >>> trainer = gv.Trainer(gv.nn.Linear(1, 1), gv.nn.MSELoss(), gv.optim.SGD(lr=0.1), seed=0)
    >>> x = np.ones((4, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "log.csv")
    ...     log = gv.callbacks.CSVLogger(path)
    ...     history = trainer.fit(x, x, epochs=2, batch_size=4, callbacks=[log])
    ...     path.read_text().splitlines()[0]
    'epoch,step,loss,lr,seconds'
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"[CSVLogger] expected a path, got {path!r}")
        self.path = os.fspath(path)
        self.append = boolean("CSVLogger", "append", append)
        self._columns: list[str] | None = None

    def on_epoch_end(self, trainer: Trainer) -> bool | None:
        """Write the record of the epoch."""
        record = trainer.history.epoch[-1]
        if self._columns is None:
            self._columns = self._begin(list(record))
        if self._columns != list(record):
            raise ValueError(
                f"[CSVLogger] expected the columns of {self.path!r}, {', '.join(self._columns)}, "
                f"got a record of {', '.join(record)}; use another file"
            )
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(record.values())
        return None

    def _begin(self, columns: list[str]) -> list[str]:
        """Return the columns of the file, which is made if need be."""
        if self.append and os.path.exists(self.path):
            with open(self.path, "r+", newline="", encoding="utf-8") as file:
                lines = file.readlines()
                found = next(csv.reader(lines), None)
                if found == columns and not lines[-1].endswith("\n"):
                    if len(next(csv.reader(lines[-1:]))) == len(columns):
                        file.write("\n")
                    else:
                        file.truncate(len("".join(lines[:-1]).encode()))
                if found:
                    return found
        with open(self.path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(columns)
        return columns


class LearningRateLogger(Callback):
    """Keep the learning rate of every step, also without telemetry.

    The steps of an epoch are added at its end, or when an error or Ctrl-C ends `fit`.

    Attributes
    ----------
    steps : list of int
        The numbers of the updates, from 1.
    rates : list of float
        The rate of each.

    Examples
    --------
    >>> import numpy as np
    >>> import gvcore as gv
    >>> optimizer = gv.optim.SGD(lr=gv.schedules.linear(0.4))
    >>> trainer = gv.Trainer(gv.nn.Linear(1, 1), gv.nn.MSELoss(), optimizer, seed=0)
    >>> log = gv.callbacks.LearningRateLogger()
    >>> x = np.ones((4, 1))
    >>> history = trainer.fit(x, x, epochs=2, batch_size=2, callbacks=[log])
    >>> [round(rate, 6) for rate in log.rates]
    [0.4, 0.3, 0.2, 0.1]
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.rates: list[float] = []
        self._seen: int | None = None  # updates taken in; None outside of fit

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Begin after the steps done so far."""
        self._seen = trainer.step.updates

    def on_epoch_end(self, trainer: Trainer) -> bool | None:
        """Take in the rates of the epoch's steps."""
        if self._seen is not None:
            # A schedule is a function of the step, so there is no need to come back after each one.
            done = range(self._seen, trainer.step.updates)
            self.steps += [step + 1 for step in done]
            self.rates += [trainer.step.optimizer.lr_at(step) for step in done]
            self._seen = trainer.step.updates
        return None

    def _on_fit_left(self, trainer: Trainer) -> None:
        self.on_epoch_end(trainer)
        self._seen = None


class Timer(Callback):
    """Measure how long training takes, and end it when the time is up.

    Parameters
    ----------
    limit : float, optional
        Seconds after which training stops, at the end of an epoch, in each `fit`.

    Attributes
    ----------
    epochs : list of float
        Seconds of each epoch, validation and callbacks before this one included, of all calls of `fit`.
    total : float
        Seconds from the beginning of the current or last `fit` to its last completed epoch.

    Raises
    ------
    TypeError, ValueError
        If `limit` is not a number above 0.

    Examples
    --------
    >>> import numpy as np
    >>> import gvcore as gv
    >>> trainer = gv.Trainer(gv.nn.Linear(1, 1), gv.nn.MSELoss(), gv.optim.SGD(lr=0.1), seed=0)
    >>> timer = gv.callbacks.Timer(limit=1e-9)
    >>> x = np.ones((4, 1))
    >>> history = trainer.fit(x, x, epochs=100, batch_size=4, callbacks=[timer])
    >>> len(history.epoch), len(timer.epochs), timer.total > 0
    (1, 1, True)
    """

    def __init__(self, limit: float | None = None) -> None:
        self.limit = None if limit is None else real("Timer", "limit", limit, above=0.0)
        self.epochs: list[float] = []
        self.total = 0.0
        self._began = self._epoch_began = 0.0

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Start the epoch's clock."""
        self._epoch_began = time.perf_counter()

    def on_epoch_end(self, trainer: Trainer) -> bool | None:
        """Read the clocks; return True when the time is up."""
        now = time.perf_counter()
        self.epochs.append(now - self._epoch_began)
        self.total = now - self._began
        return self.limit is not None and self.total >= self.limit

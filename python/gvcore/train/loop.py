"""The machinery under `Trainer.fit`: many steps a call, Ctrl-C, the progress bar, and the way back.

A stretch of steps is one native call of about a tenth of a second, so that signals and the progress bar are
served ten times a second. What the user sees of all this is in trainer.py.
"""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcore.nn.losses import Loss
from gvcore.nn.parameter import storage_epoch
from gvcore.train.batch import Batch
from gvcore.train.evaluation import normaliser, summed
from gvcore.train.plans import Plans, python_loss
from gvcore.train.step import TrainStep

__all__ = ["Averaging", "Interrupts", "Mark", "Progress", "Stretch", "advance"]

SECONDS = 0.1  # of one native call
_SNAPSHOT_SHARE = 0.02  # of the time, for copies of the weights


@dataclass
class Stretch:
    """Some updates in a row: update i takes the batches ``cuts[marks[i]] … cuts[marks[i + 1]]``."""

    batch: Batch  # its order begins at cuts[0]
    cuts: NDArray[np.int64]
    marks: NDArray[np.int64]
    rates: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rates)

    def part(self, first: int, last: int) -> Stretch:
        """Return the updates first … last - 1."""
        cuts = self.cuts[self.marks[first] : self.marks[last] + 1]
        order = self.batch.order
        assert order is not None
        base = self.cuts[0]
        return Stretch(
            replace(self.batch, order=order[cuts[0] - base : cuts[-1] - base]),
            cuts,
            self.marks[first : last + 1] - self.marks[first],
            self.rates[first:last],
        )


def advance(
    step: TrainStep, stretch: Stretch, losses: NDArray[np.float64], averaging: Averaging | None
) -> int:
    """Do the first updates of a stretch, for about `SECONDS`; return how many.

    If it raises, ``step.updates`` counts those before the one that failed, and `losses` is filled in as far.
    """
    if averaging is not None:
        return averaging.advance(stretch, losses)
    cuts = stretch.cuts - stretch.cuts[0]
    return step.run_many(stretch.batch, cuts, stretch.rates, losses, SECONDS)


class Averaging:
    """Updates from several batches each: the gradient is that of the mean over all of their rows.

    The step adds gradients up, so a mean loss is run as a sum whose rows carry 1 / (what the mean divides
    by); batches of different sizes and weights then count as they do in one large batch.
    """

    def __init__(self, step: TrainStep) -> None:
        self._step, self._loss = step, step.loss
        self._scale = 1.0
        self._weights: NDArray[np.float64] | None = None
        self._inner = summed(step.loss) if isinstance(step.loss, Loss) else self._scaled
        self._plans = Plans(step.net, self._inner, step.optimizer)

    def _scaled(self, prediction: NDArray[Any], target: Any) -> Any:
        value, gradient = python_loss(self._loss, prediction, target)
        return value * self._scale, gradient * self._scale

    def advance(self, stretch: Stretch, losses: NDArray[np.float64]) -> int:
        """See `advance`."""
        end = time.perf_counter() + SECONDS
        done = 0
        with self._as_sum():
            while done < len(stretch):
                losses[done] = self._update(stretch.part(done, done + 1))
                done += 1
                if time.perf_counter() > end:
                    break
        return done

    @contextmanager
    def _as_sum(self) -> Iterator[None]:
        step, plans = self._step, self._step._plans
        step._loss, step._plans = self._inner, self._plans
        try:
            yield
        finally:
            self._forget()
            step._loss, step._plans = self._loss, plans

    def _forget(self) -> None:
        """Drop the gradients of an update that did not come to its end."""
        if self._step._accumulating is not None:
            self._step._accumulating.core.forget_accumulated()
            self._step._accumulating = None

    def _update(self, one: Stretch) -> float:
        order, cuts = one.batch.order, one.cuts - one.cuts[0]
        assert order is not None
        batch = replace(one.batch, sample_weight=self._weighted(one.batch, order))
        total, calls = 0.0, self._step.calls
        try:
            for first, last in zip(cuts, cuts[1:], strict=False):
                if not isinstance(self._loss, Loss):
                    self._scale = float(last - first) / len(order)
                part = replace(batch, order=order[first:last])
                total += self._step.run(part, lr=float(one.rates[0]), accumulate=bool(last < cuts[-1]))
        except BaseException:
            self._step.calls = calls
            raise
        return total

    def _weighted(self, batch: Batch, order: NDArray[np.int64]) -> NDArray[np.float64] | None:
        loss, given = self._loss, batch.sample_weight
        if not isinstance(loss, Loss) or loss.reduction == "sum":
            return given
        if self._weights is None or len(self._weights) != len(batch.target):
            self._weights = np.zeros(len(batch.target))
        own = np.ones(len(order)) if given is None else given[order]
        output = self._step._ready(batch, stored=True).output
        with np.errstate(all="ignore"):  # weights of no finite mean show in the loss
            divisor = normaliser(loss, batch.target[order], batch.labels, output, own)
            self._weights[order] = own / divisor
        return self._weights


class Mark:
    """A copy of everything that a step changes, to go back to when steps have spoilt the weights.

    Copies are taken as often as a small share of the time allows. From a copy the steps since then can
    be repeated, to the bit, up to the one that failed.
    """

    def __init__(self, step: TrainStep) -> None:
        self._step = step
        self._epoch = -1
        self._parameters: list[NDArray[Any]] = []
        self._places: list[NDArray[Any]] = []
        self._copies: list[NDArray[Any]] = []
        self._state: list[NDArray[Any]] | None = None
        self._cost = 0.0
        self._taken = float("-inf")
        self.updates = self.calls = 0
        self.since: list[Stretch] = []

    def due(self) -> bool:
        """Return whether it is time for a new copy."""
        return time.perf_counter() - self._taken > self._cost / _SNAPSHOT_SHARE

    def finite(self) -> bool:
        """Return whether all parameters are finite."""
        self._look()
        return all(np.isfinite(array).all() for array in self._parameters)

    def take(self) -> None:
        """Copy the weights, the running statistics and the optimiser's state as they are now."""
        began = time.perf_counter()
        step = self._step
        self._look()
        if not self._fits():
            self._copies = [np.empty_like(place) for place in self._places]
        for copy, place in zip(self._copies, self._places, strict=True):
            np.copyto(copy, place)
        if step._state is not None:
            if self._state is None:
                self._state = [np.empty_like(array) for array in step._state]
            for copy, place in zip(self._state, step._state, strict=True):
                np.copyto(copy, place)
        self.updates, self.calls = step.updates, step.calls
        self.since = []
        self._taken = time.perf_counter()
        self._cost = self._taken - began

    def restore(self) -> bool:
        """Put the copy back; return False if the memory of the net is laid out in another way since."""
        step = self._step
        self._look()
        if not self._fits():
            return False
        for copy, place in zip(self._copies, self._places, strict=True):
            np.copyto(place, copy)
        for i, place in enumerate(step._state or []):
            place[...] = 0 if self._state is None else self._state[i]
        step.updates, step.calls = self.updates, self.calls
        return True

    def _fits(self) -> bool:
        """Return whether there is a copy of every place."""
        return [a.shape for a in self._copies] == [a.shape for a in self._places]

    def _look(self) -> None:
        """Find the memory of the net."""
        if self._epoch == storage_epoch():
            return
        net = self._step.net
        self._parameters = _together(list(net.parameters().values()))
        buffers = [array for array in net.buffers().values() if array.size]
        self._places, self._epoch = [*self._parameters, *buffers, self._step._counts], storage_epoch()


def _together(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return one array that covers all, if they lie in one buffer and nothing else lies between them.

    Those of a part of a net need not: what lies between them is not to be looked at, and not to be put back.
    """
    roots = [array.base for array in arrays]
    if len(arrays) < 2 or any(root is not roots[0] for root in roots):
        return arrays
    root = roots[0]
    if not isinstance(root, np.ndarray) or root.ndim != 1 or not root.flags.c_contiguous:
        return arrays
    low = min(array.ctypes.data for array in arrays) - root.ctypes.data
    high = max(array.ctypes.data + array.nbytes for array in arrays) - root.ctypes.data
    if high - low > sum(-(-array.nbytes // 64) * 64 for array in arrays):  # each begins on a cache line
        return arrays
    return [root.view(np.uint8)[low:high].view(arrays[0].dtype)]


class Interrupts:
    """Hold Ctrl-C back while steps run and are written down, so that it never falls between the two.

    Only while `held`, only in the main thread, and only where Python's own handler is in charge. A second
    Ctrl-C is not held back.
    """

    def __init__(self) -> None:
        self._asked = False
        self._holding = False
        self._previous: Any = None

    def __enter__(self) -> Interrupts:
        current = signal.getsignal(signal.SIGINT)
        usual = current is signal.default_int_handler or isinstance(
            getattr(current, "__self__", None), Interrupts
        )
        if usual and threading.current_thread() is threading.main_thread():
            self._previous = current
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _handle(self, number: int, frame: Any) -> None:
        if self._holding and not self._asked:
            self._asked = True
        else:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold Ctrl-C back until the end of the block, and raise it there."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._asked:
            self._asked = False
            raise KeyboardInterrupt


class Progress:
    """A progress bar on a terminal, if tqdm is installed; else nothing."""

    def __init__(self, epochs: int, steps: int) -> None:
        self._epochs = epochs
        self._bar: Any = None
        if epochs and sys.stderr is not None and sys.stderr.isatty():
            try:
                tqdm = importlib.import_module("tqdm")
            except ImportError:
                return
            self._bar = tqdm.tqdm(total=epochs * steps, unit="step", dynamic_ncols=True, mininterval=SECONDS)

    def epoch(self, number: int) -> None:
        """Name the epoch under way, from 1."""
        if self._bar is not None:
            self._bar.set_description(f"epoch {number}/{self._epochs}", refresh=False)

    def update(self, steps: int, loss: float) -> None:
        """Go on by some steps."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
            self._bar.update(steps)

    def record(self, record: dict[str, Any]) -> None:
        """Show the record of the epoch that has ended."""
        if self._bar is not None:
            left_out = ("epoch", "step", "lr", "seconds")
            shown = [f"{key} {value:.4g}" for key, value in record.items() if key not in left_out]
            self._bar.set_postfix_str(", ".join(shown), refresh=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

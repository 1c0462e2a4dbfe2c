"""One epoch after another: stretches of steps, their records, and what to do when one of them fails."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gvcore import _core
from gvcore.callbacks import Callback
from gvcore.nn.losses import Loss
from gvcore.train import divergence
from gvcore.train.batch import Batch
from gvcore.train.evaluation import Held, Measure, evaluate, shares
from gvcore.train.loop import Averaging, Interrupts, Mark, Progress, Stretch, advance
from gvcore.train.rows import Unread

if TYPE_CHECKING:
    from gvcore.train.trainer import Trainer

__all__ = ["Run", "says_stop"]

_FIRST_WINDOW = 32  # updates handed over together; doubled until a call fills its time


def says_stop(answer: Any) -> bool:
    """Return whether a hook answered True; anything else it may return is no answer."""
    return isinstance(answer, (bool, np.bool_)) and bool(answer)


class Run:
    """One call of `Trainer.fit`, epoch by epoch."""

    def __init__(
        self,
        trainer: Trainer,
        data: Batch,
        rows: NDArray[np.int64],
        unread: Unread,
        held: Held | None,
        measures: Sequence[Measure],
        hooks: Sequence[Callback],
        averaging: Averaging | None,
        interrupts: Interrupts,
        progress: Progress,
    ) -> None:
        self._trainer, self._step = trainer, trainer.step
        self._data, self._rows, self._unread, self._held = data, rows, unread, held
        self._measures, self._averaging = measures, averaging
        self._interrupts, self._progress = interrupts, progress
        self._watched = bool(hooks)  # a callback may have changed the weights
        self._step_hooks = [
            hook for hook in hooks if getattr(hook.on_step_end, "__func__", None) is not Callback.on_step_end
        ]
        self._window = _FIRST_WINDOW
        self._first = 0  # updates before the epoch
        self._first_loss: float | None = None  # of the first epoch's first update
        self._mark = Mark(trainer.step)

    def epoch(self, order: NDArray[np.int64], cuts: NDArray[np.int64], marks: NDArray[np.int64]) -> None:
        """Train on the rows in this order, measure, and write the record."""
        began = time.perf_counter()
        trainer, count = self._trainer, len(marks) - 1
        self._first = first = self._step.updates
        rates = np.array([self._step.optimizer.lr_at(first + i) for i in range(count)], np.float64)
        whole = Stretch(replace(self._data, order=order[: cuts[-1]]), cuts, marks, rates)
        losses = np.zeros(count)
        done = 0
        if self._watched:
            self._copy(whole, losses, 0)
        while done < count and not trainer._stopping:
            if self._mark.due():
                self._copy(whole, losses, done)
            done += self._stretch(whole, losses, done)
            for hook in self._step_hooks:
                if says_stop(hook.on_step_end(trainer)):
                    trainer.stop()
        if done == 0:
            return
        if not self._mark.finite():
            self._diverged(whole, losses, done)
        record = {
            "epoch": len(trainer.history.epoch) + 1,
            "step": self._step.updates,
            "loss": self._mean(whole, losses, done),
            **self._measured(),
            "lr": float(rates[done - 1]),
        }
        record["seconds"] = time.perf_counter() - began
        if self._first_loss is None:
            self._first_loss = float(losses[0])
        trainer.history.epoch.append(record)
        self._progress.record(record)

    def _stretch(self, whole: Stretch, losses: NDArray[np.float64], done: int) -> int:
        """Do some of the updates from number `done` on, and write them down; return how many."""
        step = self._step
        window = 1 if self._step_hooks else self._window
        last = min(done + window, len(whole))
        stretch = whole.part(done, last)
        if self._unread:
            assert stretch.batch.order is not None
            self._unread.look(stretch.batch.order)
        failure = ""
        before = step.updates
        with self._interrupts.held():
            try:
                advance(step, stretch, losses[done:last], self._averaging)
            except _core.NotFinite as error:
                failure = error.found
                if not failure:
                    raise
            finally:  # an exception of the user's loss does not undo the updates before it
                count = step.updates - before
                self._record(stretch.part(0, count), losses[done : done + count])
        if failure:
            self._diverged(whole, losses, done + count, failure)
        self._window = max(_FIRST_WINDOW, 2 * count)
        self._progress.update(count, float(losses[done + count - 1]))
        return count

    def _record(self, done: Stretch, losses: NDArray[np.float64]) -> None:
        """Write down updates that were done just now."""
        if not len(done):
            return
        self._mark.since.append(done)
        first = self._step.updates - len(done) + 1
        records = [
            {"step": first + i, "loss": loss, "lr": rate}
            for i, (loss, rate) in enumerate(zip(losses.tolist(), done.rates.tolist(), strict=True))
        ]
        self._trainer.last_step = records[-1]
        if self._trainer.telemetry:
            self._trainer.history.step += records

    def _mean(self, whole: Stretch, losses: NDArray[np.float64], done: int) -> float:
        """Return the loss over the epoch's rows from those of its updates."""
        loss = self._trainer.loss
        if isinstance(loss, Loss) and loss.reduction == "sum":
            return float(np.sum(losses[:done]))
        ends = whole.cuts[whole.marks[: done + 1]]
        weights = np.diff(ends).astype(np.float64)
        of_rows = self._data.sample_weight
        if isinstance(loss, Loss) and self._data.labels and loss.native()["weight"] is not None:
            each = shares(loss, self._data.target, True, ())
            of_rows = each if of_rows is None else each * of_rows
        if of_rows is not None:
            assert whole.batch.order is not None
            weights = np.add.reduceat(of_rows[whole.batch.order[: ends[-1]]], ends[:-1])
        return float(np.sum(losses[:done] * weights) / np.sum(weights))

    def _measured(self) -> dict[str, float]:
        net, loss = self._trainer.net, self._trainer.loss
        result: dict[str, float] = {}
        if self._measures:
            rows = None if len(self._rows) == len(self._data.target) else self._rows
            parts, target = self._data.inputs, self._data.target
            result |= evaluate("fit", net, loss, parts, target, self._measures, rows=rows, with_loss=False)
        if (held := self._held) is not None:
            if self._unread and held.rows is not None:
                self._unread.look(held.rows)
            found = evaluate("fit", net, loss, held.parts, held.target, self._measures, rows=held.rows)
            result |= {f"val_{name}": value for name, value in found.items()}
        return result

    # ---- the way back -----------------------------------------------------------------------

    def _copy(self, whole: Stretch, losses: NDArray[np.float64], done: int) -> None:
        """Copy the weights if they are good."""
        if not self._mark.finite():
            self._diverged(whole, losses, done)
        self._mark.take()

    def _diverged(
        self, whole: Stretch, losses: NDArray[np.float64], done: int, failure: str = ""
    ) -> NoReturn:
        """Go back to before the first update that failed, and raise with the reasons.

        An update can write weights that are not finite after a finite loss; that shows in the next loss, or
        in none if the activation has bounds. So the updates since the last copy are repeated one by one.
        `failure` is what the step of number `done` found; without it that step has not been run.
        """
        step, mark = self._step, self._mark
        since = [part.part(i, i + 1) for part in mark.since for i in range(len(part))]
        text = failure or "expected finite weights, got nan or infinity"
        if failure:
            since.append(whole.part(done, done + 1))
        if not since:
            bad = [name for name, p in self._trainer.net.parameters().items() if not np.isfinite(p).all()]
            raise FloatingPointError(f"[fit] {text} in {', '.join(bad[:3])} before step {step.updates + 1}")
        with self._interrupts.held():
            at, norm, back = self._go_back(since)
        if updated := not failure or at < len(since) - 1:
            text = "expected finite weights, got nan or infinity after the update"
        losses = losses[: max(step.updates - self._first, 0)]
        known = [*([] if self._first_loss is None else [self._first_loss]), *losses[:1], *losses[-1:]]
        ends = (float(known[0]), float(known[-1])) if known else None
        rate = float(since[at].rates[0])
        try:
            reasons = divergence.explain(step, since[at].batch, rate, ends, norm, updated=updated)
        except Exception as problem:  # the stop counts, not that its reasons could not be found
            reasons = f"Its reasons could not be looked for ({type(problem).__name__}: {problem})."
        state = "The weights are those before that step." if back else "The weights are spoilt."
        raise FloatingPointError(
            f"[fit] {text} at step {step.updates + 1}, epoch {len(self._trainer.history.epoch) + 1}. "
            f"{reasons} {state}"
        ) from None

    def _go_back(self, since: Sequence[Stretch]) -> tuple[int, float, bool]:
        """Leave everything as it was before the first of these updates that fails.

        Returns its number, the norm of the gradient in the one before, and whether there was a way back.
        """
        step, mark = self._step, self._mark
        at, norm = len(since) - 1, float("nan")
        if mark.finite():
            if at > 0:  # nothing has to be undone: look at the update before, and come back
                now = Mark(step)
                now.take()
                if mark.restore():
                    norm = self._norm_before(since[:at])
                now.restore()
            return at, norm, True
        if not mark.restore():
            return at, norm, False
        at = self._first_bad(since)
        mark.restore()
        norm = self._norm_before(since[:at])
        if at > 0 and step.updates == mark.updates + at - 1:
            with suppress(Exception):  # a loss of the user may raise this time; the weights are good ones
                self._repeat(since[at - 1])
        steps = self._trainer.history.step
        while steps and steps[-1]["step"] > step.updates:
            steps.pop()
        return at, norm, True

    def _norm_before(self, since: Sequence[Stretch]) -> float:
        """Repeat all but the last of some updates; return the norm of the gradient in the last."""
        try:
            for part in since[:-1]:
                self._repeat(part)
            return divergence.look(self._step, since[-1].batch).norm if since else float("nan")
        except Exception:  # of a loss of the user that is not the same the second time
            return float("nan")

    def _first_bad(self, since: Sequence[Stretch]) -> int:
        for i, part in enumerate(since):
            try:
                self._repeat(part)
            except Exception:
                return i
            if not self._mark.finite():
                return i
        return len(since) - 1

    def _repeat(self, one: Stretch) -> None:
        advance(self._step, one, np.zeros(1), self._averaging)

"""Schedules made of schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gvcore._settings import integer, real
from gvcore.schedules.base import Schedule, increasing
from gvcore.schedules.decay import constant

__all__ = ["join", "warmup"]


def _as_schedule(op: str, name: str, value: Any) -> Schedule:
    if isinstance(value, Schedule):
        return value
    if callable(value):
        raise TypeError(f"[{op}] expected {name} to be a number or a gvcore schedule, got {value!r}")
    return constant(real(op, name, value, at_least=0.0, otherwise=" or a schedule"))


@dataclass(frozen=True)
class warmup(Schedule):
    r"""Rise in a straight line from 0 to the first rate of a schedule, then follow it.

    .. math:: \eta_t = s(0)\,t / W \quad (t < W), \qquad \eta_t = s(t - W) \quad (t \ge W)

    Parameters
    ----------
    schedule : float or Schedule
        s; a number is a constant rate. Its clock starts when the warm-up ends.
    steps : int
        W, the length of the warm-up. Filling in the length of training gives s what is left of it.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range.

    Examples
    --------
    >>> from gvcore.schedules import linear
    >>> schedule = warmup(linear(1.0, total_steps=2), 2)
    >>> [schedule(t) for t in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    schedule: Schedule | float
    steps: int

    def __post_init__(self) -> None:
        self._set("schedule", _as_schedule("warmup", "schedule", self.schedule))
        self._set("steps", integer("warmup", "steps", self.steps))

    @property
    def _after(self) -> Schedule:
        assert isinstance(self.schedule, Schedule)  # __post_init__ made it one
        return self.schedule

    def __call__(self, step: int) -> float:
        step = self._step(step)
        if step < self.steps:
            return self._after(0) * (step / self.steps)
        return self._after(step - self.steps)

    @property
    def needs_total_steps(self) -> bool:
        return self._after.needs_total_steps

    def with_total_steps(self, total_steps: int) -> Schedule:
        total_steps = integer("warmup", "total_steps", total_steps, at_least=1)
        if not self.needs_total_steps:
            return self
        if total_steps <= self.steps:
            raise ValueError(
                f"[warmup] expected total_steps > steps, got total_steps={total_steps} and steps={self.steps}"
            )
        return warmup(self._after.with_total_steps(total_steps - self.steps), self.steps)


@dataclass(frozen=True)
class join(Schedule):
    r"""Follow several schedules one after another, as ``optax.join_schedules`` does.

    .. math:: \eta_t = s_i(t - b_i) \quad (b_i \le t < b_{i+1}), \qquad b_0 = 0

    Parameters
    ----------
    schedules : sequence of float or Schedule
        :math:`s_0, s_1, \dots`; each one's clock starts when its turn comes.
    boundaries : sequence of int
        :math:`b_1, b_2, \dots`: strictly increasing steps, one fewer than there are schedules.
        Filling in the length of training gives every schedule the length of its turn.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range.

    Examples
    --------
    >>> from gvcore.schedules import constant, linear
    >>> schedule = join([constant(1.0), linear(0.5, total_steps=2)], boundaries=[3])
    >>> [schedule(t) for t in range(7)]
    [1.0, 1.0, 1.0, 0.5, 0.25, 0.0, 0.0]
    """

    schedules: Sequence[Schedule | float]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        if not isinstance(self.schedules, Sequence) or not self.schedules:
            raise TypeError(f"[join] expected schedules to be a non-empty sequence, got {self.schedules!r}")
        made = tuple(_as_schedule("join", f"schedules[{i}]", s) for i, s in enumerate(self.schedules))
        self._set("schedules", made)
        self._set("boundaries", increasing("join", "boundaries", self.boundaries))
        if len(self.boundaries) != len(made) - 1:
            raise ValueError(
                f"[join] expected {len(made) - 1} boundaries for {len(made)} schedules, "
                f"got {len(self.boundaries)}"
            )

    @property
    def _turns(self) -> list[tuple[int, Schedule]]:
        starts = (0, *self.boundaries)
        return [(b, s) for b, s in zip(starts, self.schedules, strict=True) if isinstance(s, Schedule)]

    def __call__(self, step: int) -> float:
        step = self._step(step)
        start, schedule = [turn for turn in self._turns if turn[0] <= step][-1]
        return schedule(step - start)

    @property
    def needs_total_steps(self) -> bool:
        return any(schedule.needs_total_steps for _, schedule in self._turns)

    def with_total_steps(self, total_steps: int) -> Schedule:
        total_steps = integer("join", "total_steps", total_steps, at_least=1)
        if not self.needs_total_steps:
            return self
        if self.boundaries and total_steps <= self.boundaries[-1]:
            raise ValueError(
                f"[join] expected total_steps > boundaries[-1], got total_steps={total_steps} "
                f"and boundaries={list(self.boundaries)}"
            )
        ends = (*self.boundaries, total_steps)
        filled = [s.with_total_steps(end - b) for (b, s), end in zip(self._turns, ends, strict=True)]
        return join(filled, self.boundaries)

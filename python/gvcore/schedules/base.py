"""What all schedules share: a frozen value, called with a step, whose length may be filled in later."""

from __future__ import annotations

import dataclasses
from typing import Any

from gvcore._settings import integer, real

__all__ = ["Schedule"]


class Schedule:
    """What all schedules share; derive from it, or pass any callable ``step -> lr``, to write your own."""

    def __call__(self, step: int) -> float:
        """Return the learning rate of `step` (0 is the first)."""
        raise NotImplementedError(f"[{type(self).__name__}] expected a schedule that defines __call__")

    @property
    def needs_total_steps(self) -> bool:
        """True while the length of training is still to be filled in."""
        return False

    def with_total_steps(self, total_steps: int) -> Schedule:
        """Return this schedule with ``total_steps`` filled in wherever it was left None.

        Parameters
        ----------
        total_steps : int
            Number of steps of the whole training run, at least 1.

        Returns
        -------
        Schedule
            A new schedule, or this one if nothing was left open.

        Raises
        ------
        TypeError, ValueError
            If `total_steps` is no integer >= 1, or does not reach beyond the warm-up or the last boundary.

        Examples
        --------
        >>> from gvcore.schedules import linear
        >>> linear(0.1).with_total_steps(10)
        linear(lr=0.1, total_steps=10, end=0.0)
        >>> linear(0.1, 5).with_total_steps(10)
        linear(lr=0.1, total_steps=5, end=0.0)
        """
        integer(type(self).__name__, "total_steps", total_steps, at_least=1)
        return self

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the dataclasses are frozen; only __post_init__ comes here

    def _rates(self, *names: str) -> None:
        for name in names:
            self._set(name, real(type(self).__name__, name, getattr(self, name), at_least=0.0))

    def _step(self, step: int) -> int:
        return integer(type(self).__name__, "step", step)


class Timed(Schedule):
    """A schedule of known length; total_steps is None until it is filled in."""

    total_steps: int | None

    @property
    def needs_total_steps(self) -> bool:
        return self.total_steps is None

    def with_total_steps(self, total_steps: int) -> Schedule:
        total_steps = integer(type(self).__name__, "total_steps", total_steps, at_least=1)
        if self.total_steps is not None:
            return self
        filled: Schedule = dataclasses.replace(self, total_steps=total_steps)  # type: ignore[type-var]
        return filled

    def _check_total_steps(self) -> None:
        if self.total_steps is not None:
            total_steps = integer(type(self).__name__, "total_steps", self.total_steps, at_least=1)
            self._set("total_steps", total_steps)

    def _total(self) -> int:
        if self.total_steps is None:
            raise ValueError(
                f"[{type(self).__name__}] expected total_steps to be known, got None; "
                "Trainer.fit fills it in, elsewhere pass total_steps= or call with_total_steps(n)"
            )
        return self.total_steps


def increasing(op: str, name: str, values: Any) -> tuple[int, ...]:
    """Return `values` as a tuple of positive integers if they increase strictly."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise TypeError(f"[{op}] expected {name} to be a sequence of integers, got {values!r}")
    checked = tuple(integer(op, f"{name}[{i}]", v, at_least=1) for i, v in enumerate(values))
    if any(a >= b for a, b in zip(checked, checked[1:], strict=False)):
        raise ValueError(f"[{op}] expected {name} to increase strictly, got {list(checked)}")
    return checked

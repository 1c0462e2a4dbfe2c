"""Learning rates as pure functions of the step: ``schedule(step) -> lr``, the first step being 0.

A schedule is a frozen value: it holds no counter, compares equal to another with the same numbers, and
pickles. The classes carry lower-case names because they are used as functions. No call to the C
library's ``pow`` or ``cos``: see ``exact``.
"""

from __future__ import annotations

from gvcore.schedules.base import Schedule
from gvcore.schedules.compose import join, warmup
from gvcore.schedules.decay import constant, cosine, exponential, linear, one_cycle, polynomial, step

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "join",
    "linear",
    "one_cycle",
    "polynomial",
    "step",
    "warmup",
]

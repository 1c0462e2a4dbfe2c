"""Checks of numbers on the way into a kernel, where a call takes no longer than a microsecond.

Only the common case is decided here; every other one is left to `gvcore._settings`, with its text.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

from gvcore._settings import MOST, boolean, choice, real

_REDUCTIONS = ("mean", "sum", "none")


def nonnegative(op: str, name: str, value: Any) -> float:
    """Return a finite number of at least 0 as a float."""
    if type(value) is float and 0.0 <= value < math.inf:
        return value
    return real(op, name, value, at_least=0)


def fraction(op: str, name: str, value: Any) -> float:
    """Return a number in [0, 1) as a float."""
    if type(value) is float and 0.0 <= value < 1.0:
        return value
    return real(op, name, value, at_least=0, below=1)


def share(op: str, name: str, value: Any) -> float:
    """Return a number in [0, 1] as a float."""
    if type(value) is float and 0.0 <= value <= 1.0:
        return value
    return real(op, name, value, at_least=0, at_most=1)


def whole(op: str, name: str, value: Any) -> int:
    """Return an integer of either sign that C++ can take."""
    if type(value) is int and -MOST <= value <= MOST:
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"[{op}] expected {name} to be an integer, got {value!r}")
    number = int(value)
    if not -MOST <= number <= MOST:
        raise ValueError(
            f"[{op}] expected {name} between -2**63 and 2**63, got one of {number.bit_length()} bits"
        )
    return number


def flag(op: str, name: str, value: Any) -> bool:
    """Return True or False."""
    return value if value is True or value is False else boolean(op, name, value)


def reduction_name(op: str, value: Any) -> str:
    """Return "mean", "sum" or "none"."""
    if type(value) is str and value in _REDUCTIONS:
        return value
    return choice(op, "reduction", value, _REDUCTIONS)

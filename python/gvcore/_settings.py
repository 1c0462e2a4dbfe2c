"""Checks that every settings class shares: numbers, counts, choices.

Not a validation framework: each function takes one value, returns it as the plain Python type that
the engine expects, or raises with the argument's name (``[op] expected …, got …``). ``TypeError`` is
for a value of the wrong kind, ``ValueError`` for one out of range.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

MOST = 2**63 - 1  # the largest integer of C++


def real(
    op: str,
    name: str,
    value: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    otherwise: str = "",
) -> float:
    """Return `value` as a finite float within the bounds; `otherwise` names what else is accepted."""
    bounds = [(">=", at_least), (">", above), ("<=", at_most), ("<", below)]
    wanted = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
    expected = f"[{op}] expected {name} to be a finite number{' ' + wanted if wanted else ''}{otherwise}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{expected}, got {value!r}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the range of floats
        number = math.inf
    if (
        not math.isfinite(number)
        or (at_least is not None and number < at_least)
        or (above is not None and number <= above)
        or (at_most is not None and number > at_most)
        or (below is not None and number >= below)
    ):
        raise ValueError(f"{expected}, got {number!r}")
    return number


def returned(op: str, what: str, value: Any) -> float:
    """Return what a function of the user returned as a float: any scalar, an array of no axes too."""
    if not isinstance(value, (str, bytes)) and getattr(value, "ndim", 0) == 0:
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    raise TypeError(f"[{op}] expected {what}, got {type(value).__name__}{shape}")


def integer(op: str, name: str, value: Any, *, at_least: int = 0, bits: int | None = None) -> int:
    """Return `value` as an int of at least `at_least`, with `bits` one below 2**bits, as C++ takes it."""
    expected = f"[{op}] expected {name} to be an integer >= {at_least}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{expected}, got {value!r}")
    number = int(value)
    if number < at_least:
        raise ValueError(f"{expected}, got {number}")
    if bits is not None and number.bit_length() > bits:
        raise ValueError(f"{expected} and < 2**{bits}, got one of {number.bit_length()} bits")
    return number


def boolean(op: str, name: str, value: Any) -> bool:
    """Return `value` if it is True or False (numbers and strings are not)."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise TypeError(f"[{op}] expected {name} to be True or False, got {value!r}")
    return bool(value)


def choice(op: str, name: str, value: Any, options: Iterable[str]) -> str:
    """Return `value` if it is one of the names in `options`."""
    options = tuple(options)
    expected = f"[{op}] expected {name} to be one of {', '.join(map(repr, options))}"
    if not isinstance(value, str):
        raise TypeError(f"{expected}, got {value!r}")
    if value not in options:
        raise ValueError(f"{expected}, got {value!r}")
    return value

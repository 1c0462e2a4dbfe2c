"""A figure that was measured, next to its target if there is one; whether it is met is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Figure", "geometric_mean", "percentile", "ratio"]

_SCALES = {"x": (1.0, "x", 2), "%": (100.0, " %", 1), "us": (1e6, " us", 2), "MB": (1e-6, " MB", 0)}


@dataclass(frozen=True)
class Figure:
    """One figure of a case, in plain numbers, seconds or bytes; `unit`: ``"x"``, ``"%"``, ``"us"``, ``"MB"``.

    A value of None says that it could not be measured: a peer is not installed. `partial` says that the best
    of some peers was taken and others are missing: such a figure can miss its target, but not meet it.
    """

    name: str
    value: float | None
    unit: str = "x"
    target: float | None = None
    at_most: bool = False
    partial: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where nobody can say."""
        if self.target is None or self.value is None:
            return None
        met = self.value <= self.target if self.at_most else self.value >= self.target
        return None if met and self.partial else met

    def text(self) -> str:
        """Return the value for a table."""
        if self.value is None:
            return "-"
        scale, unit, digits = _SCALES[self.unit]
        return f"{self.value * scale:.{digits}f}{unit}"

    def target_text(self) -> str:
        """Return the target for a table, ``>= 90 %``."""
        if self.target is None:
            return ""
        scale, unit, _ = _SCALES[self.unit]
        return f"{'<=' if self.at_most else '>='} {self.target * scale:.3g}{unit}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {**vars(self), "met": self.met}


def ratio(above: float | None, below: float | None) -> float | None:
    """Return a quotient, None if one part is missing."""
    return None if above is None or below is None else above / below


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` percent of the values lie."""
    return float(np.percentile(np.asarray(values, dtype=float), share))


def geometric_mean(values: Sequence[float]) -> float:
    """Return the mean of ratios."""
    return float(np.exp(np.mean(np.log(np.asarray(values, dtype=float)))))

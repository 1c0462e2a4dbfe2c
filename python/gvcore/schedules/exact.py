"""Power and cosine with the same bits on every processor.

Python's own functions call the C library, which picks its code, and with it the last bit, by the instruction
set. Decimal arithmetic, and sums, products and square roots of doubles, are defined to the last bit.
"""

from __future__ import annotations

import decimal
import math

__all__ = ["cos_pi", "power"]

_DECIMAL = decimal.Context(prec=24, traps=[])
# Taylor coefficients of cos and sin; on [0, pi/4] the first term left out is below 1e-17.
_COS_TERMS = [(-1.0) ** k / math.factorial(2 * k) for k in range(9)]
_SIN_TERMS = [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(9)]


def power(base: float, exponent: float) -> float:
    """Return base ** exponent for base >= 0 and exponent >= 0, infinite where it overflows.

    A whole exponent is correctly rounded. The rest of a broken one is a product of repeated square roots,
    one for each of its binary digits, and within 2e-14 of the truth.
    """
    whole = math.floor(exponent)
    if base == 0.0:
        return 0.0 if exponent > 0.0 else 1.0
    result = (
        base if whole == 1 else 1.0 if whole == 0 else float(_DECIMAL.power(decimal.Decimal(base), whole))
    )
    root, rest = base, exponent - whole
    for _ in range(64):  # what lies beyond changes nothing in a double
        if rest == 0.0:
            break
        root, rest = math.sqrt(root), 2.0 * rest
        if rest >= 1.0:
            result, rest = result * root, rest - 1.0
    return result


def _series(terms: list[float], square: float) -> float:
    result = 0.0
    for term in reversed(terms):
        result = result * square + term
    return result


def cos_pi(fraction: float) -> float:
    """Return cos(pi * fraction) for fraction in [0, 1], exact at 0, 1/2 and 1."""
    if fraction > 0.5:
        return -cos_pi(1.0 - fraction)
    if fraction > 0.25:
        angle = math.pi * (0.5 - fraction)
        return angle * _series(_SIN_TERMS, angle * angle)
    angle = math.pi * fraction
    return _series(_COS_TERMS, angle * angle)

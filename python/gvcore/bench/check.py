"""Checks answers before the clock starts: the losses of the first steps against NumPy in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gvcore.bench.numpy_step import NumpyStep
from gvcore.bench.residual_net import Net

__all__ = ["LOSS_TOLERANCE", "check_answers", "check_losses"]

# float32 stays within 5e-7 of the oracle on every case; momentum 0.8 instead of 0.9 moves a loss by 5e-4.
LOSS_TOLERANCE = 1e-5

Answers = Mapping[str, Mapping[str, Sequence[float]]]  # of a peer (by name), by settings


def check_answers(
    case: object, expected: Sequence[float] | NDArray[np.float64], answers: Answers, tolerance: float
) -> None:
    """Raise unless all answers are within `tolerance` of the expected ones, relative to the largest."""
    wanted = np.asarray(expected, np.float64)
    for peer, variants in answers.items():
        for settings, given in variants.items():
            found = np.asarray(given, np.float64)
            scale = np.abs(wanted).max()
            if found.shape != wanted.shape or not np.abs(found - wanted).max() <= tolerance * scale:
                raise AssertionError(
                    f"[bench] expected {peer} ({settings}) to compute {wanted} in {case}, got {found}"
                )


def check_losses(net: Net, losses: Answers) -> None:
    """Raise unless the losses of all peers are those of the oracle."""
    oracle = NumpyStep(net, np.float64)
    most = max((len(given) for variants in losses.values() for given in variants.values()), default=0)
    expected = [oracle() for _ in range(most)]
    for peer, variants in losses.items():
        for settings, given in variants.items():
            found, wanted = np.array(given), np.array(expected[: len(given)])
            if not np.abs(found / wanted - 1).max() <= LOSS_TOLERANCE:
                raise AssertionError(
                    f"[bench] expected {peer} ({settings}) to compute the losses {wanted} on {net}, "
                    f"got {found}"
                )

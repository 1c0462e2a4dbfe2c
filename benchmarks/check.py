"""Checks answers before the clock starts: the losses of the first steps against NumPy in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.peers.numpy_step import NumpyStep
from benchmarks.residual_net import Net

__all__ = ["LOSS_TOLERANCE", "check_losses"]

# float32 stays within 5e-7 of the oracle on every case; momentum 0.8 instead of 0.9 moves a loss by 5e-4.
LOSS_TOLERANCE = 1e-5


def check_losses(net: Net, losses: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Raise if the losses of a peer (by name, then by settings) are not those of the oracle."""
    oracle = NumpyStep(net, np.float64)
    expected: list[float] = []
    for peer, variants in losses.items():
        for settings, found in variants.items():
            while len(expected) < len(found):
                expected.append(oracle())
            wanted = np.array(expected[: len(found)])
            worst = float(np.max(np.abs(np.array(found) / wanted - 1)))
            if not worst <= LOSS_TOLERANCE:
                raise AssertionError(
                    f"[benchmarks] expected {peer} ({settings}) to compute the losses {wanted} on {net}, "
                    f"got {np.array(found)}"
                )

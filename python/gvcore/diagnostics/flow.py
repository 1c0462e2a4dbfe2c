"""The numbers of gradient flow, and what they mean: the growth per layer and the verdict.

Nothing is run here: arrays and records in, numbers out. Norms are Euclidean, over all samples and
features, in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BlockFlow", "Growth", "LayerFlow", "band", "judge", "norm"]

_LEAVES_AT = 10.0  # a trend starts where the norm has left this factor for good
_ROW = 256  # elements
_MOST_PAIRS = 250_000  # of the slopes whose median is taken: enough for 700 blocks without sampling


@dataclass(frozen=True)
class LayerFlow:
    """What one call of one layer does to a batch.

    Attributes
    ----------
    name, kind : str
        Dotted name in the net, and class.
    activation_norm, activation_rms : float
        Norm of the output, and its root mean square over all elements.
    gradient_norm : float
        Norm of the gradient of the loss with respect to the output.
    parameter_gradient_norm : float or None
        Norm of the gradient with respect to all its trained parameters; None if it has none.
    dead, saturated : float or None
        Share of units, None where it has no meaning. A unit of a rectifier (ReLU, leaky ReLU, ELU, SELU,
        GELU, SiLU, softplus) is dead if its output is 0 for every row of the batch. A unit of tanh or the
        sigmoid is saturated if its derivative is below 1 % of the largest (1 and 1/4) on more than half of
        the rows.
    """

    name: str
    kind: str
    activation_norm: float
    activation_rms: float
    gradient_norm: float
    parameter_gradient_norm: float | None
    dead: float | None
    saturated: float | None


@dataclass(frozen=True)
class BlockFlow:
    """What one block does to a batch; see `gvcore.diagnose` for what a block is.

    Attributes
    ----------
    name, kind : str
        Dotted name of its first module, and the classes of its modules.
    depth : int
        How many layers (weight matrices one after the other) lie before it.
    activation_norm, activation_rms : float
        Of its output.
    gradient_norm : float
        Norm of the gradient of the loss with respect to its input.
    parameter_gradient_norm, dead, saturated : float or None
        As in `LayerFlow`; the shares are means over all its layers that have one.
    """

    name: str
    kind: str
    depth: int
    activation_norm: float
    activation_rms: float
    gradient_norm: float
    parameter_gradient_norm: float | None
    dead: float | None
    saturated: float | None


@dataclass(frozen=True)
class Growth:
    """A factor per layer, and the factor by which norms typically stray from that law."""

    factor: float
    spread: float


def norm(array: NDArray[Any]) -> float:
    """Return the Euclidean norm of all elements in double precision, without overflow on the way.

    Whole rows are added to one another, so that the order of additions, and with it the last bit, is the
    same on every processor.
    """
    if array.size == 0:
        return 0.0
    largest = float(np.abs(array).max())
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    squares = array.reshape(-1).astype(np.float64) / largest
    squares *= squares
    whole = squares.size // _ROW * _ROW
    columns = np.add.reduce(squares[:whole].reshape(-1, _ROW), axis=0)
    return largest * math.sqrt(math.fsum([*columns.tolist(), *squares[whole:].tolist()]))


def fit(depth: Sequence[int], norms: Sequence[float], smallest: Sequence[float]) -> Growth:
    r"""Fit norm = c·factor^depth to the norms that can be trusted.

    The logarithm of the factor is the median of the slopes between all pairs of blocks (Theil 1950, Sen
    1968), which some odd blocks, such as a first one of another width, do not move. The spread is
    :math:`\exp(1.4826\,\mathrm{median}|r|)` of the residuals r. Norms below `smallest`, zero or not finite
    have lost their meaning and are left out.
    """
    values = np.asarray(norms, np.float64)
    usable = np.isfinite(values) & (values > 0.0) & (values >= np.asarray(smallest, np.float64))
    x, y = np.asarray(depth, np.float64)[usable], np.log(values[usable])
    if len(set(x.tolist())) < 2:
        return Growth(math.nan, math.nan)
    # Gaps between positions, all of them for nets of some hundred blocks, evenly chosen ones beyond.
    gaps = np.arange(1, len(x))
    most = max(1, _MOST_PAIRS // len(x))
    if len(gaps) > most:
        gaps = np.unique(np.linspace(1, len(x) - 1, most).astype(np.int64))
    rise = np.concatenate([y[gap:] - y[:-gap] for gap in gaps])
    run = np.concatenate([x[gap:] - x[:-gap] for gap in gaps])
    slope = float(np.median(rise[run > 0] / run[run > 0]))
    residuals = y - slope * x
    residuals -= np.median(residuals)
    return Growth(math.exp(slope), math.exp(1.4826 * float(np.median(np.abs(residuals)))))


def band(layers: int) -> float:
    """Return the factor by which gradient norms may differ in a healthy net of so many layers.

    A thousand, and beyond ten layers a hundred for each layer: residual nets with batch norm, and tanh at
    its critical gain, have norms that follow a power of the depth, and they train; an exponential leaves
    the band.

    Examples
    --------
    >>> band(5), band(1000)
    (1000.0, 100000.0)
    """
    return 100.0 * max(10, layers)


def judge(
    blocks: Sequence[BlockFlow], first_not_finite: str | None, output_gradient: float
) -> tuple[str, str | None]:
    """Return the verdict and the name of the module where the trouble starts.

    `first_not_finite` is the first module whose output holds NaN or infinity, `output_gradient` the norm of
    the gradient with respect to the net's output. See `gvcore.diagnose` for the rules.
    """
    if first_not_finite is not None:
        return "exploding", first_not_finite
    norms = [block.gradient_norm for block in blocks]
    if output_gradient == 0.0 and not any(norms):
        return "healthy", None  # the batch is fitted exactly; nothing can vanish
    for block in blocks:  # relu'(0) = 0: what comes after a block of zeros passes nothing back either
        if block.activation_norm == 0.0 and block.gradient_norm == 0.0:
            return "vanishing", block.name
    reference = next((g for g in reversed(norms) if g != 0.0), 0.0)
    if not math.isfinite(output_gradient) or not math.isfinite(reference):
        return "exploding", blocks[-1].name
    if reference == 0.0:
        return "vanishing", blocks[-1].name
    ratios = [g / reference for g in norms]
    limit = band(blocks[-1].depth + 1)
    highest = max(range(len(ratios)), key=lambda i: (_size(ratios[i]), -i))
    if _size(ratios[highest]) > limit:
        return "exploding", blocks[_start([_size(ratio) > _LEAVES_AT for ratio in ratios], highest)].name
    lowest = min(range(len(ratios)), key=lambda i: (ratios[i], i))
    if ratios[lowest] < 1.0 / limit:
        return "vanishing", blocks[_start([ratio < 1.0 / _LEAVES_AT for ratio in ratios], lowest)].name
    return "healthy", None


def _size(ratio: float) -> float:
    return ratio if math.isfinite(ratio) else math.inf


def _start(outside: Sequence[bool], worst: int) -> int:
    """Return the block nearest to the output from which all are outside, up to the worst one."""
    at = worst
    while at + 1 < len(outside) and outside[at + 1]:
        at += 1
    return at

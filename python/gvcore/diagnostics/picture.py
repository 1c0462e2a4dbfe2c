"""Pictures of what was measured. matplotlib is imported here, when a picture is asked for.

Colours: blue and orange of a palette that people with any kind of colour vision tell apart
(Okabe & Ito 2008).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcore._files import pyplot
from gvcore.diagnostics.flow import BlockFlow

__all__ = ["Axes", "draw_flow", "draw_rates", "new_axes"]

Axes = Any
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#777777"


def new_axes(op: str, ax: Axes | None) -> Axes:
    """Return `ax`, or the axes of a new figure of ``matplotlib.pyplot``.

    Raises
    ------
    ImportError
        Without matplotlib, naming the extra that brings it.
    """
    if ax is not None:
        return ax
    return pyplot(op).subplots(figsize=(8, 4.5), layout="constrained")[1]


def draw_flow(blocks: Sequence[BlockFlow], title: str, starts_at: str | None, ax: Axes | None) -> Axes:
    """Draw gradient norms on the left scale and activations on the right one, by block."""
    ax = new_axes("plot", ax)
    position = np.arange(1, len(blocks) + 1)
    gradient = np.array([block.gradient_norm for block in blocks])
    activation = np.array([block.activation_rms for block in blocks])
    marker = "o" if len(blocks) <= 60 else ""
    ax.set_yscale("log")
    left = ax.plot(position, _positive(gradient), color=_BLUE, marker=marker, markersize=4, label="gradient")
    right_ax = ax.twinx()
    right_ax.set_yscale("log")
    right = right_ax.plot(
        position,
        _positive(activation),
        color=_ORANGE,
        linestyle="--",
        marker=marker,
        markersize=4,
        label="activation",
    )
    handles = [*left, *right]
    for missing, text, colour in (
        (gradient == 0, "gradient is 0", "#BBBBBB"),
        (~np.isfinite(gradient), "gradient is not finite", "#E8A0A0"),
    ):
        for i, (first, last) in enumerate(_stretches(missing)):
            span = ax.axvspan(first + 0.5, last + 1.5, color=colour, alpha=0.5, linewidth=0, label=text)
            handles += [span] if i == 0 else []
    _widen(ax, gradient)
    _widen(right_ax, activation)
    at = [i for i, block in enumerate(blocks) if starts_at and f"{starts_at}.".startswith(f"{block.name}.")]
    if at:
        handles.append(
            ax.axvline(
                at[0] + 1, color=_GREY, linestyle=":", label=f"starts at block {at[0] + 1} ({starts_at})"
            )
        )
    ax.set_xlim(0.5, len(blocks) + 0.5)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("block, from the input to the output")
    ax.set_ylabel("norm of the gradient of the loss\nwith respect to the block's input", color=_BLUE)
    right_ax.set_ylabel("root mean square of the block's output", color=_ORANGE)
    if not np.isfinite(_positive(gradient)).any():
        ax.tick_params(axis="y", which="both", left=False, labelleft=False)
    ax.grid(alpha=0.3)
    # Above the frame, where it hides neither of the two curves.
    ax.legend(handles=handles, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    ax.set_title(title, fontsize="medium", pad=30)
    return ax


def _positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave gaps where a logarithmic scale has no place for a value."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _widen(ax: Axes, values: NDArray[np.float64]) -> None:
    """Show at least a decade above and below: a flat line shall look flat."""
    known = values[np.isfinite(values) & (values > 0)]
    if known.size and known.max() < 100 * known.min():
        middle = math.sqrt(known.max()) * math.sqrt(known.min())
        ax.set_ylim(middle / 10, middle * 10)


def _stretches(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return (first, last) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def draw_rates(
    lrs: NDArray[np.float64],
    losses: NDArray[np.float64],
    smoothed: NDArray[np.float64],
    suggestion: float,
    ax: Axes | None,
) -> Axes:
    """Draw the loss of each batch and its running mean by learning rate."""
    ax = new_axes("plot", ax)
    ax.set_xscale("log")
    finite = smoothed[np.isfinite(smoothed)]
    ax.plot(lrs, losses, color=_GREY, alpha=0.5, linewidth=1, label="loss of a batch")
    ax.plot(lrs, smoothed, color=_BLUE, linewidth=2, label="running mean")
    if finite.size:
        low = min(float(finite.min()), float(np.nanmin(losses)))
        high = float(finite[: max(1, len(finite) * 3 // 4)].max())
        # The last losses soar; they shall not press the rest into a line.
        margin = max(high - low, 0.05 * abs(high), 1e-12)
        ax.set_ylim(low - 0.2 * margin, high + 0.6 * margin)
    if math.isfinite(suggestion):
        ax.axvline(suggestion, color=_ORANGE, linestyle="--", label=f"suggestion: {suggestion:.2g}")
    ax.set_xlabel("learning rate")
    ax.set_ylabel("loss")
    ax.set_title("Range test of the learning rate", fontsize="medium")
    ax.grid(alpha=0.3)
    ax.legend(fontsize="small", loc="best")
    return ax

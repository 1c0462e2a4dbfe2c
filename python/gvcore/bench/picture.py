"""The step as a picture: how many times faster than each peer, and the share of the machine's limit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gvcore._files import check_matplotlib
from gvcore.bench.harness import Options
from gvcore.bench.report import OURS, Result

__all__ = ["bars", "draw"]

COLORS = {
    "numpy": "#4d77a8",
    "numpy avx512": "#9fbcdb",
    "torch": "#d9622b",
    "torch.compile": "#f2b48f",
    "jax": "#6b9a4b",
}
LABELS = {
    "numpy": "NumPy",
    "numpy avx512": "NumPy, AVX-512 kernel",
    "torch": "PyTorch",
    "torch.compile": "torch.compile",
    "jax": "JAX",
}


def bars(
    results: Sequence[Result], options: Options
) -> tuple[list[str], dict[str, list[float]], list[float]]:
    """Return the cases, how many times gvcore's time each peer needs, and the shares of the limit.

    NaN stands for what was not measured. The results are those of `compare`, or of `step` without it.
    """
    steps = [r for r in results if r.suite == "compare"] or [r for r in results if r.suite == "step"]
    labels, shares = [], []
    peers = list(dict.fromkeys(name for r in steps for name in r.times if name != OURS))
    heights: dict[str, list[float]] = {peer: [] for peer in peers}
    for r in steps:
        ours = options.seconds(r.times[OURS])
        threads = f"{r.threads} thread{'s' * (r.threads > 1)}"
        labels.append(f"{r.sizes['batch']} x {r.sizes['width']}, {r.sizes['depth']} blocks\n{threads}")
        shares.append(r.limit.seconds / ours if r.limit is not None else float("nan"))
        for peer in peers:
            heights[peer].append(options.seconds(r.times[peer]) / ours if peer in r.times else float("nan"))
    return labels, heights, shares


def draw(results: Sequence[Result], path: str | Path, options: Options, caption: str = "") -> None:
    """Draw a bar chart into an image file.

    Raises
    ------
    ImportError
        Without matplotlib, naming the extra that brings it.
    ValueError
        If no training step was timed.
    """
    check_matplotlib("bench")
    from matplotlib.figure import Figure

    labels, heights, shares = bars(results, options)
    if not labels:
        raise ValueError("[bench] expected a run of the suite compare or step for a picture, got neither")
    rows: Any = 2 if heights else 1
    ratios = [3, 1.6] if heights else [1]
    figure = Figure(figsize=(10, 6.2 if heights else 3.2), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    if heights:
        _ratios(axes[0], heights, len(labels))
    _shares(axes[-1], shares)
    axes[-1].set_xticks(range(len(labels)), labels, fontsize=8)
    figure.suptitle("One training step (forward, backward, update) of residual nets", fontsize=11)
    if caption:
        figure.supxlabel(caption, fontsize=7, color="0.35")
    figure.savefig(path, dpi=150)


def _ratios(axes: Any, heights: dict[str, list[float]], cases: int) -> None:
    width = 0.8 / len(heights)
    for i, (peer, values) in enumerate(heights.items()):
        places = [case + (i + 0.5) * width - 0.4 for case in range(cases)]
        # From 1 on: a bar that hangs below the line is a peer that is faster.
        over = [value - 1 for value in values]
        bar = axes.bar(places, over, width * 0.92, 1, color=COLORS.get(peer), label=LABELS.get(peer, peer))
        axes.bar_label(bar, [_times(value) for value in values], fontsize=6.5, padding=1.5)
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    axes.set_ylabel("time in units of gvcore's")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    known = [value for values in heights.values() for value in values if value == value]
    axes.set_ylim(0.7 * min(1, *known), 1.6 * max(1, *known))
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    axes.legend(fontsize=8, ncols=len(heights), frameon=False, **place)


def _times(value: float) -> str:
    return "" if value != value else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def _shares(axes: Any, shares: Sequence[float]) -> None:
    percent = [100 * share for share in shares]
    bar = axes.bar(range(len(percent)), percent, 0.5, color="#444444")
    axes.bar_label(bar, [f"{value:.0f} %" for value in percent], fontsize=8, padding=1.5)
    axes.set_ylim(0, 100)
    axes.set_ylabel("% of the\nmachine's limit")
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)

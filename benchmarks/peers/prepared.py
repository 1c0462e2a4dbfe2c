"""What a peer makes of a net: a step to call, checked and timed by whoever asked for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.harness import Local, summarize

__all__ = ["CHECKED_STEPS", "Prepared", "fastest"]

CHECKED_STEPS = 9  # one more than there are batches: the last shows what eight updates have done


@dataclass
class Prepared:
    """A step that trains on the next batch and returns the loss, and the settings in which it runs."""

    step: Callable[[], float]
    settings: str


def fastest(variants: Iterable[Prepared]) -> tuple[Prepared, Local, dict[str, list[float]]]:
    """Return the fastest of a peer's variants, ready for its turns, and the first losses of each."""
    best: tuple[float, Prepared, Local] | None = None
    losses: dict[str, list[float]] = {}
    for variant in variants:
        losses[variant.settings] = [float(variant.step()) for _ in range(CHECKED_STEPS)]
        local = Local(variant.step)
        seconds = summarize(local.turn(0.1)).median
        if best is None or seconds < best[0]:
            best = seconds, variant, local
    assert best is not None
    return best[1], best[2], losses

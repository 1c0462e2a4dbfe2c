"""What a peer makes of a case: a step to call, checked and timed by whoever asked for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gvcore.bench.harness import Contestant, Local, summarize

__all__ = ["CHECKED_STEPS", "Prepared", "fastest"]

CHECKED_STEPS = 9  # one more than there are batches: the last shows what eight updates have done


@dataclass
class Prepared:
    """A call to time, and the settings in which it runs.

    Its answers are the losses of the first steps, which the call returns; or what `answers` returns before
    the first timed call. `contestant` replaces the plain call where a sample is something else.
    """

    step: Callable[[], object]
    settings: str
    answers: Callable[[], list[float]] | None = None
    contestant: Contestant | None = None

    def first_answers(self) -> list[float]:
        """Return what is to be checked."""
        if self.answers is not None:
            return [float(value) for value in self.answers()]
        return [float(self.step()) for _ in range(CHECKED_STEPS)]  # type: ignore[arg-type]


def fastest(variants: Iterable[Prepared]) -> tuple[Prepared, Contestant, dict[str, list[float]]]:
    """Return the fastest of a peer's variants, ready for its turns, and the first answers of each."""
    ready: list[tuple[Prepared, Contestant]] = []
    answers: dict[str, list[float]] = {}
    for variant in variants:
        answers[variant.settings] = variant.first_answers()
        ready.append((variant, variant.contestant or Local(variant.step)))
    if len(ready) == 1:
        return *ready[0], answers
    best = min(ready, key=lambda pair: summarize(pair[1].turn(0.1)).median)
    return *best, answers

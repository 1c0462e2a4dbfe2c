"""Times contestants by turns: A B A B …, so that a slow minute of the machine falls on all of them.

A contestant is anything that can take a turn of some length and return the seconds of each sample. What it
computes was checked before. Not here: what is timed, and how a table is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

__all__ = ["Contestant", "Effort", "Local", "Summary", "interleave", "summarize"]


@dataclass(frozen=True)
class Effort:
    """How long to measure: `rounds` turns of `seconds` each for every contestant."""

    rounds: int = 7
    seconds: float = 0.3
    pause: float = 0.03  # before a turn: threads of the one before may still spin, waiting for work

    @classmethod
    def quick(cls) -> Effort:
        return cls(rounds=3, seconds=0.08)


@dataclass(frozen=True)
class Summary:
    """Seconds: the median decides, the minimum and the quartiles say how quiet the machine was."""

    median: float
    minimum: float
    first_quartile: float
    third_quartile: float
    samples: int

    def to_dict(self) -> dict[str, float]:
        return dict(vars(self))


class Contestant(Protocol):
    def turn(self, seconds: float) -> Sequence[float]: ...


class Local:
    """A function of this process.

    A sample is the mean of as many calls as fill `shortest` seconds, because a clock cannot time less.
    """

    most_samples = 1000

    def __init__(self, call: Callable[[], Any], shortest: float = 1e-4) -> None:
        self._call = call
        call()
        self.calls = 1
        while (elapsed := self._sample()) * self.calls < shortest and self.calls < 1 << 20:
            self.calls *= 2 if elapsed <= 0 else max(2, min(64, int(shortest / (elapsed * self.calls)) + 1))

    def _sample(self) -> float:
        call, calls = self._call, self.calls
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls

    def turn(self, seconds: float) -> list[float]:
        self._sample()  # another contestant had the caches
        samples: list[float] = []
        end = time.perf_counter() + seconds
        while len(samples) < 3 or (time.perf_counter() < end and len(samples) < self.most_samples):
            samples.append(self._sample())
        return samples


def interleave(contestants: Mapping[str, Contestant], effort: Effort) -> dict[str, list[float]]:
    """Give every contestant its turn in each round and return all samples by name."""
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(effort.rounds):
        for name, contestant in contestants.items():
            time.sleep(effort.pause)
            samples[name].extend(contestant.turn(effort.seconds))
    return samples


def summarize(samples: Sequence[float]) -> Summary:
    """Summarize the samples of one contestant."""
    low, first, middle, third = np.percentile(np.asarray(samples, dtype=float), [0, 25, 50, 75])
    return Summary(float(middle), float(low), float(first), float(third), len(samples))

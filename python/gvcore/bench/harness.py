"""Times contestants by turns: A B A B …, so that a slow minute of the machine falls on all of them.

A contestant is anything that can take a turn of some length and return the seconds of each sample. What it
computes was checked before. Not here: what is timed, and how a table is printed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

__all__ = ["Contestant", "Effort", "Local", "Options", "Summary", "interleave", "summarize"]


@dataclass(frozen=True)
class Effort:
    """How long to measure: `rounds` turns of `seconds` each for every contestant."""

    rounds: int = 7
    seconds: float = 0.3
    pause: float = 0.03  # before a turn: threads of the one before may still spin, waiting for work

    @classmethod
    def quick(cls) -> Effort:
        """Return what is enough to see an order of magnitude."""
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
        """Return everything, for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Options:
    """What a suite is asked for: see `wants` and `seconds`."""

    effort: Effort = field(default_factory=Effort)
    quick: bool = False  # fewer cases
    threads: int | None = None  # of every case, instead of its own
    peers: tuple[str, ...] | None = None  # who may take part; None: everybody
    pythons: Mapping[str, str] = field(default_factory=dict)  # of peers that live in another environment
    minima: bool = False  # judge by minima, not by medians: busy machines

    def wants(self, peer: str) -> bool:
        """Return whether a peer, or a variant of it ("torch fused"), was asked for."""
        return self.peers is None or peer in self.peers or _family(peer) in self.peers

    def python(self, peer: str) -> str:
        """Return the interpreter of a peer."""
        return self.pythons.get(_family(peer).partition(".")[0], sys.executable)

    def seconds(self, summary: Summary) -> float:
        """Return the time that decides."""
        return summary.minimum if self.minima else summary.median


def _family(peer: str) -> str:
    # The two kinds of NumPy are peers of their own; what else has a space is a variant.
    return peer if peer == "numpy avx512" else peer.partition(" ")[0]


class Contestant(Protocol):
    """Anything that takes a turn of about so many seconds and returns its samples."""

    def turn(self, seconds: float) -> Sequence[float]:
        """Measure, and return the seconds of each sample."""


class Local:
    """A function of this process.

    A sample is the mean of as many calls as fill `shortest` seconds, because a clock cannot time less.
    """

    most_samples = 1000

    def __init__(self, call: Callable[[], Any], shortest: float = 1e-4) -> None:
        self.call = call
        call()
        self.calls = 1
        while (elapsed := self._sample()) * self.calls < shortest and self.calls < 1 << 20:
            self.calls *= 2 if elapsed <= 0 else max(2, min(64, int(shortest / (elapsed * self.calls)) + 1))

    def _sample(self) -> float:
        call, calls = self.call, self.calls
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls

    def turn(self, seconds: float) -> list[float]:
        """Measure for so long, three samples at least."""
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

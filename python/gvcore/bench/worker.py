"""The process of one peer: reads requests as lines of JSON, answers each with one line.

``prepare`` builds a case and returns its first answers, ``turn`` times it, ``memory`` says by how much a net
makes the process grow. Libraries may print what they like: their standard output goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gvcore.bench.harness import Contestant
from gvcore.bench.prepared import Prepared, fastest

__all__ = ["Worker", "main", "peak_bytes"]


def peak_bytes() -> int:
    """Return the largest resident size of this process so far.

    On Linux from /proc: what getrusage tells there includes the process that started this one.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


class Worker:
    """Answers requests about the peer ``"module:function"``, a function (case, threads) -> variants."""

    def __init__(self, peer: str) -> None:
        self.module, self.function = peer.split(":")
        self.contestant: Contestant | None = None

    def _variants(self, case: dict[str, Any], threads: int) -> Iterator[Prepared]:
        make: Callable[..., Iterator[Prepared]]
        make = getattr(importlib.import_module(self.module), self.function)
        return make(case, threads)

    def prepare(self, case: dict[str, Any], threads: int) -> dict[str, Any]:
        """Build a case, and return the settings of the fastest variant and the answers of all."""
        self.contestant = None  # the memory of the case before
        try:
            best, self.contestant, answers = fastest(self._variants(case, threads))
        except ModuleNotFoundError as error:
            return {"skipped": f"{error.name} is not installed"}
        except NotImplementedError as error:
            return {"skipped": str(error)}
        return {"settings": best.settings, "answers": answers}

    def turn(self, seconds: float) -> dict[str, Any]:
        """Time what was prepared."""
        assert self.contestant is not None
        return {"samples": list(self.contestant.turn(seconds))}

    def memory(self, small: dict[str, Any], case: dict[str, Any], threads: int) -> dict[str, Any]:
        """Return by how many bytes three steps of `case` grow the process that has done `small`."""
        try:
            peaks = []
            for sizes in (small, case):
                variant = next(self._variants(sizes, threads))
                for _ in range(3):
                    variant.step()
                peaks.append(peak_bytes())
        except ModuleNotFoundError as error:
            return {"skipped": f"{error.name} is not installed"}
        return {"settings": variant.settings, "growth": peaks[1] - peaks[0]}


def main(peer: str) -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(peer)
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(worker, request.pop("ask"))(**request)
        print(json.dumps(answer), file=answers, flush=True)

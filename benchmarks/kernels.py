"""What the suites of single kernels share: check all answers, then time gvcore, the peers and the memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gvcore as gv
from gvcore.bench.check import check_answers
from gvcore.bench.harness import Contestant, Options, interleave, summarize
from gvcore.bench.machine import Memory, Peak
from gvcore.bench.prepared import Prepared, fastest
from gvcore.bench.remote import Remote
from gvcore.bench.report import OURS, Limit, Result

__all__ = ["ROOT", "large", "measure", "thread_counts"]

ROOT = (Path(__file__).resolve().parents[1],)  # where the processes of the peers find this folder

_LARGE = 256 << 20
_TOLERANCE = 1e-4  # of float32 sums over millions of rows, relative to the largest answer


def thread_counts(options: Options) -> list[int]:
    """One thread and as many as gvcore uses; the latter alone in a quick run."""
    if options.threads:
        return [options.threads]
    most = gv.get_num_threads()
    return [most] if options.quick else sorted({1, most})


def large(options: Options) -> int:
    """Bytes of an array that no cache holds: a virtual machine may own a share of a very large one."""
    return _LARGE // 4 if options.quick else _LARGE


def measure(
    result: Result,
    case: Mapping[str, Any],
    ours: Iterator[Prepared],
    expected: Sequence[float],
    remotes: Mapping[str, Remote],
    *,
    bytes: float,
    working_set: float,
    options: Options,
    flop: float = 0.0,
) -> Result:
    """Fill in `result`: times, settings and the limit of so many bytes (and flop)."""
    answers: dict[str, dict[str, list[float]]] = {}
    contestants: dict[str, Contestant] = {}
    with gv.threads(result.threads):
        best, contestants[OURS], answers[OURS] = fastest(ours)
        for peer, remote in remotes.items():
            if remote.prepare(case):
                contestants[peer], answers[peer] = remote, remote.answers
                result.settings[peer] = remote.settings
            else:
                result.skipped[peer] = str(remote.skipped)
        check_answers(f"{result.suite} {result.case}", expected, answers, _TOLERANCE)
        limits = {"peak": Peak(result.threads), "memory": Memory(result.threads, working_set)}
        samples = interleave({**limits, **contestants}, options.effort)
    rates = limits["peak"].rate(samples.pop("peak")), limits["memory"].rate(samples.pop("memory"))
    result.limit = Limit(flop, bytes, *rates)
    result.times = {name: summarize(seconds) for name, seconds in samples.items()}
    return result

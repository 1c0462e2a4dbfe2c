"""What a run found: as a table for the terminal and as JSON for whoever compares runs.

A time is seen next to the limit of the machine, which decides, and next to each peer, in the same run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import Summary

__all__ = ["Limit", "Result", "Run", "milliseconds"]

SCHEMA = 1
OURS = "gvcore"


@dataclass(frozen=True)
class Limit:
    """The larger of two bounds: the work at the peak of the processor, the traffic at that of the memory."""

    flop: float
    bytes: float
    flop_per_second: float
    bytes_per_second: float

    @property
    def seconds(self) -> float:
        return max(self.flop / self.flop_per_second, self.bytes / self.bytes_per_second)

    @property
    def bound(self) -> str:
        by_flop = self.flop / self.flop_per_second >= self.bytes / self.bytes_per_second
        return "flop" if by_flop else "bytes"

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "seconds": self.seconds, "bound": self.bound}


@dataclass
class Result:
    """One case of one suite: who needed how long, and the limit."""

    suite: str
    case: str
    sizes: dict[str, Any]
    threads: int
    limit: Limit
    times: dict[str, Summary]
    settings: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "suite": self.suite,
            "case": self.case,
            "sizes": self.sizes,
            "threads": self.threads,
            "limit": self.limit.to_dict(),
            "times": {name: time.to_dict() for name, time in self.times.items()},
            "settings": self.settings,
            "skipped": self.skipped,
        }


@dataclass
class Run:
    """Everything of one start of the program."""

    machine: dict[str, Any]
    results: list[Result] = field(default_factory=list)

    def write_json(self, path: str | Path) -> None:
        content = {
            "schema": SCHEMA,
            "machine": self.machine,
            "results": [result.to_dict() for result in self.results],
        }
        Path(path).write_text(json.dumps(content, indent=1) + "\n")


def milliseconds(seconds: float) -> str:
    """Three digits that count: 0.0123, 1.23, 123."""
    value = seconds * 1e3
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{max(0, digits)}f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that reads well as text and as Markdown."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(header, widths, strict=True)) + " |"]
    lines.append("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table(results: Sequence[Result], *, minima: bool = False) -> str:
    """One suite: milliseconds, gvcore over the limit, each peer over gvcore, by medians or by minima."""
    peers = list(dict.fromkeys(name for r in results for name in [*r.times, *r.skipped] if name != OURS))
    kind = "min" if minima else "median"
    header = ["case", "threads", "limit ms", "bound", f"{OURS} {kind}", "quartiles", "x limit"]
    if not minima:
        header.insert(5, "min")
    rows = []
    for result in results:
        ours, limit = result.times[OURS], result.limit
        seconds = {name: time.minimum if minima else time.median for name, time in result.times.items()}
        row = [
            result.case,
            str(result.threads),
            milliseconds(limit.seconds),
            limit.bound,
            milliseconds(seconds[OURS]),
            *([] if minima else [milliseconds(ours.minimum)]),
            f"{milliseconds(ours.first_quartile)}-{milliseconds(ours.third_quartile)}",
            f"{seconds[OURS] / limit.seconds:.2f}",
        ]
        for peer in peers:
            time = seconds.get(peer)
            row.append("-" if time is None else f"{milliseconds(time)} ({time / seconds[OURS]:.2f}x)")
        rows.append(row)
    return markdown([*header, *(f"{peer} {kind}" for peer in peers)], rows)


def machine_line(machine: dict[str, Any]) -> str:
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    return (
        f"{machine['date']}: {machine['cpu']}, {machine['cpus']} CPUs, {caches}; {machine['system']}; "
        f"gvcore {machine['gvcore']} ({machine['isa']}, {machine['compiler']}), "
        f"NumPy {machine['numpy']}, Python {machine['python']}"
    )


def busy(load: float | None) -> str:
    """A warning when others use the machine, else nothing."""
    if load is None or load < 0.3:
        return ""
    return f"Load {load:.1f} before the start: others use this machine; look at the minima, too."


def notes(results: Sequence[Result]) -> list[str]:
    """The limits that were measured, the settings that won, and who was skipped and why."""
    lines = []
    for threads in sorted({result.threads for result in results}):
        here = [result.limit for result in results if result.threads == threads]
        flop = max(limit.flop_per_second for limit in here) / 1e9
        memory = [limit.bytes_per_second / 1e9 for limit in here]
        lines.append(
            f"{threads} thread{'s' * (threads > 1)}: {flop:.0f} GFLOP/s, "
            f"{min(memory):.0f}-{max(memory):.0f} GB/s (by working set)"
        )
    for kind in ("settings", "skipped"):
        seen: dict[str, list[str]] = {}
        for result in results:
            for name, text in getattr(result, kind).items():
                seen.setdefault(f"{name}: {text}", []).append(result.case)
        for text, cases in seen.items():
            where = "" if len(cases) == len(results) else f" [{'; '.join(cases)}]"
            lines.append(("skipped " if kind == "skipped" else "") + text + where)
    return lines

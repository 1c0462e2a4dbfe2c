"""What a run found: as tables for the terminal and as JSON for whoever compares runs.

A time is seen next to the limit of the machine, which decides, next to each peer, in the same run, and with
the targets that the project has set itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gvcore.bench.figures import Figure
from gvcore.bench.harness import Options, Summary

__all__ = [
    "OURS",
    "Limit",
    "Result",
    "Run",
    "busy",
    "machine_line",
    "markdown",
    "milliseconds",
    "notes",
    "table",
    "verdict",
]

SCHEMA = 2
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
        """The least time that the machine allows."""
        return max(self.flop / self.flop_per_second, self.bytes / self.bytes_per_second)

    @property
    def bound(self) -> str:
        """Which of the two it is."""
        by_flop = self.flop / self.flop_per_second >= self.bytes / self.bytes_per_second
        return "flop" if by_flop else "bytes"

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {**vars(self), "seconds": self.seconds, "bound": self.bound}


@dataclass
class Result:
    """One case of one suite: who needed how long, the limit, and the figures that have targets."""

    suite: str
    case: str
    sizes: dict[str, Any]
    threads: int
    limit: Limit | None = None
    times: dict[str, Summary] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    group: str = ""  # results of one group share a table

    def share(self, options: Options, target: float | None = None) -> Figure:
        """Return which share of the machine's limit is reached."""
        assert self.limit is not None
        seconds = options.seconds(self.times[OURS])
        return Figure("of limit", self.limit.seconds / seconds, "%", target)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            "suite": self.suite,
            "group": self.group,
            "case": self.case,
            "sizes": self.sizes,
            "threads": self.threads,
            "limit": None if self.limit is None else self.limit.to_dict(),
            "times": {name: time.to_dict() for name, time in self.times.items()},
            "figures": [figure.to_dict() for figure in self.figures],
            "settings": self.settings,
            "skipped": self.skipped,
        }


@dataclass
class Run:
    """Everything of one start of the program."""

    machine: dict[str, Any]
    results: list[Result] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # suites that could not run, and why

    def write_json(self, path: str | Path) -> None:
        """Write everything that was measured."""
        content = {
            "schema": SCHEMA,
            "machine": self.machine,
            "left_out": self.left_out,
            "results": [result.to_dict() for result in self.results],
        }
        Path(path).write_text(json.dumps(content, indent=1) + "\n")


def milliseconds(seconds: float) -> str:
    """Three digits that count: 0.0123, 1.23, 123."""
    value = seconds * 1e3
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{max(0, digits)}f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that reads well as text and as Markdown."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(header, widths, strict=True)) + " |"]
    lines.append("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _met(figures: Sequence[Figure]) -> str:
    words = {True: "yes", False: "NO", None: "-"}
    return " / ".join(words[figure.met] for figure in figures)


def _row(result: Result, peers: Sequence[str], figures: Sequence[str], minima: bool) -> dict[str, str]:
    seconds = {name: time.minimum if minima else time.median for name, time in result.times.items()}
    kind = "min" if minima else "median"
    row = {"case": result.case, "threads": str(result.threads)}
    if result.limit is not None:
        row |= {"limit ms": milliseconds(result.limit.seconds), "bound": result.limit.bound}
    ours = result.times.get(OURS)
    if ours is not None:
        row[f"{OURS} ms"] = milliseconds(seconds[OURS])
        if not minima:
            row["min"] = milliseconds(ours.minimum)
        row["quartiles"] = f"{milliseconds(ours.first_quartile)}-{milliseconds(ours.third_quartile)}"
    by_name = {figure.name: figure for figure in result.figures}
    row |= {name: by_name[name].text() for name in figures if name in by_name}
    aimed = [by_name[name] for name in figures if name in by_name and by_name[name].target is not None]
    row["target"] = " / ".join(figure.target_text() for figure in aimed)
    row["met"] = _met(aimed)
    for peer in peers:
        time = seconds.get(peer)
        if time is not None:
            times = f" ({time / seconds[OURS]:.2f}x)" if OURS in seconds else ""
            row[f"{peer} {kind}"] = milliseconds(time) + times
    return row


def table(results: Sequence[Result], *, minima: bool = False) -> str:
    """Return one table: milliseconds, the limit, figures, targets, and in brackets each peer over gvcore."""
    peers = list(dict.fromkeys(name for r in results for name in [*r.times, *r.skipped] if name != OURS))
    figures = list(dict.fromkeys(figure.name for r in results for figure in r.figures))
    kind = "min" if minima else "median"
    rows: list[Mapping[str, str]] = [_row(result, peers, figures, minima) for result in results]
    columns = ["case", "threads", "limit ms", "bound", f"{OURS} ms", "min", "quartiles", *figures]
    columns += ["target", "met", *(f"{peer} {kind}" for peer in peers)]
    skipped = {f"{peer} {kind}" for r in results for peer in r.skipped}
    used = [name for name in columns if name in skipped or any(row.get(name) for row in rows)]
    return markdown(used, [[row.get(name) or "-" for name in used] for row in rows])


def verdict(results: Sequence[Result]) -> str:
    """Return how many targets were met, and those that were not."""
    aimed = [(r, f) for r in results for f in r.figures if f.met is not None]
    missed = []
    for r, f in aimed:
        if not f.met:
            where = f"{r.suite} {r.case}{f' [{r.group}]' if r.group else ''}"
            missed.append(f"{where}, {f.name}: {f.text()} ({f.target_text()})")
    unknown = sum(f.target is not None and f.met is None for r in results for f in r.figures)
    lines = [f"Targets met: {len(aimed) - len(missed)} of {len(aimed)}"]
    if unknown:
        lines[0] += f"; {unknown} more need a peer that is not installed or was left out"
    return "\n".join([*lines, *(f"  missed: {line}" for line in missed)])


def machine_line(machine: dict[str, Any]) -> str:
    """Return the machine, the build and the day in one line."""
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    return (
        f"{machine['date']}: {machine['cpu']}, {machine['cpus']} CPUs, {caches}; {machine['system']}; "
        f"gvcore {machine['gvcore']} ({machine['isa']}, {machine['compiler']}), "
        f"NumPy {machine['numpy']}, Python {machine['python']}"
    )


def busy(load: float | None) -> str:
    """Return a warning when others use the machine, else nothing."""
    if load is None or load < 0.3:
        return ""
    return f"Load {load:.1f} before the start: others use this machine; look at the minima, too."


def notes(results: Sequence[Result]) -> list[str]:
    """Return the limits that were measured, the settings that won, and who was skipped and why."""
    lines = []
    for threads in sorted({result.threads for result in results if result.limit is not None}):
        here = [r.limit for r in results if r.limit is not None and r.threads == threads]
        flop = [limit.flop_per_second / 1e9 for limit in here if limit.flop]
        memory = [limit.bytes_per_second / 1e9 for limit in here if limit.bytes]
        parts = [f"{max(flop):.0f} GFLOP/s"] if flop else []
        parts += [f"{min(memory):.0f}-{max(memory):.0f} GB/s (by working set)"] if memory else []
        lines.append(f"{threads} thread{'s' * (threads > 1)}: {', '.join(parts)}")
    timed = sum(bool(result.times) for result in results)
    for kind in ("settings", "skipped"):
        seen: dict[str, list[str]] = {}
        for result in results:
            for name, text in getattr(result, kind).items():
                seen.setdefault(f"{name}: {text}", []).append(result.case)
        for text, cases in seen.items():
            where = "" if len(cases) >= timed else f" [{'; '.join(cases)}]"
            lines.append(("skipped " if kind == "skipped" else "") + text + where)
    return lines

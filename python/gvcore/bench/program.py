"""What ``gvcore bench`` and ``python -m benchmarks`` share: options, running suites, printing, writing."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from gvcore._files import check_folder, check_matplotlib
from gvcore.bench.harness import Effort, Options
from gvcore.bench.machine import describe, load
from gvcore.bench.picture import draw
from gvcore.bench.remote import PEERS
from gvcore.bench.report import Result, Run, busy, machine_line, notes, table, verdict

__all__ = ["LeftOut", "Suite", "add_options", "options_of", "run_suites"]

Suite = Callable[[Options], Iterator[Result]]


class LeftOut(Exception):
    """Raised by a suite that cannot run here; its text says why."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that both programs have."""
    parser.add_argument("--threads", type=int, metavar="N", help="of every case, instead of its own")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each contestant")
    parser.add_argument("--minima", action="store_true", help="judge by minima, not medians: busy machines")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured")
    parser.add_argument("--picture", metavar="FILE", help="draw the training step (needs matplotlib)")


def options_of(
    parsed: argparse.Namespace,
    *,
    quick: bool,
    peers: Sequence[str] | None = None,
    pythons: Mapping[str, str] | None = None,
) -> Options:
    """Return what the suites are told.

    Raises
    ------
    ValueError
        If a number is below 1 or a peer is unknown.
    """
    for name in ("threads", "rounds"):
        value = getattr(parsed, name)
        if value is not None and value < 1:
            raise ValueError(f"[bench] expected --{name} of at least 1, got {value}")
    if unknown := set(peers or ()) - {*PEERS, "gvcore"}:
        raise ValueError(f"[bench] expected peers of {', '.join(PEERS)}, got {', '.join(sorted(unknown))}")
    effort = Effort.quick() if quick else Effort()
    if parsed.rounds is not None:
        effort = Effort(parsed.rounds, effort.seconds, effort.pause)
    return Options(
        effort, quick, parsed.threads, None if peers is None else tuple(peers), pythons or {}, parsed.minima
    )


def run_suites(
    suites: Mapping[str, Suite],
    options: Options,
    *,
    json: str | None = None,
    picture: str | None = None,
    write: Callable[[str], object] = print,
) -> Run:
    """Run suites by name, write their tables as text, and the files that were asked for."""
    for argument, path in (("--json", json), ("--picture", picture)):  # before minutes of measuring
        if path:
            check_folder("bench", argument, path)
    if picture:
        check_matplotlib("bench")
        if not {"compare", "step"} & set(suites):
            raise ValueError(
                f"[bench] expected a suite compare or step for a picture, got {', '.join(suites)}"
            )
    run = Run(describe())
    write(machine_line(run.machine))
    if warning := busy(run.machine["load"]):
        write(warning)
    for name, suite in suites.items():
        results = []
        began = time.perf_counter()
        try:
            for result in suite(options):
                if sys.stderr.isatty():
                    print(f"\r\x1b[K{name}: {result.case}", end="", file=sys.stderr, flush=True)
                results.append(result)
        except LeftOut as reason:
            run.left_out[name] = str(reason)
            write(f"\n## {name}\n\nleft out: {reason}")
            continue
        finally:
            if sys.stderr.isatty():
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        write(f"\n## {name} ({time.perf_counter() - began:.0f} s)")
        for group, members in groupby(results, key=lambda result: result.group):
            title = f"\n{group}\n" if group else ""
            write(f"{title}\n{table(list(members), minima=options.minima)}")
        if lines := notes(results):
            write("\n" + "\n".join(f"- {line}" for line in lines))
        run.results += results
    run.machine["load_at_the_end"] = load()
    write(f"\nLoad before and after: {run.machine['load']}, {run.machine['load_at_the_end']}")
    write(verdict(run.results))
    if json:
        run.write_json(json)
    if picture:
        draw(run.results, picture, options, machine_line(run.machine))
    return run

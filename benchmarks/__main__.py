"""``python -m benchmarks [step|gemm|compare …]``: reads arguments, runs suites, prints."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks import compare, gemm, step
from gvcore.bench.harness import Effort
from gvcore.bench.machine import describe, load
from gvcore.bench.worker import PEERS
from gvcore.bench.report import Result, Run, busy, machine_line, notes, table

__all__ = ["main"]

SUITES: dict[str, Callable[..., Iterator[Result]]] = {
    "step": step.run,
    "gemm": gemm.run,
    "compare": compare.run,
}
DEFAULT = ["step", "gemm"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{', '.join(SUITES)}; default {DEFAULT}")
    parser.add_argument("--quick", action="store_true", help="fewer cases, shorter turns")
    parser.add_argument("--threads", type=int, metavar="N", help="of every case, instead of its own")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each contestant")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured")
    parser.add_argument("--minima", action="store_true", help="print minima, not medians: busy machines")
    known = ",".join(PEERS)
    parser.add_argument("--peers", default=known, metavar="A,B", help="of compare (default: %(default)s)")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PEER=EXECUTABLE",
        help="interpreter that has a peer's packages, such as jax=.jax/bin/python",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    peers = [name.strip() for name in options.peers.split(",")]
    for given, known in ((options.suites, SUITES), (peers, PEERS)):
        if unknown := set(given) - set(known):
            parser.error(f"expected some of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    if options.threads is not None and options.threads < 1:
        parser.error(f"expected --threads of at least 1, got {options.threads}")
    effort = Effort.quick() if options.quick else Effort()
    if options.rounds is not None:
        effort = Effort(max(1, options.rounds), effort.seconds)
    pythons = dict(pair.split("=", 1) for pair in options.python if "=" in pair)

    run = Run(describe())
    print(machine_line(run.machine))
    if warning := busy(run.machine["load"]):
        print(warning, flush=True)
    for name in options.suites or DEFAULT:
        extra: dict[str, Any] = {"peers": peers, "pythons": pythons} if name == "compare" else {}
        suite = functools.partial(SUITES[name], effort, quick=options.quick, threads=options.threads, **extra)
        results = []
        for result in suite():
            if sys.stderr.isatty():
                print(f"{name}: {result.case:40}", end="\r", file=sys.stderr, flush=True)
            results.append(result)
        print(f"\n{name}\n\n{table(results, minima=options.minima)}\n")
        print("\n".join(notes(results)), flush=True)
        run.results += results
    run.machine["load_at_the_end"] = load()
    print(f"\nLoad before and after: {run.machine['load']}, {run.machine['load_at_the_end']}")
    if options.json:
        run.write_json(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())

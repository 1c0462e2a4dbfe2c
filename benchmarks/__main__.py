"""``python -m benchmarks [SUITE …]``: reads arguments, runs suites, prints; README.md explains them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks import (
    batchnorm,
    block,
    compare,
    elementwise,
    gather,
    memory,
    mnist,
    optim,
    scaling,
    shapes,
    width,
)
from gvcore.bench import gemm, step
from gvcore.bench.program import Suite, add_options, options_of, run_suites
from gvcore.bench.remote import PEERS

__all__ = ["main"]


SUITES: dict[str, Suite] = {
    "step": step.run,
    "compare": compare.run,
    "mnist": mnist.run,
    "memory": memory.run,
    "gemm": gemm.run,
    "shapes": shapes.run,
    "scaling": scaling.run,
    "batchnorm": batchnorm.run,
    "elementwise": elementwise.run,
    "optim": optim.run,
    "gather": gather.run,
    "block": block.run,
    "width": width.run,
}
DEFAULT = [name for name in SUITES if name != "step"]  # compare has it all


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{', '.join(SUITES)} (all but step)")
    parser.add_argument("--quick", action="store_true", help="fewer cases, shorter turns")
    add_options(parser)
    known = ",".join(PEERS)
    parser.add_argument("--peers", default=known, metavar="A,B", help="compared with (default: %(default)s)")
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
    parsed = parser.parse_args(arguments)
    if unknown := set(parsed.suites) - set(SUITES):
        parser.error(f"expected some of {', '.join(SUITES)}, got {', '.join(sorted(unknown))}")
    pythons = dict(pair.split("=", 1) for pair in parsed.python if "=" in pair)
    peers = [name.strip() for name in parsed.peers.split(",")]
    try:
        options = options_of(parsed, quick=parsed.quick, peers=peers, pythons=pythons)
        run_suites(
            {name: SUITES[name] for name in parsed.suites or DEFAULT},
            options,
            json=parsed.json,
            picture=parsed.picture,
            write=lambda line: print(line, flush=True),
        )
    except (ValueError, ImportError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())

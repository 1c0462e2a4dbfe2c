"""The command line, ``gvcore`` and ``python -m gvcore``: reads arguments, calls the library, prints."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import gvcore as gv
from gvcore import demo
from gvcore._files import check_folder
from gvcore.bench import program

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after ``gvcore``; those of the process when None.

    Returns
    -------
    int
        0 when all went well, 1 when a command failed. Words that make no sense raise ``SystemExit(2)``.

    Examples
    --------
    >>> from gvcore.cli import main
    >>> main(["demo", "--depth", "3"])
    1
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ValueError, OSError, ImportError) as error:
        print(f"gvcore: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gvcore", description="Very deep networks, trained on a CPU.")
    parser.add_argument("--version", action="version", version=f"gvcore {gv.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    shared = demo.Settings()
    command = commands.add_parser(
        "demo",
        help="train one deep network four ways on handwritten digits",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("--depth", type=int, default=shared.depth, metavar="N", help="linear layers, >= 4")
    command.add_argument("--width", type=int, default=shared.width, metavar="N", help="units of a layer")
    command.add_argument("--epochs", type=int, default=shared.epochs, metavar="N", help="passes over it")
    command.add_argument("--lr", type=float, default=shared.lr, metavar="X", help="first learning rate")
    command.add_argument("--seed", type=int, default=shared.seed, metavar="S", help="of everything random")
    command.add_argument(
        "--plot",
        default="demo-gradients.png",
        metavar="FILE",
        help="picture of the gradient norms; an empty name draws none",
    )
    command.set_defaults(run=_demo)

    command = commands.add_parser("info", help="show version, instruction sets and threads")
    command.set_defaults(run=_info)

    command = commands.add_parser(
        "bench", help="time the training step and products against this machine's limit and NumPy"
    )
    program.add_options(command)
    command.set_defaults(run=_bench)
    return parser


def _demo(options: argparse.Namespace) -> int:
    if options.plot:
        check_folder("demo", "--plot", options.plot)
    settings = demo.Settings(
        depth=options.depth, width=options.width, epochs=options.epochs, lr=options.lr, seed=options.seed
    )
    start = time.perf_counter()
    norms = demo.run(settings, write=lambda line: print(line, flush=True))
    print(f"\n{time.perf_counter() - start:.0f} seconds in all.", end=" ")
    if options.plot:
        try:
            demo.plot_gradients(norms, options.plot)
            print(f"Gradient norms by layer: {options.plot}")
        except ImportError as error:
            print(f"No picture: {error}")
    else:
        print()
    return 0


def _info(options: argparse.Namespace) -> int:
    gv.show_config()
    return 0


def _bench(options: argparse.Namespace) -> int:
    from gvcore.bench import gemm, step

    suites: dict[str, program.Suite] = {"compare": step.compare, "gemm": gemm.run}
    settings = program.options_of(options, quick=True, peers=["numpy"])
    program.run_suites(
        suites,
        settings,
        json=options.json,
        picture=options.picture,
        write=lambda line: print(line, flush=True),
    )
    return 0

"""Suites ``step`` and ``compare``: a whole training step against the limit of the machine, and against peers.

In ``step`` gvcore runs in this process and alone, in ``compare`` everybody in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import gvcore as gv
from gvcore.bench import gvcore_step
from gvcore.bench.check import check_losses
from gvcore.bench.figures import Figure, ratio
from gvcore.bench.harness import Contestant, Options, interleave, summarize
from gvcore.bench.machine import Memory, Peak
from gvcore.bench.prepared import fastest
from gvcore.bench.remote import start
from gvcore.bench.report import OURS, Limit, Result
from gvcore.bench.residual_net import Net

__all__ = ["CASES", "NUMPY", "QUICK", "Case", "against", "cases", "compare", "measure", "run"]

NUMPY = dict.fromkeys(("numpy", "numpy avx512"), "gvcore.bench.numpy_step:prepare")


@dataclass(frozen=True)
class Case:
    """A net, its threads, and the aims: times PyTorch eager, times the best peer, share of the limit."""

    net: Net
    threads: int
    x_torch: float | None = None
    x_best: float | None = None
    share: float | None = None


# Small and deep, where overhead decides, to wide, where the products do.
CASES = [
    Case(Net(8, 64, 64), 1, 25.0, 10.0, 0.30),
    Case(Net(32, 64, 128), 1, 20.0, 4.5, 0.60),
    Case(Net(32, 32, 1000), 1, 50.0, 6.0, 0.40),
    Case(Net(128, 128, 16), 1, 3.8, 2.7, 0.70),
    Case(Net(128, 256, 32), 1, 3.0, 2.4, 0.77),
    Case(Net(256, 512, 16), 2, 2.7, 2.4, 0.80),
    Case(Net(1024, 256, 8), 2, 2.6, 2.4, 0.77),
]
QUICK = [CASES[0], CASES[3], CASES[6]]


def cases(options: Options) -> list[Case]:
    """Return the cases; on other threads than their own they have no targets."""
    chosen = QUICK if options.quick else CASES
    threads = options.threads
    return [c if threads in (None, c.threads) else Case(c.net, threads) for c in chosen]


def measure(suite: str, case: Case, contestants: Mapping[str, Contestant], options: Options) -> Result:
    """Time contestants that were checked, and the limit between their turns."""
    net = case.net
    peak, memory = Peak(case.threads), Memory(case.threads, net.working_set)
    samples = interleave({"peak": peak, "memory": memory, **contestants}, options.effort)
    limit = Limit(net.flop, net.bytes, peak.rate(samples.pop("peak")), memory.rate(samples.pop("memory")))
    times = {name: summarize(seconds) for name, seconds in samples.items()}
    result = Result(suite, str(net), net.to_dict(), case.threads, limit, times)
    result.figures = [result.share(options, case.share)]
    return result


def run(options: Options) -> Iterator[Result]:
    """Time gvcore alone."""
    for case in cases(options):
        with gv.threads(case.threads):
            _, local, losses = fastest(gvcore_step.prepare(case.net.to_dict(), case.threads))
            check_losses(case.net, {OURS: losses})
            yield measure("step", case, {OURS: local}, options)


def against(result: Result, case: Case, options: Options) -> list[Figure]:
    """Return how many times faster gvcore is than PyTorch eager and than the best of all peers.

    A peer that cannot do a case (compiling takes minutes) is not missing; one that is not installed is.
    """
    seconds = {name: options.seconds(time) for name, time in result.times.items()}
    ours = seconds.pop(OURS)
    unable = {name for name, why in result.skipped.items() if not why.endswith("not installed")}
    partial = not {*seconds, *unable} >= {"numpy", "torch", "torch.compile", "jax"}
    best = ratio(min(seconds.values(), default=None), ours)
    return [
        Figure("x torch", ratio(seconds.get("torch"), ours), target=case.x_torch),
        Figure("x best", best, target=case.x_best, partial=partial),
    ]


def compare(
    options: Options, peers: Mapping[str, str] = NUMPY, paths: tuple[Path, ...] = ()
) -> Iterator[Result]:
    """Time the same step by gvcore and its peers, name -> "module:function"."""
    functions = {OURS: "gvcore.bench.gvcore_step:prepare", **peers}
    for case in cases(options):
        settings, losses = {}, {}
        contestants: dict[str, Contestant] = {}
        wanted = Options(**{**vars(options), "peers": (*(options.peers or functions), OURS)})
        with start(functions, case.threads, wanted, paths) as (remotes, skipped):
            for peer, remote in remotes.items():
                if remote.prepare(case.net.to_dict()):
                    contestants[peer] = remote
                    settings[peer], losses[peer] = remote.settings, remote.answers
                else:
                    skipped[peer] = str(remote.skipped)
                    remote.close()
            check_losses(case.net, losses)
            result = measure("compare", case, contestants, options)
        result.settings, result.skipped = settings, skipped
        result.figures = [*against(result, case, options), *result.figures]
        yield result

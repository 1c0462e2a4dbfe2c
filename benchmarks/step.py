"""Suite ``step``: a whole training step of gvcore against the limit of the machine."""

from __future__ import annotations

from collections.abc import Iterator

import gvcore as gv
from benchmarks.check import check_losses
from benchmarks.harness import Contestant, Effort, interleave, summarize
from benchmarks.machine import Memory, Peak
from benchmarks.peers import gvcore_step
from benchmarks.peers.prepared import fastest
from benchmarks.report import OURS, Limit, Result
from benchmarks.residual_net import Net

__all__ = ["CASES", "QUICK", "cases", "measure", "run"]

# (net, threads): small and deep, where overhead decides, to wide, where the products do.
CASES = [
    (Net(8, 64, 64), 1),
    (Net(32, 64, 128), 1),
    (Net(32, 32, 1000), 1),
    (Net(128, 128, 16), 1),
    (Net(128, 256, 32), 1),
    (Net(256, 512, 16), 2),
    (Net(1024, 256, 8), 2),
]
QUICK = [CASES[0], CASES[3], CASES[6]]


def cases(quick: bool, threads: int | None) -> list[tuple[Net, int]]:
    """Return the cases, all with so many threads if that was asked for."""
    return [(net, threads or own) for net, own in (QUICK if quick else CASES)]


def measure(suite: str, net: Net, threads: int, contestants: dict[str, Contestant], effort: Effort) -> Result:
    """Time contestants that were checked, and the limit between their turns."""
    peak, memory = Peak(threads), Memory(threads, net.working_set)
    samples = interleave({"peak": peak, "memory": memory, **contestants}, effort)
    limit = Limit(net.flop, net.bytes, peak.rate(samples.pop("peak")), memory.rate(samples.pop("memory")))
    times = {name: summarize(seconds) for name, seconds in samples.items()}
    return Result(suite, str(net), net.to_dict(), threads, limit, times)


def run(effort: Effort, *, quick: bool, threads: int | None) -> Iterator[Result]:
    for net, workers in cases(quick, threads):
        with gv.threads(workers):
            _, local, losses = fastest(gvcore_step.prepare(net, workers))
            check_losses(net, {OURS: losses})
            yield measure("step", net, workers, {OURS: local}, effort)

"""Suite ``compare``: the same training step by gvcore and its peers, each in a process of its own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.check import check_losses
from benchmarks.harness import Contestant, Effort
from benchmarks.peers.remote import Remote
from benchmarks.peers.worker import PEERS
from benchmarks.report import OURS, Result
from benchmarks.residual_net import Net
from benchmarks.step import cases, measure

__all__ = ["compare", "run"]


def has_avx512() -> bool:
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def compare(
    net: Net, threads: int, peers: Sequence[str], pythons: Mapping[str, str], effort: Effort
) -> Result:
    """Start, check and time the peers on one net."""
    settings, skipped, losses = {}, {}, {}
    contestants: dict[str, Contestant] = {}
    with contextlib.ExitStack() as stack:
        for peer in [OURS, *(name for name in peers if name != OURS)]:
            if peer == "numpy avx512" and not has_avx512():
                skipped[peer] = "this processor has no AVX-512"
                continue
            python = pythons.get(peer.partition(" ")[0].partition(".")[0], sys.executable)
            remote = stack.enter_context(Remote(peer, net, threads, python))
            if remote.skipped:
                skipped[peer] = remote.skipped
                continue
            contestants[peer] = remote
            settings[peer], losses[peer] = remote.settings, remote.losses
        check_losses(net, losses)
        result = measure("compare", net, threads, contestants, effort)
    result.settings, result.skipped = settings, skipped
    return result


def run(
    effort: Effort,
    *,
    quick: bool,
    threads: int | None,
    peers: Sequence[str] = tuple(PEERS),
    pythons: Mapping[str, str] | None = None,
) -> Iterator[Result]:
    for net, workers in cases(quick, threads):
        yield compare(net, workers, peers, pythons or {}, effort)

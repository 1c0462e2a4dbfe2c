"""Suite ``memory``: by how much three steps of a large net grow a process that has done steps of a tiny one.

Each peer has a process of its own, whose peak resident size is read; libraries and their pools are in it
before the large net comes. No times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import gvcore as gv
from benchmarks.compare import PEERS
from benchmarks.kernels import ROOT
from gvcore.bench.figures import Figure, ratio
from gvcore.bench.harness import Options
from gvcore.bench.remote import start
from gvcore.bench.report import OURS, Result
from gvcore.bench.residual_net import Net

__all__ = ["figures", "run"]

NET, TINY = Net(4096, 256, 50), Net(4, 8, 1)
FUNCTIONS = {
    OURS: "gvcore.bench.gvcore_step:prepare",
    **{name: PEERS[name] for name in ("numpy", "torch", "jax")},
}


def figures(growth: Mapping[str, float]) -> list[Figure]:
    """Return the growth of everybody, and gvcore's as a share of PyTorch's."""
    share = Figure("of torch", ratio(growth[OURS], growth.get("torch")), "%", 0.55, at_most=True)
    return [*(Figure(f"{peer} grows by", value, "MB") for peer, value in growth.items()), share]


def run(options: Options) -> Iterator[Result]:
    """Measure one net."""
    threads = options.threads or gv.get_num_threads()
    result = Result("memory", str(NET), NET.to_dict(), threads)
    growth: dict[str, float] = {}
    wanted = Options(**{**vars(options), "peers": (*(options.peers or FUNCTIONS), OURS)})
    for peer in FUNCTIONS:
        with start({peer: FUNCTIONS[peer]}, threads, wanted, ROOT) as (remotes, _):
            for remote in remotes.values():
                sizes = {"small": TINY.to_dict(), "case": NET.to_dict()}
                answer = remote.ask("memory", **sizes, threads=threads)
                if "skipped" in answer:
                    result.skipped[peer] = answer["skipped"]
                else:
                    growth[peer], result.settings[peer] = answer["growth"], answer["settings"]
    result.figures = figures(growth)
    yield result

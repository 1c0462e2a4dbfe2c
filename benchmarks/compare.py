"""Suite ``compare``: the same training step by gvcore and its peers, each in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.kernels import ROOT
from gvcore.bench import step
from gvcore.bench.harness import Options
from gvcore.bench.report import Result

__all__ = ["PEERS", "run"]

PEERS = {
    **step.NUMPY,
    "torch": "benchmarks.peers.torch_step:prepare",
    "torch.compile": "benchmarks.peers.torch_step:prepare_compiled",
    "jax": "benchmarks.peers.jax_step:prepare",
}


def run(options: Options) -> Iterator[Result]:
    """Time every case by every peer that is installed."""
    yield from step.compare(options, PEERS, ROOT)

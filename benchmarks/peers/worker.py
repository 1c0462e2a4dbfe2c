"""The process of one peer: reads requests as lines of JSON, answers each with one line.

``prepare`` builds the step and returns its first losses; ``turn`` times it. Libraries may print what they
like: their standard output goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from benchmarks.harness import Local
from benchmarks.peers.prepared import fastest
from benchmarks.residual_net import Net

__all__ = ["PEERS", "main"]

# name -> (file, function)
PEERS = {
    "gvcore": ("gvcore_step", "prepare"),
    "numpy": ("numpy_step", "prepare"),
    "numpy avx512": ("numpy_step", "prepare"),
    "torch": ("torch_step", "prepare"),
    "torch.compile": ("torch_step", "prepare_compiled"),
    "jax": ("jax_step", "prepare"),
}


class Worker:
    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.local: Local | None = None

    def prepare(self, net: dict[str, int], threads: int) -> dict[str, Any]:
        file, function = PEERS[self.peer]
        try:
            module = importlib.import_module(f"benchmarks.peers.{file}")
            best, self.local, losses = fastest(getattr(module, function)(Net(**net), threads))
        except ModuleNotFoundError as error:
            return {"skipped": f"{error.name} is not installed"}
        except NotImplementedError as error:
            return {"skipped": str(error)}
        return {"settings": best.settings, "losses": losses}

    def turn(self, seconds: float) -> dict[str, Any]:
        assert self.local is not None
        return {"samples": self.local.turn(seconds)}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(worker, request.pop("ask"))(**request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

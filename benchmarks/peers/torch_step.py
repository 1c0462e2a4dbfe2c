"""The step in PyTorch: eager with the fused and with the foreach optimiser, and under `torch.compile`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from gvcore.bench.prepared import Prepared
from gvcore.bench.residual_net import CLASSES, DECAY, EPS, FEATURES, MOMENTUM, RATE, RUNNING_MOMENTUM, Net

__all__ = ["prepare", "prepare_compiled"]

MOST_COMPILED_BLOCKS = 128  # compiling takes seconds per block


def _build(torch: Any, net: Net) -> Any:
    class Block(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(net.width, net.width, bias=False)
            self.norm = torch.nn.BatchNorm1d(net.width, eps=EPS, momentum=RUNNING_MOMENTUM)

        def forward(self, x: Any) -> Any:
            return x + torch.relu(self.norm(self.linear(x)))

    module = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, net.width),
        *(Block() for _ in range(net.depth)),
        torch.nn.Linear(net.width, CLASSES),
    )
    values = net.values().named("0", "{j}.{part}", str(net.depth + 1))
    tensors = {name: torch.from_numpy(value) for name, value in values.items()}
    module.load_state_dict({**module.state_dict(), **tensors})
    return module


def _step(torch: Any, net: Net, compiled: bool, **settings: bool) -> Callable[[], float]:
    module = _build(torch, net)
    x, y = (torch.from_numpy(array) for array in net.data())
    optimizer = torch.optim.SGD(
        module.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, **settings
    )
    starts, rows = net.starts(), net.batch

    def loss_of(x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(module(x), y)

    forward = torch.compile(loss_of) if compiled else loss_of

    def step() -> float:
        start = next(starts)
        optimizer.zero_grad(set_to_none=True)
        loss = forward(x[start : start + rows], y[start : start + rows])
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def prepare(case: dict[str, int], threads: int) -> Iterator[Prepared]:
    net = Net(**case)
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    for setting in ("fused", "foreach"):
        step = _step(torch, net, False, **{setting: True})
        yield Prepared(step, f"torch {torch.__version__}, SGD({setting}=True)")


def prepare_compiled(case: dict[str, int], threads: int) -> Iterator[Prepared]:
    net = Net(**case)
    torch = importlib.import_module("torch")
    if net.depth > MOST_COMPILED_BLOCKS:
        raise NotImplementedError(f"compiles {MOST_COMPILED_BLOCKS} blocks at most, more take too long")
    torch.set_num_threads(threads)
    step = _step(torch, net, True, fused=True)
    yield Prepared(step, f"torch {torch.__version__}, torch.compile, SGD(fused=True)")

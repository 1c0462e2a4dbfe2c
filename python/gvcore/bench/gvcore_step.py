"""The step of gvcore: `gvcore.TrainStep`, one call per batch."""

from __future__ import annotations

from collections.abc import Iterator

import gvcore as gv
from gvcore import nn
from gvcore.bench.prepared import Prepared
from gvcore.bench.residual_net import CLASSES, DECAY, EPS, FEATURES, MOMENTUM, RATE, RUNNING_MOMENTUM, Net

__all__ = ["build", "prepare"]


def build(net: Net) -> nn.Sequential:
    """Return the net with its first values."""
    width = net.width
    blocks = [
        nn.Residual(
            nn.Linear(width, width, bias=False),
            nn.BatchNorm(width, eps=EPS, momentum=RUNNING_MOMENTUM),
            nn.ReLU(),
        )
        for _ in range(net.depth)
    ]
    module = nn.Sequential(nn.Linear(FEATURES, width), *blocks, nn.Linear(width, CLASSES))
    part = {"linear": "layers.0", "norm": "layers.1"}
    names = net.values().named("0", "{j}.{part}", str(net.depth + 1))
    state = {
        name.replace(".linear.", f".{part['linear']}.").replace(".norm.", f".{part['norm']}."): value
        for name, value in names.items()
    }
    module.load_state_dict({**module.state_dict(), **state})
    return module


def prepare(case: dict[str, int], threads: int) -> Iterator[Prepared]:
    """Yield the step of a net given by its sizes."""
    net = Net(**case)
    gv.set_num_threads(threads)
    optimizer = gv.optim.SGD(lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    train = gv.TrainStep(build(net), nn.CrossEntropyLoss(), optimizer)
    x, y = net.data()
    starts, rows = net.starts(), net.batch

    def step() -> float:
        start = next(starts)
        return train(x[start : start + rows], y[start : start + rows])

    yield Prepared(step, "TrainStep")

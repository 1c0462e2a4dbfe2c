"""What the tests of the training step share: a small net with every kind of state, batches, and all the
bytes that a step may write."""

import numpy as np

import gvcore as gv
from gvcore import nn

FEATURES, CLASSES = 5, 3
SGD = gv.optim.SGD(lr=0.1, momentum=0.9, weight_decay=1e-2)
OPTIMISERS = {
    "sgd": gv.optim.SGD(lr=0.1),
    "momentum": SGD,
    "adam": gv.optim.Adam(lr=0.01),
    "adamw": gv.optim.AdamW(lr=0.01),
}


def make_net(*, dropout=True, norm=True, dtype=np.float32, outputs=CLASSES):
    """Everything that has a state: parameters, running statistics, random numbers."""
    layers = [nn.Linear(FEATURES, 8)]
    layers += [nn.BatchNorm(8)] if norm else []
    layers += [nn.ReLU(), nn.Residual(nn.Linear(8, 8), nn.Tanh())]
    layers += [nn.Dropout(0.3)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(8, outputs)).reset_parameters(4).astype(dtype)


def batch(rows=9, seed=0, dtype=np.float32):
    random = np.random.default_rng([11, seed])
    return random.normal(size=(rows, FEATURES)).astype(dtype), random.integers(0, CLASSES, rows)


def state(net, step):
    """Every byte that a step may write, and its counters."""
    kept = {name: array.tobytes() for name, array in {**net.parameters(), **net.buffers()}.items()}
    for kind, value in step.state.items():
        if isinstance(value, dict):
            for name, array in value.items():
                # State that is not there yet is zero.
                if array.any():
                    kept[f"{kind}.{name}"] = array.tobytes()
        else:
            kept[kind] = np.asarray(value).tobytes()
    return kept


def assert_same(before, after):
    assert list(before) == list(after)
    assert [name for name in before if before[name] != after[name]] == []

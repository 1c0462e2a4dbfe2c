"""What the tests of Trainer train: a small net, 101 rows, three classes or one target."""

from __future__ import annotations

from typing import Any

import numpy as np

import gvcore as gv
from gvcore import nn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(101, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 1)
TARGET = (X[:, :1] * X[:, 1:2]).astype(np.float32)


def make(loss: Any = None, *, outputs: int | None = None, lr: Any = 0.1, **options: Any) -> gv.Trainer:
    loss = nn.CrossEntropyLoss() if loss is None else loss
    width = outputs or (3 if isinstance(loss, nn.CrossEntropyLoss) else 1)
    net = nn.Sequential(nn.Linear(3, 8, seed=1), nn.Tanh(), nn.Linear(8, width, seed=2))
    return gv.Trainer(net, loss, gv.optim.SGD(lr=lr, momentum=0.9), seed=0, **options)


def python_mse(prediction: Any, target: Any) -> Any:
    error = prediction - target
    return float(np.mean(error * error)), 2 * error / error.size

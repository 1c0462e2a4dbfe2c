"""A user's program, for the type checker: a module, a loss, a metric and callbacks of its own.

It is checked with mypy --strict by test_user_program.py, and run by the same test.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import gvcore as gv
from gvcore import nn
from gvcore.callbacks import Callback, Checkpoint, CSVLogger, EarlyStopping, LearningRateLogger, Timer

Array = NDArray[np.float32]


class Gated(nn.Module):
    """A module with parameters of its own."""

    def __init__(self, features: int, outputs: int, seed: int) -> None:
        self.value = nn.Linear(features, outputs, seed=seed)
        self.gate = nn.Linear(features, outputs, seed=seed + 1)
        self.scale = nn.Parameter(np.ones(outputs, np.float32))

    def forward(self, x: Any) -> Any:  # a traced value
        gate = gv.functional.sigmoid(self.gate(x))
        return self.value(x) * gate * self.scale


def absolute(prediction: Array, target: Array) -> tuple[float, Array]:
    """A loss: the mean absolute error and its gradient."""
    error = prediction - target
    return float(np.mean(np.abs(error))), np.sign(error) / np.float32(error.size)


def worst(prediction: Array, target: Array) -> float:
    """A metric."""
    return float(np.max(np.abs(prediction - target)))


class Watch(Callback):
    """A callback with hooks of both kinds."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.epochs = 0

    def on_fit_begin(self, trainer: gv.Trainer) -> None:
        self.losses.clear()

    def on_step_end(self, trainer: gv.Trainer) -> None:
        self.losses.append(trainer.last_step["loss"])

    def on_epoch_end(self, trainer: gv.Trainer) -> bool:
        self.epochs += 1
        return self.epochs >= 3


def report(trainer: gv.Trainer) -> None:
    """A callback that is a plain function."""
    assert trainer.history.epoch[-1]["val_loss"] >= 0.0


def main(folder: str) -> gv.History:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    y = (x[:, :1] * x[:, 1:2]).astype(np.float32)
    net = nn.Sequential(Gated(3, 4, seed=0), nn.Linear(4, 1, seed=2))
    optimizer = gv.optim.SGD(lr=gv.schedules.cosine(0.1, warmup_steps=2), momentum=0.9)
    trainer = gv.Trainer(net, absolute, optimizer, clip_norm=1.0, seed=0)
    watch = Watch()
    history = trainer.fit(
        x,
        y,
        epochs=5,
        batch_size=16,
        validation=0.25,
        accumulate=2,
        metrics=["rmse", gv.metrics.r2, worst],
        callbacks=[
            watch,
            report,
            lambda t: None,
            EarlyStopping(patience=2, restore_best=True),
            Checkpoint(f"{folder}/best.npz", monitor="val_loss"),
            CSVLogger(f"{folder}/log.csv"),
            LearningRateLogger(),
            Timer(limit=60.0),
        ],
    )
    prediction: NDArray[np.float32] = trainer.predict(x)
    assert prediction.shape == y.shape
    stored = gv.scaled((x * 100).astype(np.int16), 0.01)
    assert trainer.predict(stored).shape == y.shape
    trainer.fit(stored, y, epochs=0, batch_size=16, validation=(stored[:9], y[:9]))
    scores: dict[str, float] = trainer.evaluate(x, y, metrics=[gv.metrics.mae])
    assert scores["mae"] >= 0.0
    assert len(watch.losses) == len(history.step)
    names: list[str] = list(net.parameters())
    assert "0.scale" in names
    loss, gradients = gv.value_and_grad(net, nn.L1Loss())(x, y)
    assert loss >= 0.0 and gradients.keys() == net.parameters().keys()
    return history


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        print(main(scratch))

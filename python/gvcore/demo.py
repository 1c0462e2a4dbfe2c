"""The demonstration behind ``gvcore demo``: one deep network, four ways, on handwritten digits.

It shows what batch normalisation and residual connections each do to the gradient at the start and to
the accuracy at the end, and what the decay of the learning rate adds. It hides no failure.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gvcore as gv
from gvcore import nn
from gvcore._files import check_matplotlib

__all__ = ["REMEDIES", "Outcome", "Settings", "build", "gradient_norms", "plot_gradients", "run"]

# name -> (batch normalisation, residual connections)
REMEDIES = {
    "plain": (False, False),
    "batch norm": (True, False),
    "residual": (False, True),
    "batch norm + residual": (True, True),
}

Schedule = Callable[[int], float]
Write = Callable[[str], object]


@dataclass(frozen=True)
class Settings:
    """What all runs of the demonstration share."""

    depth: int = 100
    width: int = 64
    epochs: int = 30
    batch_size: int = 64
    lr: float = 0.05
    momentum: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("depth", 4), ("width", 1), ("epochs", 1), ("batch_size", 2), ("seed", 0)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"[demo] expected {name} >= {least}, got {value}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"[demo] expected a finite learning rate > 0, got {self.lr}")


@dataclass(frozen=True)
class Outcome:
    """What became of one run: the share of the test set it gets right, or the step at which it diverged."""

    accuracy: float
    seconds: float
    diverged: str | None = None

    def __str__(self) -> str:
        return "diverged" if self.diverged else f"{self.accuracy:.1%}"


@dataclass(frozen=True)
class _Data:
    x_train: NDArray[np.float32]
    x_test: NDArray[np.float32]
    y_train: NDArray[np.int64]
    y_test: NDArray[np.int64]


def build(settings: Settings, *, batch_norm: bool, residual: bool) -> nn.Module:
    """Return the network: `depth` linear layers with a ReLU between any two.

    Batch normalisation, if asked for, stands before each ReLU; a residual connection adds the input of
    (normalisation, ReLU, linear) to its result (He et al. 2016, arXiv 1603.05027). The linear layers
    start from the same weights in every case.
    """

    def linear(layer: int, outputs: int, inputs: int) -> nn.Module:
        seed = np.random.SeedSequence([settings.seed, layer])
        return nn.Linear(inputs, outputs, init=nn.init.kaiming_normal(), seed=seed)

    def activation() -> list[nn.Module]:
        return [nn.BatchNorm(width), nn.ReLU()] if batch_norm else [nn.ReLU()]

    width = settings.width
    layers = [linear(0, width, 64)]
    for layer in range(1, settings.depth - 1):
        block = [*activation(), linear(layer, width, width)]
        layers.extend([nn.Residual(*block)] if residual else block)
    layers.extend([*activation(), linear(settings.depth - 1, 10, width)])
    return nn.Sequential(*layers)


def gradient_norms(net: nn.Module, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Return the norm of the gradient of each linear layer's weight on one batch, first layer first."""
    _, gradients = gv.value_and_grad(net, nn.CrossEntropyLoss())(x, y)
    weights = [name for name in sorted(gradients, key=_natural) if gradients[name].ndim == 2]
    return np.array([np.linalg.norm(gradients[name].astype(np.float64)) for name in weights])


def run(settings: Settings, write: Write = print) -> dict[str, NDArray[np.float64]]:
    """Run the demonstration, write its tables line by line, return the gradient norms by remedy."""
    data = _split(settings.seed)
    batch = slice(0, settings.batch_size)
    steps = settings.epochs * math.ceil(len(data.x_train) / settings.batch_size)
    write(
        f"{len(data.x_train)} handwritten digits to train on, {len(data.x_test)} to test on; "
        f"{settings.depth} linear layers of width {settings.width},"
    )
    write(
        f"SGD with momentum {settings.momentum:g}, {settings.epochs} epochs ({steps} steps) of batches of "
        f"{settings.batch_size}, seed {settings.seed}, threads: {gv.get_num_threads()}."
    )
    write("")
    write(f"The same network, four ways, learning rate {settings.lr:g}. Before the first step: the norm of")
    write("the gradient for the weights of the first hidden layer, and of the last.")
    write("")
    write(f"  {'remedy':<24}{'first':>10}{'last':>10}{'first/last':>12}{'test accuracy':>16}{'seconds':>10}")

    norms: dict[str, NDArray[np.float64]] = {}
    notes: list[str] = []
    constant = gv.schedules.constant(settings.lr)
    for name, (batch_norm, residual) in REMEDIES.items():
        # The network that is measured is not the one that is trained: measuring moves running statistics.
        measured = build(settings, batch_norm=batch_norm, residual=residual)
        gradients = f"{'not finite':>32}"
        try:
            norms[name] = gradient_norms(measured, data.x_train[batch], data.y_train[batch])
            first, last = norms[name][1], norms[name][-2]
            gradients = f"{first:>10.2g}{last:>10.2g}{first / last:>12.2g}"
        except FloatingPointError as error:
            notes.append(f"{name}, before the first step: {error}")
        outcome = _train(settings, data, constant, batch_norm=batch_norm, residual=residual)
        if outcome.diverged:
            notes.append(f"{name}: {outcome.diverged}")
        write(f"  {name:<24}{gradients}{outcome!s:>16}{outcome.seconds:>10.1f}")
    _write_notes(notes, write)

    write("")
    write(f"The last of these, four learning rates that start at {settings.lr:g}; one test image is")
    write(f"{1 / len(data.x_test):.2%} of accuracy.")
    write("")
    write(f"  {'learning rate':<24}{'at the last step':>32}{'test accuracy':>16}{'seconds':>10}")
    notes = []
    schedules: dict[str, Schedule] = {
        "constant": constant,
        "exponential": gv.schedules.exponential(settings.lr, 0.01 ** (1 / steps)),
        "linear": gv.schedules.linear(settings.lr, steps),
        "cosine": gv.schedules.cosine(settings.lr, steps),
    }
    for name, schedule in schedules.items():
        outcome = _train(settings, data, schedule, batch_norm=True, residual=True)
        if outcome.diverged:
            notes.append(f"{name}: {outcome.diverged}")
        write(f"  {name:<24}{schedule(steps - 1):>32.2g}{outcome!s:>16}{outcome.seconds:>10.1f}")
    _write_notes(notes, write)
    return norms


def plot_gradients(norms: dict[str, NDArray[np.float64]], path: str) -> None:
    """Draw the gradient norms of `run` by layer, on a logarithmic scale, into an image file.

    Raises
    ------
    ImportError
        Without matplotlib, naming the extra that brings it.
    """
    check_matplotlib("demo")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, values in norms.items():
        # A norm of exactly 0 has no place on a logarithmic scale; the line has a gap there.
        axes.semilogy(np.arange(1, len(values) + 1), np.where(values > 0, values, np.nan), label=name)
    axes.set_xlabel("layer, from the input to the output")
    axes.set_ylabel("norm of the gradient of the layer's weight")
    axes.set_title("Gradient norm by layer before the first step")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def _split(seed: int) -> _Data:
    x, y = gv.datasets.digits()
    x_train, x_test, y_train, y_test = gv.train_test_split(x, y, test_size=0.2, seed=seed, stratify=y)
    return _Data(x_train, x_test, y_train, y_test)


def _train(
    settings: Settings, data: _Data, schedule: Schedule, *, batch_norm: bool, residual: bool
) -> Outcome:
    net = build(settings, batch_norm=batch_norm, residual=residual)
    optimizer = gv.optim.SGD(lr=schedule, momentum=settings.momentum)
    trainer = gv.Trainer(net, nn.CrossEntropyLoss(), optimizer, seed=settings.seed, telemetry=False)
    diverged = None
    start = time.perf_counter()
    try:
        trainer.fit(data.x_train, data.y_train, epochs=settings.epochs, batch_size=settings.batch_size)
    except FloatingPointError as error:
        diverged = str(error)
    seconds = time.perf_counter() - start
    accuracy = float(np.mean(np.argmax(net(data.x_test), axis=1) == data.y_test))
    return Outcome(accuracy, seconds, diverged)


def _write_notes(notes: Sequence[str], write: Write) -> None:
    if notes:
        write("")
    for note in notes:
        write(f"  {note}")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"\.", name)]

"""One epoch over MNIST in shuffled batches: `gvcore.Trainer`, PyTorch by slicing, scikit-learn."""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.digits_mlp import BATCH, CHECKED, MOMENTUM, RATE, SIZES, data, values
from gvcore.bench.prepared import Prepared

__all__ = ["gvcore", "sklearn", "torch"]


class Epochs:
    """Contestant: a function that trains one or more epochs and returns the seconds of each."""

    def __init__(self, train: Callable[[], list[float]]) -> None:
        self._train = train

    def turn(self, seconds: float) -> list[float]:
        samples: list[float] = []
        end = time.perf_counter() + seconds
        while not samples or time.perf_counter() < end:
            samples += self._train()
        return samples


def _batches() -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, CHECKED * BATCH, BATCH)]


def gvcore(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """`Trainer.fit`, by the seconds in its history."""
    import gvcore as gv
    from gvcore import nn

    x, y = data(case["folder"])
    weights, biases = values()
    layers: list[nn.Module] = []
    for inputs, outputs in zip(SIZES, SIZES[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    parts = {"weight": weights, "bias": biases}
    net.load_state_dict({f"{2 * i}.{name}": part[i] for name, part in parts.items() for i in range(3)})
    trainer = gv.Trainer(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=RATE, momentum=MOMENTUM), seed=0)

    def train() -> list[float]:
        before = len(trainer.history.epoch)
        trainer.fit(x, y, epochs=2, batch_size=BATCH)
        return [float(record["seconds"]) for record in trainer.history.epoch[before:]]

    def answers() -> list[float]:
        return [trainer.step(x[rows], y[rows]) for rows in _batches()]

    yield Prepared(train, "Trainer.fit", answers, Epochs(train))


def torch(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """Eager, `SGD(fused=True)`: batches gathered one by one, or all rows at once and then sliced."""
    library: Any = importlib.import_module("torch")
    library.set_num_threads(threads)
    arrays = data(case["folder"])
    x, y = (library.from_numpy(array) for array in arrays)

    def build() -> tuple[Any, Any]:
        layers = []
        for weight, bias in zip(*values(), strict=True):
            layer = library.nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": library.from_numpy(weight), "bias": library.from_numpy(bias)})
            layers += [layer, library.nn.ReLU()]
        module = library.nn.Sequential(*layers[:-1])
        return module, library.optim.SGD(module.parameters(), lr=RATE, momentum=MOMENTUM, fused=True)

    for way in ("gathered batch by batch", "shuffled at once"):
        module, optimizer = build()

        def update(xs: Any, ys: Any, module: Any = module, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad(set_to_none=True)
            loss = library.nn.functional.cross_entropy(module(xs), ys)
            loss.backward()
            optimizer.step()
            return loss.detach()

        def train(way: str = way, update: Any = update) -> list[float]:
            began = time.perf_counter()
            order = library.randperm(len(x))
            total = library.zeros(())
            if way == "shuffled at once":
                xs, ys = x[order], y[order]
                for start in range(0, len(x), BATCH):
                    total += update(xs[start : start + BATCH], ys[start : start + BATCH])
            else:
                for start in range(0, len(x), BATCH):
                    rows = order[start : start + BATCH]
                    total += update(x[rows], y[rows])
            total.item()
            return [time.perf_counter() - began]

        def answers(update: Any = update) -> list[float]:
            return [update(x[rows], y[rows]).item() for rows in _batches()]

        yield Prepared(train, f"torch {library.__version__}, {way}", answers, Epochs(train))


def sklearn(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """`MLPClassifier.fit` over three epochs, a third of its time each."""
    package: Any = importlib.import_module("sklearn")
    network: Any = importlib.import_module("sklearn.neural_network")
    x, y = data(case["folder"])
    settings = {
        "hidden_layer_sizes": SIZES[1:-1],
        "solver": "sgd",
        "alpha": 0.0,
        "batch_size": BATCH,
        "learning_rate_init": RATE,
        "momentum": MOMENTUM,
        "nesterovs_momentum": False,
        "random_state": 0,
    }

    def train() -> list[float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            began = time.perf_counter()
            network.MLPClassifier(max_iter=3, tol=0.0, n_iter_no_change=100, **settings).fit(x, y)
            return [(time.perf_counter() - began) / 3]

    def answers() -> list[float]:
        model = network.MLPClassifier(shuffle=False, **settings)
        model.partial_fit(x[:BATCH], y[:BATCH], classes=np.arange(SIZES[-1]))
        # Start again from everybody's weights, without the velocity of that step.
        for mine, given in zip(
            (*model.coefs_, *model.intercepts_), (*values()[0], *values()[1]), strict=True
        ):
            mine[...] = given.T
        for velocity in model._optimizer.velocities:
            velocity[...] = 0
        losses = []
        for rows in _batches():
            model.partial_fit(x[rows], y[rows])
            losses.append(float(model.loss_))
        return losses

    yield Prepared(train, f"scikit-learn {package.__version__}", answers, Epochs(train))

"""MNIST, three ways, on 60,000 images of 28 x 28 pixels and 10,000 to test on.

(a) Three layers of 100 sigmoid units with and without batch normalisation: the experiment of Ioffe &
    Szegedy 2015 (arXiv 1502.03167, section 4.1). Batches of 60, weights from a narrow normal distribution,
    plain SGD.
(b) A residual net with batch normalisation of 50 layers, dropout and weight decay: 98.3 % and more, the
    mean and the spread over three seeds. Settings were chosen on 10,000 of the training images set apart,
    never on the test images.
(c) The net of scikit-learn's MNIST benchmark, 784-100-100-10, trained by SGD with the benchmark's settings:
    error on the test images, and the time of an epoch beside that of scikit-learn's MLPClassifier where it
    is installed.

The four files (train-images-idx3-ubyte.gz, …) are read from the folder mnist/ below GVCORE_DATA_DIR. Part
(b) takes some minutes, the others less than one.

    GVCORE_DATA_DIR=... python examples/mnist.py --part a b c --plot mnist.png
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import gvcore as gv
from gvcore import nn

LOSS = nn.CrossEntropyLoss()


class Data:
    def __init__(self, folder: Path, rows: int | None) -> None:
        def read(name: str) -> np.ndarray:
            return gv.datasets.load_idx(folder / f"{name}-ubyte.gz")[:rows]

        self.x = read("train-images-idx3").reshape(-1, 784).astype(np.float32) / 255
        self.y = read("train-labels-idx1").astype(np.int64)
        self.x_test = read("t10k-images-idx3").reshape(-1, 784).astype(np.float32) / 255
        self.y_test = read("t10k-labels-idx1").astype(np.int64)


def accuracy(trainer: gv.Trainer, data: Data) -> float:
    return trainer.evaluate(data.x_test, data.y_test, metrics=["accuracy"])["accuracy"]


# ---- (a) -----------------------------------------------------------------------------------------


def small_sigmoid_net(batch_norm: bool, seed: int) -> nn.Module:
    """Return 784-100-100-100-10 with normal weights of variance 1 / inputs."""
    init, inputs = nn.init.lecun_normal(), 784
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Linear(inputs, 100, bias=not batch_norm, init=init)]
        layers += [nn.BatchNorm(100)] if batch_norm else []
        layers += [nn.Sigmoid()]
        inputs = 100
    net = nn.Sequential(*layers, nn.Linear(100, 10, init=init))
    net.reset_parameters(seed)
    return net


def part_a(data: Data, seed: int, short: bool) -> dict[str, tuple[list[int], list[float]]]:
    epochs, every = (1, 5) if short else (10, 200)
    print(f"\n(a) 784-100-100-100-10, sigmoid, SGD, rate 0.1, batches of 60, {epochs} epochs, seed {seed}\n")
    curves = {}
    for name, batch_norm in (("without batch norm", False), ("with batch norm", True)):

        class Watch(gv.callbacks.Callback):
            def __init__(self) -> None:
                self.steps: list[int] = []
                self.accuracies: list[float] = []

            def on_step_end(self, trainer: gv.Trainer) -> None:
                if trainer.step.updates % every == 0:
                    self.steps.append(trainer.step.updates)
                    self.accuracies.append(accuracy(trainer, data))

        watch = Watch()
        net = small_sigmoid_net(batch_norm, seed)
        trainer = gv.Trainer(net, LOSS, gv.optim.SGD(lr=0.1), seed=seed, telemetry=False)
        trainer.fit(data.x, data.y, epochs=epochs, batch_size=60, callbacks=[watch])
        curves[name] = watch.steps, watch.accuracies
    marks = np.unique(np.geomspace(1, len(next(iter(curves.values()))[0]), 6).astype(int) - 1)
    steps = next(iter(curves.values()))[0]
    print(f"  {'test accuracy after step':<26}" + "".join(f"{steps[mark]:>9}" for mark in marks))
    for name, (_, values) in curves.items():
        print(f"  {name:<26}" + "".join(f"{values[mark]:>9.1%}" for mark in marks))
    return curves


# ---- (b) -----------------------------------------------------------------------------------------


def deep_net(seed: int, width: int, depth: int = 50) -> nn.Module:
    net = gv.models.resnet(784, 10, width=width, depth=depth, dropout=0.3, seed=seed)
    return nn.Sequential(nn.Dropout(0.2), *net)


def part_b(data: Data, seed: int, short: bool) -> list[list[float]]:
    width, epochs, seeds = (32, 1, [seed]) if short else (256, 15, [seed, seed + 1, seed + 2])
    print(
        f"\n(b) 50 layers of width {width}, residual + batch norm, {epochs} epochs of batches of 256,\n"
        f"    SGD with momentum 0.9, rate 0.1 with warm-up and cosine decay, weight decay 5e-4,\n"
        f"    dropout 0.2 of the input and 0.3 within each block; {gv.get_num_threads()} thread(s)\n"
    )
    print(f"  {'seed':>4}{'test accuracy':>16}{'seconds':>10}{'s/epoch':>10}")
    warmup = epochs * -(-len(data.x) // 256) // 20
    curves, final = [], []
    for one in seeds:
        schedule = gv.schedules.cosine(0.1, warmup_steps=warmup)
        optimizer = gv.optim.SGD(lr=schedule, momentum=0.9, weight_decay=5e-4, nesterov=True)
        trainer = gv.Trainer(deep_net(one, width), LOSS, optimizer, seed=one, telemetry=False)
        curve: list[float] = []

        def measure(trainer: gv.Trainer, curve: list[float] = curve) -> None:
            curve.append(accuracy(trainer, data))

        history = trainer.fit(
            data.x,
            data.y,
            epochs=epochs,
            batch_size=256,
            callbacks=[measure],
        )
        seconds = sum(record["seconds"] for record in history.epoch)
        print(f"  {one:>4}{curve[-1]:>16.2%}{seconds:>10.0f}{seconds / epochs:>10.2f}", flush=True)
        curves.append(curve)
        final.append(curve[-1])
    if len(final) > 1:
        spread = np.std(final, ddof=1)
        print(f"\n  mean {np.mean(final):.2%}, standard deviation {spread:.2%}, {len(final)} seeds")
    return curves


# ---- (c) -----------------------------------------------------------------------------------------


def part_c(data: Data, seed: int, short: bool) -> dict[str, list[float]]:
    epochs, peer_epochs = (1, 1) if short else (20, 5)
    print("\n(c) 784-100-100-10, ReLU, SGD with Nesterov momentum 0.9, rate 0.2, batches of 200\n")
    net = gv.models.mlp(784, 10, [100, 100], seed=seed)
    # scikit-learn divides its penalty, alpha = 1e-4, by the rows of the batch.
    optimizer = gv.optim.SGD(lr=0.2, momentum=0.9, nesterov=True, weight_decay=1e-4 / 200)
    trainer = gv.Trainer(net, LOSS, optimizer, seed=seed, telemetry=False)
    peer = sklearn_net(seed)
    errors, seconds, peer_errors, peer_seconds = [], [], [], []
    for epoch in range(epochs):
        # In turn, so that whatever else the machine does slows down both.
        trainer.fit(data.x, data.y, epochs=1, batch_size=200)
        seconds.append(trainer.history.epoch[-1]["seconds"])
        errors.append(1 - accuracy(trainer, data))
        if peer is not None and epoch < peer_epochs:
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that one epoch did not converge
                peer.fit(data.x, data.y)
            peer_seconds.append(time.perf_counter() - start)
            peer_errors.append(1 - peer.score(data.x_test, data.y_test))
    print(f"  {'':<22}{'epochs':>8}{'test error':>12}{'s/epoch':>10}")
    name = f"gvcore, {gv.get_num_threads()} thread(s)"
    print(f"  {name:<22}{epochs:>8}{errors[-1]:>12.2%}{np.median(seconds):>10.3f}")
    if peer is None:
        print("\n  scikit-learn is not installed, so there is no time to compare with")
        return {"gvcore": errors}
    pace = np.median(peer_seconds)
    print(f"  {'scikit-learn':<22}{len(peer_errors):>8}{peer_errors[-1]:>12.2%}{pace:>10.3f}")
    ratio = pace / np.median(seconds[: len(peer_seconds)])
    print(f"\n  an epoch of scikit-learn takes {ratio:.1f} times as long (medians, epochs in turn)")
    return {"gvcore": errors, "scikit-learn": peer_errors}


def sklearn_net(seed: int) -> Any:
    """Return the same net of scikit-learn, trained for one epoch by each call of fit; None without it."""
    try:
        from sklearn.neural_network import MLPClassifier
    except ImportError:
        return None
    return MLPClassifier(
        (100, 100),
        solver="sgd",
        learning_rate_init=0.2,
        momentum=0.9,
        alpha=1e-4,
        batch_size=200,
        max_iter=1,
        warm_start=True,
        random_state=seed,
    )


def draw(path: str, results: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(results), 4), dpi=100, layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(results)))
    for ax, (part, result) in zip(axes, results.items(), strict=True):
        if part == "a":
            for name, (steps, values) in result.items():
                ax.plot(steps, 100 * np.array(values), label=name)
            ax.set_xlabel("step")
            ax.set_ylabel("test accuracy in %")
            ax.set_title("(a) three sigmoid layers")
            ax.legend()
        elif part == "b":
            for i, values in enumerate(result):
                epochs = np.arange(1, len(values) + 1)
                ax.plot(epochs, 100 * np.array(values), "o-", markersize=3, label=f"run {i + 1}")
            ax.axhline(98.3, color="grey", linestyle=":", label="98.3 %")
            ax.set_xlabel("epoch")
            ax.set_ylabel("test accuracy in %")
            ax.set_title("(b) 50 layers, residual + batch norm")
            ax.legend()
        else:
            for name, values in result.items():
                ax.plot(np.arange(1, len(values) + 1), 100 * np.array(values), "o-", markersize=3, label=name)
            ax.set_xlabel("epoch")
            ax.set_ylabel("test error in %")
            ax.set_title("(c) 784-100-100-10")
            ax.legend()
        ax.grid(alpha=0.3)
        ax.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path)
    print(f"\npicture: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description="MNIST: batch norm, a deep residual net, and a benchmark.")
    parser.add_argument("--part", nargs="+", choices=["a", "b", "c"], default=["a", "b", "c"])
    parser.add_argument("--short", action="store_true", help="2,000 images, one epoch: see that it runs")
    parser.add_argument("--plot", metavar="FILE", default="mnist.png", help="where to save the picture")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if "GVCORE_DATA_DIR" not in os.environ:
        sys.exit("set GVCORE_DATA_DIR to a folder that has the four files of MNIST (idx, gzip) in mnist/")
    data = Data(Path(os.environ["GVCORE_DATA_DIR"]) / "mnist", 2000 if arguments.short else None)
    print(f"MNIST: {len(data.x)} images to train on, {len(data.x_test)} to test on")
    parts = {"a": part_a, "b": part_b, "c": part_c}
    chosen = sorted(set(arguments.part))
    results = {part: parts[part](data, arguments.seed, arguments.short) for part in chosen}
    draw(arguments.plot, results)


if __name__ == "__main__":
    main()

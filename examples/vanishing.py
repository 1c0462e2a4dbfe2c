"""Vanishing gradients: where they come from, what they do, what cures them.

Nets of sigmoid, tanh and ReLU layers, 5 to 50 deep, learn the handwritten digits that come with gvcore.
Before and after training, `gv.diagnose` measures the norm of the gradient of the loss with respect to the
input of every layer. Backward, the gradient passes each layer's weights and the slope of its activation;
where the product of the two is on average below 1, what arrives at the first layers is smaller by a power
of the depth.

Then the cures, one by one, for the deepest net of each activation: an initialisation that makes up for the
slope of the activation, batch normalisation (Ioffe & Szegedy 2015, arXiv 1502.03167), residual connections
(He et al. 2016, arXiv 1603.05027), and the last two together.

    python examples/vanishing.py --plot vanishing.png
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np

import gvcore as gv
from gvcore import nn

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
# What makes up for the slope of the activation near 0. Orthogonal weights keep the length of every vector.
# For sigmoid it is not enough: its outputs, around 1/2, drive the next layer away from 0.
SCALES = {"sigmoid": 4.0, "tanh": 1.0, "relu": 2.0**0.5}
WIDTH, LR, MOMENTUM = 64, 0.01, 0.9


@dataclass
class Outcome:
    before: gv.Report
    after: gv.Report | None
    accuracy: float
    seconds: float


def build(
    depth: int,
    activation: str,
    seed: int,
    *,
    scale: float = 0.0,
    batch_norm: bool = False,
    residual: bool = False,
) -> nn.Module:
    """Return `depth` linear layers with an activation between any two; scale 0 is Glorot's initialisation."""
    init = nn.init.orthogonal(scale) if scale else nn.init.xavier_normal()

    def block(inputs: int) -> list[nn.Module]:
        linear = nn.Linear(inputs, WIDTH, bias=not batch_norm, init=init)
        return [linear, *([nn.BatchNorm(WIDTH)] if batch_norm else []), ACTIVATIONS[activation]()]

    layers = block(64)
    for _ in range(depth - 2):
        layers += [nn.Residual(*block(WIDTH))] if residual else block(WIDTH)
    net = nn.Sequential(*layers, nn.Linear(WIDTH, 10, init=nn.init.xavier_normal()))
    net.reset_parameters(seed)
    return net


def train(net: nn.Module, data: list[np.ndarray], epochs: int, seed: int) -> Outcome:
    x_train, x_test, y_train, y_test = data
    loss = nn.CrossEntropyLoss()
    before = gv.diagnose(net, x_train[:256], y_train[:256], loss)
    optimizer = gv.optim.SGD(lr=gv.schedules.cosine(LR, warmup_steps=epochs), momentum=MOMENTUM)
    trainer = gv.Trainer(net, loss, optimizer, seed=seed, telemetry=False)
    start = time.perf_counter()
    try:
        trainer.fit(x_train, y_train, epochs=epochs, batch_size=64)
    except FloatingPointError:  # the net keeps the last weights that were finite
        return Outcome(before, None, float("nan"), time.perf_counter() - start)
    seconds = time.perf_counter() - start
    after = gv.diagnose(net, x_train[:256], y_train[:256], loss)
    return Outcome(before, after, trainer.evaluate(x_test, y_test, metrics=["accuracy"])["accuracy"], seconds)


def row(name: str, outcome: Outcome) -> str:
    before = outcome.before
    norms = before.gradient_norms
    ends = f"{norms[0]:>11.1e}{norms[-1]:>11.1e}{before.growth_per_layer:>9.3f}"
    after = f"{'-':>11}{'-':>11}{'diverged':>11}"
    if outcome.after is not None:
        norms = outcome.after.gradient_norms
        after = f"{norms[0]:>11.1e}{norms[-1]:>11.1e}{outcome.accuracy:>11.1%}"
    return f"  {name:<30}{ends}{after}{outcome.seconds:>9.1f}"


def head() -> None:
    print(f"  {'':<30}{'before training':^31}{'after training':^22}{'test':>11}{'':>9}")
    ends = f"{'first':>11}{'last':>11}"
    print(f"  {'':<30}{ends}{'x layer':>9}{ends}{'accuracy':>11}{'seconds':>9}")


def draw(
    path: str, plain: dict[tuple[str, int], Outcome], cured: dict[str, dict[str, Outcome]], depth: int
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.5), dpi=100, layout="constrained")
    axes = figure.subplots(2, 3, sharey="row")
    for column, activation in enumerate(ACTIVATIONS):
        ax = axes[0, column]
        for i, (key, outcome) in enumerate((k, o) for k, o in plain.items() if k[0] == activation):
            for report, style in ((outcome.before, "-"), (outcome.after, ":")):
                if report is not None:
                    norms = report.gradient_norms
                    label = f"{key[1]} layers" if style == "-" else None
                    layers = np.arange(1, len(norms) + 1)
                    ax.semilogy(layers, positive(norms), style, color=f"C{i}", label=label)
        ax.plot([], [], ":", color="grey", label="after training")
        ax.set_title(f"{activation}, no cure")
        ax = axes[1, column]
        for name, outcome in cured[activation].items():
            norms = outcome.before.gradient_norms
            ax.semilogy(np.arange(1, len(norms) + 1), positive(norms), label=name)
        ax.set_title(f"{activation}, {depth} layers before training")
    for ax in axes.flat:
        ax.set_xlabel("layer, from the input to the output")
        ax.grid(alpha=0.3)
    for ax in axes[:, 0]:
        ax.set_ylabel("norm of the gradient\nat the layer's input")
    axes[0, 0].legend(fontsize="small")
    axes[1, 0].legend(fontsize="small")
    figure.savefig(path)
    print(f"\npicture: {path}")


def positive(values: np.ndarray) -> np.ndarray:
    """Leave gaps where a logarithmic scale has no place for a value."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def main() -> None:
    parser = argparse.ArgumentParser(description="Vanishing gradients, and their cures.")
    parser.add_argument("--short", action="store_true", help="fewer depths and epochs: see that it runs")
    parser.add_argument("--plot", metavar="FILE", default="vanishing.png", help="where to save the picture")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    depths, epochs, seed = ([5, 10], 2, 0) if arguments.short else ([5, 10, 20, 50], 40, arguments.seed)

    x, y = gv.datasets.digits()
    data = gv.train_test_split(x, y, test_size=0.2, seed=seed, stratify=y)
    print(f"{len(data[0])} digits to train on, {len(data[1])} to test on; layers of width {WIDTH}, {epochs}")
    print(f"epochs, SGD with momentum {MOMENTUM:g}, rate {LR:g} with warm-up and cosine decay, seed {seed}.")
    print("first, last: norm of the gradient of the loss at the input of the first and of the last layer;")
    print("x layer: the factor by which it grows for each layer towards the input.\n")
    head()
    plain = {}
    for activation in ACTIVATIONS:
        for depth in depths:
            plain[activation, depth] = train(build(depth, activation, seed), data, epochs, seed)
            print(row(f"{activation}, {depth} layers", plain[activation, depth]), flush=True)

    depth = depths[-1]
    print(f"\nThe cures one by one, {depth} layers\n")
    head()
    cured: dict[str, dict[str, Outcome]] = {}
    for activation, scale in SCALES.items():
        cures = {
            "initialisation": {"scale": scale},
            "batch norm": {"batch_norm": True},
            "residual": {"residual": True},
            "batch norm + residual": {"batch_norm": True, "residual": True},
        }
        cured[activation] = {"none": plain[activation, depth]}
        print(row(f"{activation}, none", plain[activation, depth]))
        for name, options in cures.items():
            net = build(depth, activation, seed, **options)
            cured[activation][name] = train(net, data, epochs, seed)
            print(row(f"{activation}, {name}", cured[activation][name]), flush=True)
    draw(arguments.plot, plain, cured, depth)


if __name__ == "__main__":
    main()

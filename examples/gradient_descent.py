"""Gradient descent on the smallest case: linear regression.

A linear net with one output learns how diabetes progresses from ten measurements of 442 patients (needs
scikit-learn, which brings the data). The best weights are known here, by least squares, so that the
distance from them can be measured: the excess loss, the mean squared error above the smallest one possible.

Two comparisons. First, how many rows to look at before a step: all of them (full batch), 64, or 8. Small
batches make many cheap, noisy steps out of one pass; they come close sooner, and then the noise keeps them
from coming closer. Second, what takes the noise away: a learning rate that decays. Exponential, linear and
cosine decay, side by side with a constant rate.

    python examples/gradient_descent.py --plot gradient_descent.png
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

import gvcore as gv
from gvcore import nn

LR = 0.05


def load() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_diabetes
    except ImportError:
        sys.exit('this example takes its data from scikit-learn: pip install "gvcore[sklearn,plot]"')
    x, y = load_diabetes(return_X_y=True)
    # Mean 0 and standard deviation 1, so that one learning rate suits all columns.
    return (x - x.mean(0)) / x.std(0), ((y - y.mean()) / y.std())[:, None]


def smallest_loss(x: np.ndarray, y: np.ndarray) -> float:
    design = np.column_stack([x, np.ones(len(x))])
    weights = np.linalg.lstsq(design, y, rcond=None)[0]
    return float(np.mean((design @ weights - y) ** 2))


def descend(
    x: np.ndarray, y: np.ndarray, schedule: gv.schedules.Schedule, batch_size: int, epochs: int, seed: int
) -> tuple[np.ndarray, int, float]:
    """Return the loss on all rows after each epoch (the start first), the number of steps, the seconds."""
    net = nn.Linear(x.shape[1], 1, init="zeros").astype(np.float64)
    trainer = gv.Trainer(net, nn.MSELoss(), gv.optim.SGD(lr=schedule), seed=seed, telemetry=False)
    losses = [trainer.evaluate(x, y)["loss"]]

    def measure(trainer: gv.Trainer) -> None:
        losses.append(trainer.evaluate(x, y)["loss"])

    start = time.perf_counter()
    trainer.fit(x, y, epochs=epochs, batch_size=batch_size, callbacks=[measure])
    return np.array(losses), trainer.step.updates, time.perf_counter() - start


def table(title: str, runs: dict[str, tuple[np.ndarray, int, float]], best: float, marks: list[int]) -> None:
    print(f"\n{title}\n")
    after = "".join(f"{f'epoch {mark}':>12}" for mark in marks)
    print(f"  {'':<22}{'steps':>8}{after}{'seconds':>10}")
    for name, (losses, steps, seconds) in runs.items():
        values = "".join(f"{losses[mark] - best:>12.2e}" for mark in marks)
        print(f"  {name:<22}{steps:>8}{values}{seconds:>10.2f}")


def draw(
    path: str,
    batches: dict[str, tuple[np.ndarray, int, float]],
    decays: dict[str, tuple[np.ndarray, int, float]],
    schedules: dict[str, gv.schedules.Schedule],
    best: float,
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), dpi=100, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for ax, runs, title in ((left, batches, "rows for one step"), (right, decays, "decay, batches of 16")):
        for name, (losses, _, _) in runs.items():
            ax.semilogy(np.arange(len(losses)), losses - best, label=name)
        ax.set_xlabel("epoch")
        ax.set_ylabel("excess of the mean squared error\n(variance of the target = 1)")
        ax.set_title(title)
        ax.set_ylim(1e-5, 10)
        ax.legend(fontsize="small", loc="upper right")
        ax.grid(alpha=0.3)
    for name, schedule in schedules.items():
        steps = decays[name][1]
        at = np.arange(0, steps, max(1, steps // 200))
        middle.plot(at, [schedule(int(t)) for t in at], label=name)
    middle.set_xlabel("step")
    middle.set_ylabel("learning rate")
    middle.set_title("the rates of the decays")
    middle.legend(fontsize="small")
    middle.grid(alpha=0.3)
    figure.savefig(path)
    print(f"\npicture: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Gradient descent for linear regression on diabetes.")
    parser.add_argument("--short", action="store_true", help="a few epochs, to see that it runs")
    parser.add_argument("--plot", metavar="FILE", default="gradient_descent.png", help="the picture")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    epochs = 20 if arguments.short else 200
    marks = [1, epochs // 10, epochs // 2, epochs]

    x, y = load()
    best = smallest_loss(x, y)
    print(f"{len(x)} patients, {x.shape[1]} measurements; least squares leaves a mean squared error of")
    print(
        f"{best:.4f} (the variance of the target is 1). Rate {LR:g}, {epochs} epochs, seed {arguments.seed}."
    )

    batches = {}
    for name, rows in (("full batch (442 rows)", len(x)), ("batches of 64", 64), ("batches of 8", 8)):
        batches[name] = descend(x, y, gv.schedules.constant(LR), rows, epochs, arguments.seed)
    table("Excess of the mean squared error by the rows of a step, constant rate", batches, best, marks)

    steps = epochs * -(-len(x) // 16)
    schedules: dict[str, gv.schedules.Schedule] = {
        "constant": gv.schedules.constant(LR),
        "exponential": gv.schedules.exponential(LR, 0.01 ** (1 / steps)),
        "linear": gv.schedules.linear(LR, steps),
        "cosine": gv.schedules.cosine(LR, steps),
    }
    seed = arguments.seed
    decays = {name: descend(x, y, schedule, 16, epochs, seed) for name, schedule in schedules.items()}
    table("The same by the decay of the rate, batches of 16", decays, best, marks)
    draw(arguments.plot, batches, decays, schedules, best)


if __name__ == "__main__":
    main()

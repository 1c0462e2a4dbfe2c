"""A thousand layers: the handwritten digits at depth 10, 100 and 1,000, with and without the cures.

Four nets at each depth: ReLU layers as they are, started as He et al. 2015 advise (arXiv 1502.01852); with
batch normalisation; with residual connections; with both, in blocks of two pre-activated layers (He et al.
2016, arXiv 1603.05027). `gv.diagnose` says how the gradient flows before training; then each is trained
with the same settings, and the share of the test digits that it gets right is printed. Chance gets 10 % of
them.

Only the net with both can be trained at every depth. Batch normalisation alone makes the gradient grow by a
factor for each layer towards the input, residual connections alone make the signal grow for each layer
towards the output; 1,000 layers raise that factor to the power of 1,000, and a float ends at 3e38.

Where memory is short, `checkpoint_every=32` of `gv.Trainer` trains 1,000 layers to the same bits in a
fraction of it, for more time.

    python examples/thousand_layers.py --plot thousand_layers.png
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

import gvcore as gv
from gvcore import nn

WIDTH, LR, MOMENTUM, BATCH = 32, 0.05, 0.9, 64


def build(depth: int, seed: int, *, batch_norm: bool, residual: bool) -> nn.Module:
    """Return a net of `depth` linear layers, the first and the last included."""
    if batch_norm and residual:
        return gv.models.resnet(64, 10, width=WIDTH, depth=depth, seed=seed)
    hidden = [WIDTH] * (depth - 1)
    return gv.models.mlp(64, 10, hidden, batch_norm=batch_norm, residual=residual, seed=seed)


NETS = {
    "plain": {"batch_norm": False, "residual": False},
    "batch norm": {"batch_norm": True, "residual": False},
    "residual": {"batch_norm": False, "residual": True},
    "batch norm + residual": {"batch_norm": True, "residual": True},
}


def train(net: nn.Module, data: list[np.ndarray], epochs: int, seed: int) -> tuple[str, int, float]:
    """Return the accuracy on the test digits (or where training ended), the steps done, the seconds."""
    x_train, x_test, y_train, y_test = data
    steps = epochs * math.ceil(len(x_train) / BATCH)
    schedule = gv.schedules.cosine(LR, warmup_steps=steps // 8)
    trainer = gv.Trainer(
        net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=schedule, momentum=MOMENTUM), clip_norm=1.0, seed=seed
    )
    start = time.perf_counter()
    try:
        trainer.fit(x_train, y_train, epochs=epochs, batch_size=BATCH)
    except FloatingPointError:
        return "diverged", trainer.step.updates, time.perf_counter() - start
    seconds = time.perf_counter() - start
    accuracy = trainer.evaluate(x_test, y_test, metrics=["accuracy"])["accuracy"]
    return f"{accuracy:.1%}", trainer.step.updates, seconds


def draw(path: str, reports: dict[tuple[int, str], gv.Report], depths: list[int]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(depths), sharey=True)
    axes[0].set_ylim(1e-25, 1e41)  # a float ends at 3e38
    for ax, depth in zip(axes, depths, strict=True):
        for i, name in enumerate(NETS):
            norms = reports[depth, name].gradient_norms
            # A block may hold several layers, and the axis counts layers. What is not positive leaves a gap.
            layer = np.linspace(1, depth, len(norms))
            shown = np.where(np.isfinite(norms) & (norms > 0), norms, np.nan)
            marker = "o" if depth <= 20 else ""
            ax.semilogy(layer, shown, color=f"C{i}", marker=marker, markersize=4, label=name)
            if not np.isfinite(shown).any():
                ax.text(0.03, 0.95, f"{name}: not finite", transform=ax.transAxes, color=f"C{i}", va="top")
        ax.set_title(f"{depth:,} layers")
        ax.set_xlabel("layer, from the input to the output")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("norm of the gradient at the layer's input,\nbefore training")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(NETS))
    figure.savefig(path)
    print(f"\npicture: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description="10, 100 and 1,000 layers, with and without the cures.")
    parser.add_argument("--short", action="store_true", help="a few epochs, to see that it runs")
    parser.add_argument("--plot", metavar="FILE", default="thousand_layers.png", help="the picture")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    depths, epochs, seed = [10, 100, 1000], 1 if arguments.short else 30, arguments.seed

    x, y = gv.datasets.digits()
    data = gv.train_test_split(x, y, test_size=0.2, seed=seed, stratify=y)
    steps = epochs * math.ceil(len(data[0]) / BATCH)
    sizes = f"{len(data[0])} digits to train on, {len(data[1])} to test on"
    print(f"{sizes}; layers of width {WIDTH}; {epochs} epochs of batches of {BATCH} ({steps} steps),")
    print(f"SGD with momentum {MOMENTUM:g}, rate {LR:g} with warm-up and cosine decay, gradients clipped to")
    print(f"norm 1, seed {seed}, {gv.get_num_threads()} thread(s). first, last: norm of the gradient at the")
    print("input of the first and of the last layer before training.\n")
    print(
        f"  {'layers':>6}  {'net':<23}{'first':>10}{'last':>10}  {'verdict':<11}{'accuracy':>9}{'seconds':>9}"
        f"{'ms/step':>9}"
    )
    reports = {}
    for depth in depths:
        for name, options in NETS.items():
            net = build(depth, seed, **options)
            report = gv.diagnose(net, data[0][:256], data[2][:256], nn.CrossEntropyLoss())
            reports[depth, name] = report
            first, last = report.gradient_norms[0], report.gradient_norms[-1]
            accuracy, done, seconds = train(net, data, epochs, seed)
            pace = f"{1e3 * seconds / done:>9.2f}" if done else f"{'-':>9}"
            print(
                f"  {depth:>6}  {name:<23}{first:>10.1e}{last:>10.1e}  {report.verdict:<11}{accuracy:>9}"
                f"{seconds:>9.1f}{pace}",
                flush=True,
            )
    draw(arguments.plot, reports, depths)


if __name__ == "__main__":
    main()

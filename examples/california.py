"""Houses in California: a residual net for tables learns the median value of 20,640 districts from eight
numbers.

The net is that of Gorishniy et al. 2021 (arXiv 2106.11959), trained by AdamW with a rate that decays along
a cosine. Columns of a table differ in scale and have long tails: a quantile transformation makes each of
them normal (with scikit-learn installed; otherwise each is standardised). Rows are split once into 64 % to
train on, 16 % to validate and 20 % to test on. After each epoch the loss on the validation rows is
measured; training stops when it has not improved for a while, and goes back to the best weights. Five seeds
of the weights, the order of the rows and dropout give a mean and a spread. The paper reports a root mean
square error of 0.486, in units of 100,000 dollars, for its own split.

The file california_housing.npz (arrays X and y) is read from the folder california/ below GVCORE_DATA_DIR.

    GVCORE_DATA_DIR=... python examples/california.py --plot california.png
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

import gvcore as gv
from gvcore import nn


def scale(scaling: str, *parts: np.ndarray) -> list[np.ndarray]:
    """Transform the columns of all parts by what the first one, the training rows, tells."""
    train = parts[0]
    if scaling == "standard":
        return [(part - train.mean(0)) / train.std(0) for part in parts]
    from sklearn.preprocessing import QuantileTransformer

    transformer = QuantileTransformer(
        output_distribution="normal", n_quantiles=min(1000, len(train) // 30), subsample=None, random_state=0
    )
    transformer.fit(train)
    return [transformer.transform(part) for part in parts]


def rmse(prediction: np.ndarray, target: np.ndarray) -> float:
    return float(np.sqrt(np.mean((prediction - target) ** 2)))


def draw(
    path: str, histories: list[gv.History], deviation: float, target: np.ndarray, prediction: np.ndarray
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, history in enumerate(histories):
        epochs = [record["epoch"] for record in history.epoch]
        for key, style in (("loss", ":"), ("val_loss", "-")):
            values = deviation * np.sqrt([record[key] for record in history.epoch])
            label = {"loss": "training, with dropout", "val_loss": "validation"}[key] if i == 0 else None
            left.plot(epochs, values, style, color=f"C{i}", label=label)
    left.set_xlabel("epoch")
    left.set_ylabel("root mean square error in 100,000 $")
    left.set_title("learning, one colour a seed")
    left.set_ylim(top=0.75)
    left.legend()
    left.grid(alpha=0.3)
    shown = slice(0, 2000)
    right.plot(target[shown], prediction[shown], ".", markersize=3, alpha=0.5)
    right.plot([0, 5.2], [0, 5.2], color="grey", linewidth=1)
    right.set_xlabel("median value of a house in 100,000 $")
    right.set_ylabel("what the first net says")
    right.set_title(f"{len(target[shown])} districts not trained on")
    right.grid(alpha=0.3)
    figure.savefig(path)
    print(f"\npicture: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description="A tabular residual net on California housing.")
    parser.add_argument("--scaling", choices=["quantile", "standard"])
    parser.add_argument("--short", action="store_true", help="2,000 rows and few epochs, to see that it runs")
    parser.add_argument("--plot", metavar="FILE", default="california.png", help="where to save the picture")
    parser.add_argument("--seed", type=int, default=0, help="of the split and the first net")
    arguments = parser.parse_args()
    if "GVCORE_DATA_DIR" not in os.environ:
        sys.exit("set GVCORE_DATA_DIR to a folder that has california_housing.npz in california/")
    scaling = arguments.scaling
    if scaling is None:
        import importlib.util

        scaling = "quantile" if importlib.util.find_spec("sklearn") else "standard"
    rows, epochs, patience, runs = (2000, 3, 2, 1) if arguments.short else (None, 100, 20, 5)

    with np.load(Path(os.environ["GVCORE_DATA_DIR"], "california", "california_housing.npz")) as file:
        x, y = file["X"][:rows], file["y"][:rows]
    seed = arguments.seed
    x_rest, x_test, y_rest, y_test = gv.train_test_split(x, y, test_size=0.2, seed=seed)
    x_train, x_val, y_train, y_val = gv.train_test_split(x_rest, y_rest, test_size=0.2, seed=seed)
    x_train, x_val, x_test = scale(scaling, x_train, x_val, x_test)
    mean, deviation = y_train.mean(), y_train.std()
    target, target_val = ((part[:, None] - mean) / deviation for part in (y_train, y_val))
    sizes = f"{len(x_train)} districts to train on, {len(x_val)} to validate, {len(x_test)} to test"
    print(f"{sizes}; {scaling} scaling.")

    net = build(seed, short=arguments.short)
    print(
        f"{net.num_parameters():,} parameters, AdamW, rate 0.001 with warm-up and cosine decay over {epochs}"
    )
    print(
        f"epochs, weight decay 0.01, batches of 256, {gv.get_num_threads()} thread(s). Errors in 100,000 $.\n"
    )
    print(f"  {'seed':>4}{'epochs':>8}{'best':>6}{'validation RMSE':>17}{'test RMSE':>11}{'seconds':>9}")
    histories, errors, predictions = [], [], []
    for one in range(seed, seed + runs):
        net = build(one, short=arguments.short)
        warmup = 2 * -(-len(x_train) // 256)
        optimizer = gv.optim.AdamW(lr=gv.schedules.cosine(1e-3, warmup_steps=warmup), weight_decay=0.01)
        stopping = gv.callbacks.EarlyStopping(patience=patience)
        trainer = gv.Trainer(net, nn.MSELoss(), optimizer, seed=one, telemetry=False)
        start = time.perf_counter()
        history = trainer.fit(
            x_train,
            target,
            epochs=epochs,
            batch_size=256,
            validation=(x_val, target_val),
            callbacks=[stopping],
        )
        seconds = time.perf_counter() - start
        validation = rmse(trainer.predict(x_val)[:, 0] * deviation + mean, y_val)
        predictions.append(trainer.predict(x_test)[:, 0] * deviation + mean)
        errors.append(rmse(predictions[-1], y_test))
        histories.append(history)
        print(
            f"  {one:>4}{len(history.epoch):>8}{stopping.best_epoch:>6}{validation:>17.4f}{errors[-1]:>11.4f}"
            f"{seconds:>9.1f}",
            flush=True,
        )
    if runs > 1:
        print(f"\n  test RMSE: mean {np.mean(errors):.4f}, standard deviation {np.std(errors, ddof=1):.4f}")
        print(f"  the mean of the {runs} predictions: {rmse(np.mean(predictions, axis=0), y_test):.4f}")
    draw(arguments.plot, histories, float(deviation), y_test, predictions[0])


def build(seed: int, *, short: bool) -> nn.Module:
    if short:
        return gv.models.tabular_resnet(8, 1, d=32, hidden=64, n_blocks=2, seed=seed)
    return gv.models.tabular_resnet(8, 1, d=168, hidden=501, n_blocks=3, dropout_first=0.2, seed=seed)


if __name__ == "__main__":
    main()

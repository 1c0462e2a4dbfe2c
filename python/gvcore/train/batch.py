"""What a training step accepts, made into what the plan takes.

Inputs as they lie, a contiguous target of the net's dtype or labels as int64, one weight per sample.
Everything is checked here or in the plan before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcore.data import Input, Scaled, as_array
from gvcore.nn.inference import as_input
from gvcore.nn.losses import Loss, as_target, check_target

__all__ = ["Batch", "as_batch", "as_parts", "as_weights", "check_loss", "loss_settings"]

UserLoss = Callable[[NDArray[Any], NDArray[Any]], tuple[float, NDArray[Any]]]


@dataclass
class Batch:
    """Arrays ready for a plan; `order` picks rows of them."""

    inputs: list[Input]
    target: NDArray[Any]
    labels: bool
    sample_weight: NDArray[np.float64] | None = None
    order: NDArray[np.int64] | None = None

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The trailing shapes of the inputs."""
        return tuple(x.shape[1:] for x in self.inputs)


def check_loss(op: str, loss: Any) -> None:
    """Raise a TypeError unless `loss` can be called."""
    if not callable(loss) or isinstance(loss, type):
        raise TypeError(
            f"[{op}] expected loss to be a loss of gvcore.nn or a callable (prediction, target) -> "
            f"(loss, dprediction), got {loss!r}"
        )


def as_parts(op: str, x: Any) -> list[Input]:
    """Return the inputs that `x` stands for: several if it is a tuple, else one array."""
    parts = x if isinstance(x, tuple) else (x,)
    try:
        return [part if isinstance(part, Scaled) else np.asarray(part) for part in parts]
    except ValueError as error:
        raise ValueError(
            f"[{op}] expected x to be an array, for several inputs a tuple of them, "
            f"got a {type(x).__name__} that makes none ({error})"
        ) from None


def as_weights(op: str, value: Any, rows: int) -> NDArray[np.float64] | None:
    """Return sample weights as float64 of shape (rows,), or None."""
    if value is None:
        return None
    array = as_array(op, "sample_weight", value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"[{op}] expected sample_weight to be numbers, got dtype {array.dtype}")
    if array.shape != (rows,):
        raise ValueError(f"[{op}] expected sample_weight of shape ({rows},), got {array.shape}")
    weights = np.ascontiguousarray(array, np.float64)
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not (np.isfinite(weights).all() and (weights >= 0).all() and 0 < total < np.inf):
        raise ValueError(
            f"[{op}] expected sample_weight finite, >= 0 and not all zero, with a finite sum, "
            f"got {weights.min():.3g} to {weights.max():.3g}, with the sum {total:.3g}"
        )
    return weights


def as_batch(op: str, x: Any, y: Any, dtype: np.dtype[Any], loss: Any, sample_weight: Any = None) -> Batch:
    """Convert and check x, y and weights; shapes against the net are checked by `fit_target`."""
    inputs = [as_input(op, "x", part) for part in as_parts(op, x)]
    if not inputs:
        raise ValueError(f"[{op}] expected at least one input, got an empty tuple")
    rows = len(inputs[0])
    if rows == 0:
        raise ValueError(f"[{op}] expected a batch of at least one row, got x of shape {inputs[0].shape}")
    if any(len(part) != rows for part in inputs):
        raise ValueError(f"[{op}] expected inputs of one length, got {[p.shape for p in inputs]}")
    hint = "; several inputs make a tuple, not a list" if isinstance(x, list) else ""
    if isinstance(loss, Loss):
        target, labels = as_target(op, "y", y, rows, loss, dtype, like="x", hint=hint)
        return Batch(inputs, target, labels, as_weights(op, sample_weight, rows))
    target = as_array(op, "y", y)
    if target.ndim == 0 or len(target) != rows:
        raise ValueError(f"[{op}] expected y with {rows} rows as in x, got shape {target.shape}{hint}")
    return Batch(inputs, target, False, as_weights(op, sample_weight, rows))


def fit_target(op: str, batch: Batch, output: tuple[int, ...], loss: Loss) -> None:
    """Check the target's shape against the trailing shape of the prediction."""
    check_target(batch.target.shape, batch.labels, output, loss)


def loss_settings(loss: Any, labels: bool, output: tuple[int, ...]) -> dict[str, Any] | None:
    """Return what the plan needs to know of a loss; None for one written in Python."""
    if not isinstance(loss, Loss):
        return None
    settings = dict(loss.native())
    columns = output[-1] if output else 1
    weight = settings["weight"]
    if weight is not None:
        weight = np.asarray(weight, np.float64)
        if settings["kind"] == "bce" and weight.size == 1:
            weight = np.full(columns, weight.item())
        if weight.shape != (columns,):
            raise ValueError(
                f"[{settings['kind']}] expected {columns} weights, one for each column of the "
                f"prediction, got {weight.size}"
            )
        settings["weight"] = weight.tolist()
    settings["labels"] = labels
    return settings

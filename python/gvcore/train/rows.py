"""What `fit` trains on: arrays that have been checked, weights of the rows, and which rows make a batch.

Nothing is gathered here; that is done in C++, row by row, from the arrays as they lie.
"""

from __future__ import annotations

import mmap
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcore._settings import real
from gvcore.data import Input, Scaled, as_array, train_test_split
from gvcore.nn.losses import Loss
from gvcore.train.batch import Batch, as_batch

__all__ = ["Unread", "check_finite", "cut", "first_bad", "prepare", "split"]

_VALIDATION_SITE = 0x56414C49
_LOOK = 1 << 18  # elements looked at together: what stays in the cache


def prepare(
    op: str,
    x: Any,
    y: Any,
    dtype: np.dtype[Any],
    loss: Any,
    sample_weight: Any = None,
    class_weight: Any = None,
) -> Batch:
    """Convert and check x, y and the weights of the rows; whether values are finite is checked elsewhere."""
    target = as_array(op, "y", y)
    if target.dtype.kind in "USO" and isinstance(loss, Loss):
        raise TypeError(
            f"[{op}] expected y to be numbers, got dtype {target.dtype}; number the classes first: "
            "classes, y = numpy.unique(y, return_inverse=True)"
        )
    with np.errstate(over="ignore"):  # a target that float32 cannot hold becomes infinite, and is named then
        data = as_batch(op, x, target, dtype, loss, sample_weight)
    if not isinstance(loss, Loss) and (sample_weight is not None or class_weight is not None):
        raise ValueError(
            f"[{op}] expected no sample_weight and no class_weight with a loss written in Python; "
            "weight the rows in the loss"
        )
    if class_weight is not None:
        weights = _class_weights(op, class_weight, target)
        given = data.sample_weight
        with np.errstate(over="ignore"):
            data.sample_weight = weights if given is None else weights * given
            total = data.sample_weight.sum()
        if not 0 < total < np.inf:
            raise ValueError(
                f"[{op}] expected class_weight to leave rows of positive weight, with a finite sum, "
                f"got {class_weight!r}"
            )
    return data


def _class_weights(op: str, given: Any, y: NDArray[Any]) -> NDArray[np.float64]:
    """Return a weight for each row from those of the classes."""
    if y.dtype.kind not in "iub" or y.size != len(y):
        raise ValueError(
            f"[{op}] expected integer labels of shape (rows,) with class_weight, "
            f"got y of dtype {y.dtype} and shape {y.shape}"
        )
    classes, codes, counts = np.unique(y.reshape(-1), return_inverse=True, return_counts=True)
    if isinstance(given, str) and given == "balanced":
        by_class = len(y) / (len(classes) * counts)
    elif isinstance(given, Mapping):
        weights = {key: real(op, f"class_weight[{key!r}]", w, at_least=0.0) for key, w in given.items()}
        for key in given:
            if not isinstance(key, numbers.Real) or not float(key).is_integer():
                raise TypeError(f"[{op}] expected class_weight by integer labels, got the key {key!r}")
        known = {label.item() for label in classes}
        if not known & weights.keys():
            raise ValueError(
                f"[{op}] expected class_weight to name labels of y such as {classes[0].item()!r}, "
                f"got {list(weights)}"
            )
        by_class = np.array([weights.get(label.item(), 1.0) for label in classes])
    else:
        raise TypeError(f'[{op}] expected class_weight to be a dict or "balanced", got {given!r}')
    result: NDArray[np.float64] = by_class[codes.reshape(-1)].astype(np.float64)
    return result


def _mapped(values: Input) -> bool:
    base: Any = values.array if isinstance(values, Scaled) else values
    while base is not None:
        if isinstance(base, (np.memmap, mmap.mmap)):
            return True
        base = getattr(base, "base", None) if not isinstance(base, memoryview) else base.obj
    return False


def _always_finite(values: Input, dtype: np.dtype[Any]) -> bool:
    """Return whether values need no look: integers, unless a scale could take them out of range."""
    array = values.array if isinstance(values, Scaled) else values
    if array.dtype.kind == "f":
        return False
    largest = 2.0 ** (8 * array.dtype.itemsize)
    if isinstance(values, Scaled):
        largest = largest * abs(values.scale) + abs(values.shift)
    return largest < float(np.finfo(dtype).max)


def first_bad(
    values: Input, dtype: np.dtype[Any], rows: NDArray[np.int64] | None = None
) -> tuple[tuple[int, ...], Any] | None:
    """Return the first element that is not finite as `dtype`, (index, value), of all rows or of some."""
    count = len(values) if rows is None else len(rows)
    if not values.size or not count or _always_finite(values, dtype):
        return None
    each = max(1, _LOOK * len(values) // values.size)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, count, each):
            which: Any = slice(first, first + each) if rows is None else rows[first : first + each]
            part = values[which].astype(dtype, copy=False)
            if not np.isfinite(part).all():
                at = tuple(int(i) for i in np.argwhere(~np.isfinite(part))[0])
                row = first + at[0] if rows is None else int(rows[first + at[0]])
                return (row, *at[1:]), part[at]
    return None


def check_finite(
    op: str, name: str, values: Input, dtype: np.dtype[Any], rows: NDArray[np.int64] | None = None
) -> None:
    """Raise a ValueError that names the first element, of all rows or of some, that is bad as `dtype`."""
    if (bad := first_bad(values, dtype, rows)) is not None:
        raise ValueError(
            f"[{op}] expected {name} to be finite in {dtype}, got {bad[1]} at index {bad[0]}; "
            "replace such values or leave out their rows"
        )


class Unread:
    """Rows of memory maps that have not been looked at: they are when they are about to be used."""

    def __init__(self, op: str, data: Batch, dtype: np.dtype[Any]) -> None:
        self._op = op
        parts: list[tuple[str, Input, np.dtype[Any]]] = [
            ("x" if len(data.inputs) == 1 else f"x[{i}]", part, dtype) for i, part in enumerate(data.inputs)
        ]
        if data.target.dtype.kind == "f":
            parts.append(("y", data.target, data.target.dtype))
        self._later = []
        for part in parts:
            if not _mapped(part[1]):
                check_finite(op, *part)
            elif not _always_finite(*part[1:]):
                self._later.append(part)
        self._mask = np.ones(len(data.inputs[0]) if self._later else 0, np.bool_)

    def __bool__(self) -> bool:
        return bool(self._later)

    def look(self, rows: NDArray[np.int64]) -> None:
        """Check those of the rows that are new."""
        new = rows[self._mask[rows]]
        if len(new):
            for part in self._later:
                check_finite(self._op, *part, new)
            self._mask[new] = False


def split(op: str, data: Batch, fraction: Any, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to train on and to validate on, ascending; by class where classes are large enough."""
    share = real(op, "validation", fraction, above=0.0, below=1.0, otherwise=", a pair (x, y) or None")
    count = len(data.inputs[0])
    apart = -int(-share * count // 1)
    if not 0 < apart < count:
        raise ValueError(
            f"[{op}] expected validation to leave rows to train on and to validate on, "
            f"got {share:g} of {count} rows, that is {apart}"
        )
    labels = data.target.reshape(-1) if data.labels and data.target.size == count else None
    if labels is not None:
        counts = np.unique(labels, return_counts=True)[1]
        if counts.min() < 2 or min(apart, count - apart) < len(counts):
            labels = None
    key = np.random.SeedSequence([seed, _VALIDATION_SITE])
    rows, held = train_test_split(np.arange(count), test_size=apart, seed=key, stratify=labels)
    return np.sort(rows), np.sort(held)


def cut(rows: int, batch_size: int, drop_last: bool) -> NDArray[np.int64]:
    """Return where batches begin, and where the last one ends; there is always at least one batch."""
    cuts = [*range(0, rows, batch_size), rows]
    last = rows - cuts[-2]
    if len(cuts) > 2 and last < batch_size and (drop_last or last == 1):
        cuts.pop(-1 if drop_last else -2)
    return np.array(cuts, np.int64)

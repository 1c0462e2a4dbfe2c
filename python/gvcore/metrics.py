"""Measures of how good predictions are: functions on arrays, and the sums behind them.

A trainer feeds a measure chunk by chunk, so that a large validation set needs no second copy of its
predictions; only functions of the user get all rows at once. Losses, which have gradients, are in `nn`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gvcore._settings import integer, returned

__all__ = ["Metric", "MetricLike", "accuracy", "mae", "r2", "rmse", "top_k"]

Metric = Callable[[NDArray[Any], NDArray[Any]], float]
"""A function of (prediction, target) that returns one number; its ``__name__`` names the record."""

MetricLike = str | Metric
"""What `gvcore.Trainer` accepts as a metric: a name such as ``"top_5"``, or a function."""

_RESERVED = ("epoch", "step", "loss", "lr", "seconds")


class Running:
    """A measure under way: `update` takes any number of rows, `result` is that of all so far."""

    name: str

    def update(self, prediction: NDArray[Any], target: NDArray[Any]) -> None:
        """Take in some rows."""
        raise NotImplementedError

    def result(self) -> float:
        """Return the measure of all rows seen."""
        raise NotImplementedError


class _Hits(Running):
    """The share of rows whose class is among the k largest outputs."""

    def __init__(self, name: str, k: int) -> None:
        self.name, self.k = name, k
        self.hits = self.rows = 0

    def update(self, prediction: NDArray[Any], target: NDArray[Any]) -> None:
        if self.k == 1 and (prediction.ndim == 1 or prediction.shape[-1] == 1):
            hit = self._binary(prediction, target)
        else:
            hit = self._classes(prediction, target)
        self.hits += int(np.count_nonzero(hit))
        self.rows += hit.size

    def result(self) -> float:
        return self.hits / self.rows if self.rows else math.nan

    def _binary(self, prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[np.bool_]:
        if prediction.size != target.size:
            _mismatch(self.name, prediction, target)
        answer = np.where(np.isnan(prediction), np.nan, prediction > 0).ravel()
        hit: NDArray[np.bool_] = answer == (target.ravel() > 0.5)
        return hit

    def _classes(self, prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[np.bool_]:
        if prediction.ndim < 2:
            _mismatch(self.name, prediction, target)
        classes = prediction.shape[-1]
        if not 1 <= self.k <= classes:
            raise ValueError(
                f"[{self.name}] expected k in [1, {classes}], the number of classes, got {self.k}"
            )
        scores = prediction.reshape(-1, classes)
        if target.shape == prediction.shape:
            labels = target.reshape(-1, classes).argmax(axis=1)
        elif target.size == len(scores):
            labels = target.reshape(-1).astype(np.int64, copy=False)
        else:
            _mismatch(self.name, prediction, target)
        if labels.size and not (labels.min() >= 0 and labels.max() < classes):
            raise ValueError(
                f"[{self.name}] expected labels in [0, {classes}), "
                f"got {int(labels.min())} … {int(labels.max())}"
            )
        own = scores[np.arange(len(scores)), labels][:, None]
        if self.k == 1:
            hit = scores.argmax(axis=1) == labels
        else:  # ties go to the lower class, as with argmax
            before = (scores > own) | ((scores == own) & (np.arange(classes) < labels[:, None]))
            hit = np.count_nonzero(before | np.isnan(scores), axis=1) < self.k
        found: NDArray[np.bool_] = hit & ~np.isnan(own[:, 0])
        return found


class _Errors(Running):
    """The mean of |p - y| or, as a root, of (p - y)², over all elements."""

    def __init__(self, name: str, squared: bool) -> None:
        self.name, self.squared = name, squared
        self.total, self.count = 0.0, 0

    def update(self, prediction: NDArray[Any], target: NDArray[Any]) -> None:
        error = _error(self.name, prediction, target)
        self.total += float(np.sum(error * error) if self.squared else np.sum(np.abs(error)))
        self.count += error.size

    def result(self) -> float:
        mean = self.total / self.count if self.count else math.nan
        return math.sqrt(mean) if self.squared else mean


class _R2(Running):
    """1 - Σ(y - p)² / Σ(y - mean)², by column; chunks merge as in Chan et al. 1979."""

    name = "r2"

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        self.spread: Any = 0.0
        self.residual: Any = 0.0

    def update(self, prediction: NDArray[Any], target: NDArray[Any]) -> None:
        error = _error(self.name, prediction, target)
        rows = len(error)
        if rows == 0:
            return
        values = np.asarray(target, np.float64).reshape(rows, -1)
        mean = values.mean(axis=0)
        self.spread = self.spread + np.sum((values - mean) ** 2, axis=0)
        apart = mean - self.mean
        total = self.count + rows
        self.spread = self.spread + apart**2 * (self.count * rows / total)
        self.mean = self.mean + apart * (rows / total)
        self.count = total
        self.residual = self.residual + np.sum(error.reshape(rows, -1) ** 2, axis=0)

    def result(self) -> float:
        if self.count < 2:
            return math.nan
        constant = self.spread == 0
        share = self.residual / np.where(constant, 1.0, self.spread)
        scores = 1.0 - np.where(constant, (self.residual != 0) * 1.0, share)
        return float(np.mean(scores))


class Whole:
    """A function of the user, which gets all rows at once."""

    def __init__(self, name: str, function: Metric) -> None:
        self.name, self.function = name, function

    def __call__(self, prediction: NDArray[Any], target: NDArray[Any]) -> float:
        """Call the function and check what it returns."""
        return returned("metrics", f"{self.name} to return a number", self.function(prediction, target))


def _mismatch(name: str, prediction: NDArray[Any], target: NDArray[Any]) -> NoReturn:
    raise ValueError(
        f"[{name}] expected a target that fits the prediction, got a prediction of shape {prediction.shape} "
        f"and a target of shape {target.shape}"
    )


def _error(name: str, prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    if prediction.shape != target.shape:
        ones = {prediction.shape, (*prediction.shape, 1)} & {target.shape, (*target.shape, 1)}
        if not ones:  # never broadcast: (n,) against (n, 1) would be (n, n)
            _mismatch(name, prediction, target)
    return np.asarray(prediction, np.float64).reshape(target.shape) - np.asarray(target, np.float64)


def resolve(op: str, given: Any) -> list[Callable[[], Running] | Whole]:
    """Turn what a user passes as ``metrics`` into measures: makers of running ones, or functions."""
    if isinstance(given, str) or callable(given):
        given = (given,)
    if not isinstance(given, Iterable):
        raise TypeError(f"[{op}] expected metrics to be names or functions, got {given!r}")
    found: list[Callable[[], Running] | Whole] = []
    names: set[str] = set()
    for metric in given:
        measure, name = _one(op, metric)
        if name in _RESERVED or name.startswith("val_"):
            raise ValueError(
                f"[{op}] expected a metric of another name, got {name!r}, which a record has already"
            )
        if name in names:
            raise ValueError(f"[{op}] expected metrics of different names, got {name!r} twice")
        names.add(name)
        found.append(measure)
    return found


def _one(op: str, metric: Any) -> tuple[Callable[[], Running] | Whole, str]:
    maker = _named(metric) if isinstance(metric, str) else _OWN.get(id(metric))
    if maker is None and isinstance(metric, _TopK):
        maker = metric.running
    if maker is not None:
        return maker, maker().name
    if callable(metric) and not isinstance(metric, type):
        name = getattr(metric, "__name__", type(metric).__name__)
        return Whole(name, metric), name
    known = ", ".join(f'"{name}"' for name in _NAMED)
    raise (ValueError if isinstance(metric, str) else TypeError)(
        f'[{op}] expected metrics among {known}, "top_5" (any number) or functions of (prediction, target), '
        f"got {metric!r}"
    )


def _named(name: str) -> Callable[[], Running] | None:
    found = re.fullmatch(r"top_([1-9][0-9]*)", name)
    return top_k(int(found[1])).running if found else _NAMED.get(name)


def _run(maker: Callable[[], Running], prediction: ArrayLike, target: ArrayLike) -> float:
    running = maker()
    running.update(np.asarray(prediction), np.asarray(target))
    return running.result()


def accuracy(prediction: ArrayLike, target: ArrayLike) -> float:
    """Return the share of rows that are classified correctly.

    Parameters
    ----------
    prediction : array_like of shape (rows, classes), or (rows,) or (rows, 1)
        Logits or probabilities, of which the largest counts; with a single column logits, of which the
        positive ones mean class 1.
    target : array_like
        Labels (rows,), or an array of the prediction's shape whose largest entry is the class.

    Returns
    -------
    float
        In [0, 1]; NaN for no rows. A row whose prediction is NaN is wrong.

    Raises
    ------
    ValueError
        If the shapes do not fit or a label is no class.

    Examples
    --------
    >>> accuracy([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [1, 0, 0])
    0.6666666666666666
    """
    return _run(_NAMED["accuracy"], prediction, target)


class _TopK:
    """What `top_k` returns."""

    def __init__(self, k: int) -> None:
        self.k, self.__name__ = k, f"top_{k}"

    def running(self) -> Running:
        return _Hits(self.__name__, self.k)

    def __call__(self, prediction: ArrayLike, target: ArrayLike) -> float:
        return _run(self.running, prediction, target)


def top_k(k: int) -> _TopK:
    """Make the measure "the right class is among the `k` largest outputs"; ``"top_5"`` names `top_k(5)`.

    Parameters
    ----------
    k : int
        At least 1 and at most the number of classes.

    Returns
    -------
    callable
        ``f(prediction, target) -> float``; see `accuracy`. Of equal outputs the first ones count.

    Raises
    ------
    TypeError, ValueError
        If `k` is not a positive integer.

    Examples
    --------
    >>> top_k(2)([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], [1, 2])
    0.5
    """
    return _TopK(integer("top_k", "k", k, at_least=1))


def rmse(prediction: ArrayLike, target: ArrayLike) -> float:
    r"""Return the root of the mean squared error, :math:`\sqrt{\frac1N \sum_i (p_i - y_i)^2}`.

    Parameters
    ----------
    prediction, target : array_like of one shape
        ``(rows,)`` and ``(rows, 1)`` fit as well. The mean is over all N elements, in float64.

    Returns
    -------
    float
        In the unit of the target; NaN for no rows.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> rmse([1.0, 3.0], [0.0, 0.0])
    2.23606797749979
    """
    return _run(_NAMED["rmse"], prediction, target)


def mae(prediction: ArrayLike, target: ArrayLike) -> float:
    r"""Return the mean absolute error, :math:`\frac1N \sum_i |p_i - y_i|`, in the unit of the target.

    Parameters
    ----------
    prediction, target : array_like of one shape
        ``(rows,)`` and ``(rows, 1)`` fit as well. The mean is over all N elements, in float64.

    Returns
    -------
    float
        NaN for no rows.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> mae([1.0, 3.0], [0.0, 0.0])
    2.0
    """
    return _run(_NAMED["mae"], prediction, target)


def r2(prediction: ArrayLike, target: ArrayLike) -> float:
    r"""Return the coefficient of determination, averaged over columns.

    .. math::
        R^2 = 1 - \frac{\sum_i (y_i - p_i)^2}{\sum_i (y_i - \bar y)^2}

    A constant column counts 1 if it is predicted exactly and else 0, as in
    ``sklearn.metrics.r2_score``.

    Parameters
    ----------
    prediction, target : array_like of one shape (rows, ...)
        ``(rows,)`` and ``(rows, 1)`` fit as well. Sums are over the rows, in float64.

    Returns
    -------
    float
        At most 1; NaN for fewer than two rows.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    0.7857142857142857
    """
    return _run(_NAMED["r2"], prediction, target)


_NAMED: dict[str, Callable[[], Running]] = {
    "accuracy": lambda: _Hits("accuracy", 1),
    "rmse": lambda: _Errors("rmse", squared=True),
    "mae": lambda: _Errors("mae", squared=False),
    "r2": _R2,
}
# The functions above, passed as metrics, are measured chunk by chunk like their names.
_OWN = {id(f): _NAMED[f.__name__] for f in (accuracy, rmse, mae, r2)}

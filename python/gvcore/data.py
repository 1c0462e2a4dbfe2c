"""Split arrays into a part to train on and a part to test on. Not a loader: batches are gathered in C++."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gvcore import _core
from gvcore._settings import integer, real
from gvcore.seeding import SPLIT_SITE, as_seed

__all__ = ["train_test_split"]


def train_test_split(
    *arrays: ArrayLike,
    test_size: float | int = 0.2,
    seed: int | np.random.SeedSequence | None = None,
    stratify: ArrayLike | None = None,
) -> list[NDArray[Any]]:
    """Deal the rows of arrays at random into a training and a test part.

    Parameters
    ----------
    *arrays : array_like, each (rows, ...)
        One or more arrays with the same number of rows. Rows of an index stay together.
    test_size : float or int, default 0.2
        A share between 0 and 1, both excluded, of which ``ceil(test_size * rows)`` rows are taken for
        testing; or the number of those rows.
    seed : int, numpy.random.SeedSequence or None
        The same seed gives the same split on every machine.
    stratify : array_like of shape (rows,), optional
        Labels; each class goes to the test part in proportion to its size, by largest remainders.

    Returns
    -------
    list of ndarray
        Two arrays for each one given, ``x_train, x_test, y_train, y_test, …``, all copies, with the
        dtypes of the arrays given.

    Raises
    ------
    TypeError
        If no array is given, one of them is a scalar, or `test_size` is not a number.
    ValueError
        If the lengths differ, a part would be empty, or with `stratify` a class has a single row or a
        part has fewer rows than there are classes.

    Notes
    -----
    Order of results as in ``sklearn.model_selection.train_test_split``. Rows are shuffled with the
    library's own generator, so the split is not scikit-learn's for the same seed.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = np.arange(20.0).reshape(10, 2), np.arange(10)
    >>> x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.3, seed=0)
    >>> x_train.shape, x_test.shape
    ((7, 2), (3, 2))
    >>> bool((x_test[:, 0] == 2 * y_test).all())
    True
    """
    op = "train_test_split"
    if not arrays:
        raise TypeError(f"[{op}] expected at least one array, got none")
    checked = [np.asarray(array) for array in arrays]
    for i, array in enumerate(checked):
        if array.ndim == 0:
            raise TypeError(f"[{op}] expected arrays with rows, got a scalar as argument {i}")
    rows = len(checked[0])
    if any(len(array) != rows for array in checked):
        lengths = ", ".join(str(len(array)) for array in checked)
        raise ValueError(f"[{op}] expected arrays of the same length, got {lengths}")
    test_rows = _count_test_rows(op, rows, test_size)
    order: NDArray[np.int64] = _core.permutation(rows, as_seed(seed), SPLIT_SITE)
    if stratify is None:
        test, train = order[:test_rows], order[test_rows:]
    else:
        chosen = _stratified(op, np.asarray(stratify), order, test_rows)
        test, train = order[chosen], order[~chosen]
    return [array[part] for array in checked for part in (train, test)]


def _count_test_rows(op: str, rows: int, test_size: Any) -> int:
    if isinstance(test_size, numbers.Integral) and not isinstance(test_size, bool):
        test_rows = integer(op, "test_size", test_size, at_least=1)
    else:
        test_rows = math.ceil(real(op, "test_size", test_size, above=0.0, below=1.0) * rows)
    if not 0 < test_rows < rows:
        raise ValueError(
            f"[{op}] expected test_size to leave rows in both parts, "
            f"got test_size={test_size}, that is {test_rows} of {rows} rows"
        )
    return test_rows


def _stratified(op: str, labels: NDArray[Any], order: NDArray[np.int64], test_rows: int) -> NDArray[np.bool_]:
    rows = len(order)
    if labels.shape != (rows,):
        raise ValueError(f"[{op}] expected stratify of shape ({rows},), got {labels.shape}")
    classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        label = classes[int(counts.argmin())].item()
        raise ValueError(f"[{op}] expected at least 2 rows of every class in stratify, got 1 of {label!r}")
    if min(test_rows, rows - test_rows) < len(classes):
        raise ValueError(
            f"[{op}] expected a row for each of the {len(classes)} classes in both parts, "
            f"got {rows - test_rows} training and {test_rows} test rows"
        )
    # Integers throughout: the shares must not depend on rounding.
    shares = [divmod(int(count) * test_rows, rows) for count in counts]
    take = np.array([share for share, _ in shares], dtype=np.int64)
    missing = test_rows - int(take.sum())
    by_remainder = sorted(range(len(shares)), key=lambda c: -shares[c][1])  # stable: ties in class order
    take[by_remainder[:missing]] += 1
    # Within each class, the first rows in shuffled order are taken.
    shuffled = codes.reshape(-1)[order]
    grouped = np.argsort(shuffled, kind="stable")
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    rank = np.arange(rows) - np.repeat(starts, counts)
    chosen = np.zeros(rows, dtype=np.bool_)
    chosen[grouped[rank < np.repeat(take, counts)]] = True
    return chosen

"""What a net trains on: arrays to be scaled on the way, and a part of the rows set apart for testing.

Not a loader: batches are gathered in C++, from the arrays as they lie.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gvcore import _core
from gvcore._settings import integer, real
from gvcore.seeding import SPLIT_SITE, as_seed

__all__ = ["Input", "Scaled", "as_array", "as_rows", "is_number", "scaled", "train_test_split"]


def is_number(dtype: np.dtype[Any]) -> bool:
    """Return whether an input may be of this dtype: float16/32/64, integer or bool."""
    return dtype.kind in "fiub" and dtype.itemsize <= 8


class Scaled:
    """An array that stands for ``array * scale + shift``; made by `scaled`, which see.

    Attributes
    ----------
    array : ndarray
        As given, not a copy.
    scale, shift : float
    """

    __slots__ = ("array", "scale", "shift")

    def __init__(self, array: NDArray[Any], scale: float, shift: float) -> None:
        self.array, self.scale, self.shift = array, scale, shift

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.array.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.array.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of what it stands for, as ``numpy.asarray`` computes it; `array` has one of its own."""
        return np.result_type(self.array.dtype, np.float32)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: Any) -> Scaled:
        """Return the rows (any index of NumPy's), scaled in the same way."""
        return Scaled(np.asarray(self.array[rows]), self.scale, self.shift)

    def astype(self, dtype: Any, copy: bool = True) -> NDArray[Any]:
        """Return what it stands for as an array, always a new one; a net of this dtype gets the same bits."""
        kind = np.result_type(dtype, np.float32).type
        scale, shift = kind(self.scale), kind(self.shift)
        product = self.array.astype(kind) * scale
        result: NDArray[Any] = np.asarray(product if shift == 0 else product + shift)
        return result.astype(dtype, copy=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError(
                "[scaled] expected copy to be None or True: there is no array of what it stands for"
            )
        return self.astype(self.dtype if dtype is None else dtype)

    def __repr__(self) -> str:
        return f"scaled({self.array.dtype} of shape {self.shape}, {self.scale!r}, {self.shift!r})"


Input = NDArray[Any] | Scaled


def scaled(x: ArrayLike, scale: float, shift: float = 0.0) -> Scaled:
    """Say that an array stands for ``x * scale + shift``, without computing it.

    Training and inference take the result wherever they take inputs. The rows of a batch are converted
    when they are gathered, so an array of bytes stays one, and a memory map stays in its file.

    Parameters
    ----------
    x : array_like of shape (rows, ...)
        float16/32/64, integer or bool, a memory map too. It is kept, not copied.
    scale : float
    shift : float, default 0.0

    Returns
    -------
    Scaled
        With the ``shape``, ``ndim`` and ``len`` of x; indexing takes rows of it, also in
        `train_test_split`, and ``numpy.asarray`` computes what it stands for.

    Raises
    ------
    TypeError
        If x holds anything but numbers or is scaled already, or scale or shift is not a number.
    ValueError
        If x is no array, as rows of different lengths are none, or scale or shift is not finite.

    Notes
    -----
    A net of dtype T gets ``x.astype(T) * T(scale) + T(shift)``, with each operation rounded to T: the bits of
    training on that array. A shift of 0 adds nothing.

    Examples
    --------
    >>> import numpy as np
    >>> import gvcore as gv
    >>> pixels = np.array([[0, 51], [102, 255]], np.uint8)
    >>> x = gv.scaled(pixels, 1 / 255)
    >>> x.array.dtype, np.asarray(x).round(3)
    (dtype('uint8'), array([[0. , 0.2],
           [0.4, 1. ]], dtype=float32))
    >>> net = gv.nn.Linear(2, 1, bias=False, init="ones")
    >>> net(gv.scaled(pixels, 2 / 255, -1.0)).round(3)
    array([[-1.6],
           [ 0.8]], dtype=float32)
    """
    if isinstance(x, Scaled):
        raise TypeError(f"[scaled] expected x to be an array, got one that is scaled already: {x!r}")
    array = as_array("scaled", "x", x)
    if not is_number(array.dtype):
        raise TypeError(
            f"[scaled] expected x of dtype float16/32/64, integer or bool, got {array.dtype} "
            f"of shape {array.shape}"
        )
    return Scaled(array, real("scaled", "scale", scale), real("scaled", "shift", shift))


def as_array(op: str, name: str, value: Any) -> NDArray[Any]:
    """Return `value` as an array, or raise a ValueError that names it."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"[{op}] expected {name} to be an array, got a {type(value).__name__} that makes none ({error})"
        ) from None


def as_rows(op: str, name: str, value: Any) -> Input:
    """Return what indexing by rows works on: an array, or one that is scaled; raise as `as_array` does."""
    return value if isinstance(value, Scaled) else as_array(op, name, value)


def train_test_split(
    *arrays: ArrayLike,
    test_size: float | int = 0.2,
    seed: int | np.random.SeedSequence | None = None,
    stratify: ArrayLike | None = None,
) -> list[Any]:
    """Deal the rows of arrays at random into a training and a test part.

    Parameters
    ----------
    *arrays : array_like, each (rows, ...)
        One or more arrays with the same number of rows, `scaled` ones too. Rows of an index stay together.
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
        dtypes of the arrays given. Of a `scaled` array both parts are scaled.

    Raises
    ------
    TypeError
        If no array is given, one of them is a scalar, `test_size` is not a number, or the labels in
        `stratify` cannot be sorted.
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
    checked = [
        array if isinstance(array, Scaled) else as_array(op, f"argument {i}", array)
        for i, array in enumerate(arrays)
    ]
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
        chosen = _stratified(op, stratify, order, test_rows)
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


def _stratified(op: str, stratify: ArrayLike, order: NDArray[np.int64], test_rows: int) -> NDArray[np.bool_]:
    rows = len(order)
    labels = as_array(op, "stratify", stratify)
    if labels.shape != (rows,):
        raise ValueError(f"[{op}] expected stratify of shape ({rows},), got {labels.shape}")
    try:
        classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    except TypeError:
        kinds = ", ".join(sorted({type(label).__name__ for label in labels}))
        raise TypeError(f"[{op}] expected stratify to hold labels that can be sorted, got {kinds}") from None
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

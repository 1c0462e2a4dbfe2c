"""Matrix products, the linear layer and its gradient, joining and reshaping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gvcore import _core
from gvcore.functional._checks import whole
from gvcore.functional._tracing import FloatArray, ndarray, refuse_traced, traced_call

__all__ = ["concatenate", "linear", "linear_backward", "matmul", "reshape"]

_matmul = _core.functional.matmul
_linear = _core.functional.linear
_linear_backward = _core.functional.linear_backward


def matmul(a: FloatArray, b: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """Multiply two matrices, stacks of matrices or vectors, as :func:`numpy.matmul` does.

    ``c[…, i, j] = Σ_p a[…, i, p]·b[…, p, j]``, each element one chain of fused multiply-adds in
    ascending p.

    Parameters
    ----------
    a : ndarray, shape (…, m, k) or (k,)
        A vector is taken as one row. float32 or float64.
    b : ndarray, shape (…, k, n) or (k,)
        A vector is taken as one column. The leading axes of a and b broadcast. Transposed views
        are used as they lie.
    out : ndarray, shape (…, m, n), optional
        Where to write the result: contiguous rows, no memory shared with a or b.

    Returns
    -------
    ndarray or scalar
        The product; of two vectors, a scalar.

    Raises
    ------
    TypeError
        If an operand is no float32 or float64 array, or dtypes differ.
    ValueError
        If the shapes do not fit, or out has another shape, is read-only or overlaps an operand.

    Examples
    --------
    >>> import numpy as np
    >>> a = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> matmul(a, a.T).tolist()
    [[5.0, 11.0], [11.0, 25.0]]
    """
    if type(a) is not ndarray or type(b) is not ndarray:
        traced = traced_call("matmul", (a, b), {"out": out})
        if traced is not NotImplemented:
            return traced  # type: ignore[no-any-return]
    return _matmul(a, b, out)  # type: ignore[no-any-return]


def linear(
    x: FloatArray, weight: FloatArray, bias: FloatArray | None = None, *, out: FloatArray | None = None
) -> FloatArray:
    """Apply a linear layer, ``y = x @ weight.T + bias``.

    Parameters
    ----------
    x : ndarray, shape (…, in_features)
        float32 or float64, any leading axes.
    weight : ndarray, shape (out_features, in_features)
    bias : ndarray, shape (out_features,), optional
        Added after the product, as a rounding of its own.
    out : ndarray, shape (…, out_features), optional
        Where to write y: contiguous rows, no memory shared with an operand.

    Returns
    -------
    ndarray, shape (…, out_features)

    Raises
    ------
    TypeError
        If an operand is no float32 or float64 array, or dtypes differ.
    ValueError
        If the shapes do not fit, or out has another shape, is read-only or overlaps an operand.

    Examples
    --------
    >>> import numpy as np
    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5])).tolist()
    [[11.5]]
    """
    if type(x) is not ndarray or type(weight) is not ndarray:
        traced = traced_call("linear", (x, weight, bias), {"out": out})
        if traced is not NotImplemented:
            return traced  # type: ignore[no-any-return]
    return _linear(x, weight, bias, out)  # type: ignore[no-any-return]


def linear_backward(
    dy: FloatArray, x: FloatArray, weight: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the gradients of :func:`linear`: ``dy @ weight``, ``dy.T @ x`` and the sum of dy.

    Parameters
    ----------
    dy : ndarray, shape (…, out_features)
        Gradient with respect to the result.
    x : ndarray, shape (…, in_features)
        The input of the layer, with the leading axes of dy.
    weight : ndarray, shape (out_features, in_features)

    Returns
    -------
    dx : ndarray, shape (…, in_features)
    dweight : ndarray, shape (out_features, in_features)
        Summed over all leading axes, in chains of 1,024 rows.
    dbias : ndarray, shape (out_features,)

    Raises
    ------
    TypeError
        If an operand is no float32 or float64 array, or dtypes differ.
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> dy, x, weight = np.ones((2, 1)), np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0]])
    >>> dx, dweight, dbias = linear_backward(dy, x, weight)
    >>> dx.tolist(), dweight.tolist(), dbias.tolist()
    ([[5.0, 6.0], [5.0, 6.0]], [[4.0, 6.0]], [2.0])
    """
    refuse_traced(
        "linear_backward", "TrainStep or value_and_grad, which differentiate the net", dy, x, weight
    )
    return _linear_backward(dy, x, weight)  # type: ignore[no-any-return]


def concatenate(arrays: Sequence[Any], *, axis: int = -1) -> Any:
    """Join arrays or traced values along an axis, as :func:`numpy.concatenate` does.

    Parameters
    ----------
    arrays : sequence of ndarray
        float32 or float64, equal dtypes, shapes that agree on all axes but `axis`.
    axis : int, default -1
        The axis to join; traced values join along a trailing axis, never along the batch.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError
        If `arrays` is no sequence, an element no float32 or float64 array, or dtypes differ.
    ValueError
        If there is nothing to join or the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> concatenate([np.ones((2, 1)), np.zeros((2, 2))]).tolist()
    [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    """
    if not isinstance(arrays, Iterable):
        raise TypeError(f"[concatenate] expected a sequence of arrays, got {type(arrays).__name__}")
    arrays = list(arrays)
    traced = traced_call("concatenate", (arrays,), {"axis": axis})
    if traced is not NotImplemented:
        return traced
    axis = whole("concatenate", "axis", axis)
    if not arrays:
        raise ValueError("[concatenate] expected at least one array, got none")
    for i, array in enumerate(arrays):
        if not isinstance(array, ndarray) or array.dtype not in (np.float32, np.float64):
            kind = array.dtype if isinstance(array, ndarray) else type(array).__name__
            raise TypeError(
                f"[concatenate] expected arrays[{i}] to be a float32 or float64 array, got {kind}"
            )
        if array.dtype != arrays[0].dtype:
            raise TypeError(
                f"[concatenate] expected arrays of one dtype, got {arrays[0].dtype} and {array.dtype}"
            )
    first = arrays[0]
    if not -first.ndim <= axis < first.ndim:
        raise ValueError(f"[concatenate] expected axis in [{-first.ndim}, {first.ndim}), got {axis}")
    kept = [a.shape[: axis % first.ndim] + a.shape[axis % first.ndim + 1 :] for a in arrays]
    if any(a.ndim != first.ndim for a in arrays) or any(shape != kept[0] for shape in kept):
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise ValueError(f"[concatenate] expected shapes that agree on all axes but {axis}, got {shapes}")
    return np.concatenate(arrays, axis=axis)


def reshape(x: Any, shape: int | Sequence[int]) -> Any:
    """Give the axes behind the first another shape; the batch axis stays.

    Parameters
    ----------
    x : ndarray, shape (batch, …)
        float32 or float64, or a traced value.
    shape : int or sequence of int
        That behind the batch axis; one size may be -1.

    Returns
    -------
    ndarray, shape (batch, …)
        A view of x where its memory allows.

    Raises
    ------
    TypeError
        If x is no float32 or float64 array, or shape holds anything but integers.
    ValueError
        If x has no axis or the sizes do not hold its elements.

    Examples
    --------
    >>> import numpy as np
    >>> reshape(np.zeros((5, 2, 3)), -1).shape
    (5, 6)
    """
    if isinstance(shape, str) or not isinstance(shape, (int, np.integer, Iterable)):
        raise TypeError(f"[reshape] expected shape to be an integer or a sequence of them, got {shape!r}")
    given = [shape] if isinstance(shape, (int, np.integer)) else list(shape)
    sizes = tuple(whole("reshape", "shape", n) for n in given)
    traced = traced_call("reshape", (x, sizes), {})
    if traced is not NotImplemented:
        return traced
    if not isinstance(x, ndarray) or x.dtype not in (np.float32, np.float64):
        kind = x.dtype if isinstance(x, ndarray) else type(x).__name__
        raise TypeError(f"[reshape] expected x to be a float32 or float64 array, got {kind}")
    trailing = math.prod(x.shape[1:])
    known = math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) == 1 and known > 0 and trailing % known == 0:
        sizes = tuple(trailing // known if n == -1 else n for n in sizes)
    if x.ndim == 0 or any(n < 0 for n in sizes) or math.prod(sizes) != trailing:
        raise ValueError(
            f"[reshape] expected sizes that hold {trailing} elements a row, got {sizes} for {x.shape}"
        )
    return x.reshape(x.shape[:1] + sizes)

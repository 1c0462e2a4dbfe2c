"""Batch and layer normalisation with their gradients, softmax and log-softmax."""

from __future__ import annotations

import numpy as np

from gvcore import _core
from gvcore.functional._checks import nonnegative, whole
from gvcore.functional._tracing import FloatArray, ndarray, refuse_traced, traced_call

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_inference",
    "layer_norm",
    "layer_norm_backward",
    "log_softmax",
    "softmax",
]

_f = _core.functional
_GRADIENTS = "TrainStep or value_and_grad, which differentiate the net"


def batch_norm(
    x: FloatArray,
    gamma: FloatArray | None = None,
    beta: FloatArray | None = None,
    *,
    eps: float = 1e-5,
    axis: int = -1,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Normalise each feature by the statistics of the batch (Ioffe & Szegedy 2015, arXiv 1502.03167).

    ``y = (x - mean)·rstd·gamma + beta`` with ``rstd = 1/√(variance + eps)``, mean and population
    variance over all axes but `axis`. Columns whose mean is 10⁷ times their spread come out right:
    the variance is a sum of squared distances, and what a rounded mean cannot hold is carried along.

    Parameters
    ----------
    x : ndarray
        float32 or float64, at least one row.
    gamma, beta : ndarray, shape (features,), optional
        Scale and shift, 1 and 0 if None.
    eps : float, default 1e-5
        Added to the variance; finite, not negative.
    axis : int, default -1
        The axis of the features.
    out : ndarray, optional
        Where to write y: the shape and dtype of x; may be x itself.

    Returns
    -------
    y : ndarray
        Of the shape of x.
    mean, rstd : ndarray, shape (features,)

    Raises
    ------
    TypeError
        If an operand is no float32 or float64 array, or dtypes differ.
    ValueError
        If shapes do not fit, x has no rows, axis or eps is out of range, or out has another shape, is
        read-only or overlaps an operand without being x.

    Examples
    --------
    >>> import numpy as np
    >>> y, mean, rstd = batch_norm(np.array([[1.0, 5.0], [3.0, 5.0]]), eps=0.25)
    >>> mean.tolist(), y[:, 1].tolist()
    ([2.0, 5.0], [0.0, 0.0])
    """
    if type(x) is not ndarray:
        refuse_traced("batch_norm", "nn.BatchNorm", x)
    eps = nonnegative("batch_norm", "eps", eps)
    return _f.batch_norm(x, gamma, beta, eps, whole("batch_norm", "axis", axis), out)  # type: ignore[no-any-return]


def batch_norm_backward(
    dy: FloatArray,
    x: FloatArray,
    mean: FloatArray,
    rstd: FloatArray,
    gamma: FloatArray | None = None,
    *,
    axis: int = -1,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the gradients of :func:`batch_norm`, through its statistics too.

    With ``x̂ = (x - mean)·rstd`` and n rows: ``dgamma = Σ dy·x̂``, ``dbeta = Σ dy``,
    ``dx = gamma·rstd·(dy - dbeta/n - x̂·dgamma/n)`` (Ioffe & Szegedy 2015, section 3).

    Parameters
    ----------
    dy, x : ndarray
        Gradient with respect to y, and the input; of one shape and dtype.
    mean, rstd : ndarray, shape (features,)
        As :func:`batch_norm` returned them. What the rounded mean lost is recovered from x.
    gamma : ndarray, shape (features,), optional
        1 if None.
    axis : int, default -1
        The axis of the features.

    Returns
    -------
    dx : ndarray
        Of the shape of x.
    dgamma, dbeta : ndarray, shape (features,)

    Raises
    ------
    TypeError
        If an operand is no float32 or float64 array, or dtypes differ.
    ValueError
        If shapes do not fit, x has no rows, or there is no such axis.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0], [2.0], [6.0]])
    >>> y, mean, rstd = batch_norm(x)
    >>> dx, dgamma, dbeta = batch_norm_backward(np.ones((3, 1)), x, mean, rstd)
    >>> bool(abs(dx).max() < 1e-12), dbeta.tolist()
    (True, [3.0])
    """
    refuse_traced("batch_norm_backward", _GRADIENTS, dy, x)
    return _f.batch_norm_backward(dy, x, mean, rstd, gamma, whole("batch_norm_backward", "axis", axis))  # type: ignore[no-any-return]


def batch_norm_inference(
    x: FloatArray,
    running_mean: FloatArray,
    running_var: FloatArray,
    gamma: FloatArray | None = None,
    beta: FloatArray | None = None,
    *,
    eps: float = 1e-5,
    axis: int = -1,
    out: FloatArray | None = None,
) -> FloatArray:
    """Normalise by given statistics, ``(x - running_mean)/√(running_var + eps)·gamma + beta``.

    Parameters
    ----------
    x : ndarray
        float32 or float64; may have no rows.
    running_mean, running_var : ndarray, shape (features,)
    gamma, beta : ndarray, shape (features,), optional
        Scale and shift, 1 and 0 if None.
    eps : float, default 1e-5
        Added to the variance; finite, not negative.
    axis : int, default -1
        The axis of the features.
    out : ndarray, optional
        Where to write y: the shape and dtype of x; may be x itself.

    Returns
    -------
    ndarray
        Of the shape of x.

    Raises
    ------
    TypeError
        If an operand is no float32 or float64 array, or dtypes differ.
    ValueError
        As in :func:`batch_norm`, but for the rows.

    Examples
    --------
    >>> import numpy as np
    >>> batch_norm_inference(np.array([[3.0]]), np.array([1.0]), np.array([4.0]), eps=0.0).tolist()
    [[1.0]]
    """
    if type(x) is not ndarray:
        refuse_traced("batch_norm_inference", "nn.BatchNorm", x)
    eps = nonnegative("batch_norm_inference", "eps", eps)
    return _f.batch_norm_inference(  # type: ignore[no-any-return]
        x, running_mean, running_var, gamma, beta, eps, whole("batch_norm_inference", "axis", axis), out
    )


def layer_norm(
    x: FloatArray,
    gamma: FloatArray | None = None,
    beta: FloatArray | None = None,
    *,
    eps: float = 1e-5,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Normalise each row over the last axis (Ba, Kiros & Hinton 2016, arXiv 1607.06450).

    ``y = (x - mean)·rstd·gamma + beta``, ``rstd = 1/√(variance + eps)``, population variance.

    Parameters
    ----------
    x : ndarray, shape (…, features)
        float32 or float64, at least one feature.
    gamma, beta : ndarray, shape (features,), optional
        Scale and shift, 1 and 0 if None.
    eps : float, default 1e-5
        Added to the variance; finite, not negative.
    out : ndarray, optional
        Where to write y: the shape and dtype of x, contiguous rows; may be x itself.

    Returns
    -------
    y : ndarray
        Of the shape of x.
    mean, rstd : ndarray, shape (…)
        Of each row.

    Raises
    ------
    TypeError
        If an operand is no float32 or float64 array, or dtypes differ.
    ValueError
        If shapes do not fit, there is no feature, eps is out of range, or out has another shape, is
        read-only or overlaps an operand without being x.

    Examples
    --------
    >>> import numpy as np
    >>> y, mean, rstd = layer_norm(np.array([[1.0, 3.0]]), eps=0.0)
    >>> y.tolist(), mean.tolist(), rstd.tolist()
    ([[-1.0, 1.0]], [2.0], [1.0])
    """
    if type(x) is not ndarray:
        refuse_traced("layer_norm", "nn.LayerNorm", x)
    eps = nonnegative("layer_norm", "eps", eps)
    return _f.layer_norm(x, gamma, beta, eps, out)  # type: ignore[no-any-return]


def layer_norm_backward(
    dy: FloatArray, x: FloatArray, mean: FloatArray, rstd: FloatArray, gamma: FloatArray | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the gradients of :func:`layer_norm`, through its statistics too.

    With ``x̂ = (x - mean)·rstd``, ``g = dy·gamma`` and means over the last axis:
    ``dx = rstd·(g - mean(g) - x̂·mean(g·x̂))``; ``dgamma = Σ dy·x̂``, ``dbeta = Σ dy`` over all rows.

    Parameters
    ----------
    dy, x : ndarray, shape (…, features)
        Gradient with respect to y, and the input; of one shape and dtype.
    mean, rstd : ndarray, shape (…)
        As :func:`layer_norm` returned them.
    gamma : ndarray, shape (features,), optional
        1 if None.

    Returns
    -------
    dx : ndarray
        Of the shape of x.
    dgamma, dbeta : ndarray, shape (features,)

    Raises
    ------
    TypeError
        If an operand is no float32 or float64 array, or dtypes differ.
    ValueError
        If shapes do not fit or there is no feature.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0, 2.0, 6.0]])
    >>> y, mean, rstd = layer_norm(x)
    >>> dx, dgamma, dbeta = layer_norm_backward(np.ones((1, 3)), x, mean, rstd)
    >>> bool(abs(dx).max() < 1e-12), dbeta.tolist()
    (True, [1.0, 1.0, 1.0])
    """
    refuse_traced("layer_norm_backward", _GRADIENTS, dy, x)
    if isinstance(mean, np.generic):  # of one row without leading axes
        mean, rstd = np.asarray(mean), np.asarray(rstd)
    return _f.layer_norm_backward(dy, x, mean, rstd, gamma)  # type: ignore[no-any-return]


def softmax(x: FloatArray, *, axis: int = -1) -> FloatArray:
    """Return ``eˣ/Σeˣ`` along an axis, without overflow.

    Parameters
    ----------
    x : ndarray
        float32 or float64, at least one axis.
    axis : int, default -1
        The axis whose elements sum to 1.

    Returns
    -------
    ndarray
        Of the shape and dtype of x.

    Raises
    ------
    TypeError
        If x is no float32 or float64 array.
    ValueError
        If there is no such axis.

    Examples
    --------
    >>> import numpy as np
    >>> softmax(np.array([[1000.0, 1000.0]])).tolist()
    [[0.5, 0.5]]
    """
    if type(x) is not ndarray:
        traced = traced_call("softmax", (x,), {"axis": axis})
        if traced is not NotImplemented:
            return traced  # type: ignore[no-any-return]
    return _f.softmax(x, whole("softmax", "axis", axis))  # type: ignore[no-any-return]


def log_softmax(x: FloatArray, *, axis: int = -1) -> FloatArray:
    """Return ``x - log Σeˣ`` along an axis, without overflow or cancellation.

    Parameters
    ----------
    x : ndarray
        float32 or float64, at least one axis.
    axis : int, default -1
        The axis whose exponentials sum to 1.

    Returns
    -------
    ndarray
        Of the shape and dtype of x.

    Raises
    ------
    TypeError
        If x is no float32 or float64 array.
    ValueError
        If there is no such axis.

    Examples
    --------
    >>> import numpy as np
    >>> log_softmax(np.array([[1000.0, 0.0]])).tolist()
    [[0.0, -1000.0]]
    """
    if type(x) is not ndarray:
        traced = traced_call("log_softmax", (x,), {"axis": axis})
        if traced is not NotImplemented:
            return traced  # type: ignore[no-any-return]
    return _f.log_softmax(x, whole("log_softmax", "axis", axis))  # type: ignore[no-any-return]

"""Losses on arrays: each returns its value and its gradient, so it also serves as a loss callable.

With reduction="mean" the value is divided by the number of elements (of rows, or of label weights,
for cross-entropy), with "sum" it is not; both are Python floats. With "none" the value is one number
a row, a row being everything behind the first axis, and the gradient is that of their sum.
"""

from __future__ import annotations

from typing import Any

from gvcore import _core
from gvcore._settings import real
from gvcore.functional._checks import reduction_name
from gvcore.functional._tracing import FloatArray, refuse_traced

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "huber_loss",
    "l1_loss",
    "mse_loss",
]

_f = _core.functional


def _checked(op: str, reduction: str, prediction: Any, target: Any) -> str:
    refuse_traced(op, "a loss given to TrainStep, Trainer or value_and_grad", prediction, target)
    return reduction_name(op, reduction)


def cross_entropy(
    logits: FloatArray,
    target: Any,
    *,
    weight: FloatArray | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[Any, FloatArray]:
    """Return the cross-entropy of softmax(logits) and its gradient, as ``torch.nn.CrossEntropyLoss``.

    ``loss = -Σ_c w_c·((1 - ε)·t_c + ε/C)·log_softmax(logits)_c`` for each row, t the target (1 for the
    label), w the weight and ε the smoothing. "mean" divides by the sum of the labels' weights, with
    probabilities by the number of rows.

    Parameters
    ----------
    logits : ndarray, shape (batch, classes)
        float32 or float64.
    target : ndarray of integers, shape (batch,), or of probabilities, shape (batch, classes)
        Labels in [0, classes) of any integer dtype; probabilities of the dtype of logits.
    weight : ndarray, shape (classes,), optional
    label_smoothing : float, default 0.0
        In [0, 1].
    reduction : {"mean", "sum", "none"}, default "mean"

    Returns
    -------
    loss : float, or ndarray of shape (batch,) for reduction="none"
    dlogits : ndarray, shape (batch, classes)

    Raises
    ------
    TypeError
        If logits, weight or probabilities are no float arrays of one dtype, or labels no integers.
    ValueError
        If shapes do not fit, a label or the smoothing is out of range, or the mean is one of nothing.

    Examples
    --------
    >>> import numpy as np
    >>> loss, gradient = cross_entropy(np.zeros((1, 2)), np.array([1]))
    >>> round(loss, 4), gradient.tolist()
    (0.6931, [[0.5, -0.5]])
    """
    op = "cross_entropy"
    reduction = _checked(op, reduction, logits, target)
    smoothing = 0.0
    if type(label_smoothing) is not float or label_smoothing != 0:
        smoothing = real(op, "label_smoothing", label_smoothing, at_least=0, at_most=1)
    return _f.cross_entropy(logits, target, weight, smoothing, reduction)  # type: ignore[no-any-return]


def mse_loss(
    prediction: FloatArray, target: FloatArray, *, reduction: str = "mean"
) -> tuple[Any, FloatArray]:
    """Return the squared error ``(prediction - target)²`` and its gradient.

    Parameters
    ----------
    prediction, target : ndarray
        float32 or float64, of one shape (at least one axis) and dtype.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" over all elements; "none" gives one sum a row.

    Returns
    -------
    loss : float, or ndarray of shape (batch,) for reduction="none"
    dprediction : ndarray
        Of the shape of prediction.

    Raises
    ------
    TypeError
        If an operand is no float32 or float64 array, or dtypes differ.
    ValueError
        If shapes differ or the mean is one of nothing.

    Examples
    --------
    >>> import numpy as np
    >>> loss, gradient = mse_loss(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    >>> loss, gradient.tolist()
    (2.0, [0.0, 2.0])
    """
    reduction = _checked("mse_loss", reduction, prediction, target)
    return _f.mse_loss(prediction, target, reduction)  # type: ignore[no-any-return]


def l1_loss(prediction: FloatArray, target: FloatArray, *, reduction: str = "mean") -> tuple[Any, FloatArray]:
    """Return the absolute error ``|prediction - target|`` and its gradient (0 where they are equal).

    Parameters
    ----------
    prediction, target : ndarray
        float32 or float64, of one shape (at least one axis) and dtype.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" over all elements; "none" gives one sum a row.

    Returns
    -------
    loss : float, or ndarray of shape (batch,) for reduction="none"
    dprediction : ndarray
        Of the shape of prediction.

    Raises
    ------
    TypeError, ValueError
        As in :func:`mse_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> loss, gradient = l1_loss(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    >>> loss, gradient.tolist()
    (1.0, [0.0, 0.5])
    """
    reduction = _checked("l1_loss", reduction, prediction, target)
    return _f.l1_loss(prediction, target, reduction)  # type: ignore[no-any-return]


def huber_loss(
    prediction: FloatArray, target: FloatArray, *, delta: float = 1.0, reduction: str = "mean"
) -> tuple[Any, FloatArray]:
    """Return the Huber loss of d = prediction - target and its gradient (Huber 1964).

    ``½d²`` where ``|d| <= delta``, ``delta·(|d| - ½·delta)`` elsewhere.

    Parameters
    ----------
    prediction, target : ndarray
        float32 or float64, of one shape (at least one axis) and dtype.
    delta : float, default 1.0
        A finite number above 0.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" over all elements; "none" gives one sum a row.

    Returns
    -------
    loss : float, or ndarray of shape (batch,) for reduction="none"
    dprediction : ndarray
        Of the shape of prediction.

    Raises
    ------
    TypeError, ValueError
        As in :func:`mse_loss`; ValueError also if delta is not positive and finite.

    Examples
    --------
    >>> import numpy as np
    >>> loss, gradient = huber_loss(np.array([0.5, 3.0]), np.zeros(2), reduction="sum")
    >>> loss, gradient.tolist()
    (2.625, [0.5, 1.0])
    """
    reduction = _checked("huber_loss", reduction, prediction, target)
    width = real("huber_loss", "delta", delta, above=0)
    return _f.huber_loss(prediction, target, width, reduction)  # type: ignore[no-any-return]


def binary_cross_entropy_with_logits(
    prediction: FloatArray,
    target: FloatArray,
    *,
    pos_weight: FloatArray | None = None,
    reduction: str = "mean",
) -> tuple[Any, FloatArray]:
    """Return the binary cross-entropy of sigmoid(prediction) and its gradient, without overflow.

    ``-(p·t·log σ(x) + (1 - t)·log(1 - σ(x)))`` with p = pos_weight, as ``torch.nn.BCEWithLogitsLoss``.

    Parameters
    ----------
    prediction, target : ndarray
        float32 or float64, of one shape (at least one axis) and dtype; targets in [0, 1].
    pos_weight : ndarray, shape (features,), optional
        For each element of the last axis (of the only column, where prediction is a vector).
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" over all elements; "none" gives one sum a row.

    Returns
    -------
    loss : float, or ndarray of shape (batch,) for reduction="none"
    dprediction : ndarray
        Of the shape of prediction.

    Raises
    ------
    TypeError, ValueError
        As in :func:`mse_loss`; ValueError also if pos_weight has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> loss, gradient = binary_cross_entropy_with_logits(np.zeros((1, 1)), np.ones((1, 1)))
    >>> round(loss, 4), gradient.tolist()
    (0.6931, [[-0.5]])
    """
    op = "binary_cross_entropy_with_logits"
    reduction = _checked(op, reduction, prediction, target)
    return _f.binary_cross_entropy_with_logits(  # type: ignore[no-any-return]
        prediction, target, pos_weight, reduction
    )

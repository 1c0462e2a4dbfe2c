"""Losses as settings: hyper-parameters checked once, then callable on arrays.

The arithmetic is in ``gvcore.functional``; a training step reads `native` instead and runs the same
kernels inside its one call. Any callable ``(prediction, target) -> (loss, dprediction)`` does as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gvcore import functional
from gvcore._settings import choice, real

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "HuberLoss", "L1Loss", "MSELoss"]


def _reduction(op: str, value: Any) -> str:
    if value == "none":
        raise ValueError(
            f"[{op}] expected reduction to be 'mean' or 'sum', since training needs one number, got 'none'; "
            "for a loss per row call the function of gvcore.functional"
        )
    return choice(op, "reduction", value, ("mean", "sum"))


def _weights(op: str, name: str, value: Any) -> NDArray[np.float64]:
    """Return a read-only copy of `value`, 1-D, finite, not negative."""
    weights = np.asarray(value)
    if weights.dtype.kind not in "fiu":
        raise TypeError(f"[{op}] expected {name} to be an array of numbers, got dtype {weights.dtype}")
    if weights.ndim != 1 or weights.size == 0:
        raise ValueError(f"[{op}] expected {name} of shape (n,), got {weights.shape}")
    weights = weights.astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0.0)))
    if bad.size:
        raise ValueError(
            f"[{op}] expected {name} to be finite and >= 0, got {weights[bad[0]]} at index {bad[0]}"
        )
    weights.flags.writeable = False
    return weights


def _floating(op: str, prediction: ArrayLike) -> NDArray[Any]:
    array = np.asarray(prediction)
    if array.dtype.type not in (np.float32, np.float64):
        raise TypeError(f"[{op}] expected prediction of dtype float32 or float64, got {array.dtype}")
    return array


def _like(prediction: NDArray[Any], target: ArrayLike) -> NDArray[Any]:
    return np.asarray(target).astype(prediction.dtype, copy=False)


class Loss:
    """What the losses of this module share."""

    reduction: str

    def __call__(self, prediction: ArrayLike, target: ArrayLike) -> tuple[float, NDArray[Any]]:
        """Return the loss and its gradient with respect to `prediction`, in the dtype of `prediction`.

        Raises
        ------
        TypeError
            If `prediction` is neither float32 nor float64.
        ValueError
            If the shapes do not fit together.
        """
        raise NotImplementedError

    def native(self) -> dict[str, Any]:
        """Return the loss as a plain dict: kind, reduction, weight, label_smoothing, delta.

        ``kind`` is one of ``"mse"``, ``"l1"``, ``"huber"``, ``"cross_entropy"`` and ``"bce"``. ``weight`` is
        a float64 array of class weights (cross-entropy), of positive weights (bce; of one element if it
        was given as a number, which then holds for every column), or None. What a loss does not have
        is None, 0.0 and 1.0.
        """
        raise NotImplementedError

    def _native(self, kind: str, **parameters: Any) -> dict[str, Any]:
        neutral = {"weight": None, "label_smoothing": 0.0, "delta": 1.0}
        return {"kind": kind, "reduction": self.reduction, **neutral, **parameters}

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the dataclasses are frozen; only __post_init__ comes here


@dataclass(frozen=True)
class MSELoss(Loss):
    r"""Mean squared error: :math:`\frac1N \sum_i (p_i - y_i)^2` over all N elements.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"
        With ``"sum"`` there is no 1/N.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range; when called, if the prediction is
        neither float32 nor float64 or the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> loss, gradient = MSELoss()(np.array([[1.0], [3.0]]), np.array([[0.0], [0.0]]))
    >>> loss
    5.0
    >>> gradient
    array([[1.],
           [3.]])
    """

    reduction: str = "mean"

    def __post_init__(self) -> None:
        _reduction("MSELoss", self.reduction)

    def __call__(self, prediction: ArrayLike, target: ArrayLike) -> tuple[float, NDArray[Any]]:
        prediction = _floating("MSELoss", prediction)
        loss, gradient = functional.mse_loss(prediction, _like(prediction, target), reduction=self.reduction)
        return float(loss), gradient

    def native(self) -> dict[str, Any]:
        return self._native("mse")


@dataclass(frozen=True)
class L1Loss(Loss):
    r"""Mean absolute error: :math:`\frac1N \sum_i |p_i - y_i|` over all N elements; gradient 0 where equal.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"
        With ``"sum"`` there is no 1/N.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range; when called, if the prediction is
        neither float32 nor float64 or the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> L1Loss()(np.array([[1.0], [3.0]]), np.array([[0.0], [0.0]]))[0]
    2.0
    """

    reduction: str = "mean"

    def __post_init__(self) -> None:
        _reduction("L1Loss", self.reduction)

    def __call__(self, prediction: ArrayLike, target: ArrayLike) -> tuple[float, NDArray[Any]]:
        prediction = _floating("L1Loss", prediction)
        loss, gradient = functional.l1_loss(prediction, _like(prediction, target), reduction=self.reduction)
        return float(loss), gradient

    def native(self) -> dict[str, Any]:
        return self._native("l1")


@dataclass(frozen=True)
class HuberLoss(Loss):
    r"""Quadratic near zero, linear beyond `delta`, averaged over all elements.

    .. math::
        h(d) = \begin{cases} \tfrac12 d^2 & |d| \le \delta \\ \delta\,(|d| - \tfrac12\delta) & \text{else}
        \end{cases} \qquad d = p - y

    Parameters
    ----------
    delta : float, default 1.0
        :math:`\delta > 0`.
    reduction : {"mean", "sum"}, default "mean"
        Over all elements.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range; when called, if the prediction is
        neither float32 nor float64 or the shapes do not fit.

    References
    ----------
    P. J. Huber, "Robust Estimation of a Location Parameter", 1964; the scale is that of
    ``torch.nn.HuberLoss``.

    Examples
    --------
    >>> import numpy as np
    >>> HuberLoss(delta=1.0)(np.array([[1.0], [3.0]]), np.array([[0.0], [0.0]]))[0]
    1.5
    """

    delta: float = 1.0
    reduction: str = "mean"

    def __post_init__(self) -> None:
        self._set("delta", real("HuberLoss", "delta", self.delta, above=0.0))
        _reduction("HuberLoss", self.reduction)

    def __call__(self, prediction: ArrayLike, target: ArrayLike) -> tuple[float, NDArray[Any]]:
        prediction = _floating("HuberLoss", prediction)
        loss, gradient = functional.huber_loss(
            prediction, _like(prediction, target), delta=self.delta, reduction=self.reduction
        )
        return float(loss), gradient

    def native(self) -> dict[str, Any]:
        return self._native("huber", delta=self.delta)


@dataclass(frozen=True, eq=False)
class CrossEntropyLoss(Loss):
    r"""Cross-entropy of softmax(logits) with labels or probabilities, as ``torch.nn.CrossEntropyLoss``.

    .. math::
        \ell_n = -\sum_c w_c\,q_{nc} \log \operatorname{softmax}(z_n)_c, \qquad
        q = (1 - \epsilon)\,\text{target} + \epsilon / C

    With labels, ``"mean"`` divides by the sum of the labels' weights; with probabilities by the rows.

    Parameters
    ----------
    weight : array_like of shape (classes,), optional
        :math:`w_c \ge 0`.
    label_smoothing : float, default 0.0
        :math:`\epsilon` in [0, 1].
    reduction : {"mean", "sum"}, default "mean"
        Over rows.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range; when called, if the prediction is
        neither float32 nor float64 or shapes or labels do not fit.

    Notes
    -----
    Called on logits (rows, classes) and a target that is either integer labels (rows,) in
    [0, classes) or probabilities (rows, classes).

    References
    ----------
    C. Szegedy et al., "Rethinking the Inception Architecture", arXiv 1512.00567, section 7 (smoothing).

    Examples
    --------
    >>> import numpy as np
    >>> loss, gradient = CrossEntropyLoss()(np.zeros((1, 2)), np.array([0]))
    >>> round(loss, 4)
    0.6931
    >>> gradient
    array([[-0.5,  0.5]])
    """

    weight: ArrayLike | None = None
    label_smoothing: float = 0.0
    reduction: str = "mean"

    def __post_init__(self) -> None:
        op = "CrossEntropyLoss"
        if self.weight is not None:
            self._set("weight", _weights(op, "weight", self.weight))
        smoothing = real(op, "label_smoothing", self.label_smoothing, at_least=0.0, at_most=1.0)
        self._set("label_smoothing", smoothing)
        _reduction(op, self.reduction)

    def __call__(self, prediction: ArrayLike, target: ArrayLike) -> tuple[float, NDArray[Any]]:
        prediction = _floating("CrossEntropyLoss", prediction)
        target = np.asarray(target)
        loss, gradient = functional.cross_entropy(
            prediction,
            target if target.dtype.kind in "iu" else _like(prediction, target),
            weight=None if self.weight is None else _like(prediction, self.weight),
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
        )
        return float(loss), gradient

    def native(self) -> dict[str, Any]:
        return self._native("cross_entropy", weight=self.weight, label_smoothing=self.label_smoothing)


@dataclass(frozen=True, eq=False)
class BCEWithLogitsLoss(Loss):
    r"""Binary cross-entropy of sigmoid(logits), averaged over all elements, as in PyTorch.

    .. math::
        \ell = -\left[ w\,y \log \sigma(z) + (1 - y) \log(1 - \sigma(z)) \right]

    Parameters
    ----------
    pos_weight : float or array_like of shape (columns,), optional
        :math:`w \ge 0`, the weight of positive targets, one for each column or one for all.
    reduction : {"mean", "sum"}, default "mean"
        Over all elements.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range; when called, if the prediction is
        neither float32 nor float64 or the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> loss, gradient = BCEWithLogitsLoss()(np.zeros((2, 1)), np.array([[0], [1]]))
    >>> round(loss, 4)
    0.6931
    >>> gradient
    array([[ 0.25],
           [-0.25]])
    """

    pos_weight: float | ArrayLike | None = None
    reduction: str = "mean"

    def __post_init__(self) -> None:
        op = "BCEWithLogitsLoss"
        if self.pos_weight is not None:
            self._set("pos_weight", _weights(op, "pos_weight", np.atleast_1d(np.asarray(self.pos_weight))))
        _reduction(op, self.reduction)

    def __call__(self, prediction: ArrayLike, target: ArrayLike) -> tuple[float, NDArray[Any]]:
        prediction = _floating("BCEWithLogitsLoss", prediction)
        weight = None if self.pos_weight is None else _like(prediction, self.pos_weight)
        if weight is not None and weight.size == 1 and prediction.ndim:
            weight = np.full(prediction.shape[-1], weight[0])
        loss, gradient = functional.binary_cross_entropy_with_logits(
            prediction, _like(prediction, target), pos_weight=weight, reduction=self.reduction
        )
        return float(loss), gradient

    def native(self) -> dict[str, Any]:
        return self._native("bce", weight=self.pos_weight)

"""Losses as settings: hyper-parameters checked once, then callable on arrays.

The arithmetic is in ``gvcore.functional``; a training step reads `native` instead and runs the same
kernels inside its one call. Any callable ``(prediction, target) -> (loss, dprediction)`` does as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gvcore import functional
from gvcore._settings import choice, real
from gvcore.data import as_array

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
    weights = as_array(op, name, value)
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
    array = as_array(op, "prediction", prediction)
    if array.dtype.type not in (np.float32, np.float64):
        raise TypeError(f"[{op}] expected prediction of dtype float32 or float64, got {array.dtype}")
    return array


def as_target(
    op: str, name: str, value: Any, rows: int, loss: Loss, dtype: Any, *, like: str, hint: str = ""
) -> tuple[NDArray[Any], bool]:
    """Return a contiguous target of `dtype`, or labels as int64, and whether it is labels."""
    target = as_array(op, name, value)
    if target.dtype.kind not in "fiub" or target.dtype.itemsize > 8:
        raise TypeError(f"[{op}] expected {name} to be numbers, got dtype {target.dtype}")
    if target.ndim == 0 or len(target) != rows:
        raise ValueError(
            f"[{op}] expected {name} with {rows} rows as in {like}, got shape {target.shape}{hint}"
        )
    labels = loss.native()["kind"] == "cross_entropy" and target.dtype.kind in "iub"
    if labels and target.dtype == np.uint64 and target.size and target.max() > np.iinfo(np.int64).max:
        raise ValueError(f"[{op}] expected labels below 2**63")
    if not labels and target.dtype != dtype:
        with np.errstate(over="ignore"):  # what the dtype cannot hold is infinity, as in x
            target = target.astype(dtype)
    return np.require(target, np.int64 if labels else dtype, ["C", "A"]), labels


def check_target(target: tuple[int, ...], labels: bool, output: tuple[int, ...], loss: Loss) -> None:
    """Raise unless a target of this shape suits predictions of the trailing shape `output`."""
    shape = target[1:]
    if labels:
        wanted = output[:-1]
        if shape != wanted and not (shape == (1,) and wanted == ()):
            raise ValueError(
                f"[cross_entropy] expected labels of shape {('batch', *wanted)} for a prediction of shape "
                f"{('batch', *output)}, got {target}"
            )
        return
    kind = loss.native()["kind"]
    if kind == "cross_entropy" and shape == output[:-1] and shape != output:
        raise TypeError(
            f"[cross_entropy] expected integer labels of shape {('batch', *shape)} or probabilities of shape "
            f"{('batch', *output)}, got floating-point labels"
        )
    if shape != output and not (output == (1,) and shape == ()) and not (output == () and shape == (1,)):
        raise ValueError(
            f"[{kind}] expected a target of the shape of the prediction {('batch', *output)}, got {target}"
        )


class Loss:
    """What the losses of this module share."""

    reduction: str

    def __call__(self, prediction: ArrayLike, target: ArrayLike) -> tuple[float, NDArray[Any]]:
        """Return the loss and its gradient with respect to `prediction`, in the dtype of `prediction`.

        The target is what a training step takes: any numbers of the shape of `prediction`, (batch,) for
        (batch, 1) too and the other way round; for `CrossEntropyLoss` see there.

        Raises
        ------
        TypeError
            If `prediction` is neither float32 nor float64, or `target` holds no numbers.
        ValueError
            If the shapes do not fit together.
        """
        raise NotImplementedError

    def _operands(self, prediction: ArrayLike, target: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return both as a function of gvcore.functional takes them, of one dtype and shape, or labels."""
        op = type(self).__name__
        values = _floating(op, prediction)
        classes = self.native()["kind"] == "cross_entropy"
        if values.ndim < 1 + classes:
            shape = "(batch, …, classes)" if classes else "(batch, …)"
            raise ValueError(f"[{op}] expected prediction of shape {shape}, got {values.shape}")
        wanted, labels = as_target(op, "target", target, len(values), self, values.dtype, like="prediction")
        check_target(wanted.shape, labels, values.shape[1:], self)
        return values, wanted.reshape(values.shape[:-1] if labels else values.shape)

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
        values, wanted = self._operands(prediction, target)
        loss, gradient = functional.mse_loss(values, wanted, reduction=self.reduction)
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
        values, wanted = self._operands(prediction, target)
        loss, gradient = functional.l1_loss(values, wanted, reduction=self.reduction)
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
        values, wanted = self._operands(prediction, target)
        loss, gradient = functional.huber_loss(values, wanted, delta=self.delta, reduction=self.reduction)
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
    Called on logits (batch, …, classes) and a target that is either labels (batch, …) in [0, classes), of
    any integer dtype or bool, or probabilities (batch, …, classes). Each position counts as a row; labels
    (batch, 1) serve as (batch,).

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
        values, wanted = self._operands(prediction, target)
        rows = (math.prod(values.shape[:-1]), values.shape[-1])  # each position counts as a row
        loss, gradient = functional.cross_entropy(
            values.reshape(rows),
            wanted.reshape(rows if wanted.ndim == values.ndim else rows[:1]),
            weight=None if self.weight is None else np.asarray(self.weight, values.dtype),
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
        )
        return float(loss), gradient.reshape(values.shape)

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
            self._set(
                "pos_weight",
                _weights(op, "pos_weight", np.atleast_1d(as_array(op, "pos_weight", self.pos_weight))),
            )
        _reduction(op, self.reduction)

    def __call__(self, prediction: ArrayLike, target: ArrayLike) -> tuple[float, NDArray[Any]]:
        values, wanted = self._operands(prediction, target)
        weight = None if self.pos_weight is None else np.asarray(self.pos_weight, values.dtype)
        if weight is not None and weight.size == 1:
            weight = np.full(values.shape[-1], weight[0])
        loss, gradient = functional.binary_cross_entropy_with_logits(
            values, wanted, pos_weight=weight, reduction=self.reduction
        )
        return float(loss), gradient

    def native(self) -> dict[str, Any]:
        return self._native("bce", weight=self.pos_weight)

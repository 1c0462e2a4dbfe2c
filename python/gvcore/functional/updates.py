"""The rules of SGD and Adam, in place, and the clipping of gradients by their norm."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from gvcore import _core
from gvcore._settings import integer, real
from gvcore.functional._checks import flag, fraction, nonnegative, share
from gvcore.functional._tracing import FloatArray, ndarray, refuse_traced

__all__ = ["adam_update", "clip_grad_norm", "sgd_update"]

_f = _core.functional
_STEP = "an optimiser of gvcore.optim with TrainStep or Trainer"


def sgd_update(
    param: FloatArray,
    grad: FloatArray,
    velocity: FloatArray | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    first: bool = False,
) -> None:
    """Update param in place by the rule of ``torch.optim.SGD``.

    ``g = grad + weight_decay·param``; ``velocity = momentum·velocity + (1 - dampening)·g``, on the
    first step ``velocity = g``; the direction d is velocity, with nesterov ``g + momentum·velocity``,
    without momentum g; ``param = param - lr·d``.

    Parameters
    ----------
    param : ndarray
        float32 or float64, contiguous; changed in place.
    grad : ndarray
        Of the shape and dtype of param, any strides.
    velocity : ndarray, optional
        Like param; changed in place. Required where momentum is not 0, untouched where it is.
    lr : float
        Finite, not negative; multiplies last, so that a schedule does not act on the velocity.
    momentum : float, default 0.0
        In [0, 1].
    dampening : float, default 0.0
    weight_decay : float, default 0.0
        Not negative.
    nesterov : bool, default False
        Needs momentum and no dampening.
    first : bool, default False
        Store the raw gradient, with its decay, as velocity, whatever velocity held.

    Raises
    ------
    TypeError
        If an array is no float32 or float64 array, dtypes differ or a number is none.
    ValueError
        If shapes differ, an array written in place is read-only, not contiguous or overlaps another,
        velocity is missing or a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> param, velocity = np.array([1.0]), np.zeros(1)
    >>> sgd_update(param, np.array([2.0]), velocity, lr=0.25, momentum=0.5, first=True)
    >>> param.tolist(), velocity.tolist()
    ([0.5], [2.0])
    """
    op = "sgd_update"
    refuse_traced(op, _STEP, param, grad)
    lr = nonnegative(op, "lr", lr)
    momentum = share(op, "momentum", momentum)
    if type(dampening) is not float or dampening != 0:
        dampening = real(op, "dampening", dampening)
    weight_decay = nonnegative(op, "weight_decay", weight_decay)
    if momentum != 0 and velocity is None:
        raise ValueError(f"[{op}] expected velocity, as momentum is {momentum}, got None")
    if flag(op, "nesterov", nesterov) and (momentum == 0 or dampening != 0):
        raise ValueError(
            f"[{op}] expected momentum above 0 and dampening 0 for nesterov, got {momentum} and {dampening}"
        )
    first = flag(op, "first", first)
    _f.sgd_update(param, grad, velocity, lr, momentum, dampening, weight_decay, bool(nesterov), first)


def adam_update(
    param: FloatArray,
    grad: FloatArray,
    exp_avg: FloatArray,
    exp_avg_sq: FloatArray,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = True,
) -> None:
    """Update param and both averages in place by Adam (Kingma & Ba 2015, arXiv 1412.6980).

    ``m = β₁m + (1 - β₁)g``, ``v = β₂v + (1 - β₂)g²``,
    ``param = param - lr/(1 - β₁ᵗ)·m/(√v/√(1 - β₂ᵗ) + eps)`` with t = step. Decay is taken off the
    parameter, ``param·(1 - lr·weight_decay)`` (Loshchilov & Hutter 2019, arXiv 1711.05101), or with
    decoupled=False added to the gradient.

    Parameters
    ----------
    param : ndarray
        float32 or float64, contiguous; changed in place.
    grad : ndarray
        Of the shape and dtype of param, any strides.
    exp_avg, exp_avg_sq : ndarray
        m and v, like param; changed in place. Zero before the first step.
    step : int
        t, counted from 1.
    lr : float
        Finite, not negative.
    betas : tuple of float, default (0.9, 0.999)
        Each in [0, 1).
    eps : float, default 1e-8
        Not negative.
    weight_decay : float, default 0.0
        Not negative.
    decoupled : bool, default True

    Raises
    ------
    TypeError
        If an array is no float32 or float64 array, dtypes differ or a number is none.
    ValueError
        If shapes differ, an array written in place is read-only, not contiguous or overlaps another,
        or a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> param, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    >>> adam_update(param, np.array([3.0]), m, v, step=1, lr=0.5, eps=0.0)
    >>> param.round(12).tolist()
    [0.5]
    """
    op = "adam_update"
    refuse_traced(op, _STEP, param, grad)
    step = integer(op, "step", step, at_least=1, bits=63)
    lr = nonnegative(op, "lr", lr)
    try:
        beta1, beta2 = betas
    except (TypeError, ValueError):
        raise TypeError(f"[{op}] expected betas to be a pair of numbers, got {betas!r}") from None
    beta1 = fraction(op, "betas[0]", beta1)
    beta2 = fraction(op, "betas[1]", beta2)
    eps = nonnegative(op, "eps", eps)
    weight_decay = nonnegative(op, "weight_decay", weight_decay)
    decoupled = flag(op, "decoupled", decoupled)
    _f.adam_update(param, grad, exp_avg, exp_avg_sq, step, lr, beta1, beta2, eps, weight_decay, decoupled)


def clip_grad_norm(grads: Iterable[FloatArray] | Mapping[str, FloatArray], max_norm: float) -> float:
    """Scale gradients in place so that their norm as one vector is at most max_norm.

    As ``torch.nn.utils.clip_grad_norm_``: every array is multiplied by ``max_norm/(norm + 1e-6)``
    where that is below 1.

    Parameters
    ----------
    grads : iterable of ndarray, or mapping of names to ndarray
        float32 or float64, contiguous and writeable.
    max_norm : float
        Not negative; infinity only measures.

    Returns
    -------
    float
        The norm before clipping.

    Raises
    ------
    TypeError
        If grads cannot be iterated over, or a gradient is no float32 or float64 array.
    ValueError
        If the norm of a gradient is not finite (the text names the array, nothing is scaled), an
        array is read-only, not contiguous or overlaps another, or max_norm is negative or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> grads = [np.array([3.0]), np.array([4.0])]
    >>> clip_grad_norm(grads, 10.0), clip_grad_norm(grads, 1.0)
    (5.0, 5.0)
    >>> grads[1].round(6).tolist()
    [0.8]
    """
    op = "clip_grad_norm"
    if isinstance(max_norm, bool) or not isinstance(max_norm, numbers.Real):
        raise TypeError(f"[{op}] expected max_norm to be a number >= 0, got {max_norm!r}")
    limit = float(max_norm)
    if math.isnan(limit) or limit < 0:
        raise ValueError(f"[{op}] expected max_norm to be a number >= 0, got {limit}")
    arrays: list[Any]
    if isinstance(grads, Mapping):
        names = [f"grads[{key!r}]" for key in grads]
        arrays = list(grads.values())
    else:
        if not isinstance(grads, Iterable):
            raise TypeError(
                f"[{op}] expected grads to be arrays or a mapping of them, got {type(grads).__name__}"
            )
        arrays = [grads] if isinstance(grads, ndarray) else list(grads)
        names = [f"grads[{i}]" for i in range(len(arrays))]
    return float(_f.clip_grad_norm(arrays, names, limit))

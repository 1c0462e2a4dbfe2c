"""Activations, elementwise, and their gradients."""

from __future__ import annotations

from typing import Any

from gvcore import _core
from gvcore._settings import choice, real
from gvcore.functional._tracing import FloatArray, ndarray, refuse_traced, traced_call

__all__ = [
    "activation_backward",
    "elu",
    "gelu",
    "leaky_relu",
    "relu",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "tanh",
]

_activation = _core.functional.activation
_backward = _core.functional.activation_backward


def _call(name: str, alpha: float, x: Any, out: Any, parameters: dict[str, Any], kernel: str = "") -> Any:
    if type(x) is not ndarray:
        traced = traced_call(name, (x,), {**parameters, "out": out})
        if traced is not NotImplemented:
            return traced
    return _activation(name, kernel or name, alpha, x, out)


def relu(x: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """Return ``max(x, 0)``; the derivative at 0 is 0, and NaN stays NaN.

    Parameters
    ----------
    x : ndarray
        float32 or float64, any shape.
    out : ndarray, optional
        Where to write the result: the shape and dtype of x, contiguous rows; may be x itself.

    Returns
    -------
    ndarray
        Of the shape and dtype of x.

    Raises
    ------
    TypeError
        If x or out is no array of float32 or float64, or their dtypes differ.
    ValueError
        If out has another shape, is read-only or overlaps x without being x.

    Examples
    --------
    >>> import numpy as np
    >>> relu(np.array([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 2.0]
    """
    return _call("relu", 0.0, x, out, {})  # type: ignore[no-any-return]


def leaky_relu(x: FloatArray, negative_slope: float = 0.01, *, out: FloatArray | None = None) -> FloatArray:
    """Return x where it is positive, ``negative_slope·x`` elsewhere.

    Parameters
    ----------
    x : ndarray
        float32 or float64, any shape.
    negative_slope : float, default 0.01
        A finite number; also the derivative at 0.
    out : ndarray, optional
        As in :func:`relu`; may be x itself.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError, ValueError
        As in :func:`relu`; ValueError also if negative_slope is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> leaky_relu(np.array([-4.0, 2.0]), negative_slope=0.25).tolist()
    [-1.0, 2.0]
    """
    slope = real("leaky_relu", "negative_slope", negative_slope)
    return _call("leaky_relu", slope, x, out, {"negative_slope": slope})  # type: ignore[no-any-return]


def elu(x: FloatArray, alpha: float = 1.0, *, out: FloatArray | None = None) -> FloatArray:
    """Return x where it is positive, ``alpha·(eˣ - 1)`` elsewhere (Clevert et al. 2016).

    Parameters
    ----------
    x : ndarray
        float32 or float64, any shape.
    alpha : float, default 1.0
        A finite number.
    out : ndarray, optional
        As in :func:`relu`; may be x itself.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError, ValueError
        As in :func:`relu`; ValueError also if alpha is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> elu(np.array([-np.inf, 0.0, 2.0]), alpha=0.5).tolist()
    [-0.5, 0.0, 2.0]
    """
    number = real("elu", "alpha", alpha)
    return _call("elu", number, x, out, {"alpha": number})  # type: ignore[no-any-return]


def selu(x: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """Return ``λ·x`` where x is positive, ``λ·α·(eˣ - 1)`` elsewhere (Klambauer et al. 2017).

    λ = 1.0507… and α = 1.6732… keep mean 0 and variance 1 from layer to layer.

    Parameters
    ----------
    x : ndarray
        float32 or float64, any shape.
    out : ndarray, optional
        As in :func:`relu`; may be x itself.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError, ValueError
        As in :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> selu(np.array([-np.inf, 0.0, 1.0])).round(4).tolist()
    [-1.7581, 0.0, 1.0507]
    """
    return _call("selu", 0.0, x, out, {})  # type: ignore[no-any-return]


def gelu(x: FloatArray, approximate: str = "none", *, out: FloatArray | None = None) -> FloatArray:
    """Return ``x·Φ(x)``, Φ the standard normal distribution (Hendrycks & Gimpel 2016).

    Parameters
    ----------
    x : ndarray
        float32 or float64, any shape.
    approximate : {"none", "tanh"}, default "none"
        "tanh" takes ``½x·(1 + tanh(√(2/π)·(x + 0.044715x³)))`` instead.
    out : ndarray, optional
        As in :func:`relu`; may be x itself.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError, ValueError
        As in :func:`relu`; ValueError also for another approximation.

    Examples
    --------
    >>> import numpy as np
    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(4).tolist()
    [-0.1587, 0.0, 0.8413]
    """
    kernel = gelu_kernel("gelu", approximate)
    return _call("gelu", 0.0, x, out, {"approximate": approximate}, kernel)  # type: ignore[no-any-return]


def silu(x: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """Return ``x·sigmoid(x)``, also called swish (Elfwing et al. 2018).

    Parameters
    ----------
    x : ndarray
        float32 or float64, any shape.
    out : ndarray, optional
        As in :func:`relu`; may be x itself.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError, ValueError
        As in :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> silu(np.array([0.0, 1.0])).round(4).tolist()
    [0.0, 0.7311]
    """
    return _call("silu", 0.0, x, out, {})  # type: ignore[no-any-return]


def softplus(x: FloatArray, beta: float = 1.0, *, out: FloatArray | None = None) -> FloatArray:
    """Return ``log(1 + e^(beta·x))/beta`` without overflow, at every x (no linear threshold).

    Parameters
    ----------
    x : ndarray
        float32 or float64, any shape.
    beta : float, default 1.0
        A finite number above 0.
    out : ndarray, optional
        As in :func:`relu`; may be x itself.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError, ValueError
        As in :func:`relu`; ValueError also if beta is not positive and finite.

    Examples
    --------
    >>> import numpy as np
    >>> softplus(np.array([0.0, 1000.0])).round(4).tolist()
    [0.6931, 1000.0]
    """
    number = real("softplus", "beta", beta, above=0)
    return _call("softplus", number, x, out, {"beta": number})  # type: ignore[no-any-return]


def tanh(x: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """Return the hyperbolic tangent.

    Parameters
    ----------
    x : ndarray
        float32 or float64, any shape.
    out : ndarray, optional
        As in :func:`relu`; may be x itself.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError, ValueError
        As in :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> tanh(np.array([0.0, 1000.0])).tolist()
    [0.0, 1.0]
    """
    return _call("tanh", 0.0, x, out, {})  # type: ignore[no-any-return]


def sigmoid(x: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """Return ``1/(1 + e^-x)``.

    Parameters
    ----------
    x : ndarray
        float32 or float64, any shape.
    out : ndarray, optional
        As in :func:`relu`; may be x itself.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError, ValueError
        As in :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return _call("sigmoid", 0.0, x, out, {})  # type: ignore[no-any-return]


def gelu_kernel(op: str, approximate: Any) -> str:
    """Return the name of the kernel that ``approximate=`` stands for."""
    return "gelu" if choice(op, "approximate", approximate, ("none", "tanh")) == "none" else "gelu_tanh"


_NAMES = ("relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "tanh", "sigmoid")
_PARAMETERS = {"leaky_relu": ("negative_slope", 0.01), "elu": ("alpha", 1.0), "softplus": ("beta", 1.0)}


def activation_backward(name: str, dy: FloatArray, x: FloatArray, **parameters: Any) -> FloatArray:
    """Return ``dy·f'(x)``, the gradient of an activation with respect to its input.

    Parameters
    ----------
    name : str
        The name of an activation of this module, such as "relu".
    dy : ndarray
        Gradient with respect to the result, of the shape and dtype of x.
    x : ndarray
        The input of the activation, not its result. float32 or float64.
    **parameters
        Those of the activation: negative_slope, alpha, beta or approximate.

    Returns
    -------
    ndarray
        Of the shape and dtype of x.

    Raises
    ------
    TypeError
        If an operand is no float32 or float64 array, dtypes differ, or the activation has no such
        parameter.
    ValueError
        If there is no such activation, the shapes differ or a parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> activation_backward("relu", np.array([5.0, 5.0]), np.array([0.0, 2.0])).tolist()
    [0.0, 5.0]
    """
    op = "activation_backward"
    choice(op, "name", name, _NAMES)
    refuse_traced(op, "TrainStep or value_and_grad, which differentiate the net", dy, x)
    kernel, alpha = name, 0.0
    if name == "gelu":
        kernel = gelu_kernel(op, parameters.pop("approximate", "none"))
    elif name in _PARAMETERS:
        parameter, default = _PARAMETERS[name]
        bound = 0.0 if name == "softplus" else None
        alpha = real(op, parameter, parameters.pop(parameter, default), above=bound)
    if parameters:
        raise TypeError(f"[{op}] expected only parameters of {name}, got {', '.join(parameters)}")
    return _backward(kernel, alpha, dy, x)  # type: ignore[no-any-return]

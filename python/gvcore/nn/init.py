"""Initialisers: how parameters get their first values.

An initialiser is a frozen value called as ``initialiser(out, seed=…, site=…)``: it fills `out` in place.
What it writes depends on the seed, the site (one number for each parameter of a net) and the shape
alone, so a net starts from the same bits on every machine. The classes carry lower-case names
because they are used as functions; random numbers come from Philox in C++.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from gvcore import _core
from gvcore._settings import choice, real
from gvcore.nn.householder import orthonormal

__all__ = [
    "Initialiser",
    "calculate_gain",
    "constant",
    "default_for",
    "get",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "ones",
    "orthogonal",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

_MODES = ("fan_in", "fan_out")
# Gains of PyTorch; the smooth and the leaky relatives of ReLU pass about as much as ReLU does.
_GAINS = {
    "identity": 1.0,
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "leaky_relu": math.sqrt(2.0),
    "elu": math.sqrt(2.0),
    "gelu": math.sqrt(2.0),
    "silu": math.sqrt(2.0),
    "softplus": math.sqrt(2.0),
    "selu": 0.75,
}


class Initialiser(Protocol):
    """Anything callable like this can be passed as ``init=``."""

    def __call__(self, out: NDArray[Any], *, seed: int, site: int) -> None:
        """Fill `out` (C-contiguous, float32 or float64) in place."""


def calculate_gain(nonlinearity: str, negative_slope: float = 0.0) -> float:
    r"""Return the factor that keeps the scale of a signal through an activation.

    1 for identity and sigmoid, 5/3 for tanh, 3/4 for selu, :math:`\sqrt{2 / (1 + a^2)}` for leaky_relu with
    slope a, :math:`\sqrt 2` for relu and its smooth relatives.

    Parameters
    ----------
    nonlinearity : str
        Name of an activation of ``gvcore.functional``, ``"identity"`` or ``"linear"``.
    negative_slope : float, default 0.0
        Slope a of leaky_relu; other activations ignore it.

    Raises
    ------
    ValueError
        If the name is not known.

    Examples
    --------
    >>> calculate_gain("relu") == 2**0.5
    True
    """
    gain = _GAINS[choice("init", "nonlinearity", nonlinearity, _GAINS)]
    slope = real("init", "negative_slope", negative_slope)
    return math.sqrt(2.0 / (1.0 + slope * slope)) if nonlinearity == "leaky_relu" else gain


def _fans(op: str, shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) < 2:
        raise ValueError(f"[{op}] expected a shape (fan_out, fan_in, ...), got {shape}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _fill_normal(out: NDArray[Any], seed: int, site: int, std: float) -> None:
    _core.normal(out, seed, site, 0.0, std)


def _fill_uniform(out: NDArray[Any], seed: int, site: int, std: float) -> None:
    bound = math.sqrt(3.0) * std  # the variance of a uniform number in [-b, b) is b²/3
    _core.uniform(out, seed, site, -bound, bound)


@dataclass(frozen=True)
class _Kaiming:
    nonlinearity: str = "relu"
    negative_slope: float = 0.0
    mode: str = "fan_in"

    def __post_init__(self) -> None:
        op = type(self).__name__
        choice(op, "nonlinearity", self.nonlinearity, _GAINS)
        choice(op, "mode", self.mode, _MODES)
        real(op, "negative_slope", self.negative_slope)

    def _std(self, shape: tuple[int, ...]) -> float:
        fan = _fans(type(self).__name__, shape)[_MODES.index(self.mode)]
        return calculate_gain(self.nonlinearity, self.negative_slope) / math.sqrt(max(fan, 1))


@dataclass(frozen=True)
class kaiming_normal(_Kaiming):
    r"""Normal numbers with standard deviation :math:`gain / \sqrt{fan}` (He initialisation).

    Parameters
    ----------
    nonlinearity : str, default "relu"
        The activation next to the layer, see `calculate_gain`.
    negative_slope : float, default 0.0
        Of leaky_relu.
    mode : {"fan_in", "fan_out"}, default "fan_in"
        Keep the scale of the activations, or that of the gradients.

    Raises
    ------
    ValueError
        When called on an array with fewer than two axes.

    References
    ----------
    K. He et al., "Delving Deep into Rectifiers", ICCV 2015, arXiv 1502.01852, equation 10.

    Examples
    --------
    >>> import numpy as np
    >>> weight = np.empty((256, 512), dtype=np.float32)
    >>> kaiming_normal()(weight, seed=0, site=0)
    >>> bool(abs(weight.std() * 512**0.5 - 2**0.5) < 0.02)
    True
    """

    def __call__(self, out: NDArray[Any], *, seed: int, site: int) -> None:
        _fill_normal(out, seed, site, self._std(out.shape))


@dataclass(frozen=True)
class kaiming_uniform(_Kaiming):
    r"""Uniform numbers in :math:`[-b, b)` with :math:`b = gain\,\sqrt{3 / fan}` (He initialisation).

    Parameters
    ----------
    nonlinearity, negative_slope, mode
        As in `kaiming_normal`.

    Raises
    ------
    ValueError
        When called on an array with fewer than two axes.

    References
    ----------
    K. He et al., "Delving Deep into Rectifiers", ICCV 2015, arXiv 1502.01852.

    Examples
    --------
    >>> import numpy as np
    >>> weight = np.empty((256, 384))
    >>> kaiming_uniform("identity")(weight, seed=0, site=0)
    >>> bool(abs(weight).max() <= (3 / 384) ** 0.5)
    True
    """

    def __call__(self, out: NDArray[Any], *, seed: int, site: int) -> None:
        _fill_uniform(out, seed, site, self._std(out.shape))


@dataclass(frozen=True)
class _Xavier:
    gain: float = 1.0

    def __post_init__(self) -> None:
        real(type(self).__name__, "gain", self.gain, at_least=0.0)

    def _std(self, shape: tuple[int, ...]) -> float:
        return self.gain * math.sqrt(2.0 / max(sum(_fans(type(self).__name__, shape)), 1))


@dataclass(frozen=True)
class xavier_normal(_Xavier):
    r"""Normal numbers with standard deviation :math:`gain\,\sqrt{2 / (fan_{in} + fan_{out})}` (Glorot).

    Parameters
    ----------
    gain : float, default 1.0
        At least 0.

    Raises
    ------
    ValueError
        When called on an array with fewer than two axes.

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010, equation 12.

    Examples
    --------
    >>> import numpy as np
    >>> weight = np.empty((256, 256))
    >>> xavier_normal()(weight, seed=0, site=0)
    >>> bool(abs(weight.std() * 16 - 1) < 0.02)
    True
    """

    def __call__(self, out: NDArray[Any], *, seed: int, site: int) -> None:
        _fill_normal(out, seed, site, self._std(out.shape))


@dataclass(frozen=True)
class xavier_uniform(_Xavier):
    r"""Uniform numbers in :math:`[-b, b)`, :math:`b = gain\,\sqrt{6 / (fan_{in} + fan_{out})}` (Glorot).

    Parameters
    ----------
    gain : float, default 1.0
        At least 0.

    Raises
    ------
    ValueError
        When called on an array with fewer than two axes.

    References
    ----------
    X. Glorot, Y. Bengio, AISTATS 2010, equation 16.

    Examples
    --------
    >>> import numpy as np
    >>> weight = np.empty((100, 200))
    >>> xavier_uniform()(weight, seed=0, site=0)
    >>> bool(abs(weight).max() <= 0.02**0.5)
    True
    """

    def __call__(self, out: NDArray[Any], *, seed: int, site: int) -> None:
        _fill_uniform(out, seed, site, self._std(out.shape))


@dataclass(frozen=True)
class lecun_normal:
    r"""Normal numbers with standard deviation :math:`1 / \sqrt{fan_{in}}`.

    Raises
    ------
    ValueError
        When called on an array with fewer than two axes.

    References
    ----------
    Y. LeCun et al., "Efficient BackProp", 1998, section 4.6; for SELU: G. Klambauer et al., NeurIPS 2017,
    arXiv 1706.02515.

    Examples
    --------
    >>> import numpy as np
    >>> weight = np.empty((256, 256))
    >>> lecun_normal()(weight, seed=0, site=0)
    >>> bool(abs(weight.std() * 16 - 1) < 0.02)
    True
    """

    def __call__(self, out: NDArray[Any], *, seed: int, site: int) -> None:
        fan_in, _ = _fans("lecun_normal", out.shape)
        _fill_normal(out, seed, site, 1.0 / math.sqrt(max(fan_in, 1)))


@dataclass(frozen=True)
class orthogonal:
    r"""A random orthogonal matrix times `gain`, uniform over all such matrices.

    :math:`W W^\top = gain^2 I`, or :math:`W^\top W = gain^2 I` if taller than wide. Axes after the first are
    taken as one.

    Parameters
    ----------
    gain : float, default 1.0
        At least 0.

    Raises
    ------
    ValueError
        When called on an array with fewer than two axes.

    Notes
    -----
    The Q of a Householder QR of a normal matrix, the diagonal of R made positive, in double and with
    a fixed order of every sum: a LAPACK would give other bits on another processor.

    References
    ----------
    A. M. Saxe et al., ICLR 2014, arXiv 1312.6120; F. Mezzadri, "How to generate random matrices from the
    classical compact groups", Notices of the AMS 54 (2007).

    Examples
    --------
    >>> import numpy as np
    >>> weight = np.empty((3, 5))
    >>> orthogonal()(weight, seed=0, site=0)
    >>> np.allclose(weight @ weight.T, np.eye(3))
    True
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        real("orthogonal", "gain", self.gain, at_least=0.0)

    def __call__(self, out: NDArray[Any], *, seed: int, site: int) -> None:
        _fans("orthogonal", out.shape)
        rows, columns = out.shape[0], math.prod(out.shape[1:])
        drawn = np.empty((max(rows, columns), min(rows, columns)))
        if drawn.size:
            _core.normal(drawn, seed, site, 0.0, 1.0)
            q = orthonormal(drawn)
            out[...] = (self.gain * (q if rows >= columns else q.T)).reshape(out.shape)


@dataclass(frozen=True)
class constant:
    """The same number everywhere.

    Parameters
    ----------
    value : float
        Finite.

    Examples
    --------
    >>> import numpy as np
    >>> bias = np.empty(2, dtype=np.float32)
    >>> constant(0.5)(bias, seed=0, site=0)
    >>> bias
    array([0.5, 0.5], dtype=float32)
    """

    value: float

    def __post_init__(self) -> None:
        real("constant", "value", self.value)

    def __call__(self, out: NDArray[Any], *, seed: int, site: int) -> None:
        out[...] = self.value


@dataclass(frozen=True)
class zeros:
    """Zero everywhere.

    Examples
    --------
    >>> import numpy as np
    >>> bias = np.empty(2)
    >>> zeros()(bias, seed=0, site=0)
    >>> bias
    array([0., 0.])
    """

    def __call__(self, out: NDArray[Any], *, seed: int, site: int) -> None:
        out[...] = 0.0


@dataclass(frozen=True)
class ones:
    """One everywhere.

    Examples
    --------
    >>> import numpy as np
    >>> gamma = np.empty(2)
    >>> ones()(gamma, seed=0, site=0)
    >>> gamma
    array([1., 1.])
    """

    def __call__(self, out: NDArray[Any], *, seed: int, site: int) -> None:
        out[...] = 1.0


_BY_NAME: dict[str, Callable[[], Initialiser]] = {
    "kaiming_normal": kaiming_normal,
    "kaiming_uniform": kaiming_uniform,
    "xavier_normal": xavier_normal,
    "xavier_uniform": xavier_uniform,
    "lecun_normal": lecun_normal,
    "orthogonal": orthogonal,
    "zeros": zeros,
    "ones": ones,
}


def get(init: str | Initialiser | Callable[[], Initialiser]) -> Initialiser:
    """Return the initialiser that ``init=`` stands for.

    Parameters
    ----------
    init : str, initialiser, or one of this module's classes
        A name (``"kaiming_normal"``) and a class (``kaiming_normal``) stand for their defaults; any
        other callable is returned as it is.

    Raises
    ------
    TypeError
        If `init` is neither a string nor callable, or is `constant` without its value.
    ValueError
        If the name is not known.

    Examples
    --------
    >>> get("lecun_normal")
    lecun_normal()
    >>> get(orthogonal)
    orthogonal(gain=1.0)
    """
    if isinstance(init, str):
        return _BY_NAME[choice("init", "init", init, _BY_NAME)]()
    for known in _BY_NAME.values():
        if known is init:
            return known()
    if isinstance(init, type) or not callable(init):
        raise TypeError(f"[init] expected a name or an initialiser, got {init!r}")
    given: Any = init
    return cast(Initialiser, given)


def default_for(activation: str | None) -> Initialiser:
    r"""Return the initialiser that a ``Linear`` uses when it is not told another.

    Parameters
    ----------
    activation : str or None
        The activation that follows the layer; None when there is none.

    Returns
    -------
    initialiser
        He normal (`kaiming_normal`, fan_in, gain :math:`\sqrt 2`) before relu, leaky_relu, elu, gelu, silu
        and softplus; `xavier_normal` before tanh and sigmoid; `lecun_normal` before selu or nothing.

    Raises
    ------
    ValueError
        If the name is not known.

    Examples
    --------
    >>> default_for("relu")
    kaiming_normal(nonlinearity='relu', negative_slope=0.0, mode='fan_in')
    >>> default_for(None)
    lecun_normal()
    """
    if activation is None:
        return lecun_normal()
    if choice("init", "activation", activation, _GAINS) in ("identity", "linear", "selu"):
        return lecun_normal()
    return xavier_normal() if activation in ("tanh", "sigmoid") else kaiming_normal()

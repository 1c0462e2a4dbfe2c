"""Layers: the modules that do one thing."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from gvcore._settings import boolean, integer, real
from gvcore.functional.activations import gelu_kernel
from gvcore.nn import init as initialisers
from gvcore.nn.module import Module
from gvcore.nn.parameter import Parameter
from gvcore.nn.trace import Value, activate

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "BatchNorm",
    "Dropout",
    "Flatten",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Tanh",
]


class Linear(Module):
    r"""Affine map of the last axis: :math:`y = x W^\top + b`.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of x and y; up to three axes may stand between it and the
        batch.
    bias : bool, default True
        Whether there is a b; it starts at 0.
    init : str or callable, optional
        First values of the weight, see `gvcore.nn.init`. By default what suits the activation that
        follows in a `Sequential` or `Residual`: He normal before the ReLU family and where nothing is
        known, Xavier before tanh and sigmoid, LeCun before SELU.
    seed : int, numpy.random.SeedSequence or None
        Of the first values.

    Attributes
    ----------
    weight : Parameter of shape (out_features, in_features)
    bias : Parameter of shape (out_features,), or None

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range; the seed when the values are first
        looked at. In forward, if the last axis of x is not of size `in_features`.

    Examples
    --------
    >>> import numpy as np
    >>> Linear(3, 2, seed=0)(np.zeros((4, 3)))
    array([[0., 0.],
           [0., 0.],
           [0., 0.],
           [0., 0.]], dtype=float32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        init: Any = None,
        seed: int | np.random.SeedSequence | None = None,
    ) -> None:
        self.in_features = integer("Linear", "in_features", in_features, at_least=1, bits=63)
        self.out_features = integer("Linear", "out_features", out_features, at_least=1, bits=63)
        self._chosen = init is not None
        fill = initialisers.get(init) if init is not None else initialisers.default_for("relu")
        self.weight = Parameter(shape=(self.out_features, self.in_features), init=fill, seed=seed, site=0)
        self.bias = (
            Parameter(shape=(self.out_features,), init=initialisers.zeros(), seed=0, site=1)
            if boolean("Linear", "bias", bias)
            else None
        )

    def suit(self, activation: str | None) -> None:
        """Start from what suits the activation that follows, unless the user chose."""
        if not self._chosen:
            self.weight.suit(initialisers.default_for(activation))

    def forward(self, x: Value) -> Value:
        t = x.trace
        return x.new(t.graph.linear(x.node, t.parameter(self.weight), t.optional(self.bias)))

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")


class BatchNorm(Module):
    r"""Batch normalisation of the last axis over all others (Ioffe & Szegedy 2015, arXiv 1502.03167).

    .. math:: y = \frac{x - \mathrm{E}[x]}{\sqrt{\mathrm{Var}[x] + \epsilon}}\,\gamma + \beta

    In training with the mean and the population variance of the batch, at inference with running ones:
    :math:`r \leftarrow (1 - m)\,r + m\,b`, where the variance b is the unbiased one.

    Parameters
    ----------
    num_features : int
        Size of the last axis.
    eps : float, default 1e-5
    momentum : float, default 0.1
        m in [0, 1].
    affine : bool, default True
        Whether gamma (``weight``, starts at 1) and beta (``bias``, starts at 0) are learned.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range. In forward, if the last axis of x is
        not of size `num_features`; in training, if a batch has a single row.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True
    ) -> None:
        self.num_features = integer("BatchNorm", "num_features", num_features, at_least=1, bits=63)
        self.eps = real("BatchNorm", "eps", eps, above=0.0)
        self.momentum = real("BatchNorm", "momentum", momentum, at_least=0.0, at_most=1.0)
        self.affine = boolean("BatchNorm", "affine", affine)
        n = (self.num_features,)
        self.weight = Parameter(shape=n, init=initialisers.ones(), seed=0) if affine else None
        self.bias = Parameter(shape=n, init=initialisers.zeros(), seed=0, site=1) if affine else None
        self.register_buffer("running_mean", np.zeros(n, np.float32))
        self.register_buffer("running_var", np.ones(n, np.float32))

    def reset_buffers(self) -> None:
        self.buffer("running_mean")[...] = 0
        self.buffer("running_var")[...] = 1

    def forward(self, x: Value) -> Value:
        t, node = x.trace, x.node
        mean, var = t.buffer(self, "running_mean"), t.buffer(self, "running_var")
        gamma, beta = t.optional(self.weight), t.optional(self.bias)
        if self.affine is False and x.trailing[-1:] != (self.num_features,):
            raise ValueError(f"[batch_norm] expected x with {self.num_features} features, got {x.shape!r}")
        return x.new(t.graph.batchnorm(node, gamma, beta, mean, var, self.eps, self.momentum))

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps:g}, momentum={self.momentum:g}" + (
            "" if self.affine else ", affine=False"
        )


class LayerNorm(Module):
    r"""Layer normalisation of each row over the last axis (Ba, Kiros, Hinton 2016, arXiv 1607.06450).

    :math:`y = (x - \mathrm{E}[x]) / \sqrt{\mathrm{Var}[x] + \epsilon} \cdot \gamma + \beta`

    Parameters
    ----------
    num_features : int
        Size of the last axis.
    eps : float, default 1e-5
    affine : bool, default True
        Whether gamma (``weight``) and beta (``bias``) are learned.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range. In forward, if the last axis of x is
        not of size `num_features`.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = True) -> None:
        self.num_features = integer("LayerNorm", "num_features", num_features, at_least=1, bits=63)
        self.eps = real("LayerNorm", "eps", eps, above=0.0)
        self.affine = boolean("LayerNorm", "affine", affine)
        n = (self.num_features,)
        self.weight = Parameter(shape=n, init=initialisers.ones(), seed=0) if affine else None
        self.bias = Parameter(shape=n, init=initialisers.zeros(), seed=0, site=1) if affine else None

    def forward(self, x: Value) -> Value:
        if x.trailing[-1:] != (self.num_features,):
            raise ValueError(
                f"[layer_norm] expected x of shape (batch, …, {self.num_features}), got {x.shape!r}"
            )
        t = x.trace
        return x.new(t.graph.layernorm(x.node, t.optional(self.weight), t.optional(self.bias), self.eps))

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps:g}" + ("" if self.affine else ", affine=False")


class Dropout(Module):
    r"""Set elements to 0 with probability p in training, and divide the others by 1 - p.

    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014.

    The mask is a function of seed, step and the element's place in the batch: it is the same on any number
    of threads.

    Parameters
    ----------
    p : float, default 0.5
        In [0, 1).

    Raises
    ------
    TypeError, ValueError
        If p is not a number, or not in [0, 1).
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = real("Dropout", "p", p, at_least=0.0, below=1.0)

    def forward(self, x: Value) -> Value:
        return x.new(x.trace.graph.dropout(x.node, self.p))

    def extra_repr(self) -> str:
        return f"{self.p:g}"


class Flatten(Module):
    """Join the axes behind the batch into one: (batch, a, b) becomes (batch, a·b)."""

    def forward(self, x: Value) -> Value:
        return x.new(x.trace.graph.reshape(x.node, [math.prod(x.trailing)]))


class Identity(Module):
    """Return the input."""

    def forward(self, x: Value) -> Value:
        return x


class Activation(Module):
    """What the activations share: a name, and at most one number."""

    kind: ClassVar[str] = ""

    def forward(self, x: Value) -> Value:
        return activate(x, self.kind, self._value())

    def _value(self) -> float:
        return 0.0


class ReLU(Activation):
    r""":math:`\max(x, 0)`; the derivative at 0 is 0."""

    kind = "relu"


class LeakyReLU(Activation):
    r""":math:`x` for x > 0, else :math:`a x` (Maas et al. 2013).

    Parameters
    ----------
    negative_slope : float, default 0.01
        a.

    Raises
    ------
    TypeError, ValueError
        If `negative_slope` is not a number, or not finite.
    """

    kind = "leaky_relu"

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = real("LeakyReLU", "negative_slope", negative_slope)

    def _value(self) -> float:
        return self.negative_slope

    def extra_repr(self) -> str:
        return f"{self.negative_slope:g}"


class ELU(Activation):
    r""":math:`x` for x > 0, else :math:`\alpha(e^x - 1)` (Clevert et al. 2016, arXiv 1511.07289).

    Parameters
    ----------
    alpha : float, default 1.0

    Raises
    ------
    TypeError, ValueError
        If `alpha` is not a number, or not finite.
    """

    kind = "elu"

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = real("ELU", "alpha", alpha)

    def _value(self) -> float:
        return self.alpha

    def extra_repr(self) -> str:
        return f"{self.alpha:g}"


class SELU(Activation):
    """Scaled ELU with the constants of Klambauer et al. 2017 (arXiv 1706.02515)."""

    kind = "selu"


class GELU(Activation):
    r""":math:`x\,\Phi(x)`, or its approximation by tanh (Hendrycks & Gimpel 2016, arXiv 1606.08415).

    Parameters
    ----------
    approximate : {"none", "tanh"}, default "none"

    Raises
    ------
    TypeError, ValueError
        If `approximate` is no string, or neither.
    """

    def __init__(self, approximate: str = "none") -> None:
        gelu_kernel("GELU", approximate)
        self.approximate = approximate

    def forward(self, x: Value) -> Value:
        return activate(x, gelu_kernel("GELU", self.approximate))

    def extra_repr(self) -> str:
        return "" if self.approximate == "none" else repr(self.approximate)


class SiLU(Activation):
    r""":math:`x\,\sigma(x)`, also called swish (Elfwing et al. 2018)."""

    kind = "silu"


class Softplus(Activation):
    r""":math:`\log(1 + e^{\beta x}) / \beta`.

    Parameters
    ----------
    beta : float, default 1.0
        Above 0.

    Raises
    ------
    TypeError, ValueError
        If `beta` is not a number, or not finite and above 0.
    """

    kind = "softplus"

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = real("Softplus", "beta", beta, above=0.0)

    def _value(self) -> float:
        return self.beta

    def extra_repr(self) -> str:
        return f"{self.beta:g}"


class Tanh(Activation):
    r""":math:`\tanh x`."""

    kind = "tanh"


class Sigmoid(Activation):
    r""":math:`\sigma(x) = 1 / (1 + e^{-x})`."""

    kind = "sigmoid"

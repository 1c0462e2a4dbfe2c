"""Ready-made networks: plain and residual perceptrons, and a residual net for tables.

Compositions of ``gvcore.nn`` modules and nothing more: each function returns a ``Sequential`` whose layers
can be inspected, changed and trained like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gvcore import nn
from gvcore._settings import boolean, choice, integer, real
from gvcore.seeding import as_seed

__all__ = ["mlp", "resnet", "tabular_resnet"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def _finish(layers: Sequence[nn.Module], seed: int | np.random.SeedSequence | None) -> nn.Sequential:
    net = nn.Sequential(*layers)
    net.reset_parameters(as_seed(seed))
    return net


def _dropout(p: float) -> list[nn.Module]:
    return [nn.Dropout(p)] if p > 0.0 else []


def _norm(width: int, batch_norm: bool) -> list[nn.Module]:
    return [nn.BatchNorm(width)] if batch_norm else []


def mlp(
    in_features: int,
    out_features: int,
    hidden: int | Sequence[int],
    *,
    activation: str = "relu",
    batch_norm: bool = False,
    residual: bool = False,
    dropout: float = 0.0,
    seed: int | np.random.SeedSequence | None = None,
) -> nn.Sequential:
    r"""Build a multilayer perceptron.

    Every hidden layer is :math:`h = D(\phi(N(W x + b)))`: linear, batch norm if asked for, activation,
    dropout if asked for. The last layer is linear.

    Parameters
    ----------
    in_features, out_features : int
        At least 1.
    hidden : int or sequence of int
        Widths of the hidden layers, first to last; may be empty.
    activation : str, default "relu"
        :math:`\phi`: relu, leaky_relu, elu, selu, gelu, silu, softplus, tanh, sigmoid or identity.
    batch_norm : bool, default False
        Normalise before the activation; the linear layer then has no bias, which N would cancel.
    residual : bool, default False
        :math:`h = x + D(\phi(N(W x + b)))` in every hidden layer but the first, where the width stays
        the same; a layer that changes the width has no skip.
    dropout : float, default 0.0
        Probability of dropping a value, in [0, 1).
    seed : int, numpy.random.SeedSequence or None
        Of the first values, see `gvcore.nn.init.default_for`.

    Returns
    -------
    Sequential
        Takes (batch, in_features), returns (batch, out_features).

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range.

    Examples
    --------
    >>> mlp(64, 10, [128, 128], seed=0).num_parameters()
    26122
    """
    in_features = integer("mlp", "in_features", in_features, at_least=1)
    out_features = integer("mlp", "out_features", out_features, at_least=1)
    if isinstance(hidden, (str, bytes)):
        raise TypeError(f"[mlp] expected hidden to be a sequence of integers, got {hidden!r}")
    given = hidden if isinstance(hidden, (Sequence, np.ndarray)) else (hidden,)
    widths = [integer("mlp", f"hidden[{i}]", width, at_least=1) for i, width in enumerate(given)]
    choice("mlp", "activation", activation, _ACTIVATIONS)
    batch_norm = boolean("mlp", "batch_norm", batch_norm)
    residual = boolean("mlp", "residual", residual)
    dropout = real("mlp", "dropout", dropout, at_least=0.0, below=1.0)

    layers: list[nn.Module] = []
    previous = in_features
    for i, width in enumerate(widths):
        layer = [
            nn.Linear(previous, width, bias=not batch_norm, init=nn.init.default_for(activation)),
            *_norm(width, batch_norm),
            _ACTIVATIONS[activation](),
            *_dropout(dropout),
        ]
        layers += [nn.Residual(*layer)] if residual and i > 0 and width == previous else layer
        previous = width
    layers.append(nn.Linear(previous, out_features, init=nn.init.default_for(None)))
    return _finish(layers, seed)


def resnet(
    in_features: int,
    out_features: int,
    *,
    width: int = 128,
    depth: int = 20,
    seed: int | np.random.SeedSequence | None = None,
    activation: str = "relu",
    dropout: float = 0.0,
    batch_norm: bool = True,
) -> nn.Sequential:
    r"""Build a residual network of pre-activation blocks.

    A linear layer to `width`, then blocks

    .. math:: x \leftarrow x + W_2\, D(\phi(N_2(W_1\, \phi(N_1(x)))))

    then batch norm, activation and a linear layer to `out_features`.

    Parameters
    ----------
    in_features, out_features : int
        At least 1.
    width : int, default 128
        Of every block.
    depth : int, default 20
        Number of linear layers, the first and the last included: ``(depth - 2) // 2`` blocks of two
        layers, so that an odd depth is rounded down to the even one below. At least 2.
    seed : int, numpy.random.SeedSequence or None
        Of the first values.
    activation : str, default "relu"
        :math:`\phi`, as in `mlp`.
    dropout : float, default 0.0
        Probability of dropping a value between the two layers of a block, in [0, 1).
    batch_norm : bool, default True
        Without it the linear layers have biases, and each block's second layer starts from zero, so that
        every block starts as the identity: the signal would otherwise double its variance in each.
        With it only the last layer has a bias, the others would be cancelled.

    Returns
    -------
    Sequential
        Takes (batch, in_features), returns (batch, out_features).

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range.

    References
    ----------
    K. He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016, arXiv 1603.05027; for the start
    without batch norm: H. Zhang et al., "Fixup Initialization", ICLR 2019, arXiv 1901.09321.

    Examples
    --------
    >>> resnet(64, 10, width=32, depth=6, seed=0).num_parameters()
    6794
    """
    in_features = integer("resnet", "in_features", in_features, at_least=1)
    out_features = integer("resnet", "out_features", out_features, at_least=1)
    width = integer("resnet", "width", width, at_least=1)
    depth = integer("resnet", "depth", depth, at_least=2)
    choice("resnet", "activation", activation, _ACTIVATIONS)
    dropout = real("resnet", "dropout", dropout, at_least=0.0, below=1.0)
    batch_norm = boolean("resnet", "batch_norm", batch_norm)
    make, bias = _ACTIVATIONS[activation], not batch_norm
    # Inside a block a layer's input has been activated, which is what this scale makes up for.
    inner = nn.init.default_for(activation)

    layers: list[nn.Module] = [nn.Linear(in_features, width, bias=bias, init=nn.init.default_for(None))]
    for _ in range((depth - 2) // 2):
        layers.append(
            nn.Residual(
                *_norm(width, batch_norm),
                make(),
                nn.Linear(width, width, bias=bias, init=inner),
                *_norm(width, batch_norm),
                make(),
                *_dropout(dropout),
                nn.Linear(width, width, bias=bias, init=inner if batch_norm else nn.init.zeros()),
            )
        )
    layers += [*_norm(width, batch_norm), make()]
    layers.append(nn.Linear(width, out_features, init=nn.init.default_for(None)))
    return _finish(layers, seed)


def tabular_resnet(
    in_features: int,
    out_features: int,
    *,
    d: int = 168,
    hidden: int = 501,
    n_blocks: int = 3,
    dropout_first: float = 0.2,
    dropout_second: float = 0.0,
    seed: int | np.random.SeedSequence | None = None,
) -> nn.Sequential:
    r"""Build the residual network for tabular data of Gorishniy et al.

    A linear layer to `d`, then blocks

    .. math:: x \leftarrow x + D_2(W_2\, D_1(\mathrm{ReLU}(W_1\, \mathrm{BatchNorm}(x) + b_1)) + b_2)

    then batch norm, ReLU and a linear layer to `out_features`. All linear layers have biases, as in the
    paper.

    Parameters
    ----------
    in_features, out_features : int
        At least 1.
    d : int, default 168
        Width of the blocks' inputs and outputs.
    hidden : int, default 501
        Width inside the blocks.
    n_blocks : int, default 3
        Number of blocks.
    dropout_first : float, default 0.2
        Probability of dropping a value after ReLU, in [0, 1).
    dropout_second : float, default 0.0
        Probability of dropping a value at the end of a block, in [0, 1).
    seed : int, numpy.random.SeedSequence or None
        Of the first values.

    Returns
    -------
    Sequential
        Takes (batch, in_features), returns (batch, out_features).

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range.

    References
    ----------
    Y. Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021,
    arXiv 2106.11959, section 3.2.

    Examples
    --------
    >>> tabular_resnet(8, 1, seed=0).num_parameters()
    510040
    """
    op = "tabular_resnet"
    in_features = integer(op, "in_features", in_features, at_least=1)
    out_features = integer(op, "out_features", out_features, at_least=1)
    d = integer(op, "d", d, at_least=1)
    hidden = integer(op, "hidden", hidden, at_least=1)
    n_blocks = integer(op, "n_blocks", n_blocks)
    dropout_first = real(op, "dropout_first", dropout_first, at_least=0.0, below=1.0)
    dropout_second = real(op, "dropout_second", dropout_second, at_least=0.0, below=1.0)

    layers: list[nn.Module] = [nn.Linear(in_features, d, init=nn.init.default_for(None))]
    for _ in range(n_blocks):
        layers.append(
            nn.Residual(
                nn.BatchNorm(d),
                nn.Linear(d, hidden, init=nn.init.default_for("relu")),
                nn.ReLU(),
                *_dropout(dropout_first),
                nn.Linear(hidden, d, init=nn.init.default_for(None)),
                *_dropout(dropout_second),
            )
        )
    layers += [nn.BatchNorm(d), nn.ReLU(), nn.Linear(d, out_features, init=nn.init.default_for(None))]
    return _finish(layers, seed)

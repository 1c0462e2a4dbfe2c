"""Containers: modules made of other modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gvcore.nn.layers import GELU, Activation, BatchNorm, Dropout, Identity, LayerNorm, Linear
from gvcore.nn.module import Module
from gvcore.nn.trace import Value

__all__ = ["ModuleList", "Residual", "Sequential"]


def _suit(layers: Iterable[Module], last: Module | None = None) -> None:
    """Tell each linear layer which activation follows it, so that its first values suit."""
    waiting: Linear | None = None
    for layer in [*layers, *([last] if last is not None else [])]:
        if isinstance(layer, Linear):
            if waiting is not None:
                waiting.suit(None)
            waiting = layer
        elif isinstance(layer, Activation) and waiting is not None:
            waiting.suit("gelu" if isinstance(layer, GELU) else layer.kind)
            waiting = None
        elif not isinstance(layer, (BatchNorm, LayerNorm, Dropout, Identity)):
            waiting = None


class ModuleList(Module):
    """A list of modules whose parameters belong to the net; indexed, iterated and appended to like a list.

    Parameters
    ----------
    modules : iterable of Module

    Raises
    ------
    TypeError
        If one of them is no module, here and in `append`; if the list itself is called.
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self._extend(modules)

    def _extend(self, modules: Iterable[Any]) -> None:
        for place, module in enumerate(modules, start=len(self)):
            if not isinstance(module, Module):
                raise TypeError(f"[{type(self).__name__}] expected modules, got {type(module).__name__}")
            setattr(self, str(place), module)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end; returns the list."""
        self._extend([module])
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return iter([module for _, module in self.children()])

    def __getitem__(self, index: int) -> Module:
        return [module for _, module in self.children()][index]

    def forward(self, *inputs: Any) -> Any:
        raise TypeError(
            "[ModuleList] a list of modules cannot be called; call its modules, or use nn.Sequential"
        )


class Sequential(ModuleList):
    """Modules one after the other; names are ``0``, ``1``, …

    Parameters
    ----------
    *layers : Module
        In order; a single list or tuple of modules does as well.

    Raises
    ------
    TypeError
        If one of them is no module.

    Examples
    --------
    >>> from gvcore import nn
    >>> list(Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).parameters())
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """

    def __init__(self, *layers: Module | Sequence[Module]) -> None:
        given = layers[0] if len(layers) == 1 and isinstance(layers[0], (list, tuple)) else layers
        self._extend(given)
        _suit(self)

    def append(self, module: Module) -> Sequential:
        """Add a module at the end; returns the net. A `Linear` before it starts from what suits it."""
        super().append(module)
        _suit(self)
        return self

    def forward(self, x: Any) -> Any:
        for layer in self.__dict__.values():
            if isinstance(layer, Module):
                x = layer(x)
        return x


class Residual(Module):
    """A residual connection: ``activation(shortcut(x) + layers(x))`` (He et al. 2015, arXiv 1512.03385).

    Parameters
    ----------
    *layers : Module
        The branch; its parameters are named ``layers.0.…``.
    shortcut : Module, optional
        In place of the identity, for example a `Linear` where the width changes; named ``shortcut.…``.
    activation : Module, optional
        Applied to the sum.

    Raises
    ------
    TypeError
        If a layer, `shortcut` or `activation` is no module.
    ValueError
        In forward, if the branch and the shortcut are of shapes that do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from gvcore import nn
    >>> Residual(nn.Linear(3, 3, init="zeros"))(np.ones((1, 3)))
    array([[1., 1., 1.]], dtype=float32)
    """

    def __init__(
        self, *layers: Module, shortcut: Module | None = None, activation: Module | None = None
    ) -> None:
        self.layers = Sequential(*layers)
        for name, module in (("shortcut", shortcut), ("activation", activation)):
            if module is not None and not isinstance(module, Module):
                raise TypeError(f"[Residual] expected {name} to be a module, got {type(module).__name__}")
        self.shortcut = shortcut
        self.activation = activation
        if len(self.layers) and isinstance(self.layers[-1], Linear):
            _suit(self.layers, activation)

    def forward(self, x: Value) -> Value:
        kept = x if self.shortcut is None else self.shortcut(x)
        result: Value = kept + self.layers(x)
        return result if self.activation is None else self.activation(result)

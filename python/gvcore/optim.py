"""Settings of the optimisers: what to do in an update, not the update itself.

An object here is a frozen value, and may be shared by any number of nets: momentum and moments live
in the training step, and the arithmetic is ``gvcore.functional.sgd_update`` and ``adam_update``.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gvcore._settings import boolean, real, returned
from gvcore.schedules import Schedule

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]

_GROUP_KEYS = ("match", "weight_decay", "lr_scale")
_Self = TypeVar("_Self", bound="Optimizer")


class Optimizer:
    """What all optimisers share: the rate of a step, and which parameters are treated differently."""

    lr: float | Callable[[int], float]
    weight_decay: float
    groups: Sequence[Mapping[str, Any]]

    def lr_at(self, step: int) -> float:
        """Return the learning rate of `step` (0 is the first).

        Parameters
        ----------
        step : int
            How many updates came before.

        Returns
        -------
        float
            Finite and >= 0.

        Raises
        ------
        TypeError
            If a schedule returns anything but a number.
        ValueError
            If a schedule returns NaN, infinity or a negative rate, or does not know its length.

        Examples
        --------
        >>> from gvcore import schedules
        >>> SGD(lr=schedules.linear(1.0, 4)).lr_at(1)
        0.75
        """
        if isinstance(self.lr, float):
            return self.lr
        op = type(self).__name__
        rate = returned(op, f"the schedule to return a number at step {step}", self.lr(step))
        if not (math.isfinite(rate) and rate >= 0.0):
            raise ValueError(
                f"[{op}] expected the schedule to give a finite number >= 0, got {rate!r} at step {step}"
            )
        return rate

    @property
    def needs_total_steps(self) -> bool:
        """True while the schedule waits for the length of training."""
        return isinstance(self.lr, Schedule) and self.lr.needs_total_steps

    def with_total_steps(self: _Self, total_steps: int) -> _Self:
        """Return these settings with the length of training filled into the schedule, if it waits for it.

        Parameters
        ----------
        total_steps : int
            Number of updates of the whole training run, at least 1.

        Returns
        -------
        SGD, Adam or AdamW
            New settings, or these if nothing was left open.

        Raises
        ------
        TypeError, ValueError
            If the schedule waits for a length that `total_steps` cannot be, see
            `Schedule.with_total_steps`.

        Examples
        --------
        >>> from gvcore import schedules
        >>> SGD(lr=schedules.cosine(0.1)).with_total_steps(100).lr_at(50)
        0.05
        """
        if not (isinstance(self.lr, Schedule) and self.lr.needs_total_steps):
            return self
        filled: _Self = dataclasses.replace(
            self,
            lr=self.lr.with_total_steps(total_steps),  # type: ignore[type-var]
        )
        return filled

    def resolve(self, names: Iterable[str | Sequence[str]]) -> list[tuple[float, float]]:
        """Say how each parameter is treated, once `groups` have been applied.

        A group matches whole dotted names by shell patterns (``*`` also crosses dots, case counts). For
        each of the two settings the last matching group that mentions it wins.

        Parameters
        ----------
        names : iterable of str, or of sequences of str
            Dotted parameter names, such as ``"0.weight"``; of one with several names a match of any will do.

        Returns
        -------
        list of (lr_scale, weight_decay)
            In the order of `names`.

        Raises
        ------
        ValueError
            If a pattern matches no name.

        Examples
        --------
        >>> settings = SGD(lr=0.1, weight_decay=1e-4, groups=[{"match": "*.bias", "weight_decay": 0.0}])
        >>> settings.resolve(["0.weight", "0.bias"])
        [(1.0, 0.0001), (1.0, 0.0)]
        """
        each = [(name,) if isinstance(name, str) else tuple(name) for name in names]
        resolved = [(1.0, self.weight_decay)] * len(each)
        for i, group in enumerate(self.groups):
            matched = [
                k for k, own in enumerate(each) if any(fnmatch.fnmatchcase(n, group["match"]) for n in own)
            ]
            if not matched:
                shown = ", ".join(own[0] for own in each[:6]) + (", …" if len(each) > 6 else "")
                raise ValueError(
                    f"[{type(self).__name__}] expected groups[{i}] to match a parameter, got the pattern "
                    f"{group['match']!r} and the names {shown or '(none)'}"
                )
            for k in matched:
                lr_scale, weight_decay = resolved[k]
                resolved[k] = (group.get("lr_scale", lr_scale), group.get("weight_decay", weight_decay))
        return resolved

    def native(self) -> dict[str, Any]:
        """Return the rule and its constants, without rate and groups, as a plain dict."""
        raise NotImplementedError

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the dataclasses are frozen; only __post_init__ comes here

    def _check(self) -> None:
        op = type(self).__name__
        if isinstance(self.lr, numbers.Real) or not callable(self.lr):
            self._set("lr", real(op, "lr", self.lr, at_least=0.0, otherwise=" or a schedule"))
        self._set("weight_decay", real(op, "weight_decay", self.weight_decay, at_least=0.0))
        if isinstance(self.groups, (str, bytes, Mapping)) or not isinstance(self.groups, Iterable):
            raise TypeError(f"[{op}] expected groups to be a list of dicts, got {self.groups!r}")
        self._set("groups", tuple(_group(op, f"groups[{i}]", g) for i, g in enumerate(self.groups)))


def _group(op: str, name: str, group: Any) -> dict[str, Any]:
    if not isinstance(group, Mapping):
        raise TypeError(f"[{op}] expected {name} to be a dict, got {group!r}")
    unknown = [key for key in group if key not in _GROUP_KEYS]
    if unknown:
        raise ValueError(f"[{op}] expected {name} to have keys among {', '.join(_GROUP_KEYS)}, got {unknown}")
    if not isinstance(group.get("match"), str):
        raise TypeError(f"[{op}] expected {name} to have a pattern (str) under 'match', got {dict(group)!r}")
    checked: dict[str, Any] = {"match": group["match"]}
    for key in _GROUP_KEYS[1:]:
        if key in group:
            checked[key] = real(op, f"{name}[{key!r}]", group[key], at_least=0.0)
    return checked


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    r"""Stochastic gradient descent with momentum, by the rule of ``torch.optim.SGD``.

    .. math::
        g &\leftarrow \nabla + \lambda p \\
        v &\leftarrow \mu v + (1 - \tau)\,g \quad (v \leftarrow g \text{ the first time}) \\
        p &\leftarrow p - \eta\,d, \qquad d = v \text{ or, with Nesterov, } g + \mu v

    Parameters
    ----------
    lr : float or schedule
        :math:`\eta \ge 0`, or a function of the step that returns it.
    momentum : float, default 0.0
        :math:`\mu` in [0, 1]; with 0 there is no velocity.
    dampening : float, default 0.0
        :math:`\tau` in [0, 1].
    weight_decay : float, default 0.0
        :math:`\lambda \ge 0`.
    nesterov : bool, default False
        Needs a momentum and no dampening.
    groups : sequence of dict, optional
        Exceptions for some parameters: ``{"match": "*.bias", "weight_decay": 0.0, "lr_scale": 1.0}``,
        see `resolve`.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range.

    References
    ----------
    I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013,
    in the form that PyTorch uses: the rate multiplies last.

    Examples
    --------
    >>> SGD(lr=0.1, momentum=0.9).lr_at(0)
    0.1
    """

    lr: float | Callable[[int], float]
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    groups: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        self._check()
        self._set("momentum", real("SGD", "momentum", self.momentum, at_least=0.0, at_most=1.0))
        self._set("dampening", real("SGD", "dampening", self.dampening, at_least=0.0, at_most=1.0))
        self._set("nesterov", boolean("SGD", "nesterov", self.nesterov))
        if self.nesterov and (self.momentum == 0.0 or self.dampening != 0.0):
            raise ValueError(
                "[SGD] expected momentum > 0 and dampening = 0 with nesterov=True, "
                f"got momentum={self.momentum} and dampening={self.dampening}"
            )

    def native(self) -> dict[str, Any]:
        return {
            "kind": "sgd",
            "momentum": self.momentum,
            "dampening": self.dampening,
            "nesterov": self.nesterov,
        }


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    r"""Adam, with weight decay added to the gradient (L2), by the rule of ``torch.optim.Adam``.

    .. math::
        g &\leftarrow \nabla + \lambda p \\
        m &\leftarrow \beta_1 m + (1 - \beta_1)\,g, \qquad s \leftarrow \beta_2 s + (1 - \beta_2)\,g^2 \\
        p &\leftarrow p - \eta\,\frac{m / (1 - \beta_1^t)}{\sqrt{s / (1 - \beta_2^t)} + \epsilon}

    where t counts updates from 1.

    Parameters
    ----------
    lr : float or schedule, default 1e-3
        :math:`\eta \ge 0`, or a function of the step that returns it.
    betas : (float, float), default (0.9, 0.999)
        :math:`\beta_1, \beta_2` in [0, 1).
    eps : float, default 1e-8
        :math:`\epsilon \ge 0`.
    weight_decay : float, default 0.0
        :math:`\lambda \ge 0`.
    groups : sequence of dict, optional
        Exceptions for some parameters: ``{"match": "*.bias", "weight_decay": 0.0, "lr_scale": 1.0}``,
        see `resolve`.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range.

    References
    ----------
    D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, arXiv 1412.6980.

    Examples
    --------
    >>> Adam(lr=3e-4).betas
    (0.9, 0.999)
    """

    lr: float | Callable[[int], float] = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    groups: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        self._check()
        op = type(self).__name__
        if not isinstance(self.betas, Sequence) or isinstance(self.betas, (str, bytes)):
            raise TypeError(f"[{op}] expected betas to be a pair of numbers, got {self.betas!r}")
        if len(self.betas) != 2:
            raise ValueError(f"[{op}] expected betas to be a pair of numbers, got {self.betas!r}")
        betas = tuple(real(op, f"betas[{i}]", b, at_least=0.0, below=1.0) for i, b in enumerate(self.betas))
        self._set("betas", betas)
        self._set("eps", real(op, "eps", self.eps, at_least=0.0))

    def native(self) -> dict[str, Any]:
        return {
            "kind": "adam",
            "betas": self.betas,
            "eps": self.eps,
            "decoupled": isinstance(self, AdamW),
        }


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    r"""Adam with decoupled weight decay, by the rule of ``torch.optim.AdamW``.

    As `Adam` with :math:`g = \nabla`, after :math:`p \leftarrow (1 - \eta\lambda)\,p`.

    Parameters
    ----------
    lr, betas, eps, groups
        As in `Adam`.
    weight_decay : float, default 0.01
        :math:`\lambda \ge 0`.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range.

    References
    ----------
    I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv 1711.05101.

    Examples
    --------
    >>> AdamW(lr=3e-4).weight_decay
    0.01
    """

    weight_decay: float = 0.01

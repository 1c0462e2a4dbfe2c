"""Schedules that follow one formula. The class's docstring is the equation, its ``__call__`` the code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gvcore._settings import integer, real
from gvcore.schedules.base import Schedule, Timed, increasing
from gvcore.schedules.exact import cos_pi, power

__all__ = ["constant", "cosine", "exponential", "linear", "one_cycle", "polynomial", "step"]


def _anneal(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (0.5 * (1.0 + cos_pi(fraction)))


@dataclass(frozen=True)
class constant(Schedule):
    r"""The same rate at every step: :math:`\eta_t = \eta`.

    Parameters
    ----------
    lr : float
        The rate :math:`\eta \ge 0`.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range.

    Examples
    --------
    >>> constant(0.1)(1000)
    0.1
    """

    lr: float

    def __post_init__(self) -> None:
        self._rates("lr")

    def __call__(self, step: int) -> float:
        self._step(step)
        return self.lr


@dataclass(frozen=True)
class exponential(Schedule):
    r"""Multiply the rate by `gamma` every so many steps.

    .. math:: \eta_t = \eta\,\gamma^{\lfloor t / every \rfloor}

    With `every` the number of steps in an epoch, this is ``torch.optim.lr_scheduler.ExponentialLR``.

    Parameters
    ----------
    lr : float
        The first rate :math:`\eta \ge 0`.
    gamma : float
        The factor, above 0.
    every : int, default 1
        Steps between two multiplications.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range.

    Examples
    --------
    >>> schedule = exponential(0.8, 0.5, every=10)
    >>> schedule(0), schedule(9), schedule(10), schedule(20)
    (0.8, 0.8, 0.4, 0.2)
    """

    lr: float
    gamma: float
    every: int = 1

    def __post_init__(self) -> None:
        self._rates("lr")
        self._set("gamma", real("exponential", "gamma", self.gamma, above=0.0))
        self._set("every", integer("exponential", "every", self.every, at_least=1))

    def __call__(self, step: int) -> float:
        return self.lr * power(self.gamma, float(self._step(step) // self.every))


@dataclass(frozen=True)
class linear(Timed):
    r"""Go from `lr` to `end` in a straight line: :math:`\eta_t = \eta + (\eta_T - \eta)\,\min(t, T)/T`.

    With ``end=0`` this is :math:`\eta\,(1 - t/T)`; from step T on the rate stays at `end`, as in
    ``optax.linear_schedule``.

    Parameters
    ----------
    lr : float
        The first rate :math:`\eta \ge 0`.
    total_steps : int, optional
        T, at least 1. None is filled in by ``Trainer.fit``.
    end : float, default 0.0
        The rate :math:`\eta_T \ge 0` from step T on.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range; and when called while `total_steps` is
        None.

    Examples
    --------
    >>> schedule = linear(1.0, total_steps=4)
    >>> [schedule(t) for t in range(6)]
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    lr: float
    total_steps: int | None = None
    end: float = 0.0

    def __post_init__(self) -> None:
        self._rates("lr", "end")
        self._check_total_steps()

    def __call__(self, step: int) -> float:
        total = self._total()
        left = 1.0 - min(self._step(step), total) / total
        return self.end + (self.lr - self.end) * left


@dataclass(frozen=True)
class cosine(Timed):
    r"""Follow half a cosine from `lr` to `end`, after an optional linear warm-up from 0.

    .. math:: \eta_t = \eta_T + (\eta - \eta_T)\,\tfrac12\left(1 + \cos\frac{\pi\,t}{T}\right)

    With W = `warmup_steps`, :math:`\eta_t = \eta\,t/W` for t < W, and then t and T are counted from W,
    as in ``optax.warmup_cosine_decay_schedule``: `total_steps` includes the warm-up. From step T on the
    rate stays at `end`.

    Parameters
    ----------
    lr : float
        The highest rate :math:`\eta \ge 0`; without warm-up, the first.
    total_steps : int, optional
        T, above `warmup_steps`. None is filled in by ``Trainer.fit``.
    end : float, default 0.0
        The rate :math:`\eta_T \ge 0` from step T on.
    warmup_steps : int, default 0
        W; the rate of step W is `lr`. With W above 0 the rate of step 0 is 0.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range; and when called while `total_steps` is
        None.

    Notes
    -----
    The factor ½ is that of SGDR; the rule is also found in print without it, which would make the
    first rate :math:`2\eta`. Here the first rate is :math:`\eta`.

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017,
    arXiv 1608.03983, equation 5.

    Examples
    --------
    >>> schedule = cosine(1.0, total_steps=6, warmup_steps=2)
    >>> [round(schedule(t), 3) for t in range(8)]
    [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """

    lr: float
    total_steps: int | None = None
    end: float = 0.0
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        self._rates("lr", "end")
        self._set("warmup_steps", integer("cosine", "warmup_steps", self.warmup_steps))
        self._check_total_steps()
        if self.total_steps is not None and self.total_steps <= self.warmup_steps:
            raise ValueError(
                f"[cosine] expected total_steps > warmup_steps, got total_steps={self.total_steps} "
                f"and warmup_steps={self.warmup_steps}"
            )

    def __call__(self, step: int) -> float:
        total = self._total()
        step = self._step(step)
        if step < self.warmup_steps:
            return self.lr * (step / self.warmup_steps)
        length = total - self.warmup_steps
        return _anneal(self.lr, self.end, min(step - self.warmup_steps, length) / length)


@dataclass(frozen=True)
class polynomial(Timed):
    r"""Decay by a power of what is left: :math:`\eta_t = \eta_T + (\eta - \eta_T)\,(1 - \min(t, T)/T)^p`.

    ``power=1`` is `linear`. From step T on the rate stays at `end`, as in
    ``optax.polynomial_schedule``.

    Parameters
    ----------
    lr : float
        The first rate :math:`\eta \ge 0`.
    total_steps : int, optional
        T, at least 1. None is filled in by ``Trainer.fit``.
    end : float, default 0.0
        The rate :math:`\eta_T \ge 0` from step T on.
    power : float, default 1.0
        The exponent p, above 0.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range; and when called while `total_steps` is
        None.

    Examples
    --------
    >>> schedule = polynomial(1.0, total_steps=4, power=2)
    >>> [schedule(t) for t in range(6)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """

    lr: float
    total_steps: int | None = None
    end: float = 0.0
    power: float = 1.0

    def __post_init__(self) -> None:
        self._rates("lr", "end")
        self._set("power", real("polynomial", "power", self.power, above=0.0))
        self._check_total_steps()

    def __call__(self, step: int) -> float:
        total = self._total()
        left = 1.0 - min(self._step(step), total) / total
        return self.end + (self.lr - self.end) * power(left, self.power)


@dataclass(frozen=True)
class step(Schedule):
    r"""Multiply the rate by `gamma` at fixed steps: :math:`\eta_t = \eta\,\gamma^{k(t)}`.

    :math:`k(t) = \lfloor t / step\_size \rfloor`, or the number of `milestones` that are at most t, as in
    ``StepLR`` and ``MultiStepLR`` of ``torch.optim.lr_scheduler``.

    Parameters
    ----------
    lr : float
        The first rate :math:`\eta \ge 0`.
    step_size : int, optional
        Steps between two multiplications. Give this or `milestones`.
    gamma : float, default 0.1
        The factor, above 0.
    milestones : sequence of int, optional
        Strictly increasing steps at which the rate is multiplied.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range.

    Examples
    --------
    >>> schedule = step(1.0, milestones=[2, 5], gamma=0.5)
    >>> [schedule(t) for t in range(7)]
    [1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]
    >>> step(1.0, 3, gamma=0.5)(6)
    0.25
    """

    lr: float
    step_size: int | None = None
    gamma: float = 0.1
    milestones: Sequence[int] | None = None

    def __post_init__(self) -> None:
        self._rates("lr")
        self._set("gamma", real("step", "gamma", self.gamma, above=0.0))
        if (self.step_size is None) == (self.milestones is None):
            raise ValueError(
                "[step] expected either step_size or milestones, "
                f"got step_size={self.step_size!r} and milestones={self.milestones!r}"
            )
        if self.step_size is not None:
            self._set("step_size", integer("step", "step_size", self.step_size, at_least=1))
        else:
            self._set("milestones", increasing("step", "milestones", self.milestones))

    def __call__(self, step: int) -> float:
        step = self._step(step)
        if self.step_size is not None:
            count = step // self.step_size
        else:
            count = sum(step >= milestone for milestone in self.milestones or ())
        return self.lr * power(self.gamma, float(count))


@dataclass(frozen=True)
class one_cycle(Timed):
    r"""Rise to the peak and fall far below the start, both along half a cosine.

    With :math:`\eta_0 = \eta / div\_factor`, :math:`\eta_T = \eta_0 / final\_div\_factor` and
    :math:`P = pct\_start \cdot T`,

    .. math::
        \eta_t = \begin{cases}
            \eta + (\eta_0 - \eta)\,\tfrac12(1 + \cos(\pi t / P)) & t < P \\
            \eta_T + (\eta - \eta_T)\,\tfrac12(1 + \cos(\pi (t - P) / (T - P))) & P \le t < T
        \end{cases}

    and :math:`\eta_T` from step T on, as in ``optax.cosine_onecycle_schedule`` (PyTorch's ``OneCycleLR``
    reaches both ends one step earlier).

    Parameters
    ----------
    lr : float
        The peak :math:`\eta \ge 0`.
    total_steps : int, optional
        T, at least 1. None is filled in by ``Trainer.fit``.
    pct_start : float, default 0.3
        Share of the steps spent rising, between 0 and 1, both excluded.
    div_factor : float, default 25.0
        Peak over first rate, at least 1.
    final_div_factor : float, default 1e4
        First rate over last rate, at least 1.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range; and when called while `total_steps` is
        None.

    References
    ----------
    L. N. Smith, N. Topin, "Super-Convergence", arXiv 1708.07120.

    Examples
    --------
    >>> schedule = one_cycle(1.0, total_steps=8, pct_start=0.5, div_factor=4, final_div_factor=10)
    >>> [round(schedule(t), 4) for t in (0, 2, 4, 6, 8, 9)]
    [0.25, 0.625, 1.0, 0.5125, 0.025, 0.025]
    """

    lr: float
    total_steps: int | None = None
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self) -> None:
        self._rates("lr")
        self._set("pct_start", real("one_cycle", "pct_start", self.pct_start, above=0.0, below=1.0))
        self._set("div_factor", real("one_cycle", "div_factor", self.div_factor, at_least=1.0))
        final = real("one_cycle", "final_div_factor", self.final_div_factor, at_least=1.0)
        self._set("final_div_factor", final)
        self._check_total_steps()

    def __call__(self, step: int) -> float:
        total = self._total()
        step = min(self._step(step), total)
        peak = self.pct_start * total
        first = self.lr / self.div_factor
        if step < peak:
            return _anneal(first, self.lr, step / peak)
        return _anneal(self.lr, first / self.final_div_factor, (step - peak) / (total - peak))

"""Why training stopped being finite: where it begins, how large things were, and the likely cause.

The offending batch is run once more without an update, with the weights from before it, and every layer's
output is looked at. Not a diagnosis of healthy nets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcore import _core
from gvcore.nn.inference import Plan, Recorded
from gvcore.nn.losses import Loss
from gvcore.nn.module import Module
from gvcore.nn.trace import Value
from gvcore.train.batch import Batch, loss_settings
from gvcore.train.evaluation import normaliser
from gvcore.train.plans import python_loss
from gvcore.train.step import TrainStep

__all__ = ["Facts", "explain", "look"]

_LARGE_INPUT = 1e4
_LARGE_WEIGHT = 1e4
_LARGE_NORM = 1e3
_ABSURD = 1e8  # of the first loss or gradient norm: such a start is no matter of the learning rate


@dataclass
class Facts:
    """What one batch does to the net."""

    loss: float
    bad_layer: str | None = None  # first layer in order whose output is not finite
    bad_share: str = ""
    before: float = 0.0  # largest output of the layer before it
    bad_gradient: str | None = None  # last layer in order whose gradient is not finite
    norm: float = math.nan  # of the whole gradient
    made: str = ""  # what a loss written in Python made of finite outputs, if that is not finite
    prediction: float = 0.0  # the largest, where `made` is set
    divisor: float = 1.0  # of the mean: the sum of the weights
    factor: float = 1.0  # the largest weight, as far as the mean does not cancel it
    updated: bool = False  # it was the update that made weights not finite

    @property
    def finite(self) -> bool:
        """Whether outputs, loss and gradients are finite."""
        known = self.bad_layer is None and self.bad_gradient is None
        return known and math.isfinite(self.loss) and math.isfinite(self.norm)


def _largest(array: NDArray[Any]) -> float:
    return float(np.max(np.abs(array))) if array.size else 0.0


def _norm(gradients: list[NDArray[Any] | None]) -> float:
    parts = [gradient.astype(np.float64) for gradient in gradients if gradient is not None]
    largest = max((_largest(part) for part in parts), default=0.0)
    if not math.isfinite(largest) or largest == 0.0:
        return largest
    return largest * math.sqrt(sum(float(np.sum((part / largest) ** 2)) for part in parts))


def look(step: TrainStep, batch: Batch) -> Facts:
    """Run a batch without an update, and look at every layer."""
    calls: list[tuple[Module, Value, Any]] = []
    recorded = Recorded(step.net, batch.shapes, calls=calls)
    names = {id(module): name for name, module in step.net.named_modules()}
    layers: dict[int, str] = {}
    for module, _, result in calls:
        if isinstance(result, Value):  # of modules that return one value the innermost names it
            layers.setdefault(result.index, f"{names.get(id(module)) or 'net'} ({type(module).__name__})")
    for node in layers:
        recorded.graph.tap(node)
    options = {"training": True, "gradients": True, "update_inside": False, "fuse": True}
    settings = loss_settings(step.loss, batch.labels, recorded.output_shape())
    plan = Plan(recorded, options, settings)
    request = _core.StepRequest()
    request.update = request.stop_if_not_finite = request.commit_statistics = False
    request.seed, request.step = step.seed, step.calls
    core = plan.bind()
    assert batch.order is not None
    rows = len(batch.order)
    made, largest = "", 0.0
    if isinstance(step.loss, Loss):
        loss = core.step(batch.inputs, batch.target, batch.sample_weight, batch.order, request)[0]
    else:
        output = core.forward(batch.inputs, batch.order, request)
        low, high = float(output.min()), float(output.max())
        loss, gradient = python_loss(step.loss, output, batch.target[batch.order])
        if not (math.isfinite(loss) and np.isfinite(gradient).all()):
            what = "a gradient that is not finite" if math.isfinite(loss) else f"{loss}"
            made, largest = f"{what} of predictions from {low:.3g} to {high:.3g}", max(abs(low), abs(high))
        core.backward(gradient, request)
    facts = Facts(float(loss), norm=_norm(core.gradients()), made=made, prediction=largest)
    if isinstance(step.loss, Loss):
        facts.divisor, facts.factor = _weights(step.loss, batch, plan.output)
    for (value, gradient), name in zip(core.taps(rows), layers.values(), strict=True):
        bad = 0 if value is None else int(np.count_nonzero(~np.isfinite(value)))
        if facts.bad_layer is None:
            if bad:
                facts.bad_layer = name
                facts.bad_share = f"{bad:,} of its {value.size:,} outputs are not finite"
            elif value is not None:
                facts.before = _largest(value)
        if gradient is not None and not np.isfinite(gradient).all():
            facts.bad_gradient = name
    return facts


def _weights(loss: Loss, batch: Batch, output: tuple[int, ...]) -> tuple[float, float]:
    """Return what the mean divides by, 1 for a sum, and the largest weight that it does not cancel."""
    weight = loss.native()["weight"]
    own = None if batch.sample_weight is None else batch.sample_weight[batch.order]
    divisor = 1.0
    if loss.reduction == "mean":
        with np.errstate(over="ignore"):
            divisor = normaliser(loss, batch.target[batch.order], batch.labels, output, own)
    cancelled = loss.reduction == "mean" and math.isfinite(divisor)
    factor = 1.0 if own is None or cancelled else _largest(own)
    if weight is not None and not (cancelled and batch.labels):
        factor *= _largest(weight)
    return divisor, factor


def explain(
    step: TrainStep,
    batch: Batch,
    rate: float,
    losses: tuple[float, float] | None,
    last_norm: float,
    *,
    updated: bool,
) -> str:
    """Say which layer is bad first and why, with the weights from before the step that failed.

    `losses` are the first one of the fit and the last finite one, `last_norm` the norm of the gradient in the
    step before, NaN if there is none; `updated` says that it was the update that made weights not finite.
    """
    facts = look(step, batch)
    facts.updated = updated
    parameters = step.net.parameters()
    sizes = {name: _largest(array) for name, array in parameters.items() if array.size}
    heaviest = max(sizes, key=lambda name: sizes[name], default="")
    return f"{_where(facts)} {_why(step, batch, rate, facts, losses, last_norm, heaviest, sizes)}"


def _where(facts: Facts) -> str:
    if facts.bad_layer is not None:
        return (
            f"First bad layer: {facts.bad_layer}, where {facts.bad_share}; "
            f"the largest output before it was {facts.before:.3g}."
        )
    if facts.made:
        return f"All layers are finite; the loss function made {facts.made}."
    if not math.isfinite(facts.loss):
        return f"All layers are finite, but the loss of outputs as large as {facts.before:.3g} is not."
    if facts.bad_gradient is not None:
        return f"First bad layer, on the way back: {facts.bad_gradient}, whose gradient is not finite."
    if not math.isfinite(facts.norm):
        return "Outputs are finite; the gradient of the parameters is not."
    end = "; the update is not" if facts.updated else ", now that the step is repeated"
    return f"Outputs and gradients are finite (gradient norm {facts.norm:.3g}){end}."


def _why(
    step: TrainStep,
    batch: Batch,
    rate: float,
    facts: Facts,
    losses: tuple[float, float] | None,
    last_norm: float,
    heaviest: str,
    sizes: dict[str, float],
) -> str:
    weight = (
        f"the largest weight is {sizes[heaviest]:.3g} (in {heaviest})" if heaviest else "there are no weights"
    )
    inputs = max(_largest(part[batch.order].astype(step.net.dtype)) for part in batch.inputs)
    if facts.bad_layer is None and facts.made and facts.prediction <= _ABSURD:
        return "Likely cause: the loss function itself; check its logarithms, divisions and roots."
    if facts.bad_layer is None and facts.divisor == 0:
        return (
            "Likely cause: the weights of the batch add up to 0, and its mean divides by that; all of its "
            "labels have a weight of 0 in the loss. Leave out such rows, or take larger batches."
        )
    if (facts.bad_layer is None or step.updates) and facts.factor > _LARGE_WEIGHT:
        return f"Likely cause: weights as large as {facts.factor:.3g}; scale them to about 1."
    if inputs > _LARGE_INPUT:
        return (
            f"Likely cause: inputs as large as {inputs:.3g}; scale the columns of x to about 1 "
            f"(learning rate {rate:.3g}, {weight})."
        )
    if facts.finite and not facts.updated:
        return (
            "Likely cause: not the step but what wrote to the weights besides, such as a callback, or a loss "
            "written in Python that is not the same twice."
        )
    if step.updates == 0 or (losses is None and math.isnan(last_norm)):
        norm = f", gradient norm {facts.norm:.3g}" if math.isfinite(facts.norm) else ""
        return (
            "Likely cause: the net overflows with its first weights, before any update "
            f"({weight}{norm}); gv.diagnose shows where. Add batch norm and residual connections, or start "
            "from smaller weights."
        )
    absurd = [f"the first loss was {losses[0]:.3g}"] if losses and abs(losses[0]) > _ABSURD else []
    if step.updates == 1 and last_norm > _ABSURD:
        absurd.append(f"the first gradient norm was {last_norm:.3g}")
    if absurd:
        return (
            f"Likely cause: the start, not the learning rate of {rate:.3g}: {' and '.join(absurd)} "
            f"({weight}); gv.diagnose shows where that grows. Add batch norm, start from smaller weights"
            + (", or scale y to about 1." if batch.target.dtype.kind == "f" else ".")
        )
    history = []
    if losses is not None:
        history.append(f"the loss went from {losses[0]:.3g} to {losses[1]:.3g}")
    if not math.isnan(last_norm):
        history.append(f"the gradient norm of the last good step was {last_norm:.3g}")
    history.append(weight)
    known = "; ".join(history)
    clipped = "" if step.clip_norm is not None else " or clip_norm=1.0"
    if last_norm > _LARGE_NORM and rate <= 1e-3:
        return f"Likely cause: exploding gradients at learning rate {rate:.3g}: {known}. Try clip_norm=1.0."
    return (
        f"Likely cause: a learning rate of {rate:.3g} is too large: {known}. "
        f"Try {min(rate / 10, 1.0):.1g}, a warm-up{clipped}."
    )

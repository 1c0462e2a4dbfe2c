"""The plans behind training: which one a batch needs, and when the net has changed under them.

Also the first checks that all of training shares, of the net and of what a loss written in Python returns.
"""

from __future__ import annotations

import inspect
import numbers
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcore._settings import returned
from gvcore.data import as_array
from gvcore.nn.inference import KeptPlans, Plan, Recorded
from gvcore.nn.losses import Loss
from gvcore.nn.module import Inventory, Module
from gvcore.nn.parameter import structure_epoch
from gvcore.optim import Optimizer
from gvcore.train.batch import Batch, fit_target, loss_settings

__all__ = ["Plans", "check_every", "check_inputs", "check_net", "fixed", "python_loss", "uncopied"]


def check_net(op: str, net: Any) -> None:
    """Raise a TypeError unless `net` is a module."""
    if not isinstance(net, Module):
        raise TypeError(f"[{op}] expected net to be a gvcore.nn.Module, got {type(net).__name__}")


def check_inputs(op: str, net: Module, count: int) -> None:
    """Raise a TypeError unless ``net.forward`` takes so many inputs."""
    signature = inspect.signature(net.forward)
    try:
        signature.bind(*range(count))
    except TypeError:
        raise TypeError(
            f"[{op}] expected inputs for forward({', '.join(signature.parameters)}), several as a tuple, "
            f"got {count}"
        ) from None


def check_every(op: str, value: Any) -> int | None:
    """Return `value` if it is None or an integer >= 1."""
    expected = f"[{op}] expected checkpoint_every to be a positive integer or None, got {value!r}"
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(expected)
    if value < 1:
        raise ValueError(expected)
    return int(value)


def fixed(op: str, name: str) -> AttributeError:
    """Return what is raised when something that plans are made of is replaced."""
    return AttributeError(f"[{op}] expected {name} to stay as given, got another; make a new {op}")


def uncopied(op: str) -> TypeError:
    """Return what is raised when something that holds compiled plans is pickled or copied."""
    return TypeError(
        f"[{op}] expected net, loss and optimizer to be pickled or copied, got the {op}, which holds "
        f"compiled plans; make a new {op} of the copies"
    )


def python_loss(loss: Any, prediction: NDArray[Any], target: Any) -> tuple[float, NDArray[Any]]:
    """Call a loss written in Python and check what it returns."""
    result = loss(prediction, target)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(f"[loss] expected (loss, dprediction), got {type(result).__name__}")
    value = returned("loss", "loss of (loss, dprediction) to be a number", result[0])
    gradient = as_array("loss", "dprediction", result[1])
    if gradient.dtype.kind not in "fiub":
        raise TypeError(f"[loss] expected dprediction to be numbers, got dtype {gradient.dtype}")
    if gradient.shape != prediction.shape:
        raise ValueError(f"[loss] expected dprediction of shape {prediction.shape}, got {gradient.shape}")
    return value, np.require(gradient, prediction.dtype, ["C", "A"])


class Plans:
    """The plans of one net and one loss that differentiate, by what they depend on."""

    fused = True  # tests turn it off to compare with every instruction on its own

    def __init__(self, net: Module, loss: Any, optimizer: Optimizer | None) -> None:
        self.net, self.loss, self.optimizer = net, loss, optimizer
        self._plans = KeptPlans()
        self._epoch = structure_epoch()
        self._keep(net.inventory())

    def _keep(self, parts: Inventory) -> None:
        self.parts, self.trained, self.dtype = parts, parts.trained, parts.dtype()

    def look(self) -> bool:
        """Compare the net with what it was; return False if its structure has changed."""
        epoch = structure_epoch()
        if self._epoch == epoch:
            return True
        parts = self.net.inventory()
        if parts.structure != self.parts.structure:
            return False
        self._keep(parts)
        self._epoch = epoch
        return True

    def forget(self) -> None:
        """Start again from the net as it is."""
        self._plans.clear()
        self._epoch = structure_epoch()
        self._keep(self.net.inventory())

    def get(self, batch: Batch, *, training: bool, stored: bool, every: int | None = None) -> Plan:
        """Return the plan for a batch of these shapes; `every` is `checkpoint_every`."""
        key = (batch.shapes, batch.labels, training, stored, every, self.trained, self.fused)
        plan = self._plans.find(key)
        if plan is None:
            plan = self._plans.keep(key, self._make(batch, training, stored, every))
            if self._epoch != structure_epoch():  # forward ran, and has set attributes
                self._epoch = structure_epoch()
                self._keep(self.net.inventory())
        return plan

    def _make(self, batch: Batch, training: bool, stored: bool, every: int | None) -> Plan:
        check_inputs("TrainStep", self.net, len(batch.inputs))
        optimizer = None
        if self.optimizer is not None:
            optimizer = dict(self.optimizer.native())
            if "betas" in optimizer:
                optimizer["beta1"], optimizer["beta2"] = optimizer.pop("betas")
            optimizer["parameters"] = self.optimizer.resolve([names for _, names in self.net.aliases()])
        recorded = Recorded(self.net, batch.shapes, parts=self.parts)
        if recorded.outputs > 1:
            raise ValueError(f"[TrainStep] expected forward to return one value, got {recorded.outputs}")
        output = recorded.output_shape()
        settings = None
        if isinstance(self.loss, Loss):
            fit_target("TrainStep", batch, output, self.loss)
            settings = loss_settings(self.loss, batch.labels, output)
        options = {
            "training": training,
            "gradients": True,
            "update_inside": not stored and self.fused,
            "fuse": self.fused,
            "checkpoint_every": min(every or 0, sys.maxsize),
        }
        return Plan(recorded, options, settings, optimizer)

    def check(self, op: str, batch: Batch, plan: Plan) -> None:
        """Check a batch against the plan's output."""
        if isinstance(self.loss, Loss):
            fit_target(op, batch, plan.output, self.loss)

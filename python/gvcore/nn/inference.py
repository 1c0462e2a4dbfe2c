"""Inference: ``net(x)`` on arrays, through plans that are kept by shapes and dtype."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gvcore import _core
from gvcore._exclusive import Exclusive
from gvcore.data import Input, Scaled, as_rows, is_number
from gvcore.nn.parameter import storage_epoch, structure_epoch
from gvcore.nn.trace import Trace

if TYPE_CHECKING:
    from gvcore.nn.module import Inventory, Module

__all__ = ["Inference", "KeptPlans", "Plan", "Recorded", "as_input", "plan_class"]


def plan_class(dtype: np.dtype[Any]) -> Any:
    """Return the compiled plan type of a dtype."""
    return _core.PlanFloat32 if dtype == np.float32 else _core.PlanFloat64


def as_input(op: str, name: str, value: Any) -> Input:
    """Return `value` as a plan gathers it: (batch, ...), the numbers of each sample one after the other.

    The plan converts rows to its dtype when it gathers them, so an array is taken as it lies, unless the
    numbers of a sample are not one after the other or are in another byte order: then it is copied.
    """
    rows = as_rows(op, name, value)
    array = rows.array if isinstance(rows, Scaled) else rows
    if not is_number(array.dtype):
        raise TypeError(
            f"[{op}] expected {name} of dtype float16/32/64, integer or bool, got {array.dtype} "
            f"of shape {array.shape}"
        )
    if array.ndim == 0:
        raise ValueError(f"[{op}] expected {name} of shape (batch, …), got a scalar")
    if array.ndim > 4:
        raise ValueError(
            f"[{op}] expected {name} with at most 3 axes behind the batch, got shape {array.shape}"
        )
    if array.dtype.isnative and (array.flags.c_contiguous or _in_rows(array)):
        return rows
    copy = np.require(array, array.dtype.newbyteorder("="), "C")
    return Scaled(copy, rows.scale, rows.shift) if isinstance(rows, Scaled) else copy


def _in_rows(array: NDArray[Any]) -> bool:
    step = array.itemsize
    for size, stride in zip(array.shape[:0:-1], array.strides[:0:-1], strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True


class Recorded:
    """A net's ``forward``, traced for inputs of these trailing shapes."""

    def __init__(
        self,
        net: Module,
        shapes: tuple[tuple[int, ...], ...],
        *,
        parts: Inventory | None = None,
        calls: list[Any] | None = None,
    ) -> None:
        parts = net.inventory() if parts is None else parts
        trace = Trace(parts)
        trace.calls = calls
        self.outputs = trace.run(net, shapes)
        self.graph = trace.graph
        self.dtype = parts.dtype()
        self.names = list(parts.parameters)
        self.parameters = list(parts.parameters.values())
        self.buffers = [(module, key) for _, module, key in parts.buffers]

    def output_shape(self) -> tuple[int, ...]:
        """Return the trailing shape of the first output."""
        return tuple(self.graph.shape(self.graph.outputs[0]))


class Plan:
    """A compiled plan and the memory it is bound to."""

    def __init__(
        self,
        recorded: Recorded,
        options: Mapping[str, int],
        loss: dict[str, Any] | None = None,
        optimizer: dict[str, Any] | None = None,
    ) -> None:
        self.recorded = recorded
        self.core = plan_class(recorded.dtype)(recorded.graph, options, loss, optimizer)
        self.output = recorded.output_shape()
        self._bound_at = -1
        self.used = 0  # when last, as `KeptPlans` counts

    def bind(self, state: list[NDArray[Any]] | None = None, updates: NDArray[np.int64] | None = None) -> Any:
        """Return the compiled plan, bound to where parameters and buffers lie now."""
        if self._bound_at != storage_epoch():
            parameters = [p.data for p in self.recorded.parameters]
            buffers = [module.buffer(key) for module, key in self.recorded.buffers]
            self.core.bind(parameters, buffers, state or [], updates)
            self._bound_at = storage_epoch()
        return self.core


class KeptPlans(dict[Hashable, Plan]):
    """Plans by what they depend on. Where shapes never end, those used longest ago make room for new ones."""

    MOST = 64
    FEW, BYTES = 8, 1 << 28  # so many may hold more memory than that together

    def __init__(self) -> None:
        self._now = 0

    def find(self, key: Hashable) -> Plan | None:
        """Return the plan of `key`, now the last one used, or None."""
        plan = self.get(key)
        if plan is not None:
            self._now = plan.used = self._now + 1
        return plan

    def keep(self, key: Hashable, plan: Plan) -> Plan:
        """Add a plan, now the last one used, and return it."""
        self[key] = plan
        self._now = plan.used = self._now + 1
        held = sum(kept.core.arena_bytes for kept in self.values())
        while len(self) > self.MOST or (len(self) > self.FEW and held > self.BYTES):
            held -= self.pop(min(self, key=lambda k: self[k].used)).core.arena_bytes
        return plan


class Inference:
    """The plans of one net for inference; calls from several threads wait for each other."""

    def __init__(self, net: Module) -> None:
        self._net = net
        self._plans = KeptPlans()
        self._parts: Inventory | None = None
        self._epoch = -1
        self._exclusive = Exclusive("net", "forward")

    def __call__(self, inputs: tuple[Any, ...]) -> Any:
        """Run the net on arrays."""
        if not inputs:
            raise TypeError("[net] expected at least one array")
        return self._exclusive.run(lambda: self._run(inputs))

    def _run(self, inputs: tuple[Any, ...]) -> Any:
        if self._exclusive.mended():
            self._plans.clear()
        if self._epoch != structure_epoch():
            parts = self._net.inventory()
            if self._parts is None or parts.structure != self._parts.structure:
                self._plans.clear()
            self._parts, self._epoch = parts, structure_epoch()
        arrays = [as_input("net", "x", x) for x in inputs]
        if any(len(a) != len(arrays[0]) for a in arrays):
            raise ValueError(f"[net] expected inputs of one length, got {[a.shape for a in arrays]}")
        shapes = tuple(a.shape[1:] for a in arrays)
        plan = self._plans.find(shapes)
        if plan is None:
            options = {"training": False, "gradients": False, "update_inside": False, "fuse": True}
            plan = self._plans.keep(shapes, Plan(Recorded(self._net, shapes, parts=self._parts), options))
        results = plan.bind().infer(arrays)
        return tuple(results) if plan.recorded.outputs else results[0]

"""One step of training on a batch, without its update: the norms of everything on the way.

The net is traced once more with its module calls written down, values of interest are kept by the plan,
and what is kept becomes numbers at once. A large net is run several times with some values kept in each, so
that the memory stays bounded; the bits are the same in each run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcore import _core
from gvcore.diagnostics.flow import BlockFlow, Growth, LayerFlow, fit, judge, norm
from gvcore.diagnostics.report import Report
from gvcore.nn.containers import Residual, Sequential
from gvcore.nn.inference import Plan, Recorded
from gvcore.nn.module import Module
from gvcore.nn.parameter import Parameter
from gvcore.nn.trace import Value

__all__ = ["Runner", "probe"]

Runner = Callable[[Any, Any], float]
"""Runs forward, loss and backward on a bound plan with a request; returns the loss."""

_MOST_BYTES = 256 << 20  # of values and gradients kept at a time
_OPTIONS = {"training": True, "gradients": True, "update_inside": False, "fuse": True}
_RECTIFIERS = frozenset({"ReLU", "LeakyReLU", "ELU", "SELU", "GELU", "SiLU", "Softplus"})
_SIGMOIDS = frozenset({"Tanh", "Sigmoid"})
_SATURATED_BELOW = 0.01  # of the largest derivative


@dataclass
class _Call:
    """One call of a module while the net was traced."""

    name: str
    module: Module
    source: int  # nodes of the graph
    result: int
    parts: list[_Call] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return type(self.module).__name__


@dataclass
class _Seen:
    """What is left of a value and its gradient."""

    norm: float
    rms: float
    gradient: float
    smallest: float  # a norm of the gradient below this has lost bits to underflow
    dead: float | None = None
    saturated: float | None = None


def probe(
    net: Module,
    shapes: tuple[tuple[int, ...], ...],
    rows: int,
    settings: Callable[[Recorded], dict[str, Any] | None],
    run: Runner,
    seed: int,
) -> Report:
    """Run a batch of `rows` samples of these trailing shapes through the net and back; return what was seen.

    `settings` gives the plan's description of the loss for a traced net. Nothing of the net changes.
    """
    calls: list[tuple[Module, Value, Any]] = []
    recorded = Recorded(net, shapes, calls=calls)
    if recorded.outputs > 1:
        raise ValueError(f"[diagnose] expected forward to return one value, got {recorded.outputs}")
    root = _tree(net, calls)
    leaves = _leaves(root)
    chain = _blocks(root)
    # Which values are looked at, and as the output of what.
    kinds: dict[int, str] = {root.result: ""}
    for call in (*leaves, *(member for block in chain for member in (block[0], block[-1]))):
        kinds.setdefault(call.source, "")
        kinds.setdefault(call.result, "")
    for leaf in leaves:
        if leaf.kind in _RECTIFIERS or leaf.kind in _SIGMOIDS:
            kinds[leaf.result] = leaf.kind
    seen: dict[int, _Seen] = {}
    loss, gradients = math.nan, list[Any]()
    for part in _portions(recorded, sorted(kinds), rows):
        if seen:
            recorded = Recorded(net, shapes)  # a graph cannot forget what it was told to keep
        for node in part:
            recorded.graph.tap(node)
        core = Plan(recorded, _OPTIONS, settings(recorded)).bind()
        request = _core.StepRequest()
        request.update = request.commit_statistics = request.stop_if_not_finite = False
        request.seed = seed
        loss = run(core, request)
        gradients = core.gradients()
        for node, (value, gradient) in zip(part, core.taps(rows), strict=True):
            seen[node] = _look(value, gradient, kinds[node])
    parameters = {
        name: norm(gradient)
        for name, gradient in zip(recorded.names, gradients, strict=True)
        if gradient is not None
    }
    owned = {id(p): parameters[name] for name, p in net.named_parameters() if name in parameters}
    layers = [
        LayerFlow(
            call.name,
            call.kind,
            (at := seen[call.result]).norm,
            at.rms,
            at.gradient,
            _together(call.module, owned),
            at.dead if call.kind in _RECTIFIERS else None,
            at.saturated if call.kind in _SIGMOIDS else None,
        )
        for call in leaves
    ]
    blocks, depth = [], 0
    for block in chain:
        inside = [leaf for member in block for leaf in _leaves(member)]
        blocks.append(
            BlockFlow(
                block[0].name,
                ", ".join(member.kind for member in block),
                depth,
                seen[block[-1].result].norm,
                seen[block[-1].result].rms,
                seen[block[0].source].gradient,
                _root_of_squares([n for m in block if (n := _together(m.module, owned)) is not None]),
                _mean([seen[leaf.result].dead for leaf in inside]),
                _mean([seen[leaf.result].saturated for leaf in inside]),
            )
        )
        depth += sum(_depth(member.module) for member in block)
    if depth == 0:  # a net without weight matrices: every block counts as a layer
        blocks = [BlockFlow(**{**vars(block), "depth": i}) for i, block in enumerate(blocks)]
    towards_output = fit(
        [block.depth for block in blocks],
        [block.gradient_norm for block in blocks],
        [seen[block[0].source].smallest for block in chain],
    )
    backward = Growth(_inverse(towards_output.factor), towards_output.spread)
    forward = fit([b.depth for b in blocks], [b.activation_rms for b in blocks], [0.0] * len(blocks))
    made = sorted([*leaves, *(block[-1] for block in chain)], key=lambda call: call.result)
    bad = next((call.name for call in made if not math.isfinite(seen[call.result].norm)), None)
    verdict, starts_at = judge(blocks, bad, seen[root.result].gradient)
    return Report(loss, rows, blocks, layers, parameters, backward, forward, verdict, starts_at)


# ---- which module called which -------------------------------------------------------------------


def _tree(net: Module, calls: Sequence[tuple[Module, Value, Any]]) -> _Call:
    """Return the call of the net itself; calls come innermost first, so parts come before their whole."""
    names: dict[int, list[str]] = {}
    for name, module in net.named_modules():
        names.setdefault(id(module), []).append(name)
    waiting: list[_Call] = []
    for module, source, result in calls:
        first = result[0] if isinstance(result, tuple) else result
        if not isinstance(first, Value):
            continue  # a part that returns no value of the graph is nothing to look at
        own = names.get(id(module), [])
        call = _Call(own[0] if own else type(module).__name__, module, source.index, first.index)
        if module is net:
            waiting, call.parts = [], waiting
        elif own:
            prefixes = tuple(f"{name}." for name in own)
            at = len(waiting)
            while at and any(n.startswith(prefixes) for n in names.get(id(waiting[at - 1].module), [])):
                at -= 1
            call.parts = waiting[at:]
            del waiting[at:]
        waiting.append(call)
    return waiting[-1]


def _leaves(root: _Call) -> list[_Call]:
    found, stack = [], [root]
    while stack:
        call = stack.pop()
        if call.parts:
            stack += reversed(call.parts)
        else:
            found.append(call)
    return found


def _blocks(root: _Call) -> list[list[_Call]]:
    """Cut the outermost chain of calls into blocks, see `gvcore.diagnose`."""
    chain = _opened(root.parts) or [root]
    while len(chain) == 1 and chain[0].parts:
        chain = _opened(chain[0].parts)
    blocks: list[list[_Call]] = []
    weights = False  # whether the last block holds some already
    for call in chain:
        has = _depth(call.module) > 0
        if blocks and not (has and weights):
            blocks[-1].append(call)
            weights |= has
        else:
            blocks.append([call])
            weights = has
    if len(blocks) == 1 and not weights:
        return [[call] for call in chain]
    return blocks


def _opened(calls: Sequence[_Call]) -> list[_Call]:
    """Replace calls of plain `Sequential` modules by the calls of their items, at every depth."""
    found, stack = [], list(reversed(calls))
    while stack:
        call = stack.pop()
        if call.parts and type(call.module).forward is Sequential.forward:
            stack += reversed(call.parts)
        else:
            found.append(call)
    return found


def _depth(module: Module) -> int:
    """Return how many weight matrices a signal passes in a module, one after the other."""
    own = sum(isinstance(p, Parameter) and p.ndim >= 2 for p in vars(module).values())
    parts = [_depth(part) for _, part in module.children()]
    if isinstance(module, Residual):
        return own + max(parts, default=0)
    return own + sum(parts)


# ---- numbers -------------------------------------------------------------------------------------


def _portions(recorded: Recorded, nodes: Sequence[int], rows: int) -> list[list[int]]:
    """Divide the nodes so that the values and gradients of each part fit into memory."""
    portions: list[list[int]] = [[]]
    used = 0
    for node in nodes:
        size = 4 * rows * math.prod(recorded.graph.shape(node)) * recorded.dtype.itemsize  # kept, and copied
        if portions[-1] and used + size > _MOST_BYTES:
            portions.append([])
            used = 0
        portions[-1].append(node)
        used += size
    return portions


def _look(value: NDArray[Any], gradient: NDArray[Any] | None, kind: str) -> _Seen:
    length = norm(value)
    root = math.sqrt(value.size) if value.size else 1.0
    seen = _Seen(
        length,
        length / root,
        0.0 if gradient is None else norm(gradient),  # None: the loss does not depend on it
        1e3 * root * float(np.finfo(value.dtype).tiny),
    )
    if not math.isfinite(length):
        return seen
    units = value.reshape(-1, value.shape[-1] if value.ndim > 1 else 1)
    if kind in _RECTIFIERS:
        seen.dead = float((units == 0).all(axis=0).mean())
    elif kind in _SIGMOIDS:
        slope = 1.0 - units * units if kind == "Tanh" else 4.0 * units * (1.0 - units)
        seen.saturated = float(((slope < _SATURATED_BELOW).mean(axis=0) > 0.5).mean())
    return seen


def _together(module: Module, owned: dict[int, float]) -> float | None:
    return _root_of_squares([owned[id(p)] for _, p in module.named_parameters() if id(p) in owned])


def _root_of_squares(norms: Sequence[float]) -> float | None:
    return norm(np.array(norms)) if norms else None


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None


def _inverse(factor: float) -> float:
    return math.inf if factor == 0.0 else 1.0 / factor

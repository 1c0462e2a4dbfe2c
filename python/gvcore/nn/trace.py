"""Tracing: running ``forward`` once with values that stand for arrays, to write down the graph.

A `Value` knows its trailing shape and which node of the graph it is; the batch has no size. What
would need the numbers (branches, lengths, NumPy functions) raises and names the alternative.
"""

from __future__ import annotations

import numbers
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from gvcore import _core, functional
from gvcore.functional._checks import whole
from gvcore.functional.activations import gelu_kernel
from gvcore.nn.parameter import Parameter

if TYPE_CHECKING:
    from gvcore.nn.module import Inventory, Module

__all__ = ["Trace", "Value", "current"]


class _UnderWay(threading.local):
    def __init__(self) -> None:
        self.traces: list[Trace] = []


_under_way = _UnderWay()


def current() -> Trace | None:
    """Return the trace under way in this thread, or None."""
    return _under_way.traces[-1] if _under_way.traces else None


class Trace:
    """One run of ``forward``: the graph, and which number each parameter and buffer has in it."""

    def __init__(self, parts: Inventory) -> None:
        self.graph = _core.Graph()
        self.calls: list[tuple[Module, Value, Any]] | None = None  # a list is filled with every call
        self._names: dict[int, str] = {}
        self._parameters: dict[int, int] = {}
        self._used: set[int] = set()
        self._buffers: dict[tuple[int, str], int] = {}
        for name, parameter in parts.parameters.items():
            self._parameters[id(parameter)] = self.graph.parameter(
                name, list(parameter.shape), parameter.requires_grad
            )
            self._names[id(parameter)] = name
        for name, module, key in parts.buffers:
            self._buffers[id(module), key] = self.graph.buffer(name, int(module.buffer(key).size))

    def run(self, net: Module, shapes: Sequence[tuple[int, ...]]) -> int:
        """Trace ``net.forward``; return how many outputs it has (0: it returned a single value)."""
        _under_way.traces.append(self)
        try:
            inputs = [Value(self, self.graph.input(list(shape)), shape) for shape in shapes]
            result = net(*inputs)
            if isinstance(result, tuple) and not result:
                raise TypeError(f"[trace] expected forward of {type(net).__name__} to return a value, got ()")
            for output in result if isinstance(result, tuple) else (result,):
                if not isinstance(output, Value):
                    raise TypeError(
                        f"[trace] expected forward of {type(net).__name__} to return a value computed from "
                        f"its arguments (or a tuple of them), got {type(output).__name__}"
                    )
                self.graph.output(output.node)
        finally:
            _under_way.traces.pop()
        return len(result) if isinstance(result, tuple) else 0

    def parameter(self, parameter: Parameter) -> int:
        """Return the number of a parameter, which may be asked for once."""
        number = self._parameters.get(id(parameter))
        if number is None:
            raise ValueError(
                "[trace] expected every nn.Parameter and module used in forward to be an "
                "attribute of the net, "
                f"got one that is not: {parameter!r}; lists of modules belong in nn.ModuleList"
            )
        if id(parameter) in self._used:
            raise ValueError(
                f"[trace] expected each parameter to be used once in forward, got a second use of "
                f"{self._names[id(parameter)]!r}; a module that owns parameters may be called once"
            )
        self._used.add(id(parameter))
        return number

    def optional(self, parameter: Parameter | None) -> int:
        """Return the number of a parameter, -1 for None."""
        return -1 if parameter is None else self.parameter(parameter)

    def buffer(self, module: Module, key: str) -> int:
        """Return the number of a buffer."""
        number = self._buffers.get((id(module), key))
        if number is None:
            raise ValueError(
                f"[trace] expected every module used in forward to be an attribute of the net, got a "
                f"{type(module).__name__} that is not; lists of modules belong in nn.ModuleList"
            )
        return number


class _Shape(tuple[Any, ...]):
    """The shape of a traced value, whose first entry cannot be looked at."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            if key.indices(len(self))[0] == 0 and len(range(*key.indices(len(self)))):
                _no_batch()
            return tuple(tuple.__getitem__(self, key))
        if key in (0, -len(self)):
            _no_batch()
        return tuple.__getitem__(self, key)

    def __iter__(self) -> Any:
        _no_batch()

    def __repr__(self) -> str:
        return "(batch" + "".join(f", {n}" for n in tuple.__iter__(self) if n is not None) + ")"


def _no_batch() -> NoReturn:
    raise TypeError(
        "[trace] the size of the batch is not known in forward, which is traced once for "
        "batches of every size; "
        "shape[1:] is known, nn.Flatten() and gvcore.functional.reshape keep the batch axis"
    )


class Value:
    """What stands for an array of shape (batch, ...) while ``forward`` is traced."""

    __slots__ = ("index", "trace", "trailing")
    __gv_traced__ = True
    __hash__ = object.__hash__

    def __init__(self, trace: Trace, node: int, trailing: Sequence[int] | None = None) -> None:
        self.trace = trace
        self.index = node
        self.trailing = tuple(trace.graph.shape(node) if trailing is None else trailing)

    # ---- what a value knows -----------------------------------------------------------------

    @property
    def node(self) -> int:
        """Which node of the graph it is, to build on; `index` is the same once the run is over."""
        if self.trace is not current():  # another graph's node of this number may be anything, or none
            raise ValueError(
                "[trace] expected values of this run of forward, got one that an earlier run left behind"
            )
        return self.index

    @property
    def shape(self) -> tuple[Any, ...]:
        """(batch, ...): everything but the first entry can be looked at."""
        return _Shape((None, *self.trailing))

    @property
    def ndim(self) -> int:
        """The number of axes, the batch included."""
        return 1 + len(self.trailing)

    def __repr__(self) -> str:
        return f"Value(shape={self.shape!r})"

    # ---- what a value does not know ---------------------------------------------------------

    def __bool__(self) -> bool:
        raise TypeError(
            "[trace] forward is traced once and cannot branch on data; use "
            "gvcore.functional.relu and the like, "
            "or compute the condition before the call and pass it as part of x"
        )

    def __len__(self) -> int:
        _no_batch()

    def __iter__(self) -> Any:
        raise TypeError("[trace] a traced value cannot be iterated over: the batch has no size yet")

    def __getitem__(self, key: Any) -> Any:
        raise TypeError(
            "[trace] a traced value cannot be indexed; pass the parts as separate arguments of "
            "forward, and join "
            "them with gvcore.functional.concatenate"
        )

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "[trace] a traced value has no numbers yet, so NumPy cannot take it; use the "
            "functions of gvcore.functional"
        )

    def __float__(self) -> float:
        raise TypeError("[trace] a traced value has no numbers yet; forward cannot use float() or int()")

    __int__ = __float__

    def _compare(self, other: Any) -> Any:
        raise TypeError("[trace] forward is traced once and cannot compare data; see gvcore.functional")

    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _compare

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        operation = {"add": "__add__", "subtract": "__sub__", "multiply": "__mul__"}.get(ufunc.__name__)
        if operation and method == "__call__" and not kwargs and len(inputs) == 2:
            left, right = inputs
            if isinstance(left, Value):
                return getattr(left, operation)(right)
            return getattr(right, "__r" + operation[2:])(left)
        raise TypeError(
            f"[trace] numpy.{ufunc.__name__} does not take a traced value; use + - * or a function of "
            "gvcore.functional (relu, tanh, sigmoid, softplus, …)"
        )

    # ---- arithmetic -------------------------------------------------------------------------

    def new(self, node: int) -> Value:
        """Return the value of another node of the same graph."""
        return Value(self.trace, node)

    def _binary(self, op: str, other: Any, swapped: bool) -> Any:
        graph = self.trace.graph
        if isinstance(other, Value):
            a, b = (other.node, self.node) if swapped else (self.node, other.node)
            return self.new(graph.binary(op, a, b))
        if isinstance(other, Parameter):
            if other.ndim > len(self.trailing):  # it would line up with the batch, of which there may be any
                raise ValueError(
                    f"[{op}] expected a parameter with no more axes than {self.shape!r} has behind the "
                    f"batch, got one of shape {other.shape}; reshape the value where that is meant"
                )
            node, number = self.node, self.trace.parameter(other)
            if op != "subtract":
                return self.new(graph.with_parameter(op, node, number, op))
            turned = graph.with_parameter("add", graph.affine(node, -1.0, 0.0), number, op)
            if swapped:  # p - x = -x + p
                return self.new(turned)
            # x - p = -(-x + p)
            return self.new(graph.affine(turned, -1.0, 0.0))
        if isinstance(other, numbers.Real) or (isinstance(other, np.ndarray) and other.ndim == 0):
            number_ = float(other)
            scale, shift = {
                "add": (1.0, number_),
                "subtract": (-1.0, number_) if swapped else (1.0, -number_),
                "multiply": (number_, 0.0),
            }[op]
            return self.new(graph.affine(self.node, scale, shift))
        if isinstance(other, np.ndarray):
            raise TypeError(
                "[trace] expected a traced value, a number or an nn.Parameter, got an array; set it as an "
                "nn.Parameter(array, requires_grad=False) of the module"
            )
        return NotImplemented

    def __add__(self, other: Any) -> Any:
        return self._binary("add", other, False)

    def __radd__(self, other: Any) -> Any:
        return self._binary("add", other, True)

    def __sub__(self, other: Any) -> Any:
        return self._binary("subtract", other, False)

    def __rsub__(self, other: Any) -> Any:
        return self._binary("subtract", other, True)

    def __mul__(self, other: Any) -> Any:
        return self._binary("multiply", other, False)

    def __rmul__(self, other: Any) -> Any:
        return self._binary("multiply", other, True)

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, numbers.Real):
            return self._binary("multiply", 1.0 / float(other), False)
        return self.__rtruediv__(other)

    def __rtruediv__(self, other: Any) -> Any:
        raise TypeError(
            "[trace] division by a traced value or a parameter is not supported; multiply instead"
        )

    def __neg__(self) -> Any:
        return self.new(self.trace.graph.affine(self.node, -1.0, 0.0))

    def __matmul__(self, other: Any) -> Any:
        return _matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return _matmul(other, self)

    def __pow__(self, other: Any) -> Any:
        raise TypeError(
            "[trace] a traced value has no powers; write x * x, or for 2**x and the like a function of "
            "gvcore.functional (softplus, sigmoid, elu, …)"
        )

    __rpow__ = __pow__

    def __abs__(self) -> Any:
        raise TypeError("[trace] a traced value has no abs(); write relu(x) + relu(-x) of gvcore.functional")

    def __getattr__(self, name: str) -> Any:
        # Only what a user may take for an attribute of arrays: protocols ask for dunder names.
        if name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        alternative = f"gvcore.functional.{name}(x)" if name in _FUNCTIONS else _INSTEAD.get(name)
        raise AttributeError(
            f"[trace] a traced value has no {name!r}; "
            + (f"use {alternative}" if alternative else "use + - * @ and the functions of gvcore.functional")
        )

    def reshape(self, *shape: Any) -> Value:
        """As `gvcore.functional.reshape`: `shape` is that behind the batch axis."""
        reshaped: Value = functional.reshape(self, shape[0] if len(shape) == 1 else shape)
        return reshaped


# What to write for attributes that arrays have and traced values do not.
_TURNED = "gvcore.functional.linear(x, weight), which multiplies by weight.T"
_INSTEAD = {
    "T": _TURNED,
    "transpose": _TURNED,
    "swapaxes": _TURNED,
    "sum": "x @ weight with an nn.Parameter of ones, shape (k, 1), and requires_grad=False",
    "mean": "x @ weight with an nn.Parameter of 1/k, shape (k, 1), and requires_grad=False",
    "dot": "x @ weight",
    "flatten": "nn.Flatten() or gvcore.functional.reshape(x, -1)",
    "ravel": "nn.Flatten() or gvcore.functional.reshape(x, -1)",
    "size": "x.shape[1:], which is known but for the batch",
    "dtype": "net.dtype outside of forward",
    "astype": "net.astype outside of forward, which converts the whole net",
    "copy": "x itself, which nothing changes",
}


# ---- the functions of gvcore.functional on traced values -----------------------------------------


def _traced(op: str, x: Any) -> Value:
    if not isinstance(x, Value):
        raise TypeError(f"[{op}] expected x to be a traced value, got {type(x).__name__}")
    return x


def _number(value: Value, op: str, name: str, parameter: Any) -> int:
    if parameter is None:
        return -1
    if not isinstance(parameter, Parameter):
        raise TypeError(
            f"[{op}] expected {name} to be an nn.Parameter in forward, got {type(parameter).__name__}"
        )
    return value.trace.parameter(parameter)


def _linear(x: Any, weight: Any, bias: Any = None) -> Value:
    value = _traced("linear", x)
    if weight is None:
        raise TypeError("[linear] expected weight to be an nn.Parameter, got None")
    node = value.node
    w, b = _number(value, "linear", "weight", weight), _number(value, "linear", "bias", bias)
    return value.new(value.trace.graph.linear(node, w, b))


def _matmul(a: Any, b: Any) -> Value:
    if isinstance(b, Parameter) and isinstance(a, Value):
        return a.new(a.trace.graph.matmul_parameter(a.node, a.trace.parameter(b)))
    if isinstance(a, Value) and isinstance(b, Value):
        return a.new(a.trace.graph.matmul(a.node, b.node))
    raise TypeError(
        "[matmul] expected (value, nn.Parameter) or (value, value) in forward, got "
        f"({type(a).__name__}, {type(b).__name__})"
    )


def _reshape(x: Any, shape: Any) -> Value:
    value = _traced("reshape", x)
    sizes = list(shape)
    total = int(np.prod(value.trailing, dtype=np.int64))
    if sizes.count(-1) == 1:
        rest = int(np.prod([n for n in sizes if n != -1], dtype=np.int64))
        if rest and total % rest == 0:
            sizes[sizes.index(-1)] = total // rest
    if any(n < 0 for n in sizes):
        raise ValueError(
            f"[reshape] expected sizes behind the batch that hold {total} elements, got {tuple(shape)}"
        )
    return value.new(value.trace.graph.reshape(value.node, sizes))


def _concatenate(values: Any, axis: Any = -1) -> Value:
    axis = whole("concatenate", "axis", axis)
    parts = [_traced("concatenate", v) for v in values]
    if not parts:
        raise ValueError("[concatenate] expected at least one value, got none")
    first = parts[0]
    at = axis + first.ndim if axis < 0 else axis
    if not 1 <= at < first.ndim:
        raise ValueError(f"[concatenate] expected a trailing axis of {first.shape!r}, got axis {axis}")
    return first.new(first.trace.graph.concatenate([p.node for p in parts], at - 1))


def _softmax(log: bool) -> Callable[..., Value]:
    op = "log_softmax" if log else "softmax"

    def softmax(x: Any, *, axis: int = -1) -> Value:
        value = _traced(op, x)
        if whole(op, "axis", axis) not in (-1, value.ndim - 1):
            raise ValueError(f"[{op}] expected axis -1 in forward, got {axis}")
        return value.new(value.trace.graph.softmax(value.node, log))

    return softmax


def _activation(name: str, argument: str | None = None, default: float = 0.0) -> Callable[..., Value]:
    def activation(x: Any, **parameters: Any) -> Value:
        number = float(parameters.pop(argument, default)) if argument else 0.0
        if parameters:
            raise TypeError(f"[{name}] expected no argument {sorted(parameters)[0]!r} in forward")
        return activate(_traced(name, x), name, number)

    return activation


def activate(x: Value, name: str, value: float = 0.0) -> Value:
    """Apply the activation `name` with its one parameter."""
    return x.new(x.trace.graph.activation(x.node, name, value))


def _gelu(x: Any, approximate: str = "none") -> Value:
    return activate(_traced("gelu", x), gelu_kernel("gelu", approximate))


_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "linear": _linear,
    "matmul": _matmul,
    "reshape": _reshape,
    "concatenate": _concatenate,
    "softmax": _softmax(False),
    "log_softmax": _softmax(True),
    "gelu": _gelu,
    "leaky_relu": _activation("leaky_relu", "negative_slope", 0.01),
    "elu": _activation("elu", "alpha", 1.0),
    "softplus": _activation("softplus", "beta", 1.0),
    **{name: _activation(name) for name in ("relu", "selu", "silu", "tanh", "sigmoid")},
}


def _traced_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    function = _FUNCTIONS.get(name)
    if function is None:
        return NotImplemented
    if kwargs.pop("out", None) is not None:
        raise TypeError(f"[{name}] expected no out= in forward")
    return function(*args, **kwargs)


functional._traced_call = _traced_call

"""Modules: a net as Python objects, traced once, run in C++.

Not here: the layers (layers.py, containers.py), what happens during tracing (trace.py), and training.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gvcore.data import as_array
from gvcore.nn import trace
from gvcore.nn.inference import Inference
from gvcore.nn.parameter import Parameter, changed, flatten, moved
from gvcore.seeding import as_seed

__all__ = ["Inventory", "Module"]

_Self = TypeVar("_Self", bound="Module")


class Module:
    """A net or a part of one.

    Subclass it, set submodules and `Parameter` objects as attributes in ``__init__``, and write
    ``forward(self, x)``. ``net(x)`` on an array runs the net for inference: batch norm uses its running
    statistics, dropout does nothing. Training is done by `gvcore.TrainStep` and `gvcore.Trainer`.

    ``forward`` is traced once with values that stand for batches of any size, so it may not look at
    numbers: no branches on data, no ``len``, no NumPy functions. A module that owns parameters may be
    used once in a net; others as often as you like.

    Notes
    -----
    Attributes are settings of the net: once one has been replaced, ``net(x)`` traces again and a
    `gvcore.TrainStep` asks to be made anew. Numbers, strings and NumPy scalars are compared by value,
    other objects by identity, so a list that is changed in place is not seen to change. What
    ``forward`` sets itself, such as ``self.hidden = x``, is no setting.

    Examples
    --------
    >>> import numpy as np
    >>> import gvcore as gv
    >>> from gvcore import nn
    >>> class Gated(nn.Module):
    ...     def __init__(self):
    ...         self.value, self.gate = nn.Linear(3, 2, seed=0), nn.Linear(3, 2, seed=1)
    ...     def forward(self, x):
    ...         return self.value(x) * gv.functional.sigmoid(self.gate(x))
    >>> Gated()(np.ones((5, 3))).shape
    (5, 2)
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "training":
            raise AttributeError(
                "[Module] a net has no training flag: net(x) is inference, TrainStep and Trainer train"
            )
        if name in self.__dict__.get("_buffers", ()):
            place = self.buffer(name)
            place[...] = _fitting(type(self).__name__, name, value, place)
            return
        self._note(name, value)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        self._note(name, None)
        object.__delattr__(self, name)

    def _note(self, name: str, value: Any) -> None:
        """Take note that an attribute is to be set; one that forward sets keeps its setting in `_given`."""
        attributes = self.__dict__
        old = attributes.get(name, _NOTHING)
        if trace.current() is None or isinstance(value, _PARTS) or isinstance(old, _PARTS):
            attributes.get("_given", {}).pop(name, None)
            changed()
        else:
            attributes.setdefault("_given", {}).setdefault(name, old)

    def __getattr__(self, name: str) -> Any:
        buffers = self.__dict__.get("_buffers")
        if buffers is not None and name in buffers:
            return buffers[name]
        if name == "training":
            raise AttributeError(
                "[Module] a net has no training flag: forward is traced once for training and "
                "once for inference, "
                "and nn.BatchNorm and nn.Dropout know which; net(x) is inference, TrainStep and Trainer train"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # ---- running ----------------------------------------------------------------------------

    def forward(self, *inputs: Any) -> Any:
        """Compute the outputs from traced inputs; to be written by subclasses."""
        raise TypeError(f"[Module] expected {type(self).__name__} to define forward(self, x)")

    def __call__(self, *inputs: Any) -> Any:
        """Run the net on arrays (inference), or trace it on traced values.

        Parameters
        ----------
        *inputs : array_like of shape (batch, ...)
            float16/32/64, integer or bool, or `gvcore.scaled`; converted to the dtype of the net row by row.
            Large batches run in chunks; about ten times a second signals are handled between them. A handler
            that changes the net changes the rows that are still to come.

        Returns
        -------
        ndarray, or tuple of ndarray
            What ``forward`` returns, of shape (batch, ...).

        Raises
        ------
        TypeError, ValueError
            If an input has the wrong dtype or shape.
        """
        if inputs and isinstance(inputs[0], trace.Value):
            result = self.forward(*inputs)
            if (calls := inputs[0].trace.calls) is not None:
                calls.append((self, inputs[0], result))
            return result
        runner = self.__dict__.get("_inference")
        if runner is None:
            runner = Inference(self)
            object.__setattr__(self, "_inference", runner)
        return runner(inputs)

    # ---- what it consists of ----------------------------------------------------------------

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, submodule) in the order in which they were set."""
        for name, value in self.__dict__.items():
            if isinstance(value, Module):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (dotted name, module) for this module and all below it, each before its parts."""
        path = Path()
        stack = [(prefix, self, 0)]
        while stack:
            name, module, depth = stack.pop()
            path.enter(name, module, depth)
            yield name, module
            parts = [(f"{name}.{key}" if name else key, child, depth + 1) for key, child in module.children()]
            stack += reversed(parts)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, `Parameter`), each parameter once."""
        yield from self.inventory().parameters.items()

    def aliases(self) -> list[tuple[Parameter, list[str]]]:
        """Return each parameter with all its dotted names, several where it or a module is set twice."""
        found: dict[int, tuple[Parameter, list[str]]] = {}
        for name, part in self._arrays():
            if isinstance(part, Parameter):
                found.setdefault(id(part), (part, []))[1].append(name)
        return list(found.values())

    def _arrays(self) -> Iterator[tuple[str, Parameter | NDArray[Any]]]:
        """Yield (dotted name, parameter or buffer) for every name."""
        for name, module in self.named_modules():
            prefix = f"{name}." if name else ""
            for key, value in module.__dict__.items():
                if isinstance(value, Parameter):
                    yield prefix + key, value
            for key, array in module.__dict__.get("_buffers", {}).items():
                yield prefix + key, array

    def inventory(self) -> Inventory:
        """Return all parts of the net, gathered in one walk."""
        return Inventory(self)

    def register_buffer(self, name: str, array: NDArray[Any]) -> None:
        """Keep an array that belongs to the net but is not trained, such as running statistics.

        It can be read as an attribute; setting that attribute copies values of the same shape into the
        array, converted to its dtype.
        """
        if "_buffers" not in self.__dict__:
            object.__setattr__(self, "_buffers", {})
        self.__dict__["_buffers"][name] = array
        changed()
        moved()

    def buffer(self, name: str) -> NDArray[Any]:
        """Return a buffer of this module itself."""
        array: NDArray[Any] = self.__dict__["_buffers"][name]
        return array

    def parameters(self) -> dict[str, NDArray[Any]]:
        """Return dotted name -> array of every parameter, in the order of the modules.

        The arrays are views: writing to them between calls changes the net, for as long as the parameters
        stay where they lie. They move into other memory, and leave behind the arrays that were returned
        before, which keep their values and change nothing any more: in `astype`; when this is called of
        another net that shares modules with this one (`Trainer.fit` calls it), and again of this one after
        that; when it is called after modules or parameters were added.

        Raises
        ------
        TypeError
            If the net is of float32 and float64; `astype` makes it one.
        """
        parts = self.inventory()
        parts.dtype()  # raises where there are two, before anything moves
        named = parts.parameters
        flatten(list(named.values()))
        return {name: parameter.data for name, parameter in named.items()}

    def buffers(self) -> dict[str, NDArray[Any]]:
        """Return dotted name -> array of every buffer (running statistics); views as well."""
        return {name: module.buffer(key) for name, module, key in self.inventory().buffers}

    def num_parameters(self) -> int:
        """Return how many numbers the parameters hold."""
        return sum(parameter.size for _, parameter in self.named_parameters())

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype in which the net computes: that of its parameters, or float32.

        A net without parameters keeps that of its last `astype`.
        """
        return self.inventory().dtype()

    # ---- changing it ------------------------------------------------------------------------

    def astype(self: _Self, dtype: DTypeLike) -> _Self:
        """Convert all parameters and buffers in place to float32 or float64; earlier views are detached.

        Raises
        ------
        TypeError
            If `dtype` is neither.
        """
        wanted = np.dtype(dtype)
        if wanted not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise TypeError(f"[astype] expected float32 or float64, got {wanted}")
        changed()
        parts = self.inventory()
        flatten(list(parts.parameters.values()), wanted)
        for _, module, key in parts.buffers:
            module.register_buffer(key, module.buffer(key).astype(wanted))
        for _, module in self.named_modules():  # counts where there is neither
            object.__setattr__(module, "_converted", wanted)
        return self

    def reset_parameters(self: _Self, seed: int | np.random.SeedSequence | None = None) -> _Self:
        """Draw all parameters anew, in name order (the order of `parameters`), and reset the buffers.

        The same seed gives the same bits. Returns the net.
        """
        key = as_seed(seed)
        for site, (_, parameter) in enumerate(self.named_parameters()):
            parameter.reset(key, site)
        for _, module in self.named_modules():
            module.reset_buffers()
        return self

    def reset_buffers(self) -> None:
        """Give the buffers of this module itself their first values."""

    def freeze(self: _Self, pattern: str = "*") -> _Self:
        """Stop training the parameters of which a dotted name matches a shell pattern; returns the net.

        Raises
        ------
        ValueError
            If the pattern matches no parameter.
        """
        return self._set_trainable("freeze", pattern, False)

    def unfreeze(self: _Self, pattern: str = "*") -> _Self:
        """Train the parameters of which a dotted name matches a shell pattern again; returns the net."""
        return self._set_trainable("unfreeze", pattern, True)

    def _set_trainable(self: _Self, op: str, pattern: str, trainable: bool) -> _Self:
        if not isinstance(pattern, str):
            raise TypeError(f"[{op}] expected a pattern (str), got {type(pattern).__name__}")
        matched = [p for p, names in self.aliases() if any(fnmatch.fnmatchcase(n, pattern) for n in names)]
        if not matched:
            names = ", ".join(name for name, _ in self.named_parameters())
            raise ValueError(
                f"[{op}] expected a pattern that matches a parameter, got {pattern!r}; there are {names}"
            )
        for parameter in matched:
            parameter.requires_grad = trainable
        changed()
        return self

    # ---- saving it --------------------------------------------------------------------------

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return dotted name -> copy of every parameter and buffer, with PyTorch's names.

        What has several names, as in a module that is set in two places, is there under each of them.
        """
        return {
            name: np.array(part.data if isinstance(part, Parameter) else part)
            for name, part in self._arrays()
        }

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy values from a dict of PyTorch's names; ``num_batches_tracked`` is ignored.

        Parameters
        ----------
        state : mapping of str to array_like
            Converted to the dtype of the net; infinities and NaN are taken as they are.
        strict : bool, default True
            Whether names that are missing or unknown are errors. Of a parameter or buffer with several
            names one is enough; of several the last one counts.

        Raises
        ------
        TypeError, ValueError
            If names or shapes do not fit, or the dtype of the net cannot hold a finite number; nothing has
            been written then.
        """
        if not isinstance(state, Mapping):
            raise TypeError(
                f"[load_state_dict] expected a mapping of names to arrays, got {type(state).__name__}"
            )
        own = {name: part.data if isinstance(part, Parameter) else part for name, part in self._arrays()}
        given = {k: v for k, v in state.items() if k.rpartition(".")[2] != "num_batches_tracked"}
        if strict:
            found = {id(own[k]) for k in given if k in own}
            missing = [k for k, array in own.items() if id(array) not in found]
            unknown = [k for k in given if k not in own]
            if missing or unknown:
                raise ValueError(
                    f"[load_state_dict] expected the names of the net, got missing {missing[:8]} "
                    f"and unknown {unknown[:8]}"
                )
        ready = {
            name: _fitting("load_state_dict", name, value, own[name])
            for name, value in given.items()
            if name in own
        }
        for name, array in ready.items():
            own[name][...] = array

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_inference", "_given")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_buffers" in state:  # their memory may be that of a file, which cannot be written
            self.__dict__["_buffers"] = {name: np.array(array) for name, array in state["_buffers"].items()}

    def __deepcopy__(self: _Self, memo: dict[int, Any]) -> _Self:
        new = self.__class__.__new__(self.__class__)
        memo[id(self)] = new
        for key, value in self.__getstate__().items():
            new.__dict__[key] = copy.deepcopy(value, memo)
        return new

    def __copy__(self: _Self) -> _Self:
        new = self.__class__.__new__(self.__class__)
        new.__dict__.update(self.__getstate__())
        return new

    # ---- showing it -------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """Return what stands between the brackets of ``repr`` for a module without parts."""
        return ""

    def __repr__(self) -> str:
        parts = list(self.children())
        if not parts:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [f"  ({name}): " + repr(part).replace("\n", "\n  ") for name, part in parts]
        if len(lines) > 12:
            lines = [*lines[:6], f"  … {len(lines) - 9} more", *lines[-3:]]
        return f"{type(self).__name__}(\n" + "\n".join(lines) + "\n)"


def _fitting(op: str, name: str, value: Any, place: NDArray[Any]) -> NDArray[Any]:
    """Return `value` in the dtype of `place`, into which it is to be copied; raise if it does not fit."""
    array = as_array(op, name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"[{op}] expected {name} to be real numbers, got dtype {array.dtype}")
    if array.shape != place.shape:
        raise ValueError(f"[{op}] expected {name} of shape {place.shape}, got {array.shape}")
    with np.errstate(all="ignore"):
        result = array.astype(place.dtype, copy=False)
    beyond = np.isinf(result) & np.isfinite(array)
    if beyond.any():
        raise ValueError(
            f"[{op}] expected {name} to hold numbers in the range of {place.dtype}, got {array[beyond][0]:g}"
        )
    return result


class Path:
    """The modules from the net down to the one that a walk has come to, which may not hold one of them."""

    def __init__(self) -> None:
        self._modules: list[int] = []
        self._there: set[int] = set()

    def enter(self, name: str, module: Module, depth: int) -> None:
        """Go on to a module that lies so deep; raise a ValueError if the way there leads through it."""
        for left in self._modules[depth:]:
            self._there.remove(left)
        del self._modules[depth:]
        if id(module) in self._there:
            raise ValueError(
                f"[Module] expected modules without a circle, got {name}, which is the "
                f"{type(module).__name__} that it is a part of"
            )
        self._modules.append(id(module))
        self._there.add(id(module))


class Inventory:
    """What a net consists of at the moment, gathered in one walk over its modules.

    Attributes
    ----------
    parameters : dict of str to Parameter
        By dotted name, each parameter once.
    buffers : list of (str, Module, str)
        Dotted name, owner and key, each buffer once.
    structure : tuple
        Equal for two walks if modules, settings, shapes and dtypes are the same. Settings are all other
        attributes, with the values that they have outside of forward.
    """

    def __init__(self, net: Module) -> None:
        self.parameters: dict[str, Parameter] = {}
        self.buffers: list[tuple[str, Module, str]] = []
        self._alive: list[Any] = []  # what is compared by its id, which no other object may get meanwhile
        parts: list[Any] = []
        seen: set[int] = set()
        path = Path()
        stack: list[tuple[str, Module, int]] = [("", net, 0)]
        while stack:
            prefix, module, depth = stack.pop()
            path.enter(prefix[:-1], module, depth)
            new = id(module) not in seen
            seen.add(id(module))
            parts.append(id(module))
            self._alive.append(module)
            attributes = module.__dict__
            if "_given" in attributes:
                attributes = {**attributes, **attributes["_given"]}
            children: list[tuple[str, Module, int]] = []
            for key, value in attributes.items():
                kind = type(value)
                if kind in _PLAIN:
                    parts += (key, value)  # flat: thousands of small tuples would keep the collector busy
                elif isinstance(value, Parameter):
                    parts += (key, id(value), value.shape, value.dtype)
                    if id(value) not in seen:
                        seen.add(id(value))
                        self.parameters[prefix + key] = value
                elif isinstance(value, Module):
                    children.append((f"{prefix}{key}.", value, depth + 1))
                elif key == "_buffers":
                    for name, array in value.items() if new else ():
                        parts += (name, array.shape, array.dtype)
                        self.buffers.append((prefix + name, module, name))
                elif issubclass(kind, np.generic):
                    parts += (key, value)
                elif key not in _OWN and value is not _NOTHING:
                    parts += (key, id(value))
                    self._alive.append(value)
            if children:
                children.reverse()
                stack += children
        self._converted: np.dtype[Any] = net.__dict__.get("_converted", np.dtype(np.float32))
        if not (self.parameters or self.buffers):
            parts.append(self._converted)
        self.structure = tuple(parts)

    @property
    def trained(self) -> tuple[bool, ...]:
        """Which parameters are trained."""
        return tuple([p.requires_grad for p in self.parameters.values()])

    def dtype(self) -> np.dtype[Any]:
        """The dtype of all parameters and buffers; if there are none that of `astype`, or float32."""
        found = {p.dtype for p in self.parameters.values()}
        found |= {module.buffer(key).dtype for _, module, key in self.buffers}
        if len(found) > 1:
            first: dict[str, str] = {}
            for name, parameter in self.parameters.items():
                first.setdefault(parameter.dtype.name, name)
            for name, module, key in self.buffers:
                first.setdefault(module.buffer(key).dtype.name, name)
            got = " and ".join(f"{kind} in {name}" for kind, name in sorted(first.items()))
            raise TypeError(
                f"[Module] expected all parameters of one dtype, got {got}; give nn.Parameter an array of "
                "the net's dtype, array.astype(np.float32), or convert the net, net.astype(np.float32)"
            )
        return found.pop() if found else self._converted


_PLAIN = frozenset({int, float, str, bool, type(None)})
_PARTS = (Parameter, Module)
_OWN = frozenset({"_inference", "_given", "_converted"})  # attributes that are no settings
_NOTHING = object()  # the setting of an attribute that only forward has set

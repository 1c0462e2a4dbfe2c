"""What a function does with an argument that is not a plain array: hand traced values to the graph.

Nothing is computed here. A traced value has the attribute ``__gv_traced__``; the graph is built by
``gvcore.nn``, which leaves its recorder in ``gvcore.functional._traced_call``.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[Any]
ndarray = np.ndarray


def traced_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the traced result of a call, or NotImplemented if no argument is traced."""
    given = args[0] if args and isinstance(args[0], (list, tuple)) else args
    if not any(hasattr(arg, "__gv_traced__") for arg in given):
        return NotImplemented
    if kwargs.pop("out", None) is not None:
        raise TypeError(f"[{name}] expected no out with traced values, got out=")
    hook = sys.modules["gvcore.functional"]._traced_call
    result = NotImplemented if hook is None else hook(name, args, kwargs)
    if result is NotImplemented:
        kinds = ", ".join(type(arg).__name__ for arg in given)
        raise TypeError(f"[{name}] expected arrays or values traced in nn.Module.forward, got {kinds}")
    return result


def refuse_traced(name: str, alternative: str, *args: Any) -> None:
    """Raise if an argument is traced; `alternative` says what to use inside ``Module.forward``."""
    if any(hasattr(arg, "__gv_traced__") for arg in args):
        raise TypeError(
            f"[{name}] expected arrays, got a traced value: it does not run inside nn.Module.forward; "
            f"use {alternative}"
        )

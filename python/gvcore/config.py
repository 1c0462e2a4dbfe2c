"""Threads, instruction sets, and what this build is."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from gvcore import _core
from gvcore._settings import integer

__all__ = [
    "available_isas",
    "get_num_threads",
    "isa",
    "set_num_threads",
    "show_config",
    "threads",
]


def available_isas() -> list[str]:
    """Return the instruction sets that this processor and this build have, best first.

    Examples
    --------
    >>> available_isas()[-1]
    'scalar'
    """
    return list(_core.available_isas())


def get_num_threads() -> int:
    """Return how many threads a call uses at most.

    By default the least of ``OMP_NUM_THREADS``, the processors this process may run on and the CPU quota of
    its control group; ``GVCORE_NUM_THREADS``, `set_num_threads` and threadpoolctl change it. A
    ``GVCORE_NUM_THREADS`` that is not a whole number of at least 1 is an ImportError.
    """
    return int(_core.num_threads())


def set_num_threads(n: int) -> None:
    """Use up to `n` threads from now on, in the whole process; no result depends on it.

    Parameters
    ----------
    n : int
        At least 1. More than there are processors is honoured, as far as the system can make threads.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an int >= 1.
    """
    _core.set_num_threads(min(integer("set_num_threads", "n", n, at_least=1), 2**31 - 1))


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Use up to `n` threads inside a ``with`` block; no result depends on it.

    The number is that of the process: other threads use it as well while the block runs, and the block puts
    back what it found.

    Parameters
    ----------
    n : int
        At least 1; see `set_num_threads`.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an int >= 1.

    Examples
    --------
    >>> with threads(1):
    ...     get_num_threads()
    1
    """
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


@contextmanager
def isa(name: str) -> Iterator[None]:
    """Use the kernels of one instruction set inside a ``with`` block; no result depends on it.

    Without it the best one is used, or that of the environment variable ``GVCORE_ISA``, where another name
    than those of `available_isas` is an ImportError.

    The choice is that of the process: calls in other threads use these kernels as well while the block runs,
    and the block puts back what it found.

    Parameters
    ----------
    name : str
        One of `available_isas`.

    Raises
    ------
    TypeError
        If `name` is not a str.
    ValueError
        If this processor or this build does not have it.

    Examples
    --------
    >>> with isa("scalar"):
    ...     pass
    """
    if not isinstance(name, str):
        raise TypeError(f"[isa] expected a name (str), got {type(name).__name__}")
    before = _core.active_isa()
    _core.set_isa(name)
    try:
        yield
    finally:
        _core.set_isa(before)


def show_config() -> None:
    """Print version, instruction sets, threads and why that many, and the build."""
    active = _core.active_isa()
    sets = ", ".join(f"{name} (in use)" if name == active else name for name in available_isas())
    sys.stdout.write(
        f"gvcore            {_core.__version__}\n"
        f"instruction sets  {sets}\n"
        f"threads           {get_num_threads()} ({_core.num_threads_reason()})\n"
        f"compiler          {_core.compiler}\n"
        f"python            {platform.python_version()} on {platform.machine()}\n"
        f"numpy             {np.__version__}\n"
    )

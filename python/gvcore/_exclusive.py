"""A lock around plans, which one call at a time may run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Exclusive"]

_Result = TypeVar("_Result")

_forks = 0  # between this process and the one that imported gvcore
_mending = threading.Lock()


def _forked() -> None:
    global _forks, _mending
    _forks += 1
    _mending = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Exclusive:
    """A lock for one thread at a time that cannot wait for itself, nor for a thread that fork left behind.

    A child process has only the thread that forked. What another one was doing then is `torn`: half done,
    with nobody to finish it.

    Parameters
    ----------
    owner, within : str
        Who is locked, and what could call it again from within, for the message.
    """

    def __init__(self, owner: str, within: str) -> None:
        self.torn = False
        self._lock = threading.RLock()
        self._thread: int | None = None
        self._forks = _forks
        self._refusal = f"[{owner}] expected {within} and signal handlers not to call the {owner} that runs"

    def run(self, work: Callable[[], _Result]) -> _Result:
        """Return ``work()``; other threads wait meanwhile, and a call from within it is refused."""
        # Ctrl-C comes before or after a lock's own enter and exit; amid those of a class it would stay shut.
        with self._current():
            if self._thread is not None:
                raise RuntimeError(self._refusal)
            self._thread = threading.get_ident()
            try:
                return work()
            finally:
                self._thread = None

    def _current(self) -> threading.RLock:
        if self._forks != _forks:
            with _mending:
                if self._forks != _forks and self._thread != threading.get_ident():
                    self.torn = self._thread is not None
                    self._lock, self._thread = threading.RLock(), None
                self._forks = _forks
        return self._lock

    def mended(self) -> bool:
        """Return whether what is locked was torn, once: the caller makes it anew."""
        torn, self.torn = self.torn, False
        return torn

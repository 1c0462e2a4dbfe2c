"""A lock around plans, which one call at a time may run."""

from __future__ import annotations

import os
import threading
from types import TracebackType

__all__ = ["Exclusive"]

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
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._forks = _forks
        self._refusal = f"[{owner}] expected {within} not to call the {owner} that it is a part of"

    def __enter__(self) -> None:
        if self._forks != _forks:
            self._leave_behind()
        me = threading.get_ident()
        if self._thread == me:
            raise RuntimeError(self._refusal)
        self._lock.acquire()
        self._thread = me

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread = None
        self._lock.release()

    def _leave_behind(self) -> None:
        with _mending:
            if self._forks == _forks:
                return
            if self._lock.locked() and self._thread != threading.get_ident():
                self._lock, self._thread, self.torn = threading.Lock(), None, True
            self._forks = _forks

    def mended(self) -> bool:
        """Return whether what is locked was torn, once: the caller makes it anew."""
        torn, self.torn = self.torn, False
        return torn

"""The machine: what it is, how busy it is, and the limits that it sets, measured in each run."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gvcore as gv
from gvcore import _core

__all__ = ["Memory", "Peak", "describe", "has_avx512", "load"]


class Peak:
    """Contestant: fused multiply-adds in registers, on `threads` threads, flop per second."""

    def __init__(self, threads: int, dtype: str = "float32", rounds: int | None = None) -> None:
        self._passes = {"float32": _core.fma_passes_float32, "float64": _core.fma_passes_float64}[dtype]
        self._threads = threads
        self._rounds = rounds or (2_000 if _core.active_isa() == "scalar" else 100_000)
        self.flop = 0.0

    def turn(self, seconds: float) -> list[float]:
        """Measure some passes."""
        self.flop, first = self._passes(self._threads, self._rounds, 3)
        count = max(3, min(100, int(min(seconds, 0.05) / min(first))))
        return self._passes(self._threads, self._rounds, count)[1]

    def rate(self, samples: Sequence[float]) -> float:
        """Return flop per second of the fastest pass: a limit is what the processor can do at best."""
        return self.flop / min(samples)


class Memory:
    """Contestant: y += 0.5 x over two arrays that fill `working_set` bytes, bytes per second.

    The working set decides which cache answers, so a limit asks with its own.
    """

    def __init__(self, threads: int, working_set: float) -> None:
        self._threads = threads
        self._elements = max(1024, int(working_set) // 8)
        self.bytes = 0.0

    def turn(self, seconds: float) -> list[float]:
        """Measure some passes."""
        self.bytes, first = _core.memory_passes(self._threads, self._elements, 3)
        count = max(3, min(1000, int(min(seconds, 0.05) / min(first))))
        return _core.memory_passes(self._threads, self._elements, count)[1]

    def rate(self, samples: Sequence[float]) -> float:
        """Return bytes per second of the fastest pass."""
        return self.bytes / min(samples)


def has_avx512() -> bool:
    """Return whether the processor has AVX-512, whatever gvcore uses."""
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _caches() -> dict[str, str]:
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}"] = size
    return found


def load() -> float | None:
    """Return how many processes ran on average in the last minute, None where nobody counts."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def describe() -> dict[str, Any]:
    """Describe the machine, the build and the day."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "cpu": _cpu(),
        "cpus": usable,
        "caches": _caches(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "gvcore": gv.__version__,
        "compiler": _core.compiler,
        "isa": _core.active_isa(),
        "load": load(),
    }

"""The other end of `worker`: a contestant that lives in a process of its own, with its own settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.residual_net import Net

__all__ = ["Remote"]

ROOT = Path(__file__).resolve().parents[2]
THREADS = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GVCORE_NUM_THREADS"]
SETTINGS = {"numpy avx512": {"OPENBLAS_CORETYPE": "SKYLAKEX"}}


class Remote:
    """Start the process of `peer`; `python` is the interpreter that has its packages."""

    def __init__(self, peer: str, net: Net, threads: int, python: str = sys.executable) -> None:
        self.peer = peer
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            **dict.fromkeys(THREADS, str(threads)),
            **SETTINGS.get(peer, {}),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.peers.worker", peer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        try:
            answer = self._ask(ask="prepare", net=net.to_dict(), threads=threads)
        except BaseException:
            self.close()
            raise
        self.skipped: str | None = answer.get("skipped")
        self.settings: str = answer.get("settings", "")
        self.losses: dict[str, list[float]] = answer.get("losses", {})

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            last = self._errors.read()[-2000:]
            raise RuntimeError(f"[benchmarks] the process of {self.peer} ended:\n{last}")
        return dict(json.loads(line))

    def turn(self, seconds: float) -> list[float]:
        return list(self._ask(ask="turn", seconds=seconds)["samples"])

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

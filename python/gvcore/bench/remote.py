"""The other end of `worker`: a contestant that lives in a process of its own, with its own settings."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from gvcore.bench.harness import Options
from gvcore.bench.machine import has_avx512

__all__ = ["PEERS", "Remote", "start"]

# Everybody whom a suite may compare with.
PEERS = ("numpy", "numpy avx512", "torch", "torch.compile", "jax", "sklearn")

THREADS = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GVCORE_NUM_THREADS"]
# Without these OpenBLAS is as it comes, whatever the environment of this process says.
UNSET = ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"]
SETTINGS = {"numpy avx512": {"OPENBLAS_CORETYPE": "SKYLAKEX"}}
PACKAGE = Path(__file__).resolve().parents[1]

# A peer needs the files of gvcore.bench and not gvcore: its interpreter may have none, and no second OpenMP
# of ours is loaded beside its own.
BOOTSTRAP = """
import sys, types
folder, peer = sys.argv[1:]
if folder:
    package = sys.modules["gvcore"] = types.ModuleType("gvcore")
    package.__path__ = [folder]
from gvcore.bench.worker import main
main(peer)
"""


class Remote:
    """The process of `peer`, which runs the function ``"module:function"`` with so many threads."""

    def __init__(
        self, peer: str, function: str, threads: int, options: Options, paths: tuple[Path, ...] = ()
    ) -> None:
        self.peer, self.threads = peer, threads
        self.skipped: str | None = None
        self.settings = ""
        self.answers: dict[str, list[float]] = {}
        environment = {name: value for name, value in os.environ.items() if name not in UNSET}
        environment |= {**dict.fromkeys(THREADS, str(threads)), **SETTINGS.get(peer, {})}
        known = [*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(known)
        folder = "" if peer.partition(" ")[0] == "gvcore" else str(PACKAGE)
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [options.python(peer), "-c", BOOTSTRAP, folder, function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )

    def prepare(self, case: Mapping[str, Any]) -> bool:
        """Build a case; return False, and say why in `skipped`, if the peer cannot."""
        answer = self.ask("prepare", case=dict(case), threads=self.threads)
        self.skipped = answer.get("skipped")
        self.settings, self.answers = answer.get("settings", ""), answer.get("answers", {})
        return self.skipped is None

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"ask": request, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            last = self._errors.read()[-2000:]
            raise RuntimeError(f"[bench] the process of {self.peer} ended:\n{last}")
        return dict(json.loads(line))

    def turn(self, seconds: float) -> list[float]:
        """Time the case in the other process."""
        return list(self.ask("turn", seconds=seconds)["samples"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
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


@contextlib.contextmanager
def start(
    functions: Mapping[str, str], threads: int, options: Options, paths: tuple[Path, ...] = ()
) -> Iterator[tuple[dict[str, Remote], dict[str, str]]]:
    """Start the peers that are wanted, for the length of a ``with``; also return who cannot run, and why."""
    skipped: dict[str, str] = {}
    remotes: dict[str, Remote] = {}
    with contextlib.ExitStack() as stack:
        for peer, function in functions.items():
            if not options.wants(peer):
                continue
            if peer == "numpy avx512" and not has_avx512():
                skipped[peer] = "this processor has no AVX-512"
                continue
            remotes[peer] = stack.enter_context(Remote(peer, function, threads, options, paths))
        yield remotes, skipped

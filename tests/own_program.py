"""Programs in C++ for what nothing in Python sees: each is a file beside its test."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CSRC = TESTS.parent / "csrc"


def compiled(folder: Path, name: str, *sources: str) -> Path:
    """Compile tests/<name>.cpp with some sources of csrc/; skip without a compiler."""
    names = (os.environ.get("CXX", "c++"), "c++", "g++", "clang++")
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        pytest.skip(f"no C++ compiler to build {name}.cpp with")
    program = folder / name
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", f"-I{CSRC}"]
    files = [TESTS / f"{name}.cpp", *(CSRC / source for source in sources)]
    built = subprocess.run(
        [compiler, *flags, *map(str, files), "-o", str(program)], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return program


def runs(program: Path, **environment: str) -> None:
    """Run a program, which says what was wrong."""
    result = subprocess.run(
        [str(program)], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )
    assert result.returncode == 0, f"exit status {result.returncode}: {result.stdout}"

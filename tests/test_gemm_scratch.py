"""How much scratch a product takes: nothing in Python sees it, so gemm_scratch.cpp puts a guard behind it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize("caches", ["32,1024", "48,2048", "16,64"])
def test_a_product_keeps_to_its_scratch(tmp_path: Path, caches: str) -> None:
    compiler = next(
        filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "c++", "g++", "clang++"))), None
    )
    if compiler is None:
        pytest.skip("no C++ compiler to build gemm_scratch.cpp with")
    csrc = TESTS.parent / "csrc"
    program = tmp_path / "gemm_scratch"
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", f"-I{csrc}"]
    sources = [
        str(TESTS / "gemm_scratch.cpp"),
        *(str(csrc / name) for name in ("ops/gemm.cpp", "base/caches.cpp")),
    ]
    built = subprocess.run([compiler, *flags, *sources, "-o", str(program)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    env = {**os.environ, "GVCORE_CACHES": caches}
    result = subprocess.run([str(program)], capture_output=True, text=True, timeout=120, env=env)
    assert result.returncode == 0, f"exit status {result.returncode}: {result.stdout}"

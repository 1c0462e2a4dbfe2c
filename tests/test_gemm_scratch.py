"""How much scratch a product takes: nothing in Python sees it, so gemm_scratch.cpp puts a guard behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from own_program import compiled, runs


@pytest.mark.parametrize("caches", ["32,1024", "48,2048", "16,64"])
def test_a_product_keeps_to_its_scratch(tmp_path: Path, caches: str) -> None:
    runs(compiled(tmp_path, "gemm_scratch", "ops/gemm.cpp", "base/caches.cpp"), GVCORE_CACHES=caches)

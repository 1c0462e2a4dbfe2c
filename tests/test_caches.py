"""How memory is walked follows the caches of the processor; what is computed does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

# L1 with and without room for a panel of B, and an L2 that holds a tile's rows of A at most.
CACHES = ["32,1024", "48,2048", "16,64"]

# Products cut in rows, columns and k, every way round; norms of short rows and long ones, in cache and from
# memory; and a step whose products are as large.
RESULTS = """
import hashlib
import numpy as np
import gvcore as gv
from gvcore import functional as F, nn

digest = hashlib.sha256()
rng = np.random.default_rng(1)
for isa in gv.available_isas():
    for m, n, k in [(150, 530, 1100), (33, 70, 2060), (300, 200, 520), (15, 40, 700)]:
        for dtype in (np.float32, np.float64):
            a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
            with gv.isa(isa):
                for left in (a, np.asfortranarray(a)):
                    for right in (b, np.asfortranarray(b)):
                        digest.update(F.matmul(left, right))
    for columns in [3, 17, 160, 161, 300, 320, 321, 512, 513]:
        rows = 90_000 // columns // 128 * 128 + 258
        for dtype in (np.float32, np.float64):
            x, dy = rng.standard_normal((2, rows, columns)).astype(dtype)
            within = np.empty(x.size + 3, dtype)[3:].reshape(x.shape)
            within[...] = x
            wide = np.zeros((rows, columns + 5), dtype)[:, 2:-3]
            wide[...] = x
            with gv.isa(isa):
                for view in (x, within, wide):
                    y, mean, rstd = F.batch_norm(view, None, None)
                    gradients = F.batch_norm_backward(dy, view, mean, rstd, None)
                    for result in (y, mean, rstd, *gradients, F.batch_norm_inference(view, mean, rstd)):
                        digest.update(result)
    model = nn.Sequential(nn.Linear(530, 260), nn.BatchNorm(260), nn.ReLU(), nn.Linear(260, 5))
    model.reset_parameters(1)
    with gv.isa(isa):
        step = gv.TrainStep(model, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1, momentum=0.9))
        x, y = rng.standard_normal((300, 530)).astype(np.float32), rng.integers(0, 5, 300)
        for _ in range(2):
            step(x, y)
    for parameter in model.parameters().values():
        digest.update(parameter)
print(digest.hexdigest())
"""


def run(code: str, caches: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "GVCORE_CACHES": caches}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=env)


def test_the_caches_never_show_in_the_bits() -> None:
    results = [run(RESULTS, caches) for caches in ["", *CACHES]]
    assert [result.stderr for result in results] == [""] * len(results)
    assert len({result.stdout for result in results}) == 1


def test_gvcore_caches_is_in_kib() -> None:
    result = run("from gvcore import _core; print(_core.caches)", "48,2048")
    assert result.stdout.strip() == f"({48 << 10}, {2048 << 10})", result.stderr


@pytest.mark.skipif(shutil.which("getconf") is None, reason="no getconf to ask the system with")
def test_the_caches_are_those_of_the_system() -> None:
    sizes = []
    for name in ["LEVEL1_DCACHE_SIZE", "LEVEL2_CACHE_SIZE"]:
        said = subprocess.run(["getconf", name], capture_output=True, text=True).stdout.strip()
        sizes.append(int(said) if said.isdigit() else 0)
    if min(sizes) == 0:
        pytest.skip("the system does not say")
    assert run("from gvcore import _core; print(_core.caches)", "").stdout.strip() == str(tuple(sizes))


@pytest.mark.parametrize(
    "caches", ["32", "32,", "32,0", "-1,1024", "32,1024,8", "L1", "32,1024K", "4294967328,1"]
)
def test_gvcore_caches_that_cannot_be_read(caches: str) -> None:
    result = run("import gvcore", caches)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == (
        "ImportError: [caches] expected GVCORE_CACHES to be the KiB of L1 and L2, such as 32,1024, got "
        + caches
    )

"""A step allocates nothing once it has run, and memory does not grow with the number of steps.

What the process asks for is counted by a small library of the test's own, count_allocations.c, that is
loaded before everything else. Python allocates around every call, so a native call of no step at all is
compared with one of a single step and one of many: what a step allocates would show in the difference.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD and /proc are those of Linux")

CASES = ["fused", "clipped, AdamW, dropout", "accumulated", "accumulated, then updated", "smaller last batch"]
CASES += ["sample weights", "layer norm, unfused update", "float64", "by rows", "by rows, accumulated"]

COUNT = """
import ctypes, itertools, json, sys
import numpy as np
import gvcore as gv
from gvcore import _core, nn

allocations = ctypes.CDLL(None).allocations
allocations.restype = ctypes.c_long
_core.set_worth_waking(1.0)

def net(name):
    norm = nn.LayerNorm(33) if "layer norm" in name else nn.BatchNorm(33)
    parts = [nn.Linear(17, 33), norm, nn.ReLU(), nn.Residual(nn.Linear(33, 33), nn.BatchNorm(33), nn.ReLU())]
    parts += [nn.Dropout(0.2)] if "dropout" in name else []
    built = nn.Sequential(*parts, nn.Linear(33, 5)).reset_parameters(0)
    return built.astype(np.float64) if name == "float64" else built

def counts(name, threads, many):
    gv.set_num_threads(threads)
    _core.set_panels("rows" if "by rows" in name else "automatic")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 17)), rng.integers(0, 5, 200)
    adam = "AdamW" in name
    optimizer = gv.optim.AdamW(lr=1e-3) if adam else gv.optim.SGD(lr=1e-3, momentum=0.9)
    step = gv.TrainStep(net(name), nn.CrossEntropyLoss(), optimizer, clip_norm=0.5 if adam else None, seed=1)
    weights = rng.uniform(0.5, 1.5, 200) if name == "sample weights" else None
    accumulate = "accumulated" in name
    step(x[:64], y[:64], accumulate=accumulate)
    (plan,) = step._plans._plans.values()
    core = step._bound(plan)
    dtype = plan.recorded.dtype
    inputs, target = [x.astype(dtype)], y.astype(np.int64)

    # Batches of 64 rows; or of 64, 64 and 7 in turn.
    sizes = itertools.cycle([64, 64, 7] if name == "smaller last batch" else [64])
    cuts = np.cumsum([0, *itertools.islice(sizes, many)])
    order = rng.integers(0, 200, cuts[-1])
    rates, losses = np.full(many, 1e-3), np.empty(many)

    def call(steps, request):
        done = core.steps(inputs, target, weights, order, cuts[: steps + 1], rates[:steps], losses[:steps],
                          request, 60.0)
        assert done == steps, done

    def run(steps):
        request = step._describe(1e-3, accumulate)
        before = allocations()
        call(steps, request)
        if name == "accumulated, then updated":
            request.update, request.accumulate = True, False
            call(min(steps, 1), request)
        return allocations() - before

    run(many), run(1), run(0)
    team = core.step(inputs, target, weights, order[:64], step._describe(1e-3, accumulate))[2]
    return {"team": team, **{steps: [run(steps) for _ in range(3)] for steps in (0, 1, many)}}

before = allocations()
x = np.empty(1 << 20)
found = {"works": allocations() - before}
cases, many = json.loads(sys.argv[1])
for name in cases:
    for threads in (1, 2):
        found[f"{name}, {threads}"] = counts(name, threads, many)
print(json.dumps(found))
"""


def run(code: str, *arguments: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=600,  # alone it takes 11 s
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """How often memory was asked for, by case and number of threads."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("no C compiler to build count_allocations.c with")
    library = tmp_path_factory.mktemp("allocations") / "count.so"
    source = Path(__file__).with_name("count_allocations.c")
    subprocess.run(
        [compiler, "-O1", "-fPIC", "-shared", str(source), "-o", str(library), "-ldl"],
        check=True,
        capture_output=True,
    )
    return json.loads(run(COUNT, json.dumps([CASES, 200]), LD_PRELOAD=str(library)))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("threads", [1, 2])
def test_steps_allocate_nothing(name: str, threads: int, counted: Any) -> None:
    found = counted[f"{name}, {threads}"]
    assert counted["works"] >= 1 and found["team"] == threads
    assert found["200"] == found["1"] == found["0"]


# A net of a few numbers, so that a hundred thousand steps take a few seconds.
GROW = """
import os, sys
import numpy as np
import gvcore as gv
from gvcore import nn
from gvcore.train.batch import as_batch

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

gv.set_num_threads(1)
rng = np.random.default_rng(0)
x, y = rng.normal(size=(16, 3)).astype(np.float32), rng.integers(0, 2, 16)
net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.ReLU(), nn.Dropout(0.1), nn.Linear(4, 2))
kind, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
step = gv.TrainStep(net.reset_parameters(0), nn.CrossEntropyLoss(), gv.optim.SGD(lr=1e-4, momentum=0.9),
                    clip_norm=1.0, seed=0)
batch = as_batch("test", x, y, np.dtype(np.float32), step.loss)
batch.order = np.tile(np.arange(16), 250)
cuts = np.arange(0, 4001, 4)
rates, losses = np.full(1000, 1e-4), np.empty(1000)

def train(steps):
    if kind == "native":
        for _ in range(steps // 1000):
            assert step.run_many(batch, cuts, rates, losses, 60.0) == 1000
    else:
        for i in range(steps):
            step(x[: 4 + i % 13], y[: 4 + i % 13])

train(first)
before = resident()
train(last - first)
print(step.updates, resident() - before)
"""


@pytest.mark.parametrize(("kind", "first", "last"), [("native", 10_000, 100_000), ("called", 5_000, 45_000)])
def test_memory_does_not_grow_with_the_steps(kind: str, first: int, last: int) -> None:
    """Resident memory after many steps against after some; a number kept for each step would be too much."""
    updates, growth = map(int, run(GROW, kind, str(first), str(last)).split())
    assert updates == last
    assert growth < 256 * 1024

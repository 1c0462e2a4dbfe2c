"""Code that runs in a process of its own with a time limit: whatever must not hang, or ends the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="fork and affinity are those of Linux")
# What a user may have set in the environment of the tests.
OURS = ["OMP_NUM_THREADS", "GVCORE_NUM_THREADS", "GVCORE_ISA", "OMP_THREAD_LIMIT", "OMP_DYNAMIC"]

IMPORTS = """
import hashlib, os, sys
import numpy as np
import gvcore as gv
from gvcore import _core, nn
"""
TRAIN = (
    IMPORTS
    + """
_core.set_worth_waking(1.0)

def train(threads, steps=10):
    with gv.threads(threads):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(90, 17)), rng.integers(0, 3, 90)
        net = gv.models.resnet(17, 3, width=45, depth=12, dropout=0.1, seed=1)
        step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1, momentum=0.9), seed=2)
        for _ in range(steps):
            step(x, y)
        assert step.workers == threads, step.workers
        left = [*net.parameters().values(), net(x), gv.functional.matmul(x.T, x)]
    return hashlib.sha256(b"".join(array.tobytes() for array in left)).hexdigest()

"""
)


def run(code: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if key not in OURS}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**kept, **environment},
    )


def printed(code: str, timeout: float = 120, **environment: str) -> str:
    result = run(code, timeout, **environment)
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stderr}"
    return result.stdout.strip()

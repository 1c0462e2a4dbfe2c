"""What every wheel must do on the machine it was made for, with NumPy and nothing else."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import numpy as np

import gvcore as gv
from gvcore import nn


def test_version_is_the_same_everywhere() -> None:
    assert gv.__version__ == importlib.metadata.version("gvcore")


def test_import_needs_numpy_alone() -> None:
    code = (
        "import sys, gvcore, gvcore.nn\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'sklearn', 'scipy', 'matplotlib', 'tqdm', 'torch', 'onnx', 'pandas'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_kernel_computes() -> None:
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    b = np.arange(20, dtype=np.float32).reshape(4, 5)
    for isa in gv.available_isas():
        with gv.isa(isa):
            np.testing.assert_array_equal(gv.functional.matmul(a, b), a @ b)


def test_a_deep_network_learns_and_repeats_itself() -> None:
    x, y = gv.datasets.digits()
    x, y = x[:256], y[:256]

    def train() -> tuple[float, float, bytes]:
        net = gv.models.resnet(64, 10, width=16, depth=20, seed=0)
        step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.05, momentum=0.9))
        losses = [step(x[i : i + 64], y[i : i + 64]) for _ in range(10) for i in range(0, 256, 64)]
        return losses[0], losses[-1], b"".join(p.tobytes() for p in net.parameters().values())

    first, last, weights = train()
    assert last < 0.5 * first
    with gv.threads(2):
        assert train() == (first, last, weights)

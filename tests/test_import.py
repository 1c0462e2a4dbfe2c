"""What importing gvcore loads: NumPy and the standard library, nothing else, and leaves no trace.

Every test asks a fresh interpreter. How long the import takes is measured by benchmarks, not here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

OPTIONAL = ["sklearn", "scipy", "matplotlib", "pandas", "torch", "tqdm", "onnx", "safetensors"]


def ask(code: str, *options: str, **environment: str) -> Any:
    """Run code in a fresh interpreter and return what it prints last, as JSON."""
    result = subprocess.run(
        [sys.executable, *options, "-c", "import json, sys\n" + code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout.splitlines()[-1])


def test_only_numpy_and_the_standard_library_are_imported() -> None:
    code = """
import numpy
before = set(sys.modules)
import gvcore, gvcore.nn, gvcore.optim, gvcore.schedules, gvcore.functional, gvcore.models, gvcore.datasets
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(loaded - set(sys.stdlib_module_names))))
"""
    assert set(ask(code)) - {"numpy"} == {"gvcore"}


def test_without_any_optional_package_everything_but_extras_works() -> None:
    """None in sys.modules makes an import fail as if the package were not installed."""
    code = f"""
for name in {OPTIONAL}:
    sys.modules[name] = None
import gvcore as gv
from gvcore import nn
x, y = gv.datasets.digits()
net = gv.models.resnet(64, 10, width=8, depth=4, seed=0)
trainer = gv.Trainer(net, nn.CrossEntropyLoss(), gv.optim.AdamW(lr=0.01), clip_norm=1.0, seed=0)
history = trainer.fit(x[:200], y[:200], epochs=2, batch_size=50, validation=0.2, metrics=["accuracy"])
loss, gradients = gv.value_and_grad(net, nn.CrossEntropyLoss())(x[:9], y[:9])
gv.functional.matmul(x[:3], x[:5].T)
print(json.dumps([len(history.epoch), trainer.predict(x[:7]).shape, len(gradients) == len(net.parameters())]))
"""
    assert ask(code) == [2, [7, 10], True]


def test_import_prints_nothing_and_warns_of_nothing() -> None:
    code = """
import io, warnings
out = sys.stdout = io.StringIO()
import numpy
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import gvcore
sys.stdout = sys.__stdout__
print(json.dumps([out.getvalue(), [str(w.message) for w in caught]]))
"""
    assert ask(code) == ["", []]


def test_import_touches_no_global_state() -> None:
    """NumPy's random state and error handling, the environment, the handling of signals and subnormals."""
    code = """
import os, random, signal, threading
import numpy as np
np.random.seed(3)
def state():
    return [
        np.random.get_state()[1].tolist(), hash(random.getstate()), np.geterr(), dict(os.environ),
        list(sys.path), str(signal.getsignal(signal.SIGINT)), threading.active_count(),
        float(np.float32(1e-40) * np.float32(0.5)),
    ]
before = state()
import gvcore
from gvcore import nn
after = state()
x, y = gvcore.datasets.digits()
gvcore.TrainStep(gvcore.models.mlp(64, 10, 8, seed=0), nn.CrossEntropyLoss(), gvcore.optim.SGD(lr=0.1))(x, y)
print(json.dumps([before == after, after == state(), before[-1] > 0]))
"""
    assert ask(code) == [True, True, True]


def test_import_works_without_docstrings_and_assertions() -> None:
    code = "import gvcore as gv\nprint(json.dumps(gv.nn.Linear(3, 2, seed=0)([[1, 2, 3]]).shape))"
    assert ask(code, "-OO") == [1, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads of a process in /proc")
def test_import_starts_no_thread() -> None:
    code = """
import os
import numpy
before = len(os.listdir("/proc/self/task"))
import gvcore
gvcore.get_num_threads(), gvcore.available_isas()
print(json.dumps(len(os.listdir("/proc/self/task")) - before))
"""
    assert ask(code) == 0


def test_import_from_another_folder(tmp_path: Path) -> None:
    """The data set is found beside the package, not in the current folder."""
    code = f"""
import os
os.chdir({str(tmp_path)!r})
import gvcore
print(json.dumps(len(gvcore.datasets.digits()[0])))
"""
    assert ask(code) == 1797


def test_what_the_package_promises_is_there() -> None:
    code = """
import gvcore
print(json.dumps([name for name in gvcore.__all__ if not hasattr(gvcore, name)] + ["sklearn" in sys.modules]))
"""
    assert ask(code) == [False]

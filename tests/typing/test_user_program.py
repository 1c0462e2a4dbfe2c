"""A program of a user, with its own module, loss, metric and callbacks, passes mypy --strict, and runs."""

from __future__ import annotations

import importlib.util
import os
import runpy
import site
import subprocess
import sys
from pathlib import Path

import pytest

import gvcore

PROGRAM = Path(__file__).with_name("program.py")


def test_it_type_checks(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    cache = getattr(request.config, "cache", None)  # not there under -p no:cacheprovider
    folder = cache.mkdir("mypy-user") if cache is not None else tmp_path
    environment = dict(os.environ)
    package = Path(gvcore.__file__).parent.parent
    if str(package) not in {*site.getsitepackages(), site.getusersitepackages()}:
        environment["MYPYPATH"] = str(package)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        f"--cache-dir={folder}",
        str(PROGRAM),
    ]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_it_runs(tmp_path: Path) -> None:
    history = runpy.run_path(str(PROGRAM))["main"](str(tmp_path))
    assert [record["epoch"] for record in history.epoch] == [1, 2, 3]
    assert (tmp_path / "best.npz").exists()
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 4

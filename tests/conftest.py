"""What every test may ask for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gvcore import _core


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the data sets that are too large for the repository."""
    folder = os.environ.get("GVCORE_DATA_DIR")
    if not folder:
        pytest.skip("GVCORE_DATA_DIR is unset: it names the folder with mnist/ and california/")
    return Path(folder)


@pytest.fixture
def deals_everything() -> Iterator[None]:
    """Work of any size is dealt to all threads, which a small test could not see else."""
    before = _core.worth_waking()
    _core.set_worth_waking(1.0)
    yield
    _core.set_worth_waking(before)


@pytest.fixture(scope="session")
def kernel_objects() -> dict[str, Path]:
    """The compiled kernels by instruction set."""
    folder = os.environ.get("GVCORE_BUILD_DIR")
    if folder is None:
        if os.environ.get("CI"):
            pytest.fail("GVCORE_BUILD_DIR is unset: run the tests with `make test`")
        pytest.skip("GVCORE_BUILD_DIR is unset: `make test` sets it to the folder of the objects")
    root = Path(__file__).resolve().parent.parent
    found = (root / folder).glob("CMakeFiles/gv_kernels_*.dir/**/*.o")
    return {re.findall(r"gv_kernels_(\w+)\.dir", str(path))[0]: path for path in found}

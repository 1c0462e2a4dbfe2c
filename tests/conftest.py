"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the data sets that are too large for the repository."""
    folder = os.environ.get("GVCORE_DATA_DIR")
    if not folder:
        pytest.skip("GVCORE_DATA_DIR is unset: it names the folder with mnist/ and california/")
    return Path(folder)

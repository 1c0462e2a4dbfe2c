"""What pictures and other files need before anything is computed for them: matplotlib, and a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["check_folder", "check_matplotlib", "pyplot"]


def check_folder(op: str, argument: str, path: str | Path) -> None:
    """Raise a FileNotFoundError unless the folder of `path` exists."""
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"[{op}] expected {argument} in a folder that exists, got {path}")


def check_matplotlib(op: str) -> None:
    """Raise an ImportError that names the extra, if there is no matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'[{op}] expected matplotlib for a picture, got none; pip install "gvcore[plot]"', name=error.name
        ) from error


def pyplot(op: str) -> Any:
    """Return ``matplotlib.pyplot``, or raise as `check_matplotlib`."""
    check_matplotlib(op)
    from matplotlib import pyplot as module

    return module

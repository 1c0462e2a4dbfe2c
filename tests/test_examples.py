"""Each example runs from the command line in its short form, prints its figures and saves a picture; the
documentation's own examples run as doctests.
"""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gvcore

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
DATA = os.environ.get("GVCORE_DATA_DIR")

needs_data = pytest.mark.skipif(DATA is None, reason="GVCORE_DATA_DIR is not set: no MNIST and no California")
needs_sklearn = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn, which has the data, is not installed"
)


def run(name: str, *arguments: str, data: str | None = DATA) -> subprocess.CompletedProcess[str]:
    # The package under test, wherever it lies, and no others before it.
    environment = {key: value for key, value in os.environ.items() if key != "GVCORE_DATA_DIR"}
    environment["PYTHONPATH"] = str(Path(gvcore.__file__).parent.parent)
    environment["PYTHONIOENCODING"] = "utf-8"
    if data is not None:
        environment["GVCORE_DATA_DIR"] = data
    return subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


def figures(name: str, picture: Path, *arguments: str) -> str:
    """Run the short form; check the exit status and the picture; return what was printed."""
    pytest.importorskip("matplotlib", reason="matplotlib, which draws the picture, is not installed")
    done = run(name, "--short", "--plot", str(picture), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    check_png(picture)
    assert f"picture: {picture}" in done.stdout
    return done.stdout


def check_png(path: Path) -> None:
    """All chunks are there, and the pixels are as many as the header says and not all the same."""
    from matplotlib.image import imread

    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = imread(path)
    assert pixels.shape[0] >= 300 and pixels.shape[1] >= 400
    assert pixels.min() < 0.5 < pixels.max()


def numbers(line: str) -> list[float]:
    return [float(text) for text in re.findall(r"(?<![\w.])-?\d+\.?\d*(?:e[+-]\d+)?(?![\w.])", line)]


def row(output: str, start: str) -> str:
    found = [line for line in output.splitlines() if line.strip().startswith(start)]
    assert found, f"no line begins with {start!r} in\n{output}"
    return found[0]


def test_every_example_is_tested() -> None:
    tested = {"gradient_descent", "vanishing", "thousand_layers", "mnist", "california"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


@needs_sklearn
def test_gradient_descent(tmp_path: Path) -> None:
    output = figures("gradient_descent", tmp_path / "picture.png")
    # steps, excess after four epochs, seconds
    full = numbers(row(output, "full batch (442 rows)").split(")")[1])
    small = numbers(row(output, "batches of 64").split("64")[1])
    assert full[0] == 20 and small[0] == 140
    assert full[1] > full[4] > 0 and small[1] < full[1]
    for decay in ("constant", "exponential", "linear", "cosine"):
        assert len(numbers(row(output, decay))) == 6


def test_vanishing(tmp_path: Path) -> None:
    output = figures("vanishing", tmp_path / "picture.png")
    first, last, growth = numbers(row(output, "sigmoid, 10 layers").split("layers")[1])[:3]
    assert first < 1e-5 < last
    assert 0.1 < growth < 0.5
    for activation in ("sigmoid", "tanh", "relu"):
        for cure in ("none", "initialisation", "batch norm", "residual", "batch norm + residual"):
            row(output, f"{activation}, {cure} ")


def test_thousand_layers(tmp_path: Path) -> None:
    output = figures("thousand_layers", tmp_path / "picture.png")
    assert "vanishing" in row(output, "1000  plain")
    assert "exploding" in row(output, "1000  batch norm  ")
    assert "diverged" in row(output, "1000  residual")
    assert "healthy" in row(output, "1000  batch norm + residual")


@needs_data
def test_mnist(tmp_path: Path) -> None:
    output = figures("mnist", tmp_path / "picture.png")
    assert "2000 images to train on" in output
    without, cured = (row(output, f"{name} batch norm").split("%")[-2] for name in ("without", "with"))
    assert float(cured) > float(without)
    assert "(b) 50 layers" in output and "s/epoch" in output
    errors = [float(text) for text in re.findall(r"([\d.]+)%", output.split("(c)")[1])]
    assert len(errors) in (1, 2) and all(0 < error < 85 for error in errors)


@needs_data
def test_mnist_parts_can_be_chosen(tmp_path: Path) -> None:
    output = figures("mnist", tmp_path / "picture.png", "--part", "c")
    assert "(c)" in output and "(a)" not in output and "(b)" not in output


@needs_data
def test_california(tmp_path: Path) -> None:
    output = figures("california", tmp_path / "picture.png", "--scaling", "standard")
    assert "1280 districts to train on, 320 to validate, 400 to test; standard scaling" in output
    seed, epochs, best, validation, test, _ = numbers(output.split("seconds\n")[1].splitlines()[0])
    assert (seed, epochs) == (0, 3) and 1 <= best <= 3
    assert 0.2 < validation < 2 and 0.2 < test < 2


@pytest.mark.parametrize("name", ["mnist", "california"])
def test_missing_data_is_a_sentence(name: str) -> None:
    done = run(name, "--short", data=None)
    assert done.returncode == 1
    assert done.stderr.startswith("set GVCORE_DATA_DIR to a folder that has")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["gradient_descent", "vanishing", "thousand_layers", "mnist", "california"])
def test_help_says_what_it_is(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0
    for option in ("--short", "--plot", "--seed"):
        assert option in done.stdout


# ---- the documentation ---------------------------------------------------------------------------

DOCS = EXAMPLES.parent / "docs"


@pytest.mark.parametrize("page", sorted(path.stem for path in DOCS.glob("*.md")))
def test_examples_in_the_docs_run(page: str) -> None:
    failures, _ = doctest.testfile(str(DOCS / f"{page}.md"), module_relative=False)
    assert failures == 0


def test_pictures_in_the_docs_are_there_and_small() -> None:
    shown = {
        page.parent / name
        for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]
        for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert shown == set(DOCS.glob("pictures/*"))
    for picture in shown:
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert picture.stat().st_size < 100_000

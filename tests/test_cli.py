"""The command line and the demonstration behind it, on a small network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gvcore as gv
from gvcore import demo
from gvcore.cli import main

SMALL = ["demo", "--depth", "6", "--width", "16", "--epochs", "3"]
ACCURACY = r"(\d+\.\d%|diverged)"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == f"gvcore {gv.__version__}"


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert gv.__version__ in printed and gv.available_isas()[0] in printed


def test_no_command_is_an_error() -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--depth", "3"], "depth >= 4, got 3"),
        (["--epochs", "0"], "epochs >= 1, got 0"),
        (["--lr", "nan"], "learning rate > 0, got nan"),
        (["--seed", "-1"], "seed >= 0, got -1"),
    ],
)
def test_demo_names_what_makes_no_sense(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *words]) == 1
    assert message in capsys.readouterr().err


def test_demo_prints_both_tables_and_repeats_itself(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for _ in range(2):
        assert main([*SMALL, "--plot", ""]) == 0
        printed.append(capsys.readouterr().out)
    accuracies = [re.findall(ACCURACY, text) for text in printed]
    assert accuracies[0] == accuracies[1] and len(accuracies[0]) == 8
    for name in [*demo.REMEDIES, "constant", "exponential", "linear", "cosine"]:
        row = rf"^  {re.escape(name)} .*{ACCURACY} +\d+\.\d$"
        assert re.search(row, printed[0], flags=re.MULTILINE), name
    # The same network under the same rate stands in both tables.
    assert accuracies[0][3] == accuracies[0][4]


def test_demo_draws_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "flow.png"
    norms = {"plain": np.array([1e-8, 0.0, 1.0]), "residual": np.array([1.0, 2.0, 3.0])}
    demo.plot_gradients(norms, str(path))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_demo_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "run", lambda settings, write: {})
    assert main(["demo"]) == 0
    assert 'pip install "gvcore[plot]"' in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_demo_without_a_place_for_its_picture_trains_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "run", lambda *_, **__: pytest.fail("trained for a picture that has no place"))
    path = tmp_path / "none" / "flow.png"
    assert main(["demo", "--plot", str(path)]) == 1
    assert f"[demo] expected --plot in a folder that exists, got {path}" in capsys.readouterr().err


def test_demo_shows_a_run_that_diverges(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--lr", "1e30", "--plot", ""]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^  plain .* diverged ", printed, flags=re.MULTILINE)


def test_the_four_networks_share_their_linear_layers() -> None:
    settings = demo.Settings(depth=12, width=8)
    sets = []
    for batch_norm, residual in demo.REMEDIES.values():
        parameters = demo.build(settings, batch_norm=batch_norm, residual=residual).parameters()
        names = sorted((name for name in parameters if parameters[name].ndim == 2), key=natural)
        sets.append([parameters[name].tobytes() for name in names])
        assert [parameters[name].shape for name in names] == [(8, 64), *[(8, 8)] * 10, (10, 8)]
    assert all(weights == sets[0] for weights in sets)
    assert len(set(sets[0])) == 12


def natural(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name)]


def test_gradient_norms_come_first_layer_first() -> None:
    settings = demo.Settings(depth=13, width=8)
    x, y = gv.datasets.digits()
    net = demo.build(settings, batch_norm=False, residual=False)
    norms = demo.gradient_norms(net, x[:32], y[:32])
    _, gradients = gv.value_and_grad(net, gv.nn.CrossEntropyLoss())(x[:32], y[:32])
    expected = [np.linalg.norm(gradients[f"{2 * layer}.weight"].astype(np.float64)) for layer in range(13)]
    np.testing.assert_array_equal(norms, expected)


def test_module_runs_as_a_program() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "gvcore", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == f"gvcore {gv.__version__}"

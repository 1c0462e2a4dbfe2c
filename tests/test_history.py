"""History: records, table, JSON and pictures; and the progress bar."""

from __future__ import annotations

import builtins
import importlib
import io
import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gvcore as gv
from gvcore import nn


def trained(epochs: int = 3, **options: Any) -> gv.History:
    x, y = gv.datasets.digits()
    net = gv.models.mlp(64, 10, [16], seed=0)
    trainer = gv.Trainer(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1), seed=0)
    return trainer.fit(x[:300], y[:300], epochs=epochs, batch_size=50, **options)


def test_json_holds_the_records(tmp_path: Path) -> None:
    history = trained(validation=0.2, metrics=["accuracy"])
    history.to_json(tmp_path / "h.json")
    assert json.loads((tmp_path / "h.json").read_text()) == history.to_dict()
    history.epoch[0]["loss"] = math.nan
    history.to_json(tmp_path / "h.json")
    found = json.loads((tmp_path / "h.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert found["epoch"][0]["loss"] is None


def test_to_dict_is_a_copy() -> None:
    history = trained()
    history.to_dict()["epoch"][0]["loss"] = 9.0
    history.to_dict()["epoch"].clear()
    assert len(history.epoch) == 3 and history.epoch[0]["loss"] < 9.0


def test_the_table() -> None:
    history = trained(validation=0.2)
    lines = str(history).splitlines()
    assert lines[0].split() == ["epoch", "step", "loss", "val_loss", "lr", "seconds"]
    assert len({len(line) for line in lines}) == 1 and len(lines) == 4
    assert "3 epochs, 15 steps; epoch=3" in repr(history)
    assert repr(gv.History()) == str(gv.History()) == "History(0 epochs, 0 steps)"
    history.epoch = [{"epoch": i + 1, "loss": 1.0} for i in range(100)]
    lines = str(history).splitlines()
    assert len(lines) == 22 and lines[11].split() == ["…", "…"]
    assert [line.split()[0] for line in (lines[10], lines[12], lines[21])] == ["10", "91", "100"]
    history.epoch.append({"epoch": 101, "loss": 1.0, "val_loss": 2.0})  # a later fit with validation
    assert str(history).splitlines()[0].split() == ["epoch", "loss", "val_loss"]


def test_pictures(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    history = trained(validation=0.2, metrics=["accuracy", "top_3"])
    axes = history.plot()
    assert [ax.get_ylabel() for ax in axes] == ["loss", "accuracy", "top 3"]
    assert all(ax.get_xlabel() == "epoch" and len(ax.get_lines()) >= 2 for ax in axes)
    axes[0].figure.savefig(tmp_path / "h.png")
    figure, own = pyplot.subplots(1, 2)
    assert history.plot(own[0]) == [own[0]]
    assert [ax.get_ylabel() for ax in history.plot(own)] == ["loss", "accuracy"]
    pyplot.close("all")


@pytest.mark.parametrize(("last", "scale"), [(0.5, "linear"), (0.01, "log"), (0.0, "linear")])
def test_a_loss_that_falls_far_is_drawn_on_a_logarithmic_scale(last: float, scale: str) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    history = gv.History()
    history.epoch = [{"epoch": 1, "step": 1, "loss": 1.0}, {"epoch": 2, "step": 2, "loss": last}]
    assert history.plot()[0].get_yscale() == scale
    pyplot.close("all")


def test_a_picture_needs_an_epoch_and_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="at least one completed epoch"):
        gv.History().plot()
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    history = trained()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "gvcore\[plot\]"'):
        history.plot()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Bar:
    """Stands in for tqdm.tqdm."""

    made: list[Bar] = []

    def __init__(self, total: int, **options: Any) -> None:
        self.total, self.n, self.texts, self.closed = total, 0, [], False
        self.made.append(self)

    def update(self, steps: int) -> None:
        self.n += steps

    def set_description(self, text: str, refresh: bool) -> None:
        self.texts.append(text)

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        self.texts.append(text)

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_on_a_terminal_only(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("tqdm")
    module.tqdm = Bar  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tqdm", module)
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    monkeypatch.setattr(Bar, "made", [])
    trained(validation=0.2)
    if not terminal:
        assert Bar.made == []
        return
    (bar,) = Bar.made
    assert bar.n == bar.total == 15 and bar.closed
    assert "epoch 3/3" in bar.texts and any("val_loss" in text for text in bar.texts)


def test_no_tqdm_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    trained()
    assert importlib.util.find_spec("gvcore") is not None
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_json_of_numpy_numbers(tmp_path: Path) -> None:
    history = trained(metrics=[lambda p, y: np.float32(0.5)])
    history.to_json(tmp_path / "h.json")
    assert json.loads((tmp_path / "h.json").read_text())["epoch"][0]["<lambda>"] == 0.5

"""Callbacks: when hooks are called, what each callback does, and what happens when one of them raises."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gvcore as gv
from gvcore import callbacks, nn
from gvcore.callbacks import Callback

X = np.random.default_rng(0).normal(size=(50, 3))
Y = X[:, :1] - 2 * X[:, 1:2]


def make(lr: Any = 0.05, **options: Any) -> gv.Trainer:
    return gv.Trainer(nn.Linear(3, 1, seed=0), nn.MSELoss(), gv.optim.SGD(lr=lr), seed=0, **options)


def fit(trainer: gv.Trainer, *hooks: Any, epochs: int = 3, **options: Any) -> gv.History:
    return trainer.fit(X, Y, epochs=epochs, batch_size=20, callbacks=list(hooks), **options)


class Scripted(Callback):
    """Writes the numbers of a script into the records, as if they had been measured."""

    def __init__(self, key: str, values: list[float]) -> None:
        self.key, self.values, self.weights = key, iter(values), []

    def on_epoch_end(self, trainer: gv.Trainer) -> None:
        trainer.history.epoch[-1][self.key] = next(self.values)
        self.weights.append(trainer.net.state_dict())


def test_hooks_come_in_order() -> None:
    seen: list[str] = []

    class All(Callback):
        def on_fit_begin(self, trainer: gv.Trainer) -> None:
            seen.append("fit")

        def on_epoch_begin(self, trainer: gv.Trainer) -> None:
            seen.append("epoch")

        def on_step_end(self, trainer: gv.Trainer) -> None:
            assert trainer.last_step == trainer.history.step[-1]
            assert trainer.last_step["step"] == trainer.step.updates
            seen.append("step")

        def on_epoch_end(self, trainer: gv.Trainer) -> None:
            seen.append("/epoch")

        def on_fit_end(self, trainer: gv.Trainer) -> None:
            seen.append("/fit")

    trainer = make()
    fit(trainer, All(), epochs=2)
    assert seen == ["fit", *["epoch", "step", "step", "step", "/epoch"] * 2, "/fit"]
    seen.clear()
    fit(trainer, All(), epochs=0)
    assert seen == ["fit", "/fit"]


def test_step_hooks_change_no_bit() -> None:
    class Look(Callback):
        def on_step_end(self, trainer: gv.Trainer) -> None:
            pass

    a, b = make(), make()
    fit(a), fit(b, Look())
    assert (a.net.parameters()["weight"] == b.net.parameters()["weight"]).all()
    assert [r["loss"] for r in a.history.step] == [r["loss"] for r in b.history.step]


@pytest.mark.parametrize("answer", [True, np.True_])
def test_returning_true_stops(answer: Any) -> None:
    assert len(fit(make(), lambda t: answer).epoch) == 1
    assert len(fit(make(), lambda t: 1, lambda t: [1], lambda t: None).epoch) == 3

    class Fourth(Callback):
        def on_step_end(self, trainer: gv.Trainer) -> Any:
            return trainer.step.updates == 4 and answer

    history = fit(make(), Fourth())
    assert len(history.step) == 4
    assert [r["step"] for r in history.epoch] == [3, 4]  # the epoch is measured as far as it came


def test_stop_ends_training() -> None:
    trainer = make()
    assert len(fit(trainer, lambda t: t.stop()).epoch) == 1
    assert len(fit(trainer, epochs=2).epoch) == 3  # the next call trains again


@pytest.mark.parametrize("hook", ["fit_begin", "epoch_begin", "step_end", "epoch_end", "fit_end", "function"])
def test_a_callback_that_raises_leaves_a_usable_trainer(hook: str) -> None:
    class Wrong(Exception):
        pass

    def fail(trainer: gv.Trainer) -> None:
        raise Wrong("mine")

    failing: Any = fail
    if hook != "function":
        failing = Callback()
        setattr(failing, f"on_{hook}", fail)
    trainer = make()
    with pytest.raises(Wrong, match="^mine$"):
        fit(trainer, failing)
    assert np.isfinite(trainer.net.parameters()["weight"]).all()
    assert [r["step"] for r in trainer.history.step] == list(range(1, trainer.step.updates + 1))
    epochs, steps = len(trainer.history.epoch), len(trainer.history.step)
    fit(trainer, epochs=1)
    assert len(trainer.history.epoch) == epochs + 1 and len(trainer.history.step) == steps + 3


def test_fit_within_fit_is_refused() -> None:
    trainer = make()
    with pytest.raises(RuntimeError, match="running already"):
        fit(trainer, lambda t: fit(t))
    fit(trainer)


def test_no_callbacks() -> None:
    assert len(make().fit(X, Y, epochs=1, batch_size=20, callbacks=None).epoch) == 1
    with pytest.raises(TypeError, match=r"\[fit\] expected callbacks to be .*, got 5"):
        make().fit(X, Y, epochs=1, batch_size=20, callbacks=5)  # type: ignore[arg-type]


def test_wrong_callbacks_are_named() -> None:
    for wrong in (3, "stop", callbacks.Timer):
        with pytest.raises(TypeError, match=r"\[fit\] expected callbacks"):
            fit(make(), wrong)


# ---- EarlyStopping -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "values", "epochs", "best"),
    [
        ({"patience": 2}, [3, 2, 1, 2, 2, 0], 5, 3),
        ({"patience": 1}, [3, 3], 2, 1),
        ({"patience": 2, "mode": "max"}, [1, 3, 2, 3, 9], 4, 2),
        ({"patience": 2, "min_delta": 0.5}, [3, 2.6, 2.4, 2.2, 2.1], 5, 3),
        ({"patience": 2}, [math.nan, 3, math.nan, math.nan], 4, 2),
        ({"patience": 9}, [3, 2, 1, 4, 5], 5, 3),
    ],
)
def test_early_stopping(options: Any, values: list[float], epochs: int, best: int) -> None:
    trainer, script = make(), Scripted("val_loss", values)
    stop = callbacks.EarlyStopping(**options)
    history = fit(trainer, script, stop, epochs=len(values))
    assert len(history.epoch) == epochs
    assert (stop.best_epoch, stop.best_value) == (best, values[best - 1])
    assert stop.stopped == (epochs < len(values) or options["patience"] < 3)
    for name, array in trainer.net.state_dict().items():
        assert (array == script.weights[best - 1][name]).all()


def test_early_stopping_may_keep_the_last_weights() -> None:
    trainer, script = make(), Scripted("val_loss", [1, 2, 3])
    fit(trainer, script, callbacks.EarlyStopping(patience=2, restore_best=False))
    assert (trainer.net.state_dict()["weight"] == script.weights[-1]["weight"]).all()


def test_early_stopping_restores_running_statistics() -> None:
    net = nn.Sequential(nn.Linear(3, 4, seed=0), nn.BatchNorm(4), nn.Linear(4, 1, seed=1))
    trainer = gv.Trainer(net, nn.MSELoss(), gv.optim.SGD(lr=0.01), seed=0)
    script = Scripted("val_loss", [1, 2, 3])
    fit(trainer, script, callbacks.EarlyStopping(patience=2))
    for name, array in net.state_dict().items():
        assert (array == script.weights[0][name]).all()
        assert name.startswith("1.running") or (array != script.weights[2][name]).any()


@pytest.mark.parametrize(("monitor", "mode"), [("val_accuracy", -1), ("top_5", -1), ("r2", -1), ("rmse", 1)])
def test_the_better_direction_follows_the_name(monitor: str, mode: float) -> None:
    assert callbacks.EarlyStopping(monitor)._best.sign == mode


def test_early_stopping_starts_anew_in_each_fit() -> None:
    trainer, stop = make(), callbacks.EarlyStopping("loss", patience=2)
    fit(trainer, Scripted("loss", [1, 2, 3]), stop)
    fit(trainer, Scripted("loss", [9, 8, 7]), stop)
    assert (stop.best_epoch, stop.best_value, stop.stopped) == (6, 7.0, False)


def test_early_stopping_says_what_it_misses() -> None:
    with pytest.raises(
        ValueError, match=r"\[EarlyStopping\].*epoch, step, loss.*'val_loss'; pass validation="
    ):
        fit(make(), callbacks.EarlyStopping())
    with pytest.raises(ValueError, match="got 'val_rmse'"):
        fit(make(), callbacks.EarlyStopping("val_rmse"), validation=0.2)


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 0},
        {"patience": 1.5},
        {"min_delta": -1},
        {"mode": "up"},
        {"monitor": 3},
        {"restore_best": 1},
    ],
)
def test_early_stopping_refuses(options: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"\[EarlyStopping\] expected"):
        callbacks.EarlyStopping(**options)


# ---- Checkpoint --------------------------------------------------------------------------------


def test_checkpoint_files_hold_the_weights(tmp_path: Path) -> None:
    trainer, script = make(), Scripted("val_loss", [3, 2, 5, 1])
    best = callbacks.Checkpoint(tmp_path / "best.npz", monitor="val_loss")
    every = callbacks.Checkpoint(str(tmp_path / "e{epoch:02d}-{loss:.3f}"), every=2)
    called: list[int] = []
    function = callbacks.Checkpoint(lambda t: called.append(t.step.updates), monitor="val_loss", mode="max")
    fit(trainer, script, best, every, function, epochs=4)
    assert best.saved == [tmp_path / "best.npz"] * 3
    assert function.saved == [1, 3] and called == [3, 9]
    records = trainer.history.epoch
    assert [p.name for p in every.saved] == [f"e{i:02d}-{records[i - 1]['loss']:.3f}" for i in (2, 4)]
    for path, at in ((best.saved[-1], 3), (every.saved[0], 1)):
        net = nn.Linear(3, 1)
        with np.load(path) as state:
            net.load_state_dict(dict(state))
        assert (net.state_dict()["weight"] == script.weights[at]["weight"]).all()
    assert not list(tmp_path.glob("*.part"))


def test_checkpoint_refuses(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="path or a function"):
        callbacks.Checkpoint(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every to be an integer >= 1"):
        callbacks.Checkpoint("a", every=0)
    with pytest.raises(ValueError, match=r"fields of the path to be among epoch, step, loss.*val_loss"):
        fit(make(), callbacks.Checkpoint(tmp_path / "{val_loss}.npz"))
    for wrong in ("{epoch:.3q}", "{loss:d}", "{epoch", "epoch}", "{}", "{0}", "{epoch.x}", "{epoch[0]}"):
        with pytest.raises(
            ValueError, match=r"\[Checkpoint\] expected a path with fields such as {epoch:02d}"
        ):
            callbacks.Checkpoint(tmp_path / wrong)
    with pytest.raises(FileNotFoundError):
        fit(make(), callbacks.Checkpoint(tmp_path / "missing" / "a.npz"))


# ---- loggers, Timer ----------------------------------------------------------------------------


def test_csv_logger_writes_the_records(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("old\n")
    log = callbacks.CSVLogger(path)
    trainer = make()
    fit(trainer, log, validation=0.2, metrics=["mae"])
    fit(trainer, log, validation=0.2, metrics=["mae"], epochs=1)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in row.items()} for row in rows] == trainer.history.epoch
    fit(trainer, callbacks.CSVLogger(path, append=True), validation=0.2, metrics=["mae"], epochs=1)
    assert len(path.read_text().splitlines()) == 6
    with pytest.raises(ValueError, match=r"\[CSVLogger\].*val_mae.*another file"):
        fit(trainer, log, epochs=1)


HEAD = "epoch,step,loss,lr,seconds\n"
ROW = "1,3,0.5,0.05,0.01"


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (HEAD + ROW + "\n", HEAD + ROW + "\n"),
        (HEAD + ROW, HEAD + ROW + "\n"),
        (HEAD + ROW + "\n2,6,0.4", HEAD + ROW + "\n"),  # as a kill leaves it
        (HEAD + ROW + "\n2", HEAD + ROW + "\n"),
        (HEAD[:-1], HEAD),
        ("", HEAD),
    ],
)
def test_csv_logger_goes_on_after_a_line_without_an_end(tmp_path: Path, found: str, kept: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(found)
    fit(make(), callbacks.CSVLogger(path, append=True), epochs=2)
    text = path.read_text()
    assert text.startswith(kept) and len(text.splitlines()) == len(kept.splitlines()) + 2
    with open(path, newline="") as file:
        assert all(None not in row.values() and None not in row for row in csv.DictReader(file))


def test_csv_logger_leaves_a_file_of_other_columns_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("a,b\n1")
    with pytest.raises(ValueError, match=r"\[CSVLogger\].*another file"):
        fit(make(), callbacks.CSVLogger(path, append=True))
    assert path.read_text() == "a,b\n1"


def test_learning_rate_logger_without_telemetry() -> None:
    log = callbacks.LearningRateLogger()
    trainer = make(lr=gv.schedules.linear(0.1), telemetry=False)
    fit(trainer, log)
    assert trainer.history.step == []
    assert log.steps == list(range(1, 10))
    assert log.rates == pytest.approx([0.1 * (1 - t / 9) for t in range(9)])


def test_learning_rate_logger_has_the_steps_of_an_interrupted_epoch() -> None:
    class Press(Callback):
        def on_step_end(self, trainer: gv.Trainer) -> None:
            if trainer.step.updates == 5:
                raise KeyboardInterrupt

    log = callbacks.LearningRateLogger()
    trainer = make(lr=gv.schedules.linear(0.1))
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, log, Press())
    assert log.steps == [1, 2, 3, 4, 5]
    trainer.step(X, Y)  # no step of a fit
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, Interrupted(), log)  # before the logger is asked
    fit(trainer, log, epochs=1)
    assert log.steps == [1, 2, 3, 4, 5, 7, 8, 9]
    assert log.rates == pytest.approx([0.1 * (1 - (step - 1) / 9) for step in log.steps])


class Interrupted(Callback):
    def on_fit_begin(self, trainer: gv.Trainer) -> None:
        raise KeyboardInterrupt


def test_timer() -> None:
    timer = callbacks.Timer()
    fit(make(), timer)
    assert len(timer.epochs) == 3 and timer.total >= sum(timer.epochs) > 0
    limited = callbacks.Timer(limit=1e-9)
    assert len(fit(make(), limited).epoch) == 1
    for wrong in (0, -1, math.inf, "1"):
        with pytest.raises((TypeError, ValueError), match=r"\[Timer\]"):
            callbacks.Timer(wrong)  # type: ignore[arg-type]

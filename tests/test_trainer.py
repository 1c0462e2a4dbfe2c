"""Trainer.fit: what it trains on, in which order, by which weights, and what it refuses."""

from __future__ import annotations

import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gvcore as gv
from gvcore import nn
from gvcore.callbacks import Callback
from gvcore.train.rows import cut, prepare, split
from trainer_cases import RNG, TARGET, X, Y, make, python_mse


def same(a: gv.Trainer, b: gv.Trainer) -> bool:
    one, two = a.net.state_dict(), b.net.state_dict()
    return all((one[name] == two[name]).all() for name in one)


def distance(a: gv.Trainer, b: gv.Trainer) -> float:
    one, two = a.net.state_dict(), b.net.state_dict()
    return max(float(np.abs(one[name] - two[name]).max()) for name in one)


# ---- batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "batch_size", "drop_last", "expected"),
    [
        (10, 4, False, [0, 4, 8, 10]),
        (10, 4, True, [0, 4, 8]),
        (9, 4, False, [0, 4, 9]),  # a lone row joins the batch before it
        (9, 4, True, [0, 4, 8]),
        (8, 4, True, [0, 4, 8]),
        (3, 1, False, [0, 1, 2, 3]),
        (5, 9, False, [0, 5]),
        (5, 9, True, [0, 5]),  # the only batch is never left out
        (1, 4, False, [0, 1]),
    ],
)
def test_cuts(rows: int, batch_size: int, drop_last: bool, expected: list[int]) -> None:
    assert cut(rows, batch_size, drop_last).tolist() == expected


def test_an_epoch_is_its_steps_in_order() -> None:
    trainer = make()
    history = trainer.fit(X, Y, epochs=2, batch_size=20, shuffle=False)
    by_hand = make()
    losses = [by_hand.step(X[i : i + 20], Y[i : i + 20]) for i in (0, 20, 40, 60)]
    losses.append(by_hand.step(X[80:], Y[80:]))  # 21 rows
    assert [r["loss"] for r in history.step[:5]] == losses
    assert history.epoch[0]["loss"] == pytest.approx(np.average(losses, weights=[20] * 4 + [21]), rel=1e-12)
    assert [(r["epoch"], r["step"]) for r in history.epoch] == [(1, 5), (2, 10)]


def test_shuffling_uses_every_row_once_in_new_orders() -> None:
    seen: list[list[float]] = []

    def loss(prediction: Any, target: Any) -> Any:
        seen.append(target.ravel().tolist())
        return python_mse(prediction, target)

    numbers = np.arange(101, dtype=np.float32)[:, None]
    trainer = make(loss)
    trainer.fit(X, numbers, epochs=2, batch_size=20)
    assert [len(rows) for rows in seen] == [20, 20, 20, 20, 21] * 2
    first, second = sum(seen[:5], []), sum(seen[5:], [])
    assert sorted(first) == sorted(second) == numbers.ravel().tolist()
    assert first != second != sorted(second) and first != sorted(first)


def test_same_seed_same_bits_and_second_fit_continues() -> None:
    a, b = make(), make()
    a.fit(X, Y, epochs=4, batch_size=16, validation=0.2)
    for epochs in (1, 0, 3):
        b.fit(X, Y, epochs=epochs, batch_size=16, validation=0.2)
    assert same(a, b)
    drop = [{k: v for k, v in r.items() if k != "seconds"} for r in a.history.epoch]
    assert drop == [{k: v for k, v in r.items() if k != "seconds"} for r in b.history.epoch]


def test_the_length_of_the_schedule_is_filled_in() -> None:
    trainer = make(lr=gv.schedules.linear(0.1))
    trainer.fit(X, Y, epochs=0, batch_size=20)
    assert trainer.step.optimizer.needs_total_steps
    history = trainer.fit(X, Y, epochs=2, batch_size=20, accumulate=2)  # 5 batches, 3 updates
    assert [r["lr"] for r in history.step] == pytest.approx([0.1 * (1 - t / 6) for t in range(6)])
    with pytest.warns(RuntimeWarning):
        trainer.fit(X, Y, epochs=1, batch_size=50)
    assert history.step[-1]["lr"] == 0.0  # it stays at its end


def test_a_schedule_that_has_run_out_warns() -> None:
    """Not one with a single rate above 0, nor a rate of 0 that was asked for, nor where nothing is done."""
    trainer = make(lr=gv.schedules.cosine(0.1))
    fit = {"epochs": 2, "batch_size": 20, "accumulate": 2}  # 3 updates an epoch
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(X, Y, **fit)
        trainer.fit(X, Y, epochs=0, batch_size=20)
        make(lr=lambda step: 0.1 if step == 5 else 0.0).fit(X, Y, **fit)
        make(lr=0.0).fit(X, Y, **fit)
    before = trainer.net.state_dict()
    with pytest.warns(RuntimeWarning, match="0 in all 6 updates from step 7 on, .*total_steps") as caught:
        trainer.fit(X, Y, **fit)
    assert caught[0].filename == __file__
    assert all((array == before[name]).all() for name, array in trainer.net.state_dict().items())
    with pytest.warns(RuntimeWarning, match="in all 3,000,000 updates from step 1 on"):
        make(lr=lambda step: 0.0).fit(X, Y, **(fit | {"epochs": 10**6}), callbacks=[lambda trainer: True])


@pytest.mark.parametrize("cause", ["data", "callback", "stop", "loss"])
def test_a_fit_that_trained_nothing_leaves_the_length_open(cause: str, tmp_path: Path) -> None:
    trainer = make(nn.MSELoss(), lr=gv.schedules.linear(0.1))
    hook: Any = Callback()
    if cause == "data":
        x = np.memmap(tmp_path / "x.bin", X.dtype, "w+", shape=X.shape)
        x[...], x[::10] = X, np.nan
        with pytest.raises(ValueError, match="x to be finite"):
            trainer.fit(x, TARGET, epochs=1, batch_size=20)
    elif cause == "callback":
        hook.on_fit_begin = lambda trainer: {}["mine"]
        with pytest.raises(KeyError, match="mine"):
            trainer.fit(X, TARGET, epochs=1, batch_size=20, callbacks=[hook])
    elif cause == "stop":
        hook.on_fit_begin = lambda trainer: trainer.stop()
        trainer.fit(X, TARGET, epochs=1, batch_size=20, callbacks=[hook])
    else:
        with pytest.raises(FloatingPointError, match="at step 1,"):
            trainer.fit(X, TARGET * 1e30, epochs=1, batch_size=20)
    assert trainer.step.updates == 0 and trainer.step.optimizer.needs_total_steps
    history = trainer.fit(X, TARGET, epochs=2, batch_size=20)
    assert [r["lr"] for r in history.step] == pytest.approx([0.1 * (1 - t / 10) for t in range(10)])


def test_a_length_that_does_not_fit_leaves_no_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []
    monkeypatch.setattr("gvcore.train.trainer.Progress", lambda *arguments: bars.append(arguments))
    with pytest.raises(ValueError, match=r"\[warmup\] expected total_steps > steps"):
        make(lr=gv.schedules.warmup(gv.schedules.linear(0.1), 50)).fit(X, Y, epochs=2, batch_size=20)
    assert not bars


def test_steps_without_telemetry() -> None:
    trainer = make(telemetry=False)
    history = trainer.fit(X, Y, epochs=2, batch_size=20)
    assert history.step == [] and len(history.epoch) == 2
    assert trainer.last_step["step"] == 10


def test_settings_are_checked_when_they_are_changed() -> None:
    trainer = make()
    for name, value in (("seed", "a"), ("telemetry", "no"), ("telemetry", 1)):
        with pytest.raises(TypeError, match=rf"\[.*{name}.*, got "):
            setattr(trainer, name, value)
    assert (trainer.seed, trainer.telemetry) == (0, True)


def test_net_and_loss_are_those_of_the_step() -> None:
    trainer = make()
    assert trainer.net is trainer.step.net and trainer.loss is trainer.step.loss
    for name in ("net", "loss"):
        with pytest.raises(
            AttributeError, match=rf"\[Trainer\] expected {name} to stay .*make a new Trainer"
        ):
            setattr(trainer, name, getattr(trainer, name))


def test_two_inputs() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            self.a, self.b = nn.Linear(3, 1, seed=0), nn.Linear(2, 1, seed=1)

        def forward(self, x: Any, z: Any) -> Any:
            return self.a(x) + self.b(z)

    trainer = gv.Trainer(Sum(), nn.MSELoss(), gv.optim.SGD(lr=0.1), seed=0)
    inputs = (X, X[:, :2].copy())
    history = trainer.fit(inputs, TARGET, epochs=2, batch_size=20, validation=0.25, metrics=["mae"])
    assert history.epoch[-1]["val_mae"] > 0
    assert trainer.predict(inputs).shape == (101, 1)
    assert trainer.evaluate(inputs, TARGET)["loss"] > 0


def test_epochs_are_spent_in_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an epoch of 784-100-100-10 with batches of 200, less than 5 % passes outside."""

    class Clocked:
        seconds = 0.0

        def __init__(self, core: Any) -> None:
            self._core = core

        def steps(self, *arguments: Any) -> int:
            began = time.perf_counter()
            done: int = self._core.steps(*arguments)
            Clocked.seconds += time.perf_counter() - began
            return done

    bound = gv.TrainStep._bound
    monkeypatch.setattr(gv.TrainStep, "_bound", lambda step, plan: Clocked(bound(step, plan)))
    rng = np.random.default_rng(0)
    x, y = rng.random((20_000, 784), np.float32), rng.integers(0, 10, 20_000)
    net = gv.models.mlp(784, 10, [100, 100], seed=0)
    trainer = gv.Trainer(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1, momentum=0.9), seed=0)
    shares = []
    for _ in range(5):
        Clocked.seconds = 0.0
        record = trainer.fit(x, y, epochs=1, batch_size=200).epoch[-1]
        shares.append(1 - Clocked.seconds / record["seconds"])
    assert sorted(shares)[2] < 0.05, shares


def test_in_another_thread() -> None:
    trainer = make()
    thread = threading.Thread(target=lambda: trainer.fit(X, Y, epochs=2, batch_size=20))
    thread.start()
    thread.join()
    other = make()
    other.fit(X, Y, epochs=2, batch_size=20)
    assert same(trainer, other)


# ---- validation --------------------------------------------------------------------------------


def test_a_share_is_the_pair_of_its_rows() -> None:
    trainer, other = make(), make()
    rows, held = split("fit", prepare("fit", X, Y, X.dtype, nn.CrossEntropyLoss()), 0.2, trainer.seed)
    assert len(held) == 21 and sorted([*rows, *held]) == list(range(101))
    a = trainer.fit(X, Y, epochs=1, batch_size=100, validation=0.2, shuffle=False, metrics=["accuracy"])
    pair = (X[held], Y[held])
    b = other.fit(
        X[rows], Y[rows], epochs=1, batch_size=100, validation=pair, shuffle=False, metrics=["accuracy"]
    )
    a.epoch[0].pop("seconds"), b.epoch[0].pop("seconds")
    assert a.epoch == b.epoch
    keys = ["epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy", "lr"]
    assert list(a.epoch[0]) == keys
    scores = trainer.evaluate(*pair, metrics=["accuracy"])
    assert scores == {"loss": a.epoch[0]["val_loss"], "accuracy": a.epoch[0]["val_accuracy"]}
    assert trainer.evaluate(X[rows], Y[rows], metrics=["accuracy"])["accuracy"] == a.epoch[0]["accuracy"]


def test_a_share_is_stratified_where_classes_are_large_enough() -> None:
    labels = np.array([0] * 80 + [1] * 16 + [2] * 5)
    loss = nn.CrossEntropyLoss()
    _, held = split("fit", prepare("fit", X, labels, X.dtype, loss), 0.2, 0)
    assert np.bincount(labels[held]).tolist() == [17, 3, 1]
    labels[-5:] = [0, 0, 0, 0, 2]  # one row of class 2: drawn without regard to labels
    _, held = split("fit", prepare("fit", X, labels, X.dtype, loss), 0.2, 0)
    assert len(held) == 21


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, -0.1, 0.999, float("nan"), True, "0.2", 3])
def test_shares_that_leave_nothing(share: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"\[fit\] expected validation"):
        make().fit(X, Y, epochs=1, batch_size=10, validation=share)


# ---- weights -----------------------------------------------------------------------------------


def test_sample_weights_act_like_repeated_rows() -> None:
    weights = RNG.integers(1, 4, len(X))
    a, b = make(lr=0.05), make(lr=0.05)
    a.fit(X, Y, epochs=3, batch_size=101, sample_weight=weights)
    many = np.repeat(np.arange(len(X)), weights)
    b.fit(X[many], Y[many], epochs=3, batch_size=len(many))
    assert distance(a, b) < 1e-6
    assert a.history.epoch[-1]["loss"] == pytest.approx(b.history.epoch[-1]["loss"], rel=1e-6)


def test_rows_of_weight_zero_are_left_out() -> None:
    weights = (np.arange(len(X)) % 3 > 0).astype(float)
    keep = weights > 0
    a, b = make(), make()
    a.fit(X, Y, epochs=2, batch_size=10, sample_weight=weights)
    b.fit(X[keep], Y[keep], epochs=2, batch_size=10, sample_weight=weights[keep])
    assert same(a, b)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_an_epoch_is_that_of_all_its_rows(accumulate: int, weighted: bool) -> None:
    """Also where the loss weights the classes, so that a mean divides by other than rows."""
    of_classes, own = np.array([10.0, 0.1, 1.0]), RNG.random(len(X)) if weighted else None
    net = nn.Linear(3, 3, seed=0)
    trainer = gv.Trainer(net, nn.CrossEntropyLoss(weight=of_classes), gv.optim.SGD(lr=0.0))
    history = trainer.fit(X, Y, epochs=1, batch_size=7, accumulate=accumulate, sample_weight=own)
    logits = net(X).astype(np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(Y)), Y]
    weights = of_classes[Y] * (1 if own is None else own)
    assert history.epoch[0]["loss"] == pytest.approx(np.average(losses, weights=weights), rel=1e-6)


def test_class_weights() -> None:
    a, b, c = make(), make(), make()
    by_class = {0: 2.0, 2: 0.5}
    a.fit(X, Y, epochs=2, batch_size=10, class_weight=by_class)
    b.fit(X, Y, epochs=2, batch_size=10, sample_weight=[by_class.get(int(label), 1.0) for label in Y])
    assert same(a, b)
    counts = np.bincount(Y)
    c.fit(X, Y, epochs=2, batch_size=10, class_weight="balanced")
    d = make()
    d.fit(X, Y, epochs=2, batch_size=10, sample_weight=(len(Y) / (len(counts) * counts))[Y])
    assert same(c, d)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"sample_weight": np.ones(100)}, ValueError, r"sample_weight of shape \(101,\), got \(100,\)"),
        ({"sample_weight": -np.ones(101)}, ValueError, "finite, >= 0"),
        ({"sample_weight": np.full(101, np.nan)}, ValueError, "finite, >= 0"),
        ({"sample_weight": np.zeros(101)}, ValueError, "not all zero"),
        ({"sample_weight": ["a"] * 101}, TypeError, "sample_weight to be numbers"),
        ({"class_weight": {5: 1.0}}, ValueError, "name labels of y such as 0"),
        ({"class_weight": {0: 1.0, "1": 2.0}}, TypeError, "class_weight by integer labels, got the key '1'"),
        ({"class_weight": {0: 1.0, 0.5: 2.0}}, TypeError, "class_weight by integer labels, got the key 0.5"),
        ({"class_weight": {0: 1.0, 3: 2.0}}, ValueError, r"labels in \[0, 3\), got 3 in class_weight"),
        ({"class_weight": {0: 1.0, -1: 2.0}}, ValueError, r"labels in \[0, 3\), got -1 in class_weight"),
        ({"class_weight": {0: -1.0}}, ValueError, r"class_weight\[0\] to be a finite number >= 0"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, ValueError, "positive weight"),
        ({"class_weight": "equal"}, TypeError, 'a dict or "balanced"'),
        ({"epochs": -1}, ValueError, "epochs to be an integer >= 0"),
        ({"epochs": 1.5}, TypeError, "epochs"),
        ({"batch_size": 0}, ValueError, "batch_size to be an integer >= 1"),
        ({"accumulate": 0}, ValueError, "accumulate to be an integer >= 1"),
        ({"shuffle": "yes"}, TypeError, "shuffle to be True or False"),
        ({"metrics": ["acc"]}, ValueError, "metrics among"),
        ({"metrics": ["top_9"]}, ValueError, r"\[top_9\] expected k in \[1, 3\]"),
        ({"metrics": ["rmse"]}, ValueError, r"\[rmse\].*fits the prediction"),
        ({"validation": (X, Y, X)}, ValueError, "a pair"),
        ({"validation": (X[:5], Y[:4])}, ValueError, "y with 5 rows as in x"),
        ({"validation": (X[:, :2], Y)}, ValueError, "expected"),
        ({"validation": (np.full((5, 3), np.inf), Y[:5])}, ValueError, r"validation to be finite.*\(0, 0\)"),
        ({"validation": (X[:5], Y[:5] + 2)}, ValueError, r"labels in \[0, 3\)"),
    ],
)
def test_refusals(options: dict[str, Any], error: type[Exception], text: str) -> None:
    trainer = make()
    before = trainer.net.state_dict()
    with pytest.raises(error, match=text):
        trainer.fit(X, Y, **({"epochs": 1, "batch_size": 10} | options))
    after = trainer.net.state_dict()
    assert all((before[name] == after[name]).all() for name in before)
    assert trainer.step.updates == 0 and not trainer.history.epoch
    trainer.fit(X, Y, epochs=1, batch_size=10)


@pytest.mark.parametrize("loss", [nn.MSELoss(), python_mse])
@pytest.mark.parametrize("rows", [100, 102])
def test_lengths_must_agree(loss: Any, rows: int) -> None:
    with pytest.raises(
        ValueError, match=rf"\[fit\] expected y with 101 rows as in x, got shape \({rows}, 1\)"
    ):
        make(loss).fit(X, np.zeros((rows, 1), np.float32), epochs=1, batch_size=10)


def test_a_python_loss_takes_no_weights() -> None:
    with pytest.raises(ValueError, match="weight the rows in the loss"):
        make(python_mse).fit(X, TARGET, epochs=1, batch_size=10, sample_weight=np.ones(101))


def test_bad_values_are_named_by_index() -> None:
    for value in (np.nan, np.inf, -np.inf):
        x, y = X.copy(), TARGET.copy()
        x[57, 2] = x[80, 0] = value
        with pytest.raises(ValueError, match=rf"\[fit\] expected x to be finite.*{value} at index \(57, 2\)"):
            make(nn.MSELoss()).fit(x, y, epochs=1, batch_size=10)
        y[3] = value
        for loss in (nn.MSELoss(), python_mse):
            with pytest.raises(ValueError, match=r"expected y to be finite.*at index \(3, 0\)"):
                make(loss).fit(X, y, epochs=1, batch_size=10)
    with pytest.raises(ValueError, match=r"x to be finite in float32, got inf at index \(1, 1\)"):
        huge = X.astype(np.float64)
        huge[1, 1] = 1e300
        make().fit(huge, Y, epochs=1, batch_size=10)


# ---- labels ------------------------------------------------------------------------------------


def test_labels_that_skip_a_class_or_have_one_only() -> None:
    for labels in (Y * 2 % 3, np.where(Y == 1, 0, Y), np.zeros_like(Y), np.full_like(Y, 2)):
        history = make().fit(X, labels, epochs=2, batch_size=10, validation=0.2, class_weight="balanced")
        assert np.isfinite(history.epoch[-1]["val_loss"])


@pytest.mark.parametrize(
    ("labels", "row"), [(Y + 1, None), (Y - 1, None), (np.where(np.arange(101) == 7, 9, Y), 7)]
)
def test_labels_out_of_range(labels: Any, row: int | None) -> None:
    where = "" if row is None else f"got 9 in row {row}"
    with pytest.raises(ValueError, match=rf"labels in \[0, 3\), .*{where}.*numpy.unique"):
        make().fit(X, labels, epochs=1, batch_size=10)


def test_labels_that_are_words() -> None:
    with pytest.raises(
        TypeError, match=r"y to be numbers, got dtype <U[0-9]+; number the classes first: .*unique"
    ):
        make().fit(X, Y.astype(str), epochs=1, batch_size=10)


def test_batch_norm_refuses_single_rows_and_nothing_else() -> None:
    def normalised() -> gv.Trainer:
        net = nn.Sequential(nn.Linear(3, 4, seed=0), nn.BatchNorm(4), nn.Linear(4, 3, seed=1))
        return gv.Trainer(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1), seed=0)

    assert len(normalised().fit(X, Y, epochs=1, batch_size=10).step) == 10  # 101 = 9·10 + 11
    with pytest.raises(ValueError, match="row"):
        normalised().fit(X, Y, epochs=1, batch_size=1)


# ---- accumulation ------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_norm", [None, 0.01])
@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (nn.CrossEntropyLoss(), {}),
        (nn.CrossEntropyLoss(weight=[1.0, 5.0, 0.5], label_smoothing=0.1), {}),
        (nn.CrossEntropyLoss(), {"sample_weight": np.arange(1, 102.0)}),
        (nn.CrossEntropyLoss(), {"class_weight": {1: 4.0}}),
        (nn.MSELoss(), {}),
        (nn.MSELoss(), {"sample_weight": np.arange(1, 102.0)}),
        (nn.MSELoss(reduction="sum"), {}),
        (nn.HuberLoss(delta=0.3), {}),
        (python_mse, {}),
    ],
)
def test_accumulation_is_a_larger_batch(loss: Any, options: dict[str, Any], clip_norm: float | None) -> None:
    y = Y if isinstance(loss, nn.CrossEntropyLoss) else TARGET
    lr = 1e-3 if getattr(loss, "reduction", "") == "sum" else 0.1
    large, small = make(loss, lr=lr, clip_norm=clip_norm), make(loss, lr=lr, clip_norm=clip_norm)
    large.fit(X, y, epochs=3, batch_size=40, **options)
    small.fit(X, y, epochs=3, batch_size=10, accumulate=4, **options)
    assert [r["lr"] for r in large.history.step] == [r["lr"] for r in small.history.step]
    assert [r["loss"] for r in large.history.step] == pytest.approx(
        [r["loss"] for r in small.history.step], rel=1e-5
    )
    assert large.step.updates == small.step.updates == 9
    assert distance(large, small) < 1e-6


def test_accumulating_more_than_there_is() -> None:
    a, b = make(), make()
    a.fit(X, Y, epochs=2, batch_size=10, accumulate=100)
    b.fit(X, Y, epochs=2, batch_size=200)
    assert a.step.updates == 2 and distance(a, b) < 1e-6
    a.fit(X, Y, epochs=1, batch_size=10)  # and without, afterwards
    assert a.step.updates == 12


def test_an_interrupted_accumulation_leaves_no_gradient_behind() -> None:
    calls = [0]

    def loss(prediction: Any, target: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyError("mine")
        return python_mse(prediction, target)

    a, b = make(loss), make(python_mse)
    with pytest.raises(KeyError, match="mine"):
        a.fit(X, TARGET, epochs=1, batch_size=10, accumulate=4)
    assert a.step.updates == a.step.calls == 0
    a._passes = 0  # the same order again
    for trainer in (a, b):
        trainer.fit(X, TARGET, epochs=1, batch_size=10, accumulate=4)
    assert same(a, b)


# ---- memory maps -------------------------------------------------------------------------------


def mapped(folder: Path, array: Any) -> Any:
    file = np.memmap(folder / "x.bin", array.dtype, "w+", shape=array.shape)
    file[...] = array
    file.flush()
    return np.memmap(folder / "x.bin", array.dtype, "r", shape=array.shape)


def test_memory_maps_are_used_as_they_lie(tmp_path: Path) -> None:
    x = mapped(tmp_path, X)
    data = prepare("fit", x, Y, np.dtype(np.float32), nn.CrossEntropyLoss())
    assert np.shares_memory(data.inputs[0], x)
    a, b = make(), make()
    a.fit(x, Y, epochs=2, batch_size=10, validation=0.2)
    b.fit(X, Y, epochs=2, batch_size=10, validation=0.2)
    assert same(a, b)
    other = mapped(tmp_path, X.astype(np.float64))  # another dtype is converted
    c = make()
    c.fit(other, Y, epochs=2, batch_size=10, validation=0.2)
    assert same(c, b)
    assert (c.predict(other) == b.predict(X)).all()
    assert b.evaluate(X, Y) == c.evaluate(other, Y)


def test_memory_maps_are_checked_when_rows_are_used(tmp_path: Path) -> None:
    bad = np.tile(X, (50, 1))
    bad[4000, 1] = np.nan
    x, y = mapped(tmp_path, bad), np.tile(Y, 50)
    trainer = make()
    with pytest.raises(ValueError, match=r"expected x to be finite.*at index \(4000, 1\)"):
        trainer.fit(x, y, epochs=1, batch_size=10, shuffle=False)
    assert 0 < trainer.step.updates <= 400  # the rows before it were trained on
    assert np.isfinite(trainer.net.parameters()["0.weight"]).all()
    trainer.fit(x[:4000], y[:4000], epochs=1, batch_size=10)
    weights = np.ones(len(y))
    weights[4000] = 0
    trainer.fit(x, y, epochs=1, batch_size=10, sample_weight=weights)

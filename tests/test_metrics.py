"""Metrics against their definitions in float64, whole and chunk by chunk."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gvcore as gv
from gvcore import metrics, nn
from gvcore.metrics import Running, Whole, resolve

ROWS = [1, 2, 3, 7, 64, 257]


def running(name: str) -> Running:
    maker = resolve("test", [name])[0]
    assert not isinstance(maker, Whole)
    return maker()


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_errors_and_r2_are_their_definitions(rows: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(rows)
    p = rng.normal(size=(rows, *shape)).astype(np.float32)
    y = (p + rng.normal(size=p.shape)).astype(np.float32)
    error = p.astype(np.float64) - y
    assert metrics.rmse(p, y) == pytest.approx(math.sqrt(np.mean(error**2)), rel=1e-12)
    assert metrics.mae(p, y) == pytest.approx(np.mean(np.abs(error)), rel=1e-12)
    if rows > 1:
        wide = y.astype(np.float64)
        spread = np.sum((wide - wide.mean(axis=0)) ** 2, axis=0)
        assert metrics.r2(p, y) == pytest.approx(np.mean(1 - np.sum(error**2, axis=0) / spread), rel=1e-9)
    else:
        assert math.isnan(metrics.r2(p, y))


@pytest.mark.parametrize("name", ["accuracy", "top_2", "rmse", "mae", "r2"])
@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_chunks_give_what_the_whole_gives(name: str, chunk: int) -> None:
    rng = np.random.default_rng(1)
    p = rng.normal(size=(101, 4))
    # Far from zero, so that a variance computed as E[y²] - E[y]² would show.
    y = rng.integers(0, 4, 101) if name in ("accuracy", "top_2") else 1e6 + rng.normal(size=p.shape)
    if name == "r2":
        p = y + 0.1 * p
    whole, parts = running(name), running(name)
    whole.update(p, y)
    for first in range(0, len(p), chunk):
        parts.update(p[first : first + chunk], y[first : first + chunk])
    assert parts.result() == pytest.approx(whole.result(), rel=1e-9)
    if name == "r2":
        assert 0.98 < whole.result() < 0.995


def test_r2_is_that_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    y = rng.normal(size=(40, 3))
    y[:, 1] = 2.0
    for p in (y + 0.3 * rng.normal(size=y.shape), np.where(np.arange(3) == 1, y, y + 0.1)):
        assert metrics.r2(p, y) == pytest.approx(sklearn.r2_score(y, p), rel=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_accuracy_and_top_k_by_sorting(classes: int) -> None:
    rng = np.random.default_rng(classes)
    p, y = rng.normal(size=(200, classes)), rng.integers(0, classes, 200)
    order = np.argsort(-p, axis=1)
    for k in range(1, classes + 1):
        expected = np.mean([label in row[:k] for label, row in zip(y, order, strict=True)])
        assert metrics.top_k(k)(p, y) == expected
    assert metrics.accuracy(p, y) == metrics.top_k(1)(p, y) == np.mean(order[:, 0] == y)
    assert metrics.accuracy(p, np.eye(classes)[y]) == metrics.accuracy(p, y[:, None])


def test_ties_go_to_the_lower_class_and_nan_is_wrong() -> None:
    p = np.zeros((3, 3))
    assert metrics.accuracy(p, [0, 1, 2]) == 1 / 3
    assert metrics.top_k(2)(p, [0, 1, 2]) == 2 / 3
    p[:, 1] = np.nan
    assert metrics.accuracy(p, [0, 1, 2]) == 0
    assert metrics.top_k(1)(p, [0, 1, 2]) == 0
    assert metrics.accuracy(np.array([np.nan, 1.0]), [0, 1]) == 0.5


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_a_single_column_holds_logits_of_class_one(shape: tuple[int, ...]) -> None:
    p = np.array([-1.0, 2.0, 3.0, -4.0]).reshape(shape)
    assert metrics.accuracy(p, [0, 1, 0, 0]) == 0.75
    assert metrics.accuracy(p, np.array([[0.0], [1.0], [0.0], [0.0]])) == 0.75


def test_no_rows_are_nan() -> None:
    for f in (metrics.rmse, metrics.mae, metrics.r2):
        assert math.isnan(f(np.empty((0, 2)), np.empty((0, 2))))
    assert math.isnan(metrics.accuracy(np.empty((0, 2)), np.empty(0, np.int64)))


@pytest.mark.parametrize("f", [metrics.rmse, metrics.mae, metrics.r2])
def test_shapes_never_broadcast(f: Any) -> None:
    assert f([[1.0], [2.0], [4.0]], [1.0, 2.0, 3.0]) == f([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3,\)"):
        f(np.ones((3, 2)), np.ones(3))
    with pytest.raises(ValueError, match="fits the prediction"):
        f(np.ones((3, 1)), np.ones((1, 3)))


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"\[accuracy\] expected labels in \[0, 2\), got 0 … 2"):
        metrics.accuracy(np.ones((3, 2)), [0, 1, 2])
    with pytest.raises(ValueError, match=r"\[top_3\] expected k in \[1, 2\]"):
        metrics.top_k(3)(np.ones((3, 2)), [0, 1, 1])
    with pytest.raises(ValueError, match="fits the prediction"):
        metrics.accuracy(np.ones((3, 2)), [0, 1])
    for k in (0, -1):
        with pytest.raises(ValueError, match="k to be an integer >= 1"):
            metrics.top_k(k)


def test_names_and_functions() -> None:
    def mine(p: Any, y: Any) -> float:
        return 0.5

    found = resolve("fit", ["accuracy", "top_5", metrics.rmse, metrics.top_k(3), mine])
    names = [m.name if isinstance(m, Whole) else m().name for m in found]
    assert names == ["accuracy", "top_5", "rmse", "top_3", "mine"]
    assert [isinstance(m, Whole) for m in found] == [False, False, False, False, True]
    assert [m().name for m in resolve("fit", "mae") if not isinstance(m, Whole)] == ["mae"]
    for wrong in ("acuracy", "top_0", "top_", "val_loss"):
        with pytest.raises(ValueError, match=r"\[fit\] expected metrics among .*functions of"):
            resolve("fit", [wrong])
    for kind in (3, [None], [float]):
        with pytest.raises(TypeError, match=r"\[fit\] expected metrics"):
            resolve("fit", kind)
    with pytest.raises(ValueError, match="twice"):
        resolve("fit", ["rmse", metrics.rmse])

    def loss(p: Any, y: Any) -> float:
        return 0.5

    with pytest.raises(ValueError, match="another name, got 'loss'"):
        resolve("fit", [loss])


def test_a_metric_that_returns_no_number_is_named() -> None:
    def shapes(p: Any, y: Any) -> Any:
        return p.shape

    trainer = gv.Trainer(nn.Linear(2, 1, seed=0), nn.MSELoss(), gv.optim.SGD(lr=0.1), seed=0)
    with pytest.raises(TypeError, match=r"expected shapes to return a number, got tuple"):
        trainer.evaluate(np.ones((3, 2)), np.ones((3, 1)), metrics=[shapes])


@pytest.mark.parametrize("rows", [100, 20_000])
@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(weight=[1.0, 5.0, 0.0], label_smoothing=0.1),
        nn.CrossEntropyLoss(reduction="sum"),
    ],
)
def test_evaluate_in_chunks_is_the_loss_of_the_whole(rows: int, loss: Any) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(rows, 2)), rng.integers(0, 3, rows)
    net = nn.Linear(2, 3, seed=0)
    trainer = gv.Trainer(net, loss, gv.optim.SGD(lr=0.1), seed=0)

    def share(p: Any, t: Any) -> float:
        assert p.shape == (rows, 3) and t.shape == (rows,)
        return float(np.mean(p.argmax(axis=1) == t))

    found = trainer.evaluate(x, y, metrics=["accuracy", share])
    assert found["loss"] == pytest.approx(loss(net(x).astype(np.float64), y)[0], rel=1e-6)
    assert found["accuracy"] == found["share"]
    assert list(found) == ["loss", "accuracy", "share"]


@pytest.mark.parametrize("rows", [4, 9000])
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(weight=[1.0, 5.0, 0.0], label_smoothing=0.1),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.MSELoss(),
        nn.L1Loss(reduction="sum"),
        nn.HuberLoss(),
        nn.BCEWithLogitsLoss(pos_weight=[1.0, 2.0, 3.0]),
    ],
)
def test_sequences_are_evaluated_as_they_are_trained(rows: int, kind: str, loss: Any) -> None:
    rng = np.random.default_rng(3)
    x, labels = rng.normal(size=(rows, 5, 2)), rng.integers(0, 3, (rows, 5))
    y = labels if kind == "labels" else np.eye(3)[labels] * 0.8 + 0.1
    if kind == "labels" and not isinstance(loss, nn.CrossEntropyLoss):
        y = np.eye(3)[labels]
    trainer = gv.Trainer(nn.Linear(2, 3, seed=0), loss, gv.optim.SGD(lr=0.0), seed=0)
    found = trainer.evaluate(x, y, metrics=["accuracy"])
    history = trainer.fit(x, y, epochs=1, batch_size=rows, validation=(x, y), metrics=["accuracy"])
    record = history.epoch[0]
    assert found["loss"] == record["val_loss"] == pytest.approx(record["loss"], rel=1e-5)
    assert found["accuracy"] == record["accuracy"] == record["val_accuracy"]

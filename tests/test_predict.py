"""Trainer.predict and Trainer.evaluate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gvcore as gv
from gvcore import nn
from trainer_cases import TARGET, X, Y, make, python_mse


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 8192, 8193, 20_000])
def test_predict_is_the_net(rows: int) -> None:
    trainer = make()
    x = np.random.default_rng(rows).normal(size=(rows, 3))
    prediction = trainer.predict(x)
    assert prediction.dtype == np.float32 and prediction.shape == (rows, 3)
    assert (prediction == trainer.net(x.astype(np.float32))).all()


class Outputs(nn.Module):
    """A net whose forward returns a tuple."""

    def __init__(self, count: int) -> None:
        self.layers = nn.ModuleList(nn.Linear(3, i + 1, seed=i) for i in range(count))

    def forward(self, x: Any) -> Any:
        return tuple(layer(x) for layer in self.layers)


@pytest.mark.parametrize("rows", [4, 8192, 8193])
@pytest.mark.parametrize("count", [1, 2])
def test_predict_returns_the_tuple_that_forward_returns(rows: int, count: int) -> None:
    trainer = gv.Trainer(Outputs(count), nn.MSELoss(), gv.optim.SGD(lr=0.1), seed=0)
    x = np.random.default_rng(rows).normal(size=(rows, 3))
    prediction = trainer.predict(x)
    assert isinstance(prediction, tuple)
    assert [part.shape for part in prediction] == [(rows, i + 1) for i in range(count)]
    for part, whole in zip(prediction, trainer.net(x), strict=True):
        assert (part == whole).all()


@pytest.mark.parametrize("loss", [nn.MSELoss(), python_mse])
def test_a_tuple_of_one_output_trains_and_is_evaluated(loss: Any) -> None:
    trainer = gv.Trainer(Outputs(1), loss, gv.optim.SGD(lr=0.0), seed=0)
    history = trainer.fit(X, TARGET, epochs=1, batch_size=101, validation=(X, TARGET), metrics=["mae"])
    assert history.epoch[0]["val_loss"] == pytest.approx(history.epoch[0]["loss"], rel=1e-6)
    assert trainer.evaluate(X, TARGET)["loss"] == history.epoch[0]["val_loss"]


@pytest.mark.parametrize("loss", [nn.MSELoss(), python_mse])
def test_several_outputs_are_not_evaluated(loss: Any) -> None:
    trainer = gv.Trainer(Outputs(2), loss, gv.optim.SGD(lr=0.1), seed=0)
    with pytest.raises(ValueError, match=r"\[evaluate\] expected forward to return one value, got 2"):
        trainer.evaluate(X, TARGET)


def test_predict_and_evaluate_refuse() -> None:
    trainer = make()
    with pytest.raises(ValueError, match=r"\[predict\]"):
        trainer.predict(np.float64(3))
    with pytest.raises(ValueError, match=r"\[evaluate\] expected at least one row"):
        trainer.evaluate(X[:0], Y[:0])
    with pytest.raises(ValueError, match=r"\[evaluate\] expected y with 101 rows"):
        trainer.evaluate(X, Y[:50])
    with pytest.raises(ValueError, match=r"labels|target"):
        trainer.evaluate(X, Y + 1)
    with pytest.raises(ValueError, match=r"\[evaluate\] expected metrics among"):
        trainer.evaluate(X, Y, metrics=["acc"])
    assert np.isnan(trainer.evaluate(np.full((4, 3), np.nan), Y[:4])["loss"])  # propagates


def test_evaluate_with_a_python_loss() -> None:
    trainer = make(python_mse)
    found = trainer.evaluate(X, TARGET, metrics=["rmse"])
    assert found["rmse"] == pytest.approx(found["loss"] ** 0.5, rel=1e-5)

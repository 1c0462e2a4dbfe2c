"""`find_lr`: its rates and means, when it stops, what it suggests, and that the net stays as it was."""

import dataclasses
import math

import numpy as np
import pytest

import gvcore as gv
from gvcore import nn

LOSS = nn.CrossEntropyLoss()
X, Y = gv.datasets.digits()


def make():
    return gv.models.mlp(64, 10, [32], batch_norm=True, dropout=0.1, seed=0)


def bits(net):
    return {name: array.tobytes() for name, array in net.state_dict().items()}


def test_rates_and_running_mean():
    found = gv.find_lr(make(), X, Y, LOSS, min_lr=1e-5, max_lr=1e-2, steps=31)
    assert found.lrs.shape == found.losses.shape == found.smoothed.shape == (31,)
    np.testing.assert_allclose(found.lrs, np.logspace(-5, -2, 31), rtol=1e-12)
    weights = 0.9 ** np.arange(31)[::-1]
    for i in (0, 1, 7, 30):
        recent = weights[30 - i :]
        expected = (recent * found.losses[: i + 1]).sum() / recent.sum()
        assert found.smoothed[i] == pytest.approx(expected)
    assert found.stopped == "all steps done"


def test_the_first_losses_are_those_of_training():
    """Against TrainStep on the same batches: the losses are those before each update."""
    net = gv.models.mlp(64, 10, [16], seed=1)
    found = gv.find_lr(net, X[:20], Y[:20], LOSS, min_lr=1e-3, max_lr=0.1, steps=10, batch_size=20)
    step = gv.TrainStep(net, LOSS, gv.optim.SGD(lr=0.0, momentum=0.9))
    ours = [step(X[:20], Y[:20], lr=float(lr)) for lr in found.lrs]
    np.testing.assert_allclose(found.losses, ours, rtol=1e-5)


def test_the_net_stays_as_it_was():
    net = make()
    step = gv.TrainStep(net, LOSS, gv.optim.SGD(lr=0.1, momentum=0.9), seed=0)
    step(X[:64], Y[:64])
    before, velocity = bits(net), {k: v.tobytes() for k, v in step.state["velocity"].items()}
    state = np.random.get_state()[1].tobytes()  # noqa: NPY002
    gv.find_lr(net, X, Y, LOSS)
    assert bits(net) == before
    assert {k: v.tobytes() for k, v in step.state["velocity"].items()} == velocity
    assert np.random.get_state()[1].tobytes() == state  # noqa: NPY002
    step(X[:64], Y[:64])


def test_the_same_seed_gives_the_same_bits():
    runs = [gv.find_lr(make(), X, Y, LOSS, seed=seed).losses.tobytes() for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    with gv.threads(1):
        assert gv.find_lr(make(), X, Y, LOSS, seed=0).losses.tobytes() == runs[0]


@pytest.mark.parametrize(
    "optimizer", [None, gv.optim.Adam(lr=1.0), gv.optim.SGD(lr=gv.schedules.cosine(0.1), momentum=0.5)]
)
def test_training_at_the_suggestion_learns(optimizer):
    net = gv.models.mlp(64, 10, [64], seed=0)
    found = gv.find_lr(net, X, Y, LOSS, optimizer=optimizer)
    assert found.suggestion == pytest.approx(found.lrs[np.nanargmin(found.smoothed)] / 10)
    assert found.lrs[0] < found.steepest < found.lrs[-1]
    chosen = dataclasses.replace(optimizer or gv.optim.SGD(lr=0.0, momentum=0.9), lr=found.suggestion)
    trainer = gv.Trainer(net, LOSS, chosen, seed=0)
    history = trainer.fit(X, Y, epochs=5, batch_size=64)
    assert history.epoch[-1]["loss"] < 0.5


def test_it_stops_when_the_loss_soars():
    net = nn.Linear(64, 1, seed=0)
    found = gv.find_lr(net, X, Y.astype(float)[:, None], nn.MSELoss(), max_lr=1e3)
    assert len(found.lrs) < 100 and "4 times the best" in found.stopped
    best = np.minimum.accumulate(found.smoothed)
    assert found.smoothed[-1] > 4 * best[-1] and (found.smoothed[:-1] <= 4 * best[:-1]).all()


def test_it_stops_when_the_loss_is_not_finite():
    """Growing from 1e-2 to 1e30 in ten steps skips the soaring."""
    net = nn.Linear(64, 1, seed=0)
    found = gv.find_lr(net, X, Y.astype(float), nn.MSELoss(), min_lr=1e25, max_lr=1e38, steps=10)
    assert math.isnan(found.losses[-1]) and "no longer finite" in found.stopped
    assert math.isnan(found.suggestion) and "never fell" in str(found)
    assert "rate" in str(found)


def test_a_loss_that_never_falls_gives_no_suggestion():
    found = gv.find_lr(make(), X, Y, LOSS, min_lr=1e-12, max_lr=1e-11, steps=20)
    assert math.isnan(found.suggestion) and math.isnan(found.steepest)


def scripted(losses):
    """`find_lr` where the loss of each step is given."""
    values = iter(losses)
    net, x = nn.Linear(1, 1, seed=0), np.ones((4, 1))
    return gv.find_lr(net, x, x, lambda p, y: (next(values), 0 * p), steps=len(losses), batch_size=2)


def means(losses):
    weights = [0.9 ** np.arange(i + 1)[::-1] for i in range(len(losses))]
    return np.array([w @ losses[: len(w)] / w.sum() for w in weights])


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("times", "stops"), [(2.99, False), (3.01, True)])
def test_it_stops_where_the_mean_rises_by_three_times_the_best(sign, times, stops):
    losses = np.full(20, sign)
    step = (means(np.eye(20)[10])[10]).item()  # what the loss of step 10 adds to the mean there
    losses[10] += times / step
    found = scripted(losses)
    assert found.smoothed[10] == pytest.approx(sign + times)
    assert len(found.lrs) == (11 if stops else 20)
    assert ("4 times the best" in found.stopped) == stops


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("fall", "suggests"), [(0.049, False), (0.051, True)])
def test_a_suggestion_needs_a_fall_by_a_twentieth(sign, fall, suggests):
    ramp = np.append(np.arange(15.0), np.zeros(5))
    losses = sign - ramp * (fall / means(ramp)[14])
    found = scripted(losses)
    assert found.smoothed[0] - found.smoothed.min() == pytest.approx(fall)
    assert math.isfinite(found.suggestion) == math.isfinite(found.steepest) == suggests
    assert not suggests or found.suggestion == found.lrs[14] / 10


def test_batches_cross_the_ends_of_passes():
    """Every pass shows each sample once, and each batch is full."""
    from gvcore.rangetest import _batches

    batches = _batches(10, 4, 7)
    seen = np.concatenate([next(batches) for _ in range(10)])
    assert (np.bincount(seen) == 4).all() and sorted(seen[:10]) == list(range(10))
    found = gv.find_lr(make(), X[:5], Y[:5], LOSS, steps=10)  # a batch larger than the data
    assert np.isfinite(found.losses).all()


def test_a_loss_written_in_python():
    found = gv.find_lr(make(), X, Y, lambda p, t: gv.functional.cross_entropy(p, t), steps=40)
    native = gv.find_lr(make(), X, Y, LOSS, steps=40)
    np.testing.assert_allclose(found.losses[:20], native.losses[:20], rtol=1e-4)


def test_table_and_repr():
    found = gv.find_lr(make(), X, Y, LOSS)
    lines = str(found).splitlines()
    assert len(lines) == 4 + 12 and "suggestion" in lines[1] and max(map(len, lines)) < 110
    assert repr(found).startswith("RangeTest(")


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    for found in (
        gv.find_lr(make(), X, Y, LOSS),
        gv.find_lr(
            nn.Linear(64, 1, seed=0), X, Y.astype(float), nn.MSELoss(), min_lr=1e25, max_lr=1e38, steps=10
        ),
    ):
        ax = found.plot()
        assert ax.get_xscale() == "log" and ax.get_xlabel() == "learning rate" and ax.get_ylabel() == "loss"
        ax.figure.savefig(tmp_path / "rates.png")
    from matplotlib import pyplot

    assert len(pyplot.get_fignums()) == 2
    pyplot.close("all")


def test_bad_input():
    net = make()
    bad = X.copy()
    bad[2, 1] = np.inf
    for error, text, arguments, keywords in [
        (TypeError, r"\[find_lr\] expected net", (None, X, Y, LOSS), {}),
        (TypeError, r"\[find_lr\] expected loss", (net, X, Y, "mse"), {}),
        (TypeError, r"\[find_lr\] expected optimizer", (net, X, Y, LOSS), {"optimizer": 0.1}),
        (ValueError, r"\[find_lr\] expected min_lr", (net, X, Y, LOSS), {"min_lr": 0.0}),
        (ValueError, r"\[find_lr\] expected max_lr", (net, X, Y, LOSS), {"min_lr": 1.0, "max_lr": 1.0}),
        (ValueError, r"\[find_lr\] expected steps", (net, X, Y, LOSS), {"steps": 9}),
        (TypeError, r"\[find_lr\] expected batch_size", (net, X, Y, LOSS), {"batch_size": 1.5}),
        (ValueError, r"\[find_lr\] expected y with 1797 rows", (net, X, Y[:-1], LOSS), {}),
        (
            ValueError,
            r"\[find_lr\] expected x to be finite, got inf at index \(2, 1\)",
            (net, bad, Y, LOSS),
            {},
        ),
        (ValueError, r"more than one row", (net, X, Y, LOSS), {"batch_size": 1}),
    ]:
        with pytest.raises(error, match=text):
            gv.find_lr(*arguments, **keywords)

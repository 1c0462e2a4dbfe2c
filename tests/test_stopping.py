"""How training ends when it should not go on: Ctrl-C at any moment, losses or weights that are not finite."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gvcore as gv
from gvcore import nn
from gvcore.callbacks import Callback
from gvcore.train.loop import Mark

# Runs fit again and again; a thread sends SIGINT at a random moment of each run.
INTERRUPTED = """
import json, os, signal, sys, threading, time
import numpy as np
import gvcore as gv
from gvcore import nn

accumulate, hooks = int(sys.argv[1]), sys.argv[2] == "hooks"
rng = np.random.default_rng(0)
x = rng.normal(size=(20000, 64)).astype(np.float32)
y = rng.integers(0, 10, 20000)
net = gv.models.mlp(64, 10, [128, 128], seed=0)
trainer = gv.Trainer(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.01, momentum=0.9), seed=0)
sent = [0.0]
seen = []

class Watch(gv.callbacks.Callback):
    def on_step_end(self, trainer):
        seen.append(trainer.step.updates)

def press(after):
    time.sleep(after)
    sent[0] = time.perf_counter()
    os.kill(os.getpid(), signal.SIGINT)

latencies, problems = [], []
def check(name, right):
    if not right:
        problems.append(f"run {run}: {name}")

for run in range(20):
    after = float(rng.uniform(0.0, 0.3))
    thread = threading.Thread(target=press, args=(after,))
    epochs, updates = len(trainer.history.epoch), trainer.step.updates
    try:
        thread.start()
        trainer.fit(x, y, epochs=10**6, batch_size=50, validation=0.2, metrics=["accuracy"],
                    accumulate=accumulate, callbacks=[Watch()] if hooks else [])
    except KeyboardInterrupt:
        latencies.append(time.perf_counter() - sent[0])
    else:
        check("fit ended by itself", False)
    thread.join()
    h = trainer.history
    check("weights", all(np.isfinite(p).all() for p in net.parameters().values()))
    check("steps", [r["step"] for r in h.step] == list(range(1, trainer.step.updates + 1)))
    check("epochs", [r["epoch"] for r in h.epoch] == list(range(1, len(h.epoch) + 1)))
    check("state", int(trainer.step.state["updates"][0]) == trainer.step.updates)
    check("epoch steps", all(r["step"] <= trainer.step.updates for r in h.epoch))
    check("losses", all(np.isfinite(r["loss"]) for r in h.step))
    check("went on", trainer.step.updates >= updates and len(h.epoch) >= epochs)
    check("handler", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
before = trainer.step.updates
trainer.fit(x, y, epochs=1, batch_size=50, validation=0.2, accumulate=accumulate)
run = "last"
check("second fit", trainer.step.updates == before + -(-320 // accumulate))
if hooks:
    # A hook may miss the step at whose end Ctrl-C was served.
    check("hooks", seen == sorted(set(seen)) and before - 20 <= len(seen) <= before)
print(json.dumps({"latencies": latencies, "problems": problems, "updates": before}))
"""


@pytest.mark.parametrize(("accumulate", "hooks"), [(1, ""), (3, ""), (1, "hooks")])
def test_interrupting_at_random_moments(accumulate: int, hooks: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(accumulate), hooks]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["problems"] == []
    assert result["updates"] > 0
    assert len(result["latencies"]) == 20
    # Half a second; two in twenty may be late on a machine that is busy with other things.
    assert sorted(result["latencies"])[-3] < 0.5, result["latencies"]
    assert max(result["latencies"]) < 5.0


def test_ctrl_c_in_a_callback_is_not_held_back() -> None:
    trainer = gv.Trainer(nn.Linear(2, 1, seed=0), nn.MSELoss(), gv.optim.SGD(lr=0.1), seed=0)

    def stop(trainer: gv.Trainer) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=5, batch_size=2, callbacks=[stop])
    assert len(trainer.history.epoch) == 1
    assert len(trainer.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=1, batch_size=2).epoch) == 2


# ---- losses and weights that are not finite ----------------------------------------------------

RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 3)).astype(np.float32)
Y = np.full((100, 1), 0.3, np.float32)


def bounded(bad_steps: list[int], *, norm: bool = False, adam: bool = False) -> gv.Trainer:
    """A net whose loss stays finite when its weights do not; some steps have an absurd rate."""
    middle: list[nn.Module] = [nn.BatchNorm(4)] if norm else []
    net = nn.Sequential(
        nn.Linear(3, 4, seed=0), *middle, nn.Sigmoid(), nn.Dropout(0.2), nn.Linear(4, 1, seed=1), nn.Sigmoid()
    )

    def rate(step: int) -> float:
        return 1e39 if step in bad_steps else 0.1

    optimizer = gv.optim.Adam(lr=rate) if adam else gv.optim.SGD(lr=rate, momentum=0.9)
    return gv.Trainer(net, nn.MSELoss(), optimizer, seed=0)


class StopAfter(Callback):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, trainer: gv.Trainer) -> bool:
        return trainer.step.updates == self.steps


@pytest.mark.parametrize(("norm", "adam"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("good", [0, 1, 4, 5, 7, 14])
def test_weights_go_back_to_before_the_step(
    good: int, watched: bool, accumulate: int, norm: bool, adam: bool
) -> None:
    steps = {"epochs": 3, "batch_size": 20 // accumulate, "accumulate": accumulate}
    bad = [good]
    trainer, other = bounded(bad, norm=norm, adam=adam), bounded([], norm=norm, adam=adam)
    with pytest.raises(FloatingPointError, match=rf"at step {good + 1}, epoch {good // 5 + 1}\.") as caught:
        trainer.fit(X, Y, **steps, callbacks=[lambda t: None] if watched else [])
    assert "learning rate of 1e+39" in str(caught.value) or good == 0
    assert trainer.step.updates == len(trainer.history.step) == good
    assert len(trainer.history.epoch) == good // 5
    if good:
        other.fit(X, Y, **steps, callbacks=[StopAfter(good)])
    else:
        other.net.parameters()
    one, two = trainer.net.state_dict(), other.net.state_dict()
    assert all((one[name] == two[name]).all() for name in one)
    assert (trainer.step.state.pop("updates") == good).all() and trainer.step.calls == other.step.calls
    for kind in ("exp_avg", "exp_avg_sq") if adam else ("velocity",):
        for name, array in trainer.step.state[kind].items():
            assert (array == (other.step.state[kind][name] if good else 0)).all()
    bad.clear()
    assert np.isfinite(trainer.fit(X, Y, epochs=1, batch_size=20).epoch[-1]["loss"])


def failure(net: nn.Module, loss: Any, x: Any, y: Any, lr: float, **options: Any) -> tuple[str, gv.Trainer]:
    trainer = gv.Trainer(net, loss, gv.optim.SGD(lr=lr), seed=0, **options)
    with pytest.raises(FloatingPointError) as caught:
        trainer.fit(x, y, epochs=50, batch_size=50)
    assert all(np.isfinite(p).all() for p in net.parameters().values())
    assert len(trainer.history.step) == trainer.step.updates
    assert f"at step {trainer.step.updates + 1}, epoch {len(trainer.history.epoch) + 1}." in str(caught.value)
    return str(caught.value), trainer


def test_a_rate_that_is_too_large() -> None:
    net = nn.Sequential(nn.Linear(3, 8, seed=0), nn.ReLU(), nn.Linear(8, 1, seed=1))
    text, trainer = failure(net, nn.MSELoss(), X, Y, 100.0)
    assert "expected a finite loss, got" in text
    assert "Likely cause: a learning rate of 100 is too large: the loss went from" in text
    assert "gradient norm of the last good step was" in text and "largest weight is" in text
    assert "clip_norm" in text


def test_the_first_bad_layer_is_named() -> None:
    """The second block overflows: its weights are of order 1e20, one after the other."""
    net = nn.Sequential(
        nn.Linear(3, 8, seed=0), nn.Residual(nn.Linear(8, 8), nn.Linear(8, 8)), nn.Linear(8, 1)
    )
    for layer in (0, 1):
        net.parameters()[f"1.layers.{layer}.weight"][...] = 1e25
    text, trainer = failure(net, nn.MSELoss(), X, Y, 0.1)
    assert "First bad layer: 1.layers.1 (Linear), where 400 of its 400 outputs are not finite" in text
    assert "the net overflows with its first weights, before any update" in text
    assert trainer.step.updates == 0


def test_inputs_that_are_too_large() -> None:
    net = nn.Sequential(nn.Linear(3, 8, seed=0), nn.ReLU(), nn.Linear(8, 1, seed=1))
    text, _ = failure(net, nn.MSELoss(), X * 1e30, Y, 0.1)
    assert "inputs as large as" in text and "scale the columns of x" in text


LABELS = np.repeat([0, 1], 50)
LARGE = np.full(100, 1e38)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("loss", "y", "options", "text"),
    [
        (nn.CrossEntropyLoss(weight=[0, 1]), 1 - LABELS, {}, "the weights of the batch add up to 0"),
        (nn.CrossEntropyLoss(weight=[1e308, 1]), LABELS, {}, r"weights as large as 1e\+308"),
        (nn.CrossEntropyLoss(weight=[1e38, 1], reduction="sum"), LABELS, {}, r"weights as large as 1e\+38"),
        (nn.MSELoss(reduction="sum"), Y, {"sample_weight": LARGE}, r"weights as large as 1e\+38"),
        (nn.BCEWithLogitsLoss(pos_weight=1e300), Y, {}, r"weights as large as 1e\+300"),
    ],
)
def test_weights_that_make_no_mean(loss: Any, y: Any, options: Any, text: str, accumulate: int) -> None:
    net = nn.Linear(3, 2 if isinstance(loss, nn.CrossEntropyLoss) else 1, seed=0)
    trainer = gv.Trainer(net, loss, gv.optim.SGD(lr=0.01), seed=0)
    steps = {"epochs": 1, "batch_size": 50 // accumulate, "accumulate": accumulate, "shuffle": False}
    with pytest.raises(FloatingPointError, match=f"Likely cause: {text}"):
        trainer.fit(X, y, **steps, **options)
    assert trainer.step.updates in (0, 1)


def test_large_weights_that_spoil_a_layer_by_an_update() -> None:
    net = nn.Sequential(nn.Linear(3, 8, seed=0), nn.ReLU(), nn.Linear(8, 8, seed=1), nn.Linear(8, 1, seed=2))
    trainer = gv.Trainer(net, nn.MSELoss(reduction="sum"), gv.optim.SGD(lr=0.01), seed=0)
    with pytest.raises(FloatingPointError, match=r"First bad layer: 2 .*cause: weights as large as 1e\+30"):
        trainer.fit(X, Y, epochs=1, batch_size=50, sample_weight=LARGE / 1e8)
    assert trainer.step.updates == 1


@pytest.mark.filterwarnings("error")
def test_weights_whose_sum_overflows() -> None:
    trainer = gv.Trainer(nn.Linear(3, 2, seed=0), nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.01), seed=0)
    for options in ({"sample_weight": np.full(100, 1e308)}, {"class_weight": {0: 1e308}}):
        with pytest.raises(ValueError, match=rf"\[fit\] expected {[*options][0]} .*, with a finite sum"):
            trainer.fit(X, LABELS, epochs=1, batch_size=50, **options)


def test_a_loss_function_of_the_user() -> None:
    def loss(prediction: Any, target: Any) -> Any:
        value = float(np.log(np.mean(prediction) - 1e9)) if loss.calls > 3 else 1.0  # type: ignore[attr-defined]
        loss.calls += 1  # type: ignore[attr-defined]
        return value, np.ones_like(prediction)

    loss.calls = 0  # type: ignore[attr-defined]
    with np.errstate(invalid="ignore"):
        text, _ = failure(nn.Linear(3, 1, seed=0), loss, X, Y, 0.01)
    assert "All layers are finite; the loss function made nan of predictions from" in text
    assert "Likely cause: the loss function itself" in text


def mse(prediction: Any, target: Any) -> Any:
    return gv.functional.mse_loss(prediction, target)


@pytest.mark.parametrize("clip_norm", [None, 1e30])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_in_python_ends_as_the_one_built_in(accumulate: int, clip_norm: float | None) -> None:
    """The same records, the same weights, the same layer of the same batch."""
    found = []
    for loss in (nn.CrossEntropyLoss(), gv.functional.cross_entropy):
        layers = [nn.Linear(3, 8, seed=0), nn.ReLU(), nn.Linear(8, 8, seed=1), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Linear(8, 2, seed=2))
        trainer = gv.Trainer(net, loss, gv.optim.SGD(lr=1e8), seed=0, clip_norm=clip_norm)
        with pytest.raises(FloatingPointError) as caught:
            trainer.fit(X, LABELS, epochs=50, batch_size=10 // accumulate, accumulate=accumulate)
        assert 0 < trainer.step.updates == len(trainer.history.step) == trainer.last_step["step"] < 32
        losses = [record["loss"] for record in trainer.history.step]
        text = str(caught.value).split("; the largest output")[0]
        assert "First bad layer: " in text
        found.append((text, trainer.step.updates, trainer.step.calls, losses, net.state_dict()))
    (*one, one_losses, one_weights), (*two, two_losses, two_weights) = found
    assert one == two
    np.testing.assert_allclose(one_losses, two_losses, rtol=1e-6)
    for name, array in one_weights.items():
        np.testing.assert_allclose(array, two_weights[name], rtol=1e-5)


class Failing:
    """The mean squared error; call number `at` does something else."""

    def __init__(self, at: int, instead: Any) -> None:
        self.calls, self.at, self.instead = 0, at, instead

    def __call__(self, prediction: Any, target: Any) -> Any:
        self.calls += 1
        return self.instead(prediction) if self.calls == self.at else mse(prediction, target)


def throw(error: BaseException) -> Any:
    raise error


def inner_step(prediction: Any) -> Any:
    """A step within the loss, of another net, that refuses."""
    gv.TrainStep(nn.Linear(1, 1, seed=0), nn.MSELoss(), gv.optim.SGD(lr=0.1))([[np.nan]], [[0.0]])


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("instead", "error", "text"),
    [
        (lambda p: throw(RuntimeError("mine")), RuntimeError, "^mine$"),
        (
            lambda p: throw(FloatingPointError("[TrainStep] mine")),
            FloatingPointError,
            r"^\[TrainStep\] mine$",
        ),
        (lambda p: (1.0, p[:-1]), ValueError, r"\[loss\] expected dprediction of shape"),
        (
            lambda p: (1.0, p + 1j),
            TypeError,
            r"\[loss\] expected dprediction to be numbers, got dtype complex",
        ),
        (lambda p: (1.0, [[1], [1, 2]]), ValueError, r"\[loss\] expected dprediction to be an array"),
        (
            inner_step,
            FloatingPointError,
            r"^\[TrainStep\] expected a finite loss, got nan; nothing was written$",
        ),
        (
            lambda p: throw(FloatingPointError("[clip_grad_norm] x")),
            FloatingPointError,
            r"^\[clip_grad_norm\] x$",
        ),
    ],
)
def test_an_exception_of_the_loss_leaves_the_steps_before_it(
    instead: Any, error: type[Exception], text: str, accumulate: int
) -> None:
    loss = Failing(19 * accumulate + 1, instead)
    trainer = gv.Trainer(nn.Linear(3, 1, seed=0), loss, gv.optim.SGD(lr=0.01), seed=0)
    with pytest.raises(error, match=text):
        trainer.fit(X, Y, epochs=2, batch_size=4 // accumulate, accumulate=accumulate)
    assert loss.calls == 19 * accumulate + 1
    assert trainer.step.updates == trainer.last_step["step"] == 19
    trainer.fit(X, Y, epochs=1, batch_size=4)
    assert [record["step"] for record in trainer.history.step] == list(range(1, 45))


def test_a_gradient_of_the_loss_that_is_not_finite_once() -> None:
    """It shows in the next loss; the steps before it stay, with weights of the last of them."""
    loss = Failing(5, lambda p: (1.0, p * np.float32(np.nan)))
    text, trainer = failure(nn.Linear(3, 1, seed=0), loss, X, Y, 0.01)
    assert "expected a finite loss, got nan at step 6" in text and trainer.step.updates == 5
    once = Failing(0, None)
    other = gv.Trainer(nn.Linear(3, 1, seed=0), once, gv.optim.SGD(lr=0.01), seed=0)
    other.fit(X, Y, epochs=50, batch_size=50, callbacks=[StopAfter(5)])
    for name, array in other.net.state_dict().items():
        assert (array == trainer.net.state_dict()[name]).all()


def test_the_way_back_survives_a_loss_that_raises_the_second_time() -> None:
    loss = Failing(5, lambda p: (1.0, p * np.float32(np.nan)))

    def second(prediction: Any, target: Any) -> Any:
        return throw(RuntimeError("mine")) if loss.calls > 8 else loss(prediction, target)

    text, trainer = failure(nn.Linear(3, 1, seed=0), second, X, Y, 0.01)
    assert "Its reasons could not be looked for (RuntimeError: mine)." in text
    assert trainer.step.updates < 5


def test_a_gradient_norm_that_overflows() -> None:
    net = nn.Sequential(nn.Linear(3, 8, seed=0), nn.ReLU(), nn.Linear(8, 1, seed=1))
    text, _ = failure(net, nn.L1Loss("sum"), X * 3e37, Y, 0.1, clip_norm=1.0)
    assert "expected a finite" in text


def test_a_floating_point_error_of_the_user_stays_his_own() -> None:
    def loss(prediction: Any, target: Any) -> Any:
        raise FloatingPointError("mine")

    trainer = gv.Trainer(nn.Linear(3, 1, seed=0), loss, gv.optim.SGD(lr=0.1), seed=0)
    with pytest.raises(FloatingPointError, match="^mine$"):
        trainer.fit(X, Y, epochs=1, batch_size=10)


# ---- the reasons, each of them -----------------------------------------------------------------


@pytest.mark.parametrize("lr", [0.05, 1e-12])
def test_a_net_that_explodes_from_the_start(lr: float) -> None:
    net = gv.models.mlp(3, 1, [16] * 60, residual=True, batch_norm=False, seed=0)
    assert gv.diagnose(net, X, Y, nn.MSELoss()).verdict == "exploding"
    text, _ = failure(net, nn.MSELoss(), X, Y, lr)
    assert f"Likely cause: the start, not the learning rate of {lr:.3g}: the first loss was" in text
    assert "gv.diagnose" in text and "Try " not in text and "scale y" in text
    text, _ = failure(
        gv.models.mlp(3, 2, [16] * 60, residual=True, batch_norm=False, seed=0),
        nn.CrossEntropyLoss(),
        X,
        LABELS,
        lr,
    )
    assert "Likely cause: the start" in text and "scale y" not in text  # of labels there is nothing to scale


def test_a_first_gradient_that_is_absurd() -> None:
    net = nn.Sequential(nn.Linear(3, 8, seed=0), nn.Linear(8, 8, seed=1), nn.Linear(8, 1, seed=2), nn.Tanh())
    with np.errstate(over="ignore"):
        for i in (1, 2):
            net.parameters()[f"{i}.weight"][...] *= 1e13
    net.parameters()["0.weight"][...] = net.parameters()["0.bias"][...] = 0
    net.parameters()["1.bias"][...] = net.parameters()["2.bias"][...] = 0
    text, trainer = failure(net, lambda p, y: (0.5, np.ones_like(p)), X, Y, 1.0)
    assert trainer.step.updates == 1 and np.isfinite(trainer.history.step[0]["loss"])
    assert "Likely cause: the start, not the learning rate of 1: the first gradient norm was" in text


def test_outputs_of_a_large_rate_are_not_the_fault_of_a_loss_in_python() -> None:
    text, _ = failure(nn.Linear(3, 1, seed=0), mse, X, Y, 100.0)
    assert "All layers are finite; the loss function made inf of predictions from" in text
    assert "Likely cause: a learning rate of 100 is too large: the loss went from" in text


@pytest.mark.parametrize("factor", [np.inf, np.nan])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_loss_in_python_whose_gradient_is_not_finite(factor: float, clip_norm: float | None) -> None:
    def loss(prediction: Any, target: Any) -> Any:
        return 1.0, np.full_like(prediction, factor)

    text, trainer = failure(nn.Linear(3, 1, seed=0), loss, X, Y, 0.1, clip_norm=clip_norm)
    assert "All layers are finite; the loss function made a gradient that is not finite of" in text
    assert "Likely cause: the loss function itself" in text and trainer.step.updates == 0


def test_the_first_bad_layer_on_the_way_back() -> None:
    """Outputs of 0, and gradients that grow by 1e25 in each layer."""
    net = nn.Sequential(*(nn.Linear(3, 3, bias=False, seed=i) for i in range(4)))
    net.parameters()["0.weight"][...] = 0
    for i in (1, 2, 3):
        net.parameters()[f"{i}.weight"][...] = 1e25
    text, _ = failure(net, nn.L1Loss(), X, np.ones((100, 3)), 0.1)
    assert "First bad layer, on the way back: 1 (Linear), whose gradient is not finite." in text
    assert "the net overflows with its first weights, before any update" in text and "gv.diagnose" in text


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_of_parameters_alone_that_overflows(clip_norm: float | None) -> None:
    net = nn.Linear(3, 1, bias=False, init="zeros")
    text, _ = failure(net, nn.L1Loss("sum"), np.full((100, 3), 3e37), Y, 0.1, clip_norm=clip_norm)
    assert "Outputs are finite; the gradient of the parameters is not." in text
    assert ("expected a finite gradient norm" in text) == (clip_norm is not None)


@pytest.mark.parametrize("frozen", [False, True])
def test_an_update_that_is_not_finite_though_its_gradient_is(frozen: bool) -> None:
    trainer = bounded([2])
    if frozen:
        trainer.net.freeze("0.*")
    with pytest.raises(FloatingPointError) as caught:
        trainer.fit(X, Y, epochs=1, batch_size=20)
    assert "expected finite weights, got nan or infinity after the update at step 3" in str(caught.value)
    assert "Outputs and gradients are finite (gradient norm 0." in str(caught.value)
    assert "; the update is not. Likely cause: a learning rate of 1e+39 is too large" in str(caught.value)


def test_exploding_gradients_of_a_small_rate() -> None:
    text, _ = failure(nn.Linear(3, 1, seed=0), nn.MSELoss(), X * 1e3, Y, 1e-3)
    assert "Likely cause: exploding gradients at learning rate 0.001: the loss went from" in text
    assert "Try clip_norm=1.0." in text


def test_a_step_that_is_finite_when_it_is_repeated() -> None:
    text, _ = failure(nn.Linear(3, 1, seed=0), Failing(3, lambda p: (np.nan, p)), X, Y, 0.01)
    assert "Outputs and gradients are finite (gradient norm 2.92), now that the step is repeated." in text
    assert "Likely cause: not the step but what wrote to the weights besides" in text


def test_reasons_that_could_not_be_looked_for() -> None:
    loss = Failing(0, None)

    def fails(prediction: Any, target: Any) -> Any:
        loss.calls += 1
        return throw(OSError("gone")) if loss.calls > 3 else (np.nan if loss.calls == 3 else 1.0, prediction)

    text, trainer = failure(nn.Linear(3, 1, seed=0), fails, X, Y, 0.01)
    assert "Its reasons could not be looked for (OSError: gone). The weights are those before" in text
    assert trainer.step.updates == 2


def test_no_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The net lies in memory of another layout than the copy was taken of."""
    monkeypatch.setattr("gvcore.train.loop.Mark.restore", lambda self: False)
    trainer = bounded([2])
    with pytest.raises(FloatingPointError, match=r"at step [456], epoch 1\. .* The weights are spoilt\.$"):
        trainer.fit(X, Y, epochs=1, batch_size=20)


def test_weights_that_are_not_finite_at_the_start() -> None:
    net = nn.Linear(3, 1, seed=0)
    net.parameters()["weight"][0, 0] = np.nan
    trainer = gv.Trainer(net, nn.MSELoss(), gv.optim.SGD(lr=0.1), seed=0)
    with pytest.raises(FloatingPointError, match=r"expected finite weights, got .* in weight before step 1"):
        trainer.fit(X, Y, epochs=1, batch_size=10)


def test_a_part_of_a_net_leaves_the_rest_alone() -> None:
    """The weights of a layer that lie between those of the part are not looked at, and not put back."""
    first, between, last = nn.Linear(3, 4, seed=0), nn.Linear(4, 4, seed=2), nn.Linear(4, 1, seed=1)
    whole = nn.Sequential(first, nn.Sigmoid(), between, last, nn.Sigmoid())
    whole.parameters()  # into one buffer
    part = nn.Sequential(first, nn.Sigmoid(), last, nn.Sigmoid())
    places = [p.ctypes.data for p in (*part.parameters().values(), between.parameters()["weight"])]
    assert min(places) < places[-1] < max(places)
    between.parameters()["weight"][...] = np.nan
    trainer = gv.Trainer(part, nn.MSELoss(), gv.optim.SGD(lr=lambda step: 1e39 if step == 7 else 0.1), seed=0)

    def write(trainer: gv.Trainer) -> None:
        between.parameters()["bias"][...] += 1

    between.parameters()["bias"][...] = 0
    with pytest.raises(FloatingPointError, match="after the update at step 8, epoch 2"):
        trainer.fit(X, Y, epochs=3, batch_size=20, callbacks=[write])
    assert all(np.isfinite(p).all() for p in part.parameters().values())
    assert (between.parameters()["bias"] == 1).all() and np.isnan(between.parameters()["weight"]).all()


def test_copies_take_a_fiftieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([1.0, 10.0, 11.0, 12.0, 60.9, 61.1])
    monkeypatch.setattr("gvcore.train.loop.time", SimpleNamespace(perf_counter=lambda: next(now)))
    mark = Mark(bounded([]).step)
    assert mark.due()
    mark.take()  # a second, until 11
    assert [mark.due() for _ in range(3)] == [False, False, True]


def test_nothing_of_the_library_is_printed(tmp_path: Path) -> None:
    program = (
        "import numpy as np, gvcore as gv\n"
        "x = np.ones((10, 2)); t = gv.Trainer(gv.nn.Linear(2, 1), gv.nn.MSELoss(), gv.optim.SGD(lr=0.1))\n"
        "t.fit(x, x[:, :1], epochs=2, batch_size=5, validation=0.2)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")

"""The training step: what it refuses, and what a refusal or a failure leaves behind.

What its arguments mean is in test_train_step_results.py, batches, views and threads in
test_train_step_state.py.
"""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest

import gvcore as gv
import gvcore.functional as F
from gvcore import nn
from train_step_cases import CLASSES, FEATURES, OPTIMISERS, SGD, assert_same, batch, make_net, state

# ---- bad input ----------------------------------------------------------------------------------

X, Y = batch()


class Opaque:
    pass


BAD = {
    "no rows": (ValueError, lambda step: step(X[:0], Y[:0])),
    "one row": (ValueError, lambda step: step(X[:1], Y[:1])),
    "fewer labels": (ValueError, lambda step: step(X, Y[:-1])),
    "more labels": (ValueError, lambda step: step(X[:-1], Y)),
    "labels of two axes": (ValueError, lambda step: step(X, np.stack([Y, Y], axis=1))),
    "a label": (ValueError, lambda step: step(X, 1)),
    "label too large": (ValueError, lambda step: step(X, np.where(np.arange(9) == 7, CLASSES, Y))),
    "label negative": (ValueError, lambda step: step(X, np.where(np.arange(9) == 7, -1, Y))),
    "label far too large": (ValueError, lambda step: step(X, np.full(9, np.iinfo(np.int64).max))),
    "label beyond int64": (ValueError, lambda step: step(X, np.full(9, 2**63, np.uint64))),
    "label that overflows an int": (ValueError, lambda step: step(X, Y + 2**32)),
    "float labels": (TypeError, lambda step: step(X, Y.astype(np.float32))),
    "probabilities of fewer classes": (ValueError, lambda step: step(X, np.ones((9, CLASSES - 1)))),
    "probabilities of fewer rows": (ValueError, lambda step: step(X, np.ones((8, CLASSES)))),
    "fewer features": (ValueError, lambda step: step(X[:, :-1], Y)),
    "more features": (ValueError, lambda step: step(np.ones((9, FEATURES + 1)), Y)),
    "no feature axis": (ValueError, lambda step: step(X[:, 0], Y)),
    "a number": (ValueError, lambda step: step(1.0, Y)),
    "too many axes": (ValueError, lambda step: step(np.ones((9, 1, 1, 1, FEATURES)), Y)),
    "inputs of two lengths": (ValueError, lambda step: step((X, X[:-1]), Y)),
    "no input": ((TypeError, ValueError), lambda step: step((), Y)),
    "objects": (TypeError, lambda step: step(np.array([[Opaque()] * FEATURES] * 9), Y)),
    "complex numbers": (TypeError, lambda step: step(X.astype(complex), Y)),
    "strings": (TypeError, lambda step: step(X.astype(str), Y)),
    "dates": (TypeError, lambda step: step(X.astype("datetime64[s]"), Y)),
    "None": (TypeError, lambda step: step(None, Y)),
    "object labels": (TypeError, lambda step: step(X, Y.astype(object))),
    "complex labels": (TypeError, lambda step: step(X, Y.astype(complex))),
    "string labels": (TypeError, lambda step: step(X, Y.astype(str))),
    "no labels": (TypeError, lambda step: step(X, None)),
    "lr NaN": (ValueError, lambda step: step(X, Y, lr=math.nan)),
    "lr infinite": (ValueError, lambda step: step(X, Y, lr=math.inf)),
    "lr negative": (ValueError, lambda step: step(X, Y, lr=-1e-3)),
    "lr a string": (TypeError, lambda step: step(X, Y, lr="0.1")),
    "fewer sample weights": (ValueError, lambda step: step(X, Y, sample_weight=np.ones(8))),
    "sample weights of two axes": (ValueError, lambda step: step(X, Y, sample_weight=np.ones((9, 1)))),
    "sample weight negative": (ValueError, lambda step: step(X, Y, sample_weight=np.arange(9) - 1.0)),
    "sample weight NaN": (ValueError, lambda step: step(X, Y, sample_weight=np.full(9, np.nan))),
    "sample weight infinite": (ValueError, lambda step: step(X, Y, sample_weight=np.full(9, np.inf))),
    "sample weights all zero": (ValueError, lambda step: step(X, Y, sample_weight=np.zeros(9))),
    "sample weights strings": (TypeError, lambda step: step(X, Y, sample_weight=["1"] * 9)),
}


@pytest.mark.parametrize("optimizer", OPTIMISERS)
@pytest.mark.parametrize("case", BAD)
def test_bad_input_writes_nothing_and_the_step_stays_usable(case, optimizer):
    error, call = BAD[case]
    net, twin = make_net(), make_net()
    step, other = (gv.TrainStep(n, nn.CrossEntropyLoss(), OPTIMISERS[optimizer], seed=1) for n in (net, twin))
    for tries in range(2):  # before there is any state, and with it
        before = state(net, step)
        with pytest.raises(error) as caught:
            call(step)
        assert type(caught.value) in (TypeError, ValueError)  # and no relative of theirs
        assert str(caught.value).startswith("[") and "expected" in str(caught.value)
        assert_same(before, state(net, step))
        assert step(*batch(seed=tries)) == other(*batch(seed=tries))
        assert_same(state(twin, other), state(net, step))


@pytest.mark.parametrize(
    "case", ["no rows", "one row", "fewer labels", "label too large", "float labels", "strings"]
)
def test_value_and_grad_refuses_the_same(case):
    error, call = BAD[case]
    net = make_net()
    value_and_grad = gv.value_and_grad(net, nn.CrossEntropyLoss())
    before = {name: array.tobytes() for name, array in net.buffers().items()}
    with pytest.raises(error):
        call(value_and_grad)
    assert before == {name: array.tobytes() for name, array in net.buffers().items()}


def test_one_row_is_enough_where_no_batch_statistics_are_needed():
    net = make_net(norm=False)
    assert math.isfinite(gv.TrainStep(net, nn.CrossEntropyLoss(), SGD)(X[:1], Y[:1]))
    loss, _ = gv.value_and_grad(make_net(), nn.CrossEntropyLoss())(X[:1], Y[:1], training=False)
    assert math.isfinite(loss)


def test_one_row_of_several_positions_is_a_batch():
    net = nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm(4), nn.Linear(4, CLASSES))
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), SGD)
    assert math.isfinite(step(X[None, :4], Y[None, :4]))


def test_forward_of_fewer_arguments():
    net, twin = make_net(), make_net()
    step, other = (gv.TrainStep(n, nn.CrossEntropyLoss(), SGD, seed=1) for n in (net, twin))
    with pytest.raises(TypeError):
        step((X, X), Y)
    assert step(X, Y) == other(X, Y)


def test_shapes_are_in_the_message():
    step = gv.TrainStep(make_net(), nn.CrossEntropyLoss(), SGD)
    with pytest.raises(ValueError, match=r"(?s)5.*\b4\b|\b4\b.*5"):
        step(X[:, :4], Y)
    with pytest.raises(ValueError, match=r"9.*\(8,\)"):
        step(X, Y[:8])


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(), nn.BCEWithLogitsLoss()])
@pytest.mark.parametrize(
    "y", [np.ones((9, 3)), np.ones(9), np.ones((9, 2, 1)), np.ones((8, 2))], ids=np.shape
)
def test_targets_of_another_shape_than_the_prediction(loss, y):
    net = make_net(outputs=2)
    step = gv.TrainStep(net, loss, SGD)
    before = state(net, step)
    with pytest.raises(ValueError):
        step(X, y)
    assert_same(before, state(net, step))
    assert math.isfinite(step(X, np.ones((9, 2))))


def test_weights_of_a_loss_must_fit_the_classes():
    step = gv.TrainStep(make_net(), nn.CrossEntropyLoss(weight=np.ones(CLASSES + 1)), SGD)
    with pytest.raises(ValueError, match="weight"):
        step(X, Y)


def test_settings_are_checked_when_the_step_is_made():
    net, loss = make_net(), nn.CrossEntropyLoss()
    with pytest.raises(TypeError):
        gv.TrainStep("net", loss, SGD)
    with pytest.raises(TypeError):
        gv.TrainStep(net, "loss", SGD)
    with pytest.raises(TypeError):
        gv.TrainStep(net, nn.CrossEntropyLoss, SGD)
    with pytest.raises(TypeError):
        gv.TrainStep(net, loss, "sgd")
    with pytest.raises(TypeError):
        gv.TrainStep(net, loss, gv.optim.SGD)
    for clip_norm in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError):
            gv.TrainStep(net, loss, SGD, clip_norm=clip_norm)
    with pytest.raises(ValueError):
        gv.TrainStep(net, loss, SGD, seed=-1)
    with pytest.raises(ValueError):
        gv.TrainStep(net, loss, gv.optim.SGD(lr=0.1, groups=[{"match": "nothing.*", "lr_scale": 0.5}]))
    for lr in (math.nan, math.inf, -0.1):
        with pytest.raises(ValueError):
            gv.optim.SGD(lr=lr)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("clip_norm", -1.0, ValueError),
        ("clip_norm", math.nan, ValueError),
        ("clip_norm", "a", TypeError),
        ("seed", "a", TypeError),
        ("seed", -1, ValueError),
    ],
)
def test_settings_are_checked_when_they_are_changed(name, value, error):
    step = gv.TrainStep(make_net(), nn.CrossEntropyLoss(), SGD, clip_norm=0.5, seed=1)
    with pytest.raises(error, match=rf"\[.*{name}.*, got "):
        setattr(step, name, value)
    assert (step.clip_norm, step.seed) == (0.5, 1)


def test_settings_that_are_changed_are_those_of_a_new_step():
    losses, norms = [], []
    for first, later in ((None, 1e-3), (1e-3, None)):
        net, twin = make_net(), make_net()
        step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1), clip_norm=first, seed=1)
        step.clip_norm, step.seed = later, np.random.SeedSequence(5)
        other = gv.TrainStep(
            twin, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1), clip_norm=later, seed=np.random.SeedSequence(5)
        )
        losses += [step(X, Y), other(X, Y)]
        norms.append(step.gradient_norm)
        assert_same(state(net, step), state(twin, other))
    assert len(set(losses)) == 1 and norms[0] > 1e-3 and norms[1] is None


@pytest.mark.parametrize("flag", ["no", 1, None])
def test_flags_are_true_or_false(flag):
    net = make_net()
    before = state(net, step := gv.TrainStep(net, nn.CrossEntropyLoss(), SGD))
    with pytest.raises(TypeError, match=r"\[TrainStep\] expected accumulate to be True or False, got "):
        step(X, Y, accumulate=flag)
    with pytest.raises(TypeError, match=r"\[value_and_grad\] expected training to be True or False, got "):
        gv.value_and_grad(net, nn.CrossEntropyLoss())(X, Y, training=flag)
    with pytest.raises(TypeError, match="seed"):
        gv.value_and_grad(net, nn.CrossEntropyLoss())(X, Y, training=False, seed="a")
    assert_same(before, state(net, step))
    assert math.isfinite(step(X, Y, accumulate=np.True_))


@pytest.mark.parametrize("name", ["net", "loss", "optimizer"])
def test_settings_cannot_be_replaced(name):
    net, loss = make_net(), nn.CrossEntropyLoss()
    step = gv.TrainStep(net, loss, SGD)
    assert (step.net, step.loss, step.optimizer) == (net, loss, SGD)
    other = {"net": make_net(), "loss": nn.MSELoss(), "optimizer": gv.optim.SGD(lr=0.1, weight_decay=10.0)}
    message = rf"\[TrainStep\] expected {name} to stay as given, got another; make a new TrainStep"
    with pytest.raises(AttributeError, match=message):
        setattr(step, name, other[name])
    assert (step.net, step.loss, step.optimizer) == (net, loss, SGD)


@pytest.mark.parametrize("copies", [pickle.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("used", [False, True])
def test_steps_and_trainers_say_what_to_copy_instead(copies, used):
    trainer = gv.Trainer(make_net(), nn.CrossEntropyLoss(), SGD, seed=1)
    if used:
        trainer.step(X, Y)
    for kind, one in (("TrainStep", trainer.step), ("Trainer", trainer)):
        with pytest.raises(TypeError, match=rf"\[{kind}\] expected net, .* make a new {kind} of the copies"):
            copies(one)
    net, loss, optimizer = pickle.loads(pickle.dumps((trainer.net, trainer.loss, trainer.step.optimizer)))
    assert math.isfinite(gv.TrainStep(net, loss, optimizer)(X, Y))


def test_unknown_instruction_set():
    step = gv.TrainStep(make_net(), nn.CrossEntropyLoss(), SGD)
    with pytest.raises(ValueError, match="avx1024"), gv.isa("avx1024"):
        pass
    assert math.isfinite(step(X, Y))


@pytest.mark.parametrize("rate", [math.nan, math.inf, -1.0])
def test_schedule_that_returns_no_rate(rate):
    net = make_net()
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=lambda t: rate))
    before = state(net, step)
    with pytest.raises(ValueError):
        step(X, Y)
    assert_same(before, state(net, step))
    assert math.isfinite(step(X, Y, lr=0.1))


# ---- a net that changes under a step ------------------------------------------------------------


class TwoParts(nn.Module):
    def __init__(self):
        self.first = nn.Linear(FEATURES, 4, seed=0)
        self.norm = nn.BatchNorm(4)
        self.last = nn.Linear(4, CLASSES, seed=1)

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


def replace_module(net):
    net.first = nn.Linear(FEATURES, 4, seed=0)


def change_attribute(net):
    net.norm.eps = 1e-3


def add_parameter(net):
    net.extra = nn.Parameter(np.zeros(3, np.float32))


def replace_parameter(net):
    net.first.weight = nn.Parameter(np.zeros((4, FEATURES), np.float32))


def remove_parameter(net):
    net.first.bias = None


def delete_module(net):
    del net.norm


def change_dtype(net):
    net.astype(np.float64)


@pytest.mark.parametrize(
    "change",
    [
        replace_module,
        change_attribute,
        add_parameter,
        replace_parameter,
        remove_parameter,
        delete_module,
        change_dtype,
    ],
)
@pytest.mark.parametrize("after", [0, 2], ids=["before the first step", "after some"])
def test_changed_net_raises(change, after):
    net = TwoParts()
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), SGD)
    for i in range(after):
        step(*batch(seed=i))
    change(net)
    before = {name: array.tobytes() for name, array in {**net.parameters(), **net.buffers()}.items()}
    for _ in range(2):
        with pytest.raises(ValueError, match="TrainStep"):
            step(X, Y)
    after = {name: array.tobytes() for name, array in {**net.parameters(), **net.buffers()}.items()}
    assert before == after


def test_change_taken_back_is_no_change():
    net = TwoParts()
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), SGD)
    step(X, Y)
    net.norm.eps = 1e-3
    with pytest.raises(ValueError):
        step(X, Y)
    net.norm.eps = 1e-5
    assert math.isfinite(step(X, Y))


def test_other_nets_and_new_steps_do_not_mind():
    net = TwoParts()
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), SGD)
    step(X, Y)
    TwoParts().astype(np.float64)
    TwoParts().freeze("first.*")
    assert math.isfinite(step(X, Y))
    change_attribute(net)
    assert math.isfinite(gv.TrainStep(net, nn.CrossEntropyLoss(), SGD)(X, Y))


# ---- a step that fails --------------------------------------------------------------------------


def infinite_loss(step):
    x = X.copy()
    x[3, 2] = np.inf
    step(x, Y)


def nan_in_x(step):
    x = X.copy()
    x[8, 0] = np.nan
    step(x, Y)


class Raised(Exception):
    pass


class Moody:
    """Cross-entropy in Python, until told otherwise."""

    def __init__(self):
        self.mood = None

    def __call__(self, prediction, target):
        loss, gradient = F.cross_entropy(prediction, target)
        match self.mood:
            case "raises":
                raise Raised
            case "is not finite":
                return math.nan, gradient
            case "is infinite":
                return -math.inf, gradient
            case "returns a number":
                return loss
            case "returns three":
                return loss, gradient, None
            case "returns None":
                return None
            case "returns a gradient of another shape":
                return loss, gradient[:-1]
            case "returns a transposed gradient":
                return loss, gradient.T
            case "returns strings":
                return loss, gradient.astype(str)
            case "returns complex numbers":
                return loss, gradient.astype(complex)
            case "returns a loss per row":
                return np.ones(len(gradient)), gradient
            case "returns no loss":
                return None, gradient
            case "returns a gradient that is not finite":
                return loss, gradient * np.float32(np.nan)
        return loss, gradient


MOODS = {
    "raises": Raised,
    "is not finite": FloatingPointError,
    "is infinite": FloatingPointError,
    "returns a number": TypeError,
    "returns three": TypeError,
    "returns None": TypeError,
    "returns a gradient of another shape": ValueError,
    "returns a transposed gradient": ValueError,
    "returns strings": (TypeError, ValueError),
    "returns complex numbers": (TypeError, ValueError),
    "returns a loss per row": (TypeError, ValueError),
    "returns no loss": (TypeError, ValueError),
}


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("fail", [infinite_loss, nan_in_x])
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_loss_that_is_not_finite(optimizer, fail, clip_norm):
    net, twin = make_net(), make_net()
    step, other = (
        gv.TrainStep(n, nn.CrossEntropyLoss(), OPTIMISERS[optimizer], seed=1, clip_norm=clip_norm)
        for n in (net, twin)
    )
    for i in range(3):
        before = state(net, step)
        with pytest.raises(FloatingPointError, match="loss"):
            fail(step)
        assert_same(before, state(net, step))
        assert step(*batch(seed=i)) == other(*batch(seed=i))
        assert_same(state(twin, other), state(net, step))


@pytest.mark.parametrize("optimizer", OPTIMISERS)
@pytest.mark.parametrize("mood", MOODS)
def test_loss_in_python_that_fails(mood, optimizer):
    net, twin = make_net(), make_net()
    loss = Moody()
    other = gv.TrainStep(twin, Moody(), OPTIMISERS[optimizer], seed=1)
    step = gv.TrainStep(net, loss, OPTIMISERS[optimizer], seed=1)
    for i in range(3):
        before = state(net, step)
        loss.mood = mood
        with pytest.raises(MOODS[mood]):
            step(X, Y)
        loss.mood = None
        assert_same(before, state(net, step))
        assert step(*batch(seed=i)) == other(*batch(seed=i))
        assert_same(state(twin, other), state(net, step))


@pytest.mark.parametrize("value", ["0.5", None, np.ones(9), np.ones(1)])
def test_loss_in_python_that_returns_no_number_is_named(value):
    trainer = gv.Trainer(make_net(), lambda p, y: (value, np.ones_like(p)), SGD, seed=1)
    expected = r"\[loss\] expected loss of \(loss, dprediction\) to be a number, got "
    for call in (
        lambda: trainer.step(X, Y),
        lambda: trainer.fit(X, Y, epochs=1, batch_size=9),
        lambda: trainer.fit(X, Y, epochs=1, batch_size=3, accumulate=2),
        lambda: trainer.evaluate(X, Y),
        lambda: gv.value_and_grad(trainer.net, trainer.loss)(X, Y),
    ):
        with pytest.raises(TypeError, match=expected):
            call()
    assert trainer.step.updates == 0


@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_clipped_gradient_in_python_that_is_not_finite(optimizer):
    net, twin = make_net(), make_net()
    loss = Moody()
    step = gv.TrainStep(net, loss, OPTIMISERS[optimizer], seed=1, clip_norm=1.0)
    other = gv.TrainStep(twin, Moody(), OPTIMISERS[optimizer], seed=1, clip_norm=1.0)
    for i in range(3):
        before = state(net, step)
        loss.mood = "returns a gradient that is not finite"
        with pytest.raises(FloatingPointError, match="norm"):
            step(X, Y)
        loss.mood = None
        assert_same(before, state(net, step))
        assert step(*batch(seed=i)) == other(*batch(seed=i))
        assert_same(state(twin, other), state(net, step))


def overflowing():
    """A net and a batch whose loss is finite in float32 while the gradient of its first layer is not."""
    net = nn.Sequential(nn.Linear(2, 1, bias=False, init="ones"), nn.BatchNorm(1), nn.Linear(1, 1))
    net.reset_parameters(0)
    net.parameters()["0.weight"][...] = 1e-38
    net.parameters()["2.weight"][...] = 1
    x = np.array([[3e38, 1e38], [2e38, -3e38], [-3e38, 2e38], [1e38, 1e38]], np.float32)
    return net, x, np.array([[1e4], [0], [-1e4], [0]], np.float32)


@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_clipped_gradient_that_overflows(optimizer):
    settings = {"clip_norm": 1.0, "seed": 1}
    (net, bad, y), (twin, _, _) = overflowing(), overflowing()
    loss, gradients = gv.value_and_grad(overflowing()[0], nn.MSELoss(reduction="sum"))(bad, y)
    assert math.isfinite(loss) and not np.isfinite(gradients["0.weight"]).all()
    good = np.sign(bad)
    step, other = (
        gv.TrainStep(n, nn.MSELoss(reduction="sum"), OPTIMISERS[optimizer], **settings) for n in (net, twin)
    )
    for _ in range(3):
        before = state(net, step)
        with pytest.raises(FloatingPointError, match="norm"):
            step(bad, y)
        assert_same(before, state(net, step))
        assert step(good, y) == other(good, y)
        assert_same(state(twin, other), state(net, step))


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_failure_while_accumulating_keeps_what_was_accumulated(optimizer):
    net, twin = make_net(), make_net()
    step, other = (gv.TrainStep(n, nn.CrossEntropyLoss(), OPTIMISERS[optimizer], seed=1) for n in (net, twin))
    for first in range(2):
        for s in (step, other):
            s(*batch(seed=first), accumulate=True)
        before = state(net, step)
        for fail in (infinite_loss, BAD["label too large"][1], BAD["fewer labels"][1]):
            with pytest.raises((FloatingPointError, ValueError)):
                fail(step)
        with pytest.raises(FloatingPointError):
            step(X * np.float32(np.nan), Y, accumulate=True)
        assert_same(before, state(net, step))
        assert step(*batch(seed=2)) == other(*batch(seed=2))
        assert_same(state(twin, other), state(net, step))


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_overflow_of_a_clipped_step_keeps_what_was_accumulated(optimizer):
    (net, bad, y), (twin, _, _) = overflowing(), overflowing()
    good = np.sign(bad)
    step, other = (
        gv.TrainStep(n, nn.MSELoss(reduction="sum"), OPTIMISERS[optimizer], clip_norm=1.0)
        for n in (net, twin)
    )
    for s in (step, other):
        s(good, y, accumulate=True)
    before = state(net, step)
    with pytest.raises(FloatingPointError, match="norm"):
        step(bad, y)
    assert_same(before, state(net, step))
    assert step(good, 0.5 * y) == other(good, 0.5 * y)
    assert_same(state(twin, other), state(net, step))


def test_failure_does_not_advance_the_schedule():
    seen = []

    def schedule(t):
        seen.append(t)
        return 0.1

    step = gv.TrainStep(make_net(), nn.CrossEntropyLoss(), gv.optim.SGD(lr=schedule))
    step(X, Y)
    with pytest.raises(FloatingPointError):
        nan_in_x(step)
    step(X, Y)
    assert sorted(set(seen)) == [0, 1] and seen[-1] == 1


def test_targets_that_overflow_do_not_warn() -> None:
    step = gv.TrainStep(nn.Linear(3, 2, seed=0), nn.MSELoss(), gv.optim.SGD(lr=0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FloatingPointError, match="finite loss, got inf"):
            step(np.ones((4, 3)), np.full((4, 2), 1e300))
        loss, _ = nn.MSELoss()(np.ones((4, 2), np.float32), np.full((4, 2), 1e300))
    assert loss == np.inf

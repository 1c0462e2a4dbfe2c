"""The training step: what its arguments mean, for losses in Python, optimisers, weights and accumulation.

Gradients are tested in test_gradients.py; here they come from value_and_grad and are taken for granted.
"""

import math

import numpy as np
import pytest

import gvcore as gv
import gvcore.functional as F
import oracles
from gvcore import nn
from train_step_cases import CLASSES, FEATURES, OPTIMISERS, SGD, assert_same, batch, make_net, state

X, Y = batch()

# ---- losses in Python ---------------------------------------------------------------------------

LOSSES = {
    "mse": (nn.MSELoss(), lambda p, t: F.mse_loss(p, t)),
    "l1, sum": (nn.L1Loss(reduction="sum"), lambda p, t: F.l1_loss(p, t, reduction="sum")),
    "huber": (nn.HuberLoss(delta=0.3), lambda p, t: F.huber_loss(p, t, delta=0.3)),
    "bce": (nn.BCEWithLogitsLoss(), lambda p, t: F.binary_cross_entropy_with_logits(p, t)),
    "probabilities": (nn.CrossEntropyLoss(), lambda p, t: F.cross_entropy(p, t)),
    "labels": (nn.CrossEntropyLoss(), F.cross_entropy),
    "the object itself": (nn.HuberLoss(), lambda p, t: nn.HuberLoss()(p, t)),
}


def pairs_of_steps(losses, dtype=np.float32, **settings):
    nets = [make_net(dtype=dtype) for _ in range(2)]
    return [
        (net, gv.TrainStep(net, loss, SGD, seed=1, **settings))
        for net, loss in zip(nets, losses, strict=True)
    ]


@pytest.mark.parametrize("clip_norm", [None, 0.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("name", LOSSES)
def test_python_loss_trains_to_the_bits_of_the_one_built_in(name, dtype, clip_norm):
    pairs = pairs_of_steps(LOSSES[name], dtype, clip_norm=clip_norm)
    for i in range(5):
        x, labels = batch(rows=9 + i, seed=i, dtype=dtype)
        y = np.random.default_rng(i).uniform(size=(9 + i, CLASSES)).astype(dtype)
        losses = [step(x, labels if name == "labels" else y) for _, step in pairs]
        np.testing.assert_allclose(*losses, rtol=1e-14)
        assert_same(*(state(net, step) for net, step in pairs))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("name", LOSSES)
def test_python_loss_returns_the_bits_of_the_one_built_in(name, dtype):
    pairs = pairs_of_steps(LOSSES[name], dtype)
    for rows in (2, 9, 16, 17, 40, 300):
        x, labels = batch(rows=rows, dtype=dtype)
        y = np.random.default_rng(rows).uniform(size=(rows, CLASSES)).astype(dtype)
        built_in, in_python = (step(x, labels if name == "labels" else y) for _, step in pairs)
        assert built_in == in_python


def test_python_loss_may_keep_and_overwrite_what_it_gets_and_returns():
    kept = []

    def loss(prediction, target):
        value, gradient = F.mse_loss(prediction, target)
        kept.append((prediction, prediction.copy(), gradient, gradient.copy()))
        return np.float32(value), gradient

    net = make_net()
    step = gv.TrainStep(net, loss, SGD, seed=1)
    for i in range(3):
        step(batch(seed=i)[0], np.zeros((9, CLASSES), np.float32))
    for prediction, copy, gradient, gradient_copy in kept:
        np.testing.assert_array_equal(prediction, copy)
        np.testing.assert_array_equal(gradient, gradient_copy)


DOORS = {
    "TrainStep": lambda x, y, loss: gv.TrainStep(make_net(), loss, SGD)(x, y),
    "value_and_grad": lambda x, y, loss: gv.value_and_grad(make_net(), loss)(x, y),
    "diagnose": lambda x, y, loss: gv.diagnose(make_net(), x, y, loss),
    "find_lr": lambda x, y, loss: gv.find_lr(make_net(), x, y, loss, steps=10, batch_size=9),
    "fit": lambda x, y, loss: gv.Trainer(make_net(), loss, SGD).fit(x, y, epochs=1, batch_size=9),
}


@pytest.mark.parametrize("door", DOORS)
def test_python_loss_gets_the_target_as_an_array_of_as_many_rows(door):
    seen = []

    def loss(prediction, y):
        seen.append(y)
        return 0.5, np.zeros_like(prediction)

    for target in (list(range(9)), [[i, 0.5] for i in range(9)], list("abcdefghi"), np.arange(9)):
        seen.clear()
        DOORS[door](X, target, loss)
        assert all(isinstance(y, np.ndarray) and len(y) == 9 for y in seen) and seen
        assert sorted(seen[0].tolist()) == sorted(np.asarray(target).tolist())
        if door in ("TrainStep", "value_and_grad", "diagnose"):
            assert (seen[0] is target) == isinstance(target, np.ndarray)
    seen.clear()
    for target in ([1.0, 2.0], range(10), 3.0, {"anything": 1}, None):
        with pytest.raises(ValueError, match=rf"\[{door}\] expected y with 9 rows as in x, got shape"):
            DOORS[door](X, target, loss)
    with pytest.raises(
        ValueError, match=rf"\[{door}\] expected y to be an array, got a list that makes none"
    ):
        DOORS[door](X, [[1], [2, 3]], loss)
    assert not seen


def test_python_loss_may_return_a_gradient_of_another_kind_of_memory():
    def other_memory(prediction, target):
        value, gradient = F.mse_loss(prediction, target)
        return value, np.asfortranarray(gradient.astype(np.float64))

    nets = [make_net() for _ in range(2)]
    y = np.zeros((9, CLASSES), np.float32)
    losses = [
        gv.TrainStep(n, f, SGD, seed=1)(X, y) for n, f in zip(nets, (nn.MSELoss(), other_memory), strict=True)
    ]
    assert losses[0] == losses[1]
    for a, b in zip(nets[0].parameters().values(), nets[1].parameters().values(), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- what the optimisers compute ----------------------------------------------------------------

SGD_SETTINGS = [
    {},
    {"weight_decay": 0.1},
    {"momentum": 0.9},
    {"momentum": 0.9, "weight_decay": 0.1},
    {"momentum": 0.9, "dampening": 0.4},
    {"momentum": 0.9, "dampening": 0.4, "weight_decay": 0.1},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
]


@pytest.mark.parametrize("settings", SGD_SETTINGS, ids=str)
def test_sgd(settings):
    net = make_net(dropout=False, dtype=np.float64)
    value_and_grad = gv.value_and_grad(net, nn.CrossEntropyLoss())
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.05, **settings))
    velocity = {}
    for i in range(4):
        x, y = batch(seed=i, dtype=np.float64)
        loss, gradients = value_and_grad(x, y, training=True)
        expected = {}
        for name, p in net.parameters().items():
            expected[name], velocity[name] = oracles.sgd(
                p, gradients[name], velocity.get(name), lr=0.05, first=i == 0, **settings
            )
        assert step(x, y) == loss
        for name, p in net.parameters().items():
            np.testing.assert_allclose(p, expected[name], rtol=1e-12, atol=1e-14, err_msg=name)
            if "momentum" in settings:
                np.testing.assert_allclose(
                    step.state["velocity"][name], velocity[name], rtol=1e-11, atol=1e-14, err_msg=name
                )


@pytest.mark.parametrize("kind", [gv.optim.Adam, gv.optim.AdamW])
@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}, {"betas": (0.5, 0.8), "eps": 1e-3}], ids=str)
def test_adam(kind, settings):
    net = make_net(dropout=False, dtype=np.float64)
    value_and_grad = gv.value_and_grad(net, nn.CrossEntropyLoss())
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), kind(lr=0.01, **settings))
    decoupled = kind is gv.optim.AdamW
    rule = {"weight_decay": 0.01 if decoupled else 0.0, **settings, "lr": 0.01, "decoupled": decoupled}
    moments = {name: (np.zeros_like(p), np.zeros_like(p)) for name, p in net.parameters().items()}
    for i in range(4):
        x, y = batch(seed=i, dtype=np.float64)
        loss, gradients = value_and_grad(x, y)
        # The bias before batch norm has a gradient of rounding errors, which Adam blows up to a step.
        names = [name for name in gradients if name != "0.bias"]
        expected = {}
        for name in names:
            p = net.parameters()[name]
            expected[name], *moments[name] = oracles.adam(
                p, gradients[name], *moments[name], step=i + 1, **rule
            )
        assert step(x, y) == loss
        for name in names:
            np.testing.assert_allclose(net.parameters()[name], expected[name], rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(step.state["exp_avg"][name], moments[name][0], rtol=1e-10, atol=1e-14)
            np.testing.assert_allclose(
                step.state["exp_avg_sq"][name], moments[name][1], rtol=1e-10, atol=1e-14
            )


def updated(step, net, x, y, **arguments):
    """The change of each parameter in one step."""
    before = {name: p.copy() for name, p in net.parameters().items()}
    step(x, y, **arguments)
    return {name: p - before[name] for name, p in net.parameters().items()}


def test_groups():
    groups = [
        {"match": "*.bias", "weight_decay": 0.0},
        {"match": "3.*", "lr_scale": 0.1},
        {"match": "3.bias", "weight_decay": 0.5},
    ]
    net = make_net(dtype=np.float64, dropout=False, norm=False)
    for p in net.parameters().values():
        p += 0.1
    x, y = batch(dtype=np.float64)
    names = list(net.parameters())
    assert names == ["0.weight", "0.bias", "2.layers.0.weight", "2.layers.0.bias", "3.weight", "3.bias"]
    _, gradients = gv.value_and_grad(net, nn.CrossEntropyLoss())(x, y)
    before = {name: p.copy() for name, p in net.parameters().items()}
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.2, weight_decay=0.3, groups=groups))
    changes = updated(step, net, x, y)
    for name, change in changes.items():
        lr = 0.02 if name.startswith("3.") else 0.2
        decay = 0.5 if name == "3.bias" else 0.0 if name.endswith("bias") else 0.3
        np.testing.assert_allclose(
            change, -lr * (gradients[name] + decay * before[name]), rtol=1e-11, atol=1e-15
        )


@pytest.mark.parametrize("clip_norm", [0.05, 1e6])
def test_clip_norm(clip_norm):
    net = make_net(dropout=False, dtype=np.float64)
    x, y = batch(dtype=np.float64)
    _, gradients = gv.value_and_grad(net, nn.CrossEntropyLoss())(x, y)
    norm, clipped = oracles.clip_grad_norm(list(gradients.values()), clip_norm)
    assert 0.05 < norm < 1e6
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.5), clip_norm=clip_norm)
    changes = updated(step, net, x, y)
    np.testing.assert_allclose(step.gradient_norm, norm, rtol=1e-12)
    for change, gradient in zip(changes.values(), clipped, strict=True):
        np.testing.assert_allclose(change, -0.5 * gradient, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_stored_gradients_give_the_bits_of_fused_ones(optimizer):
    nets = [make_net() for _ in range(2)]
    plain = gv.TrainStep(nets[0], nn.CrossEntropyLoss(), OPTIMISERS[optimizer], seed=1)
    stored = gv.TrainStep(nets[1], nn.CrossEntropyLoss(), OPTIMISERS[optimizer], seed=1, clip_norm=1e9)
    for i in range(4):
        assert plain(*batch(rows=9 + i, seed=i)) == stored(*batch(rows=9 + i, seed=i))
        assert_same(state(nets[0], plain), state(nets[1], stored))


def test_rate_of_a_call_overrides():
    nets = [make_net() for _ in range(3)]
    fixed, called, still = (
        gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=lr, momentum=0.9), seed=1)
        for net, lr in zip(nets, (0.05, 7.0, 0.05), strict=True)
    )
    before = {name: p.copy() for name, p in nets[2].parameters().items()}
    for i in range(3):
        fixed(*batch(seed=i))
        called(*batch(seed=i), lr=0.05)
        still(*batch(seed=i), lr=0)
    assert_same(state(nets[0], fixed), state(nets[1], called))
    for name, p in nets[2].parameters().items():
        np.testing.assert_array_equal(p, before[name])
    assert any(v.any() for v in still.state["velocity"].values())
    assert nets[2].buffers()["1.running_mean"].any()


def test_schedule_is_seen_per_update():
    rates = [0.1, 0.2, 0.0, 0.4]
    nets = [make_net() for _ in range(2)]
    scheduled, called = (
        gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=lr), seed=1)
        for net, lr in zip(nets, (lambda t: rates[t], 9.0), strict=True)
    )
    for i, rate in enumerate(rates):
        for accumulated in range(i % 3):
            for step in (scheduled, called):
                step(*batch(seed=10 + accumulated), accumulate=True)
        scheduled(*batch(seed=i))
        called(*batch(seed=i), lr=rate)
        assert_same(state(nets[0], scheduled), state(nets[1], called))
    assert scheduled.updates == len(rates)


# ---- sample weights -----------------------------------------------------------------------------

WEIGHTED = {
    "mse": (nn.MSELoss, {}),
    "mse, sum": (nn.MSELoss, {"reduction": "sum"}),
    "l1": (nn.L1Loss, {}),
    "huber": (nn.HuberLoss, {"delta": 0.3}),
    "huber, sum": (nn.HuberLoss, {"reduction": "sum"}),
    "bce": (nn.BCEWithLogitsLoss, {"pos_weight": 2.0}),
    "labels": (nn.CrossEntropyLoss, {}),
    "labels, sum": (nn.CrossEntropyLoss, {"reduction": "sum"}),
    "labels, class weights": (nn.CrossEntropyLoss, {"weight": [1.0, 0.2, 3.0], "label_smoothing": 0.1}),
    "probabilities": (nn.CrossEntropyLoss, {}),
    "probabilities, class weights": (nn.CrossEntropyLoss, {"weight": [1.0, 0.2, 3.0]}),
}


def weighted_case(name):
    kind, settings = WEIGHTED[name]
    x, labels = batch(dtype=np.float64)
    y = labels if name.startswith("labels") else np.random.default_rng(5).uniform(size=(9, CLASSES))
    return kind(**settings), x, y


def one_step(loss, x, y, **arguments):
    net = make_net(norm=False, dropout=False, dtype=np.float64)
    step = gv.TrainStep(net, loss, gv.optim.SGD(lr=1.0))
    before = {name: p.copy() for name, p in net.parameters().items()}
    value = step(x, y, **arguments)
    return value, {name: before[name] - p for name, p in net.parameters().items()}


def assert_alike(one, other):
    assert math.isclose(one[0], other[0], rel_tol=1e-12)
    for name, gradient in other[1].items():
        np.testing.assert_allclose(one[1][name], gradient, rtol=0, atol=1e-12 * np.abs(gradient).max())
        assert gradient.any()


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_of_one_change_nothing(name):
    loss, x, y = weighted_case(name)
    assert_alike(one_step(loss, x, y, sample_weight=np.ones(9)), one_step(loss, x, y))
    assert_alike(one_step(loss, x, y, sample_weight=[1] * 9), one_step(loss, x, y))


@pytest.mark.parametrize("name", WEIGHTED)
def test_whole_weights_repeat_rows_and_zero_removes_them(name):
    loss, x, y = weighted_case(name)
    weights = np.array([1, 0, 3, 2, 0, 1, 1, 5, 0])
    repeated = one_step(loss, np.repeat(x, weights, axis=0), np.repeat(y, weights, axis=0))
    assert_alike(one_step(loss, x, y, sample_weight=weights), repeated)
    assert_alike(one_step(loss, x, y, sample_weight=weights.astype(np.float32)), repeated)


@pytest.mark.parametrize("name", WEIGHTED)
def test_scale_of_the_weights_matters_to_a_sum_alone(name):
    loss, x, y = weighted_case(name)
    weights = np.random.default_rng(6).uniform(0.1, 2, 9)
    plain, scaled = (one_step(loss, x, y, sample_weight=w) for w in (weights, 4 * weights))
    factor = 4.0 if loss.reduction == "sum" else 1.0
    assert_alike(scaled, (factor * plain[0], {name: factor * g for name, g in plain[1].items()}))


def test_weighted_mean_of_the_rows():
    x, y = batch(dtype=np.float64)
    weights = np.random.default_rng(6).uniform(0.1, 2, 9)
    net = make_net(norm=False, dropout=False, dtype=np.float64)
    rows, _ = F.cross_entropy(net(x), y, reduction="none")
    value, _ = one_step(nn.CrossEntropyLoss(), x, y, sample_weight=weights)
    assert math.isclose(value, np.sum(weights * rows) / np.sum(weights), rel_tol=1e-13)


def test_weights_of_sequences_are_those_of_their_positions():
    net, twin = (nn.Sequential(nn.Linear(FEATURES, CLASSES, seed=1)).astype(np.float64) for _ in range(2))
    x, y = batch(rows=12, dtype=np.float64)
    weights = np.array([1, 0, 4])
    values = []
    for n, arguments in (
        (net, (x.reshape(3, 4, FEATURES), y.reshape(3, 4), weights)),
        (twin, (x, y, np.repeat(weights, 4))),
    ):
        step = gv.TrainStep(n, nn.CrossEntropyLoss(), gv.optim.SGD(lr=1.0))
        values.append(step(arguments[0], arguments[1], sample_weight=arguments[2]))
    assert math.isclose(*values, rel_tol=1e-13)
    for a, b in zip(net.parameters().values(), twin.parameters().values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


# ---- accumulation -------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("python", [False, True], ids=["built in", "in Python"])
def test_accumulated_gradients_are_summed(python, clip_norm):
    loss = (lambda p, t: F.cross_entropy(p, t)) if python else nn.CrossEntropyLoss()
    net = make_net(dropout=False, dtype=np.float64)
    step = gv.TrainStep(net, loss, gv.optim.SGD(lr=0.5), clip_norm=clip_norm)
    for _ in range(2):
        parts = [batch(rows=4 + i, seed=i, dtype=np.float64) for i in range(4)]
        model = make_net(dropout=False, dtype=np.float64)
        model.load_state_dict(net.state_dict())
        results = [gv.value_and_grad(model, loss)(x, y) for x, y in parts]
        total = {name: sum(gradients[name] for _, gradients in results) for name in net.parameters()}
        norm = oracles.total_norm(total.values())
        scale = 1 if clip_norm is None else min(1, clip_norm / norm)
        before = {name: p.copy() for name, p in net.parameters().items()}
        for i, (x, y) in enumerate(parts[:-1]):
            assert math.isclose(step(x, y, accumulate=True), results[i][0], rel_tol=1e-13)
            for name, p in net.parameters().items():
                np.testing.assert_array_equal(p, before[name])
        step(*parts[-1])
        for name, p in net.parameters().items():
            np.testing.assert_allclose(
                p, before[name] - 0.5 * scale * total[name], rtol=1e-6 if clip_norm else 1e-11, atol=1e-13
            )
        for name, buffer in net.buffers().items():
            np.testing.assert_allclose(buffer, model.buffers()[name], rtol=1e-13)


def test_accumulated_parts_of_a_summed_loss_are_the_whole():
    x, y = batch(rows=12, dtype=np.float64)
    loss = nn.CrossEntropyLoss(reduction="sum")
    nets = [make_net(norm=False, dropout=False, dtype=np.float64) for _ in range(2)]
    whole, parts = (gv.TrainStep(net, loss, gv.optim.AdamW(lr=0.01)) for net in nets)
    for _ in range(3):
        value = whole(x, y)
        sums = [parts(x[i : i + 4], y[i : i + 4], accumulate=i < 8) for i in (0, 4, 8)]
        assert math.isclose(value, sum(sums), rel_tol=1e-11)
        for a, b in zip(nets[0].parameters().values(), nets[1].parameters().values(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    assert parts.updates == 3

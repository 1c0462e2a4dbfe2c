"""Every layer, every operation of a traced forward and every loss against central differences, in float64.

Each net begins with something that has parameters, so that the gradient with respect to the input of
what is tested is seen in the gradients below it. What is compared, for each parameter array, is
max|analytic - numeric| / max|numeric|. The data are fixed and no input of a rectifier lies within the
step of its kink; the step is so short that this is no art.
"""

import numpy as np
import pytest

import gvcore as gv
import gvcore.functional as F
from gvcore import nn
from oracles import central_difference, gradient_error

STEP = 1e-6
LIMIT = 1e-6


def draw(*shape, seed=0):
    return np.random.default_rng([7, seed, *shape]).normal(size=shape)


def parameter(*shape, seed=0):
    return nn.Parameter(draw(*shape, seed=100 + seed) + 0.3)


class Net(nn.Module):
    """The given parts, and a function of them and the inputs for a forward."""

    def __init__(self, function, **parts):
        for name, part in parts.items():
            setattr(self, name, part)
        self._function = function

    def forward(self, *inputs):
        return self._function(self, *inputs)


def prepared(net, seed=3):
    """float64, first values by a seed, then parameters and buffers away from special values."""
    net.astype(np.float64).reset_parameters(seed)
    random = np.random.default_rng(seed)
    for array in net.parameters().values():
        array[...] += 0.2 * random.normal(size=array.shape)
    for array in net.buffers().values():
        array[...] += random.uniform(0.1, 0.5, size=array.shape)
    return net


def check(net, x, y, loss, *, training=True, seed=5):
    """Compare the gradient of every parameter; returns how many arrays were compared."""
    value_and_grad = gv.value_and_grad(net, loss)
    _, gradients = value_and_grad(x, y, training=training, seed=seed)
    parameters = net.parameters()
    assert list(gradients) == list(parameters)
    for name, array in parameters.items():

        def at(values, array=array):
            kept = array.copy()
            array[...] = values
            result, _ = value_and_grad(x, y, training=training, seed=seed)
            array[...] = kept
            return result

        numeric = central_difference(at, array, STEP)
        assert gradients[name].shape == array.shape
        assert gradient_error(gradients[name], numeric) < LIMIT, name
    return len(parameters)


def check_net(net, *trailing, rows=6, training=True):
    """Check a net under the squared error, on inputs of these trailing shapes."""
    prepared(net)
    x = tuple(draw(rows, *shape, seed=i) for i, shape in enumerate(trailing))
    y = draw(*net(*x).shape, seed=9)
    return check(net, x, y, nn.MSELoss(), training=training)


def both_modes(f):
    return pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])(f)


# ---- layers -------------------------------------------------------------------------------------

LAYERS = {
    "linear": lambda: nn.Linear(5, 3),
    "linear without bias": lambda: nn.Linear(5, 3, bias=False),
    "batch norm": lambda: nn.BatchNorm(5),
    "batch norm with other settings": lambda: nn.BatchNorm(5, eps=1e-2, momentum=0.7),
    "batch norm without affine": lambda: nn.BatchNorm(5, affine=False),
    "layer norm": lambda: nn.LayerNorm(5),
    "layer norm without affine": lambda: nn.LayerNorm(5, eps=1e-2, affine=False),
    "dropout": lambda: nn.Dropout(0.4),
    "no dropout": lambda: nn.Dropout(0.0),
    "identity": nn.Identity,
    "flatten": nn.Flatten,
    "relu": nn.ReLU,
    "leaky relu": nn.LeakyReLU,
    "leaky relu of slope 0.3": lambda: nn.LeakyReLU(0.3),
    "leaky relu of negative slope": lambda: nn.LeakyReLU(-0.5),
    "elu": nn.ELU,
    "elu of alpha 0.4": lambda: nn.ELU(0.4),
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "gelu by tanh": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "softplus of beta 2.5": lambda: nn.Softplus(2.5),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


@both_modes
@pytest.mark.parametrize("name", LAYERS)
def test_layer_between_two_others(name, training):
    # No bias before batch norm: its gradient is 0 there, and the differences are rounding errors.
    net = nn.Sequential(nn.Linear(4, 5, bias=False), LAYERS[name]())
    width = 3 if name.startswith("linear") else 5
    net.append(nn.Linear(width, 2))
    check_net(net, (4,), training=training)


@both_modes
@pytest.mark.parametrize("name", LAYERS)
def test_layer_with_leading_axes(name, training):
    net = nn.Sequential(nn.Linear(4, 5, bias=False), LAYERS[name]())
    width = {"linear": 3, "linear without bias": 3, "flatten": 15}.get(name, 5)
    net.append(nn.Linear(width, 2))
    check_net(net, (3, 4), rows=4, training=training)


@both_modes
def test_layers_of_three_trailing_axes(training):
    net = nn.Sequential(
        nn.Linear(3, 4, bias=False),
        nn.BatchNorm(4),
        nn.Tanh(),
        nn.LayerNorm(4),
        nn.Dropout(0.2),
        nn.Linear(4, 2),
    )
    check_net(net, (2, 3, 3), rows=3, training=training)


@pytest.mark.parametrize("rows", [1, 2, 127, 128, 129, 300])
def test_batches_that_straddle_the_blocks(rows):
    check_net(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 2)), (3,), rows=rows)
    if rows > 1:
        # Two rows are normalised to plus and minus one, which leaves nothing to differentiate.
        rows = max(rows, 3)
        net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm(4), nn.Tanh(), nn.Linear(4, 2))
        check_net(net, (3,), rows=rows)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 15, 16, 17, 33])
def test_widths_that_straddle_the_vectors(width):
    net = nn.Sequential(
        nn.Linear(2, width, bias=False), nn.BatchNorm(width), nn.Tanh(), nn.Linear(width, 2), nn.Sigmoid()
    )
    check_net(net, (2,))


def test_dropout_at_two_places_drops_differently_and_by_the_seed():
    net = prepared(
        nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 2))
    )
    x, y = draw(5, 4), draw(5, 2)
    check(net, x, y, nn.MSELoss(), seed=1)
    check(net, x, y, nn.MSELoss(), seed=2)
    value_and_grad = gv.value_and_grad(net, nn.MSELoss())
    assert value_and_grad(x, y, seed=1)[0] == value_and_grad(x, y, seed=1)[0]
    assert value_and_grad(x, y, seed=1)[0] != value_and_grad(x, y, seed=2)[0]
    plain, _ = value_and_grad(x, y, training=False, seed=1)
    np.testing.assert_allclose(plain, np.mean((net(x) - y) ** 2), rtol=1e-12)


# ---- operations in forward ----------------------------------------------------------------------


def linear(n=4, m=5, seed=0):
    return nn.Linear(n, m, bias=False, seed=seed)


def on_one(function, *trailing, **parts):
    """A net that applies `function` to the output of a Linear(4, 5), and its input's trailing shape."""
    return Net(lambda net, x: function(net, net.first(x)), first=linear(), **parts), (*trailing, 4)


OPERATIONS = {
    "softmax": lambda: on_one(lambda net, h: F.softmax(h)),
    "softmax of three axes": lambda: on_one(lambda net, h: F.softmax(h, axis=-1), 3),
    "log_softmax": lambda: on_one(lambda net, h: F.log_softmax(h)),
    "log_softmax of three axes": lambda: on_one(lambda net, h: F.log_softmax(h), 3),
    "reshape": lambda: on_one(lambda net, h: net.last(F.tanh(F.reshape(h, (5, 2)))), 2, last=linear(2, 3)),
    "reshape of unknown size": lambda: on_one(
        lambda net, h: net.last(F.tanh(h.reshape(-1, 2))), 2, last=linear(2, 3)
    ),
    "reshape to no axis": lambda: on_one(lambda net, h: F.tanh(net.last(h).reshape(())), last=linear(5, 1)),
    "plus scalar": lambda: on_one(lambda net, h: F.tanh(h + 0.3)),
    "scalar plus": lambda: on_one(lambda net, h: F.tanh(0.3 + h)),
    "minus scalar": lambda: on_one(lambda net, h: F.tanh(h - 0.3)),
    "scalar minus": lambda: on_one(lambda net, h: F.tanh(0.3 - h)),
    "times scalar": lambda: on_one(lambda net, h: F.tanh(h * -1.7)),
    "scalar times": lambda: on_one(lambda net, h: F.tanh(np.float64(1.7) * h)),
    "times zero": lambda: on_one(lambda net, h: F.tanh(h) + 0 * h),
    "negative": lambda: on_one(lambda net, h: F.tanh(-h)),
    "divided by a scalar": lambda: on_one(lambda net, h: F.tanh(h / 3)),
    "a chain of scalars": lambda: on_one(lambda net, h: 2 * (1 - 3 * (h - 0.5)) * 0.25),
    "x * x": lambda: on_one(lambda net, h: h * h),
    "x * x * x": lambda: on_one(lambda net, h: h * h * h),
    "x + x": lambda: on_one(lambda net, h: F.tanh(h + h)),
    "x - x": lambda: on_one(lambda net, h: F.tanh(h) + (h - h)),
    "used three times": lambda: on_one(lambda net, h: F.tanh(h) * F.sigmoid(h) + h),
    "used five times": lambda: on_one(lambda net, h: h * (h + F.tanh(h)) - F.softplus(h) * 0.5 + h * h),
    "one layer twice": lambda: on_one(lambda net, h: net.f(h) * net.f(0.5 * h), f=nn.Tanh()),
    "linear by function": lambda: on_one(
        lambda net, h: F.linear(h, net.w, net.b), w=parameter(3, 5), b=parameter(3)
    ),
    "linear by function, no bias": lambda: on_one(lambda net, h: F.linear(h, net.w), 2, w=parameter(3, 5)),
    "value @ parameter": lambda: on_one(lambda net, h: h @ net.w, w=parameter(5, 3)),
    "value @ parameter of three axes": lambda: on_one(
        lambda net, h: F.matmul(h, net.w), 2, w=parameter(5, 3)
    ),
    "value @ parameter of four axes": lambda: on_one(lambda net, h: h @ net.w, 2, 2, w=parameter(5, 3)),
}

PARAMETER_SHAPES = [(), (1,), (5,), (3, 1), (1, 5), (1, 1), (3, 5)]
SIGNS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


@both_modes
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name, training):
    net, trailing = OPERATIONS[name]()
    check_net(net, trailing, rows=4, training=training)


@pytest.mark.parametrize("side", ["value first", "parameter first"])
@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("shape", PARAMETER_SHAPES, ids=str)
def test_value_and_parameter(shape, sign, side):
    def function(net, h):
        pair = (h, net.p) if side == "value first" else (net.p, h)
        return F.tanh(SIGNS[sign](*pair))

    check_net(*on_one(function, 3, p=parameter(*shape)), rows=4)


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("shape", [(3, 5), (3, 1), (2, 3, 5), (2, 1, 5)], ids=str)
def test_parameter_that_widens_the_value(shape, sign):
    ones = (1,) * (len(shape) - 1)
    check_net(
        *on_one(lambda net, h: F.tanh(SIGNS[sign](h.reshape(*ones, 5), net.p)), p=parameter(*shape)), rows=4
    )


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("shape", [(), (5,), (3, 1), (2, 1, 1), (2, 1, 5), (2, 3, 5), (1, 3, 1)], ids=str)
def test_parameter_and_value_of_four_axes(shape, sign):
    check_net(*on_one(lambda net, h: F.tanh(SIGNS[sign](h, net.p)), 2, 3, p=parameter(*shape)), rows=3)


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize(
    "left, right",
    [
        ((3, 4), (3, 4)),
        ((3, 4), (4,)),
        ((4,), (3, 4)),
        ((2, 3, 4), (3, 4)),
        ((2, 1, 4), (3, 4)),
        ((1, 4), (3, 4)),
    ],
    ids=str,
)
def test_value_and_value(left, right, sign):
    net = Net(
        lambda net, a, b: F.tanh(SIGNS[sign](net.left(a), net.right(b))),
        left=linear(4, 5),
        right=linear(4, 5, seed=1),
    )
    check_net(net, left, right, rows=3)


@pytest.mark.parametrize("sign", SIGNS)
def test_value_of_one_column_is_spread(sign):
    net = Net(
        lambda net, x: SIGNS[sign](net.column(x), F.tanh(net.row(x))), column=linear(4, 1), row=linear(4, 5)
    )
    check_net(net, (4,), rows=3)
    check_net(net, (2, 4), rows=3)


@pytest.mark.parametrize(
    "trailing, axis",
    [
        ((4,), -1),
        ((4,), 1),
        ((3, 4), 1),
        ((3, 4), -2),
        ((3, 4), 2),
        ((2, 3, 4), 1),
        ((2, 3, 4), 2),
        ((2, 3, 4), 3),
    ],
    ids=str,
)
def test_concatenate(trailing, axis):
    def join(net, a, b):
        h, k = net.left(a), F.tanh(net.right(b))
        return F.concatenate([h, k, h * k], axis=axis)

    check_net(Net(join, left=linear(4, 3), right=linear(4, 3, seed=1)), trailing, trailing, rows=3)


def test_concatenate_parts_of_other_sizes():
    net = Net(
        lambda net, a, b: F.concatenate((net.left(a), net.right(b)), axis=-1),
        left=linear(4, 3),
        right=linear(2, 7),
    )
    check_net(net, (4,), (2,))
    net = Net(
        lambda net, a, b: F.tanh(F.concatenate((net.left(a), net.right(b)), axis=1)),
        left=linear(4, 3),
        right=linear(2, 3),
    )
    check_net(net, (2, 4), (5, 2), rows=3)


@pytest.mark.parametrize("leading", [(), (2,)], ids=["two axes", "three axes"])
def test_value_matmul_value(leading):
    net = Net(lambda net, a, b: net.left(a) @ net.right(b), left=linear(4, 3), right=linear(2, 5))
    check_net(net, (*leading, 2, 4), (*leading, 3, 2), rows=3)


def test_value_matmul_itself():
    net = Net(lambda net, x: (lambda h: h @ h)(F.tanh(net.first(x))), first=linear(3, 3))
    check_net(net, (3, 3), rows=3)


def test_several_inputs_one_of_them_used_late():
    def forward(net, a, b, c):
        return net.last(F.concatenate([F.tanh(net.first(a)) * b, c], axis=-1))

    check_net(Net(forward, first=linear(4, 3), last=nn.Linear(5, 2)), (4,), (3,), (2,))


def test_input_that_is_not_used():
    check_net(Net(lambda net, a, b: net.first(a), first=linear()), (4,), (3,))


# ---- structures ---------------------------------------------------------------------------------


def post_activation(width):
    return nn.Residual(
        nn.Linear(width, width, bias=False),
        nn.BatchNorm(width),
        nn.ReLU(),
        nn.Linear(width, width, bias=False),
        nn.BatchNorm(width),
        activation=nn.ReLU(),
    )


def pre_activation(width):
    return nn.Residual(
        nn.BatchNorm(width),
        nn.ReLU(),
        nn.Linear(width, width, bias=False),
        nn.BatchNorm(width),
        nn.ReLU(),
        nn.Linear(width, width, bias=False),
    )


STRUCTURES = {
    "one-layer blocks": lambda: [
        nn.Residual(nn.Linear(5, 5, bias=False), nn.BatchNorm(5), nn.ReLU()) for _ in range(3)
    ],
    "post-activation": lambda: [post_activation(5), post_activation(5)],
    "pre-activation": lambda: [pre_activation(5), pre_activation(5), nn.BatchNorm(5), nn.ReLU()],
    "projection": lambda: [
        nn.Residual(nn.Linear(5, 5), nn.Tanh(), shortcut=nn.Linear(5, 5, bias=False)),
        nn.Residual(
            nn.Linear(5, 5, bias=False),
            nn.BatchNorm(5),
            shortcut=nn.Sequential(nn.Linear(5, 5, bias=False), nn.BatchNorm(5)),
            activation=nn.ReLU(),
        ),
    ],
    "nested": lambda: [
        nn.Residual(nn.Residual(nn.Linear(5, 5), nn.Tanh()), pre_activation(5), nn.Residual(nn.LayerNorm(5)))
    ],
    "nested deeply": lambda: [nn.Residual(nn.Residual(nn.Residual(nn.Residual(nn.Linear(5, 5), nn.GELU()))))],
    "of nothing": lambda: [nn.Residual(), nn.Residual(activation=nn.Tanh())],
    "layer norm": lambda: [
        nn.Residual(nn.LayerNorm(5), nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 5)),
        nn.Residual(nn.LayerNorm(5), nn.Linear(5, 7), nn.SiLU(), nn.Dropout(0.3), nn.Linear(7, 5)),
    ],
    "tabular": lambda: [
        nn.Residual(
            nn.BatchNorm(5), nn.Linear(5, 7), nn.ReLU(), nn.Dropout(0.3), nn.Linear(7, 5), nn.Dropout(0.2)
        ),
        nn.BatchNorm(5),
        nn.ReLU(),
    ],
    # A scale in front of batch norm has no effect but through epsilon, so the one before it has none.
    "norm after norm": lambda: [
        nn.BatchNorm(5),
        nn.LayerNorm(5, affine=False),
        nn.BatchNorm(5, affine=False),
        nn.Tanh(),
    ],
    "activation after activation": lambda: [
        nn.Tanh(),
        nn.Sigmoid(),
        nn.BatchNorm(5),
        nn.Softplus(),
        nn.ReLU(),
    ],
}


@both_modes
@pytest.mark.parametrize("trailing", [(4,), (2, 4)], ids=["rows", "sequences"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_structure(name, trailing, training):
    # No bias first: batch norm at the head of a block would leave it a gradient of rounding errors.
    net = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), *STRUCTURES[name](), nn.Linear(5, 2))
    check_net(net, trailing, rows=7, training=training)


@pytest.mark.parametrize("name", ["post-activation", "pre-activation", "projection", "nested"])
def test_structure_that_ends_in_its_blocks(name):
    net = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), *STRUCTURES[name]())
    check_net(net, (4,), rows=7)


def test_frozen_parameters_have_no_gradient_and_hold_up_none():
    net = prepared(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2)))
    x, y = draw(6, 4), draw(6, 2)
    _, everything = gv.value_and_grad(net, nn.MSELoss())(x, y)
    net.freeze("2.*")
    _, rest = gv.value_and_grad(net, nn.MSELoss())(x, y)
    assert list(rest) == ["0.weight", "0.bias", "4.weight", "4.bias"]
    for name, gradient in rest.items():
        np.testing.assert_array_equal(gradient, everything[name])


# ---- losses -------------------------------------------------------------------------------------

PROBABILITIES = np.exp(draw(6, 4, seed=1)) / np.exp(draw(6, 4, seed=1)).sum(axis=1, keepdims=True)
LABELS = np.array([0, 3, 1, 2, 2, 0])
POSITIVE = np.array([0.5, 2.0, 0.0, 1.25])
LOSSES = {
    "squared": (nn.MSELoss, {}, draw(6, 4, seed=1)),
    "absolute": (nn.L1Loss, {}, draw(6, 4, seed=1)),
    "huber": (nn.HuberLoss, {}, draw(6, 4, seed=1)),
    "huber, small delta": (nn.HuberLoss, {"delta": 0.1}, draw(6, 4, seed=1)),
    "huber, large delta": (nn.HuberLoss, {"delta": 9.0}, draw(6, 4, seed=1)),
    "labels": (nn.CrossEntropyLoss, {}, LABELS),
    "labels, weights": (nn.CrossEntropyLoss, {"weight": POSITIVE}, LABELS),
    "labels, smoothing": (nn.CrossEntropyLoss, {"label_smoothing": 0.2}, LABELS),
    "labels, both": (nn.CrossEntropyLoss, {"weight": POSITIVE, "label_smoothing": 0.2}, LABELS),
    "probabilities": (nn.CrossEntropyLoss, {}, PROBABILITIES),
    "probabilities, both": (
        nn.CrossEntropyLoss,
        {"weight": POSITIVE, "label_smoothing": 0.2},
        PROBABILITIES,
    ),
    "binary": (nn.BCEWithLogitsLoss, {}, np.clip(draw(6, 4, seed=1), 0, 1)),
    "binary, one weight": (nn.BCEWithLogitsLoss, {"pos_weight": 3.0}, np.clip(draw(6, 4, seed=1), 0, 1)),
    "binary, weights": (nn.BCEWithLogitsLoss, {"pos_weight": POSITIVE}, np.clip(draw(6, 4, seed=1), 0, 1)),
}


@both_modes
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss(name, reduction, training):
    kind, settings, target = LOSSES[name]
    net = prepared(nn.Sequential(nn.Linear(3, 5, bias=False), nn.BatchNorm(5), nn.Tanh(), nn.Linear(5, 4)))
    loss = kind(**settings, reduction=reduction)
    x = draw(6, 3)
    check(net, x, target, loss, training=training)
    value, _ = gv.value_and_grad(net, loss)(x, target, training=False)
    np.testing.assert_allclose(value, loss(net(x), target)[0], rtol=1e-13)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_of_sequences(name, reduction):
    kind, settings, target = LOSSES[name]
    net = prepared(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)))
    check(net, draw(2, 3, 3), target.reshape(2, 3, *target.shape[1:]), kind(**settings, reduction=reduction))


@pytest.mark.parametrize("kind", [nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.BCEWithLogitsLoss])
def test_loss_of_one_column_takes_a_flat_target(kind):
    net = prepared(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)))
    x, y = draw(6, 3), np.clip(draw(6, seed=1), 0, 1)
    check(net, x, y, kind())
    assert gv.value_and_grad(net, kind())(x, y)[0] == gv.value_and_grad(net, kind())(x, y[:, None])[0]


def test_loss_written_in_python():
    def quartic(prediction, target):
        d = prediction - target
        return np.sum(d**4), 4 * d**3

    net = prepared(nn.Sequential(nn.Linear(3, 5, bias=False), nn.BatchNorm(5), nn.Tanh(), nn.Linear(5, 2)))
    check(net, draw(6, 3), draw(6, 2, seed=1), quartic)
    check(net, draw(6, 3), draw(6, 2, seed=1), quartic, training=False)


def test_several_outputs_by_concatenation_share_a_trunk():
    net = Net(
        lambda net, x: (lambda h: F.concatenate([net.mean(h), F.softplus(net.spread(h))]))(net.trunk(x)),
        trunk=nn.Sequential(nn.Linear(3, 5), nn.Tanh()),
        mean=nn.Linear(5, 1),
        spread=nn.Linear(5, 1),
    )

    def likelihood(prediction, target):
        m, s = prediction[:, :1], prediction[:, 1:]
        d = (target - m) / s
        return float(np.sum(np.log(s) + d * d / 2)), np.concatenate([-d / s, (1 - d * d) / s], axis=1)

    check(prepared(net), draw(6, 3), draw(6, 1, seed=1), likelihood)

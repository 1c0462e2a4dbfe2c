"""Writing forward: what it may do with traced values, what it may not and what it is told then, how
modules may be shared, and the running statistics of batch norm."""

import operator

import numpy as np
import pytest

import gvcore as gv
import gvcore.functional as F
import oracles
from gvcore import nn


class Function(nn.Module):
    """A function of the net and its inputs for a forward, and a Linear(4, 4) to have parameters."""

    def __init__(self, function, **parts):
        self.linear = nn.Linear(4, 4, seed=0)
        for name, part in parts.items():
            setattr(self, name, part)
        self._function = function

    def forward(self, *inputs):
        return self._function(self, *inputs)


def rows(n=7, features=4, dtype=np.float32, seed=0):
    return np.random.default_rng([n, seed]).normal(size=(n, features)).astype(dtype)


X = rows()

# ---- what a traced value refuses ----------------------------------------------------------------

# What forward does, what is raised, and a word of the alternative that the message must name.
REFUSED = {
    "if": (lambda net, x: x if x else net.linear(x), "relu|functional"),
    "not": (lambda net, x: not x, "relu|functional"),
    "and": (lambda net, x: x and x, "relu|functional"),
    "bool": (lambda net, x: bool(x), "relu|functional"),
    "len": (lambda net, x: x * len(x), "shape|Flatten|reshape"),
    "size of the batch": (lambda net, x: x * x.shape[0], "shape|Flatten|reshape"),
    "size of the batch from behind": (lambda net, x: x * x.shape[-2], "shape|Flatten|reshape"),
    "unpacked shape": (lambda net, x: (lambda n, m: x * n)(*x.shape), "shape|Flatten|reshape"),
    "sliced shape": (lambda net, x: x.reshape(x.shape[:1]), "shape|Flatten|reshape"),
    "batch of a hidden value": (lambda net, x: net.linear(x).shape[0] * x, "shape|Flatten|reshape"),
    "exp": (lambda net, x: np.exp(x), "functional"),
    "maximum": (lambda net, x: np.maximum(x, 0), "functional"),
    "sqrt of a hidden value": (lambda net, x: np.sqrt(net.linear(x)), "functional"),
    "mean": (lambda net, x: np.mean(x), "functional|NumPy"),
    "sum": (lambda net, x: np.sum(x, axis=1), "functional|NumPy"),
    "concatenate of NumPy": (lambda net, x: np.concatenate([x, x], axis=1), "functional"),
    "matmul of NumPy": (lambda net, x: np.matmul(x, np.eye(4)), "functional"),
    "asarray": (lambda net, x: np.asarray(x), "functional"),
    "array plus value": (lambda net, x: np.ones(4) + x, "Parameter"),
    "value plus array": (lambda net, x: x + np.ones(4), "Parameter"),
    "value times array": (lambda net, x: x * np.ones(4), "Parameter"),
    "value @ array": (lambda net, x: x @ np.eye(4), "Parameter|parameter"),
    "weights as an array": (lambda net, x: F.linear(x, np.eye(4)), "Parameter"),
    "index": (lambda net, x: x[0], "argument|concatenate|functional"),
    "slice": (lambda net, x: x[:, :2], "argument|concatenate|functional"),
    "loop": (lambda net, x: list(x), "batch"),
    "less": (lambda net, x: x if x < 0 else -x, "functional"),
    "greater or equal": (lambda net, x: x >= 0, "functional"),
    "equal": (lambda net, x: x == 0, "functional"),
    "float": (lambda net, x: x * float(x), "number"),
    "int": (lambda net, x: x * int(x), "number"),
    "divided by a value": (lambda net, x: x / net.linear(x), "multiply"),
    "one divided by a value": (lambda net, x: 1 / x, None),
    "power": (lambda net, x: x**2, None),
    "in place": (lambda net, x: operator.setitem(x, 0, 1), None),
    "cross_entropy": (lambda net, x: F.cross_entropy(x, x), "loss|TrainStep|value_and_grad"),
    "mse_loss": (lambda net, x: F.mse_loss(x, x), "loss|TrainStep|value_and_grad"),
    "l1_loss": (lambda net, x: F.l1_loss(x, np.zeros(4)), "loss|TrainStep|value_and_grad"),
    "huber_loss": (lambda net, x: F.huber_loss(np.zeros(4), x), "loss|TrainStep|value_and_grad"),
    "bce": (lambda net, x: F.binary_cross_entropy_with_logits(x, x), "loss|TrainStep|value_and_grad"),
    "batch_norm": (lambda net, x: F.batch_norm(x), r"nn\.BatchNorm"),
    "batch_norm_inference": (
        lambda net, x: F.batch_norm_inference(x, np.zeros(4), np.ones(4)),
        r"nn\.BatchNorm",
    ),
    "batch_norm_backward": (
        lambda net, x: F.batch_norm_backward(x, x, np.zeros(4), np.ones(4)),
        r"value_and_grad|TrainStep|nn\.BatchNorm",
    ),
    "linear_backward": (lambda net, x: F.linear_backward(x, x, np.eye(4)), "value_and_grad|TrainStep"),
    "activation_backward": (
        lambda net, x: F.activation_backward("relu", x, x),
        "value_and_grad|TrainStep",
    ),
    "sgd_update": (lambda net, x: F.sgd_update(x, x, lr=0.1), "optim|TrainStep"),
    "adam_update": (lambda net, x: F.adam_update(x, x, x, x, step=1, lr=0.1), "optim|TrainStep"),
    "clip_grad_norm": (lambda net, x: F.clip_grad_norm([x], 1.0), None),
    "out": (lambda net, x: F.relu(x, out=np.empty((7, 4))), "out"),
    "softmax over the batch": (lambda net, x: F.softmax(x, axis=0), "axis"),
    "concatenate over the batch": (lambda net, x: F.concatenate([x, x], axis=0), "axis"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_forward(name):
    function, alternative = REFUSED[name]
    net = Function(function)
    with pytest.raises((TypeError, ValueError), match=alternative):
        net(X)
    with pytest.raises((TypeError, ValueError), match=alternative):
        gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.1))(X, X)
    # The failed trace is forgotten: the functions take arrays again, and the net can be mended.
    np.testing.assert_array_equal(F.relu(X), np.maximum(X, 0))
    net._function = lambda net, x: net.linear(x)
    assert net(X).shape == (7, 4)


def test_training_flag_is_refused():
    with pytest.raises(AttributeError, match="TrainStep"):
        Function(lambda net, x: x if net.training else net.linear(x))(X)
    with pytest.raises(AttributeError, match="TrainStep"):
        nn.Linear(2, 2).training = True
    assert not hasattr(nn.Linear(2, 2), "training")


@pytest.mark.parametrize(
    "returned", [None, 3.0, np.ones((7, 4)), "x", [1]], ids=["None", "number", "array", "text", "list"]
)
def test_forward_that_returns_no_traced_value(returned):
    with pytest.raises(TypeError, match="Function"):
        Function(lambda net, x: returned)(X)


def test_module_without_forward():
    class Empty(nn.Module):
        pass

    with pytest.raises((TypeError, NotImplementedError), match="Empty.*forward"):
        Empty()(X)


def test_exception_of_forward_passes_through():
    class Own(Exception):
        pass

    def forward(net, x):
        raise Own

    for _ in range(2):
        with pytest.raises(Own):
            Function(forward)(X)
    np.testing.assert_array_equal(F.relu(X), np.maximum(X, 0))


MISFITS = {
    "features": lambda net, x: net.linear(F.concatenate([x, x])),
    "parameter": lambda net, x: x + net.p,
    "values": lambda net, x: x + F.concatenate([x, x]),
    "reshape": lambda net, x: x.reshape(3),
    "reshape of unknown size": lambda net, x: x.reshape(-1, 3),
    "reshape of two unknown sizes": lambda net, x: x.reshape(-1, -1),
    "matmul": lambda net, x: x @ net.q,
    "concatenate": lambda net, x: F.concatenate([x, x.reshape(2, 2)]),
    "nothing to concatenate": lambda net, x: F.concatenate([]),
    "batch norm": lambda net, x: net.norm(x),
    "layer norm": lambda net, x: net.layer_norm(x),
}


@pytest.mark.parametrize("name", MISFITS)
def test_shapes_that_do_not_fit(name):
    net = Function(
        MISFITS[name],
        p=nn.Parameter(np.zeros(3)),
        q=nn.Parameter(np.zeros((3, 3))),
        norm=nn.BatchNorm(3),
        layer_norm=nn.LayerNorm(3),
    ).astype(np.float32)
    with pytest.raises(ValueError, match="expected"):
        net(X)


@pytest.mark.parametrize("shape", [(3, 4), (7, 4), (1, 4)])
@pytest.mark.parametrize(
    "op, forward",
    [
        ("add", lambda net, x: x + net.p),
        ("add", lambda net, x: net.p + x),
        ("subtract", lambda net, x: x - net.p),
        ("subtract", lambda net, x: net.p - x),
        ("multiply", lambda net, x: net.p * x),
    ],
)
def test_parameter_with_more_axes_than_the_value_has_behind_the_batch(op, forward, shape):
    net = Function(forward, p=nn.Parameter(np.ones(shape, np.float32)))
    with pytest.raises(ValueError, match=rf"\[{op}\].*\(batch, 4\).*\({shape[0]}, 4\)"):
        net(X)
    three = np.ones((2, shape[0], 4), np.float32)
    assert net(three).shape == three.shape
    with pytest.raises(ValueError, match=r"\(batch\)"):
        Function(lambda net, x: x + net.p, p=nn.Parameter(np.ones(1, np.float32)))(np.ones(5))


def test_what_is_known_of_a_traced_value():
    seen = []

    def forward(net, x):
        seen.append((x.shape[1:], x.shape[-1], x.shape[1], x.ndim, len(x.shape), repr(x)))
        return x.reshape(x.shape[1] * x.shape[2])

    assert Function(forward)(np.zeros((5, 2, 3))).shape == (5, 6)
    assert seen[0][:5] == ((2, 3), 3, 2, 3, 3) and "batch" in seen[0][5]


def test_forward_is_traced_once_for_all_sizes_of_batch():
    traces = []

    def forward(net, x):
        traces.append(1)
        return net.linear(x)

    net = Function(forward)
    for n in (1, 7, 300, 0, 7):
        assert net(rows(n)).shape == (n, 4)
    assert len(traces) == 1
    net(np.zeros((3, 2, 4)))
    assert len(traces) == 2
    net(rows(9))
    assert len(traces) == 2


# ---- what forward may do ------------------------------------------------------------------------


def test_arithmetic_is_that_of_numpy():
    p = np.array([0.5, -1.0, 2.0, 3.0])
    cases = [
        (lambda net, x: x + 1, lambda x: x + 1),
        (lambda net, x: 2 - x, lambda x: 2 - x),
        (lambda net, x: x - 2, lambda x: x - 2),
        (lambda net, x: -x * 3, lambda x: -x * 3),
        (lambda net, x: np.float32(2) * x, lambda x: 2 * x),
        (lambda net, x: np.float64(2) - x, lambda x: 2 - x),
        (lambda net, x: x + True, lambda x: x + 1),
        (lambda net, x: x / 4, lambda x: x / 4),
        (lambda net, x: x + net.p, lambda x: x + p),
        (lambda net, x: x - net.p, lambda x: x - p),
        (lambda net, x: net.p - x, lambda x: p - x),
        (lambda net, x: net.p * x, lambda x: p * x),
        (lambda net, x: x * x - x, lambda x: x * x - x),
        (lambda net, x: F.concatenate([x, x * 2]), lambda x: np.concatenate([x, x * 2], axis=-1)),
        (lambda net, x: F.reshape(x, (2, 2)), lambda x: x.reshape(-1, 2, 2)),
        (
            lambda net, x: F.reshape(x, (2, 2)) @ F.reshape(x, (2, -1)),
            lambda x: x.reshape(-1, 2, 2) @ x.reshape(-1, 2, 2),
        ),
        (lambda net, x: F.softmax(x), oracles.softmax),
        (lambda net, x: F.log_softmax(x), oracles.log_softmax),
        (lambda net, x: F.leaky_relu(x, negative_slope=0.2), lambda x: np.where(x > 0, x, 0.2 * x)),
        (lambda net, x: F.elu(x, alpha=0.5), lambda x: oracles.activation("elu", x, alpha=0.5)),
        (
            lambda net, x: F.gelu(x, approximate="tanh"),
            lambda x: oracles.activation("gelu", x, approximate="tanh"),
        ),
        (lambda net, x: F.softplus(x, beta=2.0), lambda x: oracles.activation("softplus", x, beta=2.0)),
        *[
            (lambda net, x, name=name: getattr(F, name)(x), lambda x, name=name: oracles.activation(name, x))
            for name in ("relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "tanh", "sigmoid")
        ],
    ]
    x = rows(dtype=np.float64)
    for i, (forward, formula) in enumerate(cases):
        net = Function(forward, p=nn.Parameter(p)).astype(np.float64)
        np.testing.assert_allclose(net(x), formula(x), rtol=1e-13, atol=1e-15, err_msg=str(i))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: F.leaky_relu(x, negative_slope=0.3),
        lambda x: F.leaky_relu(x, 0.3),
        lambda x: F.elu(x, alpha=2),
        lambda x: F.elu(x, 2),
        lambda x: F.softplus(x, beta=3),
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: F.softmax(x, axis=1),
        lambda x: F.log_softmax(x, axis=-1),
    ],
)
def test_functions_take_the_same_arguments_traced_or_not(call):
    x = rows()
    try:
        expected = call(x)
    except TypeError:
        with pytest.raises(TypeError):
            Function(lambda net, v: call(v))(x)
    else:
        np.testing.assert_array_equal(Function(lambda net, v: call(v))(x), expected)


def test_several_inputs_and_outputs():
    net = Function(lambda net, a, b: (net.linear(a), a * b, b))
    a, b = rows(seed=1), rows(seed=2)
    first, product, second = net(a, b)
    np.testing.assert_array_equal(first, net.linear(a))
    np.testing.assert_array_equal(product, a * b)
    np.testing.assert_array_equal(second, b)
    single = Function(lambda net, x: (net.linear(x),))(a)
    assert isinstance(single, tuple) and len(single) == 1
    with pytest.raises(ValueError, match="one"):
        gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.1))((a, b), a)
    with pytest.raises(ValueError):
        net(a, b[:-1])
    with pytest.raises(TypeError):
        net(a)
    with pytest.raises(TypeError):
        net()


def test_branches_on_settings_and_shapes_are_free():
    def forward(net, x):
        for _ in range(net.times):
            x = net.activation(x) if x.shape[-1] == 4 else x
        return net.linear(x)

    net = Function(forward, times=3, activation=nn.Tanh())
    np.testing.assert_allclose(net(X), net.linear(np.tanh(np.tanh(np.tanh(X)))), rtol=1e-5, atol=1e-6)
    net.times = 0  # a setting that changes is seen
    np.testing.assert_array_equal(net(X), net.linear(X))


# ---- sharing modules ----------------------------------------------------------------------------


def test_module_with_parameters_may_be_used_once():
    for function in (
        lambda net, x: net.linear(net.linear(x)),
        lambda net, x: net.linear(x) + F.linear(x, net.linear.weight),
        lambda net, x: x * net.linear.bias + net.linear.bias,
    ):
        with pytest.raises(ValueError, match=r"once.*linear\.(weight|bias)|linear\.(weight|bias).*once"):
            Function(function)(X)
    layer = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="once"):
        nn.Sequential(layer, nn.ReLU(), layer)(X)
    norm = nn.BatchNorm(4)
    with pytest.raises(ValueError, match="once"):
        nn.Sequential(norm, norm)(X)


def test_module_without_parameters_may_be_used_often():
    act, drop = nn.Tanh(), nn.Dropout(0.5)
    net = nn.Sequential(nn.Linear(4, 4, seed=0), act, drop, nn.Linear(4, 4, seed=1), act, drop)
    expected = np.tanh(net[3](np.tanh(net[0](X))))
    np.testing.assert_allclose(net(X), expected, rtol=1e-5, atol=1e-6)
    losses = [gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.0), seed=seed)(X, X) for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_module_or_parameter_that_is_not_part_of_the_net():
    outside, stray = nn.Linear(4, 4), nn.Parameter(np.zeros(4))
    for function in (
        lambda net, x: outside(x),
        lambda net, x: x + stray,
        lambda net, x: net.linear(x) @ nn.Parameter(np.eye(4)),
        lambda net, x: nn.Linear(4, 4)(x),
    ):
        with pytest.raises(ValueError, match=r"attribute|ModuleList"):
            Function(function)(X)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_that_is_not_part_of_the_net(affine):
    with pytest.raises(ValueError, match=r"attribute|ModuleList"):
        Function(lambda net, x: nn.BatchNorm(4, affine=affine)(x))(X)


@pytest.mark.parametrize("kind", [list, tuple, lambda v: dict(enumerate(v))], ids=["list", "tuple", "dict"])
def test_modules_in_a_plain_list_are_told_of_module_list(kind):
    def forward(net, x):
        layers = net.layers.values() if isinstance(net.layers, dict) else net.layers
        for layer in layers:
            x = layer(x)
        return x

    with pytest.raises((TypeError, ValueError), match="ModuleList"):
        Function(forward, layers=kind([nn.Linear(4, 4), nn.Linear(4, 4)]))(X)


def test_module_list():
    layers = nn.ModuleList([nn.Linear(4, 4, seed=0), nn.Tanh()])
    assert layers.append(nn.Linear(4, 4, seed=1)) is layers
    assert len(layers) == 3 and isinstance(layers[1], nn.Tanh) and layers[-1] is list(layers)[2]
    assert list(layers.parameters()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for wrong in (3, np.ones(3), nn.Linear, None):
        with pytest.raises(TypeError, match="module"):
            layers.append(wrong)
        with pytest.raises(TypeError, match="module"):
            nn.Sequential(nn.ReLU(), wrong)
    with pytest.raises(IndexError):
        layers[3]
    with pytest.raises(TypeError, match="Sequential"):
        layers(X)
    assert len(layers) == 3


def test_sequential_of_a_list():
    parts = [nn.Linear(4, 4, seed=0), nn.Tanh()]
    np.testing.assert_array_equal(nn.Sequential(parts)(X), nn.Sequential(*parts)(X))
    np.testing.assert_array_equal(nn.Sequential()(X), X)
    for wrong in ({"shortcut": 3}, {"activation": "relu"}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            nn.Residual(nn.Linear(4, 4), **wrong)


def test_part_called_alone():
    net = nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.BatchNorm(5), nn.Tanh()), nn.Linear(5, 2))
    step = gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.1))
    for _ in range(3):
        np.testing.assert_array_equal(net[2](net[1](net[0](X))), net(X))
        step(X, X[:, :2])


def test_part_trained_alone_changes_the_whole():
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    before, x = net(X), rows(features=5)
    head = net[2].parameters()["weight"].copy()
    gv.TrainStep(net[2], nn.MSELoss(), gv.optim.SGD(lr=0.1))(x, X[:, :2])
    assert not np.array_equal(net(X), before)
    assert not np.array_equal(net.parameters()["2.weight"], head)
    np.testing.assert_array_equal(net(X), net[2](np.asarray(net[1](net[0](X)))))


def test_module_in_two_nets():
    shared = nn.Sequential(nn.Linear(4, 5, seed=0), nn.BatchNorm(5), nn.Tanh())
    one, two = nn.Sequential(shared, nn.Linear(5, 2, seed=1)), nn.Sequential(shared, nn.Linear(5, 3, seed=2))
    steps = [gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.1, momentum=0.9)) for net in (one, two)]
    for i in range(4):
        before = [net(X) for net in (one, two)]
        steps[i % 2](X, X[:, : 2 + i % 2])
        assert not any(np.array_equal(net(X), y) for net, y in zip((one, two), before, strict=True))
        for net in (one, two):
            np.testing.assert_array_equal(net[1](shared(X)), net(X))
            for name, array in shared.state_dict().items():
                np.testing.assert_array_equal(array, net.state_dict()[f"0.{name}"])


def test_inner_net_of_another_author_is_a_module_like_any_other():
    inner = Function(lambda net, x: net.linear(x) + x)
    net = Function(lambda net, x: net.linear(net.inner(x)), inner=inner)
    np.testing.assert_array_equal(net(X), net.linear(inner(X)))
    assert list(net.parameters()) == [
        "linear.weight",
        "linear.bias",
        "inner.linear.weight",
        "inner.linear.bias",
    ]


# ---- batch norm's running statistics ------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, 0.35])
@pytest.mark.parametrize("shape", [(2, 4), (9, 4), (300, 4), (3, 5, 4), (2, 2, 3, 4), (1, 5, 4)], ids=str)
def test_running_statistics(shape, momentum):
    net = nn.Sequential(nn.BatchNorm(4, momentum=momentum)).astype(np.float64)
    value_and_grad = gv.value_and_grad(net, nn.MSELoss())
    mean, var = np.zeros(4), np.ones(4)
    for i in range(3):
        x = 3 + 2 * np.random.default_rng(i).normal(size=shape)
        value_and_grad(x, x, training=True)
        flat = x.reshape(-1, 4)
        mean = (1 - momentum) * mean + momentum * flat.mean(axis=0)
        var = (1 - momentum) * var + momentum * flat.var(axis=0, ddof=1)
        np.testing.assert_allclose(net.buffers()["0.running_mean"], mean, rtol=1e-13)
        np.testing.assert_allclose(net.buffers()["0.running_var"], var, rtol=1e-13)
    value_and_grad(x, x, training=False)
    np.testing.assert_allclose(net.buffers()["0.running_mean"], mean, rtol=1e-13)
    np.testing.assert_allclose(net(x), (x - mean) / np.sqrt(var + 1e-5), rtol=1e-12, atol=1e-13)


def test_running_statistics_in_float32_of_a_large_mean():
    net = nn.Sequential(nn.BatchNorm(3, momentum=1.0))
    x = (1e4 + np.random.default_rng(0).normal(size=(500, 3))).astype(np.float32)
    gv.value_and_grad(net, nn.MSELoss())(x, x)
    np.testing.assert_allclose(net.buffers()["0.running_mean"], x.astype(np.float64).mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(
        net.buffers()["0.running_var"], x.astype(np.float64).var(axis=0, ddof=1), rtol=1e-5
    )


def test_training_step_normalises_by_the_batch():
    net = nn.Sequential(nn.BatchNorm(4, affine=False)).astype(np.float64)
    x = 5 + 3 * rows(50, dtype=np.float64)
    seen = []

    def loss(prediction, target):
        seen.append(prediction.copy())
        return 0.0, np.zeros_like(prediction)

    gv.value_and_grad(net, loss)(x, x)
    np.testing.assert_allclose(seen[0], oracles.batch_norm(x)[0], rtol=1e-11, atol=1e-12)


FORMULAS = {
    "batch norm": (lambda: nn.BatchNorm(4, eps=0.5), lambda x: oracles.batch_norm(x, eps=0.5)[0]),
    "layer norm": (lambda: nn.LayerNorm(4, eps=0.5), lambda x: oracles.layer_norm(x, eps=0.5)[0]),
    "layer norm as it comes": (lambda: nn.LayerNorm(4), lambda x: oracles.layer_norm(x)[0]),
    "flatten": (nn.Flatten, lambda x: x),
    "identity": (nn.Identity, lambda x: x),
    "no dropout": (lambda: nn.Dropout(0.0), lambda x: x),
    **{
        f"{kind.__name__} {settings}": (
            lambda kind=kind, settings=settings: kind(**settings),
            lambda x, name=name, settings=settings: oracles.activation(name, x, **settings),
        )
        for kind, name, settings in (
            (nn.ReLU, "relu", {}),
            (nn.LeakyReLU, "leaky_relu", {}),
            (nn.LeakyReLU, "leaky_relu", {"negative_slope": 0.3}),
            (nn.ELU, "elu", {}),
            (nn.ELU, "elu", {"alpha": 0.4}),
            (nn.SELU, "selu", {}),
            (nn.GELU, "gelu", {}),
            (nn.GELU, "gelu", {"approximate": "tanh"}),
            (nn.SiLU, "silu", {}),
            (nn.Softplus, "softplus", {}),
            (nn.Softplus, "softplus", {"beta": 2.5}),
            (nn.Tanh, "tanh", {}),
            (nn.Sigmoid, "sigmoid", {}),
        )
    },
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_of_a_layer_in_training(name):
    layer, formula = FORMULAS[name]
    seen = []

    def loss(prediction, target):
        seen.append(prediction.copy())
        return 0.0, np.zeros_like(prediction)

    # A parameter in front, since there is nothing to differentiate without one.
    net = Function(lambda net, x: net.layer(x + net.zero), layer=layer(), zero=nn.Parameter(np.zeros(4)))
    x = 3 * rows(40, dtype=np.float64)
    gv.value_and_grad(net.astype(np.float64), loss)(x, x)
    np.testing.assert_allclose(seen[0], formula(x), rtol=1e-12, atol=1e-13)
    if name != "batch norm":
        np.testing.assert_allclose(net(x), formula(x), rtol=1e-12, atol=1e-13)


def test_batch_norm_at_inference_has_its_epsilon():
    net = nn.Sequential(nn.BatchNorm(4, eps=0.5)).astype(np.float64)
    net.buffers()["0.running_var"][...] = 1.5
    np.testing.assert_allclose(net(X), X.astype(np.float64) / 2**0.5, rtol=1e-13)


def test_dropout_keeps_the_share_and_the_mean():
    seen = []

    def loss(prediction, target):
        seen.append(prediction.copy())
        return 0.0, np.zeros_like(prediction)

    net = Function(lambda net, x: net.drop(x + net.one), drop=nn.Dropout(0.3), one=nn.Parameter(np.ones(4)))
    x = np.zeros((5000, 4))
    gv.value_and_grad(net.astype(np.float64), loss)(x, x, seed=1)
    kept = seen[0] != 0
    np.testing.assert_allclose(seen[0][kept], 1 / 0.7, rtol=1e-15)
    # Five standard errors of the share of 20,000 independent draws; columns and neighbours alike.
    assert abs(kept.mean() - 0.7) < 5 * (0.7 * 0.3 / kept.size) ** 0.5
    assert (abs(kept.mean(axis=0) - 0.7) < 5 * (0.7 * 0.3 / 5000) ** 0.5).all()
    both = (kept[1:] & kept[:-1]).mean()
    assert abs(both - 0.49) < 5 * (0.49 * 0.51 / kept.size) ** 0.5 * 1.5


def test_statistics_are_not_touched_by_a_loss_in_python_that_is_not_finite():
    net = nn.Sequential(nn.BatchNorm(4))
    before = net.state_dict()
    gv.value_and_grad(net, lambda prediction, target: (np.nan, np.zeros_like(prediction)))(X, X)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_statistics_are_not_touched_by_values_that_are_not_finite():
    net = nn.Sequential(nn.BatchNorm(4))
    x = rows()
    x[0, 0] = np.nan
    before = net.state_dict()
    loss, gradients = gv.value_and_grad(net, nn.MSELoss())(x, X)
    assert np.isnan(loss) and np.isnan(gradients["0.weight"]).any()
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])

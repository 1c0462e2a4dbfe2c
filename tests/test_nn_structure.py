"""What counts as a change of a net's structure: settings of any kind do, what forward keeps does not,
and is of no use to the next run of forward."""

import copy
import pickle

import numpy as np
import pytest

import gvcore as gv
import gvcore.functional as F
from gvcore import nn

X = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)


class Function(nn.Module):
    """A function of the net and its input for a forward, a Linear(4, 4), and settings."""

    def __init__(self, function, **settings):
        self.linear = nn.Linear(4, 4, seed=0)
        self._function = function
        for name, setting in settings.items():
            setattr(self, name, setting)

    def forward(self, x):
        return self._function(self, x)


def swapped_pair(net):
    net.first, net.second = net.second, net.first


SETTINGS = {  # what forward uses, and what takes its place
    "a function": (F.relu, F.tanh),
    "a function of the user": (lambda x: x + 1, lambda x: x + 2),
    "a NumPy scalar": (np.float64(2), np.float64(3)),
    "a NumPy integer": (np.int32(2), np.int32(3)),
    "a number by a NumPy scalar": (2.0, np.float64(3)),
    "an array without axes": (np.array(2.0), np.array(3.0)),
    "a tuple": ((1.0, 2.0), (1.0, 3.0)),
    "a dict": ({"scale": 2.0}, {"scale": 3.0}),
}


def use(setting, x):
    if callable(setting):
        return setting(x)
    if isinstance(setting, dict):
        return x * setting["scale"]
    return x * (setting[-1] if isinstance(setting, tuple) else setting)


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_of_any_kind_that_is_replaced_is_seen(name):
    first, second = SETTINGS[name]
    net, wanted = (Function(lambda net, x: net.linear(use(net.how, x)), how=how) for how in (first, second))
    step = gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.0))
    value_and_grad = gv.value_and_grad(net, nn.MSELoss())
    assert step(X, X) == value_and_grad(X, X)[0]
    assert not np.array_equal(net(X), wanted(X))
    net.how = second
    np.testing.assert_array_equal(net(X), wanted(X))
    assert value_and_grad(X, X)[0] == gv.value_and_grad(wanted, nn.MSELoss())(X, X)[0]
    with pytest.raises(ValueError, match="structure"):
        step(X, X)


def test_setting_that_is_set_to_what_it_was_changes_nothing():
    traces = []

    def forward(net, x):
        traces.append(1)
        return net.act(net.linear(x) * net.scale)

    net = Function(forward, act=F.relu, scale=np.float64(2))
    step = gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.1))
    for _ in range(3):
        net(X)
        step(X, X)
        net.act, net.scale = F.relu, np.float64(2)
    assert len(traces) == 2


def test_setting_is_not_taken_for_one_whose_memory_it_has_got():
    net = Function(lambda net, x: net.linear(x) * net.how[0], how=None)
    for i in range(50):
        net.how = [float(i)]
        np.testing.assert_array_equal(net(X), net.linear(X) * np.float32(i))
        net.how = None  # the list is freed: the next one may get its memory
    net = Function(lambda net, x: net.act(net.linear(x)), act=None)
    for kind in (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.ReLU):
        net.act = kind()
        np.testing.assert_array_equal(net(X), kind()(net.linear(X)))
        net.act = None


def test_what_forward_keeps_is_no_setting():
    traces = []

    def forward(net, x):
        traces.append(1)
        net.hidden = net.linear(x)
        net.all, net.shape, net.count = [x, net.hidden], x.shape[1:], net.count + 1
        net.gone = x
        del net.gone
        return net.hidden

    net = Function(forward, hidden=None, count=0)
    step = gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.1))
    other = Function(lambda net, x: x, scale=0.0)
    for i in range(3):
        net(X)
        step(X, X)
        other.scale = float(i)  # everyone looks at his net again
    assert len(traces) == 2 and net.count == 2 and net.shape == (4,)
    net.count = 7  # a setting again
    net(X)
    assert len(traces) == 3 and net.count == 8
    with pytest.raises(ValueError, match="structure"):
        step(X, X)


def test_part_that_forward_makes_is_seen():
    def forward(net, x):
        if net.act is None:
            net.act = nn.LeakyReLU(0.5)
        return net.act(net.linear(x))

    net = Function(forward, act=None)
    np.testing.assert_array_equal(net(X), nn.LeakyReLU(0.5)(net.linear(X)))
    net.act.negative_slope = 0.25
    np.testing.assert_array_equal(net(X), nn.LeakyReLU(0.25)(net.linear(X)))


def test_astype_of_a_net_that_has_only_buffers():
    net, x = nn.Sequential(nn.BatchNorm(4, affine=False)), X
    single = net(x)
    assert net.astype(np.float64)(x).dtype == np.float64
    np.testing.assert_array_equal(net.astype(np.float32)(x), single)


def test_net_without_parameters_remembers_astype():
    net = nn.Sequential(nn.Tanh(), nn.Sequential(nn.ReLU()))
    single = net(X)
    step = gv.TrainStep(nn.Sequential(nn.Linear(4, 4), net), nn.MSELoss(), gv.optim.SGD(lr=0.1))
    step(X, X)
    net.astype(np.float32)
    step(X, X)  # of a net with parameters they alone decide
    assert single.dtype == np.float32 and net.astype(np.float64).dtype == np.float64
    for each in (net, net[1], copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert each(X).dtype == np.float64
    wide = X.astype(np.float64)
    np.testing.assert_allclose(net(wide), np.maximum(np.tanh(wide), 0), rtol=1e-14)
    assert nn.Sequential(nn.Linear(4, 4), net)(X).dtype == np.float32
    assert net.astype(np.float32)(X).dtype == np.float32


def test_repr_shows_every_setting():
    assert repr(nn.GELU()) == "GELU()" and repr(nn.GELU("tanh")) == "GELU('tanh')"
    for norm in (nn.LayerNorm, nn.BatchNorm):
        assert norm(3).affine is True and "affine" not in repr(norm(3))
        assert norm(3, affine=False).affine is False and "affine=False" in repr(norm(3, affine=False))


def test_sequential_that_is_filled_later_starts_as_if_made_at_once():
    def parts(count):
        kinds = (nn.Dropout, nn.Tanh, lambda: nn.Linear(8, 8), nn.SELU, lambda: nn.Linear(8, 8))
        return [make() for make in (lambda: nn.Linear(8, 8), *kinds, lambda: nn.Linear(8, 8))[:count]]

    for count in range(8):
        made, filled = nn.Sequential(*parts(count)), nn.Sequential()
        for part in parts(count):
            assert filled.append(part) is filled
        expected = made.reset_parameters(0).parameters()
        for name, array in filled.reset_parameters(0).parameters().items():
            np.testing.assert_array_equal(array, expected[name], err_msg=f"{name} of {count}")
    chosen = nn.Sequential(nn.Linear(8, 8, init="ones")).append(nn.Tanh())
    np.testing.assert_array_equal(chosen[0].weight.data, np.ones((8, 8)))
    with pytest.raises(TypeError, match="expected modules"):
        chosen.append(3)


def test_parameters_of_two_dtypes_are_refused_and_left_as_they_are():
    net = Function(lambda net, x: net.linear(x) * net.scale, scale=nn.Parameter(np.full(4, 1.1)))
    for use in (
        lambda: net(X),
        net.parameters,
        lambda: gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.1)),
    ):
        with pytest.raises(TypeError, match=r"one dtype, got float32 in linear\.weight and float64 in scale"):
            use()
        assert {p.dtype for _, p in net.named_parameters()} == {np.dtype(np.float32), np.dtype(np.float64)}
    np.testing.assert_array_equal(net.scale.data, np.full(4, 1.1))
    assert {a.dtype for a in net.astype(np.float64).parameters().values()} == {np.dtype(np.float64)}


# ---- values of another run of forward -----------------------------------------------------------

LEFT_BEHIND = {
    "value + left": lambda net, x, left: x + left,
    "left - value": lambda net, x, left: left - x,
    "left * left": lambda net, x, left: left * left,
    "left + number": lambda net, x, left: left + 1,
    "left + parameter": lambda net, x, left: left + net.linear.bias,
    "minus left": lambda net, x, left: -left,
    "value @ left": lambda net, x, left: F.reshape(x, (2, 2)) @ F.reshape(left, (2, 2)),
    "left @ parameter": lambda net, x, left: left @ net.linear.weight,
    "matmul": lambda net, x, left: F.matmul(F.reshape(x, (2, 2)), left.reshape(2, 2)),
    "linear": lambda net, x, left: F.linear(left, net.linear.weight, net.linear.bias),
    "concatenate": lambda net, x, left: F.concatenate([x, left]),
    "reshape": lambda net, x, left: left.reshape(2, 2),
    "softmax": lambda net, x, left: F.softmax(left),
    "activation": lambda net, x, left: F.tanh(left),
    "layer": lambda net, x, left: net.linear(left),
    "batch norm": lambda net, x, left: net.norm(left),
    "layer norm": lambda net, x, left: nn.LayerNorm(4, affine=False)(left),
    "dropout": lambda net, x, left: nn.Dropout(0.5)(left),
    "flatten": lambda net, x, left: nn.Flatten()(left),
    "output": lambda net, x, left: left,
    "one of the outputs": lambda net, x, left: (x, left),
    "through a module that does nothing": lambda net, x, left: nn.Identity()(left),
}


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_value_that_an_earlier_run_left_behind_is_refused(name):
    def forward(net, x):
        left, net.left = net.left, net.linear(x)
        return net.norm(net.left) if left is None else LEFT_BEHIND[name](net, x, left)

    net = Function(forward, left=None, norm=nn.BatchNorm(4))
    first = net(X)
    expected = r"\[trace\] expected values of this run of forward, got one that an earlier run left behind"
    for use in (lambda: net(X[:, None]), lambda: gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.1))(X, X)):
        with pytest.raises(ValueError, match=expected):
            use()
    np.testing.assert_array_equal(net(X), first)


def test_value_of_a_run_that_is_over_is_refused():
    net = Function(lambda net, x: net.linear(x))
    kept = []
    Function(lambda net, x: (kept.append(x), net.linear(x))[1])(X)
    for use in (lambda: kept[0] + kept[0], lambda: net(kept[0]), lambda: F.relu(kept[0])):
        with pytest.raises(ValueError, match="earlier run"):
            use()
    assert "batch" in repr(kept[0]) and kept[0].ndim == 2


def test_net_called_on_arrays_in_forward_leaves_the_run_as_it_is():
    inner = nn.Linear(4, 4, seed=1)

    def forward(net, x):
        y = net.linear(x)
        net.seen = inner(X)
        return y + x

    np.testing.assert_array_equal(Function(forward)(X), Function(lambda net, x: net.linear(x) + x)(X))


class Part(nn.Module):
    """It knows what it is a part of."""

    def __init__(self, whole):
        self.whole, self.layer = whole, nn.Linear(4, 4, seed=0)

    def forward(self, x):
        return self.layer(x)


class Whole(nn.Module):
    def __init__(self):
        self.part = Part(self)

    def forward(self, x):
        return self.part(x)


def test_modules_in_a_circle_are_refused():
    """Their names would never end."""
    net = Whole()
    for use in (
        lambda: net(np.ones((2, 4))),
        net.parameters,
        net.state_dict,
        lambda: list(net.named_modules()),
        lambda: gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.1)),
    ):
        with pytest.raises(ValueError, match=r"without a circle, got part\.whole, which is the Whole"):
            use()
    shared = nn.Linear(4, 4, seed=0)
    twice = nn.Sequential(nn.Sequential(nn.ReLU(), shared), shared)  # that is no circle
    assert list(twice.state_dict()) == ["0.1.weight", "0.1.bias", "1.weight", "1.bias"]

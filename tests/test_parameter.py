"""Parameters: what they are made from, which sizes they may have, and how long a view of one holds."""

import copy
import math
import pickle

import numpy as np
import pytest

import gvcore as gv
from gvcore import _core, nn

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
RAGGED = [[1.0, 2.0], [3.0]]


class Scaled(nn.Module):
    """A Linear(4, 4) whose result is multiplied by a parameter made of `values`."""

    def __init__(self, values):
        self.linear = nn.Linear(4, 4, seed=0)
        self.scale = nn.Parameter(values)

    def forward(self, x):
        return self.linear(x) * self.scale


@pytest.mark.parametrize(
    "values",
    [1.0, 3, [1.0, 2.0], [np.float64(1)], ((1, 2), (3, 4)), True, np.ones(3, np.float16), np.arange(3)],
)
def test_values_without_a_dtype_of_their_own_become_float32(values):
    parameter = nn.Parameter(values)
    assert parameter.dtype == parameter.data.dtype == np.float32
    np.testing.assert_array_equal(parameter.data, np.asarray(values, np.float32))


@pytest.mark.parametrize(
    "values", [np.float64(1), np.ones(3), np.ones((2, 2), ">f8"), nn.Parameter(np.ones(3))]
)
def test_arrays_of_float64_stay_what_they_are(values):
    for parameter in (nn.Parameter(values), copy.deepcopy(nn.Parameter(values))):
        assert parameter.dtype == parameter.data.dtype == np.float64 and parameter.data.dtype.isnative
    assert pickle.loads(pickle.dumps(nn.Parameter(values))).dtype == np.float64


def test_list_in_a_net_of_float32():
    np.testing.assert_array_equal(
        Scaled([1.0, 2.0, 3.0, 4.0])(X), Scaled(np.arange(1, 5, dtype=np.float32))(X)
    )


def test_other_dtype_is_named():
    with pytest.raises(
        TypeError, match=r"one dtype, got float32 in linear\.weight and float64 in scale; .*astype"
    ):
        Scaled(np.ones(4))(X)
    net = nn.Sequential(nn.BatchNorm(4, affine=False), nn.Linear(4, 4).astype(np.float64))
    with pytest.raises(TypeError, match=r"float32 in 0\.running_mean and float64 in 1\.weight"):
        net(X)
    assert net.astype(np.float64)(X).dtype == np.float64


def test_numbers_beyond_float32_are_refused():
    for values in (1e300, [1.0, -1e39]):
        with pytest.raises(
            ValueError, match=r"\[Parameter\] expected data in the range of float32, got -?1e\+"
        ):
            nn.Parameter(values)
    assert nn.Parameter(np.array([1e300])).data[0] == 1e300
    np.testing.assert_array_equal(nn.Parameter([np.inf, np.nan]).data, [np.inf, np.nan])


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"data": RAGGED}, ValueError, "data to be an array, got a list that makes none"),
        ({"data": ["a"]}, TypeError, "data to be an array of real numbers, got <U1"),
        ({}, TypeError, "data or shape, got neither"),
        ({"data": np.ones(3), "shape": (3,)}, TypeError, "data or shape, got both"),
        ({"shape": 3}, TypeError, "shape to be a sequence of integers, got 3"),
        ({"shape": "ab"}, TypeError, "shape to be a sequence of integers, got 'ab'"),
        ({"shape": ("a",)}, TypeError, r"shape\[0\] to be an integer >= 0, got 'a'"),
        ({"shape": (2, 3.5)}, TypeError, r"shape\[1\] to be an integer >= 0, got 3\.5"),
        ({"shape": (-1,)}, ValueError, r"shape\[0\] to be an integer >= 0, got -1"),
        ({"shape": (2**70,)}, ValueError, r"shape\[0\] .* < 2\*\*63, got one of 71 bits"),
        ({"data": 1.0, "requires_grad": "no"}, TypeError, "requires_grad to be True or False, got 'no'"),
        ({"shape": (2,), "site": "1"}, TypeError, "site to be an integer"),
        (
            {"shape": (2,), "site": 2**32},
            ValueError,
            r"site to be an integer >= 0 and < 2.*32, got one of 33 bits",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, error, message):
    with pytest.raises(error, match=rf"\[Parameter\] expected {message}"):
        nn.Parameter(**arguments)


def test_requires_grad_is_true_or_false():
    parameter = nn.Parameter([1.0])
    with pytest.raises(TypeError, match="requires_grad to be True or False, got 'no'"):
        parameter.requires_grad = "no"
    assert parameter.requires_grad is True
    parameter.requires_grad = np.bool_(False)
    assert parameter.requires_grad is False


def test_init_is_what_a_linear_takes():
    np.testing.assert_array_equal(nn.Parameter(shape=(2, 3), init="ones").data, np.ones((2, 3)))
    drawn = [nn.Parameter(shape=(4, 4), init=i, seed=0).data for i in ("orthogonal", nn.init.orthogonal)]
    np.testing.assert_array_equal(*drawn)
    for wrong, error in (("zeroes", ValueError), (5, TypeError)):
        with pytest.raises(error, match=r"\[init\] expected"):
            nn.Parameter(shape=(2,), init=wrong)


def test_sizes_whose_product_leaves_64_bits():
    for shape in ((2**32, 2**32), (2**41, 2**23), (2**31, 2**32)):
        layer = nn.Linear(*shape, bias=False)
        assert layer.num_parameters() == layer.weight.size == math.prod(shape)
        with pytest.raises(ValueError, match=r"\[Parameter\] expected a shape of less than 2\*\*63 bytes"):
            _ = layer.weight.data
    with pytest.raises(ValueError, match="in_features to be an integer >= 1 and < 2.*63, got one of 71 bits"):
        nn.Linear(2**70, 1)
    graph = _core.Graph()
    with pytest.raises(ValueError, match=r"parameter wide of sizes whose product is below 2\*\*63"):
        graph.parameter("wide", [2**32, 2**32], True)
    assert graph.parameter("narrow", [2**31, 2**31], True) == 0


def test_how_long_views_hold():
    """What the docstrings of `Module.parameters` and `Parameter.data` say."""
    trunk = nn.Linear(4, 4, seed=0)
    one, other = (nn.Sequential(trunk, nn.Linear(4, 4, seed=seed)) for seed in (1, 2))
    before = trunk.weight.data
    view = one.parameters()["0.weight"]
    assert not np.shares_memory(before, view)
    other(X)
    gv.TrainStep(other, nn.MSELoss(), gv.optim.SGD(lr=0.1))(X, X)
    assert np.shares_memory(view, one.parameters()["0.weight"])
    moved = other.parameters()["0.weight"]
    assert not np.shares_memory(view, moved) and np.shares_memory(moved, trunk.weight.data)
    output = one(X)
    view[...] = 0  # the memory that the weight has left
    np.testing.assert_array_equal(one(X), output)
    moved[...] = 0
    np.testing.assert_array_equal(other(X), np.broadcast_to(other(X)[:1], (5, 4)))

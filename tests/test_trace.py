"""What a traced value is not: each attempt is answered in the words of gvcore, with an alternative.

What forward may do is in test_nn_forward.py.
"""

import copy
import inspect

import numpy as np
import pytest

import gvcore.functional as F
from gvcore import nn

X = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)


class Function(nn.Module):
    """A function of the net and its input for a forward, and parameters of several shapes."""

    def __init__(self, function):
        self._function = function
        self.p = nn.Parameter(np.ones((3, 7), np.float32))
        self.quarter = nn.Parameter(np.full((4, 1), 0.25, np.float32), requires_grad=False)

    def forward(self, x):
        return self._function(self, x)


@pytest.mark.parametrize(
    "forward, alternative",
    [
        (lambda net, x: x**2, r"x \* x"),
        (lambda net, x: 2**x, "softplus"),
        (lambda net, x: abs(x), r"relu\(x\) \+ relu\(-x\)"),
        (lambda net, x: x / x, "multiply"),
        (lambda net, x: 1 / x, "multiply"),
        (lambda net, x: net.quarter @ x, "nn.Parameter"),
    ],
)
def test_operators_that_there_are_not(forward, alternative):
    with pytest.raises(TypeError, match=rf"^\[\w+\] .*{alternative}"):
        Function(forward)(X)


@pytest.mark.parametrize(
    "name, alternative",
    [
        ("T", "linear"),
        ("transpose", "linear"),
        ("mean", "nn.Parameter of 1/k"),
        ("sum", "nn.Parameter of ones"),
        ("flatten", "nn.Flatten"),
        ("dtype", "net.dtype"),
        ("astype", "net.astype"),
        ("tanh", r"gvcore\.functional\.tanh\(x\)"),
        ("nonsense", r"gvcore\.functional"),
    ],
)
def test_attributes_that_there_are_not(name, alternative):
    with pytest.raises(AttributeError, match=rf"\[trace\] a traced value has no '{name}'; .*{alternative}"):
        Function(lambda net, x: getattr(x, name))(X)
    net = Function(lambda net, x: x if not hasattr(x, name) else None)
    np.testing.assert_array_equal(net(X), X)


def test_protocols_find_nothing_and_copy_works():
    def forward(net, x):
        assert not any(hasattr(x, name) for name in ("__array_interface__", "__cuda_array_interface__"))
        with pytest.raises(AttributeError, match="^'Value' object has no attribute '__fspath__'$"):
            _ = x.__fspath__
        assert inspect.unwrap(x) is x
        return copy.copy(x) * 1.0

    np.testing.assert_array_equal(Function(forward)(X), X)


def test_alternatives_are_right():
    np.testing.assert_allclose(
        Function(lambda net, x: x @ net.quarter)(X), X.mean(-1, keepdims=True), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(Function(lambda net, x: F.relu(x) + F.relu(-x))(X), np.abs(X))
    np.testing.assert_array_equal(Function(lambda net, x: x * x)(X), X * X)


@pytest.mark.parametrize(
    "op, forward",
    [
        ("add", lambda net, x: x + net.p),
        ("subtract", lambda net, x: x - net.p),
        ("subtract", lambda net, x: net.p - x),
        ("multiply", lambda net, x: x * net.p),
        ("add", lambda net, x: x + x.reshape(4, 3)),
        ("subtract", lambda net, x: x - x.reshape(4, 3)),
        ("multiply", lambda net, x: x * x.reshape(4, 3)),
        ("add", lambda net, x: x.reshape(12) + net.p),
        ("subtract", lambda net, x: net.p - x.reshape(12)),
        ("multiply", lambda net, x: x.reshape(12) * net.p),
    ],
)
def test_operation_has_one_name_in_all_messages(op, forward):
    with pytest.raises(ValueError, match=rf"^\[{op}\] expected .*, got"):
        Function(forward)(X)


@pytest.mark.parametrize(
    "forward, error, message",
    [
        (lambda net, x: x.reshape(None), TypeError, "[reshape] expected shape"),
        (lambda net, x: x.reshape("12"), TypeError, "[reshape] expected shape"),
        (lambda net, x: x.reshape(2.0, 6), TypeError, "[reshape] expected shape"),
        (lambda net, x: F.reshape(x, 2**70), ValueError, "[reshape] expected shape"),
        (lambda net, x: F.concatenate([x, x], axis="a"), TypeError, "[concatenate] expected axis"),
        (lambda net, x: F.softmax(x, axis="a"), TypeError, "[softmax] expected axis"),
        (lambda net, x: F.gelu(x, 5), TypeError, "[gelu] expected approximate"),
    ],
)
def test_arguments_that_do_not_fit_are_named(forward, error, message):
    with pytest.raises(error) as caught:
        Function(forward)(X)
    assert str(caught.value).startswith(message)

"""What may be written into a net: numbers out of range, buffers as attributes, states of shared modules.

Names, and states of other shapes and kinds, are in test_nn.py.
"""

import numpy as np
import pytest

import gvcore as gv
from gvcore import nn

X = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)


def net_of(*, seed=0):
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm(4), nn.Tanh(), nn.Linear(4, 4)).reset_parameters(seed)


def all_bytes(net):
    return {name: array.tobytes() for name, array in net.state_dict().items()}


# ---- numbers out of range -----------------------------------------------------------------------

BEYOND = {
    "parameter": ("3.weight", np.full((4, 4), 1e300)),
    "buffer": ("1.running_var", np.array([1.0, 1.0, -1e39, 1.0])),
    "one element": ("3.bias", [0.0, np.nan, np.inf, 3.5e38]),
}


@pytest.mark.parametrize("over", ["warn", "ignore", "raise"])
@pytest.mark.parametrize("case", BEYOND)
def test_load_state_dict_of_numbers_beyond_the_dtype_writes_nothing(case, over):
    name, value = BEYOND[case]
    net = net_of()
    before, state = all_bytes(net), {**net_of(seed=1).state_dict(), name: value}
    for strict in (True, False):
        with np.errstate(all=over), pytest.raises(ValueError, match=rf"{name}.*float32"):
            net.load_state_dict(state, strict)
    assert all_bytes(net) == before
    net.astype(np.float64).load_state_dict(state)
    np.testing.assert_array_equal(net.state_dict()[name], value)


def test_load_state_dict_keeps_what_is_not_finite_and_rounds_what_is_small():
    net, value = net_of(), np.array([np.inf, -np.inf, np.nan, 1e-300])
    with np.errstate(all="raise"):
        net.load_state_dict({"3.bias": value}, strict=False)
    np.testing.assert_array_equal(
        net.state_dict()["3.bias"], np.array([np.inf, -np.inf, np.nan, 0], np.float32)
    )


# ---- buffers as attributes ----------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.full(4, 3.0), [3, 3, 3, 3], np.full(4, 3, np.int8)], ids=type)
def test_setting_a_buffer_copies_the_values_into_it(value):
    net, twin = net_of(), net_of()
    step = gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.1))
    step(X, X)
    twin.load_state_dict(net.state_dict())
    twin.buffers()["1.running_mean"][...] = 3
    view = net.buffers()["1.running_mean"]
    net(X)
    net[1].running_mean = value
    np.testing.assert_array_equal(view, np.full(4, 3, np.float32))
    assert net[1].running_mean is view and view.dtype == np.float32 and view is not value
    np.testing.assert_array_equal(net(X), twin(X))
    assert all_bytes(net) == all_bytes(twin)
    step(X, X)  # the structure is what it was
    assert not np.array_equal(net[1].running_mean, value)


@pytest.mark.parametrize(
    "value, error",
    [
        (np.zeros(3), ValueError),
        (0.0, ValueError),
        (np.zeros((1, 4)), ValueError),
        (np.full(4, 1e300), ValueError),
        (None, TypeError),
        ("text", TypeError),
        (np.zeros(4, complex), TypeError),
    ],
    ids=repr,
)
def test_setting_a_buffer_to_what_does_not_fit_writes_nothing(value, error):
    net = net_of()
    before = all_bytes(net)
    with pytest.raises(error, match="running_var.*got"):
        net[1].running_var = value
    assert all_bytes(net) == before
    with pytest.raises(AttributeError):
        del net[1].running_var

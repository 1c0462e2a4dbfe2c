"""What may be written into a net: numbers out of range, buffers as attributes, states of shared modules.

Names, and states of other shapes and kinds, are in test_nn.py.
"""

import numpy as np
import pytest

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

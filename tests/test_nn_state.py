"""What may be written into a net: numbers out of range, buffers as attributes, states of shared modules;
and nets whose memory cannot be written.

Names, and states of other shapes and kinds, are in test_nn.py.
"""

import pickle

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


# ---- modules under several names ----------------------------------------------------------------


class Shared(nn.Module):
    """Layers under names of their own and in a list, and a parameter under two names."""

    def __init__(self, seed=0):
        self.first, self.norm, self.last = nn.Linear(4, 4), nn.BatchNorm(4), nn.Linear(4, 4)
        self.layers = nn.ModuleList([self.first, self.norm, self.last])
        self.scale = nn.Parameter(np.ones(4, np.float32))
        self.gain = self.scale
        self.reset_parameters(seed)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x * self.gain


def test_state_of_shared_modules_comes_back():
    net, other = Shared(), Shared(seed=1)
    gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.1))(X, X)
    state = net.state_dict()
    assert {"first.weight", "layers.0.weight", "norm.running_mean", "layers.1.running_mean", "gain"} < set(
        state
    )
    assert list(net.parameters()) == [
        "scale",
        "first.weight",
        "first.bias",
        "norm.weight",
        "norm.bias",
        "last.weight",
        "last.bias",
    ]
    other.load_state_dict(state)
    assert all_bytes(other) == all_bytes(net)
    np.testing.assert_array_equal(other(X), net(X))


@pytest.mark.parametrize(
    "names", [("first.", "norm.", "last.", "scale"), ("layers.", "gain"), ("layers.", "scale")]
)
def test_one_name_of_each_array_is_enough(names):
    net, other = Shared(), Shared(seed=1)
    state = {name: array for name, array in net.state_dict().items() if name.startswith(names)}
    other.load_state_dict(state)
    assert all_bytes(other) == all_bytes(net)
    gone = next(name for name in state if name.endswith("running_var"))
    for wrong in ({**state, "layers.7.weight": np.zeros(4)}, {k: v for k, v in state.items() if k != gone}):
        with pytest.raises(ValueError, match=r"layers\.7|norm\.running_var"):
            other.load_state_dict(wrong)
    with pytest.raises(ValueError, match=r"layers\.0\.weight"):
        other.load_state_dict({"layers.0.weight": np.zeros(3)}, strict=False)


@pytest.mark.parametrize("pattern", ["first.*", "layers.0.*", "*s.0.*"])
def test_patterns_match_any_name(pattern):
    net = Shared()
    frozen = {"first.weight", "first.bias"}
    net.freeze(pattern)
    assert {name for name, p in net.named_parameters() if not p.requires_grad} == frozen
    net.freeze()
    net.unfreeze(pattern)
    assert {name for name, p in net.named_parameters() if p.requires_grad} == frozen
    with pytest.raises(ValueError, match="matches a parameter"):
        net.freeze("layers.3.*")


def test_early_stopping_and_checkpoint_of_shared_modules(tmp_path):
    net = Shared()
    folder = str(tmp_path / "{epoch}.npz")
    keep = gv.callbacks.Checkpoint(folder)
    stop = gv.callbacks.EarlyStopping(
        "loss", mode="max", patience=2
    )  # the loss falls: the first epoch is best
    trainer = gv.Trainer(net, nn.MSELoss(), gv.optim.SGD(lr=0.01), seed=0)
    trainer.fit(X, X, epochs=9, batch_size=9, callbacks=[keep, stop])
    assert stop.stopped and len(keep.saved) == 3
    other = Shared(seed=1)
    other.load_state_dict(dict(np.load(keep.saved[0])))
    assert all_bytes(other) == all_bytes(net)


def test_group_of_an_optimiser_matches_any_name():
    net, other = Shared(), Shared()
    kept = net.first.state_dict()
    for part, match in ((net, "layers.0.*"), (other, "first.*")):
        step = gv.TrainStep(
            part, nn.MSELoss(), gv.optim.SGD(lr=0.1, groups=[{"match": match, "lr_scale": 0.0}])
        )
        step(X, X)
    assert all_bytes(other) == all_bytes(net)
    for name, array in net.first.state_dict().items():
        np.testing.assert_array_equal(array, kept[name])
    with pytest.raises(ValueError, match=r"groups\[0\].*first\.weight"):
        gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.1, groups=[{"match": "layers.3.*"}]))


# ---- read-only memory ---------------------------------------------------------------------------


def read_only(net):
    """Return the net as a pickle of protocol 5 brings it back from memory that cannot be written."""
    buffers = []
    data = pickle.dumps(net, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])


def test_net_unpickled_from_read_only_memory_works():
    net = net_of()
    step = gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.1))
    step(X, X)
    twin = read_only(net)
    assert all(a.flags.writeable for a in (*twin.parameters().values(), *twin.buffers().values()))
    np.testing.assert_array_equal(twin(X), net(X))
    for one in (net, twin):
        gv.TrainStep(one, nn.MSELoss(), gv.optim.SGD(lr=0.1))(X, X)
    assert all_bytes(twin) == all_bytes(net)
    np.testing.assert_array_equal(twin(X), net(X))
    assert all_bytes(read_only(net).reset_parameters(3)) == all_bytes(net.reset_parameters(3))


def test_net_of_a_joblib_file_mapped_read_only_works(tmp_path):
    joblib = pytest.importorskip("joblib")
    net = net_of()
    joblib.dump(net, tmp_path / "net.joblib")
    twin = joblib.load(tmp_path / "net.joblib", mmap_mode="r")
    assert type(twin.buffers()["1.running_mean"]) is np.ndarray
    for one in (net, twin):
        gv.TrainStep(one, nn.MSELoss(), gv.optim.SGD(lr=0.1))(X, X)
    assert all_bytes(twin) == all_bytes(net)
    np.testing.assert_array_equal(twin(X), net(X))

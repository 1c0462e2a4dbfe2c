"""Modules as Python objects: names, views, copies, dtypes, structure, and inference.

What forward may and may not do is in test_nn_forward.py, gradients are in test_gradients.py.
"""

import copy
import pickle

import numpy as np
import pytest

import gvcore as gv
import oracles
from gvcore import nn


class Named(nn.Module):
    """Modules, a list, a parameter of its own, and a container, in an order that is not alphabetical."""

    def __init__(self):
        self.stem = nn.Linear(4, 6)
        self.scale = nn.Parameter(np.ones(6, np.float32))
        self.blocks = nn.ModuleList(nn.Residual(nn.BatchNorm(6), nn.Linear(6, 6)) for _ in range(2))
        self.head = nn.Sequential(nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3, bias=False))

    def forward(self, x):
        x = self.stem(x) * self.scale
        for block in self.blocks:
            x = block(x)
        return self.head(x)


NAMES = [
    "scale",
    "stem.weight",
    "stem.bias",
    "blocks.0.layers.0.weight",
    "blocks.0.layers.0.bias",
    "blocks.0.layers.1.weight",
    "blocks.0.layers.1.bias",
    "blocks.1.layers.0.weight",
    "blocks.1.layers.0.bias",
    "blocks.1.layers.1.weight",
    "blocks.1.layers.1.bias",
    "head.0.weight",
    "head.0.bias",
    "head.2.weight",
]
BUFFERS = [f"blocks.{i}.layers.0.{kind}" for i in (0, 1) for kind in ("running_mean", "running_var")]


def named(seed=0, dtype=np.float32):
    net = Named().astype(dtype).reset_parameters(seed)
    random = np.random.default_rng(seed)
    for array in (*net.parameters().values(), *net.buffers().values()):
        array += random.uniform(0, 0.2, array.shape).astype(dtype)
    return net


def rows(n=7, features=4, dtype=np.float32, seed=0):
    return np.random.default_rng([n, seed]).normal(size=(n, features)).astype(dtype)


def all_bytes(net):
    return {name: array.tobytes() for name, array in net.state_dict().items()}


def train(net, steps=3, seed=0):
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1, momentum=0.9), seed=seed)
    return [step(rows(9, seed=i), np.arange(9) % 3) for i in range(steps)]


# ---- names and views ----------------------------------------------------------------------------


def test_names_are_those_of_pytorch():
    net = Named()
    assert list(net.parameters()) == NAMES
    assert list(net.buffers()) == BUFFERS
    assert set(net.state_dict()) == {*NAMES, *BUFFERS}
    assert net.parameters()["stem.weight"].shape == (6, 4)
    _, gradients = gv.value_and_grad(net, nn.CrossEntropyLoss())(rows(9), np.arange(9) % 3)
    assert list(gradients) == NAMES


def test_names_of_residual_and_sequential():
    net = nn.Sequential(
        nn.Linear(2, 3),
        nn.BatchNorm(3),
        nn.ReLU(),
        nn.Residual(nn.Linear(3, 3), nn.Tanh(), shortcut=nn.Linear(3, 3, bias=False), activation=nn.ReLU()),
        nn.BatchNorm(3, affine=False),
    )
    assert list(net.parameters()) == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "3.layers.0.weight",
        "3.layers.0.bias",
        "3.shortcut.weight",
    ]
    assert list(net.buffers()) == ["1.running_mean", "1.running_var", "4.running_mean", "4.running_var"]
    assert "1.running_mean" in net.state_dict() and "1.num_batches_tracked" not in net.state_dict()
    assert list(nn.Linear(2, 3).parameters()) == ["weight", "bias"]


@pytest.mark.parametrize("seen", ["fresh", "after inference", "after training"])
def test_parameters_and_buffers_are_views(seen):
    net = named()
    x = rows()
    if seen == "after inference":
        net(x)
    elif seen == "after training":
        train(net)
    for name, array in {**net.parameters(), **net.buffers()}.items():
        before = net(x)
        again = {**net.parameters(), **net.buffers()}[name]
        assert np.shares_memory(array, again) and array.flags.writeable
        array += np.float32(0.25)
        assert not np.array_equal(net(x), before), name
        array -= np.float32(0.25)
    assert net(x).dtype == np.float32


def test_views_of_a_part_are_views_of_the_whole():
    net = named()
    x = rows()
    before = net(x)
    net.stem.parameters()["bias"][...] += 1
    assert not np.array_equal(net(x), before)
    assert np.shares_memory(net.stem.parameters()["bias"], net.parameters()["stem.bias"])
    inner = net.blocks[1].parameters()["layers.1.weight"]
    assert np.shares_memory(inner, net.parameters()["blocks.1.layers.1.weight"])


def test_num_parameters():
    assert Named().num_parameters() == (4 * 6 + 6) + 6 + 2 * (12 + 42) + 12 + 18
    assert nn.Sequential(nn.ReLU()).num_parameters() == 0
    assert gv.models.tabular_resnet(8, 1).num_parameters() == 510_040
    assert gv.models.tabular_resnet(8, 1, seed=0).num_parameters() == sum(
        array.size for array in gv.models.tabular_resnet(8, 1, seed=0).parameters().values()
    )


# ---- state_dict ---------------------------------------------------------------------------------


def test_state_dict_is_a_copy_and_comes_back():
    net = named()
    saved = net.state_dict()
    before = all_bytes(net)
    for array in saved.values():
        array += 1
    assert all_bytes(net) == before
    other = named(seed=1)
    x = rows()
    assert not np.array_equal(other(x), net(x))
    other.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(other(x), net(x))
    assert all_bytes(other) == before
    assert train(net) == train(other)


def test_load_state_dict_writes_into_the_views():
    net = named()
    views = net.parameters()
    net.load_state_dict(named(seed=1).state_dict())
    for name, array in named(seed=1).parameters().items():
        np.testing.assert_array_equal(views[name], array)


def test_load_state_dict_copies_what_it_is_given():
    net, state = named(), named(seed=1).state_dict()
    net.load_state_dict(state)
    before = all_bytes(net)
    for array in state.values():
        array[...] = 0
    assert all_bytes(net) == before


def without(name):
    return lambda state: state.pop(name)


def with_value(name, change):
    return lambda state: state.update({name: change(state.get(name))})


WRONG = {
    "missing parameter": (without("head.0.bias"), "head.0.bias"),
    "missing buffer": (without("blocks.1.layers.0.running_var"), "running_var"),
    "unknown name": (with_value("head.1.weight", lambda _: np.zeros(6)), "head.1.weight"),
    "other shape": (with_value("head.2.weight", lambda v: v[:, :5]), "head.2.weight"),
    "transposed": (with_value("stem.weight", np.transpose), "stem.weight"),
    "another axis": (with_value("head.2.weight", lambda v: v[None]), "head.2.weight"),
    "a number": (with_value("head.0.bias", lambda _: 0.0), "head.0.bias"),
    "buffer of other shape": (with_value("blocks.1.layers.0.running_mean", lambda v: v[:2]), "running_mean"),
}


@pytest.mark.parametrize("case", WRONG)
def test_load_state_dict_that_does_not_fit_writes_nothing(case):
    change, named_in_message = WRONG[case]
    net, state = named(), named(seed=1).state_dict()
    change(state)
    before = all_bytes(net)
    with pytest.raises(ValueError, match=named_in_message):
        net.load_state_dict(state)
    assert all_bytes(net) == before


@pytest.mark.parametrize("value", ["text", np.zeros(6, complex), np.array([None] * 6), ["a"] * 6], ids=repr)
def test_load_state_dict_of_another_kind_writes_nothing(value):
    net, state = named(), named(seed=1).state_dict()
    state["head.0.bias"] = value
    before = all_bytes(net)
    with pytest.raises((TypeError, ValueError), match=r"head\.0\.bias"):
        net.load_state_dict(state)
    with pytest.raises(TypeError):
        net.load_state_dict([("stem.weight", np.zeros((6, 4)))])
    assert all_bytes(net) == before


def test_load_state_dict_that_is_not_strict():
    net, state = named(), named(seed=1).state_dict()
    kept = net.state_dict()
    del state["scale"], state["blocks.0.layers.0.running_mean"]
    state["nothing"] = np.zeros(3)
    net.load_state_dict(state, strict=False)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, state.get(name, kept[name]))
    state["head.2.weight"] = np.zeros((3, 5))
    before = all_bytes(net)
    with pytest.raises(ValueError, match=r"head\.2\.weight"):
        net.load_state_dict(state, strict=False)
    assert all_bytes(net) == before


def test_load_state_dict_ignores_num_batches_tracked_and_converts():
    net, state = named(), named(seed=1, dtype=np.float64).state_dict()
    for i in (0, 1):
        state[f"blocks.{i}.layers.0.num_batches_tracked"] = np.array(7)
    net.load_state_dict(state)
    assert net.dtype == np.float32
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, state[name].astype(np.float32))
    assert not any("num_batches" in name for name in net.state_dict())


# ---- copies -------------------------------------------------------------------------------------

COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "pickle protocol 2": lambda net: pickle.loads(pickle.dumps(net, protocol=2)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("seen", ["fresh", "used"])
@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_the_same_and_independent(kind, seen, dtype):
    net = named(dtype=dtype)
    if seen == "used":
        net(rows())
        train(net)
    net.freeze("head.*")
    twin = COPIES[kind](net)
    assert type(twin) is Named and twin.dtype == dtype
    assert all_bytes(net) == all_bytes(twin)
    np.testing.assert_array_equal(net(rows()), twin(rows()))
    for name, array in net.parameters().items():
        assert not np.shares_memory(array, twin.parameters()[name])
    kept = all_bytes(net)
    losses = train(twin)
    assert all_bytes(net) == kept
    changed = {name for name, value in all_bytes(twin).items() if value != kept[name]}
    assert changed == {*NAMES, *BUFFERS} - {name for name in NAMES if name.startswith("head.")}
    assert train(net) == losses
    assert all_bytes(net) == all_bytes(twin)


@pytest.mark.parametrize("kind", COPIES)
def test_copies_before_the_first_values_are_looked_at(kind):
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2, seed=3))
    twin = COPIES[kind](net)
    np.testing.assert_array_equal(net(rows()), twin(rows()))
    net.reset_parameters(5)
    twin.reset_parameters(5)
    np.testing.assert_array_equal(net(rows()), twin(rows()))


def test_copy_of_a_module_with_a_shared_part_shares_it_again():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    net.append(net[1])
    twin = copy.deepcopy(net)
    assert twin[1] is twin[2] and twin[1] is not net[1]
    np.testing.assert_array_equal(net(rows()), twin(rows()))


def test_shallow_copy():
    net = named()
    twin = copy.copy(net)
    np.testing.assert_array_equal(net(rows()), twin(rows()))
    twin.head = nn.Identity()
    assert twin(rows()).shape == (7, 6) and net(rows()).shape == (7, 3)
    twin.parameters()["stem.bias"][...] += 1
    np.testing.assert_array_equal(twin.parameters()["stem.bias"], net.parameters()["stem.bias"])


# ---- freezing, drawing, converting --------------------------------------------------------------


def trained(net):
    _, gradients = gv.value_and_grad(net, nn.CrossEntropyLoss())(rows(9), np.arange(9) % 3)
    return list(gradients)


def test_freeze_by_pattern():
    net = named()
    assert trained(net) == NAMES
    assert net.freeze("*.bias") is net
    assert trained(net) == [name for name in NAMES if not name.endswith(".bias")]
    net.freeze("blocks.0*")
    net.unfreeze("stem.*")
    assert trained(net) == [
        name
        for name in NAMES
        if name.startswith("stem") or not (name.endswith(".bias") or name.startswith("blocks.0"))
    ]
    assert net.unfreeze() is net
    assert trained(net) == NAMES
    with pytest.raises(ValueError, match="nothing"):
        net.freeze("nothing.*")
    with pytest.raises(TypeError):
        net.freeze(3)
    assert trained(net) == NAMES
    with pytest.raises(ValueError):
        net.freeze("STEM.*")


def test_freeze_does_not_change_what_comes_out():
    net = named()
    before = net(rows())
    net.freeze()
    np.testing.assert_array_equal(net(rows()), before)


def test_parameter_that_is_not_trained():
    net = named()
    net.scale = nn.Parameter(np.full(6, 2, np.float32), requires_grad=False)
    assert trained(net) == NAMES[1:]
    train(net)
    np.testing.assert_array_equal(net.parameters()["scale"], np.full(6, 2))
    assert "scale" in net.state_dict()


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_reset_parameters_is_reproducible(dtype):
    net, other = named(seed=1, dtype=dtype), named(seed=2, dtype=dtype)
    train(net)
    assert net.reset_parameters(5) is net
    other.reset_parameters(np.int64(5))
    assert all_bytes(net) == all_bytes(other)
    other.reset_parameters(6)
    assert all_bytes(net) != all_bytes(other)
    other.reset_parameters(np.random.SeedSequence(3))
    net.reset_parameters(np.random.SeedSequence(3))
    assert all_bytes(net) == all_bytes(other)
    net.reset_parameters()
    other.reset_parameters()
    assert all_bytes(net) != all_bytes(other)
    for name, array in net.buffers().items():
        np.testing.assert_array_equal(array, 0 if name.endswith("mean") else 1)
    for bad in (-1, 2**64):
        with pytest.raises(ValueError):
            net.reset_parameters(bad)
    for bad in (0.5, "1"):
        with pytest.raises(TypeError):
            net.reset_parameters(bad)


def test_reset_parameters_draws_in_name_order_and_in_place():
    small = nn.Sequential(nn.Linear(4, 6), nn.ReLU()).reset_parameters(5)
    large = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).reset_parameters(5)
    np.testing.assert_array_equal(small.parameters()["0.weight"], large.parameters()["0.weight"])
    views = large.parameters()
    before = views["2.weight"].copy()
    large.reset_parameters(6)
    assert not np.array_equal(views["2.weight"], before)
    assert np.shares_memory(views["2.weight"], large.parameters()["2.weight"])


def test_seed_of_a_layer_alone():
    assert all_bytes(nn.Linear(4, 6, seed=1)) == all_bytes(nn.Linear(4, 6, seed=1))
    assert all_bytes(nn.Linear(4, 6, seed=1)) != all_bytes(nn.Linear(4, 6, seed=2))
    assert all_bytes(nn.Linear(4, 6)) != all_bytes(nn.Linear(4, 6))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    nn.Linear(4, 6).parameters()
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


FOLLOWED = {
    "relu": (nn.ReLU, 2 / 300),
    "leaky relu": (nn.LeakyReLU, 2 / 300),
    "gelu": (nn.GELU, 2 / 300),
    "tanh": (nn.Tanh, 2 / 500),
    "sigmoid": (nn.Sigmoid, 2 / 500),
    "selu": (nn.SELU, 1 / 300),
    "batch norm and tanh": (lambda: nn.Sequential(nn.Tanh()), 2 / 300),  # nothing is known of a container
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_variance_of_the_default_suits_what_follows(name):
    layer, variance = FOLLOWED[name]
    for net in (
        nn.Sequential(nn.Linear(300, 200), layer()),
        nn.Sequential(nn.Linear(300, 200), nn.BatchNorm(200), nn.Dropout(0.1), layer()),
    ):
        net.reset_parameters(0)
        weight = net.parameters()["0.weight"].astype(np.float64)
        # Five standard errors of the mean of n squares of normal numbers.
        assert abs(np.mean(weight**2) / variance - 1) < 5 * (2 / weight.size) ** 0.5 * 1.5
        assert abs(weight.mean()) < 5 * (variance / weight.size) ** 0.5
        assert not net.parameters()["0.bias"].any()


@pytest.mark.parametrize(
    "name, variance",
    [
        ("kaiming_normal", 2 / 300),
        ("kaiming_uniform", 2 / 300),
        ("xavier_normal", 2 / 500),
        ("xavier_uniform", 2 / 500),
        ("lecun_normal", 1 / 300),
        ("orthogonal", 1 / 300),
        ("zeros", 0),
        ("ones", 1),
    ],
)
def test_variance_of_a_chosen_initialiser(name, variance):
    net = nn.Sequential(nn.Linear(300, 200, init=name), nn.Tanh()).reset_parameters(0)
    weight = net.parameters()["0.weight"].astype(np.float64)
    assert abs(np.mean(weight**2) - variance) <= 5 * (2 / weight.size) ** 0.5 * variance


def test_astype_both_ways():
    net = named()
    x = rows()
    single, views = net(x), net.parameters()
    kept = all_bytes(net)
    assert net.astype(np.float64) is net
    assert net.dtype == np.float64
    for name, array in {**net.parameters(), **net.buffers()}.items():
        assert array.dtype == np.float64
        np.testing.assert_array_equal(array.astype(np.float32).tobytes(), np.bytes_(kept[name]))
    double = net(x)
    assert double.dtype == np.float64
    np.testing.assert_allclose(double, single, rtol=1e-4, atol=1e-5)
    views["stem.bias"][...] = 7  # detached
    np.testing.assert_array_equal(net(x), double)
    net.astype("float32")
    assert all_bytes(net) == kept
    np.testing.assert_array_equal(net(x), single)
    train(net)
    for wrong in (np.float16, np.int32, complex, ">f8"):
        with pytest.raises(TypeError):
            net.astype(wrong)
    assert net.dtype == np.float32


# ---- inference ----------------------------------------------------------------------------------


def test_inference_is_what_the_layers_say():
    net = named(dtype=np.float64)
    x = rows(dtype=np.float64)
    p, b = net.parameters(), net.buffers()
    h = (x @ p["stem.weight"].T + p["stem.bias"]) * p["scale"]
    for i in (0, 1):
        at = f"blocks.{i}.layers"
        n = oracles.batch_norm_inference(
            h,
            b[f"{at}.0.running_mean"],
            b[f"{at}.0.running_var"],
            p[f"{at}.0.weight"],
            p[f"{at}.0.bias"],
        )
        h = h + n @ p[f"{at}.1.weight"].T + p[f"{at}.1.bias"]
    h = oracles.layer_norm(h, p["head.0.weight"], p["head.0.bias"])[0]
    np.testing.assert_allclose(net(x), np.maximum(h, 0) @ p["head.2.weight"].T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [2, 127, 128, 129, 1000, 20_001])
def test_inference_in_chunks_equals_row_by_row_to_the_bit(n):
    net = named()
    x = rows(n)
    y = net(x)
    assert y.shape == (n, 3) and y.flags.c_contiguous and y.flags.owndata
    for i in {0, 1, n // 2, n - 2, n - 1, *range(100, min(n, 140))}:
        np.testing.assert_array_equal(y[i : i + 1], net(x[i : i + 1]))
    np.testing.assert_array_equal(y[n // 3 :], net(x[n // 3 :]))


def test_inference_of_no_rows():
    assert named()(rows(0)).shape == (0, 3)
    assert named()(rows(0)).dtype == np.float32
    net = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm(2), nn.Softplus())
    assert net(np.empty((0, 5, 4))).shape == (0, 5, 2)


@pytest.mark.parametrize("net_dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(
    "dtype",
    [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int32, np.int64, np.uint64, bool, ">f8"],
)
def test_inputs_are_converted_to_the_dtype_of_the_net(dtype, net_dtype):
    net = named(dtype=net_dtype)
    x = (np.random.default_rng(0).uniform(0, 5, size=(7, 4))).astype(dtype)
    kept = x.copy()
    y = net(x)
    assert y.dtype == net_dtype
    np.testing.assert_array_equal(y, net(x.astype(net_dtype)))
    np.testing.assert_array_equal(x, kept)


def test_inputs_of_any_strides():
    net, x = named(), rows()
    for other in (
        np.asfortranarray(x),
        np.repeat(x, 3, axis=1)[:, ::3],
        x[::-1].copy()[::-1],
        np.broadcast_to(x[:1], x.shape),
        x.tolist(),
    ):
        np.testing.assert_array_equal(net(other), net(np.array(other, np.float32)))
    x.flags.writeable = False
    assert np.isfinite(net(x)).all()


@pytest.mark.parametrize(
    "x, error",
    [
        (np.zeros((7, 5)), ValueError),
        (np.zeros(4), ValueError),
        (np.zeros(()), ValueError),
        (np.zeros((7, 4), complex), TypeError),
        (np.zeros((7, 4), object), TypeError),
        (np.zeros((7, 4), str), TypeError),
        (np.zeros((7, 4), "datetime64[s]"), TypeError),
        (np.zeros((7, 4), np.longdouble), TypeError),
        (None, TypeError),
        ("text", TypeError),
    ],
    ids=lambda v: str(getattr(v, "dtype", v)),
)
def test_inputs_that_do_not_fit(x, error):
    net = named()
    with pytest.raises(error, match=r"expected"):
        net(x)
    assert net(rows()).shape == (7, 3)


def test_inference_changes_nothing_and_drops_nothing():
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm(8), nn.Dropout(0.9), nn.Linear(8, 2))
    before = all_bytes(net)
    np.testing.assert_array_equal(net(rows(50)), net(rows(50)))
    assert all_bytes(net) == before
    plain = nn.Sequential(net[0], net[1], net[3])
    np.testing.assert_array_equal(net(rows(50)), plain(rows(50)))


def test_numbers_that_are_not_finite_stay_in_their_rows():
    net = named()
    x = rows(20)
    good = net(x)
    x[3, 1], x[11, 0] = np.nan, np.inf
    y = net(x)
    assert np.isnan(y[3]).all() and not np.isfinite(y[11]).all()
    others = np.delete(np.arange(20), [3, 11])
    np.testing.assert_array_equal(y[others], good[others])


def test_what_comes_out_is_new_memory():
    net = nn.Sequential(nn.Identity())
    x = rows()
    y = net(x)
    assert not np.shares_memory(x, y)
    np.testing.assert_array_equal(x, y)
    first = named()
    y = first(x)
    kept = y.copy()
    first(rows(seed=1))
    np.testing.assert_array_equal(y, kept)

"""Training steps against PyTorch: the same weights, the same batches, the same numbers up to rounding.

Two float64 implementations of one formula differ by a few units in the last place of the largest element
for each layer that the numbers pass; float32 likewise. The bounds on gradients are those of the project.
"""

import numpy as np
import pytest

import gvcore as gv
from gvcore import nn

torch = pytest.importorskip("torch")

FEATURES, CLASSES = 10, 4
BOUND = {np.float32: 1e-5, np.float64: 1e-11}
each_dtype = pytest.mark.parametrize("dtype", BOUND, ids=["f32", "f64"])


@pytest.fixture(autouse=True, scope="module")
def one_thread_of_torch():
    """Small nets: its threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class TorchResidual(torch.nn.Module):
    """As gvcore.nn.Residual, with the same names."""

    def __init__(self, *layers, shortcut=None, activation=None):
        super().__init__()
        self.layers = torch.nn.Sequential(*layers)
        self.shortcut = shortcut
        self.activation = activation

    def forward(self, x):
        y = self.layers(x) + (x if self.shortcut is None else self.shortcut(x))
        return y if self.activation is None else self.activation(y)


class Kit:
    """The same names for the parts of both libraries, so that one function builds a net in both."""

    def __init__(self, library):
        ours = library is nn
        self.Sequential, self.Linear = library.Sequential, library.Linear
        self.BatchNorm = nn.BatchNorm if ours else torch.nn.BatchNorm1d
        self.Residual = nn.Residual if ours else TorchResidual
        for name in ("LayerNorm", "ReLU", "GELU", "SiLU", "Tanh", "LeakyReLU", "ELU", "Softplus", "Identity"):
            setattr(self, name, getattr(library, name))


def residual_net(kit, width=16, depth=20):
    """`depth` linear layers: one in, one out, the others in post-activation blocks of one."""
    blocks = [
        kit.Residual(kit.Linear(width, width, bias=False), kit.BatchNorm(width), kit.ReLU())
        for _ in range(depth - 2)
    ]
    return kit.Sequential(kit.Linear(FEATURES, width), *blocks, kit.Linear(width, CLASSES))


def pre_activation_net(kit, width=16, depth=20):
    blocks = [
        kit.Residual(
            kit.BatchNorm(width),
            kit.ReLU(),
            kit.Linear(width, width, bias=False),
            kit.BatchNorm(width),
            kit.ReLU(),
            kit.Linear(width, width, bias=False),
        )
        for _ in range((depth - 2) // 2)
    ]
    head = [kit.BatchNorm(width), kit.ReLU(), kit.Linear(width, CLASSES)]
    return kit.Sequential(kit.Linear(FEATURES, width, bias=False), *blocks, *head)


def projecting_net(kit):
    return kit.Sequential(
        kit.Residual(
            kit.Linear(FEATURES, 12, bias=False),
            kit.BatchNorm(12),
            kit.ReLU(),
            kit.Linear(12, 14, bias=False),
            kit.BatchNorm(14, eps=1e-3, momentum=0.3),
            shortcut=kit.Sequential(kit.Linear(FEATURES, 14, bias=False), kit.BatchNorm(14, affine=False)),
            activation=kit.ReLU(),
        ),
        kit.Residual(kit.Linear(14, 14), kit.Tanh(), shortcut=kit.Linear(14, 14)),
        kit.Linear(14, CLASSES),
    )


def layer_norm_net(kit):
    blocks = [
        kit.Residual(kit.LayerNorm(16), kit.Linear(16, 32), activation(), kit.Linear(32, 16))
        for activation in (kit.GELU, kit.SiLU, kit.Tanh, kit.LeakyReLU, kit.ELU, kit.Softplus)
    ]
    return kit.Sequential(
        kit.Linear(FEATURES, 16), *blocks, kit.LayerNorm(16, eps=1e-3), kit.Linear(16, CLASSES)
    )


NETS = {
    "residual": residual_net,
    "pre-activation": pre_activation_net,
    "projecting": projecting_net,
    "layer norm": layer_norm_net,
}


def pair(build, dtype, seed=0):
    """The net in both libraries with the same weights, none of them at a special value."""
    ours, theirs = build(Kit(nn)), build(Kit(torch.nn)).to(torch_dtype(dtype))
    ours.reset_parameters(seed).astype(dtype)
    random = np.random.default_rng(seed)
    for array in ours.parameters().values():
        if array.ndim == 1:
            array += random.normal(size=array.shape).astype(dtype) * dtype(0.2)
        else:
            array *= dtype(0.7)
    load(theirs, ours)
    return ours, theirs


def load(theirs, ours):
    state = {name: torch.tensor(array) for name, array in ours.state_dict().items()}
    missing, unknown = theirs.load_state_dict(state, strict=False)
    assert unknown == [] and all(name.endswith("num_batches_tracked") for name in missing)


def torch_dtype(dtype):
    return {np.float32: torch.float32, np.float64: torch.float64}[dtype]


def batch(dtype, rows=64, seed=0):
    random = np.random.default_rng([17, seed])
    return random.normal(size=(rows, FEATURES)).astype(dtype), random.integers(0, CLASSES, rows)


def tensors(*arrays):
    return tuple(torch.tensor(array) for array in arrays)


def torch_gradients(net, loss, x, y):
    net.train()
    net.zero_grad()
    value = loss(net(x), y)
    value.backward()
    return value.item(), {name: p.grad.numpy().copy() for name, p in net.named_parameters()}


def assert_close(ours, theirs, bound):
    """Each array within `bound` of its largest element."""
    assert set(ours) == set(theirs)
    for name, expected in theirs.items():
        expected = np.asarray(expected)
        assert ours[name].shape == expected.shape
        error = np.max(np.abs(ours[name].astype(np.float64) - expected)) / np.max(np.abs(expected))
        assert error < bound, f"{name}: {error:.2e}"


def running(theirs):
    return {name: b.numpy() for name, b in theirs.named_buffers() if "num_batches" not in name}


def weights(theirs):
    return {name: p.detach().numpy() for name, p in theirs.named_parameters()}


# ---- gradients ----------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("rows", [64, 200])
@pytest.mark.parametrize("name", NETS)
def test_first_step(name, rows, dtype):
    ours, theirs = pair(NETS[name], dtype)
    x, y = batch(dtype, rows)
    if dtype is np.float32:
        theirs.double()  # both in float32 would measure the rounding errors of the other as well
    expected, gradients = torch_gradients(
        theirs,
        torch.nn.CrossEntropyLoss(),
        torch.tensor(x).to(next(theirs.parameters()).dtype),
        torch.tensor(y),
    )
    loss, ours_gradients = gv.value_and_grad(ours, nn.CrossEntropyLoss())(x, y)
    assert abs(loss - expected) < BOUND[dtype] * expected
    assert_close(ours_gradients, gradients, BOUND[dtype])
    assert_close(ours.buffers(), running(theirs), BOUND[dtype])
    theirs.eval()
    with torch.no_grad():
        prediction = theirs(torch.tensor(x).to(next(theirs.parameters()).dtype)).numpy()
    assert_close({"y": ours(x)}, {"y": prediction}, 10 * BOUND[dtype])


def test_first_step_both_in_float32():
    ours, theirs = pair(residual_net, np.float32)
    x, y = batch(np.float32)
    expected, gradients = torch_gradients(theirs, torch.nn.CrossEntropyLoss(), *tensors(x, y))
    loss, ours_gradients = gv.value_and_grad(ours, nn.CrossEntropyLoss())(x, y)
    assert abs(loss - expected) < 1e-5 * expected
    assert_close(ours_gradients, gradients, 1e-5)
    assert_close(ours.buffers(), running(theirs), 1e-5)


def test_gradients_with_running_statistics():
    ours, theirs = pair(residual_net, np.float64)
    x, y = batch(np.float64)
    theirs.eval()
    value = torch.nn.CrossEntropyLoss()(theirs(torch.tensor(x)), torch.tensor(y))
    value.backward()
    loss, gradients = gv.value_and_grad(ours, nn.CrossEntropyLoss())(x, y, training=False)
    assert abs(loss - value.item()) < 1e-11 * loss
    assert_close(gradients, {name: p.grad.numpy() for name, p in theirs.named_parameters()}, 1e-11)


def test_sequences():
    """LayerNorm and Linear over the last of three axes; classes come second in PyTorch's loss."""
    ours, theirs = pair(layer_norm_net, np.float64)
    x, y = np.random.default_rng(0).normal(size=(6, 5, FEATURES)), np.arange(30).reshape(6, 5) % CLASSES
    value = torch.nn.CrossEntropyLoss()(theirs(torch.tensor(x)).transpose(1, 2), torch.tensor(y))
    value.backward()
    loss, gradients = gv.value_and_grad(ours, nn.CrossEntropyLoss())(x, y)
    assert abs(loss - value.item()) < 1e-11 * loss
    assert_close(gradients, {name: p.grad.numpy() for name, p in theirs.named_parameters()}, 1e-11)


WEIGHT = np.array([0.5, 2.0, 0.0, 1.25])
TARGETS = np.random.default_rng(8).uniform(size=(64, CLASSES))
PROBABILITIES = TARGETS / TARGETS.sum(axis=1, keepdims=True)
LOSSES = [
    ("MSELoss", "MSELoss", {}, TARGETS),
    ("L1Loss", "L1Loss", {}, TARGETS),
    ("HuberLoss", "HuberLoss", {}, TARGETS),
    ("HuberLoss", "HuberLoss", {"delta": 0.2}, TARGETS),
    ("BCEWithLogitsLoss", "BCEWithLogitsLoss", {}, TARGETS),
    ("BCEWithLogitsLoss", "BCEWithLogitsLoss", {"pos_weight": WEIGHT}, TARGETS),
    ("CrossEntropyLoss", "CrossEntropyLoss", {}, "labels"),
    ("CrossEntropyLoss", "CrossEntropyLoss", {"weight": WEIGHT}, "labels"),
    ("CrossEntropyLoss", "CrossEntropyLoss", {"label_smoothing": 0.3}, "labels"),
    ("CrossEntropyLoss", "CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.3}, "labels"),
    ("CrossEntropyLoss", "CrossEntropyLoss", {}, PROBABILITIES),
    ("CrossEntropyLoss", "CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.3}, PROBABILITIES),
]


@each_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("case", range(len(LOSSES)), ids=[f"{c[0]}-{'-'.join(c[2])}" for c in LOSSES])
def test_losses(case, reduction, dtype):
    name, torch_name, settings, target = LOSSES[case]
    ours, theirs = pair(projecting_net, dtype)
    x, y = batch(dtype)
    if not isinstance(target, str):
        y = target.astype(dtype)
    as_tensors = {
        key: torch.tensor(value, dtype=torch_dtype(dtype)) if isinstance(value, np.ndarray) else value
        for key, value in settings.items()
    }
    expected, gradients = torch_gradients(
        theirs, getattr(torch.nn, torch_name)(**as_tensors, reduction=reduction), *tensors(x, y)
    )
    loss, ours_gradients = gv.value_and_grad(ours, getattr(nn, name)(**settings, reduction=reduction))(x, y)
    assert abs(loss - expected) < BOUND[dtype] * abs(expected)
    assert_close(ours_gradients, gradients, BOUND[dtype])


# ---- fifty steps --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_losses_of_fifty_steps(name):
    ours, theirs = pair(NETS[name], np.float64)
    settings = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}
    step = gv.TrainStep(ours, nn.CrossEntropyLoss(), gv.optim.SGD(**settings))
    optimizer = torch.optim.SGD(theirs.parameters(), **settings)
    losses, expected = [], []
    for i in range(50):
        x, y = batch(np.float64, rows=48 + 8 * (i % 3), seed=i % 5)
        expected.append(torch_gradients(theirs, torch.nn.CrossEntropyLoss(), *tensors(x, y))[0])
        optimizer.step()
        losses.append(step(x, y))
    assert expected[-5] < 0.98 * expected[0]  # the first batch again: something has been learned
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert_close(ours.buffers(), running(theirs), 1e-9)
    assert_close(ours.parameters(), weights(theirs), 1e-9)


# ---- optimisers, step by step -------------------------------------------------------------------


def sgd(**settings):
    return gv.optim.SGD(lr=0.05, **settings), lambda p: torch.optim.SGD(p, lr=0.05, **settings)


def adam(**settings):
    return gv.optim.Adam(lr=0.01, **settings), lambda p: torch.optim.Adam(p, lr=0.01, **settings)


def adamw(**settings):
    return gv.optim.AdamW(lr=0.01, **settings), lambda p: torch.optim.AdamW(p, lr=0.01, **settings)


OPTIMISERS = [
    *[
        (sgd, {**momentum, **decay})
        for momentum in (
            {},
            {"momentum": 0.9},
            {"momentum": 0.9, "dampening": 0.3},
            {"momentum": 0.9, "dampening": 1.0},
            {"momentum": 0.9, "nesterov": True},
            {"dampening": 0.5},
        )
        for decay in ({}, {"weight_decay": 0.05})
    ],
    (adam, {}),
    (adam, {"weight_decay": 0.05}),
    (adam, {"betas": (0.8, 0.95), "eps": 1e-4}),
    (adam, {"betas": (0.0, 0.9)}),
    (adamw, {}),
    (adamw, {"weight_decay": 0.2}),
    (adamw, {"weight_decay": 0.0, "betas": (0.8, 0.95), "eps": 1e-4}),
]


def smooth_net(kit):
    """No batch norm: a weight before it has a gradient without the part along itself, and the rounding
    errors of a gradient that is nearly 0 are steps of full length to Adam."""
    return kit.Sequential(
        kit.Linear(FEATURES, 12),
        kit.Tanh(),
        kit.Residual(kit.Linear(12, 12), kit.SiLU()),
        kit.Linear(12, CLASSES),
    )


@each_dtype
@pytest.mark.parametrize("clip_norm", [None, 0.2], ids=["", "clipped"])
@pytest.mark.parametrize("case", range(len(OPTIMISERS)), ids=[f"{m.__name__}-{s}" for m, s in OPTIMISERS])
def test_optimiser_step_by_step(case, clip_norm, dtype):
    make, settings = OPTIMISERS[case]
    ours, theirs = pair(smooth_net, dtype)
    setting, optimizer_of = make(**settings)
    optimizer = optimizer_of(theirs.parameters())
    step = gv.TrainStep(ours, nn.CrossEntropyLoss(), setting, clip_norm=clip_norm)
    # PyTorch divides by norm + 1e-6 to clip; norms here are about 1.
    bound = {np.float32: 3e-5, np.float64: 1e-6 if clip_norm else 1e-11}[dtype]
    clipped = 0
    for i in range(10):
        x, y = batch(dtype, seed=i)
        expected, _ = torch_gradients(theirs, torch.nn.CrossEntropyLoss(), *tensors(x, y))
        if clip_norm:
            norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip_norm).item()
            clipped += norm > clip_norm
        optimizer.step()
        loss = step(x, y)
        assert abs(loss - expected) < bound * expected
        assert_close(ours.parameters(), weights(theirs), bound)
        if clip_norm:
            assert abs(step.gradient_norm - norm) < bound * norm
    assert clipped == (10 if clip_norm else 0)


@each_dtype
def test_state_of_the_optimiser(dtype):
    for (setting, optimizer_of), names in (
        (sgd(momentum=0.9, weight_decay=0.05), {"velocity": "momentum_buffer"}),
        (adam(), {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}),
    ):
        ours, theirs = pair(smooth_net, dtype)
        optimizer = optimizer_of(theirs.parameters())
        step = gv.TrainStep(ours, nn.CrossEntropyLoss(), setting)
        for i in range(5):
            x, y = batch(dtype, seed=i)
            torch_gradients(theirs, torch.nn.CrossEntropyLoss(), *tensors(x, y))
            optimizer.step()
            step(x, y)
        for our_name, their_name in names.items():
            expected = {n: optimizer.state[p][their_name].numpy() for n, p in theirs.named_parameters()}
            assert_close(step.state[our_name], expected, 10 * BOUND[dtype])


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_groups_of_parameters(name):
    ours, theirs = pair(smooth_net, np.float64)
    settings = {"lr": 0.02, **({"momentum": 0.9} if name == "SGD" else {"betas": (0.8, 0.9)})}
    groups = [
        {"match": "*", "weight_decay": 0.1},
        {"match": "*.bias", "weight_decay": 0.0},
        {"match": "2.*", "lr_scale": 0.2},
        {"match": "3.weight", "lr_scale": 3.0, "weight_decay": 0.3},
    ]
    setting = getattr(gv.optim, name)(**settings, groups=groups)
    optimizer = getattr(torch.optim, name)(
        [
            {
                "params": [p],
                "lr": 0.02 * (0.2 if key.startswith("2.") else 3.0 if key == "3.weight" else 1.0),
                "weight_decay": 0.0 if key.endswith("bias") else 0.3 if key == "3.weight" else 0.1,
            }
            for key, p in theirs.named_parameters()
        ],
        **settings,
    )
    step = gv.TrainStep(ours, nn.CrossEntropyLoss(), setting)
    for i in range(8):
        x, y = batch(np.float64, seed=i)
        torch_gradients(theirs, torch.nn.CrossEntropyLoss(), *tensors(x, y))
        optimizer.step()
        step(x, y)
        assert_close(ours.parameters(), weights(theirs), 1e-11)


@pytest.mark.parametrize("clip_norm", [None, 0.2], ids=["", "clipped"])
def test_accumulated_gradients(clip_norm):
    ours, theirs = pair(residual_net, np.float64)
    loss = torch.nn.CrossEntropyLoss()
    step = gv.TrainStep(ours, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.01, momentum=0.9), clip_norm=clip_norm)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9)
    bound = 1e-6 if clip_norm else 1e-10
    for update in range(3):
        optimizer.zero_grad()
        for i in range(3):
            x, y = batch(np.float64, rows=32 + i, seed=10 * update + i)
            value = loss(theirs(torch.tensor(x)), torch.tensor(y))
            value.backward()
            assert abs(step(x, y, accumulate=i < 2) - value.item()) < bound * value.item()
        if clip_norm:
            assert torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip_norm) > clip_norm
        optimizer.step()
        assert_close(ours.parameters(), weights(theirs), bound)
        assert_close(ours.buffers(), running(theirs), bound)


@pytest.mark.parametrize("make", [sgd, adamw])
def test_frozen_parameters(make):
    ours, theirs = pair(residual_net, np.float64)
    settings = {"momentum": 0.9} if make is sgd else {}
    setting, optimizer_of = make(**settings)
    optimizer = optimizer_of(theirs.parameters())
    step = gv.TrainStep(ours, nn.CrossEntropyLoss(), setting)
    for i in range(9):
        if i == 3:
            ours.freeze("[0-5].*")
        if i == 6:
            ours.unfreeze()
        for name, p in theirs.named_parameters():
            p.requires_grad_(not (3 <= i < 6 and name[:2] in {f"{k}." for k in range(6)}))
        optimizer.zero_grad(set_to_none=True)
        x, y = batch(np.float64, seed=i)
        value = torch.nn.CrossEntropyLoss()(theirs(torch.tensor(x)), torch.tensor(y))
        value.backward()
        optimizer.step()
        assert abs(step(x, y) - value.item()) < 1e-9 * value.item()
        assert_close(ours.parameters(), weights(theirs), 1e-8)


# ---- state_dict both ways -----------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("name", NETS)
def test_state_dict_of_torch_loads(name, dtype):
    theirs = NETS[name](Kit(torch.nn)).to(torch_dtype(dtype))
    for i in range(2):
        torch_gradients(theirs, torch.nn.CrossEntropyLoss(), *tensors(*batch(dtype, seed=i)))
    ours = NETS[name](Kit(nn)).astype(dtype)
    state = theirs.state_dict()
    assert name == "layer norm" or any(key.endswith("num_batches_tracked") for key in state)
    ours.load_state_dict(state)
    for key, array in ours.state_dict().items():
        np.testing.assert_array_equal(array, state[key].numpy())
    x, _ = batch(dtype)
    theirs.eval()
    with torch.no_grad():
        assert_close({"y": ours(x)}, {"y": theirs(torch.tensor(x)).numpy()}, 10 * BOUND[dtype])


@each_dtype
@pytest.mark.parametrize("name", NETS)
def test_state_dict_loads_into_torch(name, dtype):
    ours, _ = pair(NETS[name], dtype)
    gv.TrainStep(ours, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.01))(*batch(dtype))
    theirs = NETS[name](Kit(torch.nn)).to(torch_dtype(dtype))
    load(theirs, ours)
    assert [n for n, _ in theirs.named_parameters()] == list(ours.parameters())
    assert list(running(theirs)) == list(ours.buffers())
    assert list(ours.state_dict()) == [n for n in theirs.state_dict() if "num_batches" not in n]
    x, _ = batch(dtype)
    theirs.eval()
    with torch.no_grad():
        assert_close({"y": ours(x)}, {"y": theirs(torch.tensor(x)).numpy()}, 10 * BOUND[dtype])

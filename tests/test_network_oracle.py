"""A residual network with batch norm against the NumPy training step of oracles.py.

Two independent implementations of one model: the same loss, gradients, running statistics, velocity and
parameters, up to rounding. No statement about bits is made here.
"""

import numpy as np
import pytest

import gvcore as gv
from gvcore import nn
from oracles import gradient_error, residual_mlp_names, residual_mlp_step

FEATURES, CLASSES = 11, 4
# Rows that fill a block of 128 exactly, fall short of it and straddle it; widths around a vector's.
SIZES = [(6, 8, 3), (33, 17, 4), (128, 16, 3), (150, 24, 8)]
each_size = pytest.mark.parametrize("rows, width, depth", SIZES)
BOUND = {np.float32: 1e-5, np.float64: 1e-11}
each_dtype = pytest.mark.parametrize("dtype", BOUND, ids=["f32", "f64"])


def network(width, depth, dtype):
    blocks = [
        nn.Residual(nn.Linear(width, width, bias=False), nn.BatchNorm(width), nn.ReLU()) for _ in range(depth)
    ]
    net = nn.Sequential(nn.Linear(FEATURES, width), *blocks, nn.Linear(width, CLASSES))
    net.reset_parameters(1).astype(dtype)
    random = np.random.default_rng(2)
    for name, array in net.parameters().items():
        if array.ndim == 1:  # biases, gamma and beta start at 0 and 1, where mistakes may not show
            array += random.normal(size=array.shape).astype(dtype) * dtype(0.2)
        elif name not in ("0.weight", f"{depth + 1}.weight"):
            array *= dtype(0.7)
    return net


def batch(rows, dtype, seed=0):
    random = np.random.default_rng([3, seed])
    return random.normal(size=(rows, FEATURES)).astype(dtype), random.integers(0, CLASSES, rows)


def arrays(net):
    """Copies of the parameters, as the oracle wants them."""
    parameters = net.parameters()
    assert list(parameters) == residual_mlp_names((len(parameters) - 4) // 3)
    return [array.astype(np.float64) for array in parameters.values()]


def assert_close(ours, expected, bound):
    """Every array within `bound` of the largest element of what was expected."""
    assert list(ours) == list(expected)
    for name, array in expected.items():
        assert ours[name].shape == array.shape
        error = gradient_error(ours[name].astype(np.float64), array)
        assert error < bound, f"{name}: {error:.2e}"


@each_dtype
@each_size
def test_loss_gradients_and_statistics_of_the_first_step(rows, width, depth, dtype):
    net = network(width, depth, dtype)
    x, y = batch(rows, dtype)
    expected = residual_mlp_step(arrays(net), x.astype(np.float64), y)
    loss, gradients = gv.value_and_grad(net, nn.CrossEntropyLoss())(x, y)
    assert abs(loss - expected["loss"]) < BOUND[dtype] * expected["loss"]
    assert all(gradient.dtype == dtype for gradient in gradients.values())
    assert_close(gradients, expected["gradients"], BOUND[dtype])
    statistics = net.buffers()
    assert_close({name: statistics[name] for name in expected["running"]}, expected["running"], BOUND[dtype])
    assert len(statistics) == 2 * depth


@each_dtype
@each_size
def test_parameters_and_velocity_after_two_steps(rows, width, depth, dtype):
    net = network(width, depth, dtype)
    params, velocity, running = arrays(net), None, None
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2}
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(**settings))
    for i in range(2):
        x, y = batch(rows, dtype, seed=i)
        before = params
        expected = residual_mlp_step(
            params, x.astype(np.float64), y, velocity=velocity, running=running, **settings
        )
        loss = step(x, y)
        params, velocity = expected["params"], expected["velocity"]
        running = list(zip(*[iter(in_order(expected["running"], depth))] * 2, strict=True))
        assert abs(loss - expected["loss"]) < BOUND[dtype] * expected["loss"]
    names = residual_mlp_names(depth)
    moved = {name: b - a for name, a, b in zip(names, before, params, strict=True)}
    assert min(np.max(np.abs(change)) for change in moved.values()) > 1e-5
    assert_close(net.parameters(), dict(zip(names, params, strict=True)), BOUND[dtype])
    # Two steps of rounding in the gradients that make up the velocity, hence the factor.
    assert_close(step.state["velocity"], dict(zip(names, velocity, strict=True)), 4 * BOUND[dtype])
    assert_close(
        {name: net.buffers()[name] for name in expected["running"]}, expected["running"], BOUND[dtype]
    )


def in_order(running, depth):
    return [running[f"{i}.layers.1.running_{kind}"] for i in range(1, depth + 1) for kind in ("mean", "var")]


@pytest.mark.parametrize("rows, width, depth", [(24, 16, 6), (130, 12, 20)])
def test_losses_of_fifty_steps(rows, width, depth):
    net = network(width, depth, np.float64)
    params, velocity, running = arrays(net), None, None
    settings = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(**settings))
    ours, theirs = [], []
    for i in range(50):
        x, y = batch(rows, np.float64, seed=i % 5)
        expected = residual_mlp_step(params, x, y, velocity=velocity, running=running, **settings)
        params, velocity = expected["params"], expected["velocity"]
        running = list(zip(*[iter(in_order(expected["running"], depth))] * 2, strict=True))
        theirs.append(expected["loss"])
        ours.append(step(x, y))
    assert theirs[-1] < 0.9 * theirs[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    statistics = net.buffers()
    assert_close({name: statistics[name] for name in expected["running"]}, expected["running"], 1e-9)


def test_inference_uses_the_running_statistics():
    net = network(16, 3, np.float64)
    x, y = batch(40, np.float64)
    gv.value_and_grad(net, nn.CrossEntropyLoss())(x, y)
    p, b = net.parameters(), net.buffers()
    h = x @ p["0.weight"].T + p["0.bias"]
    for i in (1, 2, 3):
        z = h @ p[f"{i}.layers.0.weight"].T
        scaled = (z - b[f"{i}.layers.1.running_mean"]) / np.sqrt(b[f"{i}.layers.1.running_var"] + 1e-5)
        h = h + np.maximum(scaled * p[f"{i}.layers.1.weight"] + p[f"{i}.layers.1.bias"], 0)
    np.testing.assert_allclose(net(x), h @ p["4.weight"].T + p["4.bias"], rtol=1e-11, atol=1e-11)

"""The compiled plan refuses what its Python side never asks for: no mistake there may end the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gvcore.functional as F
from gvcore import _core, nn

X = np.ones((4, 3), np.float32)
Y = np.zeros((4, 2), np.float32)
LOSS = {"kind": "mse", "reduction": "mean", "weight": None}
RULE = {"kind": "sgd", "momentum": 0.9, "parameters": [(1.0, 0.0)]}
OPTIONS = {"training": True, "gradients": True, "update_inside": False, "fuse": True}


def linear() -> Any:
    graph = _core.Graph()
    weight, x = graph.parameter("weight", [2, 3], True), graph.input([3])
    graph.output(graph.linear(x, weight, -1))
    return graph


def plan(*, loss: Any = None, optimizer: Any = None, options: Any = OPTIONS) -> Any:
    return _core.PlanFloat32(linear(), options, loss, optimizer)


def bound(state: list[Any], updates: Any, **kwargs: Any) -> Any:
    made = plan(**kwargs)
    made.bind([np.ones((2, 3), np.float32)], [], state, updates)
    return made


def gradients_only() -> Any:
    request = _core.StepRequest()
    request.update = False
    return request


def trained() -> Any:
    return bound([], None, loss=LOSS)


def flat() -> Any:
    return np.zeros(plan().flat_size, np.float32)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "infer unbound": (lambda: plan().infer([X]), RuntimeError, "bound"),
    "step unbound": (
        lambda: plan(loss=LOSS).step([X], Y, None, None, gradients_only()),
        RuntimeError,
        "bound",
    ),
    "too few inputs": (lambda: trained().infer([]), ValueError, "1 inputs, got 0"),
    "a loss in forward": (lambda: trained().forward([X], None, gradients_only()), RuntimeError, "without a"),
    "no loss": (lambda: bound([], None).step([X], Y, None, None, gradients_only()), RuntimeError, "a loss"),
    "gradients before a step": (lambda: trained().gradients(), RuntimeError, "a step before gradients"),
    "taps before a step": (lambda: trained().taps(4), RuntimeError, "before taps"),
    "backward before forward": (lambda: trained().backward(Y, gradients_only()), RuntimeError, "a forward"),
    "no counts": (lambda: bound([flat()], None, optimizer=RULE), TypeError, "updates"),
    "no state": (lambda: bound([], np.zeros(1, np.int64), optimizer=RULE), ValueError, "states"),
    "too much state": (lambda: bound([flat()] * 3, None), ValueError, "states"),
    "rates in a list": (
        lambda: trained().steps(
            [X], Y, None, np.arange(4), np.array([0, 4]), [0.1], np.zeros(1), gradients_only(), 1.0
        ),
        TypeError,
        "rates",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    call, error, text = REFUSED[name]
    with pytest.raises(error, match=text):
        call()


def test_gradients_after_a_step() -> None:
    made = trained()
    made.step([X], Y, None, None, gradients_only())
    np.testing.assert_allclose(made.gradients()[0], np.full((2, 3), 3.0), rtol=1e-6)
    with pytest.raises(RuntimeError, match="so many rows"):
        made.taps(5)


def test_backward_belongs_to_the_last_forward() -> None:
    made = bound([], None)
    made.forward([X], None, gradients_only())
    made.backward(Y, gradients_only())
    with pytest.raises(RuntimeError, match="a forward before backward"):
        made.backward(Y, gradients_only())
    made.forward([X], None, gradients_only())
    with pytest.raises(RuntimeError, match="a loss"):
        made.step([X], Y, None, None, gradients_only())
    with pytest.raises(RuntimeError, match="a forward before backward"):
        made.backward(Y, gradients_only())


def test_inference_only_reads_the_net() -> None:
    made = plan(options={**OPTIONS, "training": False, "gradients": False})
    weight = np.ones((2, 3), np.float32)
    weight.flags.writeable = False
    made.bind([weight], [], [], None)
    np.testing.assert_array_equal(made.infer([X])[0], np.full((4, 2), 3.0))


def test_inference_only_reads_running_statistics() -> None:
    net = nn.BatchNorm(3)
    before = net(X)
    for buffer in net.buffers().values():
        buffer.flags.writeable = False
    fresh = nn.Sequential(net)
    np.testing.assert_array_equal(fresh(X), before)


@pytest.mark.parametrize("number", [-1, 7])
@pytest.mark.parametrize(
    "build",
    [
        lambda g, n: g.linear(n, 0, -1),
        lambda g, n: g.linear(0, n, -1),
        lambda g, n: g.matmul_parameter(0, n),
        lambda g, n: g.matmul(n, 0),
        lambda g, n: g.binary("add", 0, n),
        lambda g, n: g.affine(n, 1.0, 0.0),
        lambda g, n: g.with_parameter("add", 0, n, "add"),
        lambda g, n: g.activation(n, "relu", 0.0),
        lambda g, n: g.softmax(n, False),
        lambda g, n: g.batchnorm(0, -1, -1, n, n, 1e-5, 0.1),
        lambda g, n: g.layernorm(n, -1, -1, 1e-5),
        lambda g, n: g.dropout(n, 0.5),
        lambda g, n: g.reshape(n, [3]),
        lambda g, n: g.concatenate([0, n], 0),
        lambda g, n: g.output(n),
        lambda g, n: g.tap(n),
        lambda g, n: g.shape(n),
    ],
)
def test_numbers_of_another_graph_are_refused(build: Callable[[Any, int], Any], number: int) -> None:
    with pytest.raises(ValueError, match=r"expected the number of a \w+ of this graph, got"):
        build(linear(), number)


def test_values_larger_than_any_memory() -> None:
    """2^62 elements from factors without any: sizes in bytes would not fit an integer."""

    class Outer(nn.Module):
        def forward(self, a: Any, b: Any) -> Any:
            return F.matmul(F.matmul(a, b), a)

    tall, wide = np.ones((1, 2**31, 0), np.float32), np.ones((1, 0, 2**31), np.float32)
    with pytest.raises(MemoryError):
        Outer()(tall, wide)

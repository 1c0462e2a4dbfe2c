"""Very deep networks: they learn, their memory grows in a straight line, and nothing recurses.

No test here looks at the clock; speed by depth is measured by the benchmarks.
"""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gvcore as gv
from gvcore import _core, nn


def residual(depth: int, width: int) -> nn.Sequential:
    """Linear, depth times x + relu(batch_norm(linear(x))), linear."""
    layers = [
        nn.Residual(nn.Linear(width, width, bias=False), nn.BatchNorm(width), nn.ReLU()) for _ in range(depth)
    ]
    return nn.Sequential(nn.Linear(64, width), *layers, nn.Linear(width, 10)).reset_parameters(0)


def plain(depth: int, width: int) -> nn.Sequential:
    return gv.models.mlp(64, 10, [width] * depth, batch_norm=True, seed=0)


def preactivation(depth: int, width: int) -> nn.Sequential:
    """depth blocks of two layers each."""
    return gv.models.resnet(64, 10, width=width, depth=2 * depth + 2, seed=0)


def two_layers(depth: int, width: int) -> nn.Sequential:
    """depth blocks x + layer(layer(x)), a layer being linear, batch norm and ReLU."""

    def layer() -> list[nn.Module]:
        return [nn.Linear(width, width, bias=False), nn.BatchNorm(width), nn.ReLU()]

    blocks = [nn.Residual(*layer(), *layer()) for _ in range(depth)]
    return nn.Sequential(nn.Linear(64, width), *blocks, nn.Linear(width, 10)).reset_parameters(0)


def activated_sums(depth: int, width: int) -> nn.Sequential:
    """depth blocks of one layer with the ReLU after the sum, as in He et al. 2015."""
    blocks = [
        nn.Residual(nn.Linear(width, width, bias=False), nn.BatchNorm(width), activation=nn.ReLU())
        for _ in range(depth)
    ]
    return nn.Sequential(nn.Linear(64, width), *blocks, nn.Linear(width, 10)).reset_parameters(0)


def activated_sums_of_two(depth: int, width: int) -> nn.Sequential:
    """The same with two layers a block."""

    def layer() -> list[nn.Module]:
        return [nn.Linear(width, width, bias=False), nn.BatchNorm(width)]

    blocks = [nn.Residual(*layer(), nn.ReLU(), *layer(), activation=nn.ReLU()) for _ in range(depth)]
    return nn.Sequential(nn.Linear(64, width), *blocks, nn.Linear(width, 10)).reset_parameters(0)


def batch(rows: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 64)).astype(np.float32), rng.integers(0, 10, rows)


def arena_bytes(net: nn.Module, rows: int, *, stored: bool = False) -> int:
    """Memory of a step for activations and their gradients; with or without that of all gradients."""
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=1e-3, momentum=0.9))
    step(*batch(rows), accumulate=stored)
    (plan,) = step._plans._plans.values()
    return int(plan.core.arena_bytes)


def test_a_thousand_layers_learn() -> None:
    x, y = gv.datasets.digits()
    x, x_test, y, y_test = gv.train_test_split(x, y, test_size=0.2, seed=0, stratify=y)
    net = gv.models.resnet(64, 10, width=32, depth=1000, seed=0)
    assert sum(p.ndim == 2 for p in net.parameters().values()) == 1000
    optimizer = gv.optim.SGD(lr=gv.schedules.cosine(0.05), momentum=0.9, weight_decay=1e-4)
    trainer = gv.Trainer(net, nn.CrossEntropyLoss(), optimizer, seed=0)
    trainer.fit(x, y, epochs=40, batch_size=64)
    assert trainer.evaluate(x_test, y_test, metrics=["accuracy"])["accuracy"] >= 0.95


@pytest.mark.parametrize("build", [residual, plain, preactivation])
@pytest.mark.parametrize("rows", [32, 300])
@pytest.mark.parametrize("stored", [False, True])
def test_memory_grows_in_a_straight_line(build: Any, rows: int, stored: bool) -> None:
    """The same bytes for each further layer, at 50 layers as at 400."""
    sizes = {depth: arena_bytes(build(depth, 16), rows, stored=stored) for depth in (50, 100, 200, 400)}
    slopes = [(sizes[2 * d] - sizes[d]) / d for d in (50, 100, 200)]
    assert slopes[0] == slopes[1] == slopes[2] > 0


# Activations kept for the backward pass, in tensors (rows x width) for each batch norm.
@pytest.mark.parametrize(
    ("build", "norms", "kept"),
    [
        (plain, 1, 1.0),
        (preactivation, 2, 1.0),
        (residual, 1, 2.0),
        (two_layers, 2, 1.5),
        (activated_sums, 1, 2.0),
        (activated_sums_of_two, 2, 1.5),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_kept_for_the_backward_pass(
    build: Any, norms: int, kept: float, stored: bool, dtype: Any
) -> None:
    """What further layers add to the arena is at most 1.05 of the tensors that must be kept.

    All of the arena counts. The statistics of a batch norm (five rows of the net's dtype and two of float64)
    are 0.005 of a tensor at 2,048 rows, so a twentieth leaves no room for another tensor.
    """
    width, rows, depths = 32, 2048, (20, 40)
    shallow, deep = (arena_bytes(build(d, width).astype(dtype), rows, stored=stored) for d in depths)
    tensor = rows * width * np.dtype(dtype).itemsize
    assert 0 < (deep - shallow) / (depths[1] - depths[0]) / tensor / norms <= 1.05 * kept


@pytest.mark.parametrize(("panels", "beside"), [("rows", 2), ("columns", 3)])
def test_backward_takes_the_memory_of_what_it_is_done_with(panels: str, beside: int) -> None:
    """Beside what is kept it needs the gradients on both sides of a block, by columns one more.

    The gradient behind a batch norm takes the place of its input. Half a tensor is for the rest.
    """
    width, rows, depth = 256, 2048, 4
    _core.set_panels(panels)
    try:
        tensors = arena_bytes(residual(depth, width), rows) / (rows * width * 4)
    finally:
        _core.set_panels("automatic")
    assert 2 * depth < tensors < 2 * depth + beside + 0.5


@pytest.mark.parametrize("build", [residual, plain, preactivation])
def test_memory_of_inference_does_not_grow(build: Any) -> None:
    """Nothing is kept for later, so a deep net runs in the memory of a shallow one, statistics apart."""
    sizes = []
    for depth in (50, 100, 200):
        net = build(depth, 16)
        net(batch(200)[0])
        (plan,) = net._inference._plans.values()
        sizes.append(plan.core.arena_bytes)
    activation = 200 * 16 * 4
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0])
    assert (sizes[2] - sizes[1]) / 100 < 0.1 * activation


class Positions(nn.Module):
    """One layer for any number of positions."""

    def __init__(self) -> None:
        self.layer = nn.Linear(8, 8, seed=0)

    def forward(self, x: Any) -> Any:
        return self.layer(x)


def test_plans_of_shapes_that_never_end_are_dropped() -> None:
    """The last 64 stay, and one that is made again gives the same bits."""
    net, rng = Positions(), np.random.default_rng(0)
    inputs = [rng.normal(size=(2, n, 8)).astype(np.float32) for n in range(1, 101)]
    expected = [net(x) for x in inputs]
    kept = net._inference._plans
    assert list(kept) == [((n, 8),) for n in range(37, 101)]
    net(inputs[36])  # the oldest is now the newest
    np.testing.assert_array_equal(net(inputs[0]), expected[0])
    assert ((37, 8),) in kept and ((38, 8),) not in kept
    step = gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.1, momentum=0.9))
    for x in inputs[:70]:
        step(x, x)
    assert len(step._plans._plans) == 64 and step.updates == 70


def test_few_plans_stay_where_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Positions()
    net(np.ones((20, 1, 8)))
    kept = net._inference._plans
    monkeypatch.setattr(type(kept), "BYTES", 8 * 20 * 100 * 8 * 4)  # those of eight large plans
    for n in range(1, 20):
        net(np.ones((20, n, 8)))
    assert len(kept) == 19
    for n in range(100, 130):
        net(np.ones((20, n, 8)))
    assert list(kept) == [((n, 8),) for n in range(122, 130)]
    assert sum(plan.core.arena_bytes for plan in kept.values()) > kept.BYTES


class Loop(nn.Module):
    """A forward of its own: long chains of arithmetic between few layers, one value used all along."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.first, self.last = nn.Linear(64, 8, seed=0), nn.Linear(8, 10, seed=1)

    def forward(self, x: Any) -> Any:
        start = h = self.first(x)
        for _ in range(self.length):
            h = gv.functional.tanh(h * 0.5 + start)
        return self.last(h)


@pytest.mark.parametrize(
    "build",
    [lambda: residual(10_000, 8), lambda: preactivation(5_000, 8), lambda: Loop(10_000)],
    ids=["residual", "preactivation", "loop"],
)
def test_ten_thousand_layers(build: Any) -> None:
    assert sys.getrecursionlimit() <= 1000, "this test is to fail if something recurses by layer"
    net = build()
    x, y = batch(16)
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=1e-4, momentum=0.9), clip_norm=1.0)
    losses = [step(x, y) for _ in range(2)]
    assert np.isfinite(losses).all() and losses[0] != losses[1]
    assert net(x).shape == (16, 10)


def test_ten_thousand_layers_copy_pickle_and_load() -> None:
    net = residual(10_000, 4)
    x, _ = batch(3)
    expected = net(x)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(other(x), expected)
    other.reset_parameters(1).load_state_dict(net.state_dict())
    np.testing.assert_array_equal(other(x), expected)
    assert len(net.parameters()) == 30_004 and "(10001): Linear(4, 10)" in repr(net)


def python_calls(function: Callable[[], Any]) -> int:
    """How many functions and generators Python enters: a measure of work that no clock disturbs."""
    count = 0

    def tick(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(tick)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("what", ["build", "train", "infer"])
def test_work_in_python_grows_in_a_straight_line(what: str) -> None:
    """Building, tracing and planning take the same number of calls for each further layer."""
    x, y = batch(8)
    counts = []
    for depth in (100, 200, 400):
        net = residual(depth, 4)
        step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=1e-3))
        work = {"build": lambda: residual(depth, 4), "train": lambda: step(x, y), "infer": lambda: net(x)}  # noqa: B023
        counts.append(python_calls(work[what]))
    assert counts[2] - counts[1] <= 2.02 * (counts[1] - counts[0])


def test_a_second_step_does_the_same_little_in_python_at_any_depth() -> None:
    x, y = batch(8)
    counts = []
    for depth in (10, 400):
        step = gv.TrainStep(residual(depth, 4), nn.CrossEntropyLoss(), gv.optim.SGD(lr=1e-3))
        step(x, y)
        counts.append(python_calls(lambda: step(x, y)))  # noqa: B023
    assert counts[0] == counts[1]


def test_gradients_reach_the_first_of_a_thousand_layers() -> None:
    x, y = batch(32)
    _, gradients = gv.value_and_grad(preactivation(500, 16), nn.CrossEntropyLoss())(x, y)
    norms = [float(np.linalg.norm(g)) for g in gradients.values() if g.ndim == 2]
    assert len(norms) == 1002
    assert np.isfinite(norms).all() and min(norms) > 1e-3 * np.median(norms)

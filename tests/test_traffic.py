"""The plan's own account of the bytes that a step moves: right where it can be counted by hand, and
within what is promised for each layer.

One pass is batch x width elements, read once or written once. Nothing is measured here: the account
follows from what each step of the plan declares to touch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gvcore as gv
from gvcore import _core, nn
from gvcore.train.batch import as_batch
from gvcore.train.plans import Plans

WIDTH, ROWS = 128, 256
SGD = gv.optim.SGD(lr=1e-3, momentum=0.9)


@pytest.fixture(autouse=True)
def by_columns() -> Iterator[None]:
    _core.set_panels("columns")
    yield
    _core.set_panels("automatic")


def layer(width: int) -> list[nn.Module]:
    return [nn.Linear(width, width, bias=False), nn.BatchNorm(width), nn.ReLU()]


def plain(depth: int) -> list[nn.Module]:
    return [part for _ in range(depth) for part in layer(WIDTH)]


def residual(depth: int) -> list[nn.Module]:
    return [nn.Residual(*layer(WIDTH)) for _ in range(depth)]


def traffic(net: nn.Module, rows: int = ROWS, *, stored: bool = False) -> Any:
    """The account of a training step that updates inside, or that stores all gradients."""
    rng = np.random.default_rng(0)
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), SGD)
    step(rng.normal(size=(rows, 64)), rng.integers(0, 10, rows), accumulate=stored)
    (plan,) = step._plans._plans.values()
    return plan.core.traffic()


def total(account: Any, kind: str) -> int:
    return sum(sum(entry[kind]) for entry in account)


def passes_per_layer(
    build: Callable[[int], list[nn.Module]], dtype: Any = np.float32, stored: bool = False
) -> float:
    """What further layers add, so that the first, the last and the loss do not count."""
    depths, moved = (8, 16), []
    for depth in depths:
        net = nn.Sequential(nn.Linear(64, WIDTH), *build(depth), nn.Linear(WIDTH, 10))
        account = traffic(net.reset_parameters(0).astype(dtype), stored=stored)
        moved.append(total(account, "activations"))
    one_pass = ROWS * WIDTH * np.dtype(dtype).itemsize
    return (moved[1] - moved[0]) / (depths[1] - depths[0]) / one_pass


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("build", "most"), [(plain, 9), (residual, 12)])
def test_passes_over_the_activations(build: Any, most: int, dtype: Any, stored: bool) -> None:
    # Each of a layer's three products touches two activations: fewer than six would be a wrong account.
    assert 6 <= passes_per_layer(build, dtype, stored) <= most


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(("build", "most"), [(plain, 10.25), (residual, 12)])
def test_passes_by_rows(build: Any, most: float, stored: bool) -> None:
    """One more than by columns, for a batch norm is applied after all workers have met, and the sums of the
    blocks of rows (a quarter)."""
    _core.set_panels("rows")
    assert 9 < passes_per_layer(build, stored=stored) <= most


@pytest.mark.parametrize(("build", "most"), [(plain, 9), (residual, 12)])
def test_step_by_step_it_would_be_more(build: Any, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is promised is owed to fusing: the bound above is one that can be broken."""
    monkeypatch.setattr(Plans, "fused", False)
    assert passes_per_layer(build) > most + 3


# ---- the account itself --------------------------------------------------------------------------


def inference(net: nn.Module, rows: int, features: int) -> Any:
    net(np.ones((rows, features)))
    (plan,) = net._inference._plans.values()
    return plan.core.traffic()


def test_a_linear_layer_counted_by_hand() -> None:
    """The input is loaded; the product reads it, the weight and the bias, and writes the result."""
    rows, inputs, outputs = 128, 48, 80
    load, product = inference(nn.Linear(inputs, outputs, seed=0), rows, inputs)
    x, y = 4 * rows * inputs, 4 * rows * outputs
    assert load == {"steps": ["LoadInput"], "activations": (0, x), "parameters": (0, 0), "rest": (0, 0)}
    parameters = 4 * (inputs * outputs + outputs)
    assert product == {
        "steps": ["Product"],
        "activations": (x, y),
        "parameters": (parameters, 0),
        "rest": (0, 0),
    }


def test_a_group_counted_by_hand() -> None:
    """What lies between product, batch norm and ReLU never leaves the cache; in inference nobody wants it."""
    rows, width = 128, 64
    net = nn.Sequential(nn.Linear(width, width, bias=False), nn.BatchNorm(width), nn.ReLU(), nn.Tanh())
    _, group = inference(net.reset_parameters(0), rows, width)
    assert group["steps"] == ["Product", "BatchNorm", "ActivationForward"]
    assert group["activations"] == (4 * rows * width, 4 * rows * width)
    assert group["parameters"] == (4 * (width * width + 2 * width), 0)
    assert group["rest"] == (4 * 2 * width, 0)


class Gate(nn.Module):
    """x is wanted panel by panel, and then in full by a product of the same group."""

    def __init__(self, width: int) -> None:
        self.linear = nn.Linear(width, width, bias=False)

    def forward(self, x: Any) -> Any:
        return gv.functional.tanh(x) * self.linear(x)


@pytest.mark.parametrize(
    ("build", "steps"),
    [
        (lambda width: nn.Residual(*layer(width)), ["Product", "BatchNorm"]),
        (Gate, ["ActivationForward", "Product", "Binary"]),
    ],
)
def test_an_operand_is_read_besides_its_panel(build: Any, steps: list[str]) -> None:
    """The product goes through all of x for each panel; the panel itself is wanted once more."""
    rows, width = 128, 64
    _, group = inference(build(width).reset_parameters(0), rows, width)
    assert group["steps"] == steps
    assert group["activations"] == (2 * 4 * rows * width, 4 * rows * width)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    ("optimizer", "states"),
    [(gv.optim.SGD(lr=0.1), 0), (gv.optim.SGD(lr=0.1, momentum=0.9), 1), (gv.optim.AdamW(lr=0.1), 2)],
)
def test_parameters_counted_by_hand(optimizer: Any, states: int, stored: bool) -> None:
    """Forward reads them, the update reads and writes them and the optimiser's state; a gradient that is
    stored is written and read."""
    rows, inputs, outputs = 32, 48, 80
    step = gv.TrainStep(nn.Linear(inputs, outputs, seed=0), nn.MSELoss(), optimizer)
    step.clip_norm = 1e30 if stored else None
    step(np.ones((rows, inputs)), np.zeros((rows, outputs)))
    (plan,) = step._plans._plans.values()
    account = plan.core.traffic()
    size = 4 * (inputs * outputs + outputs)
    read, written = (sum(entry["parameters"][i] for entry in account) for i in (0, 1))
    assert read == size * (1 + (1 + states) + stored)
    assert written == size * ((1 + states) + stored)
    assert [entry["steps"] for entry in account if entry["steps"] == ["Update"]] == [["Update"]] * stored


def test_it_grows_with_the_batch_and_only_where_it_should() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 32), *layer(32), nn.Linear(32, 10)).reset_parameters(0)

    small, large = (traffic(build(), rows) for rows in (100, 300))
    assert total(large, "activations") == 3 * total(small, "activations")
    for kind in ("parameters", "rest"):
        assert [entry[kind] for entry in large] == [entry[kind] for entry in small]


def test_it_is_that_of_the_largest_batch_so_far() -> None:
    net = nn.Linear(8, 4, seed=0)
    step = gv.TrainStep(net, nn.MSELoss(), SGD)
    accounts = []
    for rows in (64, 10):
        step(np.ones((rows, 8)), np.ones((rows, 4)))
        (plan,) = step._plans._plans.values()
        accounts.append(plan.core.traffic())
    assert accounts[0] == accounts[1]


def test_before_the_first_step_there_is_none() -> None:
    net = nn.Linear(2, 2, seed=0)
    step = gv.TrainStep(net, nn.MSELoss(), SGD)
    batch = as_batch("test", np.ones((3, 2)), np.ones((3, 2)), np.dtype(np.float32), step.loss)
    plan = step._plans.get(batch, training=True, stored=False)
    with pytest.raises(RuntimeError, match=r"^\[plan\] expected a step before its traffic is asked for"):
        plan.core.traffic()

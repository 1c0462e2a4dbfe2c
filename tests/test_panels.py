"""Plans that go by rows instead of by columns: the same bits, and when they are chosen.

A plan is for one order of its panels at a time; `set_panels` forces it, so that the small cases of
test_same_bits.py go by rows, too. There a plan of their size goes by columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gvcore as gv
from functional_cases import ISAS
from gvcore import _core, nn
from gvcore.train.plans import Plans
from test_same_bits import CASES, Record, arrays, assert_same, evaluate, names, train

SGD = gv.optim.SGD(lr=0.05, momentum=0.9, weight_decay=1e-4)


pytestmark = pytest.mark.usefixtures("deals_everything")


@pytest.fixture(autouse=True)
def chooses_by_itself_again() -> Iterator[None]:
    yield
    _core.set_panels("automatic")


def plan_of(step: gv.TrainStep) -> Any:
    (plan,) = step._plans._plans.values()
    return plan.core


# ---- the same bits ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_columns() -> dict[str, Record]:
    return {}


@names
@pytest.mark.parametrize("threads", [1, 2, 7, 16])
def test_rows_and_columns_give_the_same_bits(name: str, threads: int, by_columns: dict[str, Record]) -> None:
    if name not in by_columns:
        _core.set_panels("columns")
        with gv.threads(1):
            by_columns[name], step = train(CASES[name])
            assert not plan_of(step).by_rows
    _core.set_panels("rows")
    with gv.threads(threads):
        record, step = train(CASES[name])
    assert_same(record, by_columns[name], f"by rows, {threads} threads")
    # In float64 a batch norm reads its input a third time, which only columns do.
    norms = any("running_mean" in key for key in step.net.buffers())
    assert plan_of(step).by_rows == (CASES[name].dtype is np.float32 or not norms)


@names
def test_inference_and_gradients_by_rows(name: str) -> None:
    _core.set_panels("columns")
    with gv.threads(1):
        expected = evaluate(CASES[name])
    _core.set_panels("rows")
    for isa in ISAS:
        with gv.threads(3), gv.isa(isa):
            assert_same(evaluate(CASES[name]), expected, f"by rows, {isa}")


def residual_net(width: int, *, depth: int = 3, norm: bool = True) -> nn.Sequential:
    def block() -> nn.Residual:
        parts = [nn.Linear(width, width, bias=not norm), *([nn.BatchNorm(width)] if norm else []), nn.ReLU()]
        return nn.Residual(*parts)

    net = nn.Sequential(nn.Linear(21, width), *[block() for _ in range(depth)], nn.Linear(width, 3))
    return net.reset_parameters(2)


def batch(rows: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(rows)
    return rng.standard_normal((rows, 21)).astype(np.float32), rng.integers(0, 3, rows)


@pytest.mark.parametrize("rows", [127, 128, 129, 255, 256, 257, 1152, 1500])
@pytest.mark.parametrize("checkpoint_every", [None, 2])
def test_blocks_of_rows_and_their_edges(rows: int, checkpoint_every: int | None) -> None:
    """A block of the sums has 128 rows, a worker several blocks, a panel one or more of them."""
    found = {}
    for kind, threads in [("columns", 1), ("rows", 1), ("rows", 2), ("rows", 5)]:
        _core.set_panels(kind)
        with gv.threads(threads):
            net = residual_net(70)
            step = gv.TrainStep(net, nn.CrossEntropyLoss(), SGD, checkpoint_every=checkpoint_every)
            losses = [step(*batch(rows)) for _ in range(3)]
            assert plan_of(step).by_rows == (kind == "rows")
        found[kind, threads] = arrays("parameter", net.parameters()) | {"losses": np.array(losses).tobytes()}
    expected = found.pop(("columns", 1))
    for where, record in found.items():
        assert_same(record, expected, f"{where}, {rows} rows")


@pytest.mark.parametrize("rows", [256, 700])
def test_a_bias_before_a_batch_norm(rows: int) -> None:
    """The bias's sums need all rows, the batch norm's below go by blocks of them: not in one group."""

    def run(kind: str, threads: int) -> Record:
        _core.set_panels(kind)
        parts = [nn.Linear(21, 64), nn.BatchNorm(64), nn.ReLU(), nn.Linear(64, 64)]
        net = nn.Sequential(*parts).reset_parameters(3)
        x, _ = batch(rows)
        with gv.threads(threads):
            step = gv.TrainStep(net, nn.MSELoss(), SGD)
            for _ in range(3):
                step(x, np.repeat(x, 4, axis=1)[:, :64])
        steps = [entry["steps"] for entry in plan_of(step).traffic()]
        assert not any("ColumnSums" in s and "BatchNormGradientSums" in s for s in steps)
        return arrays("parameter", net.parameters()) | arrays("buffer", net.buffers())

    expected = run("columns", 1)
    for threads in (1, 2, 5):
        assert_same(run("rows", threads), expected, f"{threads} threads")


def test_threads_may_change_between_forward_and_backward() -> None:
    """A loss in Python comes in between: the backward needs what the forward has left in the plan."""

    def losses(changes: bool) -> tuple[list[float], Record]:
        def loss(prediction: Any, target: Any) -> tuple[float, Any]:
            if changes:
                gv.set_num_threads(4 - gv.get_num_threads())  # 3 threads: 5 blocks go by columns
            error = prediction - target
            return float((error * error).mean()), (2 * error / error.size).astype(error.dtype)

        net = residual_net(256)
        x, _ = batch(600)
        step = gv.TrainStep(net, loss, SGD)
        with gv.threads(1):
            found = [step(x, x[:, :3]) for _ in range(4)]
        return found, arrays("parameter", net.parameters()) | arrays("buffer", net.buffers())

    assert losses(True) == losses(False)


# ---- which of the two ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "norm", "threads", "rows", "expected"),
    [
        (64, True, 1, 511, False),
        (256, True, 1, 512, True),
        (64, True, 1, 1024, False),  # 256 KiB: it is all in cache anyway
        (64, False, 1, 2048, True),
        (64, True, 2, 128, False),
        (64, True, 2, 256, True),
        (64, True, 2, 300, False),  # one worker would get two blocks, the other one
        (64, True, 2, 500, True),
        (64, True, 16, 1024, False),
        (600, True, 2, 256, False),  # to pack all weights twice would cost more
        (64, False, 2, 191, False),
        (64, False, 2, 192, True),
    ],
)
def test_a_plan_goes_by_rows_where_that_is_faster(
    width: int, norm: bool, threads: int, rows: int, expected: bool
) -> None:
    with gv.threads(threads):
        step = gv.TrainStep(residual_net(width, depth=1, norm=norm), nn.CrossEntropyLoss(), SGD)
        step(*batch(rows))
        assert plan_of(step).by_rows == expected


def test_a_plan_may_change_with_the_batch_and_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger batch, other threads, a gradient accumulated on the way: the bits are those of one plan."""
    changes = [(1, 40), (2, 40), (2, 256), (2, 40), (1, 256), (2, 700), (3, 700), (1, 12)]

    def losses(fused: bool) -> tuple[list[float], list[bool], Record]:
        monkeypatch.setattr(Plans, "fused", fused)
        net = residual_net(64)
        step = gv.TrainStep(net, nn.CrossEntropyLoss(), SGD, clip_norm=1.0)
        result, kinds = [], []
        for i, (threads, rows) in enumerate(changes):
            with gv.threads(threads if fused else 1):
                result.append(step(*batch(rows), accumulate=i in (2, 3)))
            kinds.append(plan_of(step).by_rows)
        return result, kinds, arrays("parameter", net.parameters()) | arrays("buffer", net.buffers())

    got, kinds, record = losses(fused=True)
    expected, never, expected_record = losses(fused=False)
    assert True in kinds and False in kinds[kinds.index(True) :] and not any(never)
    assert got == expected
    assert_same(record, expected_record, "changing plans")


def test_only_known_kinds_can_be_forced() -> None:
    with pytest.raises(ValueError, match="set_panels"):
        _core.set_panels("diagonals")
    assert _core.panels() == "automatic"

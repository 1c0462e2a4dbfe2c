"""Recomputation of activations: the same bits as without it, in the memory that the docstring promises.

The cases of test_same_bits.py (every op, optimiser, loss, dtype, ragged batches), nets made here for the
places where a net may be cut, and random graphs; each trains with and without `checkpoint_every`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gvcore as gv
import gvcore.functional as F
from functional_cases import ISAS
from gvcore import nn
from gvcore.train.plans import Plans
from test_same_bits import CASES, Case, Record, arrays, assert_same, labels, train
from train_step_cases import OPTIMISERS, batch, make_net, state
from train_step_cases import assert_same as assert_same_state

pytestmark = pytest.mark.usefixtures("deals_everything")

EVERY = [1, 2, 3, 7, 1_000, 10**30]

# ---- nets ---------------------------------------------------------------------------------------


def residual(depth: int, width: int) -> nn.Sequential:
    """Blocks of one layer, activated behind the norm."""
    blocks = [nn.Residual(nn.Linear(width, width), nn.BatchNorm(width), nn.ReLU()) for _ in range(depth)]
    return nn.Sequential(nn.Linear(64, width), *blocks, nn.Linear(width, 10)).reset_parameters(0)


def plain(depth: int, width: int) -> nn.Sequential:
    return gv.models.mlp(64, 10, [width] * depth, batch_norm=True, seed=0)


def smooth(depth: int, width: int) -> nn.Sequential:
    """Without batch norm a layer keeps two values: what the activation reads and what it gives."""
    return gv.models.mlp(64, 10, [width] * depth, activation="tanh", seed=0)


def preactivation(depth: int, width: int) -> nn.Sequential:
    """Blocks of two layers."""
    return gv.models.resnet(64, 10, width=width, depth=depth + 2, seed=0)


def projections(depth: int, width: int) -> nn.Sequential:
    """Blocks of two layers whose shortcuts are layers too, activated behind the sum (He et al. 2015)."""
    blocks: list[nn.Module] = []
    for i in range(depth):
        a, b = (width, width + 3)[:: 1 if i % 2 == 0 else -1]
        layers = nn.Linear(a, b, bias=False), nn.BatchNorm(b), nn.ReLU(), nn.Linear(b, b), nn.BatchNorm(b)
        blocks.append(nn.Residual(*layers, shortcut=nn.Linear(a, b, bias=False), activation=nn.ReLU()))
    return nn.Sequential(nn.Linear(64, width), *blocks, nn.LayerNorm(width), nn.Linear(width, 10))


class Loop(nn.Module):
    """Two values are alive everywhere, so that no place is crossed by one."""

    def __init__(self, depth: int, width: int) -> None:
        self.first, self.last = nn.Linear(64, width), nn.Linear(width, 10)
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Any) -> Any:
        start = h = self.first(x)
        for layer in self.layers:
            h = self.drop(F.tanh(layer(h) + start))
        return self.last(h)


class Towers(nn.Module):
    """Two stacks beside each other, with norms over rows and columns, joined at the end."""

    def __init__(self, depth: int, width: int) -> None:
        def tower(norm: Callable[[int], nn.Module]) -> nn.Sequential:
            layers = [m for _ in range(depth) for m in (nn.Linear(width, width), norm(width), nn.SiLU())]
            return nn.Sequential(nn.Linear(64, width), *layers)

        self.left, self.right = tower(nn.LayerNorm), tower(nn.BatchNorm)
        self.last = nn.Linear(2 * width, 10)

    def forward(self, x: Any) -> Any:
        return self.last(F.concatenate([self.left(x), self.right(x)], axis=-1))


NETS: dict[str, Callable[[int, int], nn.Module]] = {
    "residual": residual,
    "plain": plain,
    "smooth": smooth,
    "preactivation": preactivation,
    "projections": projections,
    "loop": Loop,
    "towers": Towers,
}
DEEP = {
    f"{kind}, {name}": Case(
        lambda build=build: build(8, 17),
        (64,),
        10,
        labels,
        nn.CrossEntropyLoss(),
        OPTIMISERS[kind],
        steps=6,
        dtype=dtype,
    )
    for name, build in NETS.items()
    for kind, dtype in [("momentum", np.float32), ("adamw", np.float64)]
}
ALL = {**CASES, **DEEP}
names = pytest.mark.parametrize("name", ALL)


def plan_of(step: gv.TrainStep) -> Any:
    (plan,) = step._plans._plans.values()
    return plan.core


@pytest.fixture(scope="module")
def reference() -> Callable[[str], Record]:
    """What a case leaves that keeps everything, with one thread on the best instruction set."""
    kept: dict[str, Record] = {}

    def of(name: str) -> Record:
        if name not in kept:
            with gv.threads(1), gv.isa(ISAS[0]):
                kept[name], _ = train(ALL[name])
        return kept[name]

    return of


# ---- the same bits ------------------------------------------------------------------------------


@names
@pytest.mark.parametrize(
    ("isa", "threads"), [*((ISAS[0], n) for n in (1, 2, 3)), *((isa, n) for isa in ISAS[1:] for n in (1, 3))]
)
def test_the_bits_of_keeping_everything(
    name: str, isa: str, threads: int, reference: Callable[[str], Record]
) -> None:
    """Parameters, running statistics, the optimiser's state and every loss."""
    for every in EVERY if isa == ISAS[0] else EVERY[:4]:
        with gv.isa(isa), gv.threads(threads):
            record, step = train(ALL[name], checkpoint_every=every)
            assert step.workers == threads
        assert_same(record, reference(name), f"every {every}, {isa}, {threads} threads")


@names
@pytest.mark.parametrize("every", [1, 2, 3])
def test_unfused(
    name: str, every: int, reference: Callable[[str], Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plans, "fused", False)
    record, _ = train(ALL[name], checkpoint_every=every)
    assert_same(record, reference(name), f"unfused, every {every}")


@pytest.mark.parametrize("name", [name for name, case in ALL.items() if case.clip_norm is None])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_stored_gradients(name: str, every: int, reference: Callable[[str], Record]) -> None:
    """A bound that the norm never reaches needs the whole gradient, and changes nothing."""
    record, _ = train(ALL[name], clip_norm=1e30, checkpoint_every=every)
    assert_same(record, reference(name), f"stored gradients, every {every}")


@names
def test_value_and_grad(name: str) -> None:
    """With the statistics of the batch and with the running ones, which count the batch once."""
    case = ALL[name]
    expected: Record = {}
    for every in (None, 1, 2, 3):
        net = case.net().reset_parameters(5).astype(case.dtype)
        function = gv.value_and_grad(net, case.loss, checkpoint_every=every)
        record: Record = {}
        for i, data in enumerate(case.batches()[:3]):
            for training in (True, False):
                value, found = function(data["x"], data["y"], training=training, seed=i)
                record |= arrays(f"gradient {training} {i}", {**found, "loss": np.array(value)})
        record |= arrays("buffer", net.buffers())
        expected = expected or record
        assert_same(record, expected, f"every {every}")


class Random(nn.Module):
    """Any graph: each step takes what it needs from what there is, recent values more often."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        length = int(rng.integers(10, 60))
        self.plan = [(int(rng.integers(11)), rng.geometric(0.4, 2).tolist()) for _ in range(length)]
        self.linear = nn.ModuleList([nn.Linear(7, 7, bias=what % 3 > 0) for what, _ in self.plan])
        self.batch_norm = nn.ModuleList([nn.BatchNorm(7) for _ in self.plan])
        self.layer_norm = nn.ModuleList([nn.LayerNorm(7) for _ in self.plan])
        self.drop = nn.ModuleList([nn.Dropout(0.3) for _ in self.plan])
        for i in range(length):
            setattr(self, f"scale{i}", nn.Parameter(np.linspace(0.5, 1.5, 7, dtype=np.float32)))

    def forward(self, x: Any) -> Any:
        values = [x]
        for i, (what, back) in enumerate(self.plan):
            a, b = (values[max(0, len(values) - n)] for n in back)
            values.append(self.step(i, what, a, b))
        return values[-1] + 0.25 * values[len(values) // 2]

    def step(self, i: int, what: int, a: Any, b: Any) -> Any:
        if what == 0:
            return F.relu(self.batch_norm[i](self.linear[i](a)))
        if what == 1:
            return b + F.relu(self.batch_norm[i](a))
        if what == 2:
            return a + self.batch_norm[i](self.linear[i](b))
        if what == 3:
            return self.layer_norm[i](a)
        if what == 4:
            return self.drop[i](F.tanh(a))
        if what == 5:
            return a * F.sigmoid(b)
        if what == 6:
            return F.softmax(a) * getattr(self, f"scale{i}")
        if what == 7:
            square = F.matmul(F.reshape(F.tanh(a), (7, 1)), F.reshape(F.tanh(b), (1, 7)))
            return F.reshape(F.matmul(square, F.reshape(F.tanh(a), (7, 1))), (-1,))
        if what == 8:
            return a - 0.5 * b
        return self.linear[i](a)


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs(seed: int) -> None:
    rng = np.random.default_rng([3, seed])
    x, y = rng.normal(size=(9, 7)).astype(np.float32), rng.integers(0, 7, 9)
    expected: Record = {}
    for every in (None, 1, 2, 3, 5):
        net = Random(seed).reset_parameters(seed)
        step = gv.TrainStep(
            net, nn.CrossEntropyLoss(), OPTIMISERS["momentum"], seed=1, checkpoint_every=every
        )
        with gv.threads(1 + seed % 2):
            record = arrays("loss", {"": np.array([step(x, y) for _ in range(3)])})
        record |= arrays("parameter", net.parameters()) | arrays("buffer", net.buffers())
        expected = expected or record
        assert_same(record, expected, f"every {every}")


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_trainer_hands_it_on(accumulate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = gv.datasets.digits()
    plans = []
    get = Plans.get
    monkeypatch.setattr(Plans, "get", lambda *args, **kw: plans.append(get(*args, **kw)) or plans[-1])
    results = []
    for every in (None, 3):
        plans.clear()
        net = preactivation(10, 16)
        trainer = gv.Trainer(net, nn.CrossEntropyLoss(), OPTIMISERS["adamw"], seed=0, checkpoint_every=every)
        trainer.fit(x[:300], y[:300], epochs=2, batch_size=64, accumulate=accumulate, validation=0.2)
        assert trainer.step.checkpoint_every == every
        size = max(plan.core.arena_bytes for plan in plans)
        results.append((trainer.history.step, arrays("", net.state_dict()), size))
    assert results[0][:2] == results[1][:2]
    assert 0 < results[1][2] < 0.75 * results[0][2]


def test_it_may_change_between_steps() -> None:
    """A plan for each is made; none is mistaken for another."""
    runs = []
    for change in (False, True):
        net = plain(12, 16)
        step = gv.TrainStep(net, nn.CrossEntropyLoss(), OPTIMISERS["momentum"])
        random = np.random.default_rng(0)
        for i in range(8):
            step.checkpoint_every = [None, 2, 5][i % 3] if change else None
            step(random.normal(size=(20, 64)), random.integers(0, 10, 20))
        runs.append(state(net, step))
        assert len({plan.core.arena_bytes for plan in step._plans._plans.values()}) == (3 if change else 1)
    assert_same_state(*runs)


# ---- memory -------------------------------------------------------------------------------------


def digits(rows: int) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    return random.normal(size=(rows, 64)).astype(np.float32), random.integers(0, 10, rows)


def arena_bytes(net: nn.Module, rows: int, every: int | None) -> int:
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=1e-3), checkpoint_every=every)
    step(*digits(rows))
    return int(plan_of(step).arena_bytes)


# Values (rows x width) that a layer keeps for its own backward; layers that a block holds.
STACKS = {"plain": (1, 1), "smooth": (2, 1), "residual": (2, 1), "preactivation": (1, 2)}


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("every", [2, 4, 8, 16, 32])
def test_memory(name: str, every: int) -> None:
    """Of depth layers: one value for each segment, and those of one segment; 6 for x, gradients and the like.

    Rows added to the batch show it apart from what does not depend on them: statistics of the columns.
    """
    depth, width, rows = 128, 64, (512, 1024)
    each, block = STACKS[name]
    sizes = {(k, r): arena_bytes(NETS[name](depth, width), r, k) for k in (None, every) for r in rows}
    values, whole = (
        (sizes[k, rows[1]] - sizes[k, rows[0]]) / ((rows[1] - rows[0]) * width * 4) for k in (every, None)
    )
    assert whole >= each * depth
    assert values <= depth / every + each * max(every, block) + 6


@pytest.mark.parametrize("name", ["loop", "towers"])
def test_memory_where_more_than_one_value_crosses(name: str) -> None:
    depth, width, rows = 128, 64, 512
    net = NETS[name](depth, width)
    assert arena_bytes(net, rows, 12) < 0.3 * arena_bytes(net, rows, None)


def test_memory_of_a_segment_of_everything() -> None:
    """Nothing is computed again where there is one segment: the plan is the same."""
    net = preactivation(20, 16)
    x, y = digits(50)
    plans = []
    for every in (None, 22, 1_000):
        step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=1e-3), checkpoint_every=every)
        step(x, y)
        plans.append((plan_of(step).instructions, plan_of(step).barriers, plan_of(step).arena_bytes))
    assert plans[0] == plans[1] == plans[2]


@pytest.mark.parametrize(
    ("build", "every", "again"),
    [
        # Layer 20 is the cut: before it are 19 products and 19 activations.
        (lambda: gv.models.mlp(64, 10, [16] * 39, activation="tanh"), 20, 38),
        # A layer and 10 blocks of 7 steps, whose last sum is the cut; the product before it is in the sum.
        (lambda: preactivation(40, 16), 21, 69),
        # Of 72 layers, 4 steps each; the cuts are the products 20 and 40 and the last sum, where one value
        # crosses. Neither they are computed again nor the first value, which all segments use.
        (lambda: Loop(70, 16), 20, (18 * 4) + (3 + 19 * 4) + (3 + 30 * 4)),
    ],
    ids=["plain", "preactivation", "loop"],
)
def test_what_is_computed_again(
    build: Callable[[], nn.Module], every: int, again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All segments but the last, as far as their backward wants it: no value at a cut, nothing behind it."""
    monkeypatch.setattr(Plans, "fused", False)  # an instruction for each step
    counts = []
    for k in (None, every):
        step = gv.TrainStep(build(), nn.CrossEntropyLoss(), gv.optim.SGD(lr=1e-3), checkpoint_every=k)
        step(*digits(9))
        counts.append(plan_of(step).instructions)
    assert counts[1] - counts[0] == again


@pytest.mark.parametrize("name", NETS)
def test_plans_grow_in_a_straight_line(name: str) -> None:
    """The same bytes and instructions for each further segment."""
    found = []
    for depth in (64, 128, 256):
        step = gv.TrainStep(
            NETS[name](depth, 8), nn.CrossEntropyLoss(), gv.optim.SGD(lr=1e-3), checkpoint_every=4
        )
        step(*digits(16))
        found.append((plan_of(step).instructions, plan_of(step).arena_bytes))
    steps, sizes = zip(*found, strict=True)
    assert 0 < steps[2] - steps[1] == 2 * (steps[1] - steps[0])
    # Values of two sizes leave gaps where one has made way for the other.
    assert 0 < sizes[2] - sizes[1] <= (2.02 if name == "projections" else 2) * (sizes[1] - sizes[0])


def test_ten_thousand_layers() -> None:
    x, y = digits(64)
    found = []
    for every in (None, 100):
        net = residual(10_000, 8)
        optimizer = gv.optim.SGD(lr=1e-4, momentum=0.9)
        step = gv.TrainStep(net, nn.CrossEntropyLoss(), optimizer, checkpoint_every=every)
        losses = [step(x, y) for _ in range(2)]
        assert np.isfinite(losses).all() and losses[0] != losses[1]
        found.append((losses, arrays("", net.state_dict()), plan_of(step).arena_bytes))
    assert found[0][:2] == found[1][:2]
    assert found[1][2] < found[0][2] / 8


# ---- what goes wrong ----------------------------------------------------------------------------


class Moody:
    """A loss written in Python that can go wrong between forward and backward."""

    mood = "good"

    def __call__(self, prediction: Any, target: Any) -> tuple[float, Any]:
        if self.mood == "raises":
            raise RuntimeError("no loss today")
        loss, gradient = F.cross_entropy(prediction, target)
        if self.mood == "loss is not finite":
            return float("inf"), gradient
        return loss, gradient * (np.inf if self.mood == "gradient is not finite" else 1.0)


@pytest.mark.parametrize("optimizer", OPTIMISERS)
@pytest.mark.parametrize("mood", ["input", "raises", "loss is not finite", "gradient is not finite"])
def test_a_step_that_fails_leaves_everything(optimizer: str, mood: str) -> None:
    """Nothing was written, and the next step is the one that would have come without it."""
    clip_norm = 1.0 if mood == "gradient is not finite" else None
    nets = [make_net(), make_net()]
    moody = Moody()
    losses = [nn.CrossEntropyLoss() if mood == "input" else loss for loss in (moody, Moody())]
    step, other = (
        gv.TrainStep(net, loss, OPTIMISERS[optimizer], seed=1, clip_norm=clip_norm, checkpoint_every=every)
        for net, loss, every in zip(nets, losses, (1, None), strict=True)
    )
    x, y = batch()
    for i in range(3):
        before = state(nets[0], step)
        bad = np.full_like(x, np.inf) if mood == "input" else x
        moody.mood = mood
        with pytest.raises((FloatingPointError, RuntimeError), match="no loss today|expected a finite"):
            step(bad, y)
        moody.mood = "good"
        assert_same_state(before, state(nets[0], step))
        assert step(*batch(seed=i)) == other(*batch(seed=i))
        assert_same_state(state(nets[1], other), state(nets[0], step))


MAKERS: dict[str, Callable[[Any], Any]] = {
    "TrainStep": lambda every: gv.TrainStep(
        make_net(), nn.MSELoss(), OPTIMISERS["sgd"], checkpoint_every=every
    ),
    "Trainer": lambda every: gv.Trainer(make_net(), nn.MSELoss(), OPTIMISERS["sgd"], checkpoint_every=every),
    "value_and_grad": lambda every: gv.value_and_grad(make_net(), nn.MSELoss(), checkpoint_every=every),
}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0, ValueError, "0"),
        (-3, ValueError, "-3"),
        (2.0, TypeError, r"2\.0"),
        ("2", TypeError, "'2'"),
        (True, TypeError, "True"),
    ],
)
def test_what_is_no_number_of_layers(make: str, value: Any, error: type[Exception], text: str) -> None:
    op = "value_and_grad" if make == "value_and_grad" else "TrainStep"
    wanted = rf"^\[{op}\] expected checkpoint_every to be a positive integer or None, got {text}$"
    with pytest.raises(error, match=wanted):
        MAKERS[make](value)
    if make == "TrainStep":
        step = MAKERS[make](5)
        with pytest.raises(error, match=wanted):
            step.checkpoint_every = value
        assert step.checkpoint_every == 5


@pytest.mark.parametrize("value", [None, 1, np.int64(3), 10**30])
def test_what_is_a_number_of_layers(value: Any) -> None:
    for make in MAKERS.values():
        make(value)

"""The same seed gives the same bits: on every number of threads and instruction set, fused or not.

Each case trains a small net for some steps and keeps everything that training leaves behind. Widths
are odd, the last batch of a pass is ragged, and large batches span several blocks of the sums. The
work of a step this small is dealt to threads only because `deals_everything` lowers the threshold.
test_same_bits_functional.py does the same for the stateless kernels, test_threads.py has what
surrounds a step: forks, several callers, more threads than processors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import gvcore as gv
import gvcore.functional as F
from functional_cases import ISAS
from gvcore import _core, nn
from gvcore.train.plans import Plans

pytestmark = pytest.mark.usefixtures("deals_everything")

THREADS = [1, 2, 3, 4, 5, 7, 8, 11, 16]
Record = dict[str, bytes]


# ---- nets ---------------------------------------------------------------------------------------


class Gated(nn.Module):
    """What no ready-made net has: parameters in forward, a value used five times, joined axes."""

    def __init__(self) -> None:
        self.enter = nn.Linear(17, 33)
        self.gate = nn.Linear(33, 33, bias=False)
        self.norm = nn.LayerNorm(33)
        self.mix = nn.Parameter(shape=(33, 15), init=nn.init.xavier_normal())
        self.scale = nn.Parameter(np.linspace(0.5, 1.5, 33, dtype=np.float32))
        self.shift = nn.Parameter(np.linspace(-0.1, 0.1, 33, dtype=np.float32))
        self.leave = nn.Linear(63, 3)

    def forward(self, x: Any) -> Any:
        h = F.silu(self.enter(x))
        g = self.norm(h * F.sigmoid(self.gate(h)) + h * 0.5 - h)
        g = g * self.scale + self.shift
        mixed = F.softmax(F.matmul(g, self.mix))
        wide = F.reshape(F.concatenate([h, mixed, F.log_softmax(mixed)], axis=-1), (-1,))
        return self.leave(wide)


def smooth() -> nn.Module:
    return nn.Sequential(
        nn.Linear(100, 45),
        nn.LayerNorm(45),
        nn.GELU(),
        nn.Linear(45, 33),
        nn.Tanh(),
        nn.Residual(nn.Linear(33, 17), nn.ELU(), nn.Dropout(0.3), nn.Linear(17, 33)),
        nn.Softplus(),
        nn.Linear(33, 17),
        nn.SELU(),
        nn.Linear(17, 3),
        nn.Sigmoid(),
        nn.Linear(3, 3),
    )


def narrow() -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 17, bias=False),
        nn.BatchNorm(17),
        nn.LeakyReLU(0.2),
        nn.Linear(17, 1),
        nn.BatchNorm(1),
        nn.SiLU(),
        nn.Residual(nn.Linear(1, 1), nn.GELU(approximate="tanh")),
        nn.Linear(1, 3),
    )


def axes() -> nn.Module:
    """Rows are (batch, 5): linear layers and batch norm run over both leading axes."""
    return nn.Sequential(
        nn.Linear(7, 33), nn.BatchNorm(33), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(165, 3)
    )


def projections() -> nn.Module:
    """Blocks that change the width: the sum's other side is a product and a batch norm of its own."""

    def block(inputs: int, outputs: int) -> nn.Module:
        shortcut = nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm(outputs))
        layers = [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm(outputs), nn.ReLU(), nn.Dropout(0.1)]
        last = [nn.Linear(outputs, outputs, bias=False), nn.BatchNorm(outputs)]
        return nn.Residual(*layers, *last, shortcut=shortcut, activation=nn.ReLU())

    return nn.Sequential(block(17, 33), block(33, 45), nn.LayerNorm(45), block(45, 17), nn.Linear(17, 3))


def frozen() -> nn.Module:
    return gv.models.mlp(17, 3, [33, 33], batch_norm=True).freeze("0.*").freeze("4.bias")


# ---- losses and data ----------------------------------------------------------------------------


def written_in_python(prediction: Any, target: Any) -> tuple[float, Any]:
    loss, gradient = F.mse_loss(prediction, target.astype(prediction.dtype))
    return 3.0 * loss, 3 * gradient


def labels(rng: np.random.Generator, rows: int, columns: int) -> Any:
    return rng.integers(0, columns, rows)


def shares(rng: np.random.Generator, rows: int, columns: int) -> Any:
    return rng.dirichlet(np.ones(columns), rows)


def values(rng: np.random.Generator, rows: int, columns: int) -> Any:
    return rng.normal(size=(rows, columns))


@dataclass(frozen=True)
class Case:
    net: Callable[[], nn.Module]
    features: tuple[int, ...]
    outputs: int
    target: Callable[[np.random.Generator, int, int], Any]
    loss: Any
    optimizer: gv.optim.Optimizer
    rows: int = 37
    batch: int = 16
    steps: int = 8
    dtype: Any = np.float32
    clip_norm: float | None = None
    weights: bool = False
    accumulate: int = 1  # batches for one update

    def batches(self) -> list[dict[str, Any]]:
        """Batches in turn, over and over, the last of each pass ragged."""
        rng = np.random.default_rng(11)
        x = rng.normal(size=(self.rows, *self.features))
        y = self.target(rng, self.rows, self.outputs)
        weight = rng.uniform(0.0, 2.0, self.rows)
        result = []
        for i in range(self.steps):
            passes = -(-self.rows // self.batch)
            at = slice(i % passes * self.batch, (i % passes + 1) * self.batch)
            result.append({"x": x[at], "y": y[at]})
            if self.weights:
                result[-1]["sample_weight"] = weight[at]
        return result


ce, mse, bce = nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss
SGD, Adam, AdamW = gv.optim.SGD, gv.optim.Adam, gv.optim.AdamW
no_decay = [{"match": "*.bias", "weight_decay": 0.0, "lr_scale": 2.0}]

CASES = {
    "resnet, Nesterov, dropout": Case(
        lambda: gv.models.resnet(33, 10, width=45, depth=8, dropout=0.1),
        (33,),
        10,
        labels,
        ce(),
        SGD(lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True),
    ),
    "resnet, clipped": Case(
        lambda: gv.models.resnet(17, 3, width=33, depth=6),
        (17,),
        3,
        labels,
        ce(label_smoothing=0.1),
        SGD(lr=0.2, momentum=0.9, dampening=0.1, groups=no_decay),
        clip_norm=0.3,
    ),
    "residual layers, wide": Case(
        lambda: gv.models.mlp(64, 10, [129] * 4, batch_norm=True, residual=True),
        (64,),
        10,
        labels,
        ce(),
        SGD(lr=0.05, momentum=0.9, dampening=0.1, weight_decay=1e-4),
        rows=200,
        batch=130,
    ),
    "tabular, AdamW": Case(
        lambda: gv.models.tabular_resnet(17, 3, d=33, hidden=45, n_blocks=2, dropout_second=0.1),
        (17,),
        3,
        values,
        nn.HuberLoss(),
        AdamW(lr=gv.schedules.cosine(0.01, 12, warmup_steps=3), weight_decay=0.1, groups=no_decay),
    ),
    "layer norm and smooth activations, Adam": Case(
        smooth, (100,), 3, shares, bce(), Adam(lr=0.01, weight_decay=0.01), steps=10
    ),
    "widths of one": Case(narrow, (3,), 3, labels, ce(), SGD(lr=0.1, momentum=0.5), batch=4, rows=11),
    "written forward, probabilities": Case(Gated, (17,), 3, shares, ce(), Adam(lr=0.02)),
    "two leading axes": Case(
        axes, (5, 7), 3, values, nn.L1Loss(), SGD(lr=0.1, momentum=0.9), rows=70, batch=33
    ),
    "projection shortcuts, clipped": Case(
        projections, (17,), 3, labels, ce(), SGD(lr=0.1, momentum=0.9, nesterov=True), clip_norm=0.5
    ),
    "projection shortcuts, AdamW": Case(projections, (17,), 3, labels, ce(), AdamW(lr=0.01)),
    "frozen parts": Case(frozen, (17,), 3, labels, ce(), SGD(lr=0.1, momentum=0.9)),
    "several blocks": Case(
        lambda: gv.models.mlp(17, 3, [33, 17], batch_norm=True, dropout=0.2),
        (17,),
        3,
        labels,
        ce(),
        SGD(lr=0.1, momentum=0.9),
        rows=700,
        batch=300,
        steps=5,
    ),
    "several chains of dW": Case(
        lambda: gv.models.mlp(3, 3, [17, 33], batch_norm=True, residual=True),
        (3,),
        3,
        values,
        mse(),
        AdamW(lr=0.01),
        rows=3400,
        batch=2100,
        steps=3,
    ),
    "float64": Case(
        lambda: gv.models.resnet(17, 3, width=33, depth=6, dropout=0.2, activation="gelu"),
        (17,),
        3,
        labels,
        ce(weight=[0.5, 1.0, 2.0]),
        AdamW(lr=0.01),
        dtype=np.float64,
    ),
    "float64, several blocks, clipped": Case(
        smooth,
        (100,),
        3,
        values,
        mse(),
        SGD(lr=0.1, momentum=0.9, nesterov=True),
        dtype=np.float64,
        rows=150,
        batch=131,
        clip_norm=0.5,
        steps=4,
    ),
    "float64, projection shortcuts, Adam": Case(
        projections, (17,), 3, shares, ce(), Adam(lr=0.01), dtype=np.float64, rows=150, batch=131, steps=4
    ),
    "float64, residual layers, Nesterov": Case(
        lambda: gv.models.mlp(17, 3, [33] * 4, batch_norm=True, residual=True, dropout=0.1),
        (17,),
        3,
        labels,
        ce(),
        SGD(lr=0.1, momentum=0.9, nesterov=True),
        dtype=np.float64,
    ),
    # Parameters for many partial sums of the norm, which are added in double.
    "float64, wide, clipped": Case(
        lambda: gv.models.mlp(64, 10, [129] * 3, batch_norm=True),
        (64,),
        10,
        labels,
        ce(),
        Adam(lr=0.01),
        dtype=np.float64,
        batch=33,
        steps=4,
        clip_norm=0.5,
    ),
    "accumulated, clipped": Case(
        lambda: gv.models.mlp(17, 3, [33, 45], batch_norm=True),
        (17,),
        3,
        labels,
        ce(),
        SGD(lr=0.1, momentum=0.9),
        rows=37,
        accumulate=3,
        steps=9,
        clip_norm=0.5,
    ),
    "sample weights": Case(
        lambda: gv.models.mlp(17, 3, [33, 45], activation="tanh"),
        (17,),
        3,
        labels,
        ce(weight=[0.5, 1.0, 2.0], label_smoothing=0.05),
        Adam(lr=0.01),
        weights=True,
    ),
    "loss in Python": Case(
        lambda: gv.models.mlp(17, 3, [33, 45], batch_norm=True, dropout=0.1),
        (17,),
        3,
        values,
        written_in_python,
        SGD(lr=0.1, momentum=0.9),
    ),
}
names = pytest.mark.parametrize("name", CASES)


# ---- what a run leaves --------------------------------------------------------------------------


def arrays(what: str, found: dict[str, Any]) -> Record:
    return {f"{what} {key}": np.ascontiguousarray(array).tobytes() for key, array in found.items()}


def train(
    case: Case, *, clip_norm: float | None = None, checkpoint_every: int | None = None
) -> tuple[Record, gv.TrainStep]:
    """Train a case; return every bit that it leaves behind, and the step."""
    net = case.net().reset_parameters(5)
    if case.dtype is not np.float32:
        net = net.astype(case.dtype)
    step = gv.TrainStep(
        net,
        case.loss,
        case.optimizer,
        clip_norm=clip_norm or case.clip_norm,
        seed=23,
        checkpoint_every=checkpoint_every,
    )
    record: Record = {}
    for i, batch in enumerate(case.batches()):
        losses = [step(**batch, accumulate=(i + 1) % case.accumulate != 0)]
        if case.clip_norm is not None:
            losses.append(step.gradient_norm or 0.0)
        record |= arrays(f"loss of step {i}", {"": np.array(losses)})
    record |= arrays("parameter", net.parameters())
    record |= arrays("buffer", net.buffers())
    for key, state in step.state.items():
        record |= arrays(key, state if isinstance(state, dict) else {"": state})
    return record, step


def evaluate(case: Case) -> Record:
    """The bits of inference and of gradients, in training mode and not, of a net that has trained."""
    _, step = train(case)
    net, batches = step.net, case.batches()
    whole = np.concatenate([batch["x"] for batch in batches])
    record = arrays("prediction", {"": net(whole), "of one row": net(whole[:1])})
    gradients = gv.value_and_grad(net, case.loss)
    for i, batch in enumerate(batches[:3]):
        for training in (False, True):
            value, found = gradients(batch["x"], batch["y"], training=training, seed=i)
            record |= arrays(f"gradient {training} {i}", {**found, "loss": np.array(value)})
    return record | arrays("buffer", net.buffers())


def digest(record: Record) -> str:
    sha = hashlib.sha256()
    for key in sorted(record):
        sha.update(key.encode() + b"\0" + record[key])
    return sha.hexdigest()


def assert_same(got: Record, expected: Record, where: str) -> None:
    if digest(got) != digest(expected):
        different = [key for key in expected if got.get(key) != expected[key]] or sorted({*got} - {*expected})
        raise AssertionError(f"{where}: {len(different)} of {len(expected)} differ, first {different[:4]}")


@pytest.fixture(scope="module")
def reference() -> Callable[[str], Record]:
    """What a case leaves with one thread on the best instruction set, computed once."""
    kept: dict[str, Record] = {}

    def of(name: str) -> Record:
        if name not in kept:
            with gv.threads(1), gv.isa(ISAS[0]):
                kept[name], step = train(CASES[name])
                assert step.workers == 1
        return kept[name]

    return of


# ---- tests --------------------------------------------------------------------------------------


@names
@pytest.mark.parametrize("threads", THREADS)
def test_thread_counts(name: str, threads: int, reference: Callable[[str], Record]) -> None:
    with gv.threads(threads):
        assert gv.get_num_threads() == threads and _core.team_size(threads) == threads
        record, step = train(CASES[name])
        assert step.workers == threads
    assert_same(record, reference(name), f"{threads} threads")


@names
@pytest.mark.parametrize("isa", ISAS[1:])
@pytest.mark.parametrize("threads", THREADS)
def test_instruction_sets(name: str, isa: str, threads: int, reference: Callable[[str], Record]) -> None:
    with gv.isa(isa), gv.threads(threads):
        assert _core.active_isa() == isa and _core.team_size(threads) == threads
        record, step = train(CASES[name])
        assert step.workers == threads
    assert_same(record, reference(name), f"{isa}, {threads} threads")


@names
@pytest.mark.parametrize("threads", [1, 3, 16])
def test_fusing_changes_no_bit(
    name: str, threads: int, reference: Callable[[str], Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plans, "fused", False)
    with gv.threads(threads):
        record, step = train(CASES[name])
    assert step.workers == threads
    assert_same(record, reference(name), f"unfused, {threads} threads")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.clip_norm is None])
@pytest.mark.parametrize("threads", [1, 3, 16])
def test_stored_gradients_update_as_fused_ones(
    name: str, threads: int, reference: Callable[[str], Record]
) -> None:
    """A bound that the norm never reaches needs the whole gradient, and changes nothing."""
    with gv.threads(threads):
        record, step = train(CASES[name], clip_norm=1e30)
        assert step.gradient_norm is not None and 0 < step.gradient_norm < 1e10
    assert_same(record, reference(name), f"stored gradients, {threads} threads")


def test_fused_and_stored_updates_are_different_programs() -> None:
    """The tests above compare two things, not one thing with itself."""
    counts = {}
    case = CASES["residual layers, wide"]
    for fused in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Plans, "fused", fused)
            for clip_norm in (None, 1e30):
                _, step = train(case, clip_norm=clip_norm)
                plan = next(iter(step._plans._plans.values())).core
                counts[fused, clip_norm] = plan.instructions, plan.arena_bytes
    assert counts[False, None][0] > counts[True, None][0]
    assert counts[False, None][1] > counts[True, None][1]


@names
def test_inference_and_gradients(name: str) -> None:
    case = CASES[name]
    with gv.threads(1), gv.isa(ISAS[0]):
        expected = evaluate(case)
    settings = [(ISAS[0], 2), (ISAS[0], 7), *((isa, 3) for isa in ISAS[1:])]
    for isa, threads in settings:
        with gv.threads(threads), gv.isa(isa):
            assert_same(evaluate(case), expected, f"{isa}, {threads} threads")


def test_threads_and_instruction_set_may_change_between_steps() -> None:
    case = CASES["resnet, Nesterov, dropout"]

    def losses(changes: bool) -> tuple[list[float], Record]:
        net = case.net().reset_parameters(5)
        step = gv.TrainStep(net, case.loss, case.optimizer, seed=23)
        result = []
        for i, batch in enumerate(case.batches()):
            isa, threads = (ISAS[i % len(ISAS)], [2, 7, 1, 3][i % 4]) if changes else (ISAS[0], 1)
            with gv.threads(threads), gv.isa(isa):
                result.append(step(**batch))
                assert step.workers == gv.get_num_threads()
        return result, arrays("parameter", net.parameters())

    assert losses(True) == losses(False)


def test_how_finely_work_is_dealt_changes_no_bit(reference: Callable[[str], Record]) -> None:
    name = "several blocks"
    teams = set()
    for nanoseconds in (1.0, 30.0, 300.0, 3000.0, 1e9):
        _core.set_worth_waking(nanoseconds)
        with gv.threads(7):
            record, step = train(CASES[name])
        teams.add(step.workers)
        assert_same(record, reference(name), f"{step.workers} workers, {nanoseconds} ns worth waking one")
    assert {1, 7} <= teams


@pytest.mark.parametrize("fused", [True, False])
def test_nothing_remains_from_another_batch(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that has run on more rows, on fewer and on infinities gives the bits of a new one."""
    monkeypatch.setattr(Plans, "fused", fused)
    case = CASES["residual layers, wide"]
    first, second = case.batches()[:2]
    net = case.net().reset_parameters(5)
    used = gv.value_and_grad(net, case.loss)

    def of(function: Any, batch: dict[str, Any]) -> Record:
        value, found = function(batch["x"], batch["y"], training=False)
        return arrays("gradient", {**found, "loss": np.array(value)})

    for batch in (second, first, second, first):
        assert_same(of(used, batch), of(gv.value_and_grad(net, case.loss), batch), f"{len(batch['x'])} rows")
        spoilt = {**batch, "x": np.full_like(batch["x"], np.inf)}
        of(used, spoilt)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_a_trainer_takes_the_steps_of_a_train_step(clip_norm: float | None) -> None:
    case = CASES["resnet, Nesterov, dropout"]
    batches = case.batches()[:3]
    x, y = (np.concatenate([batch[key] for batch in batches]) for key in "xy")
    net = case.net().reset_parameters(5)
    step = gv.TrainStep(net, case.loss, case.optimizer, clip_norm=clip_norm, seed=23)
    losses = [step(**batch) for batch in [*batches, *batches]]
    for isa, threads in [(ISAS[0], 1), (ISAS[0], 7), (ISAS[-1], 2)]:
        with gv.isa(isa), gv.threads(threads):
            other = case.net().reset_parameters(5)
            trainer = gv.Trainer(other, case.loss, case.optimizer, clip_norm=clip_norm, seed=23)
            history = trainer.fit(x, y, epochs=2, batch_size=case.batch, shuffle=False)
        assert [record["loss"] for record in history.step] == losses
        for found in (nn.Module.parameters, nn.Module.buffers):
            assert_same(arrays("", found(other)), arrays("", found(net)), f"{isa}, {threads} threads")


@pytest.mark.parametrize("threads", THREADS)
def test_a_shuffled_fit(threads: int) -> None:
    x, y = gv.datasets.digits()

    def fit() -> tuple[Any, ...]:
        net = gv.models.resnet(64, 10, width=17, depth=6, dropout=0.1, seed=3)
        trainer = gv.Trainer(net, ce(), AdamW(lr=gv.schedules.cosine(0.01)), clip_norm=1.0, seed=4)
        trainer.fit(x[:301], y[:301], epochs=2, batch_size=50, validation=0.2, metrics=["accuracy"])
        history = [{k: v for k, v in record.items() if k != "seconds"} for record in trainer.history.epoch]
        return history, trainer.history.step, arrays("", net.state_dict()), trainer.predict(x).tobytes()

    with gv.threads(1), gv.isa(ISAS[-1]):
        expected = fit()
    with gv.threads(threads):
        assert fit() == expected


def test_seeds_decide() -> None:
    """Another seed of the weights, or of dropout, gives other bits; the same gives the same."""
    case = CASES["resnet, Nesterov, dropout"]
    batch = case.batches()[0]

    def run(weights: int, dropout: int) -> str:
        net = case.net().reset_parameters(weights)
        step = gv.TrainStep(net, case.loss, case.optimizer, seed=dropout)
        return digest(arrays("", {"loss": np.array([step(**batch), step(**batch)]), **net.parameters()}))

    assert run(0, 0) == run(0, 0)
    assert len({run(0, 0), run(1, 0), run(0, 1)}) == 3


@pytest.mark.parametrize("isa", ISAS)
def test_first_values_do_not_depend_on_the_instruction_set(isa: str) -> None:
    def build() -> Record:
        record = {}
        for init in ("kaiming_normal", "kaiming_uniform", "xavier_normal", "lecun_normal", "orthogonal"):
            net = nn.Linear(45, 33, init=init, seed=7)
            record |= arrays(init, net.parameters())
            record |= arrays(init + " float64", net.astype(np.float64).parameters())
        return record

    with gv.isa(ISAS[0]), gv.threads(1):
        expected = build()
    with gv.isa(isa), gv.threads(3):
        assert_same(build(), expected, isa)

"""The arithmetic of the benchmarks, their targets and their answers; no test looks at a time."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gvcore as gv
from gvcore import _core
from gvcore.bench import gemm, step
from gvcore.bench.check import check_answers, check_losses
from gvcore.bench.figures import Figure, geometric_mean, percentile, ratio
from gvcore.bench.gvcore_step import build
from gvcore.bench.harness import Effort, Local, Options, Summary, interleave, summarize
from gvcore.bench.machine import Memory, Peak
from gvcore.bench.numpy_step import NumpyStep
from gvcore.bench.prepared import Prepared, fastest
from gvcore.bench.product import Product, check
from gvcore.bench.remote import Remote
from gvcore.bench.report import Limit, Result, milliseconds, table, verdict
from gvcore.bench.residual_net import Net

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import (  # noqa: E402
    batchnorm,
    block,
    compare,
    digits_mlp,
    elementwise,
    gather,
    memory,
    mnist,
    optim,
    scaling,
    shapes,
    width,
)
from benchmarks import workloads as w  # noqa: E402
from benchmarks.kernels import ROOT  # noqa: E402

TINY = Net(4, 8, 3)
EFFORT = Effort(rounds=2, seconds=0.001, pause=0.0)
OPTIONS = Options(EFFORT, quick=True)


# ---- counts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", [TINY, Net(32, 64, 128)])
def test_flop_are_those_of_the_products(net: Net) -> None:
    b, w = net.batch, net.width
    layers = [(64, w, 2)] + [(w, w, 3)] * net.depth + [(w, 10, 3)]  # forward, weight, input but the first's
    assert net.flop == sum(2 * b * inputs * outputs * products for inputs, outputs, products in layers)


def test_parameters_are_those_of_the_net() -> None:
    module = build(TINY)
    assert TINY.parameters == module.num_parameters() == sum(value.size for _, value in TINY.values())
    assert TINY.working_set == 4 * (2 * TINY.parameters + 2 * 3 * 4 * 8)
    assert TINY.bytes == 4 * (5 * TINY.parameters + 2 * 2 * 3 * 4 * 8)


def test_every_value_of_the_net_is_loaded() -> None:
    found = sorted(value.tobytes() for value in build(TINY).parameters().values())
    named = TINY.values().named("0", "{i}.{part}", "1")
    assert found == sorted(value.tobytes() for value in named.values())


def test_limit_is_the_larger_bound() -> None:
    limit = Limit(flop=6e9, bytes=1e9, flop_per_second=2e9, bytes_per_second=1e9)
    assert (limit.seconds, limit.bound) == (3.0, "flop")
    limit = Limit(flop=6e9, bytes=9e9, flop_per_second=2e9, bytes_per_second=2e9)
    assert (limit.seconds, limit.bound) == (4.5, "bytes")


@pytest.mark.parametrize("isa", gv.available_isas())
def test_the_machine_counts_its_work(isa: str) -> None:
    with gv.isa(isa):
        for dtype, bits in (("float32", 32), ("float64", 64)):
            lanes = {"scalar": 1, "avx2": 256 // bits, "avx512": 512 // bits}[isa]
            peak = Peak(1, dtype, rounds=10)
            assert len(peak.turn(0.0)) == 3
            assert peak.flop == 2 * 12 * lanes * 10
    memory = Memory(1, 1 << 16)
    seconds = memory.turn(0.0)
    assert memory.bytes == 3 * (1 << 16) / 2
    assert memory.rate(seconds) > 0


def test_several_workers_count_their_work_together() -> None:
    team = _core.team_size(2)
    assert _core.fma_passes_float32(team, 7, 1)[0] == team * _core.fma_passes_float32(1, 7, 1)[0]
    assert _core.memory_passes(team, 1001, 1)[0] == 3 * 4 * 1001


def test_the_machine_refuses_nothing_to_do() -> None:
    with pytest.raises(ValueError, match="at least 1 worker"):
        _core.fma_passes_float32(0, 1, 1)


# ---- answers ------------------------------------------------------------------------------------


def test_the_oracle_agrees_with_gvcore_gradients() -> None:
    net = build(TINY).astype(np.float64)
    oracle = NumpyStep(TINY, np.float64)
    before = oracle.flat.copy()
    x, y = TINY.data(np.float64)
    _, gradients = gv.value_and_grad(net, gv.nn.CrossEntropyLoss())(x[:4], y[:4])
    oracle()
    # The first velocity is the gradient with the decay.
    found = oracle.velocity - 1e-4 * before
    names = ["0.weight", "0.bias", *(f"{i}.layers.0.weight" for i in (1, 2, 3))]
    names += [f"{i}.layers.1.{part}" for part in ("weight", "bias") for i in (1, 2, 3)]
    names += ["4.weight", "4.bias"]
    wanted = np.concatenate([gradients[name].ravel() for name in names])
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12 * np.abs(wanted).max())
    buffers = net.buffers()
    np.testing.assert_allclose(oracle.running_variance[1], buffers["2.layers.1.running_var"], rtol=1e-12)
    np.testing.assert_allclose(oracle.running_mean[2], buffers["3.layers.1.running_mean"], rtol=1e-12)


FUNCTIONS = {"gvcore": "gvcore.bench.gvcore_step:prepare", **compare.PEERS}


@pytest.mark.parametrize("peer", ["gvcore", "numpy", "torch", "jax"])
def test_a_peer_computes_the_same_losses(peer: str) -> None:
    with Remote(peer, FUNCTIONS[peer], 1, OPTIONS, ROOT) as process:
        if not process.prepare(TINY.to_dict()):
            pytest.skip(str(process.skipped))
        check_losses(TINY, {peer: process.answers})
        assert len(process.turn(0.0)) >= 3


def test_a_wrong_loss_is_found() -> None:
    oracle = NumpyStep(TINY, np.float64)
    losses = [oracle() for _ in range(3)]
    check_losses(TINY, {"peer": {"right": losses}})
    for wrong in (losses[2] * (1 + 1e-4), float("nan")):
        with pytest.raises(AssertionError, match="expected peer"):
            check_losses(TINY, {"peer": {"wrong": [*losses[:2], wrong]}})


@pytest.mark.parametrize("layout", ["nn", "nt", "tn"])
def test_a_wrong_product_is_found(layout: str) -> None:
    product = Product(5, 7, 9, layout)
    a, b = product.operands()
    assert product.flop == 630 and product.bytes == 4 * (45 + 63 + 35)
    found = gv.functional.matmul(a, b)
    check(product, a, b, found)
    found[4, 6] += 1e-3
    with pytest.raises(AssertionError, match="5 x 7 x 9"):
        check(product, a, b, found)


# ---- turns and tables ---------------------------------------------------------------------------


def test_the_fastest_variant_is_chosen() -> None:
    class Fixed:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def turn(self, seconds: float) -> Sequence[float]:
            return [self.seconds]

    made = [Prepared(lambda: 0.0, str(s), lambda s=s: [s], Fixed(s)) for s in (3.0, 1.0, 2.0)]
    best, contestant, answers = fastest(iter(made))
    assert (best.settings, contestant.turn(0.0)) == ("1.0", [1.0])
    assert answers == {"3.0": [3.0], "1.0": [1.0], "2.0": [2.0]}


def test_contestants_take_turns() -> None:
    order: list[str] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def turn(self, seconds: float) -> Sequence[float]:
            order.append(self.name)
            return [1.0, 2.0]

    samples = interleave({"a": Recorder("a"), "b": Recorder("b")}, Effort(3, 0.0, 0.0))
    assert order == ["a", "b"] * 3
    assert samples == {"a": [1.0, 2.0] * 3, "b": [1.0, 2.0] * 3}


def test_a_sample_is_the_mean_of_enough_calls() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    local = Local(call, shortest=1e-4)
    assert local.calls > 1
    calls = 0
    assert len(local.turn(0.0)) == 3
    assert calls == 4 * local.calls  # one sample is not recorded


def test_summary_and_table() -> None:
    summary = summarize([4.0, 1.0, 3.0, 2.0, 5.0])
    assert vars(summary) == {
        "median": 3.0,
        "minimum": 1.0,
        "first_quartile": 2.0,
        "third_quartile": 4.0,
        "samples": 5,
    }
    times = {"gvcore": summary, "numpy": summarize([6.0])}
    result = Result("step", "tiny", {}, 1, Limit(2.0, 0.0, 1.0, 1.0), times, {}, {"jax": "is not installed"})
    result.figures = [result.share(OPTIONS, 0.7), Figure("x best", 2.0, target=1.5), Figure("x jax", None)]
    header, _, row = (line.strip("|").split("|") for line in table([result]).splitlines())
    cells = dict(zip(map(str.strip, header), map(str.strip, row), strict=True))
    assert cells == {
        "case": "tiny",
        "threads": "1",
        "limit ms": "2000",
        "bound": "flop",
        "gvcore ms": "3000",
        "min": "1000",
        "quartiles": "2000-4000",
        "of limit": "66.7 %",
        "x best": "2.00x",
        "x jax": "-",
        "target": ">= 70 % / >= 1.5x",
        "met": "NO / yes",
        "numpy median": "6000 (2.00x)",
        "jax median": "-",
    }
    lowest = replace(OPTIONS, minima=True)
    result.figures = [result.share(lowest, 0.7)]
    assert result.figures[0].value == 2.0
    row = table([result], minima=True).splitlines()[-1].strip("|").split("|")
    assert [cell.strip() for cell in row][4:] == [
        "1000", "2000-4000", "200.0 %", ">= 70 %", "yes", "6000 (6.00x)", "-",
    ]  # fmt: skip
    assert [milliseconds(x) for x in (1.234e-5, 1.234e-3, 0.1234)] == ["0.0123", "1.23", "123"]


# ---- figures and targets ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("f", 0.9, "%", 0.9), True),
        (Figure("f", 0.899, "%", 0.9), False),
        (Figure("f", 1.1, "x", 1.1, at_most=True), True),
        (Figure("f", 1.11, "x", 1.1, at_most=True), False),
        (Figure("f", math.nan, "x", 1.1), False),
        (Figure("f", 3.0), None),
        (Figure("f", None, "x", 2.0), None),
        # The best of some peers is above the target; one that is missing may be better.
        (Figure("f", 3.0, "x", 2.0, partial=True), None),
        (Figure("f", 1.0, "x", 2.0, partial=True), False),
    ],
)
def test_a_target_is_met_or_not(figure: Figure, met: bool | None) -> None:
    assert figure.met is met
    assert figure.to_dict()["met"] is met


def test_figures_as_text() -> None:
    assert Figure("f", 0.8767, "%", 0.9).text() == "87.7 %"
    assert Figure("f", 1.2345e-6, "us", 1.2e-6, at_most=True).text() == "1.23 us"
    assert Figure("f", 1.2345e-6, "us", 1.2e-6, at_most=True).target_text() == "<= 1.2 us"
    assert Figure("f", 5.1e8, "MB").text() == "510 MB"
    assert Figure("f", None, target=25.0).target_text() == ">= 25x"
    assert Figure("f", 1.0).target_text() == ""


def test_statistics_of_ratios() -> None:
    assert percentile(range(101), 5) == 5.0
    assert geometric_mean([0.5, 2.0, 4.0, 0.25]) == pytest.approx(1.0)
    assert ratio(6.0, 2.0) == 3.0 and ratio(None, 2.0) is None and ratio(2.0, None) is None


def test_the_verdict_counts() -> None:
    figures = [Figure("a", 1.0, target=2.0), Figure("b", 3.0, target=2.0), Figure("c", None, target=2.0)]
    text = verdict([Result("s", "case", {}, 1, figures=figures)])
    assert text.splitlines() == [
        "Targets met: 1 of 2; 1 more need a peer that is not installed or was left out",
        "  missed: s case, a: 1.00x (>= 2x)",
    ]


def test_targets_of_products() -> None:
    aims = {
        Product(256, 256, 256): 0.90,
        Product(2048, 2048, 2048, "tn"): 0.90,
        Product(512, 512, 512, "nt", "float64"): 0.88,
        Product(128, 128, 128): 0.80,
        Product(64, 64, 64): 0.60,
        Product(32, 256, 256): 0.70,
        Product(256, 256, 512): None,
        Product(64, 64, 64, "nn", "float64"): None,
    }
    assert {product: gemm.share_target(product) for product in aims} == aims
    wanted = {(n, layout) for n in (256, 384, 512, 1024, 2048) for layout in ("nn", "nt", "tn")}
    for group in ("float32", "float32, AVX2", "float64"):
        assert {(case.product.m, case.product.layout) for case in gemm.CASES[group]} == wanted
        assert all(gemm.share_target(case.product) for case in gemm.CASES[group])
    assert {case.isa for case in gemm.CASES["float32, AVX2"]} == {"avx2"}


def test_targets_of_the_step() -> None:
    aims = [
        (c.net.batch, c.net.width, c.net.depth, c.threads, c.x_torch, c.x_best, c.share) for c in step.CASES
    ]
    assert aims[0] == (8, 64, 64, 1, 25.0, 10.0, 0.30)
    assert aims[-1] == (1024, 256, 8, 2, 2.6, 2.4, 0.77)
    # On other threads than those they were set for, there are none.
    alone = step.cases(replace(OPTIONS, threads=1))
    assert [case.share for case in alone] == [0.30, 0.70, None]
    assert {case.threads for case in alone} == {1}


def seconds(value: float) -> Summary:
    return summarize([value])


def test_the_best_peer_counts() -> None:
    times = {"gvcore": seconds(1.0), "numpy": seconds(4.0), "torch": seconds(3.0), "jax": seconds(5.0)}
    case = step.Case(TINY, 1, 2.0, 2.5)
    result = Result("compare", "tiny", {}, 1, times=times)
    torch, best = step.against(result, case, OPTIONS)
    assert (torch.value, torch.met, best.value, best.met) == (3.0, True, 3.0, None)
    result.skipped = {"torch.compile": "compiles 128 blocks at most"}
    assert step.against(result, case, OPTIONS)[1].met is True
    result.skipped = {"torch.compile": "torch is not installed"}
    assert step.against(result, case, OPTIONS)[1].met is None


def test_shapes_are_as_large_as_they_should_be() -> None:
    found = shapes.random_shapes(50)
    assert all(max(p.m, p.n, p.k) <= 160 and p.flop >= 2e5 for p in found)
    assert {p.layout for p in found} == {"nn", "nt", "tn"}
    for p in shapes.skinny_shapes(30):
        small, *others = sorted((p.m, p.n, p.k))
        assert small <= 16 and 256 <= min(others) and max(others) <= 2048 and p.flop >= 2e5
    assert len({(p.m, p.n, p.k) for p in shapes.random_shapes(300)}) > 295
    assert all(p.flop < 2e5 for p in shapes.tiny_shapes())


def test_shapes_are_judged_by_the_best_peer() -> None:
    results = []
    for i in range(1, 101):
        times = {"gvcore": seconds(1.0), "numpy": seconds(500.0), "torch": seconds(float(i))}
        results.append(Result("shapes", str(i), {"m": i}, 1, times=times))
    all_of_them = shapes.summary(results, "all", OPTIONS)
    fifth, mean, worst = (figure.value for figure in all_of_them.figures)
    assert fifth == pytest.approx(5.95) and worst == 1.0
    assert mean == pytest.approx(math.exp(math.lgamma(101) / 100))
    assert [figure.target for figure in all_of_them.figures] == [0.95, 1.3, None]
    assert all_of_them.sizes["shapes"][41] == {"m": 42, "ratio": 42.0}
    results[0].skipped["torch"] = "torch is not installed"
    assert [figure.met for figure in shapes.summary(results, "all", OPTIONS).figures] == [None, None, None]


def test_batchnorm_counts_eight_passes() -> None:
    limit = Limit(0.0, 5e9, 1.0, 1e10)
    result = Result("batchnorm", "", {}, 1, limit, {"gvcore": seconds(1.0), "torch": seconds(3.0)})
    eight, five, torch = batchnorm.figures(result, 10**9, True, OPTIONS)
    assert (eight.value, eight.target, five.value, torch.value) == (0.8, 0.85, 0.5, 3.0)
    assert batchnorm.figures(result, 10**9, False, OPTIONS)[0].target is None


def test_optim_counts_five_passes() -> None:
    times = {"gvcore": seconds(1.0), "torch default": seconds(3.0), "torch fused": seconds(1.5)}
    result = Result("optim", "", {}, 1, Limit(0.0, 8e9, 1.0, 1e10), times)
    share, default, fused = optim.figures(result, True, OPTIONS)
    assert (share.value, default.value, fused.value) == (0.8, 3.0, 1.5)
    assert [f.target for f in (share, default, fused)] == [0.90, 2.0, 0.98]
    assert [f.target for f in optim.figures(result, False, OPTIONS)] == [None, None, 1.1]


def test_a_block_is_the_slope_between_two_stacks() -> None:
    one = block.per_block(summarize([1.0 + 20 * 0.5]), summarize([1.0 + 4 * 0.5]))
    assert (one.median, one.minimum) == (0.5, 0.5)
    assert [block.target(width) for width in (64, 128, 256, 512)] == [1.3, None, 1.10, 1.10]


def test_scaling_asks_two_threads_for_almost_two() -> None:
    assert scaling.target(2 * 512**3, 2) == 1.85
    assert scaling.target(2 * 511**3, 2) == scaling.target(2 * 512**3, 8) == pytest.approx(0.952, abs=1e-3)
    assert {work.flop for work in scaling.CASES} >= {2 * 512**3, 2 * 2048**3}


def test_a_cliff_is_a_step_to_the_faster_neighbour() -> None:
    times = {40: 1.0, 41: 3.0, 42: 2.0}
    assert [width.cliff(times, w) for w in times] == [1 / 3, 3.0, 2 / 3]


def test_memory_is_a_share_of_torch() -> None:
    *grown, share = memory.figures({"gvcore": 5e8, "torch": 1e9})
    assert [figure.text() for figure in grown] == ["500 MB", "1000 MB"]
    assert (share.value, share.met) == (0.5, True)
    assert memory.figures({"gvcore": 5e8})[-1].met is None


def test_work_of_an_mnist_epoch() -> None:
    assert digits_mlp.epoch_flop(200) == 2 * 200 * (2 * 784 * 100 + 3 * 100 * 100 + 3 * 100 * 10)
    assert digits_mlp.epoch_bytes(200) == 4 * 200 * 784


# ---- answers of single kernels ------------------------------------------------------------------

CASES: dict[str, list[dict[str, Any]]] = {
    "batchnorm": [{"rows": 200, "columns": 24}],
    "optim": [{"count": 5000}],
    "elementwise": [{"name": name, "count": 5000} for name in w.ACTIVATIONS],
}
SUITES: dict[str, Any] = {"batchnorm": batchnorm, "optim": optim, "elementwise": elementwise}


def check_kernel(kernel: str, case: dict[str, Any], answers: dict[str, dict[str, list[float]]]) -> None:
    expected = getattr(w, f"{kernel}_oracle")(**case)
    check_answers(kernel, expected, answers, 1e-5)
    wrong = [*expected[:-1], expected[-1] + 1e-3 * max(map(abs, expected))]
    with pytest.raises(AssertionError, match=f"expected {next(iter(answers))}"):
        check_answers(kernel, wrong, answers, 1e-5)


@pytest.mark.parametrize("kernel", CASES)
def test_our_kernels_find_the_answers(kernel: str) -> None:
    for case in CASES[kernel]:
        check_kernel(kernel, case, {"gvcore": {"": next(SUITES[kernel].ours(case, 1)).first_answers()}})


@pytest.mark.parametrize(
    ("kernel", "peer"), [(kernel, peer) for kernel, suite in SUITES.items() for peer in suite.FUNCTIONS]
)
def test_a_peer_finds_the_same_answers(kernel: str, peer: str) -> None:
    with Remote(peer, SUITES[kernel].FUNCTIONS[peer], 1, OPTIONS, ROOT) as process:
        for case in CASES[kernel]:
            if process.prepare(case):
                check_kernel(kernel, case, {peer: process.answers})
                assert len(process.turn(0.0)) >= 3
            elif str(process.skipped).endswith("not installed"):
                pytest.skip(str(process.skipped))
            else:
                assert (peer, case["name"], process.skipped) == ("numpy", "gelu", "NumPy has no erf")


def test_missing_answers_are_found() -> None:
    with pytest.raises(AssertionError, match="expected peer"):
        check_answers("case", [1.0, 2.0], {"peer": {"": [1.0]}}, 1e-4)
    with pytest.raises(AssertionError, match="expected peer"):
        check_answers("case", [1.0], {"peer": {"": [math.nan]}}, 1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_large_product_is_checked_at_some_places(dtype: str) -> None:
    product = Product(90, 80, 70, "nt", dtype)
    a, b = product.operands()
    found = a @ b
    check(product, a, b, found)
    found[7] += np.finfo(dtype).eps * 1e4
    with pytest.raises(AssertionError, match="90 x 80 x 70 nt"):
        check(product, a, b, found)


@pytest.mark.parametrize("peer", mnist.FUNCTIONS)
def test_mnist_losses_agree(peer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GVCORE_DATA_DIR", raising=False)
    assert "random" in mnist.write_data(tmp_path, digits_mlp.CHECKED * digits_mlp.BATCH)
    with Remote(peer, mnist.FUNCTIONS[peer], 1, OPTIONS, ROOT) as process:
        if not process.prepare({"folder": str(tmp_path)}):
            pytest.skip(str(process.skipped))
        expected = digits_mlp.first_losses(*digits_mlp.data(tmp_path))
        check_answers("mnist", expected, {peer: process.answers}, 1e-5)


def test_rows_are_gathered_from_the_same_places() -> None:
    calls = gather.steps(100, 7, 10)
    losses = {name: [call() for _ in range(12)] for name, call in calls.items()}
    assert losses["gvcore"] == losses["take + step"] != losses["in order"]


def test_a_block_and_its_products_are_right() -> None:
    block.check_stack(8)
    block.bare(8, 3, rows=5)()
    step_of_stack = block.stack(8, 2, rows=5)
    assert step_of_stack() == step_of_stack() > 0  # accumulating changes nothing

"""The arithmetic of the benchmarks, their answers and what they write; no test looks at a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import gvcore as gv
from gvcore import _core

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import compare, gemm, step  # noqa: E402
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.check import check_losses  # noqa: E402
from benchmarks.harness import Effort, Local, interleave, summarize  # noqa: E402
from benchmarks.machine import Memory, Peak  # noqa: E402
from benchmarks.peers.gvcore_step import build  # noqa: E402
from benchmarks.peers.numpy_step import NumpyStep  # noqa: E402
from benchmarks.peers.remote import Remote  # noqa: E402
from benchmarks.report import Limit, Result, milliseconds, table  # noqa: E402
from benchmarks.residual_net import Net  # noqa: E402

TINY = Net(4, 8, 3)
EFFORT = Effort(rounds=2, seconds=0.001, pause=0.0)


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


@pytest.mark.parametrize("peer", ["gvcore", "numpy", "torch", "jax"])
def test_a_peer_computes_the_same_losses(peer: str) -> None:
    with Remote(peer, TINY, 1) as remote:
        if remote.skipped:
            pytest.skip(remote.skipped)
        check_losses(TINY, {peer: remote.losses})
        assert len(remote.turn(0.0)) >= 3


def test_a_wrong_loss_is_found() -> None:
    oracle = NumpyStep(TINY, np.float64)
    losses = [oracle() for _ in range(3)]
    check_losses(TINY, {"peer": {"right": losses}})
    for wrong in (losses[2] * (1 + 1e-4), float("nan")):
        with pytest.raises(AssertionError, match="expected peer"):
            check_losses(TINY, {"peer": {"wrong": [*losses[:2], wrong]}})


@pytest.mark.parametrize("layout", ["nn", "nt", "tn"])
def test_a_wrong_product_is_found(layout: str) -> None:
    product = gemm.Product(5, 7, 9, layout)
    a, b = product.operands()
    assert product.flop == 630 and product.bytes == 4 * (45 + 63 + 35)
    found = gv.functional.matmul(a, b)
    gemm.check(product, a, b, found)
    found[4, 6] += 1e-3
    with pytest.raises(AssertionError, match="5 x 7 x 9"):
        gemm.check(product, a, b, found)


# ---- turns and tables ---------------------------------------------------------------------------


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
    cells = [cell.strip() for cell in table([result]).splitlines()[-1].strip("|").split("|")]
    assert cells == ["tiny", "1", "2000", "flop", "3000", "1000", "2000-4000", "1.50", "6000 (2.00x)", "-"]
    cells = [cell.strip() for cell in table([result], minima=True).splitlines()[-1].strip("|").split("|")]
    assert cells[4:] == ["1000", "2000-4000", "0.50", "6000 (6.00x)", "-"]
    assert [milliseconds(x) for x in (1.234e-5, 1.234e-3, 0.1234)] == ["0.0123", "1.23", "123"]


def test_the_program_writes_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step, "QUICK", [(TINY, 1)])
    monkeypatch.setattr(gemm, "QUICK", [gemm.Product(3, 5, 7)])
    monkeypatch.setattr(Effort, "quick", classmethod(lambda cls: EFFORT))
    monkeypatch.setattr(compare, "has_avx512", lambda: False)
    path = tmp_path / "run.json"
    words = [
        "step",
        "gemm",
        "compare",
        "--quick",
        "--peers",
        "gvcore,numpy,numpy avx512",
        "--json",
        str(path),
    ]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "| 4, 8, 3" in text and "| 3 x 5 x 7 nn" in text

    run = json.loads(path.read_text())
    assert run["schema"] == 1
    assert {"date", "cpu", "cpus", "caches", "isa", "load", "load_at_the_end"} <= set(run["machine"])
    by_suite = {result["suite"]: result for result in run["results"]}
    assert list(by_suite) == ["step", "gemm", "compare"]
    for result in run["results"]:
        assert set(result) == {
            "suite", "case", "sizes", "threads", "limit", "times", "settings", "skipped",
        }  # fmt: skip
        assert result["threads"] == 1
        limit = result["limit"]
        bounds = limit["flop"] / limit["flop_per_second"], limit["bytes"] / limit["bytes_per_second"]
        assert limit["seconds"] == max(bounds) > 0
        for time in result["times"].values():
            assert 0 < time["minimum"] <= time["first_quartile"] <= time["median"] <= time["third_quartile"]
            assert time["samples"] >= 2 * 3
    assert by_suite["step"]["limit"]["flop"] == TINY.flop
    assert set(by_suite["compare"]["times"]) == {"gvcore", "numpy"}
    assert by_suite["compare"]["skipped"] == {"numpy avx512": "this processor has no AVX-512"}


def test_the_program_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["steps"], ["compare", "--peers", "numpie"], ["--threads", "0"]):
        with pytest.raises(SystemExit):
            main(words)
        assert "expected" in capsys.readouterr().err

"""The benchmarks as programs: processes of peers, what is written and drawn; no test looks at a time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import gvcore as gv
from gvcore import cli
from gvcore.bench import gemm, picture, program, remote, step
from gvcore.bench.harness import Effort, Options, Summary, summarize
from gvcore.bench.product import Product
from gvcore.bench.remote import Remote
from gvcore.bench.report import Limit, Result
from gvcore.bench.residual_net import Net

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import (  # noqa: E402
    batchnorm,
    block,
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
from benchmarks.__main__ import DEFAULT, main  # noqa: E402

TINY = Net(4, 8, 3)
EFFORT = Effort(rounds=2, seconds=0.001, pause=0.0)
OPTIONS = Options(EFFORT, quick=True)


def seconds(value: float) -> Summary:
    return summarize([value])


# ---- processes ----------------------------------------------------------------------------------


def test_peers_do_not_load_gvcore_and_have_openblas_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "peeking.py").write_text(
        "import os, sys\n"
        "from gvcore.bench.prepared import Prepared\n"
        "def look(case, threads):\n"
        "    names = ('OPENBLAS_CORETYPE', 'OPENBLAS_L2_SIZE', 'OPENBLAS_NUM_THREADS')\n"
        "    found = {name: os.environ.get(name) for name in names}\n"
        "    yield Prepared(lambda: 0.0, f\"{found} {'gvcore._core' in sys.modules}\")\n"
    )
    monkeypatch.setenv("OPENBLAS_CORETYPE", "HASWELL")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    for peer, kind in (("numpy", None), ("numpy avx512", "SKYLAKEX"), ("torch", None)):
        with Remote(peer, "peeking:look", 3, OPTIONS, (tmp_path,)) as process:
            assert process.prepare({})
            found = {"OPENBLAS_CORETYPE": kind, "OPENBLAS_L2_SIZE": None, "OPENBLAS_NUM_THREADS": "3"}
            assert process.settings == f"{found} False"
    with Remote("gvcore", "peeking:look", 3, OPTIONS, (tmp_path,)) as process:
        assert process.prepare({})
        assert process.settings.endswith("True")
    assert os.environ["OPENBLAS_CORETYPE"] == "HASWELL"


def test_users_who_do_not_measure_do_not_load_it() -> None:
    code = "import sys, gvcore; print([name for name in sys.modules if name.startswith('gvcore.bench')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_process_that_ends_says_why() -> None:
    with Remote("peer", "no_such_module:prepare", 1, OPTIONS) as process:
        assert not process.prepare({})
        assert process.skipped == "no_such_module is not installed"
        with pytest.raises(RuntimeError, match="no_such_function"):
            process.ask("no_such_function")


def test_only_wanted_peers_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "has_avx512", lambda: False)
    numpy = "gvcore.bench.product:prepare"
    functions = dict.fromkeys(("numpy", "numpy avx512", "torch fused", "jax"), numpy)
    chosen = replace(OPTIONS, peers=("numpy avx512", "torch"), pythons={"jax": "/no/such/python"})
    with remote.start(functions, 1, chosen) as (remotes, skipped):
        assert list(remotes) == ["torch fused"]
        assert skipped == {"numpy avx512": "this processor has no AVX-512"}
    assert chosen.python("jax") == "/no/such/python" and chosen.python("torch.compile") == sys.executable


def test_memory_of_a_worker_grows() -> None:
    net = Net(2048, 256, 8)
    with Remote("numpy", "gvcore.bench.numpy_step:prepare", 1, OPTIONS) as process:
        answer = process.ask("memory", small=TINY.to_dict(), case=net.to_dict(), threads=1)
    # The inputs of the blocks, what batch norm keeps and the masks, and less than three times as much.
    least = (4 + 4 + 1) * 8 * 2048 * 256
    assert least <= answer["growth"] <= 3 * least


# ---- programs -----------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every suite on tiny cases."""
    monkeypatch.setattr(step, "QUICK", [step.Case(TINY, 1, 25.0, 10.0, 0.3)])
    monkeypatch.setattr(gemm, "QUICK", {"small": [gemm.Case(Product(3, 5, 7))]})
    monkeypatch.setattr(Effort, "quick", classmethod(lambda cls: EFFORT))
    for module in (step, remote):
        monkeypatch.setattr(module, "has_avx512", lambda: False, raising=False)
    monkeypatch.setattr(batchnorm, "large", lambda options: 2 << 20)
    monkeypatch.setattr(elementwise, "large", lambda options: 2 << 20)
    monkeypatch.setattr(optim, "large", lambda options: 2 << 20)
    monkeypatch.setattr(gather, "CASES", [(100, 7, 10)])
    monkeypatch.setattr(scaling, "CASES", scaling.CASES[:1])
    monkeypatch.setattr(shapes, "random_shapes", lambda count: [Product(9, 9, 9, "nt")] * 10)
    monkeypatch.setattr(shapes, "skinny_shapes", lambda count: [Product(1, 30, 20)] * 10)
    monkeypatch.setattr(block, "QUICK", [8])
    monkeypatch.setattr(width, "WIDTHS", range(4, 6))
    monkeypatch.setattr(memory, "NET", Net(64, 16, 4))
    monkeypatch.setattr(mnist, "ROWS", digits_mlp.CHECKED * digits_mlp.BATCH)
    monkeypatch.delenv("GVCORE_DATA_DIR", raising=False)


def check_run(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read a run and return its results by suite."""
    run = json.loads(path.read_text())
    assert run["schema"] == 2
    assert {"date", "cpu", "cpus", "caches", "isa", "load", "load_at_the_end"} <= set(run["machine"])
    by_suite: dict[str, list[dict[str, Any]]] = {}
    for result in run["results"]:
        by_suite.setdefault(result["suite"], []).append(result)
        assert set(result) == {
            "suite", "group", "case", "sizes", "threads", "limit", "times", "figures", "settings", "skipped",
        }  # fmt: skip
        if limit := result["limit"]:
            bounds = limit["flop"] / limit["flop_per_second"], limit["bytes"] / limit["bytes_per_second"]
            assert limit["seconds"] == max(bounds) > 0
        if result["suite"] != "block":  # a slope of such short times may have any sign
            for time in result["times"].values():
                assert 0 < time["minimum"] <= time["first_quartile"] <= time["median"]
                assert time["median"] <= time["third_quartile"] and time["samples"] >= 2
        for figure in result["figures"]:
            assert set(figure) == {"name", "value", "unit", "target", "at_most", "partial", "met"}
    return by_suite


@pytest.mark.usefixtures("small")
def test_the_program_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.json"
    words = ["--quick", "--peers", "gvcore,numpy,numpy avx512", "--json", str(path), "--threads", "1"]
    assert main(["step", *DEFAULT, *words]) == 0
    text = capsys.readouterr().out
    assert "| 4, 8, 3" in text and "| 3 x 5 x 7 nn" in text and "Targets met: " in text
    assert "left out: this process may use one thread" in text

    by_suite = check_run(path)
    assert {*by_suite, "scaling"} == {"step", *DEFAULT}
    assert all(result["threads"] == 1 for results in by_suite.values() for result in results)
    assert by_suite["step"][0]["limit"]["flop"] == TINY.flop
    (compared,) = by_suite["compare"]
    assert set(compared["times"]) == {"gvcore", "numpy"}
    assert compared["skipped"] == {"numpy avx512": "this processor has no AVX-512"}
    figures = {figure["name"]: figure for figure in compared["figures"]}
    times = compared["times"]
    assert figures["x best"]["value"] == times["numpy"]["median"] / times["gvcore"]["median"]
    assert figures["x torch"]["value"] is None and figures["x torch"]["met"] is None
    assert figures["of limit"]["met"] is (figures["of limit"]["value"] >= 0.3)
    (grown,) = by_suite["memory"]
    assert [figure["name"] for figure in grown["figures"]] == [
        "gvcore grows by", "numpy grows by", "of torch",
    ]  # fmt: skip
    assert "random pictures" in by_suite["mnist"][0]["case"]
    large = 2 << 20  # bytes of the fixture's arrays
    counted = {name: by_suite[name][0]["limit"]["bytes"] for name in ("batchnorm", "optim", "mnist")}
    assert counted == {"batchnorm": 5 * large, "optim": 5 * large, "mnist": 4 * 784 * mnist.ROWS}
    assert [result["limit"]["bytes"] for result in by_suite["elementwise"][:2]] == [2 * (256 << 10), large]
    assert by_suite["mnist"][0]["limit"]["flop"] == digits_mlp.epoch_flop(mnist.ROWS)
    assert by_suite["block"][0]["limit"]["flop"] == 6 * 256 * 8 * 8
    (product,) = by_suite["gemm"]
    share = (
        product["limit"]["flop"] / product["limit"]["flop_per_second"] / product["times"]["gvcore"]["median"]
    )
    assert product["figures"][0]["value"] == pytest.approx(share)
    groups = [result["group"] for result in by_suite["shapes"]]
    assert groups == ["best peer / gvcore"] * 3 + ["the worst, timed again"] * 2 + ["the smallest calls"] * 4


@pytest.mark.usefixtures("small")
def test_scaling_needs_two_threads() -> None:
    if gv.get_num_threads() < 2:
        pytest.skip("this process may use one thread")
    (result,) = scaling.run(replace(OPTIONS, threads=2))
    assert result.threads == 2 and set(result.times) == {"gvcore", "1 thread"}
    assert result.figures[0].value == result.times["1 thread"].median / result.times["gvcore"].median


@pytest.mark.usefixtures("small")
def test_users_have_a_short_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path, drawn = tmp_path / "run.json", tmp_path / "step.png"
    assert cli.main(["bench", "--json", str(path), "--picture", str(drawn)]) == 0
    assert "| 4, 8, 3" in capsys.readouterr().out
    by_suite = check_run(path)
    assert {name: set(results[0]["times"]) for name, results in by_suite.items()} == {
        "compare": {"gvcore", "numpy"},
        "gemm": {"gvcore", "numpy"},
    }
    assert drawn.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("words", [["--threads", "0"], ["--rounds", "0"]])
def test_the_short_form_refuses_nonsense(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *words]) == 1
    assert "of at least 1, got 0" in capsys.readouterr().err


def test_the_program_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["steps"], ["compare", "--peers", "numpie"], ["--threads", "0"]):
        with pytest.raises(SystemExit):
            main(words)
        assert "expected" in capsys.readouterr().err


# ---- the picture --------------------------------------------------------------------------------


def two_steps() -> list[Result]:
    first = {"gvcore": seconds(2.0), "numpy": seconds(8.0), "jax": seconds(1.0)}
    sizes = {"batch": 8, "width": 64, "depth": 3}
    limit = Limit(1.0, 0.0, 1.0, 1.0)
    return [
        Result("step", "alone", sizes, 1, limit, {"gvcore": seconds(2.0)}),
        Result("compare", "one", sizes, 1, limit, first),
        Result("compare", "two", sizes, 2, limit, {"gvcore": seconds(4.0), "numpy": seconds(8.0)}),
    ]


def test_bars_are_times_in_units_of_ours() -> None:
    labels, heights, shares = picture.bars(two_steps(), OPTIONS)
    assert labels == ["8 x 64, 3 blocks\n1 thread", "8 x 64, 3 blocks\n2 threads"]
    assert heights["numpy"] == [4.0, 2.0]
    assert heights["jax"][0] == 0.5 and math.isnan(heights["jax"][1])
    assert shares == [0.5, 0.25]
    assert picture.bars(two_steps()[:1], OPTIONS) == (labels[:1], {}, [0.5])


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, results in (("compare.png", two_steps()), ("step.png", two_steps()[:1])):
        picture.draw(results, tmp_path / name, OPTIONS, "a machine")
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="compare or step"):
        picture.draw([], tmp_path / "none.png", OPTIONS)


def test_a_picture_needs_a_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(program, "describe", lambda: pytest.fail("measured what cannot be drawn"))
    with pytest.raises(SystemExit):
        main(["gemm", "--picture", "gemm.png"])
    assert "expected a suite compare or step for a picture, got gemm" in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["--json", "--picture"])
def test_a_file_without_a_folder_is_refused_before_anything_is_timed(
    argument: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(program, "describe", lambda: pytest.fail("measured what cannot be written"))
    path = tmp_path / "none" / "file"
    assert cli.main(["bench", argument, str(path)]) == 1
    assert f"[bench] expected {argument} in a folder that exists, got {path}" in capsys.readouterr().err


def test_without_matplotlib_the_extra_is_named_before_anything_is_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(program, "describe", lambda: pytest.fail("measured without a way to draw"))
    assert cli.main(["bench", "--picture", "step.png"]) == 1
    assert 'pip install "gvcore[plot]"' in capsys.readouterr().err

"""How many threads there are and who decides, and what surrounds them: callers, crowds.

Whatever must not hang runs in a process of its own with a time limit.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import gvcore as gv
from gvcore import _core, nn
from gvcore.cli import main
from own_process import LINUX, TRAIN, printed, run


@pytest.fixture(autouse=True)
def restores() -> Iterator[None]:
    threads, worth = gv.get_num_threads(), _core.worth_waking()
    yield
    gv.set_num_threads(threads)
    _core.set_worth_waking(worth)


# ---- setting and reading ------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16])
def test_set_is_what_is_used(n: int) -> None:
    gv.set_num_threads(n)
    assert gv.get_num_threads() == n
    assert _core.team_size(n) == n


@pytest.mark.parametrize("n", [np.int64(3), np.uint8(2)])
def test_numpy_integers_are_integers(n: Any) -> None:
    gv.set_num_threads(n)
    assert gv.get_num_threads() == int(n) and type(gv.get_num_threads()) is int


@pytest.mark.parametrize(
    ("n", "error"),
    [(0, ValueError), (-1, ValueError), (-(2**70), ValueError), (2.0, TypeError), ("2", TypeError)]
    + [(True, TypeError), (None, TypeError), (np.float32(2), TypeError), ([2], TypeError)],
)
def test_what_is_no_number_of_threads(n: Any, error: type[Exception]) -> None:
    gv.set_num_threads(3)
    with pytest.raises(error, match=r"^\[set_num_threads\] expected .*n .*>= 1.*, got"):
        gv.set_num_threads(n)
    with pytest.raises(error, match=r", got"), gv.threads(n):
        pytest.fail("the block must not run")
    assert gv.get_num_threads() == 3


def test_threads_restores() -> None:
    gv.set_num_threads(5)
    with gv.threads(2):
        assert gv.get_num_threads() == 2
        with gv.threads(3):
            assert gv.get_num_threads() == 3
        assert gv.get_num_threads() == 2
    assert gv.get_num_threads() == 5


def test_threads_restores_after_an_exception() -> None:
    gv.set_num_threads(5)
    with pytest.raises(RuntimeError, match="from inside"), gv.threads(2):
        raise RuntimeError("from inside")
    assert gv.get_num_threads() == 5


@pytest.mark.parametrize("n", ["100000", "2**31", "2**40", "2**70"])
def test_more_threads_than_can_be_made_are_as_many_as_can(n: str) -> None:
    """libgomp ends the process when a thread cannot be made, so the number is found out beforehand."""
    code = f"import gvcore as gv\nfrom gvcore import _core\ngv.set_num_threads({n})\n"
    assert printed(code + "n = gv.get_num_threads()\nprint(1 <= _core.team_size(n) == n)") == "True"


# ---- what the environment says ------------------------------------------------------------------

TELL = """
import gvcore as gv
from gvcore import _core
print(gv.get_num_threads(), _core.num_threads_reason(), sep="|")
"""


def default_threads() -> int:
    return int(printed(TELL).split("|")[0])


def test_the_default_is_within_what_the_process_may_use() -> None:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert 1 <= default_threads() <= allowed


def test_omp_num_threads_limits_the_default() -> None:
    assert printed(TELL, OMP_NUM_THREADS="1").startswith("1|")
    if default_threads() > 1:
        assert printed(TELL, OMP_NUM_THREADS="1") == "1|OMP_NUM_THREADS"
    assert printed(TELL, OMP_NUM_THREADS="64").split("|")[0] == str(default_threads())


@pytest.mark.parametrize("n", [1, 3, 7])
def test_gvcore_num_threads_decides(n: int) -> None:
    assert printed(TELL, GVCORE_NUM_THREADS=str(n), OMP_NUM_THREADS="1") == f"{n}|GVCORE_NUM_THREADS"
    code = "import gvcore as gv\nfrom gvcore import _core\nprint(_core.team_size(gv.get_num_threads()))"
    assert printed(code, GVCORE_NUM_THREADS=str(n)) == str(n)


def test_gvcore_num_threads_that_is_empty_says_nothing() -> None:
    assert not printed(TELL, GVCORE_NUM_THREADS="").endswith("GVCORE_NUM_THREADS")


@pytest.mark.parametrize("text", ["1000000", "99999999999999999999"])
def test_gvcore_num_threads_of_more_than_can_be_made(text: str) -> None:
    code = TELL + "\nassert _core.team_size(gv.get_num_threads()) <= 4096"
    assert 1 <= int(printed(code, GVCORE_NUM_THREADS=text).split("|")[0]) <= 4096


def test_gvcore_num_threads_with_blanks() -> None:
    assert printed(TELL, GVCORE_NUM_THREADS=" 2 ") == "2|GVCORE_NUM_THREADS"


@pytest.mark.parametrize("text", ["0", "-3", "many", "2.5", "2x", " ", "2 3"])
def test_gvcore_num_threads_that_cannot_be_read(text: str) -> None:
    result = run("import gvcore", GVCORE_NUM_THREADS=text)
    assert result.returncode == 1
    assert result.stderr.strip("\n").splitlines()[-1] == (
        f"ImportError: [threads] expected GVCORE_NUM_THREADS to be a whole number of at least 1, got {text}"
    )


def test_set_num_threads_beats_the_environment() -> None:
    code = "import gvcore as gv\ngv.set_num_threads(3)\n" + TELL
    assert printed(code, GVCORE_NUM_THREADS="2", OMP_NUM_THREADS="1") == "3|set_num_threads"


@LINUX
def test_the_affinity_mask_limits_the_default() -> None:
    code = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + TELL
    assert printed(code).startswith("1|")


@pytest.mark.parametrize("isa", gv.available_isas())
def test_gvcore_isa_decides(isa: str) -> None:
    code = """
import numpy as np
import gvcore as gv
from gvcore import _core
gv.functional.matmul(np.eye(3), np.eye(3))
print(_core.active_isa())
"""
    assert printed(code, GVCORE_ISA=isa) == isa


FIRST_USES = {
    "kernel": "gv.functional.matmul(x, x)",
    "activation": "gv.functional.tanh(np.ones((700, 700)))",
    "random": "gv.nn.Linear(3, 2, seed=0).parameters()",
    "inference": "gv.nn.ReLU()(x)",
    "step": "gv.TrainStep(gv.nn.Linear(3, 3, init='ones'), gv.nn.MSELoss(), gv.optim.SGD(lr=0.1))(x, x)",
    "show": "gv.show_config()",
}


@pytest.mark.parametrize(
    ("name", "use"),
    [*(("sse9", use) for use in FIRST_USES), ("AVX 2", "kernel"), ("x" * 5000, "step"), ("é", "kernel")],
)
def test_gvcore_isa_that_is_unknown(name: str, use: str) -> None:
    """An error in words that lists what there is, when gvcore is imported; never a crash."""
    code = f"import numpy as np\nimport gvcore as gv\nx = np.eye(3)\n{FIRST_USES[use]}"
    result = run(code, GVCORE_ISA=name)
    assert result.returncode == 1, f"exit status {result.returncode}: {result.stdout}"
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: [isa] expected GVCORE_ISA to be one of ")
    assert last.endswith(f"got {name}")
    assert all(isa in last for isa in gv.available_isas())


def test_an_empty_gvcore_isa_is_none() -> None:
    code = "from gvcore import _core\nprint(_core.active_isa())"
    assert printed(code, GVCORE_ISA="") == gv.available_isas()[0]


def test_isa_restores_and_refuses() -> None:
    before = _core.active_isa()
    for name in gv.available_isas():
        with gv.isa(name):
            assert _core.active_isa() == name
        with pytest.raises(RuntimeError, match="from inside"), gv.isa(name):
            raise RuntimeError("from inside")
        assert _core.active_isa() == before
    with pytest.raises(ValueError, match=r"scalar.*got .*sse9|got .*sse9.*scalar"), gv.isa("sse9"):
        pytest.fail("the block must not run")
    for wrong in (None, 2, b"scalar"):
        with pytest.raises(TypeError, match=r"\[isa\] expected .*got"), gv.isa(wrong):
            pytest.fail("the block must not run")
    assert _core.active_isa() == before


def test_threadpoolctl_sees_and_limits() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    gv.set_num_threads(2)
    assert any(pool["user_api"] == "openmp" for pool in threadpoolctl.threadpool_info())
    with threadpoolctl.threadpool_limits(limits=1, user_api="openmp"):
        assert gv.get_num_threads() == 1
        _core.set_worth_waking(1.0)
        step, x, y = small_step()
        step(x, y)
        assert step.workers == 1
    assert gv.get_num_threads() == 2
    step(x, y)
    assert step.workers == 2
    with threadpoolctl.threadpool_limits(limits=1):
        assert gv.get_num_threads() == 1


# ---- what is shown ------------------------------------------------------------------------------


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    with gv.threads(3), gv.isa("scalar"):
        assert gv.show_config() is None
        shown = capsys.readouterr()
    assert shown.err == ""
    text = shown.out
    assert gv.__version__ in text and platform.python_version() in text and np.__version__ in text
    assert all(name in text for name in gv.available_isas())
    assert re.search(r"scalar \(in use\)", text) and text.count("(in use)") == 1
    assert re.search(r"threads +3 \(set_num_threads\)", text)
    assert text.endswith("\n") and _core.compiler in text


def test_info_shows_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    gv.show_config()
    expected = capsys.readouterr().out
    assert main(["info"]) == 0
    assert capsys.readouterr().out == expected


def test_python_m_gvcore_info() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "gvcore", "info"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "GVCORE_NUM_THREADS": "3", "GVCORE_ISA": "scalar"},
    )
    assert result.returncode == 0 and result.stderr == ""
    assert re.search(r"3 \(GVCORE_NUM_THREADS\)", result.stdout)
    assert "scalar (in use)" in result.stdout


# ---- crowds, callers ----------------------------------------------------------------------------

# A run in a process of its own: trains with `threads` and gives the digest of the weights.


def small_step(seed: int = 0, width: int = 45) -> tuple[gv.TrainStep, Any, Any]:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(90, 17)), rng.integers(0, 3, 90)
    net = gv.models.resnet(17, 3, width=width, depth=10, dropout=0.1, seed=seed)
    return gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1, momentum=0.9), seed=seed), x, y


def weights(seed: int, width: int, steps: int) -> bytes:
    step, x, y = small_step(seed, width)
    for _ in range(steps):
        step(x, y)
    return b"".join(p.tobytes() for p in step.net.parameters().values())


def test_more_threads_than_processors_finish() -> None:
    code = TRAIN + "print(train(1) == train(7, 10) == train(16), train(7, 200) == train(1, 200))"
    assert printed(code) == "True True"


@pytest.mark.parametrize("variable", ["OMP_THREAD_LIMIT=2", "OMP_DYNAMIC=true"])
def test_a_smaller_team_than_planned_computes_the_same(variable: str) -> None:
    """OpenMP may give fewer threads than asked for; the step says how many took part."""
    name, value = variable.split("=")
    train = TRAIN.replace("assert step.workers == threads", "teams.append((threads, step.workers))")
    code = """
teams = []
print(train(1) == train(7) == train(3), _core.team_size(7) < 7)
print(teams == [(n, _core.team_size(n)) for n in (1, 7, 3)] or teams)
"""
    assert printed(train + code, **{name: value}) == "True True\nTrue"


@LINUX
def test_threads_on_one_processor_finish() -> None:
    """The processors are taken away after the library has counted them."""
    code = TRAIN + "first = train(3)\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    assert printed(code + "print(first == train(3, 10) == train(2))") == "True"


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_two_nets_trained_at_once(threads: int) -> None:
    _core.set_worth_waking(1.0)
    jobs = [(0, 45, 60), (1, 33, 60), (2, 64, 60), (3, 17, 60)]
    with gv.threads(threads):
        expected = [weights(*job) for job in jobs]
        with ThreadPoolExecutor(len(jobs)) as pool:
            assert list(pool.map(lambda job: weights(*job), jobs)) == expected


def test_one_step_called_by_several_threads() -> None:
    """Calls wait for each other: as many updates as calls, and the bits of calls in a row."""
    _core.set_worth_waking(1.0)
    with gv.threads(2):
        (alone, x, y), (shared, _, _) = small_step(), small_step()
        losses = [alone(x, y) for _ in range(40)]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: shared(x, y), range(40)))
    assert sorted(found) == sorted(losses)
    for name, p in alone.net.parameters().items():
        np.testing.assert_array_equal(shared.net.parameters()[name], p)


def test_inference_by_several_threads() -> None:
    _core.set_worth_waking(1.0)
    with gv.threads(2):
        step, x, _ = small_step()
        batches = [x[:n] for n in (90, 1, 33, 64)] * 10
        expected = [step.net(b) for b in batches]
        with ThreadPoolExecutor(4) as pool:
            for got, want in zip(pool.map(step.net, batches), expected, strict=True):
                np.testing.assert_array_equal(got, want)


def test_settings_may_change_while_another_thread_trains() -> None:
    """Threads and instruction set are those of the process; a step under way keeps what it began with."""
    _core.set_worth_waking(1.0)
    with gv.threads(2):
        expected = weights(0, 45, 60)
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(weights, 0, 45, 60)
            changes = 0
            while not job.done():
                gv.set_num_threads(1 + changes % 3)
                with gv.isa(gv.available_isas()[changes % 2 % len(gv.available_isas())]):
                    changes += 1
            assert job.result() == expected
    assert changes > 0


@pytest.mark.parametrize("what", ["step", "net", "value_and_grad"])
def test_the_interpreter_goes_on_during_a_call(what: str) -> None:
    """Without the release of its lock the main thread would stand still until the call is over."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(700, 64)), rng.integers(0, 3, 700)
    net = gv.models.mlp(64, 3, [256, 256], seed=0)
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1))
    gradients = gv.value_and_grad(net, nn.CrossEntropyLoss())
    calls = {"step": lambda: step(x, y), "net": lambda: net(x), "value_and_grad": lambda: gradients(x, y)}
    entered, times = threading.Event(), []

    def work() -> None:
        calls[what]()
        entered.set()
        times.append(time.perf_counter())
        calls[what]()
        times.append(time.perf_counter())

    with gv.isa("scalar"), gv.threads(1):
        thread = threading.Thread(target=work)
        thread.start()
        entered.wait()
        ticks = []
        while thread.is_alive():
            time.sleep(0.001)
            ticks.append(time.perf_counter())
        thread.join()
    first, last = times
    inside = [t for t in ticks if first + 0.25 * (last - first) < t < first + 0.75 * (last - first)]
    assert len(inside) >= 2, f"{len(ticks)} ticks, none in the middle of {last - first:.3f} s"


def test_teams_that_are_tried_at_first_change_no_bit() -> None:
    """Seven workers, three, one, four steps each, and again; then one of these sizes."""
    assert _core.worth_waking() == 3000.0
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((128, 96)).astype(np.float32), rng.integers(0, 5, 128)

    def run(threads: int) -> tuple[list[int], list[float], list[bytes]]:
        net = gv.models.resnet(96, 5, width=128, depth=2, seed=1)
        step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1, momentum=0.9))
        teams, losses = [], []
        with gv.threads(threads):
            for _ in range(28):
                losses.append(step(x, y))
                teams.append(step.workers)
        return teams, losses, [p.tobytes() for p in net.parameters().values()]

    teams, losses, parameters = run(7)
    assert teams[:24] == 2 * ([7] * 4 + [3] * 4 + [1] * 4)
    assert teams[24:] == [teams[24]] * 4 and teams[24] in (7, 3, 1)
    expected_teams, expected_losses, expected_parameters = run(1)
    assert expected_teams == [1] * 28
    assert losses == expected_losses
    assert parameters == expected_parameters

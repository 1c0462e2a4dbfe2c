"""The kernels under pytest-benchmark, to compare two versions: ``pytest benchmarks/bench_kernels.py``.

``--benchmark-save`` and ``--benchmark-compare`` are those of the plugin. Results are checked before they are
timed. No limits, no peers and no targets: those are in the suites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gvcore as gv
from benchmarks import batchnorm, elementwise, gather, optim
from benchmarks import workloads as w
from gvcore.bench import gvcore_step
from gvcore.bench.check import check_answers, check_losses
from gvcore.bench.gemm import local
from gvcore.bench.prepared import Prepared
from gvcore.bench.product import Product
from gvcore.bench.residual_net import Net

TOLERANCE = 1e-4
ROWS, COUNT = 1024, 1 << 16

Benchmark = Callable[..., Any]


@pytest.fixture(autouse=True, params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Every kernel on one thread and, where there are two processors, on two."""
    if request.param > gv.get_num_threads():
        pytest.skip("this process may use one thread")
    with gv.threads(request.param):
        yield request.param


def checked(variants: Iterator[Prepared], expected: list[float]) -> Callable[[], object]:
    """Return the call to time, if its answers are right."""
    prepared = next(variants)
    check_answers(prepared.settings, expected, {"gvcore": {"": prepared.first_answers()}}, TOLERANCE)
    return prepared.step


@pytest.mark.parametrize("layout", ["nn", "nt", "tn"])
@pytest.mark.parametrize("side", [64, 128, 256, 512])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gemm(benchmark: Benchmark, side: int, layout: str, dtype: str) -> None:
    benchmark(local(Product(side, side, side, layout, dtype)).call)


@pytest.mark.parametrize("columns", [64, 256])
def test_batchnorm(benchmark: Benchmark, columns: int, threads: int) -> None:
    case = {"rows": ROWS, "columns": columns}
    benchmark(checked(batchnorm.ours(case, threads), w.batchnorm_oracle(**case)))


@pytest.mark.parametrize("name", w.ACTIVATIONS)
def test_elementwise(benchmark: Benchmark, name: str, threads: int) -> None:
    case = {"name": name, "count": COUNT}
    benchmark(checked(elementwise.ours(case, threads), w.elementwise_oracle(name, COUNT)))


@pytest.mark.parametrize("count", [COUNT, 1 << 22])
def test_optim(benchmark: Benchmark, count: int, threads: int) -> None:
    benchmark(checked(optim.ours({"count": count}, threads), w.optim_oracle(count)))


@pytest.mark.parametrize("net", [Net(8, 64, 64), Net(128, 128, 16)], ids=str)
def test_step(benchmark: Benchmark, net: Net, threads: int) -> None:
    prepared = next(gvcore_step.prepare(net.to_dict(), threads))
    check_losses(net, {"gvcore": {"": prepared.first_answers()}})
    benchmark(prepared.step)


def test_gather(benchmark: Benchmark) -> None:
    calls = gather.steps(60_000, 784, 200)
    assert [calls["gvcore"]() for _ in range(3)] == [calls["take + step"]() for _ in range(3)]
    benchmark(calls["gvcore"])

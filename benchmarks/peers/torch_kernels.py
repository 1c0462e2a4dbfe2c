"""Single kernels of PyTorch: the product, batch norm, activations, SGD."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import workloads as w
from gvcore.bench.prepared import Prepared
from gvcore.bench.product import Product, check

__all__ = ["batchnorm", "elementwise", "product", "sgd", "sgd_fused"]


def _torch(threads: int) -> Any:
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    return torch


def product(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """`torch.matmul` into an array that is there already."""
    torch = _torch(threads)
    sizes = Product(**case)
    a, b = sizes.operands()
    left, right = (torch.from_numpy(x) for x in (a, b))  # transposed views stay views
    out = torch.empty((sizes.m, sizes.n), dtype=left.dtype)

    def answers() -> list[float]:
        torch.matmul(left, right, out=out)
        check(sizes, a, b, out.numpy())
        return []

    yield Prepared(lambda: torch.matmul(left, right, out=out), f"torch {torch.__version__}", answers)


def batchnorm(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """Forward and backward through autograd; its kernels alone, without a graph, as the second variant."""
    torch = _torch(threads)
    arrays = [torch.from_numpy(array) for array in w.batchnorm_arrays(**case)]
    x, dy, gamma, beta = arrays

    def by_autograd() -> Any:
        leaves = [part.detach().requires_grad_() for part in (x, gamma, beta)]
        y = torch.nn.functional.batch_norm(leaves[0], None, None, leaves[1], leaves[2], True, 0.1, w.EPS)
        y.backward(dy)
        return y.detach(), *(leaf.grad for leaf in leaves)

    def by_kernels() -> Any:
        y, mean, rstd = torch.native_batch_norm(x, gamma, beta, None, None, True, 0.1, w.EPS)
        wanted = [True, True, True]
        return y, *torch.ops.aten.native_batch_norm_backward(
            dy, x, gamma, None, None, mean, rstd, True, w.EPS, wanted
        )

    for call, name in ((by_kernels, "kernels"), (by_autograd, "autograd")):

        def answers(call: Any = call) -> list[float]:
            return w.batchnorm_answers(*(part.numpy() for part in call()))

        yield Prepared(call, f"torch {torch.__version__}, {name}", answers)


def elementwise(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """An activation into an array that is there already, where PyTorch can."""
    torch = _torch(threads)
    x = torch.from_numpy(w.values(case["count"], 0))
    out = torch.empty_like(x)
    name = case["name"]
    call = {
        "relu": lambda: torch.clamp_min(x, 0, out=out),
        "gelu": lambda: torch.ops.aten.gelu.out(x, out=out),
        "tanh": lambda: torch.tanh(x, out=out),
        "sigmoid": lambda: torch.sigmoid(x, out=out),
    }[name]
    yield Prepared(
        call, f"torch {torch.__version__}", lambda: w.elementwise_answers(np.asarray(call().numpy()))
    )


def _sgd(case: dict[str, Any], threads: int, **settings: bool) -> Iterator[Prepared]:
    torch = _torch(threads)
    start, gradient, _ = w.optim_arrays(case["count"])
    parameter = torch.nn.Parameter(torch.from_numpy(start))
    parameter.grad = torch.from_numpy(gradient)
    optimizer = torch.optim.SGD([parameter], lr=w.LR, momentum=w.MOMENTUM, weight_decay=w.DECAY, **settings)

    def answers() -> list[float]:
        for _ in range(w.OPTIM_STEPS):
            optimizer.step()
        return w.optim_answers(parameter.detach().numpy())

    shown = ", ".join(f"{name}={value}" for name, value in settings.items())
    yield Prepared(optimizer.step, f"torch {torch.__version__}, SGD({shown})", answers)


def sgd(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """What `torch.optim.SGD` does on a CPU unless told otherwise: one operation after another."""
    return _sgd(case, threads, foreach=False, fused=False)


def sgd_fused(case: dict[str, Any], threads: int) -> Iterator[Prepared]:
    """All operations in one pass."""
    return _sgd(case, threads, fused=True)

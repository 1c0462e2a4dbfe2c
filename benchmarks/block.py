"""Suite ``block``: Linear, batch norm, ReLU and residual, forward and backward, over its three bare products.

A block is the slope between a shallow and a deep stack, so that the loss, the ends of the stack and the call
do not count. It is timed in a `TrainStep` that accumulates: one native call which computes and keeps all
gradients and updates nothing (`value_and_grad` would copy them out, too). Its bare products are gvcore's own,
on as many different arrays and in the layouts of the step: x Wᵀ (nt), dz W (nn) and dzᵀ x (tn), less what a
call costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

import gvcore as gv
from benchmarks import workloads as w
from gvcore import nn
from gvcore.bench.figures import Figure
from gvcore.bench.harness import Contestant, Local, Options, interleave, summarize
from gvcore.bench.machine import Peak
from gvcore.bench.report import OURS, Limit, Result, Summary

__all__ = ["bare", "check_stack", "per_block", "run", "stack", "target"]

ROWS = 256
SHALLOW, DEEP = 4, 20
WIDTHS, QUICK = [64, 128, 256, 512], [64, 256]


def target(width: int) -> float | None:
    """Return how many times its bare products a block may take."""
    return 1.10 if width >= 256 else 1.3 if width == 64 else None


def _net(width: int, depth: int) -> nn.Module:
    blocks = [
        nn.Residual(nn.Linear(width, width, bias=False, seed=i), nn.BatchNorm(width), nn.ReLU())
        for i in range(depth)
    ]
    return nn.Sequential(*blocks)


def stack(width: int, depth: int, rows: int = ROWS) -> Callable[[], float]:
    """Return forward and backward of so many blocks."""
    step = gv.TrainStep(_net(width, depth), nn.MSELoss(), gv.optim.SGD(lr=1e-6))
    x, y = (w.values(rows * width, seed).reshape(rows, width) for seed in (0, 1))
    return lambda: step(x, y, accumulate=True)


def bare(width: int, count: int, rows: int = ROWS) -> Callable[[], None]:
    """Return the products of so many blocks, each on arrays of its own."""
    matmul = gv.functional.matmul
    x, dz = (list(w.values(count * rows * width, seed).reshape(count, rows, width)) for seed in (0, 1))
    weight = list(w.values(count * width * width, 2).reshape(count, width, width))
    z, dx = (list(np.empty((count, rows, width), np.float32)) for _ in range(2))
    dweight = list(np.empty((count, width, width), np.float32))

    def forward_and_back() -> None:
        for i in range(count):
            matmul(x[i], weight[i].T, out=z[i])
        for i in reversed(range(count)):
            matmul(dz[i], weight[i], out=dx[i])
            matmul(dz[i].T, x[i], out=dweight[i])

    forward_and_back()
    for found, a, b in ((z, x[-1], weight[-1].T), (dx, dz[-1], weight[-1]), (dweight, dz[-1].T, x[-1])):
        bound = a.shape[1] * 2.0**-24 * (abs(a).astype(float) @ abs(b).astype(float))
        if not (abs(found[-1] - a.astype(float) @ b.astype(float)) <= bound).all():
            raise AssertionError("[bench] expected the products of a block, got something else")
    return forward_and_back


def check_stack(width: int) -> None:
    """Raise unless the loss and a gradient of a stack are those of NumPy in float64."""
    net = _net(width, 1)
    x, y = (w.values(ROWS * width, seed).reshape(ROWS, width) for seed in (0, 1))
    loss, gradients = gv.value_and_grad(net, nn.MSELoss())(x, y)
    wide, weight = x.astype(float), net.parameters()["0.layers.0.weight"].astype(float)
    z = wide @ weight.T
    centred = z - z.mean(axis=0)
    rstd = 1 / np.sqrt((centred**2).mean(axis=0) + 1e-5)
    xhat = centred * rstd
    difference = wide + np.maximum(xhat, 0) - y
    g = 2 * difference / difference.size * (xhat > 0)
    dz = rstd * (g - g.mean(axis=0) - xhat * (g * xhat).mean(axis=0))
    wanted = dz.T @ wide
    found = gradients["0.layers.0.weight"]
    if abs(loss / (difference**2).mean() - 1) > 1e-5 or abs(found - wanted).max() > 1e-4 * abs(wanted).max():
        raise AssertionError(f"[bench] expected a block of width {width} to compute its gradient")


def per_block(deep: Summary, shallow: Summary) -> Summary:
    """Return what a block takes: the slope of each statistic."""
    blocks = DEEP - SHALLOW
    parts = {
        name: (getattr(deep, name) - getattr(shallow, name)) / blocks
        for name in ("median", "minimum", "first_quartile", "third_quartile")
    }
    return Summary(**parts, samples=deep.samples)


def run(options: Options) -> Iterator[Result]:
    """Time blocks of several widths."""
    threads = options.threads or 1
    for width in QUICK if options.quick else WIDTHS:
        with gv.threads(threads):
            check_stack(width)
            one = np.ones((1, 1), np.float32)
            out = np.empty((1, 1), np.float32)
            peak = Peak(threads)
            contestants: dict[str, Contestant] = {
                "peak": peak,
                "deep": Local(stack(width, DEEP)),
                "shallow": Local(stack(width, SHALLOW)),
                "bare": Local(bare(width, DEEP - SHALLOW)),
                "call": Local(lambda: gv.functional.matmul(one, one, out=out)),  # noqa: B023
            }
            samples = interleave(contestants, options.effort)
        flop = 6 * ROWS * width * width
        limit = Limit(flop, 0.0, peak.rate(samples.pop("peak")), 1.0)
        call = options.seconds(summarize(samples["call"]))
        products = summarize([s / (DEEP - SHALLOW) - 3 * call for s in samples["bare"]])
        ours = per_block(summarize(samples["deep"]), summarize(samples["shallow"]))
        result = Result(
            "block",
            f"{ROWS} rows, width {width}",
            {"rows": ROWS, "width": width, "shallow": SHALLOW, "deep": DEEP},
            threads,
            limit,
            {OURS: ours, "bare products": products},
        )
        over = options.seconds(ours) / options.seconds(products)
        aim = target(width) if threads == 1 else None
        result.figures = [Figure("x products", over, target=aim, at_most=True), result.share(options)]
        yield result

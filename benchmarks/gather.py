"""Suite ``gather``: a step on rows in shuffled order, gathered in C++, next to rows in order and to NumPy.

The net is one narrow layer, so that a step is little more than reading its rows. "in order" is the step on
rows that lie one after the other, "take + step" first copies the batch with NumPy, as a loop in Python would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle

import numpy as np

import gvcore as gv
from benchmarks import workloads as w
from gvcore import nn
from gvcore.bench.harness import Contestant, Local, Options, interleave, summarize
from gvcore.bench.report import OURS, Result
from gvcore.train.batch import Batch

__all__ = ["run", "steps"]

# (samples, features, batch): rows of pictures, rows of a table.
CASES = [(60_000, 784, 200), (1_000_000, 32, 1024)]


def steps(samples: int, features: int, batch: int) -> dict[str, Callable[[], float]]:
    """Return a step for each way to come by its rows; each call takes the next batch and returns the loss."""
    x = w.values(samples * features, 0).reshape(samples, features)
    y = w.values(samples, 1)
    count = samples // batch
    shuffled = np.random.default_rng(0).permutation(samples)[: count * batch].reshape(count, batch)
    orders = {OURS: shuffled, "in order": np.arange(count * batch).reshape(count, batch)}

    def train() -> gv.TrainStep:
        net = nn.Linear(features, 1, init="zeros")
        return gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=1e-6))

    def by_index(order: np.ndarray) -> Callable[[], float]:
        step, rows = train(), cycle(order.astype(np.int64))
        whole = Batch([x], y, False)

        def call() -> float:
            whole.order = next(rows)
            return step.run(whole)

        return call

    def by_take() -> Callable[[], float]:
        step, rows = train(), cycle(shuffled)
        xs, ys = np.empty((batch, features), np.float32), np.empty(batch, np.float32)

        def call() -> float:
            chosen = next(rows)
            np.take(x, chosen, axis=0, out=xs, mode="clip")  # other modes copy once more
            np.take(y, chosen, out=ys, mode="clip")
            return step(xs, ys)

        return call

    return {**{name: by_index(order) for name, order in orders.items()}, "take + step": by_take()}


def run(options: Options) -> Iterator[Result]:
    """Time the three ways."""
    for sizes in CASES[:1] if options.quick else CASES:
        threads = options.threads or 1
        with gv.threads(threads):
            calls = steps(*sizes)
            # From the same weights on the same rows, so the same bits.
            if [calls[OURS]() for _ in range(3)] != [calls["take + step"]() for _ in range(3)]:
                raise AssertionError("[bench] expected rows gathered by gvcore to give the losses of NumPy's")
            contestants: dict[str, Contestant] = {name: Local(call) for name, call in calls.items()}
            samples = interleave(contestants, options.effort)
        label = f"{sizes[2]} of {sizes[0]} rows of {sizes[1]}"
        case = dict(zip(("samples", "features", "batch"), sizes, strict=True))
        times = {name: summarize(seconds) for name, seconds in samples.items()}
        yield Result("gather", label, case, threads, times=times)

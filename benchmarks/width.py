"""Suite ``width``: the step of 10-w-w-10 with ReLU for widths around 45, batch 128: there must be no cliff.

Threads that are woken for work too small for them make such cliffs: one unit more, and a step takes several
times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

import gvcore as gv
from gvcore import nn
from gvcore.bench.figures import Figure
from gvcore.bench.harness import Contestant, Local, Options, interleave, summarize
from gvcore.bench.report import OURS, Result

__all__ = ["cliff", "run", "step"]

WIDTHS, BATCH, FEATURES, CLASSES = range(40, 51), 128, 10, 10
MOST = 1.5


def step(width: int) -> Local:
    """Return the step of one width, checked to learn."""
    net = gv.models.mlp(FEATURES, CLASSES, [width, width], activation="relu", seed=0)
    train = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=1e-3))
    random = np.random.default_rng(0)
    x = random.standard_normal((BATCH, FEATURES), dtype=np.float32)
    y = random.integers(0, CLASSES, BATCH)
    first = train(x, y)
    for _ in range(20):
        last = train(x, y)
    if not last < first:
        raise AssertionError(f"[bench] expected a step of width {width} to learn, got {first} and {last}")
    return Local(lambda: train(x, y))


def cliff(seconds: Mapping[int, float], width: int) -> float:
    """Return the time of a width over that of its faster neighbour."""
    return seconds[width] / min(seconds[w] for w in (width - 1, width + 1) if w in seconds)


def run(options: Options) -> Iterator[Result]:
    """Time all widths, turn by turn."""
    most = gv.get_num_threads()
    for threads in [options.threads] if options.threads else sorted({1, min(2, most), most}):
        with gv.threads(threads):
            contestants: dict[str, Contestant] = {str(width): step(width) for width in WIDTHS}
            samples = interleave(contestants, options.effort)
        times = {int(width): summarize(found) for width, found in samples.items()}
        seconds = {width: options.seconds(time) for width, time in times.items()}
        for width, time in times.items():
            figure = Figure("x neighbour", cliff(seconds, width), target=MOST, at_most=True)
            sizes = {"width": width, "batch": BATCH}
            yield Result("width", f"width {width}", sizes, threads, None, {OURS: time}, figures=[figure])

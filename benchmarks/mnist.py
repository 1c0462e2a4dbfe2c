"""Suite ``mnist``: an epoch of a small net over 60,000 pictures, by gvcore, PyTorch and scikit-learn.

The pictures are those of ``mnist/`` in GVCORE_DATA_DIR; without it, random numbers of the same shape, and the
table says so: time does not depend on what the pictures show.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import gvcore as gv
from benchmarks import digits_mlp as mlp
from benchmarks.kernels import ROOT
from gvcore.bench.check import check_answers
from gvcore.bench.figures import Figure, ratio
from gvcore.bench.harness import Contestant, Options, interleave, summarize
from gvcore.bench.machine import Memory, Peak
from gvcore.bench.remote import start
from gvcore.bench.report import OURS, Limit, Result

__all__ = ["ROWS", "run", "write_data"]

FUNCTIONS = {
    OURS: "benchmarks.peers.mnist_epoch:gvcore",
    "torch": "benchmarks.peers.mnist_epoch:torch",
    "sklearn": "benchmarks.peers.mnist_epoch:sklearn",
}
ROWS = 60_000
# Of a loss after ten updates: a unit that rounding alone puts on one side of zero moves one by 2e-4,
# momentum 0.8 instead of 0.9 by 1e-2.
_TOLERANCE = 1e-3


def write_data(folder: Path, rows: int) -> str:
    """Write x.npy and y.npy for the processes of the peers, and return what they are."""
    given = os.environ.get("GVCORE_DATA_DIR")
    if given and (Path(given) / "mnist").is_dir():
        pictures = gv.datasets.load_idx(Path(given) / "mnist" / "train-images-idx3-ubyte.gz")[:rows]
        labels = gv.datasets.load_idx(Path(given) / "mnist" / "train-labels-idx1-ubyte.gz")[:rows]
        x, kind = pictures.reshape(len(pictures), -1) / np.float32(255), "MNIST"
    else:
        random = np.random.default_rng(0)
        x, labels = random.random((rows, mlp.SIZES[0]), np.float32), random.integers(0, mlp.SIZES[-1], rows)
        kind = "random pictures (GVCORE_DATA_DIR is unset)"
    np.save(folder / "x.npy", x.astype(np.float32))
    np.save(folder / "y.npy", labels.astype(np.int64))
    return kind


def run(options: Options) -> Iterator[Result]:
    """Time one epoch."""
    threads = options.threads or min(2, gv.get_num_threads())
    aimed = threads == 2
    wanted = Options(**{**vars(options), "peers": (*(options.peers or FUNCTIONS), OURS)})
    with tempfile.TemporaryDirectory() as name, start(FUNCTIONS, threads, wanted, ROOT) as (remotes, skipped):
        kind = write_data(Path(name), ROWS)
        contestants: dict[str, Contestant] = {}
        result = Result("mnist", f"{kind}, {'-'.join(map(str, mlp.SIZES))}", {"rows": ROWS}, threads)
        result.skipped = skipped
        answers = {}
        for peer, remote in remotes.items():
            if remote.prepare({"folder": name}):
                contestants[peer], answers[peer] = remote, remote.answers
                result.settings[peer] = remote.settings
            else:
                skipped[peer] = str(remote.skipped)
        check_answers("the MNIST epoch", mlp.first_losses(*mlp.data(name)), answers, _TOLERANCE)
        peak, memory = Peak(threads), Memory(threads, mlp.epoch_bytes(ROWS))
        samples = interleave({"peak": peak, "memory": memory, **contestants}, options.effort)
    rates = peak.rate(samples.pop("peak")), memory.rate(samples.pop("memory"))
    result.limit = Limit(mlp.epoch_flop(ROWS), mlp.epoch_bytes(ROWS), *rates)
    result.times = {peer: summarize(seconds) for peer, seconds in samples.items()}
    seconds = {peer: options.seconds(time) for peer, time in result.times.items()}
    result.figures = [
        Figure("x torch", ratio(seconds.get("torch"), seconds[OURS]), target=3.0 if aimed else None),
        Figure("x sklearn", ratio(seconds.get("sklearn"), seconds[OURS]), target=4.5 if aimed else None),
        result.share(options, 0.60 if aimed else None),
    ]
    yield result

"""Suite ``shapes``: products of random shapes against the best peer, and what a call costs at least.

A shape of less than 2e5 flop is over before the call is, so the small ones are judged by the call itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

import gvcore as gv
from benchmarks.kernels import ROOT
from gvcore.bench.figures import Figure, geometric_mean, percentile, ratio
from gvcore.bench.gemm import local
from gvcore.bench.harness import Contestant, Effort, Options, Summary, interleave, summarize
from gvcore.bench.product import Product
from gvcore.bench.remote import Remote, start
from gvcore.bench.report import OURS, Result

__all__ = ["best_ratio", "random_shapes", "run", "skinny_shapes", "summary", "tiny_shapes"]

PEERS = {
    "numpy": "gvcore.bench.product:prepare",
    "numpy avx512": "gvcore.bench.product:prepare",
    "torch": "benchmarks.peers.torch_kernels:product",
}
LEAST_FLOP = 2e5
LAYOUTS = ("nn", "nt", "tn")
WORST = 5


def random_shapes(count: int, seed: int = 0) -> list[Product]:
    """Draw shapes with sides 1 to 160 and at least 2e5 flop."""
    random = np.random.default_rng(seed)
    found: list[Product] = []
    while len(found) < count:
        m, n, k = (int(side) for side in random.integers(1, 161, 3))
        product = Product(m, n, k, str(random.choice(LAYOUTS)))
        if product.flop >= LEAST_FLOP:
            found.append(product)
    return found


def skinny_shapes(count: int, seed: int = 1) -> list[Product]:
    """Draw shapes with one side of 1 to 16 and two of 256 to 2048, at least 2e5 flop."""
    random = np.random.default_rng(seed)
    found: list[Product] = []
    while len(found) < count:
        sides = [int(side) for side in random.integers(256, 2049, 3)]
        sides[len(found) % 3] = int(random.integers(1, 17))
        product = Product(*sides, str(random.choice(LAYOUTS)))
        if product.flop >= LEAST_FLOP:
            found.append(product)
    return found


def tiny_shapes() -> list[Product]:
    """Return cubes whose product takes no time."""
    return [Product(side, side, side) for side in (1, 2, 4, 8)]


def best_ratio(times: Mapping[str, Summary], options: Options) -> float | None:
    """Return the time of the best peer over ours, None without peers."""
    seconds = {name: options.seconds(time) for name, time in times.items()}
    ours = seconds.pop(OURS)
    return ratio(min(seconds.values(), default=None), ours)


def _time(
    product: Product, remotes: Mapping[str, Remote], skipped: dict[str, str], options: Options, effort: Effort
) -> Result:
    contestants: dict[str, Contestant] = {}
    settings: dict[str, str] = {}
    for peer, remote in remotes.items():
        if remote.prepare(product.to_dict()):
            contestants[peer], settings[peer] = remote, remote.settings
        else:
            skipped[peer] = str(remote.skipped)
    samples = interleave({OURS: local(product), **contestants}, effort)
    times = {name: summarize(seconds) for name, seconds in samples.items()}
    return Result("shapes", str(product), product.to_dict(), 1, None, times, settings, dict(skipped))


def summary(results: Sequence[Result], label: str, options: Options) -> Result:
    """Return the percentile and the mean of the ratios to the best peer."""
    ratios = [r for r in (best_ratio(result.times, options) for result in results) if r is not None]
    skipped = {name: why for result in results for name, why in result.skipped.items()}
    partial = any(why.endswith("not installed") for why in skipped.values()) or not options.wants("torch")
    figures = [
        Figure("5th percentile", percentile(ratios, 5) if ratios else None, "x", 0.95, partial=partial),
        Figure("geometric mean", geometric_mean(ratios) if ratios else None, "x", 1.3, partial=partial),
        Figure("worst", min(ratios, default=None), "x"),
    ]
    sizes = {"shapes": [dict(r.sizes, ratio=best_ratio(r.times, options)) for r in results]}
    group, threads = "best peer / gvcore", results[0].threads
    return Result("shapes", label, sizes, threads, skipped=skipped, figures=figures, group=group)


def run(options: Options) -> Iterator[Result]:
    """Time all shapes shortly, the worst of them again at length, and the smallest calls."""
    threads = options.threads or 1
    sets = {"random, sides 1-160": random_shapes(300), "one side 1-16": skinny_shapes(100)}
    if options.quick:
        sets = {name: shapes[: len(shapes) // 10] for name, shapes in sets.items()}
    short = replace(options.effort, rounds=3, seconds=min(0.02, options.effort.seconds), pause=0.002)
    with gv.threads(threads), start(PEERS, threads, options, ROOT) as (remotes, skipped):
        timed: list[Result] = []
        groups = {}
        for name, shapes in sets.items():
            groups[name] = [_time(product, remotes, skipped, options, short) for product in shapes]
            timed += groups[name]
        worst = sorted(timed, key=lambda r: best_ratio(r.times, options) or 0.0)[:WORST] if remotes else []
        again = []
        for result in worst:
            # A short measurement picks the unlucky along with the slow, so these are measured again.
            more = _time(Product(**result.sizes), remotes, skipped, options, options.effort)
            result.times, more.group = more.times, "the worst, timed again"
            more.figures = [Figure("best peer / gvcore", best_ratio(more.times, options))]
            again.append(more)
        for result in [*timed, *again]:
            result.threads = threads
        for name, results in groups.items():
            yield summary(results, f"{len(results)} {name}", options)
        yield summary(timed, f"all {len(timed)}", options)
        yield from again
        for product in tiny_shapes():
            result = _time(product, remotes, skipped, options, short)
            result.threads, result.group = threads, "the smallest calls"
            cost = options.seconds(result.times[OURS])
            result.figures = [Figure("a call", cost, "us", 1.2e-6, at_most=True)]
            yield result

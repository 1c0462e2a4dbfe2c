"""The step in JAX: the whole of it in one `jax.jit` with donated buffers, the blocks as a scan and, where
they are few, unrolled.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from gvcore.bench.prepared import Prepared
from gvcore.bench.residual_net import DECAY, EPS, MOMENTUM, RATE, RUNNING_MOMENTUM, Net

__all__ = ["prepare"]

MOST_UNROLLED_BLOCKS = 64  # compiling takes a second per block


def _step(jax: Any, net: Net, unrolled: bool) -> Callable[[], float]:
    jnp, lax = jax.numpy, jax.lax
    rows = net.batch
    parameters = {name: jnp.asarray(value) for name, value in net.values()}
    if unrolled:
        for name in ("weight", "gamma", "beta"):
            parameters[name] = list(parameters[name])
    x_all, y_all = (jnp.asarray(array) for array in net.data())

    def block(x: Any, weight: Any, gamma: Any, beta: Any) -> Any:
        z = x @ weight.T
        mean, variance = z.mean(axis=0), z.var(axis=0)
        out = (z - mean) * (gamma * lax.rsqrt(variance + EPS)) + beta
        return x + jax.nn.relu(out), (mean, variance)

    def loss_of(p: Any, x: Any, y: Any) -> Any:
        h = x @ p["first_weight"].T + p["first_bias"]
        layers = (p["weight"], p["gamma"], p["beta"])
        if unrolled:
            found = []
            for layer in zip(*layers, strict=True):
                h, moments = block(h, *layer)
                found.append(moments)
            statistics = tuple(list(part) for part in zip(*found, strict=True))
        else:
            h, statistics = lax.scan(lambda h, layer: block(h, *layer), h, layers)
        logits = jax.nn.log_softmax(h @ p["last_weight"].T + p["last_bias"])
        return -jnp.take_along_axis(logits, y[:, None], axis=1).mean(), statistics

    def update(p: Any, velocity: Any, running: Any, start: Any, x_all: Any, y_all: Any) -> Any:
        x = lax.dynamic_slice_in_dim(x_all, start, rows)
        y = lax.dynamic_slice_in_dim(y_all, start, rows)
        (loss, (mean, variance)), g = jax.value_and_grad(loss_of, has_aux=True)(p, x, y)
        velocity = jax.tree.map(lambda v, g, p: MOMENTUM * v + (g + DECAY * p), velocity, g, p)
        p = jax.tree.map(lambda p, v: p - RATE * v, p, velocity)
        unbiased = jax.tree.map(lambda v: v * (rows / (rows - 1)), variance)
        running = jax.tree.map(
            lambda old, new: old + RUNNING_MOMENTUM * (new - old), running, (mean, unbiased)
        )
        return p, velocity, running, loss

    step_of = jax.jit(update, donate_argnums=(0, 1, 2))
    shapes = parameters["gamma"]
    running = (jax.tree.map(jnp.zeros_like, shapes), jax.tree.map(jnp.ones_like, shapes))
    state = [parameters, jax.tree.map(jnp.zeros_like, parameters), running]
    starts = net.starts()

    def step() -> float:
        *state[:], loss = step_of(*state, next(starts), x_all, y_all)
        return float(loss)

    return step


def prepare(case: dict[str, int], threads: int) -> Iterator[Prepared]:
    net = Net(**case)
    # XLA makes as many threads as it may use processors; there is no other switch for all its pools.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax = importlib.import_module("jax")
    yield Prepared(_step(jax, net, unrolled=False), f"JAX {jax.__version__}, scan")
    if net.depth <= MOST_UNROLLED_BLOCKS:
        yield Prepared(_step(jax, net, unrolled=True), f"JAX {jax.__version__}, unrolled")

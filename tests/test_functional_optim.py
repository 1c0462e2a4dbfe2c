"""sgd_update, adam_update and clip_grad_norm against the oracle.

Bounds. Each update is a handful of operations on one element, so its error is at most 8u times the
sum of the magnitudes it adds (the same formula on absolute values). The norm sums squares with
c = 4096/16 + 16 roundings at most.
"""

import math

import numpy as np
import pytest

import gvcore as gv
import gvcore.functional as F
import oracles as o
from functional_cases import (
    SIZES,
    assert_within,
    each_dtype,
    each_wrong_kind,
    layouts,
    normal,
    on_every_isa,
    rejected,
    tiny,
    ulps,
    wrong_kind,
)

isa = on_every_isa

SGD = [
    {},
    {"weight_decay": 0.01},
    {"momentum": 0.9},
    {"momentum": 0.9, "first": True},
    {"momentum": 0.9, "weight_decay": 0.1, "dampening": 0.3},
    {"momentum": 0.9, "weight_decay": 0.1, "dampening": 0.3, "first": True},
    {"momentum": 0.5, "nesterov": True},
    {"momentum": 0.5, "nesterov": True, "first": True, "weight_decay": 1e-4},
    {"momentum": 0.9, "dampening": 1.0},
    {"lr": 0.0, "momentum": 0.9},
]
ADAM = [
    {},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "decoupled": False},
    {"step": 1000, "betas": (0.5, 0.75)},
    {"eps": 1e-2},
    {"betas": (0.0, 0.0)},
    {"lr": 0.0},
    {"step": 10**7},
]


def four(n, dtype):
    p, g, m = (normal(n, dtype=dtype, seed=i) for i in range(3))
    return p, g, m, normal(n, dtype=dtype, seed=3) ** 2


@each_dtype
@pytest.mark.parametrize("options", SGD, ids=str)
def test_sgd(isa, dtype, options):
    options = {"lr": 0.1, **options}
    for n in SIZES + [4097]:
        p, g, v, _ = four(n, dtype)
        velocity = v if options.get("momentum") else None
        wide = [o.wide(a) for a in (p, g, v)]
        expected = o.sgd(*wide, **options)
        size = o.sgd(*map(np.abs, wide), **{**options, "lr": -options["lr"]})  # all terms add
        assert F.sgd_update(p, g, velocity, **options) is None
        assert_within(p, expected[0], ulps(8, dtype) * size[0], dtype=dtype)
        assert_within(v, expected[1], ulps(8, dtype) * size[1], dtype=dtype)
        np.testing.assert_array_equal(g, normal(n, dtype=dtype, seed=1))


@each_dtype
def test_sgd_over_many_steps(isa, dtype):
    """First step with first=True, then the recurrence: the whole life of an optimiser."""
    p, v, options = (
        normal(33, dtype=dtype),
        np.full(33, np.nan, dtype),
        {"momentum": 0.9, "weight_decay": 1e-4},
    )
    true_p, true_v = o.wide(p), None
    for step in range(20):
        g = normal(33, dtype=dtype, seed=step)
        F.sgd_update(p, g, v, lr=0.1, first=step == 0, **options)
        true_p, true_v = o.sgd(true_p, o.wide(g), true_v, lr=0.1, first=step == 0, **options)
    assert_within(p, true_p, ulps(400, dtype), dtype=dtype)
    assert_within(v, true_v, ulps(400, dtype), dtype=dtype)


@each_dtype
@pytest.mark.parametrize("options", ADAM, ids=str)
def test_adam(isa, dtype, options):
    options = {"lr": 0.1, "step": 3, **options}
    for n in SIZES + [4097]:
        p, g, m, v = arrays = four(n, dtype)
        wide = [o.wide(a) for a in arrays]
        expected = o.adam(*wide, **options)
        decay = options.get("weight_decay", 0) * (not options.get("decoupled", True))
        b1, b2 = options.get("betas", (0.9, 0.999))
        size_g = np.abs(wide[1]) + decay * np.abs(wide[0])
        size_m = b1 * np.abs(wide[2]) + (1 - b1) * size_g
        size_v = b2 * wide[3] + (1 - b2) * size_g**2
        # The second moment moves the step by half its relative error, and a cancelled gradient is
        # part of that; where it is all there is (betas 0) the step is the sign of the gradient.
        relative = size_v / np.maximum(expected[2], 1e-300)
        denominator = np.sqrt(expected[2]) / math.sqrt(1 - b2 ** options["step"]) + options.get("eps", 1e-8)
        size_step = options["lr"] / (1 - b1 ** options["step"]) * size_m / denominator * (2 + relative)
        assert F.adam_update(*arrays, **options) is None
        assert_within(p, expected[0], ulps(8, dtype) * (np.abs(wide[0]) + size_step), dtype=dtype)
        assert_within(m, expected[1], ulps(8, dtype) * size_m + tiny(dtype), dtype=dtype)
        assert_within(v, expected[2], ulps(8, dtype) * size_v + tiny(dtype), dtype=dtype)
        np.testing.assert_array_equal(g, normal(n, dtype=dtype, seed=1))


def test_adam_without_gradient_stays(isa):
    p, zero = normal(9), np.zeros(9)
    before = p.copy()
    F.adam_update(p, zero, np.zeros(9), np.zeros(9), step=1, lr=0.1)
    np.testing.assert_array_equal(p, before)


@each_dtype
def test_updates_in_other_shapes_and_layouts(isa, dtype):
    """A gradient may lie anyhow; what is written in place is honoured or refused, never a copy."""
    p, g, v = (normal(9, 7, dtype=dtype, seed=i) for i in range(3))
    expected = [p.copy(), v.copy()]
    F.sgd_update(expected[0], g, expected[1], lr=0.1, momentum=0.9)
    flat = [a.copy().reshape(-1) for a in (p, g, v)]
    F.sgd_update(*flat, lr=0.1, momentum=0.9)
    np.testing.assert_array_equal(flat[0].reshape(9, 7), expected[0])
    for what, view in layouts(g):
        got = [p.copy(), v.copy()]
        F.sgd_update(got[0], view, got[1], lr=0.1, momentum=0.9)
        np.testing.assert_array_equal(got, expected, err_msg=what)
    for what, view in layouts(p):
        velocity = v.copy()
        if what == "read-only":
            continue
        try:
            F.sgd_update(view, g, velocity, lr=0.1, momentum=0.9)
        except ValueError as error:
            assert "[sgd_update]" in str(error)
            np.testing.assert_array_equal(view, p, err_msg=what)
            np.testing.assert_array_equal(velocity, v, err_msg=what)
        else:
            np.testing.assert_array_equal(view, expected[0], err_msg=what)
            np.testing.assert_array_equal(velocity, expected[1], err_msg=what)


def test_updates_propagate_nan(isa):
    p, g = np.ones(20), np.ones(20)
    g[3] = np.nan
    F.sgd_update(p, g, lr=0.1)
    np.testing.assert_array_equal(np.isnan(p), np.arange(20) == 3)


@each_dtype
def test_sgd_takes_the_momentum_that_its_settings_take(dtype):
    p, g, v = np.zeros(3, dtype), np.ones(3, dtype), np.ones(3, dtype)
    F.sgd_update(p, g, v, lr=0.5, momentum=gv.optim.SGD(lr=0.5, momentum=1.0).momentum)
    np.testing.assert_array_equal(v, np.full(3, 2.0))
    np.testing.assert_array_equal(p, np.full(3, -1.0))


@each_dtype
def test_sgd_refuses(dtype):
    p, g, v = np.ones(6, dtype), np.ones(6, dtype), np.ones(6, dtype)
    op = "sgd_update"
    bad_options = [
        {"lr": -0.1},
        {"lr": np.nan},
        {"lr": np.inf},
        {"momentum": -0.1},
        {"momentum": np.nan},
        {"lr": 10**400},
        {"momentum": 1.5},
        {"weight_decay": -1e-4},
        {"weight_decay": np.nan},
        {"dampening": np.nan},
        {"nesterov": True, "momentum": 0.0},
        {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
    ]
    for options in bad_options:
        with rejected(op, ValueError, p, g, v):
            F.sgd_update(p, g, v, **{"lr": 0.1, **options})
    for name in ("momentum", "dampening", "weight_decay"):
        for value in (np.ones(2), None, "0"):
            with rejected(op, TypeError, p, g, v):
                F.sgd_update(p, g, v, lr=0.1, **{name: value})
    for first in (False, True):
        with rejected(op, (ValueError, TypeError), p, g):
            F.sgd_update(p, g, lr=0.1, momentum=0.9, first=first)
    with pytest.raises(TypeError):
        F.sgd_update(p, g)
    frozen = np.ones(6, dtype)
    frozen.flags.writeable = False
    short, matrix, same = np.ones(5, dtype), np.ones((6, 1), dtype), np.broadcast_to(np.ones(1, dtype), 6)
    cases = [
        (p, short, v),
        (p, g, short),
        (short, g, v),
        (p, matrix, v),
        (p, g, matrix),
        (frozen, g, v),
        (p, g, frozen),
        (same, g, v),
    ]
    for operands in cases:
        with rejected(op, ValueError, *operands):
            F.sgd_update(*operands, lr=0.1, momentum=0.9)
    with rejected(op, ValueError, p):
        F.sgd_update(p, g, p, lr=0.1, momentum=0.9)
    pool = np.ones(9, dtype)
    with rejected(op, ValueError, pool):
        F.sgd_update(pool[:6], g, pool[3:], lr=0.1, momentum=0.9)
    other = np.float64 if dtype == np.float32 else np.float32
    for i in range(3):
        operands = [p, g, v]
        operands[i] = operands[i].astype(other)
        with rejected(op, TypeError, *operands):
            F.sgd_update(*operands, lr=0.1, momentum=0.9)


@each_dtype
def test_adam_refuses(dtype):
    arrays = [np.ones(6, dtype) for _ in range(4)]
    op = "adam_update"
    bad_options = [
        {"lr": -0.1},
        {"lr": np.nan},
        {"betas": (1.0, 0.9)},
        {"betas": (0.9, 1.0)},
        {"betas": (-0.1, 0.9)},
        {"betas": (0.9, np.nan)},
        {"eps": -1e-8},
        {"eps": np.nan},
        {"weight_decay": -0.1},
        {"weight_decay": np.nan},
        {"step": 0},
        {"step": -1},
        {"step": 2**70},
    ]
    for options in bad_options:
        with rejected(op, ValueError, *arrays):
            F.adam_update(*arrays, **{"lr": 0.1, "step": 1, **options})
    with pytest.raises(TypeError):
        F.adam_update(*arrays, lr=0.1)
    other = np.float64 if dtype == np.float32 else np.float32
    frozen = np.ones(6, dtype)
    frozen.flags.writeable = False
    for i in range(4):
        for bad, error in [
            (np.ones(5, dtype), ValueError),
            (np.ones((6, 1), dtype), ValueError),
            (np.ones(6, other), TypeError),
            (np.ones(6, int), TypeError),
        ]:
            operands = [*arrays[:i], bad, *arrays[i + 1 :]]
            with rejected(op, error, *operands):
                F.adam_update(*operands, lr=0.1, step=1)
        if i != 1:
            operands = [*arrays[:i], frozen, *arrays[i + 1 :]]
            with rejected(op, ValueError, *operands):
                F.adam_update(*operands, lr=0.1, step=1)
    with rejected(op, ValueError, *arrays):
        F.adam_update(arrays[0], arrays[1], arrays[2], arrays[2], lr=0.1, step=1)


@each_wrong_kind
def test_updates_refuse_kinds(kind):
    good, bad = [np.ones(6) for _ in range(4)], wrong_kind(kind, 6)
    for i in range(4):
        operands = [*good[:i], bad, *good[i + 1 :]]
        if i < 3:
            with rejected("sgd_update", TypeError, *good):
                F.sgd_update(*operands[:3], lr=0.1, momentum=0.9)
        with rejected("adam_update", TypeError, *good):
            F.adam_update(*operands, lr=0.1, step=1)
    with rejected("clip_grad_norm", TypeError, *good):
        F.clip_grad_norm([good[0], bad], 1.0)


# --- clip_grad_norm ----------------------------------------------------------------------------


@each_dtype
def test_clip(isa, dtype):
    roundings = 4096 / 16 + 16
    for sizes in ([1], [5, 0, 33], [4095, 4096, 4097, 3], [17] * 40, [20000]):
        grads = [normal(n, dtype=dtype, seed=i) for i, n in enumerate(sizes)]
        before = [g.copy() for g in grads]
        true = o.total_norm(grads)
        for max_norm in (2 * true, np.inf):
            norm = F.clip_grad_norm(grads, max_norm)
            assert type(norm) is float and abs(norm - true) <= ulps(roundings, dtype) * true
            for g, b in zip(grads, before, strict=True):
                np.testing.assert_array_equal(g, b)
        max_norm = true / 7
        assert F.clip_grad_norm(grads, max_norm) == norm
        # 1e-6: PyTorch's guard against division by zero may be added to the norm.
        slack = ulps(roundings + 4, dtype) + 1e-6 / true
        for g, b in zip(grads, before, strict=True):
            expected = o.wide(b) * (max_norm / true)
            assert_within(g, expected, slack * np.abs(expected) + tiny(dtype), dtype=dtype)


@each_dtype
def test_clip_leaves_and_zeroes(isa, dtype):
    zeros = [np.zeros(5, dtype), np.zeros((2, 3), dtype)]
    assert F.clip_grad_norm(zeros, 1.0) == 0
    assert all(np.all(z == 0) for z in zeros)
    assert F.clip_grad_norm([], 1.0) == 0
    grads = [normal(4, 5, dtype=dtype), normal(3, dtype=dtype)]
    norm = F.clip_grad_norm(grads, 0.5)
    assert norm == pytest.approx(o.total_norm([normal(4, 5), normal(3)]), rel=1e-5)
    assert o.total_norm(grads) == pytest.approx(0.5, rel=1e-5)


@each_dtype
def test_clip_of_huge_gradients(isa, dtype):
    """Squares overflow long before the norm does; a finite norm is computed or refused, not infinite."""
    grads = [np.full(10, float(np.finfo(dtype).max) / 100, dtype)]
    kept = grads[0].copy()
    try:
        norm = F.clip_grad_norm(grads, 1.0)
    except (ValueError, ArithmeticError):
        np.testing.assert_array_equal(grads[0], kept)
    else:
        assert norm == pytest.approx(float(kept[0]) * math.sqrt(10), rel=1e-5)
        assert o.total_norm(grads) == pytest.approx(1.0, rel=1e-4)


def test_clip_of_tiny_gradients(isa):
    """Squares of floats sink below the normal numbers long before the norm of their sum does."""
    for scale in (1e-15, 1e-19, 1e-21, 1e-25, 1e-38):
        gradient = (np.array([3.0, -4.0] * 3000) * scale).astype(np.float32)
        expected = np.sqrt(np.sum(gradient.astype(np.float64) ** 2))
        assert math.isclose(F.clip_grad_norm([gradient], 1.0), expected, rel_tol=1e-6)
    zeros = np.zeros(5000, np.float32)
    assert F.clip_grad_norm([zeros, np.array([3e-25, 4e-25], np.float32)], 1.0) == pytest.approx(
        5e-25, rel=1e-6, abs=0
    )


@each_dtype
def test_clip_refuses(dtype):
    op = "clip_grad_norm"
    grads = [normal(6, dtype=dtype), normal(5, dtype=dtype)]
    for kind in (5, None):
        with rejected(op, TypeError):
            F.clip_grad_norm(kind, 1.0)
    for max_norm in (-1.0, np.nan):
        with rejected(op, ValueError, *grads):
            F.clip_grad_norm(grads, max_norm)
    frozen = normal(4, dtype=dtype)
    frozen.flags.writeable = False
    with rejected(op, ValueError, *grads, frozen):
        F.clip_grad_norm([*grads, frozen], 1e-3)
    for bad in (np.nan, np.inf, -np.inf):
        third = normal(7, dtype=dtype)
        third[4] = bad
        before = [g.copy() for g in (*grads, third)]
        with pytest.raises((ValueError, ArithmeticError), match="2"):  # index of the array
            F.clip_grad_norm([*grads, third], 1.0)
        for g, b in zip((*grads, third), before, strict=True):
            np.testing.assert_array_equal(g, b)


def test_clip_names_the_array_of_a_dictionary():
    grads = {"0.weight": np.ones(3), "0.bias": np.array([np.nan])}
    try:
        F.clip_grad_norm(grads, 1.0)
    except TypeError:
        pytest.skip("takes a sequence of arrays")
    except (ValueError, ArithmeticError) as error:
        assert "0.bias" in str(error)

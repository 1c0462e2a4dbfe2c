"""batch_norm, its backward and its inference form against the oracle.

Bounds. A column is summed in blocks of 128 rows, four chains of 32 each, on values x - m with m
within one rounding of the mean; blocks merge in double. Writing X = (|x - mean| + u|mean|)·rstd for
the largest normalised distance met (the second term is what a mean in the storage type cannot hold):
mean and deviation are good to about (32 + 16)·u·X, hence
|error of y| <= 48u·|gamma|·max X + 4u·(|y| + |beta|).
The means of blocks meet in double: with v the rounding of float64, each block adds v·|mean|·rstd, which
is nothing for float32 and is felt in a float64 column far from zero. Nothing grows with the square of
|mean|/spread, which is the point of the formula.
"""

import math

import numpy as np
import pytest

import gvcore.functional as F
import oracles as o
from functional_cases import (
    assert_within,
    bad_outs,
    check_out,
    each_dtype,
    each_wrong_kind,
    layouts,
    memory_map,
    normal,
    on_every_isa,
    rejected,
    tiny,
    ulps,
    wrong_kind,
)

isa = on_every_isa

ROUNDINGS = 48
ROWS = [1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 127, 128, 129, 131, 255, 256, 257, 385, 1000]
COLUMNS = [1, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65]


def features(v, x, axis):
    shape = [1] * x.ndim
    shape[axis] = -1
    return np.asarray(v).reshape(shape)


def reach(x, axis=-1, eps=1e-5, dtype=np.float64):
    """X of the header for every element, as an array of the shape of x."""
    _, mean, rstd = o.batch_norm(x, eps=eps, axis=axis)
    centred = np.abs(x - features(mean, x, axis)) + ulps(1, dtype) * features(np.abs(mean), x, axis)
    return centred * features(rstd, x, axis)


def largest(v, axis):
    return v.max(axis=tuple(i for i in range(v.ndim) if i != axis % v.ndim), keepdims=True)


def drift(mean, rows):
    """v·|mean| of the header, once for each block and once for the result."""
    return (1 + math.ceil(rows / 128)) * ulps(1, np.float64) * np.abs(mean)


def check_forward(x, gamma=None, beta=None, *, eps=1e-5, axis=-1):
    dtype = x.dtype
    y, mean, rstd = F.batch_norm(x, gamma, beta, eps=eps, axis=axis)
    wx = o.wide(x)
    wg, wb = (None if v is None else o.wide(v) for v in (gamma, beta))
    true_y, true_mean, true_rstd = o.batch_norm(wx, wg, wb, eps=eps, axis=axis)
    top = largest(reach(wx, axis, eps, dtype), axis)
    g = 1 if gamma is None else np.abs(features(wg, x, axis))
    b = 0 if beta is None else np.abs(features(wb, x, axis))
    u = ulps(1, dtype)
    uncertain = drift(true_mean, x.size // x.shape[axis])
    lost = uncertain * true_rstd
    bound = g * (ROUNDINGS * u * top + features(lost, x, axis) * (1 + top)) + 4 * u * (np.abs(true_y) + b)
    assert_within(y, true_y, bound, dtype=dtype)
    top = top.reshape(-1)
    assert_within(
        mean, true_mean, uncertain + u * (np.abs(true_mean) + ROUNDINGS * top / true_rstd), dtype=dtype
    )
    offset = (u * np.abs(true_mean) * true_rstd) ** 2  # Σd² carries it, Σd²-(Σd)²/n takes it off
    assert_within(rstd, true_rstd, (ROUNDINGS * u * (1 + offset) + lost) * true_rstd, dtype=dtype)
    return y, mean, rstd


def check_backward(dy, x, gamma=None, *, eps=1e-5, axis=-1):
    """dx is a difference of three terms, each with the error of its sum; mean and rstd are what
    forward returns, that is rounded, and must not be taken for exact."""
    dtype = x.dtype
    wx, wdy = o.wide(x), o.wide(dy)
    wg = None if gamma is None else o.wide(gamma)
    _, mean, rstd = o.batch_norm(wx, eps=eps, axis=axis)
    expected = o.batch_norm_backward(wdy, wx, wg, eps=eps, axis=axis)
    results = F.batch_norm_backward(dy, x, mean.astype(dtype), rstd.astype(dtype), gamma, axis=axis)
    assert len(results) == 3
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    big_x, big_dy = reach(wx, axis, eps, dtype), np.abs(wdy)
    dot, total = np.sum(big_x * big_dy, axis=others), np.sum(big_dy, axis=others)
    n = x.size // x.shape[axis]
    g = 1 if gamma is None else np.abs(features(wg, x, axis))
    lost = drift(mean, n) * rstd
    size = big_dy + features(total / n, x, axis) + big_x * features(dot / n, x, axis)
    moved = size + features(dot / n, x, axis) + big_x * features(total / n, x, axis)
    u = ulps(1, dtype)
    bounds = (
        (2 * ROUNDINGS * u * size + 2 * features(lost, x, axis) * moved) * g * features(rstd, x, axis)
        + tiny(dtype),
        2 * ROUNDINGS * u * dot + lost * (dot + total) + tiny(dtype),
        ROUNDINGS * u * total + tiny(dtype),
    )
    for result, true, bound in zip(results, expected, bounds, strict=True):
        assert_within(result, true, bound, dtype=dtype)
    return results


def parameters(columns, dtype):
    return normal(columns, dtype=dtype, seed=8), normal(columns, dtype=dtype, seed=9)


@each_dtype
def test_rows(isa, dtype):
    for rows in ROWS:
        x, dy = normal(rows, 19, dtype=dtype) + dtype(0.5), normal(rows, 19, dtype=dtype, seed=1)
        gamma, beta = parameters(19, dtype)
        check_forward(x, gamma, beta)
        check_backward(dy, x, gamma)


@each_dtype
def test_columns(isa, dtype):
    for columns in COLUMNS:
        x, dy = normal(37, columns, dtype=dtype), normal(37, columns, dtype=dtype, seed=1)
        gamma, beta = parameters(columns, dtype)
        check_forward(x, gamma, beta)
        check_forward(x, gamma)
        check_forward(x, None, beta)
        check_forward(x)
        check_backward(dy, x, gamma)
        check_backward(dy, x)


@each_dtype
@pytest.mark.parametrize(
    "shape, axis",
    [
        ((9,), 0),
        ((6, 5, 7), 1),
        ((6, 5, 7), 0),
        ((6, 5, 7), -1),
        ((3, 4, 5, 6), 1),
        ((3, 4, 5, 6), -2),
        ((130, 3), 0),
        ((2, 131, 3), -1),
    ],
    ids=str,
)
def test_axes(isa, dtype, shape, axis):
    x, dy = normal(*shape, dtype=dtype), normal(*shape, dtype=dtype, seed=1)
    gamma, beta = parameters(shape[axis], dtype)
    y, _, _ = check_forward(x, gamma, beta, axis=axis)
    check_backward(dy, x, gamma, axis=axis)
    check_out(lambda out: F.batch_norm(x, gamma, beta, axis=axis, out=out), y)


@each_dtype
@pytest.mark.parametrize("rows", [8, 100, 128, 1000])
def test_mean_far_from_zero(isa, dtype, rows):
    """Columns whose mean is 10⁷ times their spread; in float32 the mean itself is then rounded by
    more than half a spread."""
    for centre, spread in [(1e7, 1.0), (-1e7, 1.0), (1.0, 1e-7), (3e7, 3.0), (1.1e3, 1.1e-4)]:
        x = (centre + spread * normal(rows, 21, seed=rows)).astype(dtype)
        dy = normal(rows, 21, dtype=dtype, seed=1)
        gamma, beta = parameters(21, dtype)
        eps = 1e-5 * spread**2
        check_forward(x, gamma, beta, eps=eps)
        check_backward(dy, x, gamma, eps=eps)
    if dtype == np.float64:
        x = 1e7 + 1e-7 * normal(rows, 5, seed=3)
        check_forward(x, eps=1e-20)
        check_backward(normal(rows, 5, seed=4), x, eps=1e-20)


@each_dtype
@pytest.mark.parametrize("rows", [1, 2, 100, 129])
def test_constant_columns(isa, dtype, rows):
    """y is beta itself and dx is finite: no variance comes out of rounding."""
    values = np.array([0, 1, -1, 0.1, 1e7 + 1, 1.1e7, -3e-5, 16777215.0, 1e20, 1e-20], dtype)
    x = np.broadcast_to(values, (rows, len(values)))
    gamma, beta = parameters(len(values), dtype)
    y, mean, rstd = F.batch_norm(x, gamma, beta)
    np.testing.assert_array_equal(y, np.broadcast_to(beta, x.shape))
    np.testing.assert_array_equal(mean, values)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(1e-5), rtol=4 * np.finfo(dtype).eps)
    dy = normal(rows, len(values), dtype=dtype)
    _, dgamma, dbeta = F.batch_norm_backward(dy, x, mean, rstd, gamma)
    np.testing.assert_array_equal(dgamma, np.zeros_like(dgamma))
    assert np.all(np.isfinite(dbeta))
    check_backward(dy, np.ascontiguousarray(x), gamma)


@each_dtype
def test_one_drifting_column_does_not_touch_its_neighbours(isa, dtype):
    x = normal(50, 9, dtype=dtype)
    plain = F.batch_norm(x)[0]
    x[:, 4] = 1e7 + x[:, 4]
    np.testing.assert_array_equal(np.delete(F.batch_norm(x)[0], 4, axis=1), np.delete(plain, 4, axis=1))
    x[3, 4] = np.nan
    y, mean, rstd = F.batch_norm(x)
    np.testing.assert_array_equal(np.delete(y, 4, axis=1), np.delete(plain, 4, axis=1))
    assert np.all(np.isnan(y[:, 4])) and np.isnan(mean[4]) and np.isnan(rstd[4])


@each_dtype
def test_trend_in_the_rows(isa, dtype):
    """Rows in order of size: block means differ by far more than the spread inside a block."""
    x = (np.arange(1000.0)[:, None] * np.array([1, -0.01, 1e3]) + normal(1000, 3)).astype(dtype)
    check_forward(x)
    check_backward(normal(1000, 3, dtype=dtype), x)


@each_dtype
def test_eps(isa, dtype):
    x = normal(20, 5, dtype=dtype, scale=1e-3)
    for eps in (0.0, 1e-12, 1e-3, 1.0, 1e3):
        check_forward(x, eps=eps)


@each_dtype
def test_layouts(isa, dtype):
    x, dy = normal(11, 20, dtype=dtype), normal(11, 20, dtype=dtype, seed=1)
    gamma, beta = parameters(20, dtype)
    plain = F.batch_norm(x, gamma, beta)
    backward = F.batch_norm_backward(dy, x, *plain[1:], gamma)
    inference = F.batch_norm_inference(x, plain[1], np.abs(gamma), gamma, beta)
    for what, view in layouts(x):
        for result, expected in zip(F.batch_norm(view, gamma, beta), plain, strict=True):
            np.testing.assert_array_equal(result, expected, err_msg=what)
        for result, expected in zip(
            F.batch_norm_backward(dy, view, *plain[1:], gamma), backward, strict=True
        ):
            np.testing.assert_array_equal(result, expected, err_msg=what)
        np.testing.assert_array_equal(
            F.batch_norm_inference(view, plain[1], np.abs(gamma), gamma, beta), inference, err_msg=what
        )
    for what, view in layouts(dy):
        for result, expected in zip(F.batch_norm_backward(view, x, *plain[1:], gamma), backward, strict=True):
            np.testing.assert_array_equal(result, expected, err_msg=what)
    for what, view in layouts(gamma):
        np.testing.assert_array_equal(F.batch_norm(x, view, beta)[0], plain[0], err_msg=what)
    np.testing.assert_array_equal(F.batch_norm(x.T, gamma, beta, axis=0)[0], plain[0].T)


@each_dtype
def test_out_and_memory_maps(isa, dtype, tmp_path):
    x, (gamma, beta) = normal(9, 14, dtype=dtype), parameters(14, dtype)
    y, mean, _ = F.batch_norm(x, gamma, beta)
    check_out(lambda out: F.batch_norm(x, gamma, beta, out=out), y)
    inference = F.batch_norm_inference(x, mean, np.abs(gamma), gamma, beta)
    check_out(lambda out: F.batch_norm_inference(x, mean, np.abs(gamma), gamma, beta, out=out), inference)
    mapped = memory_map(tmp_path / "x", x)
    np.testing.assert_array_equal(F.batch_norm(mapped, gamma, beta)[0], y)
    with rejected("batch_norm", ValueError, mapped):
        F.batch_norm(x, gamma, beta, out=mapped)


@each_dtype
def test_out_that_is_the_input(dtype):
    """Either right or refused, as the docstring says."""
    x, (gamma, beta) = normal(300, 14, dtype=dtype), parameters(14, dtype)
    calls = {
        "batch_norm": lambda x, out: F.batch_norm(x, gamma, beta, out=out)[0],
        "batch_norm_inference": lambda x, out: F.batch_norm_inference(x, beta, np.abs(gamma), out=out),
    }
    for name, call in calls.items():
        expected, same = call(x, None), x.copy()
        try:
            call(same, same)
        except ValueError as error:
            assert f"[{name}]" in str(error)
            np.testing.assert_array_equal(same, x)
        else:
            np.testing.assert_array_equal(same, expected)
        pool = np.concatenate([x, x])
        for out in (pool[1:301], pool[299::-1]):
            with rejected(name, ValueError, pool):
                call(pool[:300], out)


@each_dtype
@pytest.mark.parametrize("rows", [0, 1, 7, 130])
def test_inference(isa, dtype, rows):
    for columns in (1, 8, 17, 33):
        x = normal(rows, columns, dtype=dtype) + dtype(3)
        mean, var = normal(columns, dtype=dtype, seed=2), np.abs(normal(columns, dtype=dtype, seed=3))
        gamma, beta = parameters(columns, dtype)
        for g, b in [(gamma, beta), (None, None), (gamma, None), (None, beta)]:
            wx, wm, wv = o.wide(x), o.wide(mean), o.wide(var)
            true = o.batch_norm_inference(
                wx, wm, wv, None if g is None else o.wide(g), None if b is None else o.wide(b)
            )
            # Rounded: x - m, the variance plus eps, root, division, times gamma, the final sum.
            size = np.abs(true) + 2 * (0 if b is None else np.abs(o.wide(b)))
            assert_within(
                F.batch_norm_inference(x, mean, var, g, b), true, ulps(8, dtype) * size, dtype=dtype
            )
    nchw = normal(2, 5, 3, dtype=dtype)
    mean, var = normal(5, dtype=dtype, seed=2), np.abs(normal(5, dtype=dtype, seed=3))
    true = o.batch_norm_inference(o.wide(nchw), o.wide(mean), o.wide(var), axis=1)
    assert_within(F.batch_norm_inference(nchw, mean, var, axis=1), true, ulps(8, dtype) * np.abs(true))


@each_dtype
@pytest.mark.parametrize("rows", [0, 1, 5, 300])
def test_inference_without_features(isa, dtype, rows):
    none = np.zeros(0, dtype)
    assert F.batch_norm_inference(np.zeros((rows, 0), dtype), none, none).shape == (rows, 0)


@pytest.mark.parametrize("columns", [3, 40, 300])
@pytest.mark.parametrize("scale", [1e18, 1e19, 3e37])
def test_values_whose_squares_overflow(isa, columns, scale):
    """The reciprocal deviation is a float all the same; only the columns that need it are found again."""
    small = normal(300, columns, dtype=np.float32)
    large = small.copy()
    large[:, 1] *= np.float32(scale)
    y, mean, rstd = F.batch_norm(large)
    exact = o.wide(large[:, 1])
    expected = (exact - exact.mean()) / exact.std()
    np.testing.assert_allclose(y[:, 1], expected, rtol=1e-5, atol=1e-5)
    assert rstd[1] == pytest.approx(1 / exact.std(), rel=1e-6, abs=0)
    others = np.arange(columns) != 1
    np.testing.assert_array_equal(y[:, others], F.batch_norm(small)[0][:, others])


@pytest.mark.parametrize("columns", [3, 40, 300])
@pytest.mark.parametrize("scale, by", [(1e14, 1e-15), (1e17, 1e-8), (1e22, 1), (1e25, 1), (1e35, 1)])
def test_gradients_of_large_values(isa, columns, scale, by):
    """Neither rstd squared nor rstd times the gradient need be a float for dx to be right."""
    x = normal(300, columns, dtype=np.float32) * np.float32(scale)
    dy = normal(300, columns, dtype=np.float32, seed=1) * np.float32(by)
    gamma = normal(columns, dtype=np.float32, seed=2)
    _, mean, rstd = F.batch_norm(x)
    found = F.batch_norm_backward(dy, x, mean, rstd, gamma)
    wanted = o.batch_norm_backward(o.wide(dy), o.wide(x), o.wide(gamma))
    for got, exact in zip(found, wanted, strict=True):
        assert np.abs(got - exact).max() < 2e-6 * np.abs(exact).max()


def test_gradients_of_tiny_values(isa):
    x, dy = normal(300, 5, dtype=np.float32) * np.float32(1e-17), normal(300, 5, dtype=np.float32, seed=1)
    _, mean, rstd = F.batch_norm(x, eps=0)
    found = F.batch_norm_backward(dy, x, mean, rstd)[0]
    wanted = o.batch_norm_backward(o.wide(dy), o.wide(x), eps=0)[0]
    assert np.abs(found - wanted).max() < 2e-6 * np.abs(wanted).max()


def test_values_that_are_not_finite_stay_in_their_columns(isa):
    x = normal(200, 9, dtype=np.float32)
    clean = F.batch_norm(x)[0]
    x[3, 2], x[140, 5] = np.inf, np.nan
    y = F.batch_norm(x)[0]
    assert np.isnan(y[:, [2, 5]]).all()
    others = [0, 1, 3, 4, 6, 7, 8]
    np.testing.assert_array_equal(y[:, others], clean[:, others])


def test_backward_against_central_differences():
    x, dy = normal(7, 5), normal(7, 5, seed=1)
    gamma, beta = parameters(5, np.float64)
    _, mean, rstd = F.batch_norm(x, gamma, beta)
    results = F.batch_norm_backward(dy, x, mean, rstd, gamma)
    functions = (
        (lambda v: np.sum(dy * F.batch_norm(v, gamma, beta)[0]), x),
        (lambda v: np.sum(dy * F.batch_norm(x, v, beta)[0]), gamma),
        (lambda v: np.sum(dy * F.batch_norm(x, gamma, v)[0]), beta),
    )
    for analytic, (f, at) in zip(results, functions, strict=True):
        assert o.gradient_error(analytic, o.central_difference(f, at)) < 1e-6


# --- refusals ----------------------------------------------------------------------------------


@each_dtype
def test_refuses_shapes(dtype):
    x, v, out = np.ones((4, 3), dtype), np.ones(3, dtype), np.zeros((4, 3), dtype)
    short, matrix, scalar = np.ones(2, dtype), np.ones((1, 3), dtype), np.ones((), dtype)
    for bad in (short, matrix, scalar, np.ones(4, dtype)):
        for options in ({"gamma": bad}, {"beta": bad}):
            with rejected("batch_norm", ValueError, out):
                F.batch_norm(x, **options, out=out)
            with rejected("batch_norm_inference", ValueError, out):
                F.batch_norm_inference(x, v, v, **options, out=out)
        for operands in [(bad, v), (v, bad)]:
            with rejected("batch_norm_inference", ValueError, out):
                F.batch_norm_inference(x, *operands, out=out)
            with rejected("batch_norm_backward", ValueError):
                F.batch_norm_backward(x, x, *operands)
        with rejected("batch_norm_backward", ValueError):
            F.batch_norm_backward(x, x, v, v, bad)
    for dy in (x[:3], x[:, :2], x[None], scalar):
        with rejected("batch_norm_backward", ValueError):
            F.batch_norm_backward(dy, x, v, v)
    for call in (
        lambda: F.batch_norm(scalar),
        lambda: F.batch_norm(x, axis=2),
        lambda: F.batch_norm(x, axis=-3),
    ):
        with rejected("batch_norm", ValueError):
            call()
    for axis in (1.0, None, "1"):
        with rejected("batch_norm", TypeError, out):
            F.batch_norm(x, axis=axis, out=out)
    for empty in (np.ones((0, 3), dtype), np.ones((2, 0, 3), dtype)):
        with rejected("batch_norm", ValueError):
            F.batch_norm(empty)
        with rejected("batch_norm_backward", ValueError):
            F.batch_norm_backward(empty, empty, v, v)


@each_dtype
def test_refuses_outs_and_ranges(dtype):
    x, v = np.ones((4, 3), dtype), np.ones(3, dtype)
    for _, error, out in bad_outs((4, 3), dtype):
        with rejected("batch_norm", error, out):
            F.batch_norm(x, out=out)
        with rejected("batch_norm_inference", error, out):
            F.batch_norm_inference(x, v, v, out=out)
    out = np.zeros((4, 3), dtype)
    for eps in (-1e-5, np.nan, np.inf):
        with rejected("batch_norm", ValueError, out):
            F.batch_norm(x, eps=eps, out=out)
        with rejected("batch_norm_inference", ValueError, out):
            F.batch_norm_inference(x, v, v, eps=eps, out=out)
    pool = np.ones((5, 3), dtype)
    with rejected("batch_norm", ValueError, pool):
        F.batch_norm(x, pool[0], out=pool[:4])


@each_wrong_kind
def test_refuses_kinds(kind):
    x, v, out = np.ones((4, 3)), np.ones(3), np.zeros((4, 3))
    bad_x, bad_v = wrong_kind(kind, 4, 3), wrong_kind(kind, 3)
    for operands in [(bad_x,), (x, bad_v), (x, None, bad_v)]:
        with rejected("batch_norm", TypeError, out):
            F.batch_norm(*operands, out=out)
    for operands in [(bad_x, v, v), (x, bad_v, v), (x, v, bad_v), (x, v, v, bad_v), (x, v, v, v, bad_v)]:
        with rejected("batch_norm_inference", TypeError, out):
            F.batch_norm_inference(*operands, out=out)
    for operands in [
        (bad_x, x, v, v),
        (x, bad_x, v, v),
        (x, x, bad_v, v),
        (x, x, v, bad_v),
        (x, x, v, v, bad_v),
    ]:
        with rejected("batch_norm_backward", TypeError):
            F.batch_norm_backward(*operands)


def test_refuses_mixed_precision():
    x, v = np.ones((4, 3), np.float32), np.ones(3)
    for call, op in [
        (lambda: F.batch_norm(x, v), "batch_norm"),
        (lambda: F.batch_norm_inference(x, v, v), "batch_norm_inference"),
        (lambda: F.batch_norm_backward(x, x.astype(np.float64), v, v), "batch_norm_backward"),
    ]:
        with rejected(op, TypeError):
            call()

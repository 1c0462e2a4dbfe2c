"""layer_norm and its backward against the oracle.

Bounds. A sum along a row of n elements runs in 16 chains over chunks of 4,096, so it has about
c = min(n, 4096)/16 + 16 roundings; chunks meet in double. The row's mean is held in the storage type, so
|error of mean| <= c·u·mean|x|, and y = (x - mean)·rstd·gamma + beta inherits that times rstd·|gamma|,
besides c·u·|gamma|·|x - mean|·rstd from the variance.
"""

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

COLUMNS = [1, 2, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 127, 129, 257, 4095, 4096, 4097, 8200]


def roundings(n):
    return min(n, 4096) / 16 + 16


def reach(x, rstd, dtype):
    """|x_hat| with the uncertainty of the mean, in units of one rounding, added."""
    centred = np.abs(x - x.mean(axis=-1, keepdims=True))
    uncertain = ulps(roundings(x.shape[-1]), dtype) * np.abs(x).mean(axis=-1, keepdims=True)
    return centred * rstd[..., None], uncertain * rstd[..., None]


def check_forward(x, gamma=None, beta=None, *, eps=1e-5):
    dtype, c = x.dtype, roundings(x.shape[-1])
    y, mean, rstd = F.layer_norm(x, gamma, beta, eps=eps)
    wx = o.wide(x)
    wg, wb = (None if v is None else o.wide(v) for v in (gamma, beta))
    true_y, true_mean, true_rstd = o.layer_norm(wx, wg, wb, eps=eps)
    distance, uncertain = reach(wx, true_rstd, dtype)
    u = ulps(1, dtype)
    bound = (1 if wg is None else np.abs(wg)) * (c * u * distance + uncertain)
    bound = bound + 4 * u * (np.abs(true_y) + (0 if wb is None else np.abs(wb)))
    assert_within(y, true_y, bound, dtype=dtype)
    assert_within(mean, true_mean, c * u * np.abs(wx).mean(axis=-1) + tiny(dtype), dtype=dtype)
    assert_within(rstd, true_rstd, (c * u + uncertain[..., 0] ** 2) * true_rstd, dtype=dtype)
    return y, mean, rstd


def check_backward(dy, x, gamma=None, *, eps=1e-5):
    dtype, c = x.dtype, roundings(x.shape[-1])
    wx, wdy = o.wide(x), o.wide(dy)
    wg = None if gamma is None else o.wide(gamma)
    _, mean, rstd = o.layer_norm(wx, eps=eps)
    expected = o.layer_norm_backward(wdy, wx, wg, eps=eps)
    results = F.layer_norm_backward(dy, x, np.asarray(mean, dtype), np.asarray(rstd, dtype), gamma)
    distance, uncertain = reach(wx, rstd, dtype)
    u = ulps(1, dtype)
    g = np.abs(wdy) if wg is None else np.abs(wdy * wg)
    dot = (g * distance).mean(axis=-1, keepdims=True)
    size = g + g.mean(axis=-1, keepdims=True) + distance * dot
    slack = uncertain * dot + distance * (uncertain * g).mean(axis=-1, keepdims=True)
    dx_bound = (2 * c * u * size + 2 * slack) * rstd[..., None]
    leading = tuple(range(x.ndim - 1))
    column = 48 * u  # four chains of 32 rows for a block of 128, blocks in double
    bounds = (
        dx_bound,
        (np.abs(wdy) * (column * distance + 2 * uncertain)).sum(axis=leading),
        column * np.abs(wdy).sum(axis=leading),
    )
    for result, true, bound in zip(results, expected, bounds, strict=True):
        assert_within(result, true, bound + tiny(dtype), dtype=dtype)


def parameters(columns, dtype):
    return normal(columns, dtype=dtype, seed=8), normal(columns, dtype=dtype, seed=9)


@each_dtype
def test_columns(isa, dtype):
    for columns in COLUMNS:
        x, dy = normal(5, columns, dtype=dtype) + dtype(0.5), normal(5, columns, dtype=dtype, seed=1)
        gamma, beta = parameters(columns, dtype)
        check_forward(x, gamma, beta)
        check_backward(dy, x, gamma)
    for g, b in [(None, None), (gamma, None), (None, beta)]:
        check_forward(x, g, b)
    check_backward(dy, x)


@each_dtype
@pytest.mark.parametrize(
    "leading", [(), (0,), (1,), (127,), (129,), (300,), (2, 3), (3, 0, 2), (2, 3, 4)], ids=str
)
def test_leading_axes(isa, dtype, leading):
    x, dy = normal(*leading, 19, dtype=dtype), normal(*leading, 19, dtype=dtype, seed=1)
    gamma, beta = parameters(19, dtype)
    y, mean, rstd = check_forward(x, gamma, beta)
    assert mean.shape == rstd.shape == leading
    check_backward(dy, x, gamma)
    F.layer_norm_backward(dy, x, mean, rstd, gamma)  # takes what forward returns, for one row too
    if leading:
        check_out(lambda out: F.layer_norm(x, gamma, beta, out=out), y)


@each_dtype
def test_mean_far_from_zero(isa, dtype):
    for centre in (1e2, -1e4):
        x = (centre + normal(6, 100)).astype(dtype)
        check_forward(x)
        check_backward(normal(6, 100, dtype=dtype, seed=1), x)


@each_dtype
def test_constant_rows_are_finite(isa, dtype):
    values = np.array([0, 1, 0.1, 1e7, -3e-5], dtype)
    x = np.repeat(values[:, None], 64, axis=1)  # 64 equal numbers: every partial sum is exact enough
    y, mean, rstd = F.layer_norm(x)
    assert np.all(np.isfinite(y)) and np.all(np.isfinite(rstd))
    np.testing.assert_allclose(mean, values, rtol=64 * np.finfo(dtype).eps)
    check_forward(x)


@each_dtype
def test_layouts(isa, dtype, tmp_path):
    x, dy = normal(11, 20, dtype=dtype), normal(11, 20, dtype=dtype, seed=1)
    gamma, beta = parameters(20, dtype)
    plain = F.layer_norm(x, gamma, beta)
    backward = F.layer_norm_backward(dy, x, *plain[1:], gamma)
    for what, view in [*layouts(x), ("memory map", memory_map(tmp_path / "x", x))]:
        for result, expected in zip(F.layer_norm(view, gamma, beta), plain, strict=True):
            np.testing.assert_array_equal(result, expected, err_msg=what)
        for result, expected in zip(
            F.layer_norm_backward(dy, view, *plain[1:], gamma), backward, strict=True
        ):
            np.testing.assert_array_equal(result, expected, err_msg=what)
    for what, view in layouts(dy):
        for result, expected in zip(F.layer_norm_backward(view, x, *plain[1:], gamma), backward, strict=True):
            np.testing.assert_array_equal(result, expected, err_msg=what)


def test_nan_stays_in_its_row(isa):
    x = normal(4, 33)
    plain = F.layer_norm(x)[0]
    x[2, 7] = np.nan
    y = F.layer_norm(x)[0]
    assert np.all(np.isnan(y[2]))
    np.testing.assert_array_equal(np.delete(y, 2, axis=0), np.delete(plain, 2, axis=0))


@pytest.mark.parametrize("scale", [1e18, 1e19, 3e37])
def test_values_whose_squares_overflow(isa, scale):
    x = normal(5, 70, dtype=np.float32)
    x[2] *= np.float32(scale)
    y = F.layer_norm(x)[0]
    exact = o.wide(x[2])
    np.testing.assert_allclose(y[2], (exact - exact.mean()) / exact.std(), rtol=1e-5, atol=1e-5)


def test_backward_against_central_differences():
    x, dy = normal(3, 2, 7), normal(3, 2, 7, seed=1)
    gamma, beta = parameters(7, np.float64)
    _, mean, rstd = F.layer_norm(x, gamma, beta)
    results = F.layer_norm_backward(dy, x, mean, rstd, gamma)
    functions = (
        (lambda v: np.sum(dy * F.layer_norm(v, gamma, beta)[0]), x),
        (lambda v: np.sum(dy * F.layer_norm(x, v, beta)[0]), gamma),
        (lambda v: np.sum(dy * F.layer_norm(x, gamma, v)[0]), beta),
    )
    for analytic, (f, at) in zip(results, functions, strict=True):
        assert o.gradient_error(analytic, o.central_difference(f, at)) < 1e-6


@each_dtype
def test_refuses(dtype):
    x, v, out = np.ones((4, 3), dtype), np.ones(3, dtype), np.zeros((4, 3), dtype)
    rows = np.ones(4, dtype)
    for bad in (np.ones(2, dtype), np.ones((1, 3), dtype), np.ones((), dtype)):
        for options in ({"gamma": bad}, {"beta": bad}):
            with rejected("layer_norm", ValueError, out):
                F.layer_norm(x, **options, out=out)
        for operands in [(bad, rows), (rows, bad), (rows, rows, bad)]:
            with rejected("layer_norm_backward", ValueError):
                F.layer_norm_backward(x, x, *operands)
    for dy in (x[:3], x[:, :2], x[None]):
        with rejected("layer_norm_backward", ValueError):
            F.layer_norm_backward(dy, x, rows, rows, v)
    for eps in (-1e-5, np.nan, np.inf):
        with rejected("layer_norm", ValueError, out):
            F.layer_norm(x, eps=eps, out=out)
    with rejected("layer_norm", ValueError):
        F.layer_norm(np.ones((), dtype))
    for _, error, refused in bad_outs((4, 3), dtype):
        with rejected("layer_norm", error, refused):
            F.layer_norm(x, out=refused)


@each_wrong_kind
def test_refuses_kinds(kind):
    x, rows, out = np.ones((4, 3)), np.ones(4), np.zeros((4, 3))
    bad_x, bad_v, bad_rows = wrong_kind(kind, 4, 3), wrong_kind(kind, 3), wrong_kind(kind, 4)
    for operands in [(bad_x,), (x, bad_v), (x, None, bad_v)]:
        with rejected("layer_norm", TypeError, out):
            F.layer_norm(*operands, out=out)
    for operands in [
        (bad_x, x, rows, rows),
        (x, bad_x, rows, rows),
        (x, x, bad_rows, rows),
        (x, x, rows, bad_rows),
        (x, x, rows, rows, bad_v),
    ]:
        with rejected("layer_norm_backward", TypeError):
            F.layer_norm_backward(*operands)


def test_refuses_mixed_precision():
    with rejected("layer_norm", TypeError):
        F.layer_norm(np.ones((4, 3), np.float32), np.ones(3))

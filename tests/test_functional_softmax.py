"""softmax and log_softmax against the oracle.

Bounds. Let d = max - x along the axis. The subtraction is rounded once, which moves exp(-d) by u·d of
itself; the sum of n terms runs in 16 chains over chunks of 4,096, so it has c = min(n, 4096)/16 + 16
roundings. Hence |error of p| <= u·(c + d + Σ p·d)·p, and for the logarithm u·(c + d + Σ p·d + 4|y|).
"""

import numpy as np
import pytest

import gvcore.functional as F
import oracles as o
from functional_cases import (
    assert_within,
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

COLUMNS = [1, 2, 5, 7, 8, 9, 10, 15, 16, 17, 31, 33, 63, 65, 127, 129, 1000, 4095, 4097, 8200]


def check(x, axis=-1):
    dtype = x.dtype
    wx = o.wide(x)
    p, y = o.softmax(wx, axis), o.log_softmax(wx, axis)
    d = wx.max(axis=axis, keepdims=True) - wx
    c = min(x.shape[axis], 4096) / 16 + 16 + d + (p * d).sum(axis=axis, keepdims=True)
    u = ulps(1, dtype)
    assert_within(F.softmax(x, axis=axis), p, u * c * p + tiny(dtype), dtype=dtype)
    assert_within(F.log_softmax(x, axis=axis), y, u * (c + 4 * np.abs(y)), dtype=dtype)


@each_dtype
def test_columns(isa, dtype):
    for columns in COLUMNS:
        for scale in (1, 30):
            check(normal(4, columns, dtype=dtype, scale=scale))


@each_dtype
@pytest.mark.parametrize(
    "shape, axis",
    [((9,), 0), ((9,), -1), ((6, 5), 0), ((6, 5, 7), 1), ((6, 5, 7), 0), ((2, 3, 4, 5), -2), ((129, 3), 1)],
    ids=str,
)
def test_axes(isa, dtype, shape, axis):
    check(normal(*shape, dtype=dtype, scale=3), axis)


@each_dtype
def test_large_logits(isa, dtype):
    top = float(np.finfo(dtype).max)
    x = np.array(
        [[1000, 0, -1000], [-1e4, -1e4, -1e4 - 1], [top / 4, -top / 4, 0], [1e-40, 0, -1e-40]], dtype
    )
    check(x)
    np.testing.assert_array_equal(F.softmax(x)[2], [1, 0, 0])
    shifted = normal(3, 8, dtype=dtype).round(2) + dtype(4096)
    assert np.all(np.isfinite(F.log_softmax(shifted)))


@each_dtype
def test_special_values(isa, dtype):
    x = np.array([[0, -np.inf, 0], [np.nan, 0, 1], [0, 0, 0]], dtype)
    p, y = F.softmax(x), F.log_softmax(x)
    np.testing.assert_array_equal(p[0], [0.5, 0, 0.5])
    assert y[0, 1] == -np.inf
    assert np.all(np.isnan(p[1])) and np.all(np.isnan(y[1]))
    np.testing.assert_allclose(p[2], 1 / 3, rtol=1e-6)
    for row in ([np.inf, 0.0, 1.0], [-np.inf] * 3):  # inf - inf
        assert np.isnan(F.softmax(np.array([row], dtype))).any()


@each_dtype
def test_layouts(isa, dtype, tmp_path):
    x = normal(7, 5, 9, dtype=dtype)
    for f in (F.softmax, F.log_softmax):
        for axis in (0, 1, 2):
            plain = f(x, axis=axis)
            for what, view in [*layouts(x), ("memory map", memory_map(tmp_path / "x", x))]:
                np.testing.assert_array_equal(f(view, axis=axis), plain, err_msg=f"{what}, axis {axis}")
        same = np.broadcast_to(x[:1, :1], (3, 4, 9))
        np.testing.assert_array_equal(f(same), f(same.copy()))
        for shape in [(0, 5), (2, 0, 3)]:
            assert f(np.zeros(shape, dtype)).shape == shape


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_refuses(name):
    f, x = getattr(F, name), np.ones((4, 3))
    for axis in (2, -3, 2**70, -(2**70)):
        with rejected(name, ValueError, x):
            f(x, axis=axis)
    for axis in (1.0, None, "1"):
        with rejected(name, TypeError):
            f(x, axis=axis)
    with rejected(name, ValueError):
        f(np.ones(()))


@each_wrong_kind
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_refuses_kinds(name, kind):
    with rejected(name, TypeError):
        getattr(F, name)(wrong_kind(kind, 4, 3))

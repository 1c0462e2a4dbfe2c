"""The activations and their derivatives against the oracle.

Bounds, with u one rounding. exp, log, tanh and erf are good to a few u of their result, so f and f' are
good to 8u times the sum of the magnitudes that are added on the way to them: relative to the result
for tanh, sigmoid, silu, elu and softplus (no cancellation, also near 0 and in the tail); for
gelu the terms of x·½(1 + erf) are of size |x|. An inner product that is rounded before exp (beta·x, x²) costs
|x·f'| per rounding. Results below the smallest normal number may become zero.
"""

import numpy as np
import pytest

import gvcore.functional as F
import oracles as o
from functional_cases import (
    SIZES,
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

CASES = [
    ("relu", {}),
    ("leaky_relu", {}),
    ("leaky_relu", {"negative_slope": 0.3}),
    ("leaky_relu", {"negative_slope": 0.0}),
    ("elu", {}),
    ("elu", {"alpha": 0.7}),
    ("selu", {}),
    ("gelu", {}),
    ("gelu", {"approximate": "none"}),
    ("gelu", {"approximate": "tanh"}),
    ("silu", {}),
    ("softplus", {}),
    ("softplus", {"beta": 2.5}),
    ("softplus", {"beta": 0.3}),
    ("tanh", {}),
    ("sigmoid", {}),
]
each_case = pytest.mark.parametrize(
    "name, parameters", CASES, ids=["-".join([n, *map(str, p.values())]) for n, p in CASES]
)
NAMES = sorted({name for name, _ in CASES})


def sweep(dtype):
    """Every magnitude from subnormal to the edge of overflow, densely where the curves bend."""
    top = np.log10(float(np.finfo(dtype).max)) - 1
    powers = np.logspace(-top - 5, top, 1500)
    middle = np.concatenate([np.linspace(-30, 30, 4001), np.linspace(-110, 110, 501), normal(500)])
    edges = [0.0, -0.0, 1.0, -1.0, 20.0, -20.0, 88.0, -88.0, -103.9, 709.0, -709.0, -745.0]
    return np.concatenate([powers, -powers, middle, edges]).astype(dtype)


def forward_bound(name, x, y, *, beta=1.0, approximate="none", **_):
    size = np.abs(y)
    if name == "gelu":
        size = size + np.abs(x) * (np.abs(x) < 40)
    if name == "softplus":
        size = size + np.abs(x) * o.activation("sigmoid", beta * x)
    return size


def derivative_bound(name, x, d, *, beta=1.0, approximate="none", **_):
    size = np.abs(d)
    middle = np.abs(x) * (np.abs(x) < 800)
    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        if name == "gelu":
            size = size + 1 + 2 * middle * (1 + middle**2) * np.exp(-np.minimum(middle**2, 1e4) / 4)
        if name == "silu":
            size = size + middle * o.activation_derivative("sigmoid", middle)
        if name == "softplus":
            size = size * (1 + np.abs(beta * x) * (beta * x < 0))
        if name == "tanh":  # 1 - tanh², a difference from 1
            size = size + 1
    return size


@each_dtype
@each_case
def test_values(isa, dtype, name, parameters):
    x = sweep(dtype)
    true = o.activation(name, o.wide(x), **parameters)
    y = getattr(F, name)(x, **parameters)
    inside = np.abs(true) < float(np.finfo(dtype).max) * 0.99
    bound = ulps(8, dtype) * forward_bound(name, o.wide(x), true, **parameters) + tiny(dtype)
    assert y.shape == x.shape
    assert_within(y[inside], true[inside], bound[inside], dtype=dtype)


@each_dtype
@each_case
def test_derivatives(isa, dtype, name, parameters):
    x = sweep(dtype)
    dy = normal(x.size, dtype=dtype, seed=1)
    wx, wdy = o.wide(x), o.wide(dy)
    slope = o.activation_derivative(name, wx, **parameters)
    # Far out x² and x³ overflow inside the oracle too; there the slope is 0 or 1.
    slope = np.where(np.isnan(slope), np.where(wx > 0, 1, 0), slope)
    bound = ulps(8, dtype) * np.abs(wdy) * derivative_bound(name, wx, slope, **parameters)
    dx = F.activation_backward(name, dy, x, **parameters)
    assert_within(dx, wdy * slope, bound + tiny(dtype) * (1 + np.abs(wdy)), dtype=dtype)


@each_case
def test_derivatives_against_central_differences(name, parameters):
    x = normal(97, scale=2)
    x = x[np.abs(x) > 1e-2]
    dy = normal(x.size, seed=1)
    analytic = F.activation_backward(name, dy, x, **parameters)
    numeric = o.central_difference(lambda v: np.sum(dy * getattr(F, name)(v, **parameters)), x)
    assert o.gradient_error(analytic, numeric) < 1e-6


@each_dtype
@pytest.mark.parametrize("name", NAMES)
def test_sizes_do_not_change_bits(isa, dtype, name):
    """The edge of a vector is computed as its middle: prefixes of one array agree bit for bit."""
    x, dy = normal(300, dtype=dtype, scale=3), normal(300, dtype=dtype, seed=1)
    y, dx = getattr(F, name)(x), F.activation_backward(name, dy, x)
    for n in SIZES:
        np.testing.assert_array_equal(getattr(F, name)(x[:n]), y[:n])
        np.testing.assert_array_equal(getattr(F, name)(x[300 - n :]), y[300 - n :])
        np.testing.assert_array_equal(F.activation_backward(name, dy[:n], x[:n]), dx[:n])
    for shape in [(300, 1), (20, 15), (3, 4, 25), (1, 300)]:
        np.testing.assert_array_equal(getattr(F, name)(x.reshape(shape)), y.reshape(shape))


INF = np.inf
LIMITS = {  # f(-inf), f(+inf)
    "relu": (0, INF),
    "leaky_relu": (-INF, INF),
    "elu": (-1, INF),
    "softplus": (0, INF),
    "tanh": (-1, 1),
    "sigmoid": (0, 1),
    "selu": (-o.SELU_SCALE * o.SELU_ALPHA, INF),
    "silu": (None, INF),
    "gelu": (None, INF),
}


@each_dtype
@pytest.mark.parametrize("name", NAMES)
def test_special_values(isa, dtype, name):
    x = np.array([np.nan, -np.inf, np.inf] * 7, dtype)
    y = getattr(F, name)(x).reshape(7, 3)
    assert np.all(np.isnan(y[:, 0]))
    low, high = LIMITS[name]
    if low is not None:  # -inf · 0 is left open for silu and gelu, as in PyTorch
        np.testing.assert_allclose(y[:, 1], low, rtol=1e-6)
    np.testing.assert_array_equal(y[:, 2], high)
    bad = np.full(9, np.nan, dtype)
    one = np.ones(9, dtype)
    assert np.all(np.isnan(F.activation_backward(name, bad, one)))
    if name not in ("relu", "leaky_relu"):  # whose slope is a choice, not a computation
        assert np.all(np.isnan(F.activation_backward(name, one, bad)))


def test_kinks(isa):
    zero, one = np.array([0.0, -0.0] * 9), np.ones(18)
    np.testing.assert_array_equal(F.activation_backward("relu", one, zero), 0 * one)
    np.testing.assert_array_equal(
        F.activation_backward("leaky_relu", one, zero, negative_slope=0.25), one / 4
    )
    np.testing.assert_allclose(F.activation_backward("elu", one, zero, alpha=0.5), one / 2, rtol=1e-15)


@each_dtype
@pytest.mark.parametrize("name", NAMES)
def test_layouts_and_out(isa, dtype, name, tmp_path):
    f = getattr(F, name)
    x, dy = normal(7, 5, 9, dtype=dtype), normal(7, 5, 9, dtype=dtype, seed=1)
    y, dx = f(x), F.activation_backward(name, dy, x)
    for what, view in [*layouts(x), ("memory map", memory_map(tmp_path / "x", x))]:
        np.testing.assert_array_equal(f(view), y, err_msg=what)
        np.testing.assert_array_equal(F.activation_backward(name, dy, view), dx, err_msg=what)
    for what, view in layouts(dy):
        np.testing.assert_array_equal(F.activation_backward(name, view, x), dx, err_msg=what)
    np.testing.assert_array_equal(f(x.transpose(2, 0, 1)), y.transpose(2, 0, 1))
    one = np.full((1, 1), 0.5, dtype)
    np.testing.assert_array_equal(f(np.broadcast_to(one, (9, 4))), np.broadcast_to(f(one), (9, 4)))
    check_out(lambda out: f(x, out=out), y)
    for empty in (np.zeros((0,), dtype), np.zeros((3, 0, 2), dtype)):
        assert f(empty).shape == F.activation_backward(name, empty, empty).shape == empty.shape


@each_dtype
@pytest.mark.parametrize("name", NAMES)
def test_out_that_overlaps(dtype, name):
    f = getattr(F, name)
    x = normal(400, dtype=dtype)
    y, same = f(x), x.copy()
    try:
        f(same, out=same)
    except ValueError as error:
        assert f"[{name}]" in str(error)
        np.testing.assert_array_equal(same, x)
    else:
        np.testing.assert_array_equal(same, y)
    for a, b in [
        (slice(0, 300), slice(1, 301)),
        (slice(1, 301), slice(0, 300)),
        (slice(0, 300), slice(299, None, -1)),
    ]:
        pool = x.copy()
        with rejected(name, ValueError, pool):
            f(pool[a], out=pool[b])


@each_dtype
@pytest.mark.parametrize("name", NAMES)
def test_refuses(dtype, name):
    f, x = getattr(F, name), normal(4, 3, dtype=dtype)
    for _, error, out in bad_outs((4, 3), dtype):
        with rejected(name, error, out, x):
            f(x, out=out)
    for dy in (x[:3], x[:, :2], x[None], x[0], x.reshape(-1)):
        with rejected("activation_backward", ValueError):
            F.activation_backward(name, dy, x)
    other = np.float64 if dtype == np.float32 else np.float32
    with rejected("activation_backward", TypeError):
        F.activation_backward(name, x.astype(other), x)


@each_wrong_kind
def test_refuses_kinds(kind):
    bad, good, out = wrong_kind(kind, 4, 3), np.ones((4, 3)), np.zeros((4, 3))
    for name in NAMES:
        with rejected(name, TypeError, out):
            getattr(F, name)(bad, out=out)
        for operands in [(bad, good), (good, bad)]:
            with rejected("activation_backward", TypeError):
                F.activation_backward(name, *operands)


def test_refuses_parameters():
    x, out = np.ones((4, 3)), np.zeros((4, 3))
    for bad in ("", "erf", None, 1):
        with rejected("gelu", (ValueError, TypeError), out):
            F.gelu(x, approximate=bad, out=out)
    for bad in (0.0, -1.0, np.nan):
        with rejected("softplus", ValueError, out):
            F.softplus(x, beta=bad, out=out)
    for name, parameter in [("leaky_relu", "negative_slope"), ("elu", "alpha")]:
        with rejected(name, ValueError, out):
            getattr(F, name)(x, **{parameter: np.nan}, out=out)
    with rejected("activation_backward", ValueError):
        F.activation_backward("swish", x, x)
    with pytest.raises(TypeError):
        F.activation_backward("relu", x, x, alpha=1.0)
    with pytest.raises(TypeError):
        F.relu(x, alpha=1.0)

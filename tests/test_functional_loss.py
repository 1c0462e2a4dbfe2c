"""The losses and their gradients against the oracle.

Bounds. A row's value is summed with c = min(n, 4096)/16 + 16 roundings in the storage type, rows in
double, so |error of loss| <= 2c·u·Σ|terms| / count. Cross-entropy adds the bound of log_softmax for each
class that has a coefficient, u·(c + d + Σ p·d) with d the distance from the largest logit; its
gradient adds the bound of softmax. The other gradients are a few roundings away from the difference.
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

REDUCTIONS = ["mean", "sum", "none"]
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
BCE = "binary_cross_entropy_with_logits"
PAIRS = [
    ("mse_loss", {}),
    ("l1_loss", {}),
    ("huber_loss", {}),
    ("huber_loss", {"delta": 0.4}),
    (BCE, {}),
    (BCE, {"pos_weight": True}),
]
each_pair = pytest.mark.parametrize("name, options", PAIRS, ids=["-".join([n, *p]) for n, p in PAIRS])


def value_is(loss, reduction, true, bound, dtype):
    """A Python float, or one number a row."""
    if reduction == "none":
        assert isinstance(loss, np.ndarray)
        assert_within(loss, true, bound, dtype=dtype)
    else:
        assert type(loss) is float
        assert abs(loss - float(true)) <= float(bound)


# --- cross-entropy -----------------------------------------------------------------------------


def check_cross_entropy(x, target, weight=None, label_smoothing=0.0, reduction="mean"):
    dtype, (rows, classes) = x.dtype, x.shape
    options = {"label_smoothing": label_smoothing, "reduction": reduction}
    loss, gradient = F.cross_entropy(x, target, weight=weight, **options)
    wx = o.wide(x)
    wt = o.wide(target) if np.ndim(target) == 2 else target
    ww = np.ones(classes, wx.dtype) if weight is None else o.wide(weight)
    true, true_gradient = o.cross_entropy(wx, wt, weight=ww, **options)
    hot = np.eye(classes)[target] if np.ndim(target) == 1 else np.abs(wt)
    coefficient = ((1 - label_smoothing) * hot + label_smoothing / classes) * np.abs(ww)
    count = 1
    if reduction == "mean":
        count = rows if np.ndim(target) == 2 else np.sum(ww[target])
    p, y = o.softmax(wx), o.log_softmax(wx)
    d = wx.max(axis=1, keepdims=True) - wx
    c = min(classes, 4096) / 16 + 16
    log_error = c + d + (p * d).sum(axis=1, keepdims=True) + 4 * np.abs(y)
    row_bound = ulps(1, dtype) * (coefficient * (log_error + 2 * c * np.abs(y))).sum(axis=1)
    bound = row_bound if reduction == "none" else row_bound.sum() / count
    value_is(loss, reduction, true, bound + tiny(dtype), dtype)
    size = p * coefficient.sum(axis=1, keepdims=True) * (c + log_error) + 8 * coefficient
    assert_within(gradient, true_gradient, ulps(1, dtype) * size / count + tiny(dtype), dtype=dtype)
    return loss, gradient


def labels_for(rows, classes, seed=0):
    return np.random.default_rng([seed, rows, classes]).integers(0, classes, rows)


@each_dtype
@each_reduction
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("soft", [False, True], ids=["labels", "probabilities"])
def test_cross_entropy(isa, dtype, reduction, smoothing, weighted, soft):
    for rows, classes in [(1, 2), (5, 10), (17, 16), (33, 3), (4, 129)]:
        x = normal(rows, classes, dtype=dtype, scale=3)
        weight = np.random.default_rng(1).uniform(0.2, 3, classes).astype(dtype) if weighted else None
        target = labels_for(rows, classes)
        if soft:
            target = o.softmax(normal(rows, classes, seed=2)).astype(dtype)
        check_cross_entropy(x, target, weight, smoothing, reduction)


@each_dtype
def test_cross_entropy_sizes(isa, dtype):
    for classes in (1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 65, 1000, 4097):
        check_cross_entropy(normal(3, classes, dtype=dtype), labels_for(3, classes))
    for rows in (1, 2, 127, 128, 129, 257, 1000):
        check_cross_entropy(normal(rows, 10, dtype=dtype), labels_for(rows, 10))


def test_cross_entropy_takes_every_integer(isa):
    x, labels = normal(6, 5), np.array([0, 4, 2, 2, 1, 3])
    loss, gradient = F.cross_entropy(x, labels)
    for kind in "bBhHiIlLqQ":
        for view in (
            labels.astype(kind),
            np.repeat(labels.astype(kind), 2)[::2],
            labels[::-1].astype(kind)[::-1],
        ):
            again, same = F.cross_entropy(x, view)
            assert again == loss
            np.testing.assert_array_equal(same, gradient)
    assert F.cross_entropy(x, labels.astype(">i4"))[0] == loss


@each_dtype
def test_cross_entropy_of_confident_rows(isa, dtype):
    x = np.array([[0, 200, -200], [200, 0, 1], [1e4, -1e4, 0]], dtype)
    for labels in ([1, 0, 0], [0, 1, 2], [2, 2, 1]):
        loss, gradient = check_cross_entropy(x, np.array(labels))
        assert np.isfinite(loss) and np.all(np.isfinite(gradient))


def test_cross_entropy_propagates_nan(isa):
    x = normal(4, 5)
    x[2, 3] = np.nan
    loss, gradient = F.cross_entropy(x, np.zeros(4, int), reduction="none")
    np.testing.assert_array_equal(np.isnan(loss), [False, False, True, False])
    np.testing.assert_array_equal(np.isnan(gradient).any(axis=1), [False, False, True, False])
    assert np.isnan(F.cross_entropy(x, np.zeros(4, int))[0])


@each_dtype
def test_cross_entropy_layouts(isa, dtype, tmp_path):
    x, labels = normal(9, 7, dtype=dtype), labels_for(9, 7)
    soft, weight = o.softmax(normal(9, 7, dtype=dtype, seed=2)), np.linspace(0.5, 2, 7).astype(dtype)
    for target in (labels, soft):
        loss, gradient = F.cross_entropy(x, target, weight=weight)
        for what, view in [*layouts(x), ("memory map", memory_map(tmp_path / "x", x))]:
            again, same = F.cross_entropy(view, target, weight=weight)
            assert again == loss, what
            np.testing.assert_array_equal(same, gradient, err_msg=what)
        for what, view in layouts(target):
            again, same = F.cross_entropy(x, view, weight=weight)
            assert again == loss, what
            np.testing.assert_array_equal(same, gradient, err_msg=what)
        for _, view in layouts(weight):
            assert F.cross_entropy(x, target, weight=view)[0] == loss


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "probabilities"])
def test_cross_entropy_against_central_differences(soft):
    x, labels = normal(5, 4), np.array([0, 3, 1, 1, 2])
    target = o.softmax(normal(5, 4, seed=1)) if soft else labels
    options = {"weight": np.array([0.5, 2.0, 1.0, 3.0]), "label_smoothing": 0.1}
    gradient = F.cross_entropy(x, target, **options)[1]
    numeric = o.central_difference(lambda v: F.cross_entropy(v, target, **options)[0], x)
    assert o.gradient_error(gradient, numeric) < 1e-6


@each_dtype
def test_cross_entropy_refuses(dtype):
    x, labels, soft = np.ones((4, 3), dtype), np.zeros(4, int), np.full((4, 3), 0.25, dtype)
    op = "cross_entropy"
    for bad in ([0, 1, 2, 3], [0, 1, 2, -1], [-100, 0, 0, 0], [2**62, 0, 0, 0], [-(2**63), 0, 0, 0]):
        for reduction in REDUCTIONS:
            with rejected(op, ValueError, x):
                F.cross_entropy(x, np.array(bad, np.int64), reduction=reduction)
    with rejected(op, ValueError):  # would wrap to a negative label
        F.cross_entropy(x, np.array([2**64 - 1, 0, 0, 0], np.uint64))
    with rejected(op, ValueError):
        F.cross_entropy(np.ones((2, 200), dtype), np.array([-56, 3], np.int8))
    for bad in (
        labels[:3],
        labels[:, None],
        np.zeros((4, 3), int),
        np.zeros((), int),
        soft[:3],
        soft[:, :2],
        soft[None],
        np.zeros((1, 4), int),
    ):
        with rejected(op, (ValueError, TypeError)):
            F.cross_entropy(x, bad)
    for bad in (
        labels.astype(dtype),
        labels.astype(np.float16),
        labels.astype(complex),
        labels.astype(object),
        labels.astype(str),
        np.array(["a"] * 4),
    ):
        with rejected(op, TypeError):
            F.cross_entropy(x, bad)
    other = np.float64 if dtype == np.float32 else np.float32
    with rejected(op, TypeError):
        F.cross_entropy(x, soft.astype(other))
    with rejected(op, TypeError):
        F.cross_entropy(x, labels, weight=np.ones(3, other))
    with rejected(op, TypeError):
        F.cross_entropy(x, labels, weight=np.ones(3, int))
    for bad in (np.ones(2, dtype), np.ones(4, dtype), np.ones((1, 3), dtype), np.ones((), dtype)):
        with rejected(op, ValueError):
            F.cross_entropy(x, labels, weight=bad)
    for bad in (-0.1, 1.1, np.nan, np.inf):
        with rejected(op, ValueError):
            F.cross_entropy(x, labels, label_smoothing=bad)
    for bad in ("average", "", "MEAN"):
        with rejected(op, ValueError):
            F.cross_entropy(x, labels, reduction=bad)
    for bad in (np.ones(3, dtype), np.ones((), dtype)):
        with rejected(op, ValueError):
            F.cross_entropy(bad, labels)
    with rejected(op, ValueError):  # the mean of nothing
        F.cross_entropy(np.ones((0, 3), dtype), np.zeros(0, int))


@each_wrong_kind
def test_cross_entropy_refuses_kinds(kind):
    with rejected("cross_entropy", TypeError):
        F.cross_entropy(wrong_kind(kind, 4, 3), np.zeros(4, int))


# --- losses of a difference --------------------------------------------------------------------


def options_for(options, columns, dtype):
    if "pos_weight" in options:
        return {"pos_weight": np.linspace(0.5, 3, columns).astype(dtype)}
    return options


def check_pair(name, x, target, reduction="mean", **options):
    dtype = x.dtype
    loss, gradient = getattr(F, name)(x, target, reduction=reduction, **options)
    wide_options = {k: o.wide(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    wx, wt = o.wide(x), o.wide(target)
    true, true_gradient = getattr(o, name)(wx, wt, reduction=reduction, **wide_options)
    c = min(x.shape[-1], 4096) / 16 + 16 if x.ndim > 1 else 16
    each, each_gradient = getattr(o, name)(
        wx.reshape(-1, 1),
        wt.reshape(-1, 1),
        reduction="none",
        **({"pos_weight": np.ones(1)} if "pos_weight" in options else wide_options),
    )
    terms = np.abs(each).reshape(x.shape)
    # A term of binary cross-entropy adds two logarithms and a gradient two probabilities, weighted.
    slopes = np.abs(each_gradient).reshape(x.shape)
    if name == BCE:
        heaviest = float(np.max(options.get("pos_weight", 1), initial=1))
        both = np.logaddexp(0, wx) + np.logaddexp(0, -wx)
        terms = heaviest * (np.abs(1 - wt) + np.abs(wt)) * both
        slopes = heaviest * (1 + 2 * np.abs(wt))
    rows = terms.sum(axis=tuple(range(1, x.ndim)))
    count = x.size if reduction == "mean" else 1
    size = rows if reduction == "none" else rows.sum() / count
    value_is(loss, reduction, true, 2 * c * ulps(1, dtype) * size + tiny(dtype), dtype)
    assert_within(gradient, true_gradient, ulps(8, dtype) * slopes / count + tiny(dtype), dtype=dtype)


@each_dtype
@each_reduction
@each_pair
def test_pairs(isa, dtype, name, options, reduction):
    for rows, columns in [(1, 1), (5, 1), (3, 7), (17, 16), (4, 33), (129, 3), (2, 5000)]:
        x = normal(rows, columns, dtype=dtype, scale=2)
        target = np.random.default_rng(2).random((rows, columns)).astype(dtype)
        check_pair(name, x, target, reduction, **options_for(options, columns, dtype))


@each_dtype
@each_pair
def test_pairs_of_vectors(isa, dtype, name, options):
    x, target = normal(33, dtype=dtype), np.random.default_rng(2).random(33).astype(dtype)
    if "pos_weight" not in options:
        for reduction in REDUCTIONS:
            check_pair(name, x, target, reduction, **options)


@each_dtype
def test_binary_cross_entropy_far_out(isa, dtype):
    x = np.array([[-1e4, -100, -1e-30, 0, 1e-30, 100, 1e4]], dtype)
    for t in (0, 0.5, 1):
        check_pair(BCE, x, np.full_like(x, t))
    loss, gradient = F.binary_cross_entropy_with_logits(x, np.ones_like(x), reduction="none")
    assert np.isfinite(loss).all() and np.isfinite(gradient).all()


def test_kinks(isa):
    zero = np.zeros((2, 9))
    np.testing.assert_array_equal(F.l1_loss(zero, zero, reduction="sum")[1], zero)
    x = np.array([[-3.0, -0.5, 0.0, 0.5, 3.0]])
    for delta in (0.5, 1.0):
        loss, gradient = F.huber_loss(x, 0 * x, delta=delta, reduction="sum")
        np.testing.assert_array_equal(gradient, np.clip(x, -delta, delta))
        assert loss == pytest.approx(2 * (delta * (3 - delta / 2) + 0.125), rel=1e-15)


@each_pair
def test_pairs_against_central_differences(name, options):
    x, target = normal(5, 4), np.random.default_rng(2).random((5, 4))
    options = options_for(options, 4, np.float64)
    gradient = getattr(F, name)(x, target, **options)[1]
    numeric = o.central_difference(lambda v: getattr(F, name)(v, target, **options)[0], x)
    assert o.gradient_error(gradient, numeric) < 1e-6


@each_dtype
@each_pair
def test_pairs_layouts(isa, dtype, name, options):
    x, target = normal(9, 7, dtype=dtype), np.random.default_rng(2).random((9, 7)).astype(dtype)
    f, options = getattr(F, name), options_for(options, 7, dtype)
    loss, gradient = f(x, target, **options)
    for i in range(2):
        for what, view in layouts((x, target)[i]):
            again, same = f(view, target, **options) if i == 0 else f(x, view, **options)
            assert again == loss, what
            np.testing.assert_array_equal(same, gradient, err_msg=what)
    x[1, 2] = np.nan
    loss, gradient = f(x, target, reduction="none", **options)
    assert np.isnan(loss).sum() == 1 and np.isnan(gradient).sum() == 1


@each_dtype
@each_pair
def test_pairs_refuse(dtype, name, options):
    f, x = getattr(F, name), np.ones((4, 3), dtype)
    for target in (x[:3], x[:, :2], x[None], x[:, :1], x[0], x.reshape(-1), np.ones((), dtype)):
        with rejected(name, ValueError):
            f(x, target)
        with rejected(name, ValueError):
            f(target, x)
    other = np.float64 if dtype == np.float32 else np.float32
    for kind in (other, np.float16, np.int64, bool, object, complex, str):
        with rejected(name, TypeError):
            f(x, x.astype(kind))
        with rejected(name, TypeError):
            f(x.astype(kind), x)
    for reduction in ("average", ""):
        with rejected(name, ValueError):
            f(x, x, reduction=reduction)
    with rejected(name, ValueError):
        f(x[:0], x[:0])


@each_dtype
def test_pairs_refuse_parameters(dtype):
    x = np.ones((4, 3), dtype)
    for delta in (0.0, -1.0, np.nan):
        with rejected("huber_loss", ValueError):
            F.huber_loss(x, x, delta=delta)
    for bad in (np.ones(2, dtype), np.ones((1, 3), dtype), np.ones(4, dtype)):
        with rejected(BCE, ValueError):
            F.binary_cross_entropy_with_logits(x, x, pos_weight=bad)
    with rejected(BCE, TypeError):
        F.binary_cross_entropy_with_logits(x, x, pos_weight=np.ones(3, int))
    for smoothing in (np.ones(2), None, "0"):
        with rejected("cross_entropy", TypeError):
            F.cross_entropy(x, np.zeros(4, int), label_smoothing=smoothing)

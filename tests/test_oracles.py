"""The oracles themselves: every analytic gradient against central differences, every forward
formula against a second route. No gvcore here, so a failure points at the reference."""

import math

import numpy as np
import pytest

import oracles as o

TOLERANCE = 1e-6  # of max|numeric|, per array; central differences in float64


def draw(*shape, seed=0, scale=1.0):
    return np.random.default_rng(seed).normal(size=shape) * scale


def check(analytic, f, x):
    assert o.gradient_error(analytic, o.central_difference(f, x)) < TOLERANCE


def test_central_difference_of_a_known_gradient():
    x = draw(3, 4)
    check(np.cos(x), lambda v: np.sin(v).sum(), x)


def test_linear():
    x, w, b, dy = draw(2, 3, 5), draw(4, 5, seed=1), draw(4, seed=2), draw(2, 3, 4, seed=3)
    dx, dw, db = o.linear_backward(dy, x, w)
    check(dx, lambda v: np.sum(dy * o.linear(v, w, b)), x)
    check(dw, lambda v: np.sum(dy * o.linear(x, v, b)), w)
    check(db, lambda v: np.sum(dy * o.linear(x, w, v)), b)


@pytest.mark.parametrize("shape, axis", [((7, 3), -1), ((4, 3, 5), 1), ((3, 4), 0), ((5,), -1)])
def test_batch_norm(shape, axis):
    x, dy = draw(*shape), draw(*shape, seed=1)
    if shape[0] == x.size:  # one row: the output does not depend on x
        assert np.all(o.batch_norm(x)[0] == 0)
        return
    g, b = draw(shape[axis], seed=2), draw(shape[axis], seed=3)
    y, mean, rstd = o.batch_norm(x, g, b, axis=axis)
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    np.testing.assert_allclose(mean, x.mean(axis=others), rtol=1e-13)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(x.var(axis=others) + 1e-5), rtol=1e-13)
    dx, dg, db = o.batch_norm_backward(dy, x, g, axis=axis)
    check(dx, lambda v: np.sum(dy * o.batch_norm(v, g, b, axis=axis)[0]), x)
    check(dg, lambda v: np.sum(dy * o.batch_norm(x, v, b, axis=axis)[0]), g)
    check(db, lambda v: np.sum(dy * o.batch_norm(x, g, v, axis=axis)[0]), b)
    same = o.batch_norm_inference(x, mean, 1 / rstd**2 - 1e-5, g, b, axis=axis)
    np.testing.assert_allclose(same, y, rtol=1e-9, atol=1e-12)


def test_moments_of_a_column_far_from_zero():
    x = 1e7 + np.arange(12.0).reshape(6, 2) * 0.5
    mean, variance = o.moments(x)
    np.testing.assert_array_equal(mean, [1e7 + 2.5, 1e7 + 3.0])
    np.testing.assert_allclose(variance, np.var(np.arange(6.0)), rtol=1e-15)


def test_layer_norm():
    x, dy, g, b = draw(2, 3, 7), draw(2, 3, 7, seed=1), draw(7, seed=2), draw(7, seed=3)
    dx, dg, db = o.layer_norm_backward(dy, x, g)
    check(dx, lambda v: np.sum(dy * o.layer_norm(v, g, b)[0]), x)
    check(dg, lambda v: np.sum(dy * o.layer_norm(x, v, b)[0]), g)
    check(db, lambda v: np.sum(dy * o.layer_norm(x, g, v)[0]), b)


ACTIVATIONS = [
    ("relu", {}),
    ("leaky_relu", {}),
    ("leaky_relu", {"negative_slope": 0.3}),
    ("elu", {}),
    ("elu", {"alpha": 0.7}),
    ("selu", {}),
    ("gelu", {}),
    ("gelu", {"approximate": "tanh"}),
    ("silu", {}),
    ("softplus", {}),
    ("softplus", {"beta": 2.5}),
    ("tanh", {}),
    ("sigmoid", {}),
]


@pytest.mark.parametrize("name, parameters", ACTIVATIONS)
def test_activation(name, parameters):
    x = draw(60, scale=3)
    x = x[np.abs(x) > 1e-2]  # a difference across the kink is no derivative
    f = lambda v: o.activation(name, v, **parameters).sum()  # noqa: E731
    check(o.activation_derivative(name, x, **parameters), f, x)


def test_activation_values():
    x = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(
        o.activation("gelu", x), [v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in x], rtol=1e-14
    )
    root = math.sqrt(2 / math.pi)
    np.testing.assert_allclose(
        o.activation("gelu", x, approximate="tanh"),
        [v / 2 * (1 + math.tanh(root * (v + 0.044715 * v**3))) for v in x],
        rtol=1e-13,
    )
    np.testing.assert_allclose(o.activation("softplus", x, beta=2.0), np.log1p(np.exp(2 * x)) / 2)
    np.testing.assert_allclose(o.activation("sigmoid", x), 1 / (1 + np.exp(-x)))
    np.testing.assert_allclose(
        o.activation("selu", x), o.SELU_SCALE * np.where(x > 0, x, o.SELU_ALPHA * (np.exp(x) - 1))
    )
    assert np.isnan(o.activation("relu", np.array([np.nan])))


def test_softmax():
    x = draw(4, 6, scale=4)
    p = o.softmax(x)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(o.log_softmax(x)), p)
    np.testing.assert_allclose(o.softmax(x + 1000), p)
    np.testing.assert_allclose(o.softmax(x, axis=0), o.softmax(x.T).T)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy(reduction, smoothing, weighted, soft):
    x = draw(5, 4, scale=2)
    target = o.softmax(draw(5, 4, seed=1)) if soft else np.array([0, 3, 1, 1, 2])
    weight = np.array([0.5, 2.0, 1.0, 3.0]) if weighted else None
    options = {"weight": weight, "label_smoothing": smoothing, "reduction": reduction}
    loss, gradient = o.cross_entropy(x, target, **options)
    assert np.shape(loss) == ((5,) if reduction == "none" else ())
    check(gradient, lambda v: np.sum(o.cross_entropy(v, target, **options)[0]), x)
    if not soft and not smoothing:
        each = -o.log_softmax(x)[np.arange(5), target] * (1 if weight is None else weight[target])
        if reduction == "mean":
            each = each.sum() / (5 if weight is None else weight[target].sum())
        np.testing.assert_allclose(loss, each.sum() if reduction == "sum" else each)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "name, options",
    [
        ("mse_loss", {}),
        ("l1_loss", {}),
        ("huber_loss", {}),
        ("huber_loss", {"delta": 0.4}),
        ("binary_cross_entropy_with_logits", {}),
        ("binary_cross_entropy_with_logits", {"pos_weight": np.array([0.5, 2.0, 3.0])}),
    ],
)
def test_losses(name, options, reduction):
    loss = getattr(o, name)
    x, target = draw(6, 3), np.random.default_rng(1).random((6, 3))
    value, gradient = loss(x, target, reduction=reduction, **options)
    assert np.shape(value) == ((6,) if reduction == "none" else ())
    check(gradient, lambda v: np.sum(loss(v, target, reduction=reduction, **options)[0]), x)


def test_binary_cross_entropy_values():
    x, t = np.array([[0.3, -2.0]]), np.array([[1.0, 0.25]])
    p = 1 / (1 + np.exp(-x))
    value, _ = o.binary_cross_entropy_with_logits(x, t, reduction="sum")
    np.testing.assert_allclose(value, -np.sum(t * np.log(p) + (1 - t) * np.log(1 - p)))


def test_optimisers_by_hand():
    p, v = o.sgd(
        np.array([2.0]),
        np.array([1.0]),
        np.array([3.0]),
        lr=0.5,
        momentum=0.1,
        dampening=0.2,
        weight_decay=0.25,
    )
    np.testing.assert_allclose(v, 0.1 * 3 + 0.8 * 1.5)
    np.testing.assert_allclose(p, 2 - 0.5 * v)
    p, v = o.sgd(np.array([2.0]), np.array([1.0]), None, lr=0.5, momentum=0.9, dampening=0.2, first=True)
    assert v == 1 and p == 1.5
    zero = np.zeros(1)
    p, m, s = o.adam(np.array([2.0]), np.array([-4.0]), zero, zero, step=1, lr=0.1, eps=0.0, weight_decay=0.5)
    np.testing.assert_allclose(p, 2 * 0.95 + 0.1)  # the first step is lr·sign(gradient)
    np.testing.assert_allclose([m[0], s[0]], [-0.4, 0.016])
    norm, (clipped,) = o.clip_grad_norm([np.array([3.0, 4.0])], 1.0)
    assert norm == 5 and math.isclose(o.total_norm([clipped]), 1)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_residual_network_step(depth):
    rng = np.random.default_rng(depth)
    width, batch = 5, 9
    params = [rng.normal(size=(width, 7)) / 3, rng.normal(size=width)]
    for _ in range(depth):
        params += [rng.normal(size=(width, width)) / 2, rng.uniform(0.5, 2, width), rng.normal(size=width)]
    params += [rng.normal(size=(4, width)), rng.normal(size=4)]
    x, labels = rng.normal(size=(batch, 7)), rng.integers(0, 4, batch)
    result = o.residual_mlp_step(params, x, labels)
    assert list(result["gradients"]) == o.residual_mlp_names(depth)
    for i, gradient in enumerate(result["gradients"].values()):

        def loss(v, i=i):
            logits, *_ = o.residual_mlp_forward([*params[:i], v, *params[i + 1 :]], x)
            return o.cross_entropy(logits, labels)[0]

        assert o.gradient_error(gradient, o.central_difference(loss, params[i], h=1e-5)) < TOLERANCE
        decayed = gradient + 1e-4 * params[i]
        np.testing.assert_allclose(result["params"][i], params[i] - 0.1 * decayed)
    again = o.residual_mlp_step(result["params"], x, labels, velocity=result["velocity"])
    assert again["loss"] < result["loss"]
    assert sorted(result["running"]) == sorted(
        f"{d}.layers.1.running_{s}" for d in range(1, depth + 1) for s in ("mean", "var")
    )

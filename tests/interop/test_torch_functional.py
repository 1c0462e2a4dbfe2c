"""gvcore.functional against torch.nn.functional and torch.optim, on the same numbers.

PyTorch is the judge of names and meanings here, not of the last bits: both sides round, so float64 is
compared at 1e-10 and float32 at 2e-5 of the largest element.
"""

import numpy as np
import pytest

import gvcore.functional as F

torch = pytest.importorskip("torch")
tf = torch.nn.functional

each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])


def draw(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def tensor(x, grad=False):
    return torch.tensor(np.array(x)).requires_grad_(grad)


def close(ours, theirs):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    loose = ours.dtype == np.float32 or theirs.dtype == np.float32
    scale = np.max(np.abs(theirs), initial=1e-30)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=(2e-5 if loose else 1e-10) * scale)


@each_dtype
def test_matmul_and_linear(dtype):
    a, b = draw(3, 1, 17, 33, dtype=dtype), draw(4, 33, 9, dtype=dtype, seed=1)
    close(F.matmul(a, b), tensor(a) @ tensor(b))
    x, w, c, dy = (
        draw(*s, dtype=dtype, seed=i) for i, s in enumerate([(5, 7, 33), (9, 33), (9,), (5, 7, 9)])
    )
    leaves = [tensor(v, True) for v in (x, w, c)]
    y = tf.linear(*leaves)
    y.backward(tensor(dy))
    close(F.linear(x, w, c), y)
    for ours, leaf in zip(F.linear_backward(dy, x, w), leaves, strict=True):
        close(ours, leaf.grad)


@each_dtype
@pytest.mark.parametrize("shape", [(40, 7), (6, 7, 11), (3, 7, 5, 4)])
def test_batch_norm(dtype, shape):
    x, dy = draw(*shape, dtype=dtype) + dtype(0.3), draw(*shape, dtype=dtype, seed=1)
    gamma, beta = draw(7, dtype=dtype, seed=2), draw(7, dtype=dtype, seed=3)
    leaves = [tensor(v, True) for v in (x, gamma, beta)]
    expected = tf.batch_norm(leaves[0], None, None, leaves[1], leaves[2], training=True)
    expected.backward(tensor(dy))
    y, mean, rstd = F.batch_norm(x, gamma, beta, axis=1)
    close(y, expected)
    for ours, leaf in zip(F.batch_norm_backward(dy, x, mean, rstd, gamma, axis=1), leaves, strict=True):
        close(ours, leaf.grad)
    var = np.abs(gamma) + dtype(0.1)
    close(
        F.batch_norm_inference(x, beta, var, gamma, beta, axis=1),
        tf.batch_norm(tensor(x), tensor(beta), tensor(var), tensor(gamma), tensor(beta)),
    )


@each_dtype
def test_layer_norm(dtype):
    x, dy = draw(5, 6, 33, dtype=dtype), draw(5, 6, 33, dtype=dtype, seed=1)
    gamma, beta = draw(33, dtype=dtype, seed=2), draw(33, dtype=dtype, seed=3)
    leaves = [tensor(v, True) for v in (x, gamma, beta)]
    expected = tf.layer_norm(leaves[0], (33,), leaves[1], leaves[2])
    expected.backward(tensor(dy))
    y, mean, rstd = F.layer_norm(x, gamma, beta)
    close(y, expected)
    for ours, leaf in zip(F.layer_norm_backward(dy, x, mean, rstd, gamma), leaves, strict=True):
        close(ours, leaf.grad)


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


@each_dtype
@pytest.mark.parametrize("name, parameters", ACTIVATIONS)
def test_activations(dtype, name, parameters):
    x, dy = draw(300, dtype=dtype) * dtype(3), draw(300, dtype=dtype, seed=1)
    x[:2] = 0, -0.0
    leaf = tensor(x, True)
    f = getattr(tf, name, None) or getattr(torch, name)
    expected = f(leaf, **parameters)
    expected.backward(tensor(dy))
    close(getattr(F, name)(x, **parameters), expected)
    close(F.activation_backward(name, dy, x, **parameters), leaf.grad)


@each_dtype
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax(dtype, axis):
    x = draw(4, 5, 6, dtype=dtype) * dtype(3)
    close(F.softmax(x, axis=axis), tf.softmax(tensor(x), dim=axis))
    close(F.log_softmax(x, axis=axis), tf.log_softmax(tensor(x), dim=axis))


@each_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy(dtype, reduction, smoothing, weighted, soft):
    x = draw(9, 7, dtype=dtype)
    target = np.random.default_rng(1).integers(0, 7, 9)
    if soft:
        target = tf.softmax(tensor(draw(9, 7, dtype=dtype, seed=1)), dim=1).numpy()
    weight = np.linspace(0.3, 2, 7).astype(dtype) if weighted else None
    leaf = tensor(x, True)
    expected = tf.cross_entropy(
        leaf,
        torch.tensor(target),
        weight=None if weight is None else tensor(weight),
        label_smoothing=smoothing,
        reduction=reduction,
    )
    expected.sum().backward()
    loss, gradient = F.cross_entropy(x, target, weight=weight, label_smoothing=smoothing, reduction=reduction)
    close(loss, expected)
    close(gradient, leaf.grad)


@each_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "name, options",
    [
        ("mse_loss", {}),
        ("l1_loss", {}),
        ("huber_loss", {}),
        ("huber_loss", {"delta": 0.4}),
        ("binary_cross_entropy_with_logits", {}),
        ("binary_cross_entropy_with_logits", {"pos_weight": True}),
    ],
)
def test_losses(dtype, reduction, name, options):
    x, target = draw(9, 7, dtype=dtype), np.random.default_rng(1).random((9, 7)).astype(dtype)
    theirs = {}
    if "pos_weight" in options:
        options = {"pos_weight": np.linspace(0.3, 2, 7).astype(dtype)}
        theirs = {"pos_weight": tensor(options["pos_weight"])}
    leaf = tensor(x, True)
    expected = getattr(tf, name)(leaf, tensor(target), reduction=reduction, **(theirs or options))
    expected.sum().backward()
    loss, gradient = getattr(F, name)(x, target, reduction=reduction, **options)
    # "none" is one value a row here, one an element there.
    close(loss, expected.sum(dim=1) if reduction == "none" else expected)
    close(gradient, leaf.grad)


@each_dtype
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ],
    ids=str,
)
def test_sgd(dtype, options):
    p, v = draw(33, dtype=dtype), np.full(33, np.nan, dtype)
    theirs = tensor(p, True)
    optimiser = torch.optim.SGD([theirs], lr=0.1, **options)
    for step in range(5):
        g = draw(33, dtype=dtype, seed=step + 1)
        theirs.grad = tensor(g)
        optimiser.step()
        F.sgd_update(p, g, v, lr=0.1, first=step == 0, **options)
    close(p, theirs)


@each_dtype
@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam(dtype, decoupled, weight_decay):
    p, m, v = draw(33, dtype=dtype), np.zeros(33, dtype), np.zeros(33, dtype)
    theirs = tensor(p, True)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimiser = kind([theirs], lr=0.1, betas=(0.8, 0.99), eps=1e-6, weight_decay=weight_decay)
    for step in range(1, 6):
        g = draw(33, dtype=dtype, seed=step)
        theirs.grad = tensor(g)
        optimiser.step()
        F.adam_update(
            p,
            g,
            m,
            v,
            step=step,
            lr=0.1,
            betas=(0.8, 0.99),
            eps=1e-6,
            weight_decay=weight_decay,
            decoupled=decoupled,
        )
    close(p, theirs)


@each_dtype
def test_clip_grad_norm(dtype):
    grads = [draw(4, 5, dtype=dtype), draw(7, dtype=dtype, seed=1)]
    leaves = [tensor(g, True) for g in grads]
    for leaf, g in zip(leaves, grads, strict=True):
        leaf.grad = tensor(g)
    close(F.clip_grad_norm(grads, 0.7), torch.nn.utils.clip_grad_norm_(leaves, 0.7))
    for g, leaf in zip(grads, leaves, strict=True):
        np.testing.assert_allclose(g, leaf.grad.numpy(), rtol=2e-5)

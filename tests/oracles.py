"""Reference formulas in plain NumPy: what the tests hold gvcore against.

Not a second implementation of the library: nothing here is fast, fused or in place, nothing
imports gvcore, and every function returns new arrays. Each computes in the dtype of its
arguments; `wide` gives the dtype in which the reference is worth trusting. Formulas are those of
PyTorch's documentation of the function or module with the same name; features come last.
"""

import math

import numpy as np

# --- precision ---------------------------------------------------------------------------------


def wide(x):
    """The same values in the next wider type: float64 for float32, long double for float64."""
    x = np.asarray(x)
    return x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)


def unit_roundoff(dtype):
    """u: the relative error of one correctly rounded operation."""
    return float(np.finfo(dtype).eps) / 2


def gamma_factor(n, dtype):
    """n·u / (1 - n·u), the error factor of n rounded operations in a chain (Higham 2002, 3.1)."""
    nu = n * unit_roundoff(dtype)
    return nu / (1 - nu)


def central_difference(f, x, h=1e-4):
    """Gradient of the scalar function f at x, one element at a time: (f(x+h) - f(x-h)) / 2h."""
    x = np.array(x, dtype=np.result_type(x, np.float64))
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        kept = x[i]
        step = x.dtype.type(h) * max(1, abs(kept))
        x[i] = kept + step
        above, top = f(x), x[i]
        x[i] = kept - step
        below, bottom = f(x), x[i]
        x[i] = kept
        gradient[i] = (above - below) / (top - bottom)
    return gradient


def gradient_error(analytic, numeric):
    """max|analytic - numeric| / max|numeric|: one number for each array."""
    scale = np.max(np.abs(numeric), initial=0)
    return float(np.max(np.abs(analytic - numeric), initial=0) / (scale if scale > 0 else 1))


# --- linear ------------------------------------------------------------------------------------


def linear(x, weight, bias=None):
    y = np.matmul(x, weight.T)
    return y if bias is None else y + bias


def linear_backward(dy, x, weight):
    rows_dy, rows_x = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
    return np.matmul(dy, weight), np.matmul(rows_dy.T, rows_x), rows_dy.sum(axis=0)


# --- normalisation -----------------------------------------------------------------------------


def _along(v, x, axis):
    """A vector of features, shaped to broadcast along one axis of x."""
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    return np.asarray(v, dtype=x.dtype).reshape(shape)


def _others(x, axis):
    return tuple(i for i in range(x.ndim) if i != axis % x.ndim)


def moments(x, axis=-1):
    """Mean and population variance of each feature; the first row is taken off before summing."""
    others = _others(x, axis)
    first = x[tuple(slice(None) if i == axis % x.ndim else slice(0, 1) for i in range(x.ndim))]
    shifted = x - first
    mean = shifted.mean(axis=others, keepdims=True)
    variance = np.mean((shifted - mean) ** 2, axis=others)
    return (first + mean).reshape(-1), variance


def batch_norm(x, gamma=None, beta=None, *, eps=1e-5, axis=-1):
    mean, variance = moments(x, axis)
    rstd = 1 / np.sqrt(variance + x.dtype.type(eps))
    y = (x - _along(mean, x, axis)) * _along(rstd, x, axis)
    if gamma is not None:
        y = y * _along(gamma, x, axis)
    if beta is not None:
        y = y + _along(beta, x, axis)
    return y, mean, rstd


def batch_norm_backward(dy, x, gamma=None, *, eps=1e-5, axis=-1):
    """Through the statistics too: they are functions of x. Ioffe and Szegedy 2015, section 3."""
    x_hat, _, rstd = batch_norm(x, eps=eps, axis=axis)
    others = _others(x, axis)
    dgamma = np.sum(dy * x_hat, axis=others)
    dbeta = np.sum(dy, axis=others)
    n = x.size // x.shape[axis]
    dx = dy - _along(dbeta / n, x, axis) - x_hat * _along(dgamma / n, x, axis)
    dx = dx * _along(rstd, x, axis)
    return (dx if gamma is None else dx * _along(gamma, x, axis)), dgamma, dbeta


def batch_norm_inference(x, running_mean, running_var, gamma=None, beta=None, *, eps=1e-5, axis=-1):
    y = (x - _along(running_mean, x, axis)) / np.sqrt(_along(running_var, x, axis) + x.dtype.type(eps))
    if gamma is not None:
        y = y * _along(gamma, x, axis)
    return y if beta is None else y + _along(beta, x, axis)


def layer_norm(x, gamma=None, beta=None, *, eps=1e-5):
    mean = x.mean(axis=-1)
    centred = x - mean[..., None]
    rstd = 1 / np.sqrt(np.mean(centred**2, axis=-1) + x.dtype.type(eps))
    y = centred * rstd[..., None]
    if gamma is not None:
        y = y * gamma
    return (y if beta is None else y + beta), mean, rstd


def layer_norm_backward(dy, x, gamma=None, *, eps=1e-5):
    x_hat, _, rstd = layer_norm(x, eps=eps)
    leading = tuple(range(x.ndim - 1))
    g = dy if gamma is None else dy * gamma
    along = np.mean(g * x_hat, axis=-1, keepdims=True)
    dx = (g - g.mean(axis=-1, keepdims=True) - x_hat * along) * rstd[..., None]
    return dx, np.sum(dy * x_hat, axis=leading), np.sum(dy, axis=leading)


# --- activations -------------------------------------------------------------------------------

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def _erfc(x):
    # math.erfc is good to about one unit of float64, also in the tail where 1 + erf would cancel.
    return np.array([math.erfc(v) for v in np.ravel(x)], dtype=x.dtype).reshape(x.shape)


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def _normal(x):
    """Distribution function and density of the standard normal."""
    half = x.dtype.type(0.5)
    return half * _erfc(-x * np.sqrt(half)), np.exp(-half * x * x) * np.sqrt(half / x.dtype.type(np.pi))


def _gelu_tanh(x):
    root = np.sqrt(2 / x.dtype.type(np.pi))
    inner, slope = root * (x + 0.044715 * x**3), root * (1 + 3 * 0.044715 * x**2)
    return _sigmoid(2 * inner), slope  # ½(1 + tanh t) = sigmoid(2t), which does not cancel


def activation(name, x, *, negative_slope=0.01, alpha=1.0, beta=1.0, approximate="none"):
    """f(x) under PyTorch's name for f."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if name == "relu":
            return np.where(x <= 0, 0, x)
        if name == "leaky_relu":
            return np.where(x > 0, x, negative_slope * x)
        if name == "elu":
            return np.where(x > 0, x, alpha * np.expm1(x))
        if name == "selu":
            return SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(x))
        if name == "gelu":
            return x * (_normal(x)[0] if approximate == "none" else _gelu_tanh(x)[0])
        if name == "silu":
            return x * _sigmoid(x)
        if name == "softplus":
            return np.logaddexp(x.dtype.type(0), beta * x) / beta
        if name == "tanh":
            return np.tanh(x)
        if name == "sigmoid":
            return _sigmoid(x)
    raise KeyError(name)


def activation_derivative(name, x, *, negative_slope=0.01, alpha=1.0, beta=1.0, approximate="none"):
    """f'(x); at the kink of the rectifiers the derivative from below, as in PyTorch."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if name == "relu":
            return np.where(np.isnan(x), x, np.where(x > 0, 1, 0))
        if name == "leaky_relu":
            return np.where(x > 0, 1, x.dtype.type(negative_slope))
        if name == "elu":
            return np.where(x > 0, 1, alpha * np.exp(x))
        if name == "selu":
            return SELU_SCALE * np.where(x > 0, 1, SELU_ALPHA * np.exp(x))
        if name == "gelu" and approximate == "none":
            cdf, density = _normal(x)
            return cdf + x * density
        if name == "gelu":
            s, slope = _gelu_tanh(x)
            return s + x * 2 * s * (1 - s) * slope
        if name == "silu":
            s = _sigmoid(x)
            return s + x * s * _sigmoid(-x)
        if name == "softplus":
            return _sigmoid(beta * x)
        if name == "tanh":
            return 4 * _sigmoid(2 * x) * _sigmoid(-2 * x)
        if name == "sigmoid":
            return _sigmoid(x) * _sigmoid(-x)
    raise KeyError(name)


# --- softmax and losses ------------------------------------------------------------------------


def log_softmax(x, axis=-1):
    shifted = x - np.max(x, axis=axis, keepdims=True)
    with np.errstate(under="ignore"):
        return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def softmax(x, axis=-1):
    with np.errstate(under="ignore"):
        e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def _reduced(rows, gradient, reduction, count):
    """Value and gradient; "none" keeps one value a row and the gradient of their sum."""
    if reduction == "none":
        return rows, gradient
    total = np.sum(rows)
    return (total, gradient) if reduction == "sum" else (total / count, gradient / count)


def cross_entropy(logits, target, *, weight=None, label_smoothing=0.0, reduction="mean"):
    """torch.nn.CrossEntropyLoss: with labels, "mean" divides by the sum of the labels' weights;
    with probabilities, by the number of rows."""
    rows, classes = logits.shape
    weight = np.ones(classes, logits.dtype) if weight is None else np.asarray(weight, logits.dtype)
    target = np.asarray(target)
    share = logits.dtype.type(label_smoothing)
    if target.ndim == 1:
        hot = np.zeros_like(logits)
        hot[np.arange(rows), target.astype(np.int64)] = 1
        # The smoothed part carries the weight of each class, not that of the label.
        coefficient = ((1 - share) * hot + share / classes) * weight
        count = weight[target.astype(np.int64)].sum()
    else:
        coefficient = ((1 - share) * target + share / classes) * weight
        count = rows
    losses = -np.sum(coefficient * log_softmax(logits), axis=1)
    gradient = softmax(logits) * coefficient.sum(axis=1, keepdims=True) - coefficient
    return _reduced(losses, gradient, reduction, count)


def _elementwise_loss(value, gradient, reduction):
    rows = value.sum(axis=tuple(range(1, value.ndim)))
    return _reduced(rows, gradient, reduction, value.size)


def mse_loss(prediction, target, *, reduction="mean"):
    d = prediction - target
    return _elementwise_loss(d * d, 2 * d, reduction)


def l1_loss(prediction, target, *, reduction="mean"):
    d = prediction - target
    return _elementwise_loss(np.abs(d), np.sign(d), reduction)


def huber_loss(prediction, target, *, delta=1.0, reduction="mean"):
    d = prediction - target
    size = np.abs(d)
    value = np.where(size <= delta, d * d / 2, delta * (size - delta / 2))
    return _elementwise_loss(value, np.clip(d, -delta, delta), reduction)


def binary_cross_entropy_with_logits(prediction, target, *, pos_weight=None, reduction="mean"):
    p = 1 if pos_weight is None else np.asarray(pos_weight, prediction.dtype)
    zero = prediction.dtype.type(0)
    value = (1 - target) * np.logaddexp(zero, prediction) + p * target * np.logaddexp(zero, -prediction)
    gradient = (1 - target) * _sigmoid(prediction) - p * target * _sigmoid(-prediction)
    return _elementwise_loss(value, gradient, reduction)


# --- optimisers --------------------------------------------------------------------------------


def sgd(
    param,
    grad,
    velocity=None,
    *,
    lr,
    momentum=0.0,
    dampening=0.0,
    weight_decay=0.0,
    nesterov=False,
    first=False,
):
    """torch.optim.SGD. Returns the new parameter and the new velocity."""
    g = grad + weight_decay * param
    if momentum:
        velocity = g if first else momentum * velocity + (1 - dampening) * g
        g = g + momentum * velocity if nesterov else velocity
    return param - lr * g, velocity


def adam(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    *,
    step,
    lr,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled=True,
):
    """torch.optim.AdamW (decoupled) or Adam. Returns parameter and both averages, all new."""
    b1, b2 = betas
    if decoupled:
        param = param * (1 - lr * weight_decay)
    else:
        grad = grad + weight_decay * param
    m = b1 * exp_avg + (1 - b1) * grad
    v = b2 * exp_avg_sq + (1 - b2) * grad * grad
    denominator = np.sqrt(v) / math.sqrt(1 - b2**step) + eps
    return param - lr / (1 - b1**step) * m / denominator, m, v


def total_norm(grads):
    """The norm of all arrays as one vector, summed without rounding error in the sum."""
    return math.sqrt(math.fsum(float(v) ** 2 for g in grads for v in np.ravel(g)))


def clip_grad_norm(grads, max_norm):
    """Total norm before clipping, and the arrays scaled to at most max_norm."""
    norm = total_norm(grads)
    factor = min(1.0, max_norm / norm) if norm > 0 else 1.0
    return norm, [g * factor for g in grads]


# --- one training step of a residual network ---------------------------------------------------


def residual_mlp_names(depth):
    """Names of Linear, depth × Residual(Linear, BatchNorm, ReLU), Linear in one Sequential."""
    blocks = [
        f"{i}.layers.{part}" for i in range(1, depth + 1) for part in ("0.weight", "1.weight", "1.bias")
    ]
    return ["0.weight", "0.bias", *blocks, f"{depth + 1}.weight", f"{depth + 1}.bias"]


def residual_mlp_forward(params, x):
    """params: the arrays in the order of residual_mlp_names. Returns logits and what backward needs:
    for each block its input, its Linear's output and its batch norm's output."""
    depth = (len(params) - 4) // 3
    h = linear(x, params[0], params[1])
    kept = []
    for d in range(depth):
        weight, gamma, beta = params[2 + 3 * d : 5 + 3 * d]
        z = linear(h, weight)
        y = batch_norm(z, gamma, beta)[0]
        kept.append((h, z, y))
        h = h + activation("relu", y)
    return linear(h, params[-2], params[-1]), h, kept


def residual_mlp_step(
    params,
    x,
    labels,
    *,
    velocity=None,
    running=None,
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    running_momentum=0.1,
):
    """One step of SGD on the mean cross-entropy, in the dtype of the arguments.

    params is a list in the order of residual_mlp_names, velocity the same (None: the first step),
    running a list of depth pairs (mean, variance), None for (0, 1). Returns a dict: loss, logits,
    gradients {name: array} before weight decay, params, velocity, and
    running {name.running_mean / name.running_var: array}; nothing is changed in place.
    """
    depth = (len(params) - 4) // 3
    logits, last, kept = residual_mlp_forward(params, x)
    loss, dlogits = cross_entropy(logits, labels)
    dh, *output_gradients = linear_backward(dlogits, last, params[-2])
    gradients = output_gradients
    statistics = {}
    for d in reversed(range(depth)):
        h, z, y = kept[d]
        weight, gamma = params[2 + 3 * d], params[3 + 3 * d]
        dy = dh * activation_derivative("relu", y)
        dz, dgamma, dbeta = batch_norm_backward(dy, z, gamma)
        through, dweight, _ = linear_backward(dz, h, weight)
        dh = dh + through
        gradients = [dweight, dgamma, dbeta, *gradients]
        mean, variance = moments(z)
        old = (np.zeros_like(mean), np.ones_like(mean)) if running is None else running[d]
        unbiased = variance * (len(x) / (len(x) - 1))
        for name, before, batch in zip(("mean", "var"), old, (mean, unbiased), strict=True):
            kept_share = (1 - running_momentum) * before
            statistics[f"{d + 1}.layers.1.running_{name}"] = kept_share + running_momentum * batch
    _, *input_gradients = linear_backward(dh, x, params[0])
    gradients = [*input_gradients, *gradients]
    updated = [
        sgd(
            p,
            g,
            None if velocity is None else velocity[i],
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            first=velocity is None,
        )
        for i, (p, g) in enumerate(zip(params, gradients, strict=True))
    ]
    return {
        "loss": float(loss),
        "logits": logits,
        "gradients": dict(zip(residual_mlp_names(depth), gradients, strict=True)),
        "params": [p for p, _ in updated],
        "velocity": [v for _, v in updated],
        "running": statistics,
    }

"""Stateless kernels on NumPy arrays: products, normalisation, activations, losses, updates.

Arrays are float32 or float64, equal across the operands of a call; samples come first, features
last; any strides are taken, and an array is copied only where its memory does not serve. Bad input
raises before anything is written, ``TypeError`` for dtype or kind and ``ValueError`` for shape,
layout or range, with the text ``[op] expected …, got …``. The bits of a result depend neither on the
number of threads nor on the instruction set. Inside ``nn.Module.forward`` the products, activations
and softmax also take traced values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gvcore.functional.activations import (
    activation_backward,
    elu,
    gelu,
    leaky_relu,
    relu,
    selu,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from gvcore.functional.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    l1_loss,
    mse_loss,
)
from gvcore.functional.norms import (
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    layer_norm,
    layer_norm_backward,
    log_softmax,
    softmax,
)
from gvcore.functional.products import concatenate, linear, linear_backward, matmul, reshape
from gvcore.functional.updates import adam_update, clip_grad_norm, sgd_update

__all__ = [
    "activation_backward",
    "adam_update",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_inference",
    "binary_cross_entropy_with_logits",
    "clip_grad_norm",
    "concatenate",
    "cross_entropy",
    "elu",
    "gelu",
    "huber_loss",
    "l1_loss",
    "layer_norm",
    "layer_norm_backward",
    "leaky_relu",
    "linear",
    "linear_backward",
    "log_softmax",
    "matmul",
    "mse_loss",
    "relu",
    "reshape",
    "selu",
    "sgd_update",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]

# What records an operation on traced values, set by gvcore.nn: (name, args, kwargs) -> the traced
# result, or NotImplemented.
_traced_call: Callable[[str, tuple[Any, ...], dict[str, Any]], Any] | None = None

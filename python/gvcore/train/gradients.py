"""The loss of a batch and its gradients, without a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcore import _core
from gvcore._exclusive import Exclusive
from gvcore._settings import boolean
from gvcore.nn.losses import Loss
from gvcore.nn.module import Module
from gvcore.seeding import as_seed
from gvcore.train.batch import as_batch, check_loss
from gvcore.train.plans import Plans, check_every, check_net, python_loss

__all__ = ["value_and_grad"]


def value_and_grad(
    net: Module, loss: Any, *, checkpoint_every: int | None = None
) -> Callable[..., tuple[float, dict[str, NDArray[Any]]]]:
    """Make a function that computes the loss of a batch and its gradients, and updates nothing.

    Parameters
    ----------
    net : Module
    loss : a loss of `gvcore.nn`, or a callable ``(prediction, target) -> (loss, dprediction)``
    checkpoint_every : int, optional
        Compute activations again in backward instead of keeping them, see `TrainStep`.

    Returns
    -------
    callable
        ``f(x, y, *, training=True, seed=None) -> (loss, {name: gradient})``. With ``training=True`` batch
        norm uses the batch's statistics and updates the running ones, and dropout drops by `seed`; with False
        neither. The gradients are copies, by dotted name, of the trained parameters. Values that are not
        finite are returned as they are; the running statistics are not updated then.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range; and from the function, if x or y does
        not fit, or a training batch of one row meets batch norm.

    Examples
    --------
    >>> import numpy as np
    >>> import gvcore as gv
    >>> from gvcore import nn
    >>> net = nn.Linear(2, 1, bias=False, init="ones")
    >>> loss, gradients = gv.value_and_grad(net, nn.MSELoss())(np.array([[1.0, 2.0]]), np.array([[0.0]]))
    >>> loss, gradients["weight"]
    (9.0, array([[ 6., 12.]], dtype=float32))
    """
    check_net("value_and_grad", net)
    check_loss("value_and_grad", loss)
    every = check_every("value_and_grad", checkpoint_every)
    plans = Plans(net, loss, None)
    exclusive = Exclusive("value_and_grad", "the loss")

    def evaluate(
        x: Any, y: Any, *, training: bool = True, seed: int | np.random.SeedSequence | None = None
    ) -> tuple[float, dict[str, NDArray[Any]]]:
        training = boolean("value_and_grad", "training", training)
        key = as_seed(seed)

        def work() -> tuple[float, dict[str, NDArray[Any]]]:
            if exclusive.mended() or not plans.look():
                plans.forget()
            batch = as_batch("value_and_grad", x, y, plans.dtype, loss)
            plan = plans.get(batch, training=training, stored=True, every=every)
            plans.check("value_and_grad", batch, plan)
            core = plan.bind()
            request = _core.StepRequest()
            request.update = False
            request.stop_if_not_finite = False
            request.commit_statistics = training
            request.seed = key if training else 0
            if isinstance(loss, Loss):
                value = core.step(batch.inputs, batch.target, None, None, request)[0]
            else:
                prediction = core.forward(batch.inputs, None, request)
                value, gradient = python_loss(loss, prediction, batch.target)
                request.commit_statistics &= math.isfinite(value)
                core.backward(gradient, request)
            pairs = zip(plan.recorded.names, core.gradients(), strict=True)
            return float(value), {name: gradient for name, gradient in pairs if gradient is not None}

        return exclusive.run(work)

    return evaluate

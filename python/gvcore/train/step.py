"""One training step in one native call."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gvcore import _core
from gvcore._exclusive import Exclusive
from gvcore._settings import boolean, real
from gvcore.nn.inference import Plan
from gvcore.nn.losses import Loss
from gvcore.nn.module import Module
from gvcore.optim import Optimizer
from gvcore.seeding import as_seed
from gvcore.train.batch import Batch, as_batch, check_loss
from gvcore.train.plans import Plans, check_every, check_net, fixed, python_loss, uncopied

__all__ = ["TrainStep"]


class TrainStep:
    r"""Forward, loss, backward and update of a net: one call into C++ per step.

    Parameters
    ----------
    net : Module
    loss : a loss of `gvcore.nn`, or a callable ``(prediction, target) -> (loss, dprediction)``
        A callable gets arrays and makes the step two native calls.
    optimizer : SGD, Adam or AdamW
        Settings; the state (velocity, moments) lives in the step, in `state`.
    clip_norm : float, optional
        Scale the gradient so that its norm over all parameters is at most this. May be changed between steps.
    seed : int, numpy.random.SeedSequence or None
        Of dropout. May be changed between steps.
    checkpoint_every : int, optional
        At least 1. Of the activations keep those that cross from one segment of this many layers to the
        next, and compute the others again when backward comes to them: less memory and more time for the
        same bits, see the notes. None keeps all of them. May be changed between steps.

    Attributes
    ----------
    updates : int
        Steps that have updated the parameters: the step that a schedule sees.
    calls : int
        Steps that have run, accumulating ones too: the step that dropout sees.
    gradient_norm : float or None
        Before clipping, in the last step; None without `clip_norm`, and where that step only accumulated.
    workers : int
        How many threads the last step ran on.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range.

    Notes
    -----
    A step that fails (a loss or a clipped gradient norm that is not finite, an exception in a loss written in
    Python) leaves parameters, running statistics and the optimiser's state as they were, to the bit.
    Gradients that were accumulated stay, too, unless they are not finite, which a clipped step finds: then
    they are dropped. Several threads may call one step; they wait for each other. A step cannot be pickled or
    copied, but net, loss and optimizer can, and the arrays in `state`.

    With ``checkpoint_every=k`` (Chen et al.) a net of D layers of width W, each of which keeps a values of a
    row for its own backward (1 with batch norm, 2 without it or in a residual block of one layer), needs for
    the activations of B rows about

    .. math:: B\,W\,(D / k + a\,k) \quad\text{instead of}\quad B\,W\,a\,D

    numbers, the fewest at :math:`k = \sqrt{D / a}`; and at most the time of one more forward. The statistics
    of batch norm, 5 W numbers and 2 W doubles a layer, are kept and used again, so the running ones move
    once; dropout draws the same numbers again. Parameters, state, running statistics and losses have the
    bits of training without it, whatever the net.

    A layer is a product with a parameter, such as `nn.Linear`. A segment ends between its k-th and its 2k-th
    layer, at the first place that the fewest values cross: at the output of a layer in a plain stack, at the
    sum that ends a residual block. All values that cross are kept: one at such places, more where something
    is used further on, as with a connection across the net. The last segment is never computed again, so a
    net of at most k layers trains as without the setting. In a plain stack with batch norm k = 1 saves
    nothing.

    References
    ----------
    T. Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, arXiv 1604.06174.

    Examples
    --------
    >>> import numpy as np
    >>> import gvcore as gv
    >>> from gvcore import nn
    >>> net = nn.Sequential(nn.Linear(2, 8, seed=0), nn.Tanh(), nn.Linear(8, 2, seed=1))
    >>> step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.5))
    >>> x, y = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    >>> first = step(x, y)
    >>> for _ in range(200):
    ...     last = step(x, y)
    >>> last < 0.1 * first
    True

    Keep the activations of about twenty of a hundred layers:

    >>> net = gv.models.resnet(2, 2, width=16, depth=100, seed=0)
    >>> step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1), checkpoint_every=10)
    >>> loss = step(x, y)
    """

    def __init__(
        self,
        net: Module,
        loss: Any,
        optimizer: Optimizer,
        *,
        clip_norm: float | None = None,
        seed: int | np.random.SeedSequence | None = None,
        checkpoint_every: int | None = None,
    ) -> None:
        check_net("TrainStep", net)
        check_loss("TrainStep", loss)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"[TrainStep] expected optimizer to be SGD, Adam or AdamW, got {optimizer!r}")
        self.checkpoint_every = checkpoint_every
        self._net, self._loss, self._optimizer = net, loss, optimizer
        self.clip_norm = clip_norm
        self.seed = as_seed(seed)
        self.updates = 0  # steps that have updated the parameters: the step that a schedule sees
        self.calls = 0  # steps that have run, accumulating ones too: the step that dropout sees
        self.gradient_norm: float | None = None
        self.workers = 0
        self._plans = Plans(net, loss, optimizer)
        self._accumulating: Plan | None = None
        self._request = _core.StepRequest()
        self._exclusive = Exclusive("TrainStep", "the loss")
        names = [names for _, names in net.aliases()]
        optimizer.resolve(names)
        self._state: list[NDArray[Any]] | None = None
        self._counts = np.zeros(len(names), np.int64)

    def __reduce__(self) -> NoReturn:
        raise uncopied("TrainStep")

    @property
    def net(self) -> Module:
        """The net, as given. Net, loss and optimizer cannot be replaced: plans are made of them."""
        return self._net

    @net.setter
    def net(self, value: NoReturn) -> None:
        raise fixed("TrainStep", "net")

    @property
    def loss(self) -> Any:
        """The loss, as given."""
        return self._loss

    @loss.setter
    def loss(self, value: NoReturn) -> None:
        raise fixed("TrainStep", "loss")

    @property
    def optimizer(self) -> Optimizer:
        """The settings, as given; a `Trainer` fills the length of training into their schedule."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, value: NoReturn) -> None:
        raise fixed("TrainStep", "optimizer")

    @property
    def clip_norm(self) -> float | None:
        """The largest norm of the gradient, None for no limit; may be changed."""
        return self._clip_norm

    @clip_norm.setter
    def clip_norm(self, value: float | None) -> None:
        if value is not None:
            value = real("TrainStep", "clip_norm", value, above=0.0, otherwise=" or None")
        self._clip_norm = value

    @property
    def seed(self) -> int:
        """Of dropout; may be changed."""
        return self._seed

    @seed.setter
    def seed(self, value: int | np.random.SeedSequence | None) -> None:
        self._seed = as_seed(value)

    @property
    def checkpoint_every(self) -> int | None:
        """How many layers make a segment whose activations are computed again; may be changed."""
        return self._checkpoint_every

    @checkpoint_every.setter
    def checkpoint_every(self, value: int | None) -> None:
        self._checkpoint_every = check_every("TrainStep", value)

    @property
    def state(self) -> dict[str, Any]:
        """The optimiser's state: ``velocity``, or ``exp_avg`` and ``exp_avg_sq``, by name; and ``updates``.

        The arrays are views, of the shapes of the parameters; there are none before the first step.
        """
        names = {"sgd": ["velocity"], "adam": ["exp_avg", "exp_avg_sq"]}[self.optimizer.native()["kind"]]
        result: dict[str, Any] = {"updates": self._counts}
        for name, flat in zip(names, self._state or [], strict=False):
            start, views = 0, {}
            per_line = 64 // flat.dtype.itemsize
            for key, parameter in self.net.named_parameters():
                views[key] = flat[start : start + parameter.size].reshape(parameter.shape)
                start += -(-parameter.size // per_line) * per_line
            result[name] = views
        return result

    def __call__(
        self,
        x: Any,
        y: Any,
        *,
        lr: float | None = None,
        sample_weight: Any = None,
        accumulate: bool = False,
    ) -> float:
        """Train on one batch.

        Parameters
        ----------
        x : array_like of shape (batch, ...), or a tuple of them
            float16/32/64, integer or bool, `scaled` or not; converted to the dtype of the net row by row.
        y : array_like
            What the loss wants: labels of any integer dtype, or an array of the prediction's shape. A
            callable gets it as an array, with as many rows as x and of any dtype.
        lr : float, optional
            Overrides the optimiser's rate.
        sample_weight : array_like of shape (batch,), optional
            The loss becomes the weighted mean (or sum).
        accumulate : bool, default False
            Add this batch's gradient to what the next updating step will use, and do not update.

        Returns
        -------
        float
            The loss before the update.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; if the structure of the net has changed; if a training batch of one
            row meets batch norm.
        FloatingPointError
            If the loss, or the gradient's norm under `clip_norm`, is not finite.
        """
        if lr is not None:
            lr = real("TrainStep", "lr", lr, at_least=0.0)
        accumulate = boolean("TrainStep", "accumulate", accumulate)

        def work() -> float:
            if self._exclusive.torn:
                raise RuntimeError(
                    "[TrainStep] expected no step to run in another thread while the process forks: the "
                    "child has half a step; make a new net and a new TrainStep there"
                )
            self._plans.look()
            batch = as_batch("TrainStep", x, y, self._plans.dtype, self.loss, sample_weight)
            return self.run(batch, lr=lr, accumulate=accumulate)

        return self._exclusive.run(work)

    def run(self, batch: Batch, *, lr: float | None = None, accumulate: bool = False) -> float:
        """Train on a batch that has been checked already."""
        stored = self.clip_norm is not None or accumulate or self._accumulating is not None
        plan = self._ready(batch, stored=stored)
        core = self._bound(plan)
        request = self._describe(self.optimizer.lr_at(self.updates) if lr is None else lr, accumulate)
        try:
            if isinstance(self.loss, Loss):
                loss, norm, self.workers = core.step(
                    batch.inputs, batch.target, batch.sample_weight, batch.order, request
                )
            else:
                loss, norm, self.workers = self._split(core, batch, request)
        except FloatingPointError:
            if not core.accumulated:
                self._accumulating = None
            raise
        self.gradient_norm = norm if self.clip_norm is not None and not accumulate else None
        self.calls += 1
        self.updates += not accumulate
        self._accumulating = plan if accumulate else None
        return float(loss)

    def _ready(self, batch: Batch, *, stored: bool) -> Plan:
        """Return the plan for a batch, after checking that it and the net fit."""
        if not self._plans.look():
            raise ValueError(
                "[TrainStep] expected the structure of the net to stay as it was, got a net with other "
                "modules, parameters or settings; make a new TrainStep"
            )
        plan = self._plans.get(batch, training=True, stored=stored, every=self.checkpoint_every)
        self._plans.check("TrainStep", batch, plan)
        if self._accumulating is not None and self._accumulating is not plan:
            raise ValueError(
                "[TrainStep] expected batches of one shape, and the same trained parameters, while "
                "accumulating"
            )
        return plan

    def _describe(self, lr: float, accumulate: bool) -> Any:
        request = self._request
        request.lr = lr
        request.clip_norm = self.clip_norm or 0.0
        request.update, request.accumulate = not accumulate, accumulate
        request.commit_statistics = True
        request.seed, request.step = self.seed, self.calls
        return request

    def run_many(
        self,
        batch: Batch,
        cuts: NDArray[np.int64],
        rates: NDArray[np.float64],
        losses: NDArray[np.float64],
        seconds: float,
    ) -> int:
        """Train on the batches ``batch.order[cuts[i]:cuts[i + 1]]`` with their rates for about `seconds`.

        Returns how many steps were done; ``losses`` is filled in as far. A step that fails ends the call: it
        raises in the next one if others came before it, but with a loss written in Python, which might not
        fail twice, at once. In any case `updates` counts those that were done.
        """
        if not isinstance(self.loss, Loss) or len(rates) == 0:
            order = batch.order
            assert order is not None
            end = time.perf_counter() + seconds
            done = 0
            while done < len(rates):
                part = replace(batch, order=order[cuts[done] : cuts[done + 1]])
                losses[done] = self.run(part, lr=float(rates[done]))
                done += 1
                if time.perf_counter() > end:
                    break
            return done
        plan = self._ready(batch, stored=self.clip_norm is not None)
        request = self._describe(float(rates[0]), False)
        done = self._bound(plan).steps(
            batch.inputs,
            batch.target,
            batch.sample_weight,
            batch.order,
            cuts,
            rates,
            losses,
            request,
            seconds,
        )
        self.calls += done
        self.updates += done
        return int(done)

    def _split(self, core: Any, batch: Batch, request: Any) -> tuple[float, float, int]:
        if batch.sample_weight is not None:
            raise ValueError("[TrainStep] expected no sample_weight with a loss written in Python")
        prediction = core.forward(batch.inputs, batch.order, request)
        target = batch.target if batch.order is None else batch.target[batch.order]
        try:
            loss, gradient = python_loss(self.loss, prediction, target)
        except _core.NotFinite as error:
            error.found = ""  # of a step within the loss: to this one an exception like any other
            raise
        if not math.isfinite(loss):
            found = f"expected a finite loss, got {loss}"
            refusal = _core.NotFinite(f"[TrainStep] {found}; nothing was written")
            refusal.found = found
            raise refusal
        _, norm, workers = core.backward(gradient, request)
        return loss, norm, workers

    def _bound(self, plan: Plan) -> Any:
        if self._state is None:
            native = self.optimizer.native()
            count = 2 if native["kind"] == "adam" else int(native["momentum"] != 0)
            self._state = [_core.zeros(plan.core.flat_size, plan.recorded.dtype) for _ in range(count)]
        return plan.bind(self._state, self._counts)

"""Training: the step in one native call, and the loop around it."""

from gvcore.train.gradients import value_and_grad
from gvcore.train.history import History
from gvcore.train.step import TrainStep
from gvcore.train.trainer import Trainer

__all__ = ["History", "TrainStep", "Trainer", "value_and_grad"]

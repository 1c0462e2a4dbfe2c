"""gvcore trains very deep networks on a CPU, with the same bits on every machine.

NumPy arrays in, NumPy arrays out. `nn` has the modules, `TrainStep` and `Trainer` train them,
`functional` has the kernels themselves.
"""

from gvcore import callbacks, datasets, functional, metrics, models, nn, optim, schedules
from gvcore._core import __version__
from gvcore.config import (
    available_isas,
    get_num_threads,
    isa,
    set_num_threads,
    show_config,
    threads,
)
from gvcore.data import scaled, train_test_split
from gvcore.diagnostics import Report
from gvcore.inspection import diagnose
from gvcore.rangetest import RangeTest, find_lr
from gvcore.train import History, Trainer, TrainStep, value_and_grad

__all__ = [
    "History",
    "RangeTest",
    "Report",
    "TrainStep",
    "Trainer",
    "__version__",
    "available_isas",
    "callbacks",
    "datasets",
    "diagnose",
    "find_lr",
    "functional",
    "get_num_threads",
    "isa",
    "metrics",
    "models",
    "nn",
    "optim",
    "scaled",
    "schedules",
    "set_num_threads",
    "show_config",
    "threads",
    "train_test_split",
    "value_and_grad",
]

"""What happened during training: one record per epoch, one per step; as a table, JSON and a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from gvcore._files import pyplot

__all__ = ["History"]

_SHOWN = 20  # rows of a table
_LOG_FROM = 20.0  # a loss that changes by this factor is drawn on a logarithmic scale


class History:
    """The records of `Trainer.fit`; ``print(history)`` shows the epochs as a table.

    Attributes
    ----------
    epoch : list of dict
        One record per completed epoch: ``epoch`` (from 1), ``step`` (updates so far), ``loss`` (mean over
        the epoch's samples while the net was training), the metrics asked for, with validation
        ``val_loss`` and the metrics with ``val_`` before their names, ``lr`` (of the last step) and
        ``seconds``.
    step : list of dict
        One record per update: ``step`` (from 1), ``loss`` (before the update), ``lr``; none without
        telemetry.

    Examples
    --------
    >>> history = History()
    >>> history.epoch.append({"epoch": 1, "step": 12, "loss": 0.5, "lr": 0.1, "seconds": 0.25})
    >>> print(history)
    epoch  step  loss   lr  seconds
        1    12   0.5  0.1     0.25
    """

    def __init__(self) -> None:
        self.epoch: list[dict[str, Any]] = []
        self.step: list[dict[str, Any]] = []

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Return the records as plain lists of dicts, copied."""
        return {"epoch": [dict(r) for r in self.epoch], "step": [dict(r) for r in self.step]}

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the records to a file as JSON: an object with the lists ``epoch`` and ``step``.

        Values that are not finite become null, which every reader of JSON understands.

        Parameters
        ----------
        path : str or path
            The file, which is replaced if it is there.

        Raises
        ------
        OSError
            If it cannot be written.

        Examples
        --------
        >>> import json, pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "history.json")
        ...     History().to_json(path)
        ...     json.loads(path.read_text())
        {'epoch': [], 'step': []}
        """
        import json  # here, because it would cost every import of gvcore

        records = {
            kind: [{k: _plain(v) for k, v in record.items()} for record in records]
            for kind, records in self.to_dict().items()
        }
        with open(path, "w", encoding="utf-8") as file:
            json.dump(records, file, indent=1)
            file.write("\n")

    def plot(self, ax: Any = None) -> list[Any]:
        """Draw the losses, and each metric, over the epochs.

        Losses that change by a factor of 20 or more are drawn on a logarithmic scale. The best epoch of the
        validation loss is marked. With step records, the loss of the single steps lies behind.

        Parameters
        ----------
        ax : matplotlib Axes or sequence of them, optional
            Where to draw: the losses into the first one, one metric into each of the others, as far as there
            are any. Without it a new figure of ``matplotlib.pyplot`` gets an axes for each.

        Returns
        -------
        list of matplotlib Axes
            Those drawn into; ``axes[0].figure.savefig(path)`` saves the picture.

        Raises
        ------
        ImportError
            Without matplotlib, naming the extra that brings it.
        ValueError
            If there is no epoch yet.
        """
        if not self.epoch:
            raise ValueError("[History.plot] expected at least one completed epoch, got none")
        names = [key for key in self._columns() if key not in ("epoch", "step", "lr", "seconds")]
        metrics = list(dict.fromkeys(key.removeprefix("val_") for key in names))
        metrics = ["loss", *(name for name in metrics if name != "loss")]
        if ax is None:
            axes = _new_axes(len(metrics))
        else:
            axes = list(ax) if isinstance(ax, (Sequence, np.ndarray)) else [ax]
        for part, name in zip(axes, metrics, strict=False):
            self._draw(part, name)
        return axes

    def _draw(self, ax: Any, name: str) -> None:
        """Draw one quantity: of the training data, and of the validation data if it is there."""
        values: list[float] = []
        few = len(self.epoch) <= 30
        own = "training, mean of the epoch" if name == "loss" else "training"
        if name == "loss" and len(self.step) > len(self.epoch):
            steps, losses = self._steps()
            ax.plot(
                steps, losses, color="C0", alpha=0.25, linewidth=0.8, label="training, single steps", zorder=1
            )
            values += [v for v in losses if np.isfinite(v)]
        for key, label, colour in ((name, own, "C0"), (f"val_{name}", "validation", "C1")):
            points = [(r["epoch"], r[key]) for r in self.epoch if key in r]
            if not points:
                continue
            at, line = zip(*points, strict=True)
            ax.plot(at, line, color=colour, label=label, marker="o" if few else None, markersize=4, zorder=3)
            values += [v for v in line if np.isfinite(v)]
            if key == "val_loss" and np.isfinite(line).any():
                best = int(np.nanargmin(line))
                text = f"best: {line[best]:.3g} in epoch {at[best]}"
                ax.plot(
                    at[best],
                    line[best],
                    "o",
                    color="C3",
                    markersize=8,
                    fillstyle="none",
                    label=text,
                    zorder=4,
                )
        if name == "loss" and values and min(values) > 0 and max(values) / min(values) >= _LOG_FROM:
            ax.set_yscale("log")
        ax.set_xlabel("epoch")
        ax.set_ylabel(name.replace("_", " "))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
        ax.margins(x=0.02)
        ax.legend(frameon=False)

    def _steps(self) -> tuple[Any, list[float]]:
        """Place the step records on the axis of epochs: the first step of epoch 1 lies just behind 0."""
        ends = [(r["step"], r["epoch"]) for r in self.epoch if "step" in r]
        steps = [r["step"] for r in self.step if ends and r["step"] <= ends[-1][0]]
        places = np.interp(steps, [0, *(s for s, _ in ends)], [0, *(e for _, e in ends)])
        return places, [r["loss"] for r in self.step[: len(steps)]]

    def _columns(self) -> list[str]:
        columns = list(dict.fromkeys(key for record in self.epoch for key in record))
        last = [key for key in ("lr", "seconds") if key in columns]
        return [key for key in columns if key not in last] + last

    def __str__(self) -> str:
        if not self.epoch:
            return repr(self)
        columns = self._columns()
        rows: list[list[str]] = [columns]
        rows += [[_cell(record.get(key)) for key in columns] for record in self.epoch]
        if len(rows) > _SHOWN + 1:
            rows[_SHOWN // 2 + 1 : -_SHOWN // 2] = [["…"] * len(columns)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
        return "\n".join(
            "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows
        )

    def __repr__(self) -> str:
        if not self.epoch:
            return f"History(0 epochs, {len(self.step)} steps)"
        last = ", ".join(f"{key}={_cell(value)}" for key, value in self.epoch[-1].items())
        return f"History({len(self.epoch)} epochs, {len(self.step)} steps; {last})"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _new_axes(count: int) -> list[Any]:
    columns = min(count, 3)
    rows = -(-count // columns)
    size = (max(6.4, 4.6 * columns), 3.8 * rows)
    figure, grid = pyplot("History.plot").subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False
    )
    axes = list(grid.flat)
    for unused in axes[count:]:
        figure.delaxes(unused)
    return axes[:count]

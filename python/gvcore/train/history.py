"""What happened during training: one record per epoch, one per step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["History"]


class History:
    """The records of `Trainer.fit`.

    Attributes
    ----------
    epoch : list of dict
        ``epoch``, ``loss`` (mean over the epoch's samples), ``lr`` (of the last step), ``seconds``; with
        validation ``val_loss``; the metrics asked for, with ``val_`` before those of the validation set.
    step : list of dict
        ``step``, ``loss``, ``lr``.
    """

    def __init__(self) -> None:
        self.epoch: list[dict[str, Any]] = []
        self.step: list[dict[str, Any]] = []

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Return the records as plain lists of dicts."""
        return {"epoch": [dict(r) for r in self.epoch], "step": [dict(r) for r in self.step]}

    def to_json(self, path: str | Path) -> None:
        """Write the records to a file as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def __repr__(self) -> str:
        last = ", ".join(f"{k}={v:.4g}" for k, v in self.epoch[-1].items()) if self.epoch else "empty"
        return f"History({len(self.epoch)} epochs, {len(self.step)} steps; {last})"

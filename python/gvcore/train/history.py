"""What happened during training: one record per epoch, one per step."""

from __future__ import annotations

import os
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

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the records to a file as JSON."""
        import json  # here, because it would cost every import of gvcore

        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.to_dict(), file, indent=1)
            file.write("\n")

    def __repr__(self) -> str:
        last = ", ".join(f"{k}={v:.4g}" for k, v in self.epoch[-1].items()) if self.epoch else "empty"
        return f"History({len(self.epoch)} epochs, {len(self.step)} steps; {last})"

"""What `gvcore.diagnose` found, as numbers, a table and a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcore.diagnostics.flow import BlockFlow, Growth, LayerFlow
from gvcore.diagnostics.picture import Axes, draw_flow

__all__ = ["Report"]

_SHOWN = 8  # blocks at each end of a long table; half as many around the start of the trouble


@dataclass(frozen=True, repr=False)
class Report:
    """How a batch and its gradient flow through a net.

    Attributes
    ----------
    loss : float
        On the batch.
    rows : int
        Samples in the batch.
    blocks : list of BlockFlow
        First block first.
    layers : list of LayerFlow
        Every call of a module without parts, in the order of the calls.
    parameter_gradient_norms : dict of str to float
        By dotted name; frozen parameters are left out.
    gradient_growth, activation_growth : Growth
        ``factor`` per layer, of the gradient's norm towards the input and of the activation's root mean
        square towards the output, and ``spread``, by which factor blocks typically stray from that law.
    verdict : {"healthy", "vanishing", "exploding"}
    starts_at : str or None
        Dotted name of the module where it starts; None if healthy.
    """

    loss: float
    rows: int
    blocks: list[BlockFlow]
    layers: list[LayerFlow]
    parameter_gradient_norms: dict[str, float]
    gradient_growth: Growth
    activation_growth: Growth
    verdict: str
    starts_at: str | None

    @property
    def gradient_norms(self) -> NDArray[np.float64]:
        """Norm of the gradient of the loss with respect to the input of each block, first block first."""
        return np.array([block.gradient_norm for block in self.blocks])

    @property
    def activation_norms(self) -> NDArray[np.float64]:
        """Norm of the output of each block, first block first."""
        return np.array([block.activation_norm for block in self.blocks])

    @property
    def growth_per_layer(self) -> float:
        """Factor by which the norm of the gradient grows for each layer towards the input.

        1 is ideal; NaN where fewer than two norms can be trusted.
        """
        return self.gradient_growth.factor

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dicts, lists, strings and numbers; what is not finite stays so."""
        return {
            "verdict": self.verdict,
            "starts_at": self.starts_at,
            "loss": self.loss,
            "rows": self.rows,
            "growth_per_layer": self.growth_per_layer,
            "growth_spread": self.gradient_growth.spread,
            "activation_growth_per_layer": self.activation_growth.factor,
            "activation_growth_spread": self.activation_growth.spread,
            "gradient_norms": self.gradient_norms.tolist(),
            "blocks": [asdict(block) for block in self.blocks],
            "layers": [asdict(layer) for layer in self.layers],
            "parameter_gradient_norms": dict(self.parameter_gradient_norms),
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the gradient and the activation by block, on logarithmic scales.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.axes.Axes
            That of the gradient norms, on the left; the root mean square of the activations has a scale
            of its own on the right. Save it with ``ax.figure.savefig("flow.png")``.

        Raises
        ------
        ImportError
            Without matplotlib, naming the extra that brings it.
        """
        return draw_flow(self.blocks, self.headline(), self.starts_at, ax)

    def headline(self) -> str:
        """Return the verdict in one line."""
        start = f", starts at {self.starts_at}" if self.starts_at is not None else ""
        law = f"gradient norm × {self.growth_per_layer:.4g} per layer towards the input"
        if math.isnan(self.growth_per_layer) and not math.isnan(self.activation_growth.factor):
            law = f"activation × {self.activation_growth.factor:.4g} per layer towards the output"
        return f"{self.verdict}{start}: {law}"

    def __str__(self) -> str:
        norms = self.gradient_norms
        lines = [
            self.headline(),
            f"{len(self.blocks)} blocks, {len(self.layers)} layer calls, {self.rows} rows, "
            f"loss {self.loss:.4g}",
            f"gradient norm {norms[-1]:.3g} before the last block, {norms[0]:.3g} before the first; "
            f"spread around the law × {self.gradient_growth.spread:.3g}",
            f"activation (rms) × {self.activation_growth.factor:.4g} per layer towards the output; "
            f"spread × {self.activation_growth.spread:.3g}",
            "",
        ]
        chosen, names = self._chosen(), [_named(block) for block in self.blocks]
        width = max(len("block"), *(len(names[i]) for i in chosen))
        for row in (
            ("block", "activation", "gradient", "parameters", "dead", "saturated"),
            ("", "rms", "at input", "gradient", "units", "units"),
        ):
            lines.append(
                f"{row[0]:<{width}}  {row[1]:>10}  {row[2]:>9}  {row[3]:>10}  {row[4]:>6}  {row[5]:>9}"
            )
        last = -1
        for i in chosen:
            if i > last + 1:
                lines.append(f"… {i - last - 1} more")
            block = self.blocks[i]
            mark = "  <- starts here" if block.name == self._start_block() else ""
            lines.append(
                f"{names[i]:<{width}}  {block.activation_rms:>10.3g}  {block.gradient_norm:>9.3g}  "
                f"{_number(block.parameter_gradient_norm):>10}  {_share(block.dead):>6}  "
                f"{_share(block.saturated):>9}{mark}"
            )
            last = i
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Report({self.headline()}; {len(self.blocks)} blocks)"

    def _start_block(self) -> str | None:
        """Return the name of the block that holds the module where the trouble starts."""
        if self.starts_at is None:
            return None
        named = [b.name for b in self.blocks if f"{self.starts_at}.".startswith(f"{b.name}.")]
        return named[0] if named else None

    def _chosen(self) -> Sequence[int]:
        count = len(self.blocks)
        if count <= 3 * _SHOWN:
            return range(count)
        start = self._start_block()
        around = [i for i, block in enumerate(self.blocks) if block.name == start]
        chosen = {*range(_SHOWN), *range(count - _SHOWN, count)}
        for i in around[:1]:
            chosen |= {k for k in range(i - _SHOWN // 2, i + _SHOWN // 2 + 1) if 0 <= k < count}
        return sorted(chosen)


def _named(block: BlockFlow) -> str:
    text = f"{block.name} {block.kind}".strip()
    return text if len(text) <= 40 else text[:39] + "…"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"

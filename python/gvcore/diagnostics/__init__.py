"""How signals and gradients flow through a net: measuring it, judging it, showing it.

Not here: the front door `gvcore.diagnose`, which knows what a batch and a loss are.
"""

from gvcore.diagnostics.flow import BlockFlow, LayerFlow
from gvcore.diagnostics.report import Report

__all__ = ["BlockFlow", "LayerFlow", "Report"]

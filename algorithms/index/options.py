"""Typed options of index selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pytest_pilotscope.algorithms.index.extend import Limits
from pytest_pilotscope.algorithms.index.whatif import Means
from pytest_pilotscope.record.results import Scalar

MB = 1 << 20

Start = Literal["existing", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """
    The options that `algorithms/plugin.py` declares, `update_every` of the settings, and what only Python can choose.

    Each step must exceed `min_improvement`, the ratio old / new cost.
    """

    budget_mb: float
    width: int
    start: Start
    whatif: Means
    covering: bool
    update_every: int
    min_improvement: float = 1.003

    @property
    def limits(self) -> Limits:
        """The limits of Extend."""
        return Limits(budget_bytes=int(self.budget_mb * MB), width=self.width, min_improvement=self.min_improvement)

    @property
    def parameters(self) -> dict[str, Scalar]:
        """As they are recorded."""
        return {
            "index_budget_mb": self.budget_mb,
            "index_width": self.width,
            "index_min_improvement": self.min_improvement,
            "index_start": self.start,
            "index_covering": self.covering,
            "update_every": self.update_every,
        }

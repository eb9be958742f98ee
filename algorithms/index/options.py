"""What a user can choose for index selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from algorithms.index.extend import Limits
from algorithms.index.whatif import Means
from pytest_pilotscope.core.results import Scalar
from pytest_pilotscope.core.settings import Settings

MB = 1 << 20

Start = Literal["existing", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """
    `budget_mb` (of 2^20 bytes) is for the indexes that are added, `width` the most columns of one, `min_improvement` the ratio old / new
    cost that each step must exceed.

    `start` keeps the indexes that are there (`existing`) or starts without those that no constraint needs (`none`). `what_if` is the means
    (`auto`: HypoPG where it can be used, else built and hidden indexes). With `covering`, columns that are only read are candidates, too.
    Indexes are selected again after every `update_every` queries.
    """

    budget_mb: float = 250.0
    width: int = 2
    min_improvement: float = 1.003
    start: Start = "existing"
    what_if: Means = "auto"
    covering: bool = False
    update_every: int = 200

    @classmethod
    def from_settings(cls, settings: Settings) -> IndexOptions:
        """What the command line says."""
        return cls(
            budget_mb=settings.index_budget_mb,
            width=settings.index_width,
            start=cast(Start, settings.index_start),
            what_if=cast(Means, settings.index_whatif),
            covering=settings.index_covering,
            update_every=settings.update_every,
        )

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

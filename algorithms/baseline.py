"""PostgreSQL left alone: the paired partner of every other algorithm, and an A/A pair when it is measured by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_pilotscope.record.results import TrainingReport

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training


class Baseline:
    """Takes no decision."""

    name = "baseline"
    learns = False

    def train(self, training: Training) -> TrainingReport:
        """Learn nothing; say so in the parameters."""
        return training.report(parameters={"no_ai": True, "direct_execution": True})

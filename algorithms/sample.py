"""The algorithm `sample`: the textbook's estimates, with filters on a sample of each table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_pilotscope.algorithms.planned import PlannedEstimator, Rows
from pytest_pilotscope.algorithms.textbook import Textbook, read_textbook
from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.queries.joins import JoinQuery
from pytest_pilotscope.record.results import TrainingReport

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training


class Sample(PlannedEstimator):
    """
    Filters by sample, joins by numbers of distinct values (Selinger et al., SIGMOD 1979); it needs no training queries.

    A learned estimator should beat it: it knows correlations of columns of one table, but none between tables.
    """

    name = "sample"
    learns = False

    def __init__(self) -> None:
        super().__init__()
        self._textbook: Textbook | None = None

    def train(self, training: Training) -> TrainingReport:
        """Draw the samples."""
        sample_rows = training.options["rows"]
        self.open(training)
        self._textbook = read_textbook(training.session, training.schema, seed=training.settings.seed, sample_rows=sample_rows)
        return training.report(parameters={"sample_rows": sample_rows})

    def rows(self, query: JoinQuery, masks: Sequence[int]) -> Rows:
        """Estimate the (S,) rows of sets of relations."""
        if self._textbook is None:
            raise ModelError("sample has no samples yet; train it")
        return self._textbook.rows(query, masks)

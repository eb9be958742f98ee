"""The algorithm `replay`: rows of subplans from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.algorithms.replay.estimates import Estimates, read_estimates
from pytest_pilotscope.algorithms.replay.subplan_lines import SubplanLines, read_numbers, subplan_file_of
from pytest_pilotscope.errors import UnsupportedQuery, UsageError
from pytest_pilotscope.learning.algorithm import PartialCardinalities
from pytest_pilotscope.queries.joins import Subplan
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import TrainingReport

if TYPE_CHECKING:
    from pytest_pilotscope.learning.algorithm import Cardinalities
    from pytest_pilotscope.learning.training import Training

NOT_COVERED = "the file of estimates does not have it"


class Replay:
    """
    Answers with the rows that files have: estimates of another program, or true rows.

    PostgreSQL keeps its own estimate of a set that no file has, and its plan nodes count as not steered. Looking an estimate up is no
    measure of the time that the other program needs.
    """

    name = "replay"
    learns = False

    def __init__(self) -> None:
        self._files: list[Estimates | SubplanLines] = []
        self._known: dict[Query, PartialCardinalities] = {}

    def train(self, training: Training) -> TrainingReport:
        """Read the files of `--replay-estimates`. Raise `UsageError`, which names a file and a line that cannot be read."""
        paths = training.options["estimates"]
        if not paths:
            raise UsageError("replay needs estimates: name a file with --replay-estimates FILE (`pilotscope subplans` writes one)")
        self._known.clear()
        beside = iter(training.options["subplans"])
        self._files = [_of_lines(path, next(beside, None), training) if path.suffix == ".txt" else read_estimates(path) for path in paths]
        return training.report(parameters={"estimates": ",".join(path.name for path in paths)})

    def steer_by_text(self, query: Query) -> Cardinalities | None:
        """Return the rows of a query whose sets the planner has listed before, None for a new query."""
        return self._known.get(query)

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """Return the rows of the given sets that a file has. Raise `UnsupportedQuery` if no file has any of them."""
        rows: dict[Subplan, float] = {}
        for file in self._files:
            rows.update(file.of(query) if isinstance(file, SubplanLines) else file.get(query.id, {}))
        found = {subplan: rows[subplan] for subplan in subplans if subplan in rows}
        if not found:
            raise UnsupportedQuery(NOT_COVERED, query.sql)
        self._known[query] = PartialCardinalities(found, dict.fromkeys(subplans.keys() - found.keys(), NOT_COVERED))
        return self._known[query]


def _of_lines(path: Path, subplans: Path | None, training: Training) -> SubplanLines:
    numbers = read_numbers(path)
    return SubplanLines.read(subplans or subplan_file_of(path, len(numbers)), numbers, training.schema)

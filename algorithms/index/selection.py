"""The algorithm `index`: selects indexes from the training queries and builds them in a copy of the database."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING

from algorithms.index.advisor import StartingPoint, select, take_start
from algorithms.index.columns import IndexedQuery, indexed_query
from algorithms.index.costs import UsedSetCosts
from algorithms.index.options import IndexOptions
from algorithms.index.records import Update, described, metrics, scalars, write_update
from algorithms.index.whatif import open_what_if
from pytest_pilotscope.core.joins import Schema
from pytest_pilotscope.core.predicates import quote_identifier
from pytest_pilotscope.core.results import TrainingReport
from pytest_pilotscope.errors import AlgorithmError, ModelError
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.postgres.fingerprint import fingerprint
from pytest_pilotscope.postgres.indexes import Index, create_index
from pytest_pilotscope.postgres.session import Session

if TYPE_CHECKING:
    from pytest_pilotscope.provision import Database
    from pytest_pilotscope.training import Training

FILE = "indexes.json"


class IndexSelection:
    """
    Takes over the index set: Extend on what-if costs of the training queries, within a storage budget.

    The original database is never changed: what is tried out and what is measured are copies of their own.
    """

    name = "index"

    def __init__(self, options: IndexOptions | None = None) -> None:
        self.options = options
        self.model_id = f"index_{datetime.now(timezone.utc):%Y%m%d_%H%M%S}"
        self.indexes: tuple[Index, ...] | None = None

    def train(self, training: Training) -> TrainingReport:
        """Select indexes for the training queries, again after every `update_every` of them; the last selection counts."""
        options = self.options = self.options or IndexOptions.from_settings(training.settings)
        with training.database.copy() as copy, copy.session() as session:
            schema = read_schema(session)
            queries = [indexed_query(query, schema, covering=options.covering) for query in training.queries]
            if not queries:
                raise AlgorithmError("index selection has no training queries; raise --training-size or give a workload that has some")
            start = take_start(session, drop=options.start == "none")
            with open_what_if(copy, options.what_if) as what_if:
                costs = UsedSetCosts(what_if)
                updates = _updates(training, queries, costs, options, start)
                artifacts = [write_update(training.folder, update, start, what_if) for update in updates]
                self.indexes = updates[-1].selection.indexes
                return training.report(
                    metrics=metrics(updates),
                    parameters={**options.parameters, "index_whatif": what_if.name, "num_training": len(queries)},
                    scalars=scalars(updates[-1], costs, start),
                    artifacts=artifacts,
                )

    @contextmanager
    def prepare(self, database: Database) -> Iterator[Database]:
        """
        Build the selected indexes in a copy of `database` and give the copy; it is dropped on leaving, whatever happens.

        Raises `AlgorithmError` before anything is selected or loaded.
        """
        if self.indexes is None or self.options is None:
            raise AlgorithmError("index selection has nothing to build: train it or load a model first")
        with database.copy() as copy:
            with copy.session() as session:
                take_start(session, drop=self.options.start == "none")
                for index in self.indexes:
                    create_index(session, index)
                if copy.dataset is not None:
                    _analyze(session, {index.table for index in self.indexes})
                prepared = replace(copy, fingerprint=fingerprint(session))
            yield prepared

    def save(self, folder: Path) -> None:
        """Write the indexes and the options they were selected with."""
        if self.indexes is None or self.options is None:
            raise AlgorithmError("index selection has nothing to save: train it or load a model first")
        content = {"start": self.options.start, "indexes": [described(index) for index in self.indexes]}
        (folder / FILE).write_text(json.dumps(content, indent=2) + "\n")

    def load(self, folder: Path, training: Training) -> None:
        """Read what `save` wrote; `ModelError` for a broken file and for tables or columns that this database does not have."""
        path = folder / FILE
        try:
            content = json.loads(path.read_text())
            indexes = tuple(Index(str(entry["table"]), tuple(map(str, entry["columns"]))) for entry in content["indexes"])
            start = content["start"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path} is not a saved index selection: {type(error).__name__}: {error}") from error
        if start not in ("existing", "none"):
            raise ModelError(f"{path} is not a saved index selection: start is {start!r}, expected 'existing' or 'none'")
        _check(path, indexes, read_schema(training.session))
        self.options = replace(self.options or IndexOptions.from_settings(training.settings), start=start)
        self.indexes = indexes


def _updates(
    training: Training, queries: Sequence[IndexedQuery], costs: UsedSetCosts, options: IndexOptions, start: StartingPoint
) -> list[Update]:
    updates = []
    ends = [*range(options.update_every, len(queries), options.update_every), len(queries)]
    with training.progress("selecting indexes", len(ends)) as advance:
        for number, end in enumerate(ends):
            started_ns = perf_counter_ns()
            costs.queries = tuple(queries[:end])
            selection = select(queries[:end], costs, options.limits, start.kept_indexes)
            duration_s = (perf_counter_ns() - started_ns) / 1e9
            updates.append(Update(number=number, queries=end, duration_s=duration_s, selection=selection))
            advance(1)
    return updates


def _analyze(session: Session, tables: set[str]) -> None:
    """
    Analyze the tables that got an index.

    A dataset of ours is loaded with statistics targets that make ANALYZE read every row, so the copy keeps the statistics of the original.
    A user's database would get another random sample than the original has, and plans could differ by that alone: there it is left out.
    """
    for table in sorted(tables):
        session.execute(f"ANALYZE {quote_identifier(table)}")


def _check(path: Path, indexes: Sequence[Index], schema: Schema) -> None:
    for index in indexes:
        missing = [column for column in index.columns if column not in schema.get(index.table, {})]
        if missing or not index.columns:
            raise ModelError(f"{path} has an index on {index}, but this database has no such columns; it belongs to other data")

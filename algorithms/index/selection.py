"""The algorithm `index`: it selects indexes for the training queries and builds them in a copy of the database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.algorithms.index.advisor import Start, StartingPoint, select, take_start
from pytest_pilotscope.algorithms.index.costs import UsedSetCosts, WhatIf
from pytest_pilotscope.algorithms.index.extend import Limits
from pytest_pilotscope.algorithms.index.maintenance import Maintenance, count_written, maintenance_of
from pytest_pilotscope.algorithms.index.query_columns import IndexedQuery, indexed_query
from pytest_pilotscope.algorithms.index.saved_indexes import check_columns, load_indexes, save_indexes
from pytest_pilotscope.algorithms.index.selection_report import Update, metrics, scalars, write_update
from pytest_pilotscope.algorithms.index.whatif import BackEnd, OpenWhatIf, check_what_if, open_what_if
from pytest_pilotscope.algorithms.model_files import Metadata, new_metadata
from pytest_pilotscope.errors import AlgorithmError, UnsupportedQuery
from pytest_pilotscope.postgres.catalog import indexable_schema, read_schema
from pytest_pilotscope.postgres.fingerprint import fingerprint
from pytest_pilotscope.postgres.indexes import Index, create_index
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.joins import Schema
from pytest_pilotscope.queries.predicates import quote_identifier
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import Scalar, TrainingReport

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.provision.database import Database

MB = 1 << 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """
    The options that `algorithms/plugin.py` declares, `update_every` of the settings, and one that only Python can choose.

    Each step must exceed `min_improvement`, the ratio old / new cost.
    """

    budget_mb: float
    width: int
    start: Start
    whatif: BackEnd
    covering: bool
    update_every: int
    min_improvement: float = 1.003

    @property
    def limits(self) -> Limits:
        """The limits of Extend."""
        return Limits(budget_bytes=int(self.budget_mb * MB), width=self.width, min_improvement=self.min_improvement)

    @property
    def parameters(self) -> dict[str, Scalar]:
        """The options as the record has them."""
        return {
            "index_budget_mb": self.budget_mb,
            "index_width": self.width,
            "index_min_improvement": self.min_improvement,
            "index_start": self.start,
            "index_covering": self.covering,
            "update_every": self.update_every,
        }


class IndexSelection:
    """
    Index selection: Extend on what-if costs of the training queries, within a storage budget.

    It never changes the original database: training and measuring use copies.
    """

    name = "index"
    selection = ("validation_estimated_cost", True)
    copies = True

    def __init__(self) -> None:
        self.model_id = ""
        self.indexes: tuple[Index, ...] | None = None
        self._start: Start = "existing"
        self._metadata: Metadata | None = None

    def train(self, training: Training) -> TrainingReport:
        """Select indexes for the training queries, again after every `update_every` of them; the last selection counts."""
        options = IndexOptions(**training.options, update_every=training.settings.update_every)
        with training.database.copy() as copy, copy.session() as session:
            schema = read_schema(session)
            possible = indexable_schema(session, schema)
            queries, validation = (_read(part, schema, possible, options) for part in (training.queries, training.validation))
            if not queries:
                raise AlgorithmError("index selection has no training queries; raise --training-size or give a workload that has some")
            start = take_start(session, drop=options.start == "none")
            with open_what_if(copy, options.whatif) as what_if:
                queries = _without(what_if.left_out({table for query in queries for table in query.indexable}), queries)
                costs = UsedSetCosts(what_if)
                maintenance = _maintenance(training, session, start, what_if)
                if maintenance is not None:
                    costs.upkeep = maintenance.cost
                updates = _updates(training, queries, what_if, costs, options, start)
                self._take(updates[-1].selection.indexes, training, options)
                artifacts = [write_update(training.folder, update, start, what_if) for update in updates]
                back_end = what_if.name
                figures = {
                    "num_training_queries": len(queries),
                    **scalars(updates[-1], costs, start),
                    **_validated(what_if, validation, updates[-1].selection.indexes, costs),
                }
                if maintenance is not None:
                    figures["estimated_maintenance_cost"] = len(queries) * maintenance.cost(frozenset(updates[-1].selection.indexes))
        return training.report(
            metrics=metrics(updates),
            parameters={"model_id": self.model_id, **options.parameters, "index_whatif": back_end},
            scalars=figures,
            artifacts=[*save_indexes(training.folder, *self._selected()), *artifacts],
        )

    @staticmethod
    def check_training(database: Database) -> None:
        """Raise `UsageError` if no index can be selected on the server of a database."""
        check_what_if(database)

    @contextmanager
    def prepare(self, database: Database) -> Iterator[Database]:
        """
        Build the selected indexes in a copy of `database` and give the copy; leaving drops it, also after an error.

        Raises `AlgorithmError` before anything is selected or loaded.
        """
        if self.indexes is None:
            raise AlgorithmError("index selection has nothing to build: train it or load a model first")
        with database.copy() as copy:
            with copy.session() as session:
                take_start(session, drop=self._start == "none")
                for index in self.indexes:
                    create_index(session, index)
                if copy.dataset is not None:
                    _analyze(session, {index.table for index in self.indexes})
                prepared = replace(copy, fingerprint=fingerprint(session))
            yield prepared

    @staticmethod
    def decider(folder: Path) -> Callable[[str], Mapping[str, Any]]:
        """Return a function from SQL to the indexes in a folder, which are the same for every statement."""
        indexes, _, _ = load_indexes(folder)
        return lambda sql: {"indexes": [index.statement for index in indexes]}

    def save(self, folder: Path) -> None:
        """Write the indexes and their starting point: `model/<model_id>/` and `metadata/<model_id>.json` below `folder`."""
        save_indexes(folder, *self._selected())

    def load(self, folder: Path, training: Training) -> None:
        """Read saved indexes; `ModelError` for a broken file and for one of another schema or other data."""
        indexes, start, metadata = load_indexes(folder)
        metadata.check(data_fingerprint=training.data_fingerprint, schema=training.schema)
        check_columns(indexes, metadata, training.schema)
        self.indexes, self._start, self.model_id, self._metadata = indexes, start, metadata.model_id, metadata

    def _take(self, indexes: tuple[Index, ...], training: Training, options: IndexOptions) -> None:
        self.indexes, self._start, self._metadata = indexes, options.start, new_metadata("index", training, options.parameters)
        self.model_id = self._metadata.model_id

    def _selected(self) -> tuple[tuple[Index, ...], Start, Metadata]:
        if self.indexes is None or self._metadata is None:
            raise AlgorithmError("index selection has nothing to save: train it or load a model first")
        return self.indexes, self._start, self._metadata


def _read(queries: Sequence[Query], schema: Schema, possible: Schema, options: IndexOptions) -> list[IndexedQuery]:
    """Read the columns of queries; leave out a query that cannot be read, with a warning that names it."""
    found = []
    for query in queries:
        try:
            found.append(indexed_query(query, schema, possible=possible, covering=options.covering))
        except UnsupportedQuery as error:
            logger.warning("index selection leaves out query %s: %s", query.id, error.reason)
    return found


def _without(tables: frozenset[str], queries: Sequence[IndexedQuery]) -> list[IndexedQuery]:
    """Return the queries without candidates for indexes on these tables."""
    return [
        replace(query, indexable={table: columns for table, columns in query.indexable.items() if table not in tables}) for query in queries
    ]


def _validated(what_if: WhatIf, queries: Sequence[IndexedQuery], indexes: Sequence[Index], trained: UsedSetCosts) -> dict[str, float]:
    """Return the estimated cost of the validation queries, which compares selections for different training queries."""
    costs = UsedSetCosts(what_if, queries, trained.upkeep)
    return {"validation_estimated_cost": costs.totals([frozenset(indexes)])[0]} if queries else {}


def _maintenance(training: Training, session: Session, start: StartingPoint, what_if: WhatIf) -> Maintenance | None:
    """Return the cost of maintenance for the scripts of `--writes`, whose rows are counted in a copy for that; None without scripts."""
    writes = training.writes
    if writes is None:
        return None
    with training.database.copy() as scratch, scratch.session() as counting:
        take_start(counting, drop=bool(start.dropped))
        written = count_written(counting, writes, training.settings.seed)
    return maintenance_of(session, writes, start, what_if, written)


def _updates(
    training: Training,
    queries: Sequence[IndexedQuery],
    what_if: OpenWhatIf,
    costs: UsedSetCosts,
    options: IndexOptions,
    start: StartingPoint,
) -> list[Update]:
    updates = []
    ends = [*range(options.update_every, len(queries), options.update_every), len(queries)]
    with training.progress("selecting indexes", len(ends)) as advance:
        for number, end in enumerate(ends):
            started_ns = perf_counter_ns()
            costs.queries = tuple(queries[:end])
            selection = select(queries[:end], costs, options.limits, start.kept_indexes)
            while not what_if.confirm(selection.indexes):
                selection = select(queries[:end], costs, options.limits, start.kept_indexes)
            duration_s = (perf_counter_ns() - started_ns) / 1e9
            updates.append(Update(number=number, queries=end, duration_s=duration_s, selection=selection))
            advance(1)
    return updates


def _analyze(session: Session, tables: set[str]) -> None:
    """
    Analyze the tables that got an index.

    Our datasets have statistics targets that make ANALYZE read every row, so the copy keeps the statistics of the original. The copy of a
    user's database would get another random sample than the original, and plans could differ by that alone, so the caller leaves it out.
    """
    for table in sorted(tables):
        session.execute(f"ANALYZE {quote_identifier(table)}")

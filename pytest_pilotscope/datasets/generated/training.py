"""
Training and validation queries for a workload that has none.

The generator samples a join tree from foreign keys and the joins of the workload, in the workload's sizes, and reads some rows of its
result. It samples conditions from the columns' statistics such that one of these rows fulfils them all, so no query has an empty result.
It uses the columns and operators of the test queries' filters, but never their constants.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.datasets.workload_cache import cached_workload, source_hash
from pytest_pilotscope.errors import DatasetError, StatementFailed
from pytest_pilotscope.options.progress import Advance, ShowProgress
from pytest_pilotscope.postgres.catalog import read_references, read_schema
from pytest_pilotscope.queries.joins import Schema
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.queries.templates import normalized

from .join_trees import JoinTree, JoinTreeSampler, Row
from .sampled_conditions import ColumnStatistics, ConditionSampler, filterable, name_sql, read_statistics
from .shape import Column, Shape, edge, shape_of

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

_QUERIES_PER_TREE = 6
_ATTEMPTS = 10
"""Join trees to sample for each wanted query at most: on small data many queries repeat."""

_COST_FACTOR = 10.0
"""A query is left out if its plan cost is more than so many times that of the most expensive test query."""

_SEARCH = {
    "synchronize_seqscans": "off",  # the same first rows every time
    "max_parallel_workers_per_gather": "0",
    "join_collapse_limit": "1",  # join from the sampled relation on, in the order in which the tree grew
    "geqo_threshold": "6",  # a rough plan is enough to see that a query is too expensive
    "geqo_effort": "1",
}

References = Mapping[tuple[str, str], str]
"""(table, column) -> table, whose key is `id`."""


def generate_training(
    session: Session,
    workload: Workload,
    *,
    count: int,
    seed: int,
    references: References,
    data_fingerprint: str,
    show_progress: ShowProgress,
) -> Workload:
    """
    Return the workload with `count` training queries and a tenth of that for validation, generated once and then read from the cache.

    `references` are foreign keys that the catalog does not have. Raise DatasetError if the data has too few different queries.
    """
    identity = "\0".join((data_fingerprint, workload.fingerprint, str(count), str(seed)))
    key = f"{workload.dataset}-training-{source_hash(Path(__file__).parent)}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"

    def make() -> Workload:
        wanted = count + max(1, count // 10)
        with show_progress(f"training queries for {workload.dataset}", wanted) as advance:
            generator = _Generator.of(session, workload, references, random.Random(seed))  # noqa: S311 - not for secrets
            queries = list(generator.queries(wanted, advance))
        return replace(workload, train=tuple(queries[:count]), validation=tuple(queries[count:]))

    made = cached_workload(key, make)
    return replace(workload, train=made.train, validation=made.validation, origin=f"{len(made.train)} generated training")


@dataclass(slots=True, kw_only=True)
class _Generator:
    """A generator of different queries over one database."""

    workload: Workload
    trees: JoinTreeSampler
    sampler: ConditionSampler
    statistics: Mapping[tuple[str, str], ColumnStatistics]
    rng: random.Random
    cost_limit: float

    @classmethod
    def of(cls, session: Session, workload: Workload, references: References, rng: random.Random) -> _Generator:
        """Read the workload's shape and the database's schema and statistics, and prepare the session."""
        schema = read_schema(session)
        shape = _shape(session, workload, references, schema)
        keys = {column for found in shape.edges for column in found}
        columns = {table: _filtered(table, schema, shape, keys) for table in schema}
        types = {(table, column): schema[table][column] for table, names in columns.items() for column in names}
        for setting, value in _SEARCH.items():
            session.execute("SELECT set_config(%s, %s, false)", (setting, value))
        return cls(
            workload=workload,
            trees=JoinTreeSampler(session=session, schema=schema, shape=shape, columns=columns, rng=rng),
            sampler=ConditionSampler(rng=rng, kinds=shape.kinds),
            statistics=read_statistics(session, types),
            rng=rng,
            cost_limit=_COST_FACTOR * max(_costs(session, workload), default=float("inf")),
        )

    def queries(self, wanted: int, advance: Advance) -> Iterator[Query]:
        """Yield `wanted` different queries, none of which is a test query; raise DatasetError if there are too few."""
        seen = {normalized(query.sql) for query in self.workload.test}
        digits = len(str(wanted))
        number = 0
        for _ in range(_ATTEMPTS * wanted):
            for sql in self._of_one_tree():
                if normalized(sql) in seen or self.trees.session.explain(sql).total_cost > self.cost_limit:
                    continue
                seen.add(normalized(sql))
                number += 1
                advance(1)
                yield Query(id=f"g{number:0{digits}}", sql=sql)
                if number == wanted:
                    return
        raise DatasetError(
            f"only {number} of {wanted} different training queries could be made for {self.workload.dataset}: there is too little data; "
            "ask for fewer with --generate-training, or give training queries with --queries-dir"
        )

    def _of_one_tree(self) -> Iterator[str]:
        tree, rows = self.trees.draw()
        for _ in range(_QUERIES_PER_TREE if rows else 0):
            yield self._sql(tree, self.rng.choice(rows))

    def _sql(self, tree: JoinTree, row: Row) -> str:
        conditions = [f"{_name(left)} = {_name(right)}" for left, right in tree.joins]
        for alias, table in tree.relations.items():
            known = [column for at, column in row if at == alias]
            for column in self.rng.sample(known, min(len(known), self.rng.choice((0, 1, 1, 2)))):
                condition = self.sampler.condition(alias, column, row[alias, column], self.statistics[table, column])
                conditions += [condition] if condition else []
        sources = ", ".join(f"{name_sql(table)} AS {alias}" for alias, table in tree.relations.items())
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"SELECT COUNT(*) FROM {sources}{where}"  # noqa: S608 - identifiers and literals are quoted


def _shape(session: Session, workload: Workload, references: References, schema: Schema) -> Shape:
    declared = {edge(Column(*left), Column(*right)) for left, right in read_references(session)}
    known = {
        edge(Column(table, column), Column(parent, "id"))
        for (table, column), parent in references.items()
        if column in schema.get(table, {}) and "id" in schema.get(parent, {})
    }
    return shape_of(workload.test, schema, sorted(declared | known))


def _filtered(table: str, schema: Schema, shape: Shape, keys: set[Column]) -> list[str]:
    """Return the columns of a table that the workload filters; if there is none, all columns that are no keys."""
    usable = filterable(schema[table], [key.column for key in keys if key.table == table])
    return [column for column in usable if column in shape.filtered.get(table, ())] or usable


def _costs(session: Session, workload: Workload) -> Iterator[float]:
    """Yield the plan cost of each test query that PostgreSQL can plan."""
    for query in workload.test:
        with suppress(StatementFailed):
            yield session.explain(query.sql).total_cost


def _name(column: tuple[str, str]) -> str:
    return f"{column[0]}.{name_sql(column[1])}"

"""
The textbook's cardinalities: filters on a sample of each table, joins by numbers of distinct values.

An equality of columns keeps 1 / max(distinct values) of the pairs of rows (Selinger et al., SIGMOD 1979): the joined values are assumed to
be spread evenly, independent of the filters, and the smaller set of values to be contained in the larger one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.algorithms.table_samples import SAMPLE_ROWS, Samples, draw
from pytest_pilotscope.errors import AlgorithmError
from pytest_pilotscope.postgres.catalog import indexable_schema
from pytest_pilotscope.queries.joins import ColumnRef, JoinQuery, Relation, Schema
from pytest_pilotscope.queries.predicates import quote_identifier

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

Rows = npt.NDArray[np.float64]
Members = npt.NDArray[np.bool_]

NONE_PASSED = 0.5
"""Sample rows that a filter keeps if it keeps none: a sample cannot tell an empty result from a small one."""

_DISTINCT = """
    SELECT DISTINCT ON (tablename, attname) tablename, attname, n_distinct, null_frac
    FROM pg_catalog.pg_stats
    WHERE pg_catalog.pg_table_is_visible(pg_catalog.to_regclass(pg_catalog.format('%I.%I', schemaname, tablename)))
    ORDER BY tablename, attname, inherited DESC
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFacts:
    """PostgreSQL's statistics of a column: its number of distinct values, and its share of NULLs."""

    distinct: float
    null_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Textbook:
    """The rows of each table, the `ColumnFacts` of each (table, column), and samples for the filters."""

    table_rows: Mapping[str, int]
    columns: Mapping[tuple[str, str], ColumnFacts]
    samples: Samples

    def filtered(self, relation: Relation) -> float:
        """Estimate the rows of a relation with its filters, at least 1."""
        rows, sample = self.table_rows[relation.table], self.samples.tables[relation.table]
        if not relation.predicates:
            return float(max(rows, 1))
        passed = float(self.samples.bitmap(relation).sum())
        if sample.size < rows:
            passed = max(passed, NONE_PASSED)
        return max(rows * passed / max(sample.size, 1), 1.0)

    def rows(self, query: JoinQuery, masks: Sequence[int]) -> Rows:
        """Estimate the (S,) rows of sets of relations that are joined by equality, at least 1 each."""
        members = membership(query, masks)
        logs = [np.log(self.filtered(each)) if members[:, bit].any() else 0.0 for bit, each in enumerate(query.relations.values())]
        found: Rows = members @ np.array(logs)
        for equal in query.classes:
            found += self._kept(query, equal, members)
        return np.maximum(np.exp(found), 1.0)

    def _kept(self, query: JoinQuery, equal: Sequence[ColumnRef], members: Members) -> Rows:
        """Return the (S,) logarithms of the share of combinations that the equality of a class of columns keeps."""
        facts: dict[int, ColumnFacts] = {}
        for ref in equal:
            position = query.aliases.index(ref.alias)
            if members[:, position].any():
                found = self._facts(query.relations[ref.alias].table, ref.column)
                facts[position] = min(found, facts.get(position, found), key=lambda each: each.distinct)
        order = sorted(facts, key=lambda position: facts[position].distinct)
        there = members[:, order]
        if not order:
            return np.zeros(len(members))
        joined = there.sum(axis=1) > 1
        distinct = np.log([max(facts[position].distinct, 1.0) for position in order])
        known = np.log([max(1 - facts[position].null_share, 1e-9) for position in order])
        smallest = distinct[there.argmax(axis=1)]  # the first that is there; the others are divided by
        return np.where(joined, there @ (known - distinct) + smallest, 0.0)

    def _facts(self, table: str, column: str) -> ColumnFacts:
        if (table, column) not in self.columns:
            if self.table_rows[table]:
                raise AlgorithmError(f"PostgreSQL has no statistics of column {table}.{column}; run ANALYZE {table}")
            return ColumnFacts(distinct=1.0, null_share=0.0)
        return self.columns[table, column]


def membership(query: JoinQuery, masks: Sequence[int]) -> Members:
    """Return for (S,) masks the (S, R) relations that each has."""
    bits = np.array(masks, dtype=np.int64 if len(query.aliases) < 63 else object).reshape(-1, 1)
    return ((bits >> np.arange(len(query.aliases), dtype=bits.dtype)) & 1).astype(np.bool_)


def _counted(session: Session, table: str, column: str) -> ColumnFacts:
    name = quote_identifier(column)
    [(distinct, known, rows)] = session.execute(f"SELECT count(DISTINCT {name}), count({name}), count(*) FROM {quote_identifier(table)}")  # noqa: S608  # quoted
    return ColumnFacts(distinct=float(distinct), null_share=1 - known / max(rows, 1))


def read_textbook(session: Session, schema: Schema, *, seed: int, sample_rows: int = SAMPLE_ROWS) -> Textbook:
    """
    Count the rows of each table, draw its sample, and read PostgreSQL's statistics: two scans per table.

    A column of an analyzed table may have no statistics (SET STATISTICS 0); its values are counted.
    """
    rows = {table: int(session.scalar(f"SELECT count(*) FROM {quote_identifier(table)}")) for table in schema}  # noqa: S608  # quoted
    columns = {
        (table, column): ColumnFacts(distinct=found if found >= 0 else -found * rows.get(table, 0), null_share=nulls)
        for table, column, found, nulls in session.execute(_DISTINCT)
    }
    analyzed = {table for table, _ in columns}
    for table, types in indexable_schema(session, schema).items():
        for column in types if table in analyzed else ():
            if (table, column) not in columns:
                columns[table, column] = _counted(session, table, column)
    samples = Samples(draw(session, schema, seed=seed, rows=sample_rows), session=session, rows=sample_rows)
    return Textbook(table_rows=rows, columns=columns, samples=samples)

"""Exact counts of the values of every column, read in two scans per column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_pilotscope.algorithms.bound.filters import ColumnCounts
from pytest_pilotscope.algorithms.bound.steps import Steps
from pytest_pilotscope.algorithms.table_samples import TableSample
from pytest_pilotscope.algorithms.typed_columns import kind_of
from pytest_pilotscope.postgres.catalog import indexable_schema
from pytest_pilotscope.postgres.exact_text import exact_text
from pytest_pilotscope.queries.predicates import quote_identifier

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.joins import KeyType, Schema

FREQUENT = 256
"""Most frequent values, and ranges of values, that are kept of each column."""

COARSENESS = 1.05
"""Degrees within this factor of each other become the largest of them."""

_VALUES = """
    WITH counted AS MATERIALIZED (SELECT {column} AS value, count(*) AS rows FROM {table} GROUP BY {column})
    (SELECT CAST(value AS text), rows, CAST(NULL AS bigint) FROM counted WHERE value IS NOT NULL ORDER BY rows DESC, value LIMIT {limit})
    UNION ALL
    (SELECT NULL, CAST(sum(rows) AS bigint), NULL FROM counted WHERE value IS NULL)
    UNION ALL
    (SELECT NULL, rows, count(*) FROM counted WHERE value IS NOT NULL GROUP BY rows ORDER BY rows DESC)
"""
_RANGES = """
    SELECT CAST(min(value) AS text), CAST(max(value) AS text), count(*)
    FROM (
        SELECT {column} AS value, ntile({limit}) OVER (ORDER BY {column}) AS part FROM {table} WHERE {column} IS NOT NULL
    ) AS ordered
    GROUP BY part
"""
_LOOSE = """
    SELECT c.relname, a.attname, CAST(CAST(a.attcollation AS regcollation) AS text)
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_collation AS o ON o.oid = a.attcollation
    WHERE NOT o.collisdeterministic AND pg_catalog.pg_table_is_visible(c.oid)
"""


@dataclass(frozen=True, slots=True)
class Degrees:
    """The degree sequences of columns, by table and column; `loose` are collations of columns that take different texts as equal."""

    steps: Mapping[tuple[str, str], Steps]
    loose: Mapping[tuple[str, str], str]

    def by(self, table: str, column: str, key: KeyType) -> Steps | None:
        """Return the degrees of a column whose values are equal by a key; None for no order, and where the key makes more texts equal."""
        _, _, collation = key.name.rpartition(" COLLATE ")
        coarser = collation != key.name and not key.bytewise and self.loose.get((table, column)) != collation
        return None if coarser else self.steps.get((table, column))


def read_counts(
    session: Session, schema: Schema, advance: Callable[[int], None] = lambda steps: None
) -> tuple[Degrees, dict[tuple[str, str], ColumnCounts]]:
    """
    Return degree sequences and counts by table and column, of all columns that have an order.

    A column whose collation takes different texts as equal has no counts: only PostgreSQL can compare them.
    """
    loose = {(str(table), str(column)): str(collation) for table, column, collation in session.execute(_LOOSE)}
    degrees: dict[tuple[str, str], Steps] = {}
    counts: dict[tuple[str, str], ColumnCounts] = {}
    with exact_text(session):
        for table, types in indexable_schema(session, schema).items():
            for column, column_type in types.items():
                found = session.execute(_sql(_VALUES, table, column, FREQUENT + 1))
                degrees[table, column] = degree_sequence([(int(rows), int(values)) for _, rows, values in found if values is not None])
                if (table, column) not in loose:
                    ranges = _ranges(session, table, column, column_type)
                    counts[table, column] = _counts(table, column, column_type, found, ranges)
                advance(1)
    return Degrees(degrees, loose), counts


def degree_sequence(groups: Sequence[tuple[int, int]]) -> Steps:
    """
    Make a step function of (rows of a value, number of such values), the largest first.

    Degrees within `COARSENESS` of each other become the largest of them, and the end is cut so that the sum of rows stays.
    """
    ends: list[float] = []
    values: list[float] = []
    for rows, number in groups:
        if values and rows * COARSENESS > values[-1]:
            ends[-1] += number
        else:
            ends.append((ends[-1] if ends else 0.0) + number)
            values.append(float(rows))
    return Steps(np.array(ends), np.array(values)).cut(float(sum(rows * number for rows, number in groups)))


def _counts(table: str, column: str, column_type: str, found: Sequence[Any], ranges: Sequence[Any]) -> ColumnCounts:
    frequent = [(text, int(rows)) for text, rows, values in found if text is not None]
    nulls = sum(int(rows or 0) for text, rows, values in found if text is None and values is None)
    lows, highs, range_rows = zip(*ranges, strict=True) if ranges else ((), (), ())

    def sample(texts: Sequence[str | None]) -> TableSample:
        return TableSample(table, {column: column_type}, {column: texts})

    return ColumnCounts(
        rows=nulls + sum(int(rows) * int(values) for _, rows, values in found if values is not None),
        values=sample([*(text for text, _ in frequent[:FREQUENT]), None]),
        value_rows=np.array([*(rows for _, rows in frequent[:FREQUENT]), nulls], dtype=np.int64),
        most_other=frequent[FREQUENT][1] if len(frequent) > FREQUENT else 0,
        lows=sample(lows),
        highs=sample(highs),
        range_rows=np.array(range_rows, dtype=np.int64),
    )


def _ranges(session: Session, table: str, column: str, column_type: str) -> Sequence[Any]:
    """Return smallest and largest value and rows of parts of equal size; none for types whose order is only known to PostgreSQL."""
    if kind_of(column_type) in (None, "text", "boolean"):
        return ()
    return session.execute(_sql(_RANGES, table, column, FREQUENT))


def _sql(template: str, table: str, column: str, limit: int) -> str:
    return template.format(table=quote_identifier(table), column=quote_identifier(column), limit=limit)

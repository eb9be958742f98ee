"""
Materialised samples: the rows that a model keeps of every table, and the bitmaps of those that pass a filter.

Bit i of a relation's bitmap says that sample row i passes all its predicates (Kipf et al., Learned Cardinalities, CIDR 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_pilotscope.algorithms.model_files import to_json
from pytest_pilotscope.algorithms.three_valued import truth
from pytest_pilotscope.algorithms.typed_columns import Column, Mask, column
from pytest_pilotscope.errors import AlgorithmError, StatementFailed, UnsupportedQuery
from pytest_pilotscope.postgres.exact_text import exact_text
from pytest_pilotscope.queries.predicates import Predicate, quote_identifier

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.joins import Relation, Schema

SAMPLE_ROWS = 1000
"""Rows per table, as in the paper of MSCN."""

_CACHED_MASKS = 20_000
_ROW = "pilotscope_sample_row"
_COLLATIONS = """
    SELECT a.attname, CAST(CAST(a.attcollation AS regcollation) AS text)
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attcollation NOT IN (0, t.typcollation)
"""


class TableSample:
    """
    Sample rows of one table: for each column PostgreSQL's text of the values, None for NULL.

    The sample of a smaller table is the whole table; the remaining bits are never set.
    """

    def __init__(self, table: str, types: Mapping[str, str], texts: Mapping[str, Sequence[str | None]]) -> None:
        self.table = table
        self.types = types
        self.texts = texts
        self.size = len(next(iter(texts.values()), ()))
        self._columns: dict[str, Column | None] = {}

    def column(self, name: str) -> Column | None:
        """Return the typed values of a column, or None where only PostgreSQL can compare them."""
        if name not in self._columns:
            self._columns[name] = column(self.texts[name], self.types[name])
        return self._columns[name]


class Samples:
    """
    The samples of all tables, and the bitmaps of filters on them.

    They evaluate each distinct predicate once and keep its mask. Most are evaluated here, exactly as PostgreSQL would; PostgreSQL itself
    evaluates the others (order of text, functions, casts) in one round trip that sends the sample values of their columns and changes
    nothing on the server. Without a session those raise `AlgorithmError`. A predicate that fails on a sample row (a division by zero, from
    which another condition may protect the query) raises `UnsupportedQuery`.
    """

    def __init__(self, tables: Mapping[str, TableSample], *, session: Session | None = None, rows: int = SAMPLE_ROWS) -> None:
        self.tables = tables
        self.session = session
        self.rows = rows
        self._masks: dict[tuple[str, str], Mask] = {}
        self._collations: dict[str, dict[str, str]] = {}

    def bitmap(self, relation: Relation, bits: Mask | None = None) -> Mask:
        """Return the (rows,) sample rows that pass all predicates of a relation, written into `bits`, which are zero, if given."""
        sample = self.tables[relation.table]
        bits = np.zeros(self.rows, dtype=np.bool_) if bits is None else bits
        own = bits[: sample.size]
        own[:] = True if not relation.predicates else self.mask(sample, relation.predicates[0])
        for predicate in relation.predicates[1:]:
            own &= self.mask(sample, predicate)
        return bits

    def mask(self, sample: TableSample, predicate: Predicate) -> Mask:
        """Return the (size,) rows of a sample for which a predicate is true."""
        key = (sample.table, predicate.sql)
        found = self._masks.get(key)
        if found is None:
            if len(self._masks) >= _CACHED_MASKS:
                self._masks.clear()
            passing = truth(predicate.condition, sample.column)
            found = self._masks[key] = passing if passing is not None else self._asked(sample, predicate)
        return found

    def _asked(self, sample: TableSample, predicate: Predicate) -> Mask:
        if self.session is None:
            raise AlgorithmError(
                f"only PostgreSQL can evaluate {predicate.sql} on the sample of table {sample.table!r}; "
                "give the model a session, or use one without samples"
            )
        mask = np.zeros(sample.size, dtype=np.bool_)
        try:
            if sample.table not in self._collations:
                self._collations[sample.table] = dict(self.session.execute(_COLLATIONS, (quote_identifier(sample.table),)))
            statement = _filter_sql(sample, predicate, self._collations[sample.table])
            passing = self.session.execute(statement, [list(sample.texts[name]) for name in predicate.columns])
        except StatementFailed as error:
            if not error.about_a_row:
                raise
            raise UnsupportedQuery(f"{predicate.sql} fails on a row of table {sample.table!r}: {error.reason}", predicate.sql) from error
        mask[[int(row) - 1 for (row,) in passing]] = True
        return mask


def _filter_sql(sample: TableSample, predicate: Predicate, collations: Mapping[str, str]) -> str:
    """
    Return a statement that takes the texts of the predicate's columns as parameters and gives the numbers of the rows that pass.

    `collations` are those of columns that have another one than their type.
    """
    collate = {name: _escaped(f" COLLATE {collation}") for name, collation in collations.items()}
    names = [f"c{position}" for position in range(len(predicate.columns))]
    casts = ", ".join(
        f"CAST(raw.{name} AS {sample.types[wanted]}){collate.get(wanted, '')} AS {_escaped(quote_identifier(wanted))}"
        for name, wanted in zip(names, predicate.columns, strict=True)
    )
    arrays = ", ".join(["CAST(%s AS text[])"] * len(names))
    return (
        f"SELECT {_ROW} FROM (SELECT {casts}, raw.{_ROW} FROM unnest({arrays}) WITH ORDINALITY AS raw ({', '.join(names)}, {_ROW}))"  # noqa: S608  # identifiers are quoted, the predicate is the query's own
        f" AS sample WHERE {_escaped(predicate.sql)}"
    )


def _escaped(sql: str) -> str:
    return sql.replace("%", "%%")


def draw(session: Session, schema: Schema, *, seed: int = 0, rows: int = SAMPLE_ROWS) -> dict[str, TableSample]:
    """
    Take a uniform random sample of every table, the same one for the same seed and the same stored table.

    One sequential scan per table; memory and transfer are those of the sample.
    """
    with exact_text(session):
        return {table: draw_table(session, table, types, seed=seed, rows=rows) for table, types in schema.items()}


def draw_table(session: Session, table: str, types: Mapping[str, str], *, seed: int, rows: int = SAMPLE_ROWS) -> TableSample:
    """Take a uniform random sample of one table: the rows whose places (or texts, for a role with rights on columns) hash smallest."""
    source = quote_identifier(table)
    texts = ", ".join(f"CAST({quote_identifier(name)} AS text)" for name in types)
    whole = session.scalar("SELECT has_table_privilege(%s, 'SELECT')", (source,))
    place = "CAST(ctid AS text)" if whole else f"CAST(ROW({', '.join(map(quote_identifier, types))}) AS text)"
    found = session.execute(
        _escaped(f"SELECT {texts} FROM {source} ORDER BY hashtextextended({place}, ") + f"%s), {_escaped(place)} LIMIT %s",  # noqa: S608  # identifiers are quoted
        (seed, rows),
    )
    columns = zip(*found, strict=True) if found else [()] * len(types)
    return TableSample(table, types, dict(zip(types, map(tuple, columns), strict=True)))


def samples_json(samples: Samples) -> bytes:
    """Return the sample rows as JSON: table -> column -> texts."""
    return to_json({table: dict(sample.texts) for table, sample in samples.tables.items()})


def read_samples(texts: Mapping[str, Any], schema: Schema, rows: int, session: Session | None) -> Samples:
    """Make samples of the texts that `samples_json` wrote; KeyError or ValueError if they are none of this schema."""
    tables = {}
    for table, types in schema.items():
        columns = {name: tuple(None if text is None else str(text) for text in texts[table][name]) for name in types}
        if len({len(column) for column in columns.values()}) > 1:
            raise ValueError(f"the sample columns of table {table!r} differ in length")
        if any(len(column) > int(rows) for column in columns.values()):
            raise ValueError(f"the sample of table {table!r} has more than {rows} rows")
        tables[table] = TableSample(table, types, columns)
    return Samples(tables, session=session, rows=int(rows))

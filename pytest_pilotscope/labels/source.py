"""Where rows come from: PostgreSQL, or anything else that can evaluate SQL expressions over a table in a stable row order."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

import pyarrow as pa
from pyarrow import csv

from pytest_pilotscope.core.predicates import quote_identifier
from pytest_pilotscope.errors import QueryTimeout

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

Kind: TypeAlias = Literal["integer", "text", "boolean"]
_ARROW_TYPES = {"integer": pa.int64(), "text": pa.string(), "boolean": pa.bool_()}


class Expression(NamedTuple):
    """An SQL expression over the columns of one table, and how to read its values."""

    sql: str
    kind: Kind


class RowSource(Protocol):
    """What the labels need from a database."""

    def rows(self, table: str, expressions: Sequence[Expression]) -> list[pa.Array]:
        """
        Evaluate expressions for every row of a table, one array per expression, NULL as null.

        The order of the rows is the same in every call, as long as the table is not changed.
        """

    def digest(self, table: str) -> tuple[int, str]:
        """Return the number of rows of a table, and a digest of them that changes with their order, too."""

    def count(self, sql: str, timeout_ms: int) -> int | None:
        """Return the single number of a statement, or None when it did not finish in time; 0 ms is no limit."""


# One sequential scan in physical order, whatever indexes, parallel workers or other scans there are; text that is equal exactly when the
# values are. The time zone and the order of day and month are the session's: constants of conditions are read by them.
_STABLE_ORDER = """
    SELECT set_config(name, value, true) FROM (VALUES
        ('synchronize_seqscans', 'off'), ('max_parallel_workers_per_gather', '0'), ('enable_indexscan', 'off'),
        ('enable_indexonlyscan', 'off'), ('enable_bitmapscan', 'off'), ('statement_timeout', '0'),
        ('DateStyle', 'ISO'), ('IntervalStyle', 'postgres'), ('extra_float_digits', '1')
    ) AS wanted (name, value)
"""


class SessionSource:
    """Rows from a PostgreSQL session, read with COPY."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def rows(self, table: str, expressions: Sequence[Expression]) -> list[pa.Array]:
        """Read with one sequential scan, in physical order."""
        selected = ", ".join(expression.sql for expression in expressions)
        content = io.BytesIO()
        with self._session.rolled_back():
            self._session.execute(_STABLE_ORDER)
            self._session.copy_out(f"SELECT {selected} FROM {quote_identifier(table)}", content.write)  # noqa: S608  # identifiers are quoted
        return _parse_copy(content.getvalue(), [expression.kind for expression in expressions])

    def digest(self, table: str) -> tuple[int, str]:
        """Hash every row on the server, and the hashes in their order here."""
        row = f"CAST(({quote_identifier(table)}.*) AS text)"
        [hashes] = self.rows(table, [Expression(f"hashtextextended({row}, 0)", "integer")])
        return len(hashes), hashlib.sha256(hashes.to_numpy(zero_copy_only=False).tobytes()).hexdigest()[:24]

    def count(self, sql: str, timeout_ms: int) -> int | None:
        """Run a count with a statement timeout."""
        try:
            with self._session.statement_timeout(timeout_ms):
                return int(self._session.scalar(sql))
        except QueryTimeout:
            return None


def _parse_copy(content: bytes, kinds: Sequence[Kind]) -> list[pa.Array]:
    """
    Parse COPY's text format. Escapes within text are kept: escaped texts are equal exactly when the texts are.
    """
    names = [str(position) for position in range(len(kinds))]
    if not content:
        return [pa.array([], type=_ARROW_TYPES[kind]) for kind in kinds]
    table = csv.read_csv(
        pa.BufferReader(content),
        read_options=csv.ReadOptions(column_names=names, use_threads=False),
        parse_options=csv.ParseOptions(delimiter="\t", quote_char=False, double_quote=False, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(
            column_types={name: _ARROW_TYPES[kind] for name, kind in zip(names, kinds, strict=True)},
            null_values=["\\N"],
            strings_can_be_null=True,
            true_values=["t"],
            false_values=["f"],
        ),
    )
    return [column.combine_chunks() for column in table.columns]

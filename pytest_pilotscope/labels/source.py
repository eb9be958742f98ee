"""The rows of tables, read from PostgreSQL or from another database that evaluates SQL over a table in a stable row order."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

import pyarrow as pa
from pyarrow import csv

from pytest_pilotscope.errors import QueryTimeout
from pytest_pilotscope.postgres.meaning import read_meaning

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.meaning import Level, Statement

Kind: TypeAlias = Literal["integer", "text", "boolean"]
Take: TypeAlias = "Callable[[list[pa.Array]], object]"
_ARROW_TYPES = {"integer": pa.int64(), "text": pa.string(), "boolean": pa.bool_()}
_BLOCK_BYTES = 4 << 20


class Expression(NamedTuple):
    """An SQL expression over the columns of one table, and how to read its values."""

    sql: str
    kind: Kind


class RowSource(Protocol):
    """A database as labels need it. `table` is always the SQL that reads a table."""

    def statement(self, sql: str, timeout_ms: int) -> Statement:
        """Plan a statement and return the planner's report of its sets of relations; 0 ms is no limit."""

    def settings(self) -> Mapping[str, str]:
        """Return the versions, collations and settings on which the result of an SQL text depends, besides the data."""

    def rows(self, table: str, expressions: Sequence[Expression], take: Take) -> None:
        """
        Evaluate expressions, texts only or none, for every row of a table; `take` gets one block of rows after the other.

        A block has one array per expression, NULL as null. The order of the rows is the same in every call, as long as the table is not
        changed.
        """

    def digest(self, table: str) -> tuple[int, str]:
        """Return the number of rows of a table, and a digest of them that changes with their order, too."""

    def first_equals(self, type_name: str, texts: Sequence[str]) -> list[int]:
        """Return for each text the position of the first one that is equal to it as a value of a type; texts are as `rows` gives them."""

    def count(self, sql: str, timeout_ms: int) -> int | None:
        """Return the single number of a statement, or None when it did not finish in time; 0 ms is no limit."""

    def count_cost(self, sql: str, timeout_ms: int) -> float:
        """Return the planner's cost of a count; infinite if planning it did not finish in time."""


# One sequential scan in physical order, whatever indexes, parallel workers or other scans there are.
_STABLE_ORDER = """
    SELECT set_config(name, value, true) FROM (VALUES
        ('synchronize_seqscans', 'off'), ('max_parallel_workers_per_gather', '0'), ('enable_indexscan', 'off'),
        ('enable_indexonlyscan', 'off'), ('enable_bitmapscan', 'off'), ('statement_timeout', '0')
    ) AS wanted (name, value)
"""
# Text that is the same for the same value in every session, and is read as the same value again.
_STABLE_TEXT = """
    SELECT set_config(name, value, true) FROM (VALUES
        ('DateStyle', 'ISO'), ('IntervalStyle', 'postgres'), ('TimeZone', 'UTC'), ('extra_float_digits', '1'), ('bytea_output', 'hex'),
        ('lc_monetary', 'C'), ('statement_timeout', '0')
    ) AS wanted (name, value)
"""
_SETTINGS = (
    "search_path", "TimeZone", "DateStyle", "IntervalStyle", "extra_float_digits", "bytea_output", "lc_monetary", "array_nulls",
    "standard_conforming_strings",
)  # fmt: skip
"""Settings that decide how PostgreSQL writes and reads the text of a condition."""
_VERSIONS = "SELECT datcollate, datctype FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"
# The hash of a record is faster than that of its text, and tells two values apart where they are equal only if they look the same.
_COLUMNS = """
    SELECT quote_ident(attname), has_column_privilege(attrelid, attnum, 'SELECT'),
        atttypid = ANY ('{bool,smallint,integer,bigint,oid,date,timestamp,timestamptz,uuid,text,varchar}'::regtype[])
        AND coalesce((SELECT collisdeterministic FROM pg_collation WHERE oid = attcollation), true)
    FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_DIGEST = "SELECT count(*), coalesce(sum(hashint8extended(hash, place)), 0) FROM ({numbered}) AS numbered"
_FIRST_EQUALS = """
    SELECT min(place) OVER (PARTITION BY (given.text)::{type_name})
    FROM json_array_elements_text(%s) WITH ORDINALITY AS given (text, place) ORDER BY place
"""
_MANY_RELATIONS = "SET LOCAL join_collapse_limit = 100; SET LOCAL from_collapse_limit = 100; "  # the SQL of a set holds a tree of joins
_EVERY_RELATION = "SET LOCAL enable_self_join_elimination = off; "  # 18.4 takes a parent with its children for ONLY the parent
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def counting(session: Session, sql: str) -> str:
    """Return the SQL of a set behind settings for its transaction, which let PostgreSQL order its joins and keep all its relations."""
    return _MANY_RELATIONS + (_EVERY_RELATION if session.server_version >= 180000 else "") + sql


class SessionSource:
    """Rows from a PostgreSQL session, read with COPY; a statement is planned once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._statements: dict[str, Statement] = {}

    def statement(self, sql: str, timeout_ms: int) -> Statement:
        """Ask the planner, with a statement timeout."""
        if sql not in self._statements:
            with self._session.statement_timeout(timeout_ms):
                statement = read_meaning(self._session, sql, statistics=False)
                if any(self._depends_on_statistics(level) for level in statement.levels):
                    statement = read_meaning(self._session, sql)
            self._statements[sql] = statement
        return self._statements[sql]

    def _depends_on_statistics(self, level: Level) -> bool:
        """
        Tell whether the planner's statistics decide which sets it considers, or which filters they have.

        From an OR over several relations it derives a filter for each, but not one that nearly all rows pass (orclauses.c).
        """
        return len(level.query.relations) >= self._all_sets_below or any(
            clause.relations.bit_count() > 1 and " OR " in clause.sql for clause in level.clauses
        )

    @cached_property
    def _all_sets_below(self) -> float:
        """The number of relations from which on the planner considers only a part of the sets."""
        geqo, threshold = self._session.execute("SELECT current_setting('geqo'), current_setting('geqo_threshold')")[0]
        return int(threshold) if geqo == "on" else math.inf

    def settings(self) -> Mapping[str, str]:
        """Return PostgreSQL's major version, the database's collation, and the settings."""
        [(collation, classes)] = self._session.execute(_VERSIONS)
        found = {"major": str(self._session.server_version // 10_000), "lc_collate": str(collation), "lc_ctype": str(classes)}
        return found | {name: str(self._session.scalar("SELECT current_setting(%s)", (name,))) for name in _SETTINGS}

    def adopt(self, settings: Mapping[str, str]) -> None:
        """Give the session the settings of another one, so that it reads SQL in the same way."""
        for name in _SETTINGS:
            self._session.execute("SELECT set_config(%s, %s, false)", (name, settings[name]))

    def rows(self, table: str, expressions: Sequence[Expression], take: Take) -> None:
        """Read with a sequential scan, in physical order; conditions keep the session's styles, texts have styles of their own."""
        kinds = [expression.kind for expression in expressions]
        selected = ", ".join(expression.sql for expression in expressions)
        with _LineBlocks(lambda content: take(_parse_copy(content, kinds))) as lines:
            self._copy(f"SELECT {selected} FROM {table} AS r", lines.add, stable_text="text" in kinds)  # noqa: S608  # identifiers are quoted

    def digest(self, table: str) -> tuple[int, str]:
        """Sum the hashes of all rows with their places on the server, as far as the role may read them: sending them would take longer."""
        columns = self._session.execute(_COLUMNS, (table.removeprefix("ONLY "),))
        row = "r.*" if all(may for _, may, _ in columns) else ", ".join(f"r.{name}" for name, may, _ in columns if may)
        by_value = columns and all(same for _, may, same in columns if may)
        hashed = f"hash_record_extended(ROW({row}), 0)" if by_value else f"hashtextextended(CAST(ROW({row}) AS text), 0)"
        numbered = f"SELECT {hashed} AS hash, row_number() OVER () AS place FROM {table} AS r"  # noqa: S608  # identifiers are quoted
        with self._session.rolled_back():
            self._session.execute(_STABLE_ORDER)
            self._session.execute(_STABLE_TEXT)
            [(rows, digest)] = self._session.execute(_DIGEST.format(numbered=numbered))
        return int(rows), str(digest)

    def first_equals(self, type_name: str, texts: Sequence[str]) -> list[int]:
        """Let the type's own equality decide."""
        statement = _FIRST_EQUALS.format(type_name=type_name.replace("%", "%%"))
        with self._session.rolled_back():
            self._session.execute(_STABLE_TEXT)
            return [int(place) - 1 for (place,) in self._session.execute(statement, (json.dumps([_unescaped(text) for text in texts]),))]

    def count(self, sql: str, timeout_ms: int) -> int | None:
        """Run a count with a statement timeout."""
        try:
            with self._session.statement_timeout(timeout_ms):
                return int(self._session.scalar(counting(self._session, sql)))
        except QueryTimeout:
            return None

    def count_cost(self, sql: str, timeout_ms: int) -> float:
        """Let PostgreSQL explain a count, under the settings with which it runs."""
        try:
            with self._session.statement_timeout(timeout_ms):
                [plan] = self._session.scalar(counting(self._session, f"EXPLAIN (FORMAT JSON) {sql}"))
        except QueryTimeout:
            return math.inf
        return float(plan["Plan"]["Total Cost"])

    def _copy(self, query: str, add: Callable[[memoryview], None], *, stable_text: bool) -> None:
        """Give the result of a query to `add`, in large pieces: psycopg2 hands over row by row, and C gathers them."""
        with self._session.rolled_back(), io.BufferedWriter(_Pieces(add), _BLOCK_BYTES) as gathered:
            self._session.execute(_STABLE_ORDER)
            if stable_text:
                self._session.execute(_STABLE_TEXT)
            self._session.copy_out(query, gathered.write)


class _Pieces(io.RawIOBase):
    """A file whose content is given to a function."""

    def __init__(self, add: Callable[[memoryview], None]) -> None:
        self._add = add

    def writable(self) -> bool:
        """Tell that it can be written."""
        return True

    def write(self, content: Any) -> int:
        """Give a piece away; `content` is valid during this call only."""
        self._add(content)
        return len(content)


class _LineBlocks:
    """
    Hands whole lines to `take`, on a thread of its own, while the next ones arrive; a context manager that waits for the last ones.

    An error of `take` is raised at the end, so that the session can read to its end what the server sends.
    """

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take
        self._rest = b""
        self._thread = ThreadPoolExecutor(1)
        self._taking: Future[object] = Future()
        self._taking.set_result(None)

    def __enter__(self) -> _LineBlocks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._thread.shutdown()
        if error is None:
            self._taking.result()

    def add(self, content: memoryview) -> None:
        """Take the lines that end in `content`; at most one block waits."""
        lines, end, self._rest = (self._rest + content).rpartition(b"\n")
        if (lines or end) and self._taking.exception() is None:
            self._taking = self._thread.submit(self._take, lines + end)


def _parse_copy(content: bytes, kinds: Sequence[Kind]) -> list[pa.Array]:
    """Parse lines of COPY's text format. Escapes within text are kept: escaped texts are equal exactly when the texts are."""
    names = [str(position) for position in range(len(kinds))]
    table = csv.read_csv(
        pa.BufferReader(content),
        read_options=csv.ReadOptions(column_names=names, use_threads=False, block_size=len(content)),
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


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: _ESCAPES.get(match[1], match[1]), text) if "\\" in text else text

"""Rows from SQLite in memory: the labels without a server, and a second opinion on what they should be."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from decimal import Decimal

import pyarrow as pa

from pytest_pilotscope.labels.source import Expression, Take
from pytest_pilotscope.queries.joins import Schema
from pytest_pilotscope.queries.meaning import Statement
from tests.labels.statements import built

Rows = Mapping[str, Sequence[Sequence[int | str | None]]]
_ARROW_TYPES = {"integer": pa.int64(), "text": pa.string(), "boolean": pa.bool_()}


class SqliteSource:
    """Tables of integers and texts; `scans` counts how often a table was read, `counted` and `compared` list what it was asked."""

    block_rows = 3

    def __init__(self, schema: Schema, rows: Rows, *, finishes: bool = True) -> None:
        self.connection = sqlite3.connect(":memory:")
        self.connection.execute("PRAGMA case_sensitive_like = ON")
        self.scans = 0
        self.counted: list[str] = []
        self.compared: list[list[str]] = []
        self._schema = schema
        self.finishes = finishes
        for table, columns in schema.items():
            names = ", ".join(f'"{column}" {"TEXT" if kind == "text" else "INTEGER"}' for column, kind in columns.items())
            self.connection.execute(f'CREATE TABLE "{table}" ({names})')
            self.connection.executemany(f'INSERT INTO "{table}" VALUES ({", ".join("?" * len(columns))})', rows.get(table, ()))

    def statement(self, sql: str, timeout_ms: int) -> Statement:
        """Read a simple query."""
        return built(sql, self._schema)

    def settings(self) -> Mapping[str, str]:
        """SQLite has none."""
        return {}

    def first_equals(self, type_name: str, texts: Sequence[str]) -> list[int]:
        """Compare as decimal numbers."""
        self.compared.append(list(texts))
        values = [Decimal(text) for text in texts]
        return [values.index(value) for value in values]

    def rows(self, table: str, expressions: Sequence[Expression], take: Take) -> None:
        """Evaluate expressions in the order of insertion, in blocks of a few rows."""
        self.scans += 1
        selected = ", ".join(expression.sql for expression in expressions)
        found = self.connection.execute(f"SELECT {selected} FROM {table} ORDER BY rowid").fetchall()
        for start in range(0, len(found), self.block_rows):
            columns = zip(*found[start : start + self.block_rows], strict=True)
            take([
                pa.array([bool(value) for value in values] if expression.kind == "boolean" else values, type=_ARROW_TYPES[expression.kind])
                for expression, values in zip(expressions, columns, strict=True)
            ])  # fmt: skip

    def digest(self, table: str) -> tuple[int, str]:
        """All rows in the order of insertion; a scan as well."""
        self.scans += 1
        found = self.connection.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()
        return len(found), hashlib.sha256(repr(found).encode()).hexdigest()

    def count(self, sql: str, timeout_ms: int) -> int | None:
        """Run a count; None when this source was told not to finish."""
        self.counted.append(sql)
        return self.exact(sql) if self.finishes else None

    def count_cost(self, sql: str, timeout_ms: int) -> float:
        """The larger set, whose text is longer, costs less, so that each is tried."""
        return -float(len(sql))

    def exact(self, sql: str) -> int:
        """Return the answer of SQLite itself."""
        return int(self.connection.execute(sql).fetchone()[0])

    def close(self) -> None:
        """Free the tables."""
        self.connection.close()

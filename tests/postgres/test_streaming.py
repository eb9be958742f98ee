"""Rows that are read while they arrive."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pytest_pilotscope.errors import QueryTimeout, StatementFailed
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.streaming import PIECE_ROWS, TextRow

MILLION = "SELECT g, 'row ' || g FROM generate_series(1, 1000000) AS g"


def resident_bytes() -> int:
    """Return the memory of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_rows_are_text(newest_scratch: Session) -> None:
    """Every value is the text that PostgreSQL sends; NULL is no text; the types come along."""
    seen: list[tuple[Sequence[int], list[TextRow]]] = []
    sql = "SELECT 1, NULL, '', date '0044-03-15 BC', '\\x00ff'::bytea UNION ALL SELECT 2, 'é', '%s', 'infinity', ''"
    assert newest_scratch.stream(sql, lambda types, rows: seen.append((types, list(rows)))) == 2
    ((types, rows),) = seen
    assert types == [23, 25, 25, 1082, 17]
    assert rows == [(b"1", None, b"", b"0044-03-15 BC", b"\\x00ff"), (b"2", "é".encode(), b"%s", b"infinity", b"\\x")]


@pytest.mark.parametrize("kept", [True, False])
def test_a_million_rows_need_little_memory(newest_scratch: Session, kept: bool) -> None:
    """They arrive in pieces, whether somebody looks at them or not."""
    newest_scratch.stream("SELECT 1", None)
    before, pieces, most = resident_bytes(), 0, 0

    def take(types: Sequence[int], rows: Iterator[TextRow]) -> None:
        nonlocal pieces, most
        pieces, most = pieces + 1, max(most, resident_bytes())

    assert newest_scratch.stream(MILLION, take if kept else None) == 1_000_000
    assert pieces == (1_000_000 // PIECE_ROWS if kept else 0)
    assert max(most, resident_bytes()) - before < 20_000_000


@pytest.mark.parametrize(
    ("sql", "reason", "sqlstate"),
    [
        ("SELECT 1 / (5000 - g) FROM generate_series(1, 9000) AS g", "division by zero", "22012"),
        ("SELEC", 'syntax error at or near "SELEC"', "42601"),
        ("COPY (SELECT 1) TO STDOUT", "COPY is no query", "0A000"),
        ("SELECT ARRAY[1, 2]::int[] || '{x}'", 'invalid input syntax for type integer: "x"', "22P02"),
    ],
)
def test_a_statement_that_fails(newest_scratch: Session, sql: str, reason: str, sqlstate: str) -> None:
    """The error is PostgreSQL's, also in the middle of the rows, and the session goes on."""
    with pytest.raises(StatementFailed, match=re.escape(reason)) as failed:
        newest_scratch.stream(sql, None)
    assert failed.value.sqlstate == sqlstate
    assert newest_scratch.scalar("SELECT 7") == 7


def test_a_limit_ends_it(newest_scratch: Session) -> None:
    """A time-out is a time-out."""
    with newest_scratch.statement_timeout(50), pytest.raises(QueryTimeout):
        newest_scratch.stream("SELECT pg_sleep(600)", None)
    assert newest_scratch.scalar("SELECT 7") == 7


def test_ctrl_c_ends_it(newest_scratch: Session) -> None:
    """Ctrl-C in the middle of the rows ends the statement, and the session goes on."""

    def take(types: Sequence[int], rows: Iterator[TextRow]) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        newest_scratch.stream(MILLION, take)
    assert newest_scratch.scalar("SELECT 7") == 7

"""Text from strangers that is to be planned: what is surely one statement, and what need not be."""

from __future__ import annotations

import ctypes
from random import Random

import pytest

from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.streaming import _libpq
from pytest_pilotscope.queries.statements import is_single

PARTS = (
    "'", "'", "'", '"', "$", "$$", "$a$", "$a$", "$\u00e9$", "$\U0001f600$", "$\U0001f600$", "$\u0663$", "$\u00b7a$", "$_$",
    "$1a$", "$A$", "$1", "E'", "U&'", 'U&"', "B'", "''", "--", "/*", "*/", ";", "; SELECT 1", "; SELECT 1", "\n", "\r", "\f", "\v",
    "\x85", "\xa0", "\u2028", " ", " ", ",", ",", "a", "e", "\u00e9", "\u20ac", "_", "1", "0x", "1e", "1_0", "+", "*", "/", "-",
    "@", "AS ", "SELECT 1",
)  # fmt: skip
MESSAGE, TEXTS = ord("M"), 60_000


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT 1;",
        " SELECT 1 ;\n; ",
        "SELECT ';' AS \"a;'b\" FROM t WHERE c = 'it''s; so'",
        "SELECT $$a$$ -- no more\n/* than */ || E'\\n'",
        "SELECT 'never closed;",
        "",
    ],
)
def test_one_statement(sql: str) -> None:
    """Semicolons at the end and in quotes end nothing, and without any it does not matter what is in comments and dollar quotes."""
    assert is_single(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1; DELETE FROM users",
        ";DELETE FROM users",
        "SELECT 'a'; DELETE FROM users; --'",
        "SELECT '\\''; DELETE FROM users; --'",
        "SELECT E'a'\n'\\''; DELETE FROM users; --'",
        "SELECT 1 -- '\n; DELETE FROM users -- '",
        "SELECT 1 --\r; DELETE FROM users",
        "SELECT 1 /* ' */; DELETE FROM users /* ' */",
        "SELECT $a$ ' $a$; DELETE FROM users; --'",
        "SELECT 1 AS \U0001f600$a$; DELETE FROM users; SELECT 1 AS \U0001f600$a$",
        "SELECT $\U0001f600$ ' $\U0001f600$; DELETE FROM users; --'",
        "SELECT $a\u00b7$ ' $a\u00b7$; DELETE FROM users; --'",
        "SELECT $\u0663$ ' $\u0663$; DELETE FROM users; --'",
        "SELECT 'never closed\"; DELETE FROM users",
    ],
)
def test_not_surely_one_statement(sql: str) -> None:
    """A second statement is not let through by what makes it hard to see where a quoted text ends."""
    assert not is_single(sql)


def test_postgresql_agrees(newest_server: EmbeddedServer) -> None:
    """PostgreSQL's own parser finds no second statement in any text that is let through."""
    pq, random, taken = _libpq(), Random(1), 0  # noqa: S311  # no secret
    pq.PQprepare.restype, pq.PQprepare.argtypes = ctypes.c_void_p, [ctypes.c_void_p, *[ctypes.c_char_p] * 2, ctypes.c_int, ctypes.c_void_p]
    with newest_server.connect() as session:
        for _ in range(TEXTS):
            sql = "SELECT " + "".join(random.choice(PARTS) for _ in range(random.randint(2, 14)))
            if ";" not in sql or not is_single(sql):
                continue
            result = pq.PQprepare(session._connection.pgconn_ptr, b"", sql.encode(), 0, None)  # which parses it and runs nothing
            message = (pq.PQresultErrorField(result, MESSAGE) or b"").decode()
            pq.PQclear(result)
            assert "multiple commands" not in message, sql
            taken += not message
    assert taken > TEXTS // 1000

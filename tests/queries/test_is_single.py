"""Text from strangers that is to be planned: what is surely one statement, and what need not be."""

from __future__ import annotations

import pytest

from pytest_pilotscope.queries.statements import is_single


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
        "SELECT 'never closed\"; DELETE FROM users",
    ],
)
def test_not_surely_one_statement(sql: str) -> None:
    """A second statement is not let through by what makes it hard to see where a quoted text ends."""
    assert not is_single(sql)

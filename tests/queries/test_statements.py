"""Texts that are one statement, and texts that would run more than they seem."""

from __future__ import annotations

import pytest

from pytest_pilotscope.errors import StatementFailed
from pytest_pilotscope.queries.statements import single


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1", "SELECT 1;", "SELECT 1 ;\n;\n", "SELECT ';'", 'SELECT 1 AS ";"', "SELECT $$;$$", "SELECT 1 -- a; b", "SELECT /* ; */ 1"],
)
def test_one_statement_is_returned_as_it_is(sql: str) -> None:
    """Semicolons in quotes and comments, and at the end, begin no statement."""
    assert single(sql) == sql


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1; DROP TABLE t",
        "SELECT 1; ; COMMIT; DROP TABLE t",
        "SELECT ';'; DROP TABLE t",
        "SELECT E'a'\n'\\'' ; DROP TABLE t; --'",
        "SELECT '\\'; DROP TABLE t; --'",
    ],
)
def test_several_statements_are_refused(sql: str) -> None:
    """So is a text whose literals end elsewhere by the settings of the server, or after a continued escape string."""
    with pytest.raises(StatementFailed, match=r"^statement failed: it is not one statement; make a query of each \[42601\]: SELECT "):
        single(sql)

"""Queries of one template are parsed once, and each has exactly what parsing it alone would give."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pilotscope.errors import UnsupportedQuery
from pytest_pilotscope.queries.plainparser import PlainReader, parse_plain, read_plain
from pytest_pilotscope.queries.plaintemplates import PlainParser
from tests.queries.test_plainparser import SCHEMA

TEMPLATES = (
    "SELECT 1 FROM a WHERE x = {} AND y >= -{} AND {} > x",
    "SELECT count(*) * {} FROM a, b WHERE a.x = b.x AND a.x IN ({}, {}, {}) AND b.z NOT IN ({}, {})",
    "SELECT 1 FROM a, b, c WHERE a.x = {} AND c.z = {} AND b.z = {} AND b.x = c.x",
    "SELECT 1 FROM a WHERE s = {} AND s LIKE {} AND NOT_A_COLUMN = {}",
    "SELECT 1 FROM a WHERE s <> {} AND e NOT LIKE {} AND e ILIKE {}",
    "SELECT 1 FROM a WHERE n < {} AND x NOT BETWEEN {} AND -{} AND d >= {} AND d <= {}::date",
    'SELECT "Mixed" FROM c AS "it\'s 5 ""o\'clock""" WHERE "Mixed" = {} AND w > {}',
    "SELECT 1 FROM a JOIN b ON a.x = b.x AND b.z = {} WHERE a.x = {} AND a.y IS NOT NULL",
)
CONSTANTS = (
    "0",
    "1",
    "01",
    "5",
    "7.5",
    "5.0",
    "12345678901234567890",
    "'1'",
    "'5'",
    "'a''b'",
    "'%5_'",
    "'-- 5'",
    "'2010-01-01'",
    "'2010-13-01'",
)


def outcome(read: object, sql: str) -> object:
    """Return a parsed query, or the reason why it is none."""
    try:
        return read(sql)  # type: ignore[operator]
    except UnsupportedQuery as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(drawn=st.lists(st.tuples(st.sampled_from(TEMPLATES), st.lists(st.sampled_from(CONSTANTS), min_size=6, max_size=6)), max_size=12))
def test_a_query_is_the_same_whatever_was_parsed_before(drawn: list[tuple[str, list[str]]]) -> None:
    """Relations, predicates, classes and sets are those of the whole text, and so is the reason of a refusal."""
    parser = PlainParser(SCHEMA)
    for template, constants in drawn:
        sql = template.format(*constants)
        assert outcome(parser.read, sql) == outcome(lambda text: read_plain(text, SCHEMA), sql)
        assert parser.parse(sql) == parse_plain(sql, SCHEMA)


def test_other_constants_are_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second query of a template has its first one's sets; nothing reads its text word by word."""
    parser = PlainParser(SCHEMA)
    first = parser.read("SELECT 1 FROM a, b WHERE a.x = b.x AND a.y > -3 AND a.s IN ('p', 'q') AND b.z = 4")
    other = "SELECT 1 FROM a, b WHERE a.x = b.x AND a.y > -20 AND a.s IN ('z''z', 'b') AND b.z = 1234"
    expected = read_plain(other, SCHEMA)
    monkeypatch.setattr(PlainReader, "read", None)
    found = parser.read(other)
    assert found == expected
    assert found.template is first.template
    assert found.masks is first.masks


@pytest.mark.parametrize(
    "other",
    [
        "SELECT 1 FROM a, c WHERE a.x = 2 AND c.z = 2",  # one class, so that the planner joins the two
        "SELECT 1 FROM a, c WHERE a.x = 2 AND c.z = 02",
        "SELECT 1 FROM a, c WHERE a.x = 2 AND c.z = '2'",
        "SELECT 1 FROM a, c WHERE a.x = 2 AND c.z IN (3)",
    ],
)
def test_another_template(other: str) -> None:
    """Constants that are equal, however they are written, make another template, and so does another text."""
    parser = PlainParser(SCHEMA)
    first = parser.read("SELECT 1 FROM a, c WHERE a.x = 2 AND c.z = 3")
    assert parser.read(other).template is not first.template
    assert parser.read(other) == read_plain(other, SCHEMA)
    assert parser.read("SELECT 1 FROM a, c WHERE a.x = 7 AND c.z = 8").template is first.template


def test_a_constant_of_another_type_is_refused_with_its_own_text() -> None:
    """The reason names the constant of this query, not that of the first."""
    parser = PlainParser(SCHEMA)
    parser.read("SELECT 1 FROM a WHERE x = 5")
    with pytest.raises(UnsupportedQuery, match=f"^{re.escape(str(outcome(parser.read, 'SELECT 1 FROM a WHERE x = 5.5')))}$"):
        read_plain("SELECT 1 FROM a WHERE x = 5.5", SCHEMA)
    assert parser.parse("SELECT 1 FROM a WHERE x = 'five'") is None
    assert parser.parse("SELECT 1 FROM a WHERE s = 'a -- 5'") is None


def test_templates_are_dropped_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of other texts does not fill the memory."""
    monkeypatch.setattr("pytest_pilotscope.queries.plaintemplates._KEPT", 3)
    parser = PlainParser(SCHEMA)
    for number in range(10):
        parser.read(f"SELECT x AS c{number} FROM a WHERE x = 1")
        assert len(vars(parser)["_known"]) <= 3

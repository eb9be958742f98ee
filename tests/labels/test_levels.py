"""Which labels belong to which query level."""

from __future__ import annotations

from pytest_pilotscope.core.joins import Subplan
from pytest_pilotscope.labels import Label, by_level, subqueries_of
from pytest_pilotscope.postgres.subplans import LeveledSubplan

SCHEMA = {"a": {"x": "integer"}, "b": {"x": "integer"}}


def label(rows: int) -> Label:
    """A finished count."""
    return Label(rows=rows, source="memory")


def test_without_levels_the_labels_are_the_query_s() -> None:
    """A query without subqueries of their own is asked about by plain sets."""
    own = {frozenset("a"): label(1)}
    assert by_level([frozenset("a")], own, []) == own


def test_each_level_has_the_labels_of_its_relations() -> None:
    """The query is the last level; the same alias in a subquery is another relation."""
    asked = [LeveledSubplan(1, "a"), LeveledSubplan(2, "b"), LeveledSubplan(3, "a"), LeveledSubplan(3, "c"), LeveledSubplan(3, "ac")]
    itself: dict[Subplan, Label] = {frozenset(aliases): label(rows) for aliases, rows in (("a", 1), ("c", 2), ("ac", 3))}
    found = by_level(asked, itself, [{frozenset("b"): label(4)}, {frozenset("a"): label(5)}])
    assert [found[subplan].rows for subplan in asked] == [5, 4, 1, 2, 3]


def test_two_subqueries_over_the_same_relations_are_not_told_apart() -> None:
    """Rows of one are never given to the other: both stay without labels."""
    asked = [LeveledSubplan(1, "a"), LeveledSubplan(2, "a"), LeveledSubplan(3, "b")]
    found = by_level(asked, {frozenset("b"): label(1)}, [{frozenset("a"): label(2)}, {frozenset("a"): label(3)}])
    assert found == {LeveledSubplan(3, "b"): label(1)}


def test_subqueries_are_found_at_any_depth() -> None:
    """In order, the outer one first; EXISTS is a join and no query of its own; what cannot be parsed has none."""
    inner = "SELECT x FROM b WHERE x > (SELECT avg(c.x) FROM b AS c)"
    sql = f"SELECT 1 FROM a WHERE x NOT IN ({inner}) AND EXISTS (SELECT 1 FROM b AS d WHERE d.x = a.x)"
    assert subqueries_of(sql, SCHEMA) == [
        'SELECT "b"."x" FROM b WHERE "b"."x" > (SELECT AVG(c.x) FROM b AS c)',
        "SELECT AVG(c.x) FROM b AS c",
    ]
    assert subqueries_of("WITH q AS (SELECT 1) SELECT 1 FROM a", SCHEMA) == []

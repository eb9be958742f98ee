"""The values that a query is taken apart into."""

from __future__ import annotations

import copy

from pytest_pilotscope.errors import UnsupportedQuery
from pytest_pilotscope.queries.joins import JoinQuery, Relation
from pytest_pilotscope.queries.predicates import Comparison, predicate


def test_masks_and_subplans_correspond() -> None:
    """Bit i of a mask is the i-th relation."""
    relations = {alias: Relation(alias=alias, table="t", predicates=()) for alias in "cab"}
    query = JoinQuery(sql="", relations=relations, classes=(), masks=(1, 2, 4, 5, 7))
    assert query.aliases == ("c", "a", "b")
    assert query.subplans() == (frozenset("c"), frozenset("a"), frozenset("b"), frozenset("cb"), frozenset("abc"))
    assert [query.mask(subplan) for subplan in query.subplans()] == list(query.masks)


def test_relations_with_the_same_filter_share_its_key() -> None:
    """Neither the alias nor the order of the conditions matters; another schema of the table does."""
    older, named = predicate(Comparison("age", ">", 5)), predicate(Comparison("name", "=", "k"))
    one = Relation(alias="u", table="users", predicates=(older, named))
    assert one.filter_key == Relation(alias="w", table="users", predicates=(named, older, named)).filter_key
    assert one.filter_key == ("users", '"age" > 5', "\"name\" = 'k'")
    assert one.filter_key != Relation(alias="u", table="users", source="other.users", predicates=(older, named)).filter_key


def test_unsupported_queries_survive_copying() -> None:
    """The error keeps its parts when it crosses processes or is copied."""
    error = copy.copy(UnsupportedQuery("WITH", "WITH x AS (SELECT 1) SELECT 1"))
    assert (error.reason, error.sql) == ("WITH", "WITH x AS (SELECT 1) SELECT 1")

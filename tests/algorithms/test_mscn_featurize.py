"""The elements of a subplan's three sets, and names without features."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pytest_pilotscope.algorithms.mscn.featurize import Featurizer, QueryElements
from pytest_pilotscope.algorithms.mscn.vocabulary import OPERATORS, Vocabulary
from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.queries.joins import JoinQuery, Relation
from pytest_pilotscope.queries.plainparser import read_plain
from pytest_pilotscope.queries.predicates import (
    And,
    ColumnComparison,
    Comparison,
    Condition,
    InList,
    IsNull,
    Like,
    Not,
    Opaque,
    Or,
    TypedText,
    predicate,
)

from .mscn_example import RANGES, SAMPLE_ROWS, SCHEMA, SIZE, featurizer

LARGER = {**SCHEMA, "badges": {"userid": "integer"}, "users": {**SCHEMA["users"], "views": "integer"}}
COLUMNS = [f"{table}.{column}" for table, types in SCHEMA.items() for column in types]


def described(query: JoinQuery, subplan: str) -> tuple[list[str], list[str], list[str]]:
    """The sets of a subplan in words."""
    elements = featurizer(bitmaps=False).elements(query, query.masks)
    weights = elements.averages(np.array([query.mask(frozenset(subplan.split()))], dtype=np.int64))[0]
    tables, joins, predicates = np.split(weights > 0, np.cumsum(elements.sizes)[:2])
    return (
        [relation.alias for relation, there in zip(elements.relations, tables, strict=True) if there],
        [f"{COLUMNS[a]} = {COLUMNS[b]}" for (a, b), there in zip(elements.joins, joins, strict=True) if there],
        [
            f"{' '.join(COLUMNS[column] for column in columns)} {OPERATORS[operator]} {'-' if value is None else round(value, 3)}"
            for (columns, operator, value), there in zip(elements.predicates, predicates, strict=True)
            if there
        ],
    )


def predicates(condition: Condition) -> list[str]:
    """The elements of a condition on users."""
    users = Relation(alias="users", table="users", predicates=(predicate(condition),))
    return described(JoinQuery(sql="", relations={"users": users}, classes=(), masks=(1,)), "users")[2]


def elements(made: Featurizer, sql: str) -> QueryElements:
    """The elements of a plain query."""
    query = read_plain(sql, LARGER)
    return made.elements(query, query.masks)


def test_a_subplan_holds_what_its_relations_need() -> None:
    """Tables, joins and predicates of the relations inside, and no others."""
    query = read_plain(
        "SELECT * FROM users u, posts p, votes v WHERE u.id = p.userid AND p.id = v.postid AND u.age < 99 AND v.id = 0", SCHEMA
    )
    assert described(query, "u") == (["u"], [], ["users.age < 1.0"])
    assert described(query, "u p") == (["u", "p"], ["users.id = posts.userid"], ["users.age < 1.0"])
    assert described(query, "p v") == (["p", "v"], ["posts.id = votes.postid"], ["votes.id = 0.0"])
    assert described(query, "u p v")[1] == ["users.id = posts.userid", "posts.id = votes.postid"]


def test_implied_equalities_are_joins_too() -> None:
    """A class of three columns has three pairs, however the query wrote it and in whatever order."""
    written = read_plain("SELECT * FROM users u, posts p, votes v WHERE u.id = p.userid AND u.id = v.userid", SCHEMA)
    other = read_plain("SELECT * FROM votes v, posts p, users u WHERE v.userid = p.userid AND p.userid = u.id", SCHEMA)
    assert described(written, "p v")[1] == ["posts.userid = votes.userid"]
    assert sorted(described(written, "u p v")[1]) == sorted(described(other, "u p v")[1])
    assert len(described(written, "u p v")[1]) == 3


def test_aliases_of_one_table_are_separate_elements() -> None:
    """A self-join has two elements of the same table, each with its own predicates."""
    query = read_plain("SELECT * FROM users a, users b WHERE a.age = b.age AND a.id = 0 AND b.id < 199", SCHEMA)
    assert described(query, "a b") == (["a", "b"], ["users.age = users.age"], ["users.id = 0.0", "users.id < 1.0"])
    assert described(query, "b") == (["b"], [], ["users.id < 1.0"])
    assert featurizer().join_features([(1, 1)])[0, 1] == 2


@pytest.mark.parametrize(
    ("condition", "elements"),
    [
        (Comparison("age", ">=", 0), ["users.age >= 0.0"]),
        (InList("age", (0, 99)), ["users.age IN 0.0", "users.age IN 1.0"]),
        (Not(InList("age", (0, 99))), ["users.age NOT IN 0.0", "users.age NOT IN 1.0"]),
        (InList("name", ("a", "b")), ["users.name IN -"]),
        (Not(Comparison("age", ">=", 99)), ["users.age < 1.0"]),
        (Not(Comparison("age", "=", 0)), ["users.age <> 0.0"]),
        (Comparison("age", ">", -100), ["users.age > -0.05"]),
        (Comparison("age", ">", 1000), ["users.age > 1.05"]),
        (Comparison("name", "=", "a"), ["users.name = -"]),
        (Like("name", "a%"), ["users.name LIKE -"]),
        (Not(Like("name", "a%")), ["users.name NOT LIKE -"]),
        (IsNull("name"), ["users.name IS NULL -"]),
        (Not(IsNull("name")), ["users.name IS NOT NULL -"]),
        (Or((Comparison("age", "=", 1), Comparison("name", "=", "a"))), ["users.age users.name OR -"]),
        (Or((Comparison("age", "=", 99), And((Comparison("age", "=", 0), Comparison("id", "=", 1))))), ["users.id users.age OR -"]),
        (And((Comparison("age", "=", 99), Comparison("id", "=", 0))), ["users.age = 1.0", "users.id = 0.0"]),
        (ColumnComparison("age", "=", "id"), ["users.id users.age columns -"]),
        (Opaque(("name",), "lower(name) = 'a'"), ["users.name other -"]),
        (Comparison("born", "<=", TypedText("1970-01-01 00:00:00", "timestamp without time zone")), ["users.born <= 0.0"]),
        (Comparison("born", ">=", TypedText("2001-09-09 01:46:40", "timestamp without time zone")), ["users.born >= 1.0"]),
        (Comparison("born", ">=", TypedText("infinity", "timestamp without time zone")), ["users.born >= -"]),
    ],
)
def test_elements_of_every_kind_of_predicate(condition: Condition, elements: list[str]) -> None:
    """Numbers and times are placed within their range; what has no number acts through the bitmap."""
    assert predicates(condition) == elements


def test_features_of_a_predicate() -> None:
    """One-hots of column and operator, the value, and a 1 when there is a value."""
    made = featurizer()
    [age] = elements(made, "SELECT * FROM users WHERE age < 99").predicates
    [name] = elements(made, "SELECT * FROM users WHERE name = 'a'").predicates
    features = made.predicate_features([age, name])
    assert features.shape == (2, len(COLUMNS) + len(OPERATORS) + 2) == (2, made.widths["predicates"])
    assert features[0].nonzero()[0].tolist() == [1, len(COLUMNS) + OPERATORS.index("<"), features.shape[1] - 2, features.shape[1] - 1]
    assert features[1].nonzero()[0].tolist() == [2, len(COLUMNS) + OPERATORS.index("=")]


def test_features_of_a_table_are_its_one_hot_and_bitmap() -> None:
    """The bitmap is that of all predicates of the relation, and only present with samples."""
    query = read_plain("SELECT * FROM posts WHERE id < 50 AND score IS NOT NULL", SCHEMA)
    relation = query.relations["posts"]
    features = featurizer().table_features([relation])[0]
    scores = featurizer().samples
    assert scores is not None
    assert features[:3].tolist() == [0, 1, 0]
    assert features[3:].tolist() == scores.bitmap(relation).tolist()
    assert len(features) == 3 + SAMPLE_ROWS > 3 + SIZE
    assert featurizer(bitmaps=False).table_features([relation])[0].tolist() == [0, 1, 0]


def test_column_without_a_range_has_no_value() -> None:
    """An empty relation has no smallest and largest value, so its constants have no place."""
    made = Featurizer(Vocabulary(schema=SCHEMA, ranges={"users": {}}), None)
    [element] = elements(made, "SELECT * FROM users WHERE age = 1").predicates
    assert element.value is None


def test_column_with_one_value_has_a_range() -> None:
    """A range of no width places its own value at 0 and tells others from it."""
    made = Featurizer(Vocabulary(schema=SCHEMA, ranges={"users": {"age": (5.0, 5.0)}}), None)
    values = [elements(made, f"SELECT * FROM users WHERE age = {age}").predicates[0].value for age in (4, 5, 6)]
    assert values == [-0.05, 0.0, 1.0]


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("SELECT * FROM users u, badges b WHERE u.id = b.userid", "table 'badges'"),
        ("SELECT * FROM badges", "table 'badges'"),
        ("SELECT * FROM users WHERE users.views = 1", "column users.views"),
        ("SELECT * FROM users u, posts p WHERE u.views = p.userid", "column users.views"),
    ],
)
def test_what_the_schema_did_not_have_is_named(sql: str, what: str) -> None:
    """An unseen table, column or join is an error, never a zero."""
    made = featurizer()
    message = f"this mscn model has no {what}; it was trained on posts, users, votes: train it again"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        elements(made, sql)


def test_relations_outside_of_the_sets_are_not_looked_at() -> None:
    """Of an outer join the sides are learnt from; a relation that is no table has no features, and needs none."""
    users = Relation(alias="u", table="users", predicates=(predicate(Comparison("age", "<", 99)),))
    function = Relation(alias="f", table="", predicates=())
    query = JoinQuery(sql="", relations={"f": function, "u": users}, classes=(), masks=(1, 2, 3))
    found = featurizer().elements(query, [2])
    assert (found.relations, len(found.predicates), found.needs.tolist()) == ((users,), 1, [2, 2])


def test_query_of_too_many_relations_is_refused() -> None:
    """Subplans are masks of 62 bits."""
    relations = {f"u{number}": Relation(alias=f"u{number}", table="users", predicates=()) for number in range(63)}
    message = "mscn estimates queries of up to 62 relations, found 63"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        featurizer().elements(JoinQuery(sql="", relations=relations, classes=(), masks=(1,)), [1])


def test_every_join_of_known_columns_has_features() -> None:
    """A join that no training query had is the sum of two columns that every model has."""
    made = Featurizer(Vocabulary(schema=SCHEMA, ranges=RANGES), None)
    [pair] = elements(made, "SELECT * FROM votes v, posts p WHERE v.id = p.score").joins
    assert [COLUMNS[position] for position in made.join_features([pair])[0].nonzero()[0]] == ["posts.score", "votes.id"]

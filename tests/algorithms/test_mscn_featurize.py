"""What the three sets of a subplan hold, and what has no features."""

from __future__ import annotations

import re

import numpy as np
import pytest

from algorithms.mscn.featurize import Featurizer
from algorithms.mscn.vocabulary import OPERATORS, Vocabulary
from pytest_pilotscope.core.joins import JoinQuery, parse
from pytest_pilotscope.errors import ModelError

from .mscn_example import RANGES, SAMPLE_ROWS, SCHEMA, SIZE, featurizer

COLUMNS = [f"{table}.{column}" for table, types in SCHEMA.items() for column in types]


def described(query: JoinQuery, subplan: str) -> tuple[list[str], list[str], list[str]]:
    """The sets of a subplan in words."""
    elements = featurizer(bitmaps=False).elements(query)
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


def predicates(condition: str) -> list[str]:
    """The elements of a condition on users."""
    return described(parse(f"SELECT * FROM users WHERE {condition}", SCHEMA), "users")[2]


def test_a_subplan_holds_what_its_relations_need() -> None:
    """Tables, joins and predicates of the relations inside, and no others."""
    query = parse("SELECT * FROM users u, posts p, votes v WHERE u.id = p.userid AND p.id = v.postid AND u.age < 99 AND v.id = 0", SCHEMA)
    assert described(query, "u") == (["u"], [], ["users.age < 1.0"])
    assert described(query, "u p") == (["u", "p"], ["users.id = posts.userid"], ["users.age < 1.0"])
    assert described(query, "p v") == (["p", "v"], ["posts.id = votes.postid"], ["votes.id = 0.0"])
    assert described(query, "u p v")[1] == ["users.id = posts.userid", "posts.id = votes.postid"]


def test_implied_equalities_are_joins_too() -> None:
    """A class of three columns has three pairs, however the query wrote it and in whatever order."""
    written = parse("SELECT * FROM users u, posts p, votes v WHERE u.id = p.userid AND u.id = v.userid", SCHEMA)
    other = parse("SELECT * FROM votes v, posts p, users u WHERE v.userid = p.userid AND p.userid = u.id", SCHEMA)
    assert described(written, "p v")[1] == ["posts.userid = votes.userid"]
    assert sorted(described(written, "u p v")[1]) == sorted(described(other, "u p v")[1])
    assert len(described(written, "u p v")[1]) == 3


def test_aliases_of_one_table_are_separate_elements() -> None:
    """A self-join has two elements of the same table, each with its own predicates."""
    query = parse("SELECT * FROM users a, users b WHERE a.age = b.age AND a.id = 0 AND b.id < 199", SCHEMA)
    assert described(query, "a b") == (["a", "b"], ["users.age = users.age"], ["users.id = 0.0", "users.id < 1.0"])
    assert described(query, "b") == (["b"], [], ["users.id < 1.0"])
    assert featurizer().join_features([(1, 1)])[0, 1] == 2


@pytest.mark.parametrize(
    ("condition", "elements"),
    [
        ("age BETWEEN 0 AND 99", ["users.age >= 0.0", "users.age <= 1.0"]),
        ("age NOT BETWEEN 0 AND 99", ["users.age other -"]),
        ("age IN (0, 99, 0)", ["users.age IN 0.0", "users.age IN 1.0"]),
        ("age NOT IN (0)", ["users.age NOT IN 0.0"]),
        ("name IN ('a', 'b')", ["users.name IN -"]),
        ("NOT age >= 99", ["users.age < 1.0"]),
        ("NOT age = 0", ["users.age <> 0.0"]),
        ("age > -100", ["users.age > -0.05"]),
        ("age > 1000", ["users.age > 1.05"]),
        ("age = 24.75", ["users.age = 0.25"]),
        ("name = 'a'", ["users.name = -"]),
        ("name LIKE 'a%'", ["users.name LIKE -"]),
        ("name NOT LIKE 'a%'", ["users.name NOT LIKE -"]),
        ("name IS NULL", ["users.name IS NULL -"]),
        ("name IS NOT NULL", ["users.name IS NOT NULL -"]),
        ("age = 1 OR name = 'a'", ["users.age users.name OR -"]),
        ("(age = 99 OR age = 0 AND id = 1)", ["users.age users.id OR -"]),
        ("age = id", ["users.age users.id columns -"]),
        ("lower(name) = 'a'", ["users.name other -"]),
        ("born <= '1970-01-01 00:00:00'", ["users.born <= 0.0"]),
        ("born >= '2001-09-09 01:46:40'::timestamp", ["users.born >= 1.0"]),
        ("born >= 'yesterday'", ["users.born >= -"]),
    ],
)
def test_elements_of_every_kind_of_predicate(condition: str, elements: list[str]) -> None:
    """Numbers and times are placed within their range; what has no number acts through the bitmap."""
    assert predicates(condition) == elements


def test_features_of_a_predicate() -> None:
    """One-hots of column and operator, the value, and a 1 when there is a value."""
    made = featurizer()
    [age] = made.elements(parse("SELECT * FROM users WHERE age < 99", SCHEMA)).predicates
    [name] = made.elements(parse("SELECT * FROM users WHERE name = 'a'", SCHEMA)).predicates
    features = made.predicate_features([age, name])
    assert features.shape == (2, len(COLUMNS) + len(OPERATORS) + 2) == (2, made.widths["predicates"])
    assert features[0].nonzero()[0].tolist() == [1, len(COLUMNS) + OPERATORS.index("<"), features.shape[1] - 2, features.shape[1] - 1]
    assert features[1].nonzero()[0].tolist() == [2, len(COLUMNS) + OPERATORS.index("=")]


def test_features_of_a_table_are_its_one_hot_and_bitmap() -> None:
    """The bitmap is that of all predicates of the relation, and only present with samples."""
    query = parse("SELECT * FROM posts WHERE id < 50 AND score IS NOT NULL", SCHEMA)
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
    [element] = made.elements(parse("SELECT * FROM users WHERE age = 1", SCHEMA)).predicates
    assert element.value is None


def test_column_with_one_value_has_a_range() -> None:
    """A range of no width places its own value at 0 and tells others from it."""
    made = Featurizer(Vocabulary(schema=SCHEMA, ranges={"users": {"age": (5.0, 5.0)}}), None)
    values = [made.elements(parse(f"SELECT * FROM users WHERE age = {age}", SCHEMA)).predicates[0].value for age in (4, 5, 6)]
    assert values == [-0.05, 0.0, 1.0]


LARGER = {**SCHEMA, "badges": {"userid": "integer"}, "users": {**SCHEMA["users"], "views": "integer"}}


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
        made.elements(parse(sql, LARGER))


@pytest.mark.parametrize("joined", ["users u, posts p WHERE u.id < p.userid", "users u LEFT JOIN posts p ON u.id = p.userid"])
def test_join_that_is_no_equality_is_named(joined: str) -> None:
    """There are no features for a join by anything else, nor for an outer join."""
    query = parse(f"SELECT * FROM {joined}", SCHEMA)
    message = f"mscn has no features for other joins than inner ones by equality, and this query is {query.reason}"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        featurizer().elements(query)


def test_query_of_too_many_relations_is_refused() -> None:
    """Subplans are masks of 62 bits."""
    sources = ", ".join(f"users u{number}" for number in range(63))
    equal = " AND ".join(f"u0.id = u{number}.id" for number in range(1, 63))
    message = "mscn estimates queries of up to 62 relations, found 63"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        featurizer().elements(parse(f"SELECT * FROM {sources} WHERE {equal}", SCHEMA))


def test_every_join_of_known_columns_has_features() -> None:
    """A join that no training query had is the sum of two columns that every model has."""
    made = Featurizer(Vocabulary(schema=SCHEMA, ranges=RANGES), None)
    [pair] = made.elements(parse("SELECT * FROM votes v, posts p WHERE v.id = p.score", SCHEMA)).joins
    assert [COLUMNS[position] for position in made.join_features([pair])[0].nonzero()[0]] == ["posts.score", "votes.id"]

"""`bound`: no estimate is below the truth, whatever the data, the joins and the filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pilotscope.algorithms.bound.estimator import Bound
from pytest_pilotscope.algorithms.bound.joins import JoinBound
from pytest_pilotscope.algorithms.bound.reading import COARSENESS, degree_sequence
from pytest_pilotscope.algorithms.bound.steps import Steps
from pytest_pilotscope.errors import StatementFailed, UnsupportedQuery
from pytest_pilotscope.labels import cardinalities, read_schema
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.joins import ColumnRef, JoinQuery, KeyType, Relation
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.queries.statements import split_statements
from tests.conftest import LibraryOf
from tests.labels.random_statements import random_statement
from tests.labels.typed_schema import schema_sql

STATEMENTS = 150
COLUMNS = ("x", "y", "z")
INTEGER = KeyType("integer", bytewise=True)
Table = list[tuple[int | None, int | None, int | None]]


@st.composite
def joins(draw: st.DrawFn) -> tuple[list[Table], list[list[tuple[int, int]]]]:
    """Two to four tables of three columns, and classes of equal (table, column), cycles included."""
    value = st.one_of(st.none(), st.integers(0, 3), st.just(0))
    table = st.lists(st.tuples(value, value, value), max_size=7)
    tables = draw(st.lists(table, min_size=2, max_size=4))
    columns = [(number, column) for number in range(len(tables)) for column in range(len(COLUMNS))]
    labels = draw(st.lists(st.integers(0, 4), min_size=len(columns), max_size=len(columns)))
    classes = [[place for place, label in zip(columns, labels, strict=True) if label == wanted] for wanted in range(4)]
    return tables, [_one_of_each_table(places) for places in classes if len({number for number, _ in places}) > 1]


def _one_of_each_table(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [place for position, place in enumerate(places) if place[0] not in {number for number, _ in places[:position]}]


def true_rows(tables: list[Table], classes: list[list[tuple[int, int]]], mask: int) -> int:
    """Count the join of some tables row by row."""
    there = [number for number in range(len(tables)) if mask >> number & 1]
    found = 0
    for rows in product(*(tables[number] for number in there)):
        row = dict(zip(there, rows, strict=True))
        values = [[row[number][column] for number, column in places if number in row] for places in classes]
        found += all(len(each) < 2 or (None not in each and len(set(each)) == 1) for each in values)
    return found


def exact_degrees(rows: Sequence[int | None]) -> Steps:
    """The degree sequence of a column."""
    degrees = Counter(Counter(value for value in rows if value is not None).values())
    return degree_sequence(sorted(degrees.items(), reverse=True))


@given(joins())
def test_the_join_bound_is_never_below_the_truth(case: tuple[list[Table], list[list[tuple[int, int]]]]) -> None:
    """Trees and cycles of equal columns, skewed values and NULLs: every set of tables has at most so many rows."""
    tables, classes = case
    aliases = [f"t{number}" for number in range(len(tables))]
    masks = range(1, 1 << len(tables))
    query = JoinQuery(
        sql="",
        relations={alias: Relation(alias=alias, table=alias, predicates=()) for alias in aliases},
        classes=tuple(tuple(ColumnRef(aliases[number], COLUMNS[column]) for number, column in places) for places in classes),
        masks=tuple(masks),
        keys=(INTEGER,) * len(classes),
    )

    def degrees(table: str, column: str, _: KeyType) -> Steps:
        return exact_degrees([row[COLUMNS.index(column)] for row in tables[aliases.index(table)]])

    bound = JoinBound(query, degrees, [float(len(table)) for table in tables])
    assert [mask for mask in masks if bound.rows(mask) < true_rows(tables, classes, mask)] == []


def test_a_join_of_two_tables_is_bounded_by_the_products_of_their_degrees() -> None:
    """Degrees 3, 1 and 2, 2, 1: the most frequent values may be the same ones, so there are at most 3 * 2 + 1 * 2 rows."""
    sides = {"a": Steps(np.array([1.0, 2.0]), np.array([3.0, 1.0])), "b": Steps(np.array([2.0, 3.0]), np.array([2.0, 1.0]))}
    relations = {alias: Relation(alias=alias, table=alias, predicates=()) for alias in sides}
    classes = ((ColumnRef("a", "x"), ColumnRef("b", "x")),)
    query = JoinQuery(sql="", relations=relations, classes=classes, masks=(1, 2, 3), keys=(INTEGER,))
    bound = JoinBound(query, lambda table, column, key: sides[table], [4.0, 5.0])
    assert [bound.rows(mask) for mask in (1, 2, 3)] == pytest.approx([4, 5, 8])
    filtered = JoinBound(query, lambda table, column, key: sides[table], [4.0, 1.0])
    assert filtered.rows(3) == pytest.approx(3)


def test_similar_degrees_become_the_largest_of_them() -> None:
    """The step function never lies below the sequence, and ends with its sum of rows."""
    found = degree_sequence([(100, 1), (99, 2), (96, 1), (50, 1), (1, 40)])
    assert found.values.tolist() == [100, 50, 1]
    assert found.total == pytest.approx(100 + 99 * 2 + 96 + 50 + 40)
    assert 100 / 96 < COARSENESS < 100 / 50


@pytest.fixture(scope="module")
def typed(newest_server: EmbeddedServer, library_of: LibraryOf) -> Iterator[Session]:
    """A session with the library in a database with a column of every built-in type."""
    with newest_server.connect() as administrator:
        administrator.execute("CREATE DATABASE bounded")
        with newest_server.connect("bounded") as session:
            for statement in split_statements(schema_sql()):
                session.execute(statement.sql)
            session.execute("VACUUM ANALYZE")
            session.execute(f"LOAD '{library_of(newest_server)}'")
            yield session
        administrator.execute("DROP DATABASE bounded WITH (FORCE)")


def trained(session: Session) -> Bound:
    """A bound of the data of a session."""
    made = Bound()
    training = SimpleNamespace(session=session, schema=read_schema(session), progress=silent, report=lambda **_: None)
    made.train(cast(Training, training))
    return made


def bounds(session: Session, *conditions: str) -> dict[str, bool]:
    """Tell for conditions on the tables t and u whether the bound of the whole statement is at least its rows."""
    made, found = trained(session), {}
    for condition in conditions:
        sql = f"SELECT count(*) FROM t, u WHERE {condition}"
        rows = made.steer_by_text(Query(id=condition, sql=sql))
        found[condition] = rows is not None and rows[frozenset("tu")] >= session.scalar(sql)
    return found


def test_no_collation_makes_a_bound_too_small(scratch: Session, server: EmbeddedServer, library_of: LibraryOf) -> None:
    """Texts that are equal by a collation of the statement, or of one of two joined columns, are counted as different by the other."""
    try:
        scratch.execute("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except StatementFailed as error:
        pytest.skip(f"no collation that takes different texts as equal: {error.reason}")
    scratch.execute(f"LOAD '{library_of(server)}'")
    scratch.execute("CREATE TABLE t AS SELECT (ARRAY['a', 'A', 'b', 'B'])[1 + g % 4] AS k FROM generate_series(1, 400) AS g")
    scratch.execute("CREATE TABLE u AS TABLE t; ALTER TABLE u ADD l text COLLATE loose; UPDATE u SET l = k; ANALYZE")
    conditions = (
        "t.k = u.k COLLATE loose",
        "t.k = u.l",
        "t.k = 'a' COLLATE loose",
        "t.k IN ('a' COLLATE loose, 'b')",
        "u.l = 'A'",
        "u.l = u.k",
    )
    assert bounds(scratch, *conditions) == dict.fromkeys(conditions, True)


def test_numbers_that_the_session_shows_with_few_digits_are_not_rounded(
    scratch: Session, server: EmbeddedServer, library_of: LibraryOf
) -> None:
    """The ends of ranges and the constants of filters are exact, whatever `extra_float_digits` is."""
    scratch.execute(f"LOAD '{library_of(server)}'")
    scratch.execute(
        "CREATE TABLE t AS SELECT 1 + g * 1e-15::float8 AS x FROM generate_series(1, 900) AS g; CREATE TABLE u AS SELECT 1 AS one; ANALYZE"
    )
    conditions = ("t.x >= 1.000000000000899", "t.x > 1.0000000000004", "t.x < 1.0000000000001", "t.x <= 1.000000000000002")
    for digits in (1, 0, -10):
        scratch.execute(f"SET extra_float_digits = {digits}")
        assert bounds(scratch, *conditions) == dict.fromkeys(conditions, True)
    made = trained(scratch)
    rows = made.steer_by_text(Query(id="few", sql="SELECT count(*) FROM t WHERE x > 1.0000000000008"))
    assert rows is not None
    assert rows[frozenset("t")] == pytest.approx(102, abs=5)


def test_no_bound_is_more_than_postgresql_can_plan_with(
    newest_scratch: Session, newest_server: EmbeddedServer, library_of: LibraryOf
) -> None:
    """The product of forty tables is beyond what the planner takes; the bound is what it would take itself."""
    newest_scratch.execute(f"LOAD '{library_of(newest_server)}'; CREATE TABLE t AS SELECT generate_series(1, 1000) AS x; ANALYZE")
    sql = f"SELECT count(*) FROM {', '.join(f't AS t{number}' for number in range(40))}"
    rows = trained(newest_scratch).steer_by_text(Query(id="many", sql=sql))
    assert rows is not None
    with newest_scratch.cardinalities(rows):
        assert newest_scratch.subplans(sql)[frozenset(f"t{number}" for number in range(40))] == 1e100


@pytest.mark.slow
def test_no_set_of_a_random_statement_has_more_rows(typed: Session, tmp_path: Path) -> None:
    """Every kind of join, subquery and filter over columns of every type: the bound of each set is at least its true rows."""
    schema = read_schema(typed)
    queries = [Query(id=f"seed {seed}", sql=random_statement(seed)) for seed in range(STATEMENTS)]
    labels = cardinalities(typed, queries, schema=schema, fingerprint="typed", cache_dir=tmp_path)
    made = trained(typed)
    checked = 0
    for query in queries:
        try:
            found = made.steer_by_text(query)
        except UnsupportedQuery:
            continue
        true = labels.rows(query.id)
        assert {subplan: (rows, true[subplan]) for subplan, rows in (found or {}).items() if rows < true.get(subplan, 0)} == {}, query.sql
        checked += sum(subplan in true for subplan in found or {})
    assert checked > 2 * STATEMENTS

"""The comparison of labels with SQL and plan nodes finds meanings and labels that are wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from pytest_pilotscope.labels.executed import executed_sets
from pytest_pilotscope.labels.verifying import verify
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.explain import Plan
from pytest_pilotscope.postgres.meaning import read_meaning
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.meaning import Level, Pair, Statement
from pytest_pilotscope.queries.queries import Query
from tests.conftest import LibraryOf
from tests.labels.forms import FORMS
from tests.labels.typed_schema import schema_sql

Change = Callable[[Level], Level]


@pytest.fixture(scope="module")
def typed(newest_server: EmbeddedServer, library_of: LibraryOf) -> Iterator[Session]:
    """Return a session with the library in a database with a column of every built-in type."""
    with newest_server.connect() as administrator:
        administrator.execute("CREATE DATABASE truth_fails")
        with newest_server.connect("truth_fails") as session:
            session.execute(schema_sql())
            session.execute("VACUUM ANALYZE")
            session.execute(f"LOAD '{library_of(newest_server)}'")
            yield session
        administrator.execute("DROP DATABASE truth_fails WITH (FORCE)")


def _wrongly(change: Change) -> Callable[[Session, str], Statement]:
    def read(session: Session, sql: str) -> Statement:
        statement = read_meaning(session, sql)
        object.__setattr__(statement, "levels", tuple(change(level) for level in statement.levels))
        return statement

    return read


def _pairs(change: Callable[[Pair], Pair]) -> Change:
    return lambda level: replace(level, pairs={mask: tuple(map(change, pairs)) for mask, pairs in level.pairs.items()})


def _without_first_filter(level: Level) -> Level:
    return replace(level, sources=tuple(replace(source, filters=source.filters[1:]) for source in level.sources))


def _computed_last(level: Level) -> Level:
    """Compute placeholders above all joins, so that no outer join makes them NULL."""
    whole = (1 << len(level.sources)) - 1
    return replace(level, placeholders={number: one._replace(at=whole) for number, one in level.placeholders.items()})


WRONG: dict[str, Change] = {
    "a filter is dropped": _without_first_filter,
    "a join clause is dropped": _pairs(lambda pair: pair._replace(on=pair.on[1:])),
    "conditions above an outer join are taken for its own": _pairs(lambda pair: pair._replace(on=pair.on + pair.where, where=())),
    "conditions of an outer join are taken for ones above it": _pairs(
        lambda pair: pair._replace(on=(), where=pair.on + pair.where) if pair.kind == "LEFT" else pair
    ),
    "an outer join is taken for an inner one": _pairs(lambda pair: pair._replace(kind="INNER") if pair.kind == "LEFT" else pair),
    "an anti join is taken for a semi join": _pairs(lambda pair: pair._replace(kind="SEMI") if pair.kind == "ANTI" else pair),
    "a join with distinct rows is taken for a semi join": _pairs(
        lambda pair: pair._replace(kind="SEMI") if pair.kind == "UNIQUE" else pair
    ),
    "values are not made NULL": _computed_last,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_meaning_is_found(typed: Session, wrong: str) -> None:
    """The forms by hand show each of these faults, with the statement and the numbers."""
    queries = [Query(id=name, sql=sql) for name, sql in FORMS.items()]
    found = verify(typed, queries, {}, read=_wrongly(WRONG[wrong]), plans=2, timeout_ms=5_000)
    differing = [mismatch for mismatch in found.mismatches if not mismatch.reason]
    assert differing
    for mismatch in differing:
        assert FORMS[mismatch.query_id] == mismatch.sql
        assert {mismatch.counted} != {executed.rows for executed in mismatch.executed}


def test_a_wrong_label_is_found(typed: Session) -> None:
    """One number that is off by one, and one that is missing."""
    sql = "SELECT count(*) FROM a JOIN b ON b.fk = a.id"
    right = verify(typed, [Query(id="q", sql=sql)], {})
    rows = {subplan: int(typed.scalar(level.count_sql(mask).sql)) for subplan, (level, mask) in read_meaning(typed, sql).subplans().items()}
    assert right.mismatches == ()
    both = frozenset("ab")
    [mismatch] = verify(typed, [Query(id="q", sql=sql)], {"q": {**rows, both: rows[both] + 1}}).mismatches
    assert (mismatch.subplan, mismatch.label, mismatch.counted) == (both, rows[both] + 1, rows[both])
    assert {executed.rows for executed in mismatch.executed} == {rows[both]}
    del rows[both]
    [mismatch] = verify(typed, [Query(id="q", sql=sql)], {"q": rows}).mismatches
    assert (mismatch.subplan, mismatch.reason) == (both, "it has SQL and no label")


def test_sql_that_fails_is_found(typed: Session) -> None:
    """SQL that fails is a mismatch with PostgreSQL's message and the SQL."""
    broken = _wrongly(lambda level: replace(level, sources=tuple(replace(source, item="no_such_table") for source in level.sources)))
    [mismatch] = verify(typed, [Query(id="q", sql="SELECT count(*) FROM a")], {}, read=broken).mismatches
    assert mismatch.count_sql in mismatch.reason
    assert 'relation "no_such_table" does not exist' in mismatch.reason


def test_a_statement_that_is_not_planned_is_told(typed: Session) -> None:
    """A statement that PostgreSQL does not plan is counted as refused, with the reason."""
    found = verify(typed, [Query(id="q", sql="SELECT count(*) FROM no_such_table")], {})
    assert dict(found.refused) == {"q": 'relation "no_such_table" does not exist'}
    assert (found.statements, found.sets) == (1, 0)


def _scan(alias: str, rows: float, *, loops: float = 1, relationship: str = "Outer") -> Plan:
    return Plan(node_type="Seq Scan", alias=alias, actual_rows=rows, actual_loops=loops, relationship=relationship)


def _over(node_type: str, *children: Plan, rows: float = 7, **more: object) -> Plan:
    return Plan(node_type=node_type, actual_rows=rows, actual_loops=1, children=children, **more)  # type: ignore[arg-type]


def _hash(child: Plan) -> Plan:
    return _over("Hash", child, rows=child.actual_rows or 0, relationship="Inner")


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (_over("Hash Join", _scan("a", 3), _hash(_scan("b", 2)), join_type="Inner"), {"a": 3, "b": 2, "ab": 7}),
        (_over("Hash Join", _scan("a", 3), _hash(_scan("b", 0)), join_type="Inner"), {"b": 0, "ab": 7}),
        (_over("Hash Join", _scan("a", 3), _hash(_scan("b", 0)), join_type="Left"), {"a": 3, "b": 0, "ab": 7}),
        (_over("Hash Join", _scan("a", 3), _hash(_scan("b", 0, loops=0)), join_type="Left"), {"a": 3, "ab": 7}),
        (_over("Limit", _over("Hash Join", _scan("a", 3), _hash(_scan("b", 2)), join_type="Inner", relationship="Outer")), {"b": 2}),
        (_over("Limit", _over("Sort", _scan("a", 3), relationship="Outer")), {"a": 3}),
        (_over("Merge Join", _scan("a", 3), _over("Sort", _scan("b", 2), relationship="Inner"), join_type="Inner"), {"b": 2, "ab": 7}),
        (_over("Nested Loop", _scan("a", 1), _scan("b", 2, relationship="Inner"), join_type="Inner"), {"a": 1, "ab": 7}),
        (
            _over("Nested Loop", _scan("a", 1), _over("Materialize", _scan("b", 2), relationship="Inner"), join_type="Inner"),
            {"a": 1, "b": 2, "ab": 7},
        ),
        (
            _over("Nested Loop", _scan("a", 0), _over("Materialize", _scan("b", 2), relationship="Inner"), join_type="Inner"),
            {"a": 0, "ab": 7},
        ),
        (
            _over("Nested Loop", _scan("a", 1), _over("Materialize", _scan("b", 2), relationship="Inner"), join_type="Semi"),
            {"a": 1, "ab": 7},
        ),
        (_over("Nested Loop", _scan("a", 1), _over("Memoize", _scan("b", 2), relationship="Inner"), join_type="Inner"), {"a": 1, "ab": 7}),
        (_over("Gather", _scan("a", 3)), {}),
        (_over("Bitmap Heap Scan", _over("BitmapOr", relationship="Outer"), alias="a"), {}),
        (_over("Subquery Scan", _scan("b", 3), alias="a"), {"a": 7}),
        (_over("Append", _scan("a_1", 3, relationship="Member"), _scan("a_2", 4, relationship="Member")), {"a": 7}),
        (_over("Append", _scan("a", 3, relationship="Member"), _scan("b", 4, relationship="Member")), {}),
        (
            _over("Hash Join", _over("Aggregate", _scan("z", 9), relationship="Outer"), _hash(_scan("b", 2)), join_type="Inner"),
            {"b": 2, "ab": 7},
        ),
        (_over("Hash Join", _scan("y", 9), _hash(_scan("z", 2)), join_type="Inner"), {}),
        (_over("Aggregate", _scan("a", 3), _scan("b", 3, relationship="InitPlan"), strategy="Plain"), {"a": 3}),
        (_over("WindowAgg", _scan("a", 3), details={"Run Condition": "(n < 3)"}), {}),
        (_scan("z", 3), {}),
    ],
)
def test_only_nodes_that_were_read_to_their_end_tell(plan: Plan, told: dict[str, int]) -> None:
    """Not what is under LIMIT, beside an empty hash table, input of a merge join or an inner side that depends on a row."""
    assert {"".join(sorted(one.subplan)): one.rows for one in executed_sets(plan, frozenset("ab"), frozenset("ab"))} == told

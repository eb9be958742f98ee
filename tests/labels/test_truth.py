"""
Labels, the SQL of each set of relations, and executed plan nodes agree, on every PostgreSQL there is.

More random statements than the usual few, from another seed on:

    PILOTSCOPE_RANDOM_STATEMENTS=5000 PILOTSCOPE_RANDOM_SEED=1000 pytest tests/labels/test_truth.py -k random
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pytest_pilotscope.datasets.files import load_queries
from pytest_pilotscope.datasets.stats.dataset import StatsDataset
from pytest_pilotscope.datasets.tpch import TpchDataset
from pytest_pilotscope.labels import cardinalities, read_schema
from pytest_pilotscope.labels.verifying import Rows, Verification, total, verify
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.queries.statements import split_statements
from tests.conftest import LibraryOf
from tests.labels.dumps import load_dump
from tests.labels.forms import FORMS
from tests.labels.random_statements import random_statement
from tests.labels.typed_schema import schema_sql

STATEMENTS = int(os.environ.get("PILOTSCOPE_RANDOM_STATEMENTS", "60"))
SEED = int(os.environ.get("PILOTSCOPE_RANDOM_SEED", "0"))
TIMEOUT_MS = 5_000
_AT_ONCE = 250

Fill = Callable[[Session], None]


def _filled(library_of: LibraryOf, server: EmbeddedServer, name: str, fill: Fill) -> Iterator[Session]:
    with server.connect() as administrator:
        administrator.execute(f"CREATE DATABASE {name}")
        with server.connect(name) as session:
            fill(session)
            session.execute("VACUUM ANALYZE")
            session.execute(f"LOAD '{library_of(server)}'")
            yield session
        administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def typed(server: EmbeddedServer, library_of: LibraryOf) -> Iterator[Session]:
    """Return a session with the library in a database with a column of every built-in type."""
    yield from _filled(library_of, server, "truth_typed", lambda session: _execute_each(session, schema_sql()))


def _execute_each(session: Session, sql: str) -> None:
    for statement in split_statements(sql):
        session.execute(statement.sql)


def _labels(session: Session, queries: Sequence[Query]) -> dict[str, Rows]:
    """Count labels afresh."""
    with TemporaryDirectory() as folder:
        found = cardinalities(session, queries, schema=read_schema(session), fingerprint="", cache_dir=Path(folder), timeout_ms=TIMEOUT_MS)
    return {query_id: {subplan: label.rows for subplan, label in labels.items()} for query_id, labels in found.items()}


def _verified(session: Session, queries: Sequence[Query], *, plans: int = 6) -> Verification:
    parts = (queries[start : start + _AT_ONCE] for start in range(0, len(queries), _AT_ONCE))
    return total([verify(session, part, _labels(session, part), plans=plans, timeout_ms=TIMEOUT_MS) for part in parts])


def _assert_true(found: Verification, *, statements: int) -> None:
    """Nothing differs, every set has a label or a reason, and nothing was left out silently."""
    assert found.mismatches == ()
    assert found.refused == {}
    assert found.statements == statements
    assert found.labelled == found.counted
    assert found.counted + sum(found.without_sql.values()) + sum(found.uncounted.values()) == found.sets
    assert all(found.without_sql)


def test_forms_by_hand(typed: Session) -> None:
    """Nulled values, semi joins by several keys, set operations, functions, names: kinds that chance hardly brings up."""
    queries = [Query(id=name, sql=sql) for name, sql in FORMS.items()]
    found = _verified(typed, queries)
    _assert_true(found, statements=len(FORMS))
    assert found.joins > 90
    assert found.wholes > 70


HIDDEN = {
    "a sum of two relations": "SELECT count(*) FROM a, b WHERE a.id = b.fk AND a.i4 + b.i4 IN (SELECT c.i4 FROM c)",
    "keys of two relations, of a domain": "SELECT count(*) FROM a, b WHERE a.i4 = b.i4 AND (a.dn, b.dn) IN (SELECT c.dn, c.i4 FROM c)",
    "keys of two relations, of varchar": "SELECT count(*) FROM a, b WHERE a.i4 = b.i4 AND (a.vc, b.vc) IN (SELECT c.vc, c.tx FROM c)",
}


def test_values_that_a_semi_join_hides(typed: Session) -> None:
    """GEQO joins the distinct values of a subquery before what they are compared with; another value of the class then stands for them."""
    typed.execute("SET geqo_threshold = 2")
    try:
        found = _verified(typed, [Query(id=name, sql=sql) for name, sql in HIDDEN.items()])
    finally:
        typed.execute("RESET geqo_threshold")
    _assert_true(found, statements=len(HIDDEN))
    assert not found.without_sql


def test_columns_that_only_joins_make_equal(typed: Session) -> None:
    """
    If 18 removed a self-join, two columns of a relation can be of one class without a filter that makes them equal.

    Only hash joins are executed: with nested loops PostgreSQL 18.4 forgets a clause after it has removed a self-join, and answers wrongly.
    """
    sql = """
        SELECT count(*) FROM b AS r0 JOIN (VALUES (1), (2), (3)) AS r1 (c0) ON r0.fk = r1.c0 JOIN (c AS r2 JOIN b AS r3 ON r2.fk = r3.fk)
        ON r0.id = r3.id AND r1.c0 = r2.id WHERE r3.uk = r1.c0
    """
    _assert_true(_verified(typed, [Query(id="q", sql=sql)], plans=1), statements=1)


@pytest.mark.slow
def test_random_statements(typed: Session, record_property: Callable[[str, object], None]) -> None:
    """Two to eight relations of every kind of join and subquery over columns of every built-in type."""
    queries = [Query(id=f"seed {seed}", sql=random_statement(seed)) for seed in range(SEED, SEED + STATEMENTS)]
    found = _verified(typed, queries)
    for name in ("statements", "sets", "counted", "executed", "joins", "wholes", "without_sql", "uncounted"):
        record_property(name, str(getattr(found, name)))
    _assert_true(found, statements=STATEMENTS)
    assert found.joins > 2 * STATEMENTS
    assert sum(found.without_sql.values()) < 0.2 * found.sets


@pytest.mark.slow
def test_cases(server: EmbeddedServer, shared_cases: Path, library_of: LibraryOf) -> None:
    """The cases beside the checkout, each a fault that was found with a real workload."""
    folder = shared_cases
    queries = [query for path in sorted(folder.glob("truth_*.sql")) for query in load_queries(path)]
    for session in _filled(library_of, server, "truth_cases", lambda session: _execute_each(session, (folder / "schema.sql").read_text())):
        found = _verified(session, queries, plans=3)
    _assert_true(found, statements=len(queries))
    assert found.wholes == len(queries)
    assert not found.without_sql


@pytest.mark.slow
def test_the_bundled_workload(newest_server: EmbeddedServer, library_of: LibraryOf) -> None:
    """Sets of the generated STATS queries, on data so small that PostgreSQL counts its joins."""
    dataset = StatsDataset(name="stats_tiny", scale=0.01)
    queries = dataset.workload().test[::12]
    for session in _filled(library_of, newest_server, "truth_stats", dataset.load):
        found = _verified(session, queries, plans=3)
    _assert_true(found, statements=len(queries))
    assert not found.without_sql


@pytest.mark.slow
def test_real_data(newest_server: EmbeddedServer, shared_data: Path, library_of: LibraryOf) -> None:
    """STATS-CEB on a sample of the real data."""
    folder = shared_data / "stats_tiny"
    queries = load_queries(folder / "test.sql")[::8]
    for session in _filled(library_of, newest_server, "truth_real", lambda session: load_dump(session, folder / "stats_tiny.sql")):
        found = _verified(session, queries, plans=3)
    _assert_true(found, statements=len(queries))
    assert not found.without_sql


@pytest.mark.slow
def test_tpch(newest_server: EmbeddedServer, library_of: LibraryOf) -> None:
    """TPC-H's 22 queries: subqueries, outer, semi and anti joins, OR over two relations (query 19)."""
    dataset = TpchDataset(scale=0.01)
    queries = dataset.workload().test
    for session in _filled(library_of, newest_server, "truth_tpch", dataset.load):
        found = _verified(session, queries, plans=2)
    _assert_true(found, statements=22)
    assert found.without_sql.keys() <= {"it depends on a row of the query around it"}


@pytest.mark.slow
def test_real_joins(newest_server: EmbeddedServer, shared_data: Path, library_of: LibraryOf) -> None:
    """The Join Order Benchmark on a sample of the real data: self-joins, LIKE, IN, OR, up to nine relations."""
    folder = shared_data / "imdb_tiny"
    queries = [Query(id=path.stem, sql=path.read_text(encoding="utf-8")) for path in sorted((folder / "queries").glob("*.sql"))[::4]]
    for session in _filled(library_of, newest_server, "truth_imdb", lambda session: load_dump(session, folder / "imdb_tiny.sql")):
        found = _verified(session, queries, plans=2)
    _assert_true(found, statements=len(queries))
    assert not found.without_sql

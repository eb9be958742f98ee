"""Labels are true under settings that change how PostgreSQL writes constants, under other rights, and for values that only look equal."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_pilotscope.labels import cardinalities, read_schema
from pytest_pilotscope.labels.verifying import Verification, verify
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.queries import Query
from tests.conftest import LibraryOf

_TABLES = """
    CREATE TABLE v (id integer PRIMARY KEY, fk integer, n integer, m integer, f double precision, z timestamptz, a text[], t text);
    INSERT INTO v SELECT i, 1 + i * 7 % 24, i - 8, 8 - i, (ARRAY[0.3, 0.1, 0.30000000000000004])[1 + i % 3],
        timestamptz '2020-03-29 00:30+00' + i % 4 * interval '1 hour', ARRAY['k' || i % 2, NULL], (ARRAY['a', 'b', E'b\\\\c'])[1 + i % 3]
        FROM generate_series(1, 24) AS i;
    CREATE TABLE owned (id integer, k integer); INSERT INTO owned SELECT i, i % 3 FROM generate_series(1, 20) AS i;
    CREATE VIEW of_owner AS SELECT * FROM owned; CREATE VIEW of_owner_kept WITH (security_barrier) AS SELECT * FROM owned WHERE k < 2;
    ALTER TABLE owned ENABLE ROW LEVEL SECURITY; CREATE POLICY even ON owned USING (id % 2 = 0)
"""
_VALUES = {
    "a number of all digits": "SELECT count(*) FROM v, v AS w WHERE v.f = 0.30000000000000004 AND v.id = w.fk",
    "a list of numbers of all digits": "SELECT count(*) FROM v, v AS w WHERE v.f IN (0.1, 0.30000000000000004) AND v.id = w.fk",
    "a number in an OR": "SELECT count(*) FROM v, v AS w WHERE v.id = w.fk AND (v.f = 0.3 AND w.n > 1 OR v.n = 3 AND w.f = 0.1)",
    "a time": "SELECT count(*) FROM v, v AS w WHERE v.z < timestamptz '2020-03-29 02:30+00' AND v.id = w.fk",
    "a list of times": "SELECT count(*) FROM v, v AS w WHERE v.z IN ('2020-03-29 00:30+00', '2020-03-29 01:30+00') AND v.id = w.fk",
    "an array with NULL": "SELECT count(*) FROM v, v AS w WHERE v.a = ARRAY['k1', NULL] AND v.id = w.fk",
    "a backslash": "SELECT count(*) FROM v, v AS w WHERE v.t = 'b' || chr(92) || 'c' AND v.id = w.fk",
    "a subquery": "SELECT count(*) FROM v WHERE v.id IN (SELECT w.fk FROM v AS w WHERE w.f < 0.30000000000000004 GROUP BY w.fk)",
    "a correlated subquery": "SELECT count(*) FROM v WHERE v.n > (SELECT avg(w.n) FROM v AS w WHERE w.f = v.f)",
}
_SIGNS = {
    "columns without a sign": "SELECT count(*) FROM v, v AS w WHERE v.n::oid < v.m::oid AND v.id = w.fk",
    "a list without a sign": "SELECT count(*) FROM v, v AS w WHERE v.n::oid IN ('4294967295', 3::oid) AND v.id = w.fk",
    "a key without a sign": "SELECT count(*) FROM v, v AS w WHERE v.n::oid = w.m::oid",
}
_ROWS_OF_OTHERS = {
    "own rows": "SELECT count(*) FROM owned, v WHERE owned.id = v.id AND owned.k = 1",
    "rows of the owner": "SELECT count(*) FROM of_owner, v WHERE of_owner.id = v.id",
    "some rows of the owner": "SELECT count(*) FROM of_owner_kept, v WHERE of_owner_kept.id = v.id",
    "rows of the owner in a union": "SELECT count(*) FROM (SELECT id FROM of_owner UNION ALL SELECT id FROM v) AS u, v WHERE u.id = v.id",
}


@pytest.fixture(scope="module")
def values(server: EmbeddedServer, module_scratch: Session, library_of: LibraryOf) -> Iterator[Session]:
    """A session with the library, two tables, and a role."""
    module_scratch.execute(f"LOAD '{library_of(server)}'")
    for statement in _TABLES.split(";"):
        module_scratch.execute(statement)
    module_scratch.execute("CREATE ROLE reader")
    yield module_scratch
    module_scratch.execute("DROP OWNED BY reader; DROP ROLE reader")


@contextmanager
def _set(session: Session, settings: Sequence[str]) -> Iterator[None]:
    for setting in settings:
        session.execute(f"SET {setting}")
    try:
        yield
    finally:
        for setting in settings:
            session.execute(f"RESET {setting.split()[0]}")


def _verified(session: Session, statements: dict[str, str], settings: Sequence[str] = ()) -> Verification:
    queries = [Query(id=name, sql=sql) for name, sql in statements.items()]
    with _set(session, settings), tempfile.TemporaryDirectory() as folder:
        found = cardinalities(session, queries, schema=read_schema(session), fingerprint="f", cache_dir=Path(folder))
        rows = {query_id: {subplan: label.rows for subplan, label in labels.items()} for query_id, labels in found.items()}
        verification = verify(session, queries, rows, plans=3)
    assert not verification.mismatches
    assert not verification.refused
    assert verification.counted + sum(verification.without_sql.values()) == verification.sets
    return verification


@pytest.mark.parametrize(
    "settings",
    [
        ("extra_float_digits = 0",),
        ("extra_float_digits = -10", "quote_all_identifiers = on"),
        ("DateStyle = 'SQL, DMY'", "TimeZone = 'Asia/Kolkata'"),
        ("DateStyle = 'Postgres'", "TimeZone = 'Australia/Sydney'", "standard_conforming_strings = off"),
        ("DateStyle = 'German'", "TimeZone = 'Europe/London'"),
    ],
    ids=" ".join,
)
def test_settings_of_the_session(values: Session, settings: Sequence[str]) -> None:
    """Constants are written with all digits and without abbreviations of time zones; names are as PostgreSQL quotes them."""
    found = _verified(values, _VALUES, settings)
    assert found.wholes == len(_VALUES)
    assert found.without_sql == {"it depends on a row of the query around it": 1}


def test_an_array_with_a_null_that_cannot_be_read_again(values: Session) -> None:
    """With array_nulls = off, the NULL of a constant would be read as a text."""
    found = _verified(values, _VALUES, ("array_nulls = off",))
    assert found.without_sql == {"it depends on a row of the query around it": 1, "an array with NULL, and array_nulls is off": 2}


def test_integers_that_are_compared_without_a_sign(values: Session) -> None:
    """-1 is the largest oid."""
    assert _verified(values, _SIGNS).wholes == len(_SIGNS)


def test_rows_that_only_the_owner_of_a_view_sees(values: Session) -> None:
    """The policies of a table are for who reads it: a view reads it as its owner, a count as the user."""
    values.execute("GRANT SELECT ON v, owned, of_owner, of_owner_kept TO reader")
    values.execute("GRANT ALL ON SCHEMA public TO reader")
    found = _verified(values, _ROWS_OF_OTHERS, ("ROLE reader",))
    assert found.without_sql == {"a table with row security that a view reads as its owner": 5, "UNION ALL of nested queries": 2}

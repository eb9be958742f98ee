"""Answers of two sides that read equal tables in another physical order, or tables of which one row is another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_pilotscope.errors import DifferentAnswer, StatementFailed
from pytest_pilotscope.measurement.clocks import explain_timed
from pytest_pilotscope.measurement.open_answers import openness_of
from pytest_pilotscope.measurement.protocol import Line, QueryMeasurement
from pytest_pilotscope.measurement.sides import PlainSide
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import QueryReport

EQUAL, DIFFERENT, BY_CHANCE = None, "different", "by chance"

TIES = "LIMIT takes some of the rows that its ORDER BY does not tell apart"
ANY = "LIMIT without ORDER BY takes any rows"
WRITTEN = "one of several equal values that are written differently stands for all"
CHOSEN = "takes one of several equal values that are written differently"
ROUNDED = "sum() of floating-point numbers depends on the order of its rows"


class Sessions(NamedTuple):
    """Sessions that see the same rows: as they are, in the reverse order, and with one row changed and one removed."""

    own: Session
    reversed: Session
    changed: Session


@pytest.fixture(scope="module")
def sessions(server: EmbeddedServer, module_scratch: Session) -> Iterator[Sessions]:
    """Make a table in three schemas; each session looks into one of them."""
    names = ("own", "reversed", "changed")
    for name, order in zip(names, ("i", "-i", "i"), strict=True):
        module_scratch.execute(
            f"CREATE SCHEMA {name}; CREATE TABLE {name}.t AS "
            "SELECT i AS id, i % 3 AS g, 0.1::float8 + i / 7.0::float8 AS f, (i / 7.0)::real AS r, "
            "i / 7.0 AS n, 'k' || i AS x, decode(lpad(to_hex(i), 4, '0'), 'hex') AS b, timestamp '2020-01-01' + i * interval '1 day' AS ts "
            f"FROM generate_series(1, 300) AS i ORDER BY {order}; ALTER TABLE {name}.t ADD PRIMARY KEY (id); "
            f"CREATE TABLE {name}.equal AS SELECT * FROM (VALUES (1, '1 day'::interval, 0::float8, 1.0, '{{1.0}}'::numeric[]), "
            f"(2, '24:00', '-0', 1.00, '{{1.00}}')) AS e (id, iv, z, n, a) ORDER BY {order.replace('i', 'id')}; "
            f"CREATE VIEW {name}.listed AS SELECT array_agg(id) AS ids FROM {name}.t; ANALYZE"
        )
    module_scratch.execute(
        "UPDATE changed.t SET g = 7, f = 99, r = 99, n = 99, x = 'z', b = 'zz', ts = '2030-01-01' WHERE id = 3; "
        "DELETE FROM changed.t WHERE id = 6"
    )
    made = [server.connect(module_scratch.database) for _ in names]
    for name, session in zip(names, made, strict=True):
        session.execute(
            f"SET search_path = {name}; SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off"
        )
    yield Sessions(*made)
    for session in made:
        session.close()


def compared(baseline: Session, other: Session, sql: str) -> str | None:
    """Measure a query on two sides; return the reason why they are not comparable, None for equal answers, or DIFFERENT."""
    written: list[Line] = []
    sides = [PlainSide(name="baseline", session=baseline), PlainSide(name="other", session=other)]
    measurement = QueryMeasurement(query=Query(id="q", sql=sql), sides=sides, timeout_ms=60_000, write=written.append, clock=explain_timed)
    try:
        measurement.run(0)
    except DifferentAnswer:
        return DIFFERENT
    own, found = (line.not_comparable for line in written if isinstance(line, QueryReport))
    assert own is None
    return found


def varies(name: str) -> str:
    """Return the reason of a function that is not the same in each execution."""
    return f"{name}() may have another value in each execution"


@pytest.mark.parametrize(
    ("sql", "reason", "changed"),
    [
        ("SELECT b FROM t", EQUAL, DIFFERENT),
        ("SELECT f, r, n, x, ts FROM t", EQUAL, DIFFERENT),
        ("SELECT sum(f), avg(f), corr(f, id), g FROM t GROUP BY g", EQUAL, DIFFERENT),
        ("SELECT ARRAY[sum(f), 1], point(sum(f), 0), (g, sum(f)), to_json(sum(f)) FROM t GROUP BY g", EQUAL, DIFFERENT),
        ("SELECT sum(f)::text FROM t", ROUNDED, ROUNDED),
        ("SELECT sum(sqrt(id)::real) FROM t", ROUNDED, DIFFERENT),
        ("SELECT sum(sin(id)) - sum(sin(id)) FILTER (WHERE g < 9) + max(n) FROM t", EQUAL, DIFFERENT),
        ("SELECT array_agg(id) FROM t", "array_agg() without ORDER BY", "array_agg() without ORDER BY"),
        ("SELECT array_agg(id), count(*) FROM t", "array_agg() without ORDER BY", DIFFERENT),
        ("SELECT g, array_agg(id) FROM t GROUP BY g", "array_agg() without ORDER BY", DIFFERENT),
        ("SELECT array_agg(f) FROM t", "array_agg() without ORDER BY", "array_agg() without ORDER BY"),
        ("SELECT array_agg(id ORDER BY id), array_agg(DISTINCT x), string_agg(x, ',' ORDER BY ts) FROM t", EQUAL, DIFFERENT),
        ("SELECT string_agg(x, ',' ORDER BY g) FROM t", "string_agg() in an order with ties", "string_agg() in an order with ties"),
        (
            "SELECT count(*), json_agg(t), jsonb_object_agg(x, id) FROM t",
            "json_agg() without ORDER BY; jsonb_object_agg() without ORDER BY",
            DIFFERENT,
        ),
        ("SELECT ids FROM listed", "array_agg() without ORDER BY", "array_agg() without ORDER BY"),
        ("SELECT x FROM t WHERE (SELECT (array_agg(id))[1] FROM t) = 1", "array_agg() without ORDER BY", "array_agg() without ORDER BY"),
        ("SELECT id FROM t ORDER BY g LIMIT 5", TIES, TIES),
        ("SELECT x FROM t LIMIT 5", ANY, ANY),
        ("SELECT x FROM t LIMIT 500", EQUAL, DIFFERENT),
        ("SELECT x FROM t OFFSET 295", ANY, DIFFERENT),
        ("SELECT g FROM t ORDER BY g LIMIT 200", EQUAL, DIFFERENT),
        ("SELECT id, x FROM t ORDER BY g, id LIMIT 5", EQUAL, DIFFERENT),
        ("SELECT a.x, b.x FROM t AS a JOIN t AS b ON a.id = b.id ORDER BY a.id LIMIT 5", EQUAL, DIFFERENT),
        ("SELECT a.x, b.x FROM t AS a LEFT JOIN t AS b ON a.id = b.id + 1 ORDER BY a.g LIMIT 5", TIES, TIES),
        ("SELECT id FROM t ORDER BY g FETCH FIRST 5 ROWS WITH TIES", EQUAL, DIFFERENT),
        ("SELECT count(*) FROM (SELECT * FROM t ORDER BY g LIMIT 150) AS s WHERE id < 150", TIES, TIES),
        ("SELECT * FROM (SELECT * FROM t ORDER BY g LIMIT 150) AS s WHERE id < 150", TIES, TIES),
        ("WITH s AS MATERIALIZED (SELECT * FROM t ORDER BY g, id LIMIT 5) SELECT x FROM s", EQUAL, DIFFERENT),
        ("SELECT g, sum(f) FROM t GROUP BY g ORDER BY sum(f), g LIMIT 2", EQUAL, DIFFERENT),
        ("SELECT x FROM t WHERE EXISTS (SELECT id FROM t LIMIT 1)", EQUAL, DIFFERENT),
        ("SELECT DISTINCT ON (g) g, x FROM t", "DISTINCT ON takes one of several rows that its ORDER BY does not tell apart", DIFFERENT),
        ("SELECT DISTINCT ON (g) g, x FROM t ORDER BY g, id", EQUAL, DIFFERENT),
        ("SELECT id, row_number() OVER (ORDER BY g) FROM t", "row_number() over an order with ties", DIFFERENT),
        ("SELECT id, row_number() OVER (ORDER BY g, id), rank() OVER (ORDER BY g) FROM t", EQUAL, DIFFERENT),
        ("SELECT id, lag(x) OVER (PARTITION BY g ORDER BY id) FROM t", EQUAL, DIFFERENT),
        ("SELECT ctid, id FROM t", "ctid is a place or a transaction, no data", DIFFERENT),
        ("SELECT now(), count(*) FROM t", varies("now"), DIFFERENT),
        ("SELECT current_timestamp, id FROM t", "CURRENT_TIMESTAMP and the like read the clock", DIFFERENT),
        ("SELECT clock_timestamp() > 'yesterday', gen_random_uuid(), id FROM t", f"{varies('clock_timestamp')}", DIFFERENT),
        ("SELECT sum(t.id * u.id) FROM t, t AS u WHERE random() < 0.5", varies("random"), varies("random")),
        ("SELECT id FROM t WHERE random() < 0.5", varies("random"), varies("random")),
        ("SELECT id, (SELECT random() WHERE t.id > 0) FROM t", varies("random"), DIFFERENT),
        ("SELECT id FROM t TABLESAMPLE bernoulli (50)", "TABLESAMPLE without REPEATABLE takes other rows in each execution", BY_CHANCE),
        ("SELECT random() < 2, id FROM t", EQUAL, DIFFERENT),
        ("SELECT id FROM t UNION SELECT (random() * 1e9)::int FROM t", varies("random"), varies("random")),
        ("SELECT id FROM t UNION ALL SELECT (random() * 1e9)::int FROM t", varies("random"), DIFFERENT),
        ("SELECT date '0044-03-15 BC', 'infinity'::date, 'NaN'::float8, '-infinity'::float8, 'NaN'::numeric FROM t", EQUAL, DIFFERENT),
        (
            "SELECT timestamp '294276-12-31', interval '-178000000 years', timetz '24:00:00-15:59', '-0'::float8, id FROM t",
            EQUAL,
            DIFFERENT,
        ),
        ("SELECT array(SELECT id FROM t)", "ARRAY(SELECT ...) without ORDER BY", "ARRAY(SELECT ...) without ORDER BY"),
        ("SELECT array(SELECT id FROM t ORDER BY g)", "ARRAY(SELECT ...) in an order with ties", "ARRAY(SELECT ...) in an order with ties"),
        ("SELECT array(SELECT id FROM t ORDER BY id), id FROM t", EQUAL, DIFFERENT),
        ("SELECT DISTINCT z FROM equal", EQUAL, EQUAL),
        ("SELECT max(z), array_agg(z ORDER BY z), count(*) FROM equal GROUP BY z", EQUAL, EQUAL),
        ("SELECT DISTINCT n FROM equal UNION SELECT n FROM equal", EQUAL, EQUAL),
        ("SELECT DISTINCT a, numrange(n, n + 1) FROM equal", EQUAL, EQUAL),
        ("SELECT n::text FROM (SELECT DISTINCT n FROM equal) AS s", WRITTEN, EQUAL),
        ("SELECT n || 'x', count(*) FROM equal GROUP BY n", WRITTEN, EQUAL),
        ("SELECT z::text FROM equal UNION SELECT z::text FROM equal", EQUAL, EQUAL),
        ("SELECT max(n)::text, count(n) FROM equal", f"max() {CHOSEN}", EQUAL),
        ("SELECT DISTINCT n::text FROM t", EQUAL, DIFFERENT),
        ("SELECT n, g FROM t GROUP BY n, g", EQUAL, DIFFERENT),
        ("SELECT max(n), min(f) FROM (SELECT DISTINCT n, f FROM t) AS s", EQUAL, DIFFERENT),
        ("SELECT x, sum(n)::text FROM t GROUP BY x", EQUAL, DIFFERENT),
        ("SELECT tableoid, id FROM t", "tableoid is a place or a transaction, no data", DIFFERENT),
        ("SELECT DISTINCT iv FROM equal", WRITTEN, EQUAL),
        ("SELECT iv, count(*) FROM equal GROUP BY iv", WRITTEN, EQUAL),
        ("SELECT iv FROM equal INTERSECT SELECT iv FROM equal", WRITTEN, EQUAL),
        ("SELECT max(iv) FROM equal", f"max() {CHOSEN}", EQUAL),
        ("SELECT mode() WITHIN GROUP (ORDER BY iv) FROM equal", f"mode() {CHOSEN}", EQUAL),
        (
            "SELECT string_agg(iv::text, ',' ORDER BY iv) FROM equal",
            "string_agg() in an order with ties",
            EQUAL,
        ),
        ("SELECT array_agg(DISTINCT iv) FROM equal", f"array_agg() without ORDER BY; array_agg() {CHOSEN}", EQUAL),
        ("SELECT sum(iv), id % 2 FROM equal GROUP BY 2", EQUAL, EQUAL),
        ("SELECT round(sum((id * 70000.7)::real)) FROM t", ROUNDED, DIFFERENT),
        ("SELECT sum((id * 70000.7)::real)::float8 FROM t", ROUNDED, DIFFERENT),
        ("SELECT CASE WHEN g = 0 THEN 1.0 ELSE 1.00 END, ''::text, NULL FROM t", EQUAL, DIFFERENT),
    ],
)
def test_answers(sessions: Sessions, sql: str, reason: str | None, changed: str | None) -> None:
    """Rows in another order are no difference, or not comparable where SQL leaves that open; another row is a difference all the same."""
    found = compared(sessions.own, sessions.reversed, sql)
    assert found == reason or (reason is not None and found is not None and found.startswith(reason))
    assert compared(sessions.own, sessions.own, sql) in (EQUAL, found or reason)
    if changed != BY_CHANCE:
        other = compared(sessions.own, sessions.changed, sql)
        assert other == changed or (changed is not None and other is not None and other.startswith(changed))


def test_a_key_has_no_nulls(newest_scratch: Session) -> None:
    """A unique index takes any number of NULLs, also while a NOT NULL constraint does not hold for all rows yet (PostgreSQL 18)."""
    newest_scratch.execute("CREATE TABLE t (x int UNIQUE, y int)")
    states = [("SELECT 1", True), ("ALTER TABLE t ALTER x SET NOT NULL", False)]
    if newest_scratch.server_version >= 180_000:
        states.insert(1, ("ALTER TABLE t ADD CONSTRAINT later NOT NULL x NOT VALID", True))
    for change, is_open in states:
        newest_scratch.execute(change)
        assert bool(openness_of(newest_scratch, "SELECT y FROM t ORDER BY x LIMIT 2").all) == is_open, change


def test_a_collation_in_which_different_texts_are_equal(server: EmbeddedServer, scratch: Session) -> None:
    """DISTINCT may return either of them."""
    try:
        scratch.execute("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except StatementFailed as error:
        pytest.skip(f"no collation that ignores case: {error.reason}")
    with server.connect(scratch.database) as other:
        for session, schema, rows in ((scratch, "own", "('a'), ('A')"), (other, "reversed", "('A'), ('a')")):
            session.execute(
                f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.c (c text COLLATE public.loose); INSERT INTO {schema}.c VALUES {rows}; "
                f"SET search_path = {schema}"
            )
        assert compared(scratch, other, "SELECT DISTINCT c FROM c") == WRITTEN
        assert compared(scratch, other, "SELECT c, count(*) FROM c GROUP BY c") == WRITTEN
        assert compared(scratch, other, "SELECT string_agg(c, ',' ORDER BY c) FROM c") == "string_agg() in an order with ties"
        assert compared(scratch, other, "SELECT c FROM c") is EQUAL


def test_cases(server: EmbeddedServer, scratch: Session, shared_cases: Path) -> None:
    """The statements of the cases are equal on equal sides, or not comparable because of the time."""
    for statement in (shared_cases / "schema.sql").read_text(encoding="utf-8").split(";"):
        if statement.strip() and "VACUUM" not in statement:
            scratch.execute(statement)
    lines = (shared_cases / "answers.sql").read_text(encoding="utf-8").splitlines()
    cases = dict(line.split("#####") for line in lines)
    with server.connect(scratch.database) as other:
        found = {name: compared(scratch, other, sql) for name, sql in cases.items()}
    assert found == dict.fromkeys(cases) | {"now": varies("now")}

"""A run says what a server or a role cannot do before anything is generated, in the words of the doctor."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from psycopg2.extensions import parse_dsn

from pytest_pilotscope.algorithms.table_samples import draw
from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.commands.doctor import Check, check_postgresql
from pytest_pilotscope.errors import DatasetError, UsageError, WorkloadError
from pytest_pilotscope.labels import SessionSource
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.postgres.connecting import dsn_of
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.fingerprint import content_fingerprint
from pytest_pilotscope.postgres.given import GivenServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.chosen_queries import completed
from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database, steering_libraries
from pytest_pilotscope.provision.obstacles import no_library, unusable_relations
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.runs.header import restrictions
from tests.projects import BENCHMARK

_names = itertools.count()

MIXED = """
CREATE TABLE orders (id int PRIMARY KEY, total int);
CREATE TABLE people (id int PRIMARY KEY, name text, password text);
CREATE TABLE salaries (id int PRIMARY KEY REFERENCES people, amount int, paid int REFERENCES orders);
CREATE SCHEMA private;
CREATE TABLE private.notes (id int);
CREATE MATERIALIZED VIEW sums AS SELECT sum(total) FROM orders WITH NO DATA;
CREATE MATERIALIZED VIEW counts AS SELECT count(*) FROM orders;
INSERT INTO orders SELECT i, i % 7 FROM generate_series(1, 300) i;
INSERT INTO people SELECT i, 'n' || i, 'secret' FROM generate_series(1, 300) i;
INSERT INTO salaries SELECT i, i, i FROM generate_series(2, 300) i;
GRANT SELECT ON orders, sums, counts, private.notes TO shop_reader;
GRANT SELECT (id, name) ON people TO shop_reader;
ANALYZE;
"""
UNREADABLE = (
    "role 'shop_reader' may not read private.notes (schema private), public.people (column password), public.salaries; grant it SELECT, "
    "and USAGE of the schema, where a query needs them, other queries go on without them"
)
GRANT = "grant SELECT to role 'shop_reader', or leave this query out: {sql}"
UNPOPULATED = (
    "not populated, so no query can read it: materialized view public.sums; run REFRESH MATERIALIZED VIEW where a query needs it, other "
    "queries go on without it"
)


@dataclass(frozen=True)
class Mixed:
    """A database that a role may read in part."""

    administrator: Session
    dsn: Dsn


@pytest.fixture
def mixed(newest_server: EmbeddedServer) -> Iterator[Mixed]:
    """Give such a database on a server without the library."""
    name = f"mixed_{next(_names)}"
    with newest_server.connect() as administrator:
        if not administrator.execute("SELECT 1 FROM pg_roles WHERE rolname = 'shop_reader'"):
            administrator.execute("CREATE ROLE shop_reader LOGIN")
        administrator.execute(f"CREATE DATABASE {name}")
        with newest_server.connect(name) as session:
            session.execute(MIXED)
            yield Mixed(session, dsn_of(host=str(newest_server._sockets), port=5432, user="shop_reader", dbname=name))
        administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_schema_is_what_the_role_can_use(mixed: Mixed) -> None:
    """Tables, columns and views that no query can read are not there; what can be read in part is there in part."""
    with GivenServer(mixed.dsn).connect() as session:
        assert {table: list(columns) for table, columns in read_schema(session).items()} == {
            "counts": ["count"],
            "orders": ["id", "total"],
            "people": ["id", "name"],
        }
        assert list(unusable_relations(session)) == [UNREADABLE, UNPOPULATED]
    assert list(unusable_relations(mixed.administrator)) == [UNPOPULATED]


def test_the_fingerprint_is_of_what_can_be_read(mixed: Mixed) -> None:
    """Rows that the role may read change it, other rows do not, and other columns do."""
    with GivenServer(mixed.dsn).connect() as session:
        before = content_fingerprint(session)
        mixed.administrator.execute("INSERT INTO salaries VALUES (1, 1, NULL)")
        assert content_fingerprint(session) == before
        mixed.administrator.execute("UPDATE orders SET total = 9 WHERE id = 1")
        changed = content_fingerprint(session)
        mixed.administrator.execute("ALTER TABLE salaries ADD COLUMN c int")
        assert len({before, changed, content_fingerprint(session)}) == 3


def test_training_queries_are_made_without_them(mixed: Mixed) -> None:
    """The generator reads no table that it may not, and no view without rows."""
    workload = Workload(dataset="mixed", test=(Query(id="q1", sql="SELECT count(*) FROM orders WHERE total = 1", place="mine.sql:1"),))
    with open_database(PostgreSQLConfig(None, dsn=mixed.dsn)) as database:
        made = completed(workload, database, Settings(generate_training=5), learns=True, show_progress=silent)
    assert len(made.train) == 5
    assert not re.search("salaries|sums|notes|password", " ".join(query.sql for query in made.train))


def test_samples_are_drawn_of_columns(mixed: Mixed) -> None:
    """A model samples the columns that the role may read, also of a table with other columns; the same rows for the same seed."""
    with GivenServer(mixed.dsn).connect() as session:
        schema = read_schema(session)
        one, same, other = (draw(session, schema, seed=seed, rows=20)["people"].texts for seed in (1, 1, 2))
    assert one == same != other
    assert [len(values) for values in one.values()] == [20, 20]
    assert all(name == f"n{number}" for number, name in zip(one["id"], one["name"], strict=True))


def test_rows_are_told_apart_by_columns_that_can_be_read(mixed: Mixed) -> None:
    """Labels of a table are checked against the columns that the role may read."""
    with GivenServer(mixed.dsn).connect() as session:
        before = SessionSource(session).digest("public.people")
        mixed.administrator.execute("UPDATE people SET password = 'other' WHERE id = 300")
        assert SessionSource(session).digest("public.people") == before
        mixed.administrator.execute("UPDATE people SET name = 'other' WHERE id = 300")
        assert SessionSource(session).digest("public.people") != before


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        (
            "SELECT count(*) FROM salaries",
            f"permission denied for table salaries; {GRANT}",
        ),
        (
            "SELECT password FROM people",
            f"permission denied for table people; {GRANT}",
        ),
        (
            "SELECT * FROM orders WHERE total > (SELECT sum FROM sums)",
            "materialized view public.sums has not been populated; run REFRESH MATERIALIZED VIEW public.sums, or leave "
            "this query out: {sql}",
        ),
        ("SELECT nothing FROM orders", 'column "nothing" does not exist; mend this query: {sql}'),
        ("SELECT 1 FROM nowhere", 'relation "nowhere" does not exist; mend this query: {sql}'),
        (
            "SELECT count(*) FROM private.notes",
            "permission denied for schema private; grant USAGE of the schema, and SELECT, to role 'shop_reader', or leave this query out: "
            "{sql}",
        ),
        (
            "SELECT count(*) FROM notes",
            'relation "notes" does not exist; it is in schema private, '
            "which role 'shop_reader' may not use: grant it USAGE of the schema, and SELECT, or mend this query: {sql}",
        ),
    ],
)
def test_a_query_that_needs_one(mixed: Mixed, sql: str, problem: str) -> None:
    """It is refused with file, line and what helps; a query that needs none of them is not."""
    good = Query(id="q1", sql="SELECT count(*) FROM orders, counts, people WHERE name = 'n1'", place="mine.sql:1")
    workload = Workload(dataset="mixed", test=(good, Query(id="q2", sql=sql, place="mine.sql:2")))
    settings = Settings(generate_training=0)
    with open_database(PostgreSQLConfig(None, dsn=mixed.dsn)) as database:
        completed(replace(workload, test=(good,)), database, settings, learns=True, show_progress=silent)
        with pytest.raises(WorkloadError, match=f"^{re.escape(f'mine.sql:2: {problem.format(sql=sql)}')}$"):
            completed(workload, database, settings, learns=True, show_progress=silent)


@pytest.mark.parametrize("url", [True, False])
def test_a_table_outside_of_the_search_path(mixed: Mixed, url: bool) -> None:
    """The message has the schema, and a connection string that finds the table as it is pasted into a shell."""
    mixed.administrator.execute('CREATE SCHEMA "Sales 1"; GRANT USAGE ON SCHEMA "Sales 1" TO shop_reader')
    mixed.administrator.execute('CREATE TABLE "Sales 1".sold (id int); GRANT SELECT ON "Sales 1".sold TO shop_reader')
    keywords = parse_dsn(mixed.dsn.reveal())
    address = Dsn(f"postgresql://{keywords['user']}@/{keywords['dbname']}?host={keywords['host']}&port={keywords['port']}")
    workload = Workload(dataset="mixed", test=(Query(id="q1", sql="SELECT count(*) FROM sold", place="mine.sql:1"),))
    with open_database(PostgreSQLConfig(None, dsn=address if url else mixed.dsn)) as database, pytest.raises(WorkloadError) as refused:
        completed(workload, database, Settings(generate_training=0), learns=True, show_progress=silent)
    told = r'mine\.sql:1: relation "sold" does not exist; it is in schema Sales 1, outside of the search path: measure with (.*), or mend'
    pasted = re.match(told, str(refused.value))
    assert pasted is not None
    _, mended = shlex.split(pasted[1])
    with open_database(PostgreSQLConfig(None, dsn=Dsn(mended))) as database:
        completed(workload, database, Settings(generate_training=0), learns=True, show_progress=silent)
    with GivenServer(Dsn(mended)).connect() as session:
        assert session.scalar("SELECT current_schemas(false)::text[]") == ["Sales 1", "public"]


def test_no_table_for_training_queries(newest_server: EmbeddedServer, mixed: Mixed) -> None:
    """A database without tables in sight: the message says where they are."""
    mixed.administrator.execute(
        "DROP MATERIALIZED VIEW sums, counts; ALTER TABLE orders SET SCHEMA private; GRANT USAGE ON SCHEMA private TO shop_reader"
    )
    mixed.administrator.execute("ALTER TABLE people SET SCHEMA private; ALTER TABLE salaries SET SCHEMA private")
    workload = Workload(dataset="mixed", test=(Query(id="q1", sql="SELECT count(*) FROM private.orders"),))
    with open_database(PostgreSQLConfig(None, dsn=mixed.dsn)) as database, pytest.raises(DatasetError) as refused:
        completed(workload, database, Settings(generate_training=5), learns=True, show_progress=silent)
    assert str(refused.value) == (
        f"there is no table to make training queries of for mixed: none is in the search path of database '{mixed.dsn.database}'; it has "
        f"tables in schema private, outside of the search path: measure with {mixed.dsn.with_search_path('private,public')}, or make none "
        "(--generate-training 0)"
    )


def test_index_selection_is_refused_where_nothing_answers_it(mixed: Mixed, newest_server: EmbeddedServer) -> None:
    """Neither HypoPG nor the library: said in the doctor's words before anything is generated; a model that is loaded needs neither."""
    dsn = dsn_of(host=str(newest_server._sockets), port=5432, user=mixed.administrator.parameters["user"], dbname=mixed.dsn.database or "")
    checks = {check.name: check for check in check_postgresql(PostgreSQLConfig(None, dsn=dsn))}
    with open_database(PostgreSQLConfig(None, dsn=dsn, allow_changes=("databases",))) as database:
        with pytest.raises(UsageError, match=f"^{re.escape(checks['HypoPG'].found)}$"):
            list(restrictions(["index"], builtin_registry(), database, trains=True))
        assert list(restrictions(["index"], builtin_registry(), database, trains=False)) == [UNPOPULATED]


def test_options_that_are_there_are_kept() -> None:
    """A connection string with options of its own is not repeated: libpq takes the last ones only."""
    said = Dsn("postgresql://me@db.example/shop?options=-cgeqo%3Doff").with_search_path("sales,public")
    assert said == "--server with -csearch_path=sales,public among its options"
    assert Dsn("postgresql://me:secret@db.example/shop").with_search_path("sales") == (
        "--server 'postgresql://me:***@db.example/shop?options=-csearch_path%3Dsales'"
    )


def test_the_doctor_says_it(mixed: Mixed) -> None:
    """Rights, tables and the library, each with its remedy."""
    shown = ("rights", "tables", "steering library")
    checks = [check for check in check_postgresql(PostgreSQLConfig(None, dsn=mixed.dsn)) if check.name in shown]
    problem = no_library(GivenServer(mixed.dsn), None, "algorithms") or ""
    assert checks == [
        Check(name="steering library", state="FAULT", found=problem.split("; ")[0], remedy=problem.split("; ")[1]),
        Check(
            name="rights",
            state="none",
            found="role 'shop_reader' may not create databases there: have a superuser run ALTER ROLE shop_reader CREATEDB, and nobody has "
            "allowed that: add --allow-changes databases",
        ),
        Check(
            name="rights",
            state="none",
            found="role 'shop_reader' may not change settings of the whole server there, and nobody has allowed that: add --allow-changes "
            "settings",
        ),
        *(Check(name="tables", state="none", found=line.split("; ")[0], remedy=line.split("; ")[1]) for line in (UNREADABLE, UNPOPULATED)),
    ]


def test_words_for_a_missing_library(mixed: Mixed, newest_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot steer which database, and the two ways out; a server of ours says why it has none."""
    server = GivenServer(mixed.dsn)
    name = server.database
    ways = f"load it there: pilotscope install-library '{mixed.dsn}', or clone the database and measure the clone: "
    ways += f"pilotscope clone '{mixed.dsn}' -o {name}"
    assert no_library(server, name, "mscn, lero") == f"{mixed.dsn} has no pilotscope library, so mscn, lero cannot steer it; {ways}"
    assert no_library(server, "postgres", "mscn") == (
        f"database 'postgres' on {mixed.dsn} has no pilotscope library, so mscn cannot steer it; {ways}"
    )
    monkeypatch.setattr("pytest_pilotscope.postgres.extension.build.find_compiler", _no_compiler)
    assert no_library(newest_server, None, "mscn") == "mscn cannot steer this server: no compiler; pip install ziglang"
    with EmbeddedServer(newest_server.binaries, libraries=_libraries(newest_server, monkeypatch)) as steerable:
        assert no_library(steerable, None, "mscn") is None


def _no_compiler() -> None:
    from pytest_pilotscope.errors import MissingExtension

    raise MissingExtension("no compiler; pip install ziglang")


def _libraries(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, ...]:
    monkeypatch.undo()
    return steering_libraries(server.binaries.bindir)


def test_a_run_is_refused_before_anything_is_generated(mixed: Mixed, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 4 with the doctor's words, no record and no training queries; a baseline is measured, and told what it cannot read."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setattr("pytest_pilotscope.datasets.generated.generate_training", lambda *_, **__: pytest.fail("generated"))
    pytester.makepyfile(test_workload=BENCHMARK)
    pytester.makefile(".sql", mine="SELECT count(*) FROM orders;")
    given = ["--server", mixed.dsn.reveal(), "--db", mixed.dsn.database or "", "--queries-dir", "mine.sql", "--no-mlflow", "--rounds", "1"]
    result = pytester.runpytest_inprocess(*given, "--algo", "baseline,oracle,trees")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    problem = no_library(GivenServer(mixed.dsn), None, "oracle, trees")
    assert [line for line in result.stderr.lines if line] == [f"ERROR: {problem}"]
    assert not (pytester.path / "results").exists()
    result = pytester.runpytest_inprocess(*given, "--algo", "baseline")
    assert result.ret == 0
    assert [line for line in result.stdout.lines if "shop_reader" in line or "not populated" in line] == [
        line for line in result.stdout.lines if line in (f"pilotscope: {UNREADABLE}", f"pilotscope: {UNPOPULATED}")
    ]
    result.stdout.fnmatch_lines([f"pilotscope: {UNREADABLE}", f"pilotscope: {UNPOPULATED}"])


@pytest.mark.slow
def test_whole_runs_of_a_role_that_may_read_a_part(newest_server: EmbeddedServer, pytester: pytest.Pytester, cache: Path) -> None:
    """Generating, labelling, sampling, training and measuring touch nothing that the role may not read, twice with the same labels."""
    pytester.makepyfile(test_workload=BENCHMARK)
    pytester.makefile(".sql", mine="SELECT count(*) FROM orders o, people p WHERE o.id = p.id AND o.total > 2 AND p.name > 'n2';")
    with EmbeddedServer(newest_server.binaries, libraries=steering_libraries(newest_server.binaries.bindir)) as server:
        with server.connect() as administrator:
            administrator.execute("CREATE ROLE shop_reader LOGIN")
            administrator.execute("CREATE DATABASE shop")
            with server.connect("shop") as session:
                session.execute(MIXED)
        dsn = dsn_of(host=str(server._sockets), port=5432, user="shop_reader", dbname="shop").reveal()
        given = ["--server", dsn, "--queries-dir", "mine.sql", "--no-mlflow", "--rounds", "1", "--generate-training", "15"]
        for _ in range(2):
            result = pytester.runpytest_subprocess("test_workload.py", *given, "--algo", "oracle,trees,sample,bound")
            assert result.ret == 0, result.stdout.str()
            assert "permission denied" not in result.stdout.str()

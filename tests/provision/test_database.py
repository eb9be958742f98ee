"""From what the user asked for to a database that can be measured."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import DatasetError, MissingExtension, MissingServer, ServerError, StatementFailed, UnknownName, UsageError
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.places.account import server_account
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.places.folders import server_folder
from pytest_pilotscope.postgres import binaries as binaries_module
from pytest_pilotscope.postgres.connecting import dsn_of
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.extension import build
from pytest_pilotscope.postgres.fingerprint import fingerprint, statistics_fingerprint
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, dataset_of, open_database, steering_libraries
from pytest_pilotscope.provision.loading import loaded_name, vacuum_analyze
from tests.toy import Toy

JOIN = "SELECT count(*) FROM a JOIN b ON b.a = a.id"


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Open the toy dataset on the default PostgreSQL."""
    with open_database(PostgreSQLConfig("toy"), Toy()) as opened:
        yield opened


def test_config_hides_the_password() -> None:
    """Neither `repr`, nor fields, nor `asdict` show it, whichever way the DSN came in."""
    for config in (PostgreSQLConfig(dsn="postgresql://me:hunter2@db/x"), PostgreSQLConfig(server="host=db password=hunter2")):
        assert "hunter2" not in repr(config) + repr(dataclasses.asdict(config))
        assert isinstance(config.server, Dsn)
        assert config.server == config.dsn


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"server": "embeded"},
            "unknown server 'embeded'; known: auto, embedded, container, or a connection string postgresql://user@host:port/database",
        ),
        (
            {"db": None},
            "a server that is started here has no database of its own; name a dataset with --db, or give a DSN with --server",
        ),
        (
            {"server": "postgresql://me:hunter2@db/x", "settings": {"work_mem": "8MB"}},
            "the server postgresql://me:***@db/x was not started here, so it cannot be restarted with work_mem",
        ),
        (
            {"server": "container", "pg_bindir": Path("/x")},
            "--pg-bindir has no effect on the server 'container'; leave one of the two out",
        ),
        (
            {"server": "postgresql://me:hunter2@db/x", "pg_version": 16},
            "--pg-version has no effect on the server 'postgresql://me:***@db/x'; leave one of the two out",
        ),
        ({"scale": "0.01"}, "scale: expected 0.01, got '0.01'"),
        ({"scale": 0}, "scale: expected a number above 0, got '0'"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got '-1'"),
        ({"server": "container", "container_cpus": 0}, "container_cpus: expected a number of at least 0.01, got '0'"),
    ],
)
def test_what_does_not_go_together(arguments: dict[str, Any], expected: str) -> None:
    """Nothing is started for a configuration that makes no sense."""
    with pytest.raises(UsageError, match=f"^{re.escape(expected)}$"):
        PostgreSQLConfig(**arguments)


def test_allowed_changes_in_python() -> None:
    """Names, or one text of them; the command line's check; nothing is allowed by default."""
    for value in (("databases", "settings"), ["databases", "settings"], "databases,settings"):
        assert PostgreSQLConfig(allow_changes=value).allow_changes == ("databases", "settings")  # type: ignore[arg-type]
    assert PostgreSQLConfig().allow_changes == ()
    with pytest.raises(UsageError, match=r"^allow_changes: expected databases or settings, got 'all'$"):
        PostgreSQLConfig(allow_changes=("databases", "all"))


def test_config_from_settings() -> None:
    """The command line's choices, for one dataset."""
    settings = Settings(server="embedded", pg_bindir=Path("/x"), pg_version=16, scale=0.5, seed=7, allow_changes=("settings",))
    assert PostgreSQLConfig.from_settings(settings, db="stats_small") == PostgreSQLConfig(
        "stats_small", server="embedded", pg_bindir=Path("/x"), pg_version=16, scale=0.5, seed=7, allow_changes=("settings",)
    )


def test_an_unknown_dataset() -> None:
    """It is refused before a server is started."""
    with (
        pytest.raises(UnknownName, match=r"^unknown dataset 'stats_tinny'; did you mean 'stats_tiny'"),
        open_database(PostgreSQLConfig("stats_tinny")),
    ):
        pass


def test_a_database_of_ones_own_needs_its_server_or_dump() -> None:
    """Its name alone is no dataset, and the message says what is missing."""
    known = ", ".join(sorted(entry.name for entry in builtin_registry().datasets))
    message = (
        f"unknown dataset 'shop'; known: {known}; name a database of yours with --server postgresql://HOST/shop, or its dump with --dump"
    )
    with pytest.raises(UnknownName, match=f"^{re.escape(message)}$"):
        dataset_of(PostgreSQLConfig("shop"))


def test_an_open_database(database: Database) -> None:
    """The data is there, analyzed, and everything about it is known."""
    with database.session() as session:
        assert session.scalar(JOIN) == 100
        assert session.scalar("SELECT reltuples FROM pg_class WHERE relname = 'a'") == 100
        assert session.database == database.name == "pilotscope_toy"
        assert fingerprint(session) == database.fingerprint
    version = re.escape(database.report.version)
    flags = f"no assertions, optimized; statistics {database.fingerprint.statistics}"
    assert re.fullmatch(rf"embedded PostgreSQL {version} \(.+, first choice of --server auto\); {flags}", database.report.header())


def test_a_copy_is_made_beside_open_sessions(database: Database) -> None:
    """It is the data as it was loaded, with the same fingerprint; changes stay in it, and it is dropped on leaving."""
    with database.session() as session:
        session.execute("CREATE TABLE mess (i int)")
        with database.copy() as copy:
            assert copy.name != database.name
            assert copy.fingerprint == database.fingerprint
            with copy.session() as other:
                assert other.scalar("SELECT to_regclass('mess')") is None
                other.execute("DROP TABLE b")
            with copy.copy() as another, another.session() as third:
                assert third.scalar(JOIN) == 100
        assert session.scalar(JOIN) == 100
        assert session.scalar("SELECT count(*) FROM pg_database WHERE datname = %s", (copy.name,)) == 0
        session.execute("DROP TABLE mess")


def test_a_twin_is_another_server_with_the_same_data(database: Database) -> None:
    """It has settings of its own and can be restarted beside open sessions; a server that is not ours has none."""
    with database.session() as session, database.twin({"work_mem": "7MB"}) as twin:
        assert twin.server is not database.server
        assert (twin.fingerprint.data, twin.fingerprint.statistics) == (database.fingerprint.data, database.fingerprint.statistics)
        with twin.session() as other:
            assert other.scalar("SHOW work_mem") == "7MB"
        twin.server.restart({"shared_buffers": "16MB"})
        with twin.session() as other:
            assert other.execute("SELECT current_setting('shared_buffers'), current_setting('work_mem')") == [("16MB", "4MB")]
        assert session.scalar("SHOW work_mem") == "4MB"
    expected = "the server was not started here, so there is no second one like it; use --server embedded or container"
    with pytest.raises(UsageError, match=f"^{re.escape(expected)}$"), dataclasses.replace(database, config=None).twin():
        pass


def test_settings_of_sessions(database: Database) -> None:
    """Sessions can start with settings of their own; a value that PostgreSQL does not take is an error at the door."""
    tuned = dataclasses.replace(database, session_settings={"work_mem": "1234"})
    with tuned.session() as session, database.session() as plain:
        assert (session.scalar("SHOW work_mem"), plain.scalar("SHOW work_mem")) == ("1234kB", "4MB")
        broken = dataclasses.replace(database, session_settings={"work_mem": "1"})
        with pytest.raises(StatementFailed, match=r"^statement failed: 1 kB is outside the valid range for parameter \"work_mem\""):
            broken.session()


def test_the_second_time_nothing_is_loaded(database: Database) -> None:
    """The prepared data directory is found by the dataset's key."""

    def fail() -> None:
        raise AssertionError("loaded again")

    with open_database(PostgreSQLConfig("toy"), Toy(during=fail)) as opened:
        assert opened.fingerprint == database.fingerprint


def test_config_session(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    """`with config.session()` is all it takes, and the steering library is there."""
    monkeypatch.setattr("pytest_pilotscope.provision.database.dataset_of", lambda config: Toy())
    assert isinstance(database.server, EmbeddedServer)
    if not steering_libraries(database.server.binaries.bindir):
        pytest.skip("no compiler or no server headers to build the steering library with")
    with PostgreSQLConfig("toy").session() as session:
        estimated = session.subplans(JOIN)
        assert set(estimated) == {frozenset({"a"}), frozenset({"b"}), frozenset({"a", "b"})}
        with session.cardinalities({frozenset({"a", "b"}): 5_000_000}):
            assert session.subplans(JOIN)[frozenset({"a", "b"})] == 5_000_000


@pytest.mark.slow
def test_settings_are_those_of_the_server() -> None:
    """The settings of the configuration are in force and in the fingerprint."""
    with open_database(PostgreSQLConfig("toy", settings={"work_mem": "9MB"}), Toy()) as opened, opened.session() as session:
        assert session.scalar("SHOW work_mem") == "9MB"
        assert opened.report.settings["work_mem"] == "9MB"


def test_a_failed_load_leaves_nothing(cache: Path) -> None:
    """The dataset's own exception arrives; neither server nor half-made data directory stays."""
    assert cache.is_dir()

    def fail() -> None:
        raise ValueError("no data today")

    with pytest.raises(ValueError, match=r"^no data today$"), open_database(PostgreSQLConfig("toy"), Toy(during=fail)):
        pass
    account = server_account()
    assert list(server_folder(account, "servers").iterdir()) == []
    assert [path.name for path in server_folder(account, "templates").iterdir() if path.name.startswith("toy") and path.is_dir()] == []


@pytest.mark.parametrize("size_mb", [45, 110])
def test_a_full_disk(size_mb: int, cache: Path) -> None:
    """A disk that fills during initdb or while rows are loaded gives the same message, and nothing half-made stays."""
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", cache], capture_output=True, check=False).returncode
    ):
        pytest.skip("only root can mount the small file system that this needs")
    try:
        cache.chmod(0o755)
        account = server_account()
        expected = (
            rf"^cannot prepare dataset 'toy' in {re.escape(str(server_folder(account, 'templates')))}: the disk is full; "
            r"\d+ bytes were free and it needs more; make room, or set PILOTSCOPE_CACHE to a folder on a larger disk$"
        )
        with pytest.raises(DatasetError, match=expected), open_database(PostgreSQLConfig("toy"), Toy(rows=400_000)):
            pass
        assert list(server_folder(account, "servers").iterdir()) == []
        folders = {path.name.split("-")[0] for path in server_folder(account, "templates").iterdir() if path.is_dir()}
        assert folders <= {"empty"}
    finally:
        subprocess.run(["umount", cache], check=True)


@pytest.fixture
def no_binaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set up a machine without PostgreSQL and without Docker."""
    monkeypatch.setattr(binaries_module, "_wheel_bindirs", lambda: iter(()))
    monkeypatch.setattr(binaries_module, "_system_bindirs", list)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")


@pytest.mark.usefixtures("no_binaries")
def test_nothing_to_start() -> None:
    """`auto` says what was looked for, in order, and what to install; `embedded` looks no further."""
    pytest.importorskip("docker")
    missing = "no PostgreSQL on this machine; install one with: pip install 'pytest-pilotscope[embedded]'"
    expected = (
        rf"^nothing to start: {re.escape(missing)}; and no container: "
        r"no Docker daemon answers at unix:///nonexistent/docker\.sock \(.*\); start Docker, or set DOCKER_HOST$"
    )
    with pytest.raises(MissingServer, match=expected), open_database(PostgreSQLConfig("toy"), Toy()):
        pass
    with (
        pytest.raises(MissingServer, match=f"^{re.escape(missing)}$"),
        open_database(PostgreSQLConfig("toy", server="embedded"), Toy()),
    ):
        pass


def test_without_the_steering_library(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A server whose library cannot be built runs without it, and the log says why."""

    def refuse(bindir: Path) -> Path:
        raise MissingExtension(f"no headers in {bindir}")

    monkeypatch.setattr(build, "build_library", refuse)
    assert steering_libraries(Path("/x")) == ()
    assert caplog.messages == ["no headers in /x; only algorithms that do not steer can be measured"]


def _dsn(server: EmbeddedServer, database: str) -> str:
    return dsn_of(host=str(server._sockets), port=5432, user="postgres", password="hunter2", dbname=database).reveal()  # noqa: S106


def test_a_given_server_with_a_dataset(newest_server: EmbeddedServer) -> None:
    """The dataset goes into a database of its own, work is done in a copy of it, and only the former stays."""
    with newest_server.connect() as administrator:
        before = {row[0] for row in administrator.execute("SELECT datname FROM pg_database")}
        config = PostgreSQLConfig("toy", server=_dsn(newest_server, "postgres"), allow_changes=("databases",))
        with open_database(config, Toy()) as opened:
            assert opened.name.startswith(f"{loaded_name(Toy())}_")
            assert opened.report.header().startswith("given PostgreSQL ")
            with opened.session() as session, opened.copy() as copy, copy.session() as other:
                assert session.scalar(JOIN) == other.scalar(JOIN) == 100
        assert {row[0] for row in administrator.execute("SELECT datname FROM pg_database")} - before <= {loaded_name(Toy())}


def test_a_database_of_the_users_own(newest_server: EmbeddedServer) -> None:
    """Without a dataset the DSN's database is measured as it is, and nothing is made or changed."""
    with newest_server.connect() as administrator:
        administrator.execute("CREATE DATABASE of_my_own")
        with newest_server.connect("of_my_own") as session:
            session.execute("CREATE TABLE mine AS SELECT 1 AS i")
        with open_database(PostgreSQLConfig(None, dsn=_dsn(newest_server, "of_my_own"), allow_changes=("databases",))) as opened:
            assert (opened.name, opened.dataset, opened.copy_source) == ("of_my_own", None, None)
            with opened.session() as session:
                assert session.scalar("SELECT i FROM mine") == 1
            with opened.copy() as copy, copy.session() as session:
                assert copy.name.startswith("pilotscope_of_my_own_")
                session.execute("DROP TABLE mine")
        with newest_server.connect("of_my_own") as session:
            assert session.scalar("SELECT i FROM mine") == 1
        administrator.execute("DROP DATABASE of_my_own WITH (FORCE)")


def test_a_server_that_died_does_not_hide_the_error() -> None:
    """Leaving after the server is gone raises what the block raised."""
    opening = open_database(PostgreSQLConfig("toy"), Toy())
    opened = opening.__enter__()
    opened.server.stop()
    unreachable = r"^cannot connect to host=\S+ port=5432 user=postgres options='': connection to server on socket "
    with pytest.raises(ServerError, match=unreachable) as caught:
        opened.session()
    assert not opening.__exit__(type(caught.value), caught.value, None)


def test_statistics_of_partitioned_tables_see_every_row(newest_scratch: Session) -> None:
    """ANALYZE finds the same every time, as for other tables: by default it would read 30,000 of 100,000 rows that it draws."""
    newest_scratch.execute(
        "CREATE TABLE p (at date NOT NULL, v int) PARTITION BY RANGE (at);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');"
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');"
        "INSERT INTO p SELECT date '2024-01-01' + g % 700, g % 5000 FROM generate_series(1, 100000) AS g"
    )
    newest_scratch.execute("UPDATE p SET v = 1000000 WHERE ctid = '(0,7)'")
    vacuum_analyze(newest_scratch)
    first = statistics_fingerprint(newest_scratch)
    assert newest_scratch.scalar("SELECT n_distinct FROM pg_stats WHERE tablename = 'p' AND attname = 'v'") == 5001
    vacuum_analyze(newest_scratch)
    assert statistics_fingerprint(newest_scratch) == first


def test_statistics_see_every_row_and_stay_short(newest_scratch: Session) -> None:
    """A value that occurs once in 200,000 rows is in the range ANALYZE knows, and no list of most common values is longer than usual."""
    newest_scratch.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT g, g % 5000 FROM generate_series(1, 200000) AS g"
    )
    newest_scratch.execute("UPDATE t SET v = 1000000 WHERE id = 77777")
    vacuum_analyze(newest_scratch)
    rows = "SELECT most_common_vals::text::int[], histogram_bounds::text::int[] FROM pg_stats WHERE tablename = 't' AND attname = 'v'"
    common, bounds = newest_scratch.execute(rows)[0]
    assert common is None or len(common) <= 100
    assert bounds[-1] == 1000000
    assert newest_scratch.scalar("SELECT n_distinct FROM pg_stats WHERE tablename = 't' AND attname = 'v'") == 5001

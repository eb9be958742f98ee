"""Databases of `--variant`, on a real server."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.options.variants import variant
from pytest_pilotscope.postgres.binaries import available_binaries
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.provision.variants import difference_of, introductions, under_conditions
from tests.toy import Toy


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Open the toy dataset on the default PostgreSQL."""
    with open_database(PostgreSQLConfig("toy"), Toy()) as opened:
        yield opened


def chosen(text: str) -> Settings:
    """Return settings with one variant."""
    return Settings(variants=(variant(text),))


def test_settings_are_those_of_the_sessions(database: Database) -> None:
    """Sessions of a variant have its settings, those of the database do not; both are on one server."""
    with under_conditions(database, chosen("a:geqo_threshold=2,work_mem=64MB")) as opened, opened.variants["a"].measuring_session() as own:
        assert opened.variants["a"].server is database.server
        assert difference_of(opened, "a") == "geqo_threshold=2,work_mem=64MB"
        assert own.execute("SELECT current_setting('geqo_threshold'), current_setting('work_mem')") == [("2", "64MB")]
        with opened.measuring_session() as theirs:
            assert theirs.execute("SELECT current_setting('geqo_threshold'), current_setting('work_mem')") == [("12", "4MB")]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("geqo_treshold=2", "PostgreSQL has no setting 'geqo_treshold'; did you mean 'geqo_threshold' or 'log_temp_files'?"),
        ("qqq=2", "PostgreSQL has no setting 'qqq'; pg_settings lists all"),
        ("my.own=2", "PostgreSQL has no setting 'my.own'; pg_settings lists all"),
        ("jit=maybe", 'PostgreSQL refuses jit=maybe: parameter "jit" requires a Boolean value'),
        ("work_mem=1", 'PostgreSQL refuses work_mem=1: 1 kB is outside the valid range for parameter "work_mem" (64 kB .. 2147483647 kB)'),
        (
            "block_size=8",
            "block_size cannot be changed: it is part of how PostgreSQL was built or its data directory was made; leave it out",
        ),
        (
            "shared_buffers=1GB",
            "shared_buffers is set when a server starts, so that two sessions of one server cannot differ in it; measure a second server "
            "that has it, as NAME@DSN",
        ),
        (
            "jit=off,autovacuum=on",
            "autovacuum is set for all sessions of a server, so that two sessions of one server cannot differ in it; measure a second "
            "server that has it, as NAME@DSN",
        ),
        (
            "statement_timeout=5",
            "every measured session has its own value of statement_timeout, so that it cannot be measured; leave it out",
        ),
        (
            "pilotscope.enumerate=on",
            "every measured session has its own value of pilotscope.enumerate, so that it cannot be measured; leave it out",
        ),
    ],
)
def test_what_no_session_can_have_is_refused(database: Database, settings: str, reason: str) -> None:
    """The message has the variant, the setting, the reason and what to do."""
    with pytest.raises(UsageError, match=r"^--variant x: ") as error, under_conditions(database, chosen(f"x:{settings}")):
        pass
    assert re.sub(r" or '.*'\?", "?", str(error.value)) == re.sub(r" or '.*'\?", "?", f"--variant x: {reason}")


def test_settings_that_change_nothing_are_named(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A value that every session has anyway gives no difference, and neither does JIT where there is none."""
    with caplog.at_level(logging.WARNING), under_conditions(database, chosen("x:geqo_threshold=12,jit=on")), database.session() as session:
        jit = session.scalar("SELECT pg_jit_available()")
    expected = ["--variant x: geqo_threshold=12 changes nothing, because every session has this value"]
    without = "--variant x: jit=on changes nothing, because this PostgreSQL has no JIT (pg_jit_available() is false)"
    assert [record.getMessage() for record in caplog.records] == expected + ([] if jit else [without])


@pytest.fixture
def second() -> Iterator[Database]:
    """Open the toy dataset on another server, which can be reached by its DSN."""
    with open_database(PostgreSQLConfig("toy"), Toy()) as opened:
        yield opened


def dsn(database: Database, name: str) -> str:
    """Return the DSN of a database on the server of another one."""
    assert isinstance(database.server, EmbeddedServer)
    return f"{database.server.dsn.reveal()} dbname={name}"


@pytest.mark.slow
@pytest.mark.parametrize("major", [15, 16])
def test_another_build_has_the_same_data(database: Database, major: int) -> None:
    """It is started with the dataset, by its version or by its folder; it has the conditions of the run, and its fingerprints."""
    found = next((one for one in available_binaries() if one.major == major), None)
    if found is None:
        pytest.skip(f"no PostgreSQL {major} on this machine")
    where = str(found.bindir) if major == 15 else str(major)
    conditioned = replace(chosen(f"old@{where}"), parallel=2)
    config = PostgreSQLConfig.from_settings(conditioned, db="toy")
    with under_conditions(replace(database, config=config), conditioned) as opened:
        old = opened.variants["old"]
        with old.measuring_session() as session:
            assert session.server_version // 10000 == major
            assert session.scalar("SELECT current_setting('max_parallel_workers_per_gather')") == "2"
        assert old.fingerprint.data == database.fingerprint.data
        assert difference_of(opened, "old").startswith(f"PostgreSQL {old.report.version} (embedded; statistics ")
        (line,) = introductions(opened)
        assert line == f"variant old on {old.report.header()}: the same data on another server"


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("/nowhere", "no initdb in /nowhere; --pg-bindir wants the folder that `pg_config --bindir` of a server installation prints"),
        ("3", "no PostgreSQL 3 on this machine; found: .*"),
        ("postgresql://me:hunter2@127.0.0.1:1/x", ".*127.0.0.1.*; check host, port, user and password, and that the server is running"),
    ],
)
def test_a_server_that_is_not_there_is_refused(database: Database, where: str, reason: str) -> None:
    """The message has the variant and what is missing, without a password."""
    with pytest.raises(UsageError, match=rf"(?s)^--variant x: {reason}") as error, under_conditions(database, chosen(f"x@{where}")):
        pass
    assert "hunter2" not in str(error.value)


def test_the_database_of_a_dsn_is_taken_as_it_is(database: Database, second: Database) -> None:
    """With the same data it is measured; with other rows, tables or columns it is refused, and they are named, although it has our mark."""
    where = chosen(f"x@{dsn(second, second.name)}")
    user = replace(database, dataset=None)
    with under_conditions(user, where) as opened:
        assert opened.variants["x"].name == second.name
        assert opened.variants["x"].server is not database.server
    with second.session() as session:
        session.execute("CREATE TABLE c (id int)")
        session.execute("ALTER TABLE b ADD COLUMN more int")
        session.execute("DELETE FROM a WHERE id = (SELECT max(id) FROM a)")
        count = session.scalar("SELECT count(*) FROM a")
    message = (
        rf"^--variant x: its data differs from the baseline's in public.a \({count} rows, {count + 1} here\), public.b "
        r"\(other columns\), public.c \(not here\); pairs need the same data on both servers$"
    )
    with pytest.raises(UsageError, match=message), under_conditions(user, where):
        pass


def test_a_dataset_is_loaded_where_that_is_allowed(database: Database, second: Database) -> None:
    """A database without it is refused with the option that allows to make one, and has the data with it."""
    where = chosen(f"x@{dsn(second, 'postgres')}")
    with second.server.connect() as session:
        session.execute(f"DROP DATABASE {second.copy_source}")
    refused = r"^--variant x: loading dataset 'toy' .*add --allow-changes databases"
    with pytest.raises(UsageError, match=refused), under_conditions(database, where):
        pass
    allowed = replace(database, config=PostgreSQLConfig("toy", allow_changes=("databases",)))
    with under_conditions(allowed, where) as opened:
        assert opened.variants["x"].fingerprint.data == database.fingerprint.data


def test_another_encoding_is_refused(database: Database, second: Database) -> None:
    """Texts sort and match differently there."""
    with second.server.connect() as session:
        session.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    message = "^--variant x: its database has the encoding LATIN1, that of the baseline UTF8; pairs need the same data on both servers$"
    with pytest.raises(UsageError, match=message), under_conditions(replace(database, dataset=None), chosen(f"x@{dsn(second, 'latin')}")):
        pass


def test_only_a_dataset_can_be_loaded_into_another_build(database: Database) -> None:
    """The user's own data is on the user's server only."""
    message = (
        "^--variant x: only the server of --server has the data, so that no other build can be started with it; name a server that has it$"
    )
    with pytest.raises(UsageError, match=message), under_conditions(replace(database, dataset=None), chosen("x@/usr/bin")):
        pass

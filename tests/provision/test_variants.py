"""Databases of `--variant`, on a real server."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.options.variants import variant
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.provision.variants import difference_of, under_conditions
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

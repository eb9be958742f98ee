"""Equal content has equal fingerprints, and each kind of difference shows in its own one."""

from __future__ import annotations

import re
from dataclasses import asdict

import pytest

from pytest_pilotscope.postgres import fingerprint as module
from pytest_pilotscope.postgres.databases import write_mark
from pytest_pilotscope.postgres.fingerprint import Fingerprint, fingerprint
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.loading import vacuum_analyze
from tests.conftest import ServerOf
from tests.toy import Toy


def _load(session: Session, toy: Toy) -> Fingerprint:
    toy.load(session)
    vacuum_analyze(session)
    return fingerprint(session)


def _different(one: Fingerprint, other: Fingerprint) -> set[str]:
    return {name for name, value in asdict(one).items() if value != asdict(other)[name]}


def test_five_short_hashes(newest_scratch: Session) -> None:
    """Twelve hex digits each, by name."""
    found = _load(newest_scratch, Toy())
    assert list(found.as_mapping()) == ["data", "statistics", "settings", "indexes", "build"]
    assert all(re.fullmatch(r"[0-9a-f]{12}", value) for value in found.as_mapping().values())


@pytest.mark.slow
def test_the_same_data_on_two_servers(server_of: ServerOf) -> None:
    """Data, statistics and indexes do not depend on the server or its version; the build does."""
    found = {}
    for major in (18, 16):
        with server_of(major).connect() as administrator:
            administrator.execute("CREATE DATABASE fingerprinted")
            with server_of(major).connect("fingerprinted") as session:
                found[major] = _load(session, Toy())
            administrator.execute("DROP DATABASE fingerprinted WITH (FORCE)")
    assert _different(found[18], found[16]) == {"build"}


def test_the_order_of_rows_is_statistics_but_not_data(newest_scratch: Session) -> None:
    """The same rows the other way round are the same data; the planner sees another correlation."""
    forward = _load(newest_scratch, Toy())
    newest_scratch.execute("DROP TABLE b, a")
    assert _different(forward, _load(newest_scratch, Toy(backwards=True))) == {"statistics"}


@pytest.mark.parametrize(
    ("change", "different"),
    [
        ("UPDATE a SET v = v + 1 WHERE id = 7", {"data"}),
        ("ALTER TABLE a RENAME COLUMN v TO vv", {"data", "statistics"}),
        ("CREATE INDEX another ON a (v)", {"indexes", "statistics"}),
        ("SET work_mem = '8MB'", {"settings"}),
        ("SET application_name = 'another'", set()),
        ("SET statement_timeout = '1h'", set()),
        ("CREATE STATISTICS s ON v, t FROM a; ANALYZE a", {"statistics"}),
        ("CREATE TABLE empty (i int)", {"data", "statistics"}),
    ],
)
def test_what_shows_where(newest_scratch: Session, change: str, different: set[str]) -> None:
    """Each change is seen, and only where it belongs."""
    before = _load(newest_scratch, Toy())
    newest_scratch.execute(change)
    assert _different(before, fingerprint(newest_scratch)) == different


def test_columns_of_any_name_are_read(newest_scratch: Session) -> None:
    """A column called like an alias of the hashing query hides nothing."""
    newest_scratch.execute("CREATE TABLE r (r int, v int); INSERT INTO r VALUES (1, 1)")
    before = fingerprint(newest_scratch)
    newest_scratch.execute("UPDATE r SET v = 2")
    assert _different(before, fingerprint(newest_scratch)) == {"data"}


def test_the_mark_of_a_loaded_database_is_believed(newest_scratch: Session) -> None:
    """For our own datasets the hash was taken while loading; the rows are not read again."""
    newest_scratch.execute("CREATE TABLE t (i int)")
    write_mark(newest_scratch, newest_scratch.database, {"state": "complete", "data": "0123456789ab"})
    assert fingerprint(newest_scratch).data == "0123456789ab"


@pytest.mark.parametrize("comment", ["NULL", "'a note'", "'{\"pilotscope\": 1}'", "'{\"other\": {}}'", "'[]'"])
def test_other_peoples_comments_are_no_marks(newest_scratch: Session, comment: str) -> None:
    """A comment of somebody else is not mistaken for ours."""
    before = fingerprint(newest_scratch)
    newest_scratch.execute(f"COMMENT ON DATABASE {newest_scratch.database} IS {comment}")
    assert fingerprint(newest_scratch) == before


def test_a_large_database_is_not_read(newest_scratch: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit only columns and estimated row counts are compared, and the hash says so."""
    monkeypatch.setattr(module, "EXACT_LIMIT_BYTES", 0)
    before = _load(newest_scratch, Toy())
    newest_scratch.execute("UPDATE a SET v = v + 1 WHERE id = 7")
    assert re.fullmatch(r"~[0-9a-f]{12}", before.data)
    assert fingerprint(newest_scratch).data == before.data


def test_where_things_are_is_no_setting(server_of: ServerOf) -> None:
    """Two servers in different folders have the same settings."""
    with server_of(18).connect() as one, server_of(16).connect() as other:
        assert fingerprint(one).settings == fingerprint(other).settings

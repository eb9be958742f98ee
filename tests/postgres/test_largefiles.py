"""Large files of prepared data directories: used where they are by one server at a time, and whole for the next."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_pilotscope.commands.cleaning import size_bytes
from pytest_pilotscope.errors import DatasetError, ServerError
from pytest_pilotscope.places.account import server_account
from pytest_pilotscope.places.cacheentries import checksum
from pytest_pilotscope.places.folders import server_folder
from pytest_pilotscope.postgres import embedded, largefiles
from pytest_pilotscope.postgres.binaries import find_binaries
from pytest_pilotscope.postgres.clusters import copy_cluster
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.provision.loading import loaded_name, prepared_cluster
from tests.postgres.children import start_child, wait_for_end
from tests.toy import Toy

ROWS = 60_000
"""Enough for two tables and three indexes of more than 1 MiB."""

pytestmark = [pytest.mark.usefixtures("prepared_cache"), pytest.mark.skipif(os.name != "posix", reason="links are used on Linux only")]

KILLED = f"""
import os, signal, sys
from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database
from tests.toy import Toy
with open_database(PostgreSQLConfig("toy", server="embedded"), Toy(rows={ROWS})) as database, database.session() as session:
    print(database.server.pid, database.server._watchdog.pid, flush=True)
    session.execute(sys.stdin.readline())
    session.execute("ALTER SYSTEM SET work_mem = '7MB'")
    session.execute("CHECKPOINT")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _fail() -> None:
    raise AssertionError("loaded again")


@contextmanager
def _opened(*, loaded_again: bool = True) -> Iterator[Database]:
    """Open the dataset; it must not be loaded again unless that is allowed."""
    toy = Toy(rows=ROWS) if loaded_again else Toy(rows=ROWS, during=_fail)
    with open_database(PostgreSQLConfig("toy", server="embedded"), toy) as database:
        yield database


def _data(database: Database) -> Path:
    assert isinstance(database.server, EmbeddedServer)
    return database.server.data_folder


def _large(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.name.isdecimal() and path.is_file() and path.stat().st_size >= 1 << 20]


def _in_place(database: Database) -> bool:
    """Tell whether the large files of a running server are those of the cache."""
    inodes = {path.stat().st_ino for path in _large(_entry() / "large")}
    return len(inodes) == 5 and inodes == {path.stat().st_ino for path in _large(_data(database) / "base")}


def _entry() -> Path:
    found = server_folder(server_account(), "templates").glob(f"toy-pg{find_binaries().major}-*")
    (entry,) = (path for path in found if path.is_dir())
    return entry


def _is_pristine(database: Database) -> bool:
    """Tell whether a database has its rows, indexes, statistics and settings as they were loaded."""
    with database.session() as session:
        found = session.execute(
            "SELECT (SELECT count(*) FROM a), (SELECT sum(v) FROM a), (SELECT count(*) FROM b), (SELECT count(*) FROM pg_indexes WHERE "
            "schemaname = 'public'), (SELECT count(*) FROM pg_statistic_ext), current_setting('work_mem'), to_regclass('mess')"
        )
        by_index = session.scalar("SET LOCAL enable_seqscan = off; SELECT count(*) FROM b WHERE a BETWEEN 1 AND 30001")
    return (found, by_index) == ([(ROWS, 4.5 * ROWS, ROWS, 3, 0, "4MB", None)], ROWS)


OWN = {
    "an index": "CREATE INDEX ON a (v)",
    "ALTER SYSTEM": "ALTER SYSTEM SET work_mem = '7MB'",
    "statistics": "CREATE STATISTICS s ON id, v FROM a; SET default_statistics_target = 1; ANALYZE",
    "a table": "CREATE TABLE mess AS SELECT * FROM a",
    "the setting of a database": "ALTER DATABASE pilotscope_toy SET work_mem = '7MB'",
    "a dropped database of ours": f"DROP DATABASE {loaded_name(Toy(rows=ROWS))}",
    "an index of its own, made again": "CREATE INDEX i ON a (v); REINDEX INDEX i; DROP INDEX i",
}
"""Changes that are files of the run's own."""

WRITTEN = {
    "an update": "UPDATE a SET v = 0 WHERE id = 1",
    "inserted rows": "INSERT INTO b SELECT i + 1000000, 1, 'x' FROM generate_series(1, 1000) i",
    "deleted rows": "DELETE FROM b WHERE id % 2 = 0",
    "a dropped table": "DROP TABLE b",
    "an emptied table": "TRUNCATE a CASCADE",
    "a dropped index": "DROP INDEX b_a_idx",
    "a vacuum": "VACUUM",
    "a rewritten table": "VACUUM FULL a",
    "a rolled back insert": "BEGIN; INSERT INTO b SELECT i + 1000000, 1, 'x' FROM generate_series(1, 100000) i; ROLLBACK",
}
"""Changes that PostgreSQL writes into large files."""


@pytest.mark.slow
def test_what_a_run_makes_ends_with_it(caplog: pytest.LogCaptureFixture) -> None:
    """Its files are copies or new, so nothing is loaded again, and the next run has all as it was loaded."""
    with _opened() as database:
        caplog.clear()
        before = checksum(_entry())
        assert _in_place(database)
        for change, statements in OWN.items():
            with database.server.connect(None if "DATABASE" in statements else database.name) as session:
                for statement in statements.split(";"):
                    session.execute(statement)
                session.execute("CHECKPOINT")
            assert (change, database.server.changed_data()) == (change, "")
    assert checksum(_entry()) == before
    assert not [message for message in caplog.messages if "prepared" in message]
    with _opened(loaded_again=False) as database:
        assert _is_pristine(database)


@pytest.mark.parametrize("change", [next(iter(WRITTEN)), *(pytest.param(change, marks=pytest.mark.slow) for change in list(WRITTEN)[1:])])
def test_what_a_run_writes_in_place_is_loaded_again(change: str, caplog: pytest.LogCaptureFixture) -> None:
    """The run that has written says so, nobody copies its changes, and the next run makes the data again and says so."""
    with _opened() as database:
        caplog.clear()
        entry, source = _entry(), str(database.copy_source)
        with database.session() as session:
            for statement in WRITTEN[change].split(";"):
                session.execute(statement)
        changed = rf"this run has changed tables or indexes of the loaded data in {entry}/data: file \d+/\d+( and \d more)?"
        expected = rf"^database '{source}' cannot be copied as it was loaded: {changed}; change a copy of it \(`database\.copy\(\)`\)$"
        with pytest.raises(DatasetError, match=expected), database.copy():
            pass
        with database.server.connect() as session:
            assert session.scalar("SELECT count(*) FROM pg_database WHERE datname LIKE 'pilotscope%'") == 2
    (warning,) = (message for message in caplog.messages if "prepared" in message)
    assert re.fullmatch(f"{changed}; the next run makes the prepared data directory again", warning)
    with _opened() as database:
        assert _is_pristine(database)
        assert _in_place(database)
    assert caplog.messages[-1] == f"the prepared data directory {entry} is damaged; it is made again"


@pytest.mark.parametrize("statement", [pytest.param("CREATE INDEX ON a (v)", marks=pytest.mark.slow), "UPDATE a SET v = 0"])
def test_kill_9_in_mid_run(statement: str) -> None:
    """The next run has the data as they were loaded, in place: the lock has ended with the server."""
    child = start_child(KILLED)
    assert child.stdout is not None
    assert child.stdin is not None
    server, watchdog = child.stdout.readline().split()
    child.stdin.write(f"{statement}\n")
    child.stdin.flush()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert wait_for_end(int(server))
    assert wait_for_end(int(watchdog))
    with _opened() as database:
        assert _is_pristine(database)
        assert _in_place(database)


def test_the_server_itself_holds_the_lock() -> None:
    """If all others are killed, a process of PostgreSQL that still runs keeps the next run from using the files."""
    with _opened() as database:
        assert isinstance(database.server, EmbeddedServer)
        held = {os.readlink(link) for link in Path(f"/proc/{database.server.pid}/fd").iterdir()}
        assert str(_entry() / "large") in held


@pytest.mark.slow
def test_two_at_once() -> None:
    """The first uses the files, the second copies them; what the second does to them is its own, and it can copy the loaded data."""
    with _opened() as first, _opened(loaded_again=False) as second:
        assert _in_place(first)
        assert not {path.stat().st_ino for path in _large(_data(second))} & {path.stat().st_ino for path in _large(_entry())}
        with second.session() as session:
            session.execute("DROP TABLE b; UPDATE a SET v = 0")
        with second.copy() as copy:
            assert _is_pristine(copy)
        with first.copy() as copy, copy.session() as session:
            session.execute("DROP TABLE b; UPDATE a SET v = 0")
        assert _is_pristine(first)
    with _opened(loaded_again=False) as third:
        assert _in_place(third)
        assert _is_pristine(third)


@pytest.mark.slow
def test_queries_leave_the_files_alone(server: EmbeddedServer) -> None:
    """Sequential scans, index scans, index-only scans and bitmap scans write nothing into the tables, on any PostgreSQL."""
    config = PostgreSQLConfig("toy", server="embedded", pg_bindir=server.binaries.bindir)
    with open_database(config, Toy(rows=ROWS)) as database, database.session() as session:
        for off in ("enable_material", "enable_seqscan", "enable_indexonlyscan", "enable_indexscan", "enable_bitmapscan"):
            session.execute(f"SET {off} = off")
            session.execute(
                "SELECT count(*), sum(v), min(w), max(t) FROM a JOIN b ON b.a = a.id WHERE b.id > 0 AND a.id BETWEEN 1 AND 50000"
            )
            session.execute("SELECT count(*) FROM b WHERE a < 1000; SELECT count(*) FROM a WHERE id > 10")
        session.execute("CHECKPOINT")
        assert database.server.changed_data() == ""


def test_equal_databases_are_stored_once() -> None:
    """The loaded data and the copy to work in have the same files, and the cache counts their bytes once."""
    with _opened():
        pass
    large = _entry() / "large"
    one, other = sorted(large.iterdir())
    assert [path.stat().st_ino for path in sorted(one.iterdir())] == [path.stat().st_ino for path in sorted(other.iterdir())]
    assert size_bytes(large) == sum(path.stat().st_size for path in one.iterdir())


@pytest.mark.slow
def test_only_files_of_another_time_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the cache has other times: the contents are compared, and the new times noted, so that the next run reads no large file."""
    toy, binaries = Toy(rows=ROWS, during=_fail), find_binaries()
    with _opened():
        pass
    read: list[str] = []

    def noted(path: Path) -> str:
        read.append(path.name)
        return checksum(path)

    monkeypatch.setattr(largefiles, "checksum", noted)
    prepared_cluster(toy, binaries)
    assert read == []
    touched = _large(_entry() / "large")[0]
    touched.touch()
    for expected in ([touched.name], []):
        read.clear()
        prepared_cluster(toy, binaries)
        assert read == expected
    assert sorted(path.name for path in _entry().iterdir()) == ["data", "large", "manifest.json"]


@pytest.mark.parametrize(
    "damage", ["flipped", *(pytest.param(damage, marks=pytest.mark.slow) for damage in ("missing", "too much", "a link", "odd manifest"))]
)
def test_damage_of_a_large_file_is_noticed(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """The entry is made again, whatever is wrong with a large file or with its line in the manifest."""
    with _opened():
        pass
    entry = _entry()
    file, *_, other = _large(entry / "large")
    match damage:
        case "flipped":
            with file.open("r+b") as opened:
                opened.write(b"\xff")
        case "missing":
            file.unlink()
        case "too much":
            shutil.copyfile(other, file.with_name("99999"))
        case "a link":
            file.unlink()
            file.symlink_to(other)
        case _:
            manifest = json.loads((entry / "manifest.json").read_text())
            manifest["large"][f"{file.parent.name}/{file.name}"] = {"bytes": 1}
            (entry / "manifest.json").write_text(json.dumps(manifest))
    caplog.clear()
    with _opened() as database:
        assert _is_pristine(database)
    assert caplog.messages == [f"the prepared data directory {entry} is damaged; it is made again"]


@pytest.mark.slow
def test_files_that_change_while_they_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that copies what another run is changing in place does not start with a mixture."""
    with _opened() as first:
        copied = copy_cluster

        def change_and_copy(source: Path, *arguments: object, **options: object) -> None:
            with first.session() as session:
                session.execute(WRITTEN["an update"])
                session.execute("CHECKPOINT")
            copied(source, *arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(embedded, "copy_cluster", change_and_copy)
        expected = (
            rf"^another run has changed the prepared data directory {_entry()}/data while it was copied: file \d+/\d+; "
            r"start again, and it is made again$"
        )
        with pytest.raises(ServerError, match=expected), _opened(loaded_again=False):
            pass
    monkeypatch.undo()
    with _opened() as database:
        assert _is_pristine(database)


@pytest.mark.slow
def test_where_there_can_be_no_links() -> None:
    """Files on another file system are copied, and the server starts all the same."""
    with _opened():
        pass
    servers = server_folder(server_account(), "servers")
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "tmpfs", servers], capture_output=True, check=False).returncode:
        pytest.skip("only root can mount the file system that this needs")
    try:
        servers.chmod(0o710)
        os.chown(servers, 0, server_account().gid)
        with _opened(loaded_again=False) as database:
            assert not _in_place(database)
            with database.session() as session:
                session.execute(WRITTEN["an update"])
            with database.copy() as copy:
                assert _is_pristine(copy)
    finally:
        subprocess.run(["umount", servers], check=True)
    with _opened(loaded_again=False) as database:
        assert _is_pristine(database)


@pytest.mark.slow
def test_where_copies_share_blocks(tmp_path: Path, cache: Path) -> None:
    """On XFS every server copies all files, which costs no blocks, and needs no lock."""
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, 400 << 20)
    commands: tuple[list[str | Path], ...] = (["mkfs.xfs", "-q", image], ["mount", "-o", "loop", image, cache])
    if not shutil.which("mkfs.xfs") or any(subprocess.run(command, capture_output=True, check=False).returncode for command in commands):
        pytest.skip("only root can mount the file system that this needs, and mkfs.xfs has to be there")
    try:
        cache.chmod(0o755)
        with _opened(), _opened(loaded_again=False) as database:
            assert not {path.stat().st_ino for path in _large(_data(database))} & {path.stat().st_ino for path in _large(_entry())}
            with database.session() as session:
                session.execute(WRITTEN["an update"])
            with database.copy() as copy:
                assert _is_pristine(copy)
        with _opened(loaded_again=False) as database:
            assert _is_pristine(database)
    finally:
        subprocess.run(["umount", cache], check=True)

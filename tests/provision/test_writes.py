"""The scripts of `--writes` are read and tried before anything is measured."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.provision.writes import given_writes, try_writes
from pytest_pilotscope.runs.bench import Bench
from tests.toy import Toy

TPCB_LIKE = r"""
\set aid random(1, 100000 * :scale)
\set bid random(1, 1 * :scale)
\set tid random(1, 10 * :scale)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
"""
"""As `pgbench --show-script=tpcb-like` prints it."""


class Bank(Toy):
    """The toy with tables of pgbench's, which has one branch."""

    @property
    def key(self) -> str:
        """Others than the toy's."""
        return "bank-1"

    def load(self, session: Session) -> None:
        """Make one branch, and too few accounts for anything to be changed most of the time."""
        super().load(session)
        session.execute("CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int)")
        session.execute("CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int)")
        session.execute("CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int)")
        session.execute("CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp)")
        session.execute("INSERT INTO pgbench_branches VALUES (1, 0)")


@pytest.fixture(scope="module")
def bank() -> Iterator[Database]:
    """The bank on a server."""
    with open_database(PostgreSQLConfig("toy", server="embedded"), Bank()) as opened:
        yield opened


def test_weights_come_after_the_file(tmp_path: Path) -> None:
    """Without one it is 1; only the last @ is that of a weight; without scripts there are no writes."""
    (tmp_path / "a@b.sql").write_text("SELECT 1")
    (tmp_path / "c.sql").write_text("SELECT 2")
    chosen = (f"{tmp_path}/a@b.sql@3", f"{tmp_path}/c.sql")
    writes = given_writes(Settings(writes=chosen, writes_per_query=0.5))
    assert writes is not None
    assert [(Path(script.name).name, script.weight) for script in writes.scripts] == [("a@b.sql", 3), ("c.sql", 1)]
    assert writes.per_query == 0.5
    assert given_writes(Settings()) is None


def test_scripts_are_read_once(tmp_path: Path) -> None:
    """A file that is edited during a run changes neither what training knows nor what is measured."""
    script = tmp_path / "s.sql"
    script.write_text("SELECT 1")
    settings = Settings(algorithms=("baseline",), datasets=("stats_tiny",), writes=(str(script),))
    bench = Bench(settings=settings, registry=builtin_registry(), say=lambda line: None, progress=silent)
    writes = bench.workload("stats_tiny").writes
    script.unlink()
    assert bench.workload("stats_tiny").writes is writes is not None
    unused = cast(Any, None)
    given = {"database": unused, "session": unused, "options": {}, "folder": tmp_path, "progress": silent}
    assert Training.of(bench.workload("stats_tiny"), algorithm="mine", settings=settings, **given).writes is writes


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (("none.sql",), "--writes none.sql: the script cannot be read: No such file or directory; name a file"),
        ((".",), "--writes .: the script cannot be read: Is a directory; name a file"),
        (("s.sql@x",), "--writes s.sql@x: expected FILE or FILE@WEIGHT, where WEIGHT is a whole number of at least 0, got 'x'"),
        (("s.sql@-1",), "--writes s.sql@-1: expected FILE or FILE@WEIGHT, where WEIGHT is a whole number of at least 0, got '-1'"),
        (("s.sql@",), "--writes s.sql@: expected FILE or FILE@WEIGHT, where WEIGHT is a whole number of at least 0, got ''"),
        (("s.sql@0",), "--writes s.sql@0: all weights are 0, so that no script would run; give one a weight above 0"),
        (("latin.sql",), "--writes latin.sql: the script is not in UTF-8 (byte 8); convert it"),
        (("bad.sql",), "bad.sql:1: a script reads and changes rows only; leave this statement out: DROP TABLE a"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: tuple[str, ...], message: str) -> None:
    """The message names the file, or the weight."""
    monkeypatch.chdir(tmp_path)
    Path("s.sql").write_text("SELECT 1")
    Path("bad.sql").write_text("DROP TABLE a")
    Path("latin.sql").write_bytes("SELECT 'ä'".encode("latin-1"))
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        given_writes(Settings(writes=chosen))


def test_scripts_of_pgbench_run(bank: Database, tmp_path: Path) -> None:
    """They are tried in a copy: the database stays as it was."""
    (tmp_path / "tpcb.sql").write_text(TPCB_LIKE)
    settings = Settings(writes=(str(tmp_path / "tpcb.sql"),))
    writes = given_writes(settings)
    assert writes is not None
    try_writes(bank, writes, settings)
    with bank.session() as session:
        assert session.scalar("SELECT count(*) FROM pgbench_history") == 0


def test_a_script_that_fails_is_told_at_once(bank: Database, tmp_path: Path) -> None:
    """PostgreSQL's reason is in the message, and the copy is dropped."""
    (tmp_path / "s.sql").write_text("INSERT INTO missing VALUES (1)")
    settings = Settings(writes=(str(tmp_path / "s.sql"),))
    writes = given_writes(settings)
    assert writes is not None
    with bank.session() as session:
        before = session.execute("SELECT datname FROM pg_database ORDER BY 1")
        message = (
            f'--writes {tmp_path}/s.sql: statement failed: relation "missing" does not exist [42P01]: INSERT INTO missing VALUES (1); '
            "all sides need the same writes, so that none may fail: mend the script, or let it take keys that are free (nextval, "
            "ON CONFLICT DO NOTHING)"
        )
        with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
            try_writes(bank, writes, settings)
        assert session.execute("SELECT datname FROM pg_database ORDER BY 1") == before

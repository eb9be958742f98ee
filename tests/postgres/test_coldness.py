"""Dropping the caches of a server of ours, on a real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_pilotscope.errors import StatementFailed
from pytest_pilotscope.postgres import coldness
from pytest_pilotscope.postgres.coldness import drop_caches, warm_reason
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from tests.conftest import LibraryOf


@pytest.fixture
def steered(scratch: Session, server: EmbeddedServer, library_of: LibraryOf) -> Session:
    """Open a session with the library and a table of many pages in an empty database of its own."""
    scratch.execute(f"LOAD '{library_of(server)}'")
    scratch.execute("CREATE TABLE t AS SELECT number, repeat('x', 500) FROM generate_series(1, 5000) AS number")
    return scratch


def buffers(session: Session) -> tuple[int, int]:
    """Return the pages that a scan finds in shared buffers, and those that it reads."""
    plan = session.scalar("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT count(*) FROM t")[0]["Plan"]
    return plan["Shared Hit Blocks"], plan["Shared Read Blocks"]


def test_nothing_is_left_in_a_cache(steered: Session) -> None:
    """The next scan reads every page, from files that are not in memory; changes before are not lost, and the switch is off again."""
    assert buffers(steered)[1] == 0
    steered.execute("UPDATE t SET number = -number WHERE number <= 10")
    assert warm_reason(steered) is None
    folder = Path(steered.scalar(coldness._FOLDER))
    files = [path for path in folder.iterdir() if path.stat().st_size > 1 << 20]
    assert files
    assert not any(coldness._is_in_memory(path) for path in files)
    hits, reads = buffers(steered)
    assert (hits, reads > 300) == (0, True)
    assert buffers(steered)[1] == 0
    assert steered.scalar("SELECT count(*) FROM t WHERE number < 0") == 10
    assert steered.scalar("SHOW pilotscope.drop_buffers") == "off"
    drop_caches(steered)
    assert buffers(steered)[0] == 0


def test_only_a_superuser_empties_them(steered: Session) -> None:
    """Anybody else is refused: on a server of theirs it would slow down everybody."""
    steered.execute("CREATE ROLE nobody_special")
    try:
        steered.execute("SET ROLE nobody_special")
        with pytest.raises(StatementFailed, match="permission denied to set parameter"):
            steered.execute("SET pilotscope.drop_buffers = on")
    finally:
        steered.execute("RESET ROLE")
        steered.execute("DROP ROLE nobody_special")


def test_what_stays_in_memory_is_noticed(
    newest_scratch: Session, newest_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, library_of: LibraryOf
) -> None:
    """Without the library, on a system without the call, and on a file system that ignores it, the reason is named."""
    assert warm_reason(newest_scratch) == "its shared buffers cannot be emptied without the pilotscope library"
    newest_scratch.execute(f"LOAD '{library_of(newest_server)}'")
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: None)
    folder = newest_scratch.scalar(coldness._FOLDER)
    assert warm_reason(newest_scratch) == f"the file system of {folder} keeps files in memory"
    monkeypatch.delattr(os, "posix_fadvise")
    assert warm_reason(newest_scratch) == "this operating system cannot be told to forget files (posix_fadvise)"

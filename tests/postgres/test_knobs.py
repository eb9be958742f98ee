"""Settings of a server: read with their limits, applied at their level, put back whatever happens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pilotscope.errors import ServerError, StatementFailed
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.knobs import (
    SystemKnobs,
    may_alter_system,
    note_path,
    read_knobs,
    restore_left_over,
    set_session_knobs,
    system_knobs,
)
from pytest_pilotscope.postgres.session import Session

RELOADABLE = "bgwriter_lru_maxpages"
OTHER = "bgwriter_delay"


@pytest.fixture
def note(cache: Path, server: EmbeddedServer) -> Iterator[Path]:
    """Return the note of the server's settings, in a cache of this test's own; leave nothing in the server."""
    with server.connect() as session:
        before = written(session)
        yield note_path(session)
        assert written(session) == before


def written(session: Session) -> list[tuple[object, ...]]:
    """Return the settings made by ALTER SYSTEM."""
    return session.execute("SELECT name, setting FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf' ORDER BY name")


def test_rows_have_limits_units_and_levels(scratch: Session) -> None:
    """As in pg_settings, typed; unknown and internal settings are left out."""
    rows = read_knobs(
        scratch, ["work_mem", "random_page_cost", "geqo", "shared_buffers", RELOADABLE, "plan_cache_mode", "block_size", "nonsense"]
    )
    assert sorted(rows) == [RELOADABLE, "geqo", "plan_cache_mode", "random_page_cost", "shared_buffers", "work_mem"]
    assert (rows["work_mem"].kind, rows["work_mem"].value, rows["work_mem"].unit_bytes) == ("integer", "4096", 1024)
    assert rows["work_mem"].low == 64
    assert (rows["random_page_cost"].kind, rows["random_page_cost"].low, rows["random_page_cost"].unit_bytes) == ("real", 0, None)
    assert (rows["geqo"].kind, rows["geqo"].choices) == ("bool", ("on", "off"))
    assert rows["plan_cache_mode"].choices == ("auto", "force_generic_plan", "force_custom_plan")
    assert {name: row.level for name, row in rows.items()} == {
        RELOADABLE: "reload",
        "geqo": "session",
        "plan_cache_mode": "session",
        "random_page_cost": "session",
        "shared_buffers": "restart",
        "work_mem": "session",
    }


def test_session_knobs_hold_in_one_session_exactly(newest_scratch: Session, newest_server: EmbeddedServer) -> None:
    """Numbers are in the setting's own unit and arrive digit by digit; nobody else sees them."""
    set_session_knobs(newest_scratch, {"work_mem": "12345", "cpu_operator_cost": "0.00123457", "geqo": "off"})
    shown = "SELECT name, setting FROM pg_settings WHERE name IN ('work_mem', 'cpu_operator_cost', 'geqo') ORDER BY 1"
    assert newest_scratch.execute(shown) == [("cpu_operator_cost", "0.00123457"), ("geqo", "off"), ("work_mem", "12345")]
    set_session_knobs(newest_scratch, {})
    with newest_server.connect() as other:
        assert other.execute(shown) == [("cpu_operator_cost", "0.0025"), ("geqo", "on"), ("work_mem", "4096")]


def test_a_value_out_of_range_is_refused_and_nothing_is_set(newest_scratch: Session) -> None:
    """All of them or none."""
    with pytest.raises(StatementFailed, match=r"^statement failed: 1 kB is outside the valid range for parameter \"work_mem\""):
        set_session_knobs(newest_scratch, {"geqo": "off", "work_mem": "1"})
    assert newest_scratch.scalar("SHOW geqo") == "on"


def test_system_knobs_are_in_force_and_put_back(server: EmbeddedServer, note: Path) -> None:
    """Within the block every session sees them; afterwards the entry that was there before is back, and one that was not is gone."""
    with server.connect() as session, server.connect() as other:
        SystemKnobs({OTHER: None}).set(session, {OTHER: "123"})
        with system_knobs(server.connect, [RELOADABLE, OTHER]) as system:
            system.set(session, {RELOADABLE: "7", OTHER: "55"})
            system.set(session, {RELOADABLE: "8"})
            assert json.loads(note.read_text()) == {RELOADABLE: None, OTHER: "123"}
            assert session.scalar(f"SHOW {RELOADABLE}") == "8"
            with server.connect() as third:
                assert third.scalar(f"SELECT setting FROM pg_settings WHERE name = '{OTHER}'") == "55"
        assert not note.exists()
        assert other.scalar(f"SHOW {RELOADABLE}") == "100"
        assert written(session) == [(OTHER, "123")]
        session.execute(f"ALTER SYSTEM RESET {OTHER}")
        session.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_system_knobs_come_back_after_an_error(server: EmbeddedServer, note: Path, error: type[BaseException]) -> None:
    """Ctrl-C included."""
    with server.connect() as session:
        with pytest.raises(error, match=r"^stop$"), system_knobs(server.connect, [RELOADABLE]) as system:
            _set_and_fail(system, session, error)
        assert session.scalar(f"SHOW {RELOADABLE}") == "100"
    assert not note.exists()


def _set_and_fail(system: SystemKnobs, session: Session, error: type[BaseException]) -> None:
    system.set(session, {RELOADABLE: "7"})
    raise error("stop")


def test_what_was_not_announced_cannot_be_changed(server: EmbeddedServer, note: Path) -> None:
    """Its old value would be lost."""
    expected = f"{OTHER} cannot be changed: the old values were not noted"
    with (
        server.connect() as session,
        system_knobs(server.connect, [RELOADABLE]) as system,
        pytest.raises(ServerError, match=f"^{re.escape(expected)}$"),
    ):
        system.set(session, {OTHER: "99"})


def test_two_at_a_time_are_refused(server: EmbeddedServer, note: Path) -> None:
    """Neither would know what to put back; a live run's settings are not taken for a dead one's."""
    expected = f"another run is changing the settings of this server; its note of the old ones is {note}"
    with server.connect() as session, system_knobs(server.connect, [RELOADABLE]) as system:
        system.set(session, {RELOADABLE: "7"})
        with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"), system_knobs(server.connect, [RELOADABLE]):
            pass
        assert restore_left_over(session) is False
        assert session.scalar(f"SHOW {RELOADABLE}") == "7"


def test_a_server_that_is_gone_on_leaving(server: EmbeddedServer, note: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A session that the server has ended keeps nothing from being put back; a server that is gone keeps its note, and that is said."""
    with server.connect() as session, system_knobs(server.connect, [RELOADABLE]) as system:
        system.set(session, {RELOADABLE: "7"})
        with pytest.raises(StatementFailed, match=r"^statement failed: the connection to the server is closed: "):
            session.execute("SELECT pg_terminate_backend(pg_backend_pid(), 5000), pg_sleep(5)")
    assert not note.exists()

    def gone() -> Session:
        raise ServerError("cannot connect")

    with server.connect() as session:
        assert session.scalar(f"SHOW {RELOADABLE}") == "100"
        answers = iter([server.connect, gone])
        with system_knobs(lambda: next(answers)(), [RELOADABLE]) as system:
            system.set(session, {RELOADABLE: "7"})
        assert caplog.messages == [
            f"not put back: {RELOADABLE} (cannot connect); the next run on this server does that, with the note {note}"
        ]
        assert restore_left_over(session) is True


_KILLED = """
import os, signal, sys
from pytest_pilotscope.postgres.given import GivenServer
from pytest_pilotscope.postgres.knobs import system_knobs
from pytest_pilotscope.places.dsn import Dsn

server = GivenServer(Dsn(f"{sys.argv[1]} dbname=postgres"))
with system_knobs(server.connect, ["bgwriter_lru_maxpages"]) as system:
    system.set(server.connect(), {"bgwriter_lru_maxpages": "7"})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_kill_9_the_next_start_puts_them_back(server: EmbeddedServer, note: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The note survives; restoring says what it did, deletes the note, and has nothing to do the second time."""
    killed = subprocess.run([sys.executable, "-c", _KILLED, server.dsn.reveal()], check=False, env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    with server.connect() as session:
        assert session.scalar(f"SHOW {RELOADABLE}") == "7"
        assert restore_left_over(session) is True
        assert session.scalar(f"SHOW {RELOADABLE}") == "100"
        assert restore_left_over(session) is False
    assert caplog.messages == [f"a run that was killed had changed {RELOADABLE} on this server; the old values are back"]
    assert not note.exists()


def test_the_next_change_puts_them_back_first(server: EmbeddedServer, note: Path) -> None:
    """A note of a killed run is not overwritten by settings that are not the original ones."""
    killed = subprocess.run([sys.executable, "-c", _KILLED, server.dsn.reveal()], check=False, env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    with server.connect() as session:
        with system_knobs(server.connect, [RELOADABLE]):
            assert json.loads(note.read_text()) == {RELOADABLE: None}
        assert session.scalar(f"SHOW {RELOADABLE}") == "100"


def test_a_broken_note_is_named(server: EmbeddedServer, note: Path) -> None:
    """It is not guessed what stood there."""
    note.parent.mkdir(exist_ok=True)
    note.write_text("[1]")
    reason = "'list' object has no attribute 'items'"
    expected = f"the note of the server's old settings {note} cannot be read: {reason}; put them back by hand and delete it"
    with server.connect() as session, pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        restore_left_over(session)


def test_a_setting_that_does_not_come_into_force(newest_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that needs a restart does not count as done."""
    monkeypatch.setattr("pytest_pilotscope.postgres.knobs.RELOAD_LIMIT_S", 0.1)
    with newest_server.connect() as session:
        system = SystemKnobs({"max_worker_processes": None})
        expected = "settings did not come into force within 0 s of a reload: max_worker_processes (wanted 9, found 8)"
        with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
            system.set(session, {"max_worker_processes": "9"})
        session.execute("ALTER SYSTEM RESET max_worker_processes")


def test_a_plain_role_may_not_alter_system(newest_server: EmbeddedServer, newest_scratch: Session) -> None:
    """It is found out beforehand, and there is nothing to put back."""
    assert may_alter_system(newest_scratch)
    newest_scratch.execute("CREATE ROLE plain_knobs")
    newest_scratch.execute("SET ROLE plain_knobs")
    assert not may_alter_system(newest_scratch)
    assert restore_left_over(newest_scratch) is False
    newest_scratch.execute("RESET ROLE")
    newest_scratch.execute("DROP ROLE plain_knobs")

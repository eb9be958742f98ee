"""Settings of a server: read with their limits, applied at their level, put back whatever happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pilotscope.errors import ServerError, StatementFailed, UsageError
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.given import GivenServer
from pytest_pilotscope.postgres.knobs import (
    SystemKnobs,
    read_knobs,
    restore_left_over,
    set_session_knobs,
    system_knobs,
)
from pytest_pilotscope.postgres.server import Capability
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.settings_note import identity, note_path, read_note

RELOADABLE = "bgwriter_lru_maxpages"
OTHER = "bgwriter_delay"


@pytest.fixture
def note(cache: Path, server: EmbeddedServer) -> Iterator[Path]:
    """Return the note of the server's settings, in a cache of this test's own; leave nothing in the server."""
    with server.connect() as session:
        before = written(session)
        yield note_path(identity(session))
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
        SystemKnobs([OTHER]).set(session, {OTHER: "123"})
        with system_knobs(server, [RELOADABLE, OTHER]) as system:
            system.set(session, {RELOADABLE: "7", OTHER: "55"})
            system.set(session, {RELOADABLE: "8"})
            noted = read_note(note)
            assert (noted.server, noted.before) == (identity(session), {RELOADABLE: None, OTHER: "123"})
            assert noted.ours == {RELOADABLE: ["7", "8"], OTHER: ["55"]}
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
        with pytest.raises(error, match=r"^stop$"), system_knobs(server, [RELOADABLE]) as system:
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
        system_knobs(server, [RELOADABLE]) as system,
        pytest.raises(ServerError, match=f"^{re.escape(expected)}$"),
    ):
        system.set(session, {OTHER: "99"})


def test_two_at_a_time_are_refused(server: EmbeddedServer, note: Path) -> None:
    """Neither would know what to put back; a live run's settings are not taken for a dead one's."""
    expected = f"another run is changing the settings of this server; its note of the old ones is {note}"
    with server.connect() as session, system_knobs(server, [RELOADABLE]) as system:
        system.set(session, {RELOADABLE: "7"})
        with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"), system_knobs(server, [RELOADABLE]):
            pass
        assert restore_left_over(server) is False
        assert session.scalar(f"SHOW {RELOADABLE}") == "7"


def test_a_server_that_is_gone_on_leaving(
    server: EmbeddedServer, note: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that the server has ended keeps nothing from being put back; a server that is gone keeps its note, and that is said."""
    with server.connect() as session, system_knobs(server, [RELOADABLE]) as system:
        system.set(session, {RELOADABLE: "7"})
        with pytest.raises(StatementFailed, match=r"^statement failed: the connection to the server is closed: "):
            session.execute("SELECT pg_terminate_backend(pg_backend_pid(), 5000), pg_sleep(5)")
    assert not note.exists()

    def gone(database: str | None = None) -> Session:
        raise ServerError("cannot connect")

    with server.connect() as session:
        assert session.scalar(f"SHOW {RELOADABLE}") == "100"
        with monkeypatch.context() as patch, system_knobs(server, [RELOADABLE]) as system:
            system.set(session, {RELOADABLE: "7"})
            patch.setattr(server, "connect", gone)
        assert caplog.messages == [
            f"not put back: {RELOADABLE} (cannot connect); the next run on this server that may do so does it, with the note {note}"
        ]
        assert restore_left_over(server) is True


_KILLED = """
import os, signal, sys
from pytest_pilotscope.postgres.given import GivenServer
from pytest_pilotscope.postgres.knobs import system_knobs
from pytest_pilotscope.places.dsn import Dsn

server = GivenServer(Dsn(f"{sys.argv[1]} dbname=postgres"), allow_changes=["settings"])
with system_knobs(server, ["bgwriter_lru_maxpages", "bgwriter_delay"]) as system:
    system.set(server.connect(), {"bgwriter_lru_maxpages": "7"})
    system.set(server.connect(), {"bgwriter_lru_maxpages": "8", "bgwriter_delay": "55"})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _kill(server: EmbeddedServer) -> None:
    """Change two settings in a process that is then killed: one twice, one once."""
    killed = subprocess.run([sys.executable, "-c", _KILLED, server.dsn.reveal()], check=False, env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL


def test_after_kill_9_the_next_start_puts_them_back(server: EmbeddedServer, note: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The note survives; restoring says what it did, deletes the note, and has nothing to do the second time."""
    _kill(server)
    with server.connect() as session:
        assert session.scalar(f"SHOW {RELOADABLE}") == "8"
        assert restore_left_over(server) is True
        assert session.scalar(f"SHOW {RELOADABLE}") == "100"
        assert restore_left_over(server) is False
    told = f"put back: {OTHER} (55 -> no entry), {RELOADABLE} (8 -> no entry)"
    assert caplog.messages == [f"a run that was killed had changed settings of this server: {told}"]
    assert not note.exists()


def test_the_next_change_puts_them_back_first(server: EmbeddedServer, note: Path) -> None:
    """A note of a killed run is not overwritten by settings that are not the original ones."""
    _kill(server)
    with server.connect() as session:
        with system_knobs(server, [RELOADABLE]):
            assert (read_note(note).before, read_note(note).ours) == ({RELOADABLE: None}, {RELOADABLE: []})
        assert session.scalar(f"SHOW {RELOADABLE}") == "100"


def test_a_broken_note_is_named(server: EmbeddedServer, note: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is not guessed what stood there; that of another server with the same system identifier keeps nobody from measuring this one."""
    note.parent.mkdir(exist_ok=True)
    note.write_text("[1]")
    reason = "TypeError: list indices must be integers or slices, not str"
    expected = f"the note of a server's old settings {note} cannot be read ({reason}); put them back by hand and delete it"
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        restore_left_over(server)
    other = note.rename(note.with_stem(f"{note.stem}0"))
    assert restore_left_over(server) is False
    assert caplog.messages == [expected.replace(str(note), str(other))]


def test_a_setting_that_does_not_come_into_force(newest_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that needs a restart does not count as done."""
    monkeypatch.setattr("pytest_pilotscope.postgres.knobs.RELOAD_LIMIT_S", 0.1)
    with newest_server.connect() as session:
        system = SystemKnobs(["max_worker_processes"])
        expected = "settings did not come into force within 0 s of a reload: max_worker_processes (wanted 9, found 8)"
        with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
            system.set(session, {"max_worker_processes": "9"})
        session.execute("ALTER SYSTEM RESET max_worker_processes")


@pytest.fixture
def apart(newest_server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """A server that is restarted and copied, with a setting of its own."""
    with EmbeddedServer(newest_server.binaries) as server:
        with server.connect() as session:
            SystemKnobs([RELOADABLE]).set(session, {RELOADABLE: "42"})
        yield server


def test_a_physical_copy_is_another_server(apart: EmbeddedServer, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The note of a copy is not used on the original, whose own settings stay, and is still there for the copy."""
    with cluster_copy(apart) as copy:
        _kill(copy)
        assert restore_left_over(apart) is False
        with system_knobs(apart, [RELOADABLE]):
            pass
        with apart.connect() as original, copy.connect() as session:
            assert original.scalar("SELECT system_identifier FROM pg_control_system()") == session.scalar(
                "SELECT system_identifier FROM pg_control_system()"
            )
            assert original.scalar(f"SHOW {RELOADABLE}") == "42"
            assert session.scalar(f"SHOW {RELOADABLE}") == "8"
        assert caplog.messages == []
        assert restore_left_over(copy) is True
        with copy.connect() as session:
            assert session.scalar(f"SHOW {RELOADABLE}") == "42"
    assert not list(cache.glob("settings/*.json"))


@contextmanager
def cluster_copy(server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """Start a server on a physical copy of another one's cluster, which is stopped for it."""
    server._postmaster.stop()  # type: ignore[union-attr]
    try:
        copy = EmbeddedServer(server.binaries, template=server.data_folder)
    finally:
        server._start({})
    with copy:
        yield copy


def test_what_somebody_else_has_changed_since_is_left_alone(apart: EmbeddedServer, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only entries that are the killed run's are undone; each is named with what it was and what it is."""
    _kill(apart)
    with apart.connect() as session:
        SystemKnobs([RELOADABLE]).set(session, {RELOADABLE: "9"})
        assert restore_left_over(apart) is True
        assert written(session) == [(RELOADABLE, "9")]
    assert caplog.messages == [
        f"a run that was killed had changed settings of this server: put back: {OTHER} (55 -> no entry); "
        f"left alone, because somebody else has changed them since: {RELOADABLE} (42 before, 9 now)"
    ]
    caplog.clear()
    with apart.connect() as session:
        with system_knobs(apart, [RELOADABLE, OTHER]) as system:
            system.set(session, {RELOADABLE: "7"})
            SystemKnobs([RELOADABLE]).set(session, {RELOADABLE: "10"})
        assert written(session) == [(RELOADABLE, "10")]
    assert caplog.messages == [
        f"settings of the server: left alone, because somebody else has changed them since: {RELOADABLE} (9 before, 10 now)"
    ]
    assert not list(cache.glob("settings/*.json"))


def test_a_value_that_was_noted_and_not_set(apart: EmbeddedServer, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run that was killed between the note and the change has changed nothing."""
    _kill(apart)
    with apart.connect() as session:
        for name, value in ((RELOADABLE, "42"), (OTHER, None)):
            session.execute(f"ALTER SYSTEM {'RESET ' + name if value is None else f'SET {name} = {value}'}")
        assert restore_left_over(apart) is False
    assert caplog.messages == ["a run that was killed had changed settings of this server: they have their old values already"]
    assert not list(cache.glob("settings/*.json"))


def test_a_restart_makes_no_other_server_of_it(apart: EmbeddedServer, cache: Path) -> None:
    """The start of the postmaster is another one, but the files of the data directory are the same ones."""
    _kill(apart)
    apart.restart({})
    assert restore_left_over(apart) is True
    with apart.connect() as session:
        assert session.scalar(f"SHOW {RELOADABLE}") == "42"
    assert not list(cache.glob("settings/*.json"))


def test_a_copy_in_the_place_of_the_original(apart: EmbeddedServer, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Address and data directory are the same, start and files are not: nothing is put back, but it is said, and the note stays."""
    _kill(apart)
    (note,) = cache.glob("settings/*.json")
    noted = read_note(note)
    then = noted.server = replace(noted.server, made="2026-01-01 00:00:00")  # the files that are there now were made later
    noted.path = note = note.rename(note_path(then))
    noted.write()
    apart.restart({})
    assert restore_left_over(apart) is False
    with apart.connect() as session:
        now = identity(session)
        assert session.scalar(f"SHOW {RELOADABLE}") == "8"
        with system_knobs(apart, [RELOADABLE]) as system:
            system.set(session, {RELOADABLE: "9"})
        assert session.scalar(f"SHOW {RELOADABLE}") == "8"
    assert note.exists()
    assert caplog.messages == [
        f"a run that was killed had changed {OTHER}, {RELOADABLE} on a server that is perhaps this one (then: {then}; now: {now}); nothing "
        f"is put back, compare with the note {note} and delete it"
    ]


def test_a_restart_while_settings_are_changed(apart: EmbeddedServer, cache: Path) -> None:
    """The run itself knows that it is the same server: it goes on, and puts the settings back."""
    with system_knobs(apart, [RELOADABLE]) as system:
        apart.restart({})
        with apart.connect() as session:
            system.set(session, {RELOADABLE: "7"})
    with apart.connect() as session:
        assert session.scalar(f"SHOW {RELOADABLE}") == "42"
    assert not list(cache.glob("settings/*.json"))


def test_settings_go_to_no_other_server(apart: EmbeddedServer, newest_server: EmbeddedServer, cache: Path) -> None:
    """If the address leads to another server by now, nothing is changed there."""
    with (
        system_knobs(apart, [RELOADABLE]) as system,
        newest_server.connect() as other,
        pytest.raises(ServerError, match=r"^settings of another server would be changed: the note \S+ is of .*, found .*$"),
    ):
        system.set(other, {RELOADABLE: "7"})
    with newest_server.connect() as session:
        assert written(session) == []


def test_without_consent_there_is_no_alter_system(apart: EmbeddedServer, cache: Path) -> None:
    """Neither to change settings nor to put them back, whatever the role may do; servers of ours need none."""
    given = GivenServer(Dsn(f"{apart.dsn.reveal()} dbname=postgres"), allow_changes=["databases"])
    expected = f"{OTHER} would be changed for the whole server with ALTER SYSTEM: nobody has allowed that: add --allow-changes settings"
    with pytest.raises(UsageError, match=f"^{re.escape(expected)}$"), system_knobs(given, [OTHER]):
        pass
    _kill(apart)
    assert restore_left_over(given) is False
    with apart.connect() as session:
        assert session.scalar(f"SHOW {RELOADABLE}") == "8"


def test_a_plain_role_may_not_alter_system(newest_server: EmbeddedServer, newest_scratch: Session) -> None:
    """It is found out beforehand, and consent does not help."""
    newest_scratch.execute("CREATE ROLE plain_knobs LOGIN")
    try:
        given = GivenServer(Dsn(f"{newest_server.dsn.reveal()} user=plain_knobs dbname=postgres"), allow_changes=["settings"])
        assert given.refusal(Capability.ALTER_SYSTEM) == "role 'plain_knobs' may not change settings of the whole server there"
        assert not given.needs_consent(Capability.ALTER_SYSTEM)
        assert restore_left_over(given) is False
    finally:
        newest_scratch.execute("DROP ROLE plain_knobs")

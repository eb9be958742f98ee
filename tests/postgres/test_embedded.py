"""The embedded server: it starts everywhere, restarts with settings, and is gone when we are."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_pilotscope.errors import CannotConnect, ServerError
from pytest_pilotscope.places import account as account_module
from pytest_pilotscope.places.account import Account, server_account
from pytest_pilotscope.places.folders import cache_folder, server_folder, socket_folder
from pytest_pilotscope.postgres.binaries import find_binaries
from pytest_pilotscope.postgres.clustercache import ClusterCache
from pytest_pilotscope.postgres.clusters import ServerFolder, check_version
from pytest_pilotscope.postgres.connecting import connect
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.process import Watchdog, run_program
from tests.postgres.children import REPOSITORY, START_SERVER, start_child, wait_for_end


def test_a_new_server(server: EmbeddedServer) -> None:
    """It answers, has the pinned settings, listens on no TCP port and says what it is."""
    with server.connect() as session:
        settings = {
            name: session.scalar(f"SHOW {name}") for name in ("jit", "autovacuum", "listen_addresses", "lc_messages", "server_encoding")
        }
    assert settings == {"jit": "off", "autovacuum": "off", "listen_addresses": "", "lc_messages": "C", "server_encoding": "UTF8"}
    report = server.report()
    assert report.header() == f"embedded PostgreSQL {server.binaries.version} (for the tests); no assertions, optimized"
    assert report.gateable
    assert report.version_num == server.version_num
    assert report.settings["autovacuum"] == "off"
    assert "data_directory" not in report.settings


def test_the_process_is_unprivileged_and_apart(newest_server: EmbeddedServer) -> None:
    """PostgreSQL is not root, is in a session of its own (Ctrl-C does not reach it), and only its account can enter its folders."""
    status = Path(f"/proc/{newest_server.pid}/status")
    if not status.exists():
        pytest.skip("needs /proc (Linux)")
    uids = next(line for line in status.read_text().splitlines() if line.startswith("Uid:")).split()[1:]
    assert set(uids) == {str(server_account().uid)} != {"0"}
    assert os.getsid(newest_server.pid) != os.getsid(0)
    assert newest_server.data_folder.stat().st_mode & 0o077 == 0
    parent, account = newest_server.data_folder.parent.stat(), server_account()
    assert (parent.st_uid, parent.st_gid) == (os.geteuid(), account.gid)
    assert parent.st_mode & 0o777 == (0o710 if account.dropped else 0o700)


def test_stop_leaves_nothing(newest_server: EmbeddedServer) -> None:
    """After the block process, data, log and socket are gone; a second stop does nothing."""
    with EmbeddedServer(newest_server.binaries) as server:
        pid, folders = server.pid, [server.data_folder.parent, server._sockets]
        assert all(folder.is_dir() for folder in folders)
    assert wait_for_end(pid)
    assert not any(folder.exists() for folder in folders)
    server.stop()


def test_restart_with_settings_and_back(server: EmbeddedServer) -> None:
    """Settings that need a restart are in force after it, and those of the restart before are not."""
    with EmbeddedServer(server.binaries, settings={"work_mem": "5MB"}) as own:
        own.restart({"shared_buffers": "64MB", "search_path": 'it\'s, "odd"'})
        with own.connect() as session:
            assert [session.scalar(f"SHOW {name}") for name in ("shared_buffers", "work_mem", "search_path")] == [
                "64MB",
                "4MB",
                'it\'s, "odd"',
            ]
        own.restart({})
        with own.connect() as session:
            assert session.scalar("SHOW shared_buffers") != "64MB"


def test_a_failed_restart_brings_the_old_settings_back(server: EmbeddedServer) -> None:
    """The error quotes PostgreSQL's refusal of a setting, and the server is up as before."""
    with EmbeddedServer(server.binaries) as own:
        own.restart({"work_mem": "6MB"})
        expected = (
            r"^the old settings are back, these were refused: \"max_connections = 'lots'\": "
            r"PostgreSQL stopped while starting \(exit status 1\); its log ends with:"
            r"(\n    .*)*\n    [^\n]*invalid value for parameter \"max_connections\": \"lots\"[^\n]*(\n    .*)*$"
        )
        with pytest.raises(ServerError, match=expected):
            own.restart({"max_connections": "lots"})
        with pytest.raises(ServerError, match=r"^'no name' is not the name of a PostgreSQL setting$"):
            own.restart({"no name": "1"})
        with own.connect() as session:
            assert session.scalar("SHOW work_mem") == "6MB"


@pytest.mark.slow
def test_a_server_that_does_not_start_leaves_nothing(newest_server: EmbeddedServer, cache: Path) -> None:
    """The error shows the end of the log; folders are removed."""
    expected = (
        r"^PostgreSQL stopped while starting \(exit status 1\); its log ends with:"
        r"(\n    .*)*\n    [^\n]*unrecognized configuration parameter \"nonsense\"[^\n]*(\n    .*)*$"
    )
    with pytest.raises(ServerError, match=expected):
        EmbeddedServer(newest_server.binaries, settings={"nonsense": "1"})
    assert list(cache.glob("uid-*/servers/*")) == []


def test_a_program_that_cannot_run(newest_server: EmbeddedServer, cache: Path) -> None:
    """A broken initdb is reported with its own words; for one that does not start, the system has them."""
    bindir = cache / "broken" / "bin"
    shutil.copytree(newest_server.binaries.bindir.parent, bindir.parent, symlinks=True)
    (bindir / "initdb").write_text("#!/bin/sh\necho 'no thanks' >&2\nexit 3\n")
    with pytest.raises(ServerError, match=r"^initdb failed with exit status 3: no thanks$"):
        EmbeddedServer(find_binaries(bindir))
    binaries = find_binaries(bindir)
    (bindir / "initdb").chmod(0o644)
    expected = f"the program '{bindir}/initdb' cannot be run (Permission denied); mend it, or choose another build with --pg-bindir"
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        EmbeddedServer(binaries)


def test_a_data_directory_of_another_version(server: EmbeddedServer, cache: Path) -> None:
    """The message names both versions, the folder, and what to do."""
    (cache / "data").mkdir()
    (cache / "data" / "PG_VERSION").write_text("9\n")
    binaries = server.binaries
    expected = (
        f"the data directory {cache}/data is of PostgreSQL 9, but the binaries in {binaries.bindir} are {binaries.version}; "
        "delete it, or choose binaries of that version with --pg-version 9"
    )
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        EmbeddedServer(binaries, template=cache / "data")


def test_what_is_no_data_directory(newest_server: EmbeddedServer, tmp_path: Path) -> None:
    """A folder without PG_VERSION is not started."""
    expected = f"{tmp_path} is not a PostgreSQL data directory: it has no PG_VERSION"
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        check_version(tmp_path, newest_server.binaries)


@pytest.mark.slow
def test_paths_with_blanks(newest_server: EmbeddedServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache and temporary folder may have blanks, quotes and commas in their names."""
    for name in ("a cache, with", "it's tmp"):
        (cache / name).mkdir(mode=0o755)
    monkeypatch.setenv("PILOTSCOPE_CACHE", str(cache / "a cache, with"))
    monkeypatch.setattr(tempfile, "tempdir", str(cache / "it's tmp"))
    with EmbeddedServer(newest_server.binaries, why="blanks") as own, own.connect() as session:
        assert session.scalar("SELECT 1") == 1
        assert own._sockets.parent == cache / "it's tmp"
        assert own.data_folder.is_relative_to(cache / "a cache, with")


def test_a_long_temporary_folder(newest_server: EmbeddedServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unix socket's path is limited to about 100 bytes; a shorter folder is used then."""
    long = cache / ("x" * 100)
    long.mkdir(mode=0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with EmbeddedServer(newest_server.binaries) as own, own.connect() as session:
        assert session.scalar("SELECT 1") == 1
        assert not list(long.iterdir())


def test_the_socket_folder_names_the_xdist_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers have folders of their own anyway; the name says whose it is."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw7")
    assert socket_folder(server_account()).name.startswith("pilotscope-gw7-")


VARIABLES = {
    "PGAPPNAME": "somebody",
    "PGCHANNELBINDING": "require",
    "PGCLIENTENCODING": "LATIN1",
    "PGCONNECT_TIMEOUT": "nonsense",
    "PGDATA": "/nowhere",
    "PGDATABASE": "y",
    "PGDATESTYLE": "german",
    "PGGEQO": "off",
    "PGGSSDELEGATION": "1",
    "PGGSSENCMODE": "require",
    "PGHOST": "nowhere",
    "PGHOSTADDR": "127.0.0.1",
    "PGKRBSRVNAME": "x",
    "PGLOADBALANCEHOSTS": "nonsense",
    "PGOPTIONS": "-c work_mem=64kB",
    "PGPASSFILE": "/nowhere",
    "PGPASSWORD": "hunter2",
    "PGPORT": "1",
    "PGREQUIREAUTH": "gss",
    "PGREQUIREPEER": "somebody",
    "PGREQUIRESSL": "1",
    "PGSERVICE": "nowhere",
    "PGSERVICEFILE": "/nowhere",
    "PGSSLCERT": "/nowhere",
    "PGSSLCERTMODE": "require",
    "PGSSLMINPROTOCOLVERSION": "nonsense",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLROOTCERT": "/nowhere",
    "PGSYSCONFDIR": "/nowhere",
    "PGTARGETSESSIONATTRS": "standby",
    "PGTZ": "Asia/Tokyo",
    "PGUSER": "x",
}
"""Environment variables of PostgreSQL's programs and clients, each with a value that does harm."""

SET_BY_VARIABLES = ("work_mem", "geqo", "timezone", "datestyle", "client_encoding", "application_name")


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_of_libpq_does_not_reach_a_server_of_ours(
    newest_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It leads to no other server, keeps nobody from connecting, and sets nothing; the user's environment keeps it."""
    with newest_server.connect() as session:
        expected = session.execute("SELECT name, setting FROM pg_settings WHERE name = ANY (%s) ORDER BY 1", (list(SET_BY_VARIABLES),))
    monkeypatch.setenv(name, VARIABLES[name])
    with newest_server.connect() as session:
        found = session.execute("SELECT name, setting FROM pg_settings WHERE name = ANY (%s) ORDER BY 1", (list(SET_BY_VARIABLES),))
        assert (found, session.scalar("SELECT inet_server_addr()")) == (expected, None)
    shown = subprocess.run([sys.executable, "-c", f"import os; print(os.environ[{name!r}])"], capture_output=True, text=True, check=True)
    assert shown.stdout.rstrip() == os.environ[name] == VARIABLES[name]


def test_a_server_starts_with_all_variables(newest_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They and the files in the user's home are for other servers: initdb, PostgreSQL and our sessions see none of them."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PGSERVICE", "mine")
    monkeypatch.delenv("PGSERVICEFILE")
    (tmp_path / ".pg_service.conf").write_text("[mine]\nhostaddr=127.0.0.1\nport=1\noptions=-c work_mem=64kB\n")
    (tmp_path / ".pgpass").write_text("*:*:*:*:hunter2\n")
    (tmp_path / ".pgpass").chmod(0o666)  # libpq would warn
    with EmbeddedServer(newest_server.binaries) as own, own.connect() as session:
        assert session.scalar("SHOW work_mem") == "4MB"
        folder = own.data_folder
        run_program(["sh", "-c", "env > environment"], server_account(), folder)
        assert not [line for line in (folder / "environment").read_text().splitlines() if line.startswith("PG")]


def test_a_server_of_ours_is_known_by_its_token(newest_server: EmbeddedServer) -> None:
    """Another server that answers at its address is refused, be it one of ours; a restart keeps the token."""
    with EmbeddedServer(newest_server.binaries) as own:
        own.restart({})
        own.connect().close()
        sockets, own._sockets = own._sockets, newest_server._sockets
        expected = f"another server than the one that was started here answers at {own.dsn}: it does not have the token of ours"
        with pytest.raises(CannotConnect, match=f"^{re.escape(expected)}$"):
            own.connect()
        own._sockets = sockets
        own.connect().close()


@pytest.mark.slow
def test_what_cannot_heal_is_not_tried_again(newest_server: EmbeddedServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that runs and refuses us ends the start at once, with its reason and log, and nothing is left of it."""
    asked: list[int] = []

    def refuse(*_: object, **__: object) -> None:
        asked.append(1)
        connect(newest_server.dsn, dbname="nowhere")

    monkeypatch.setattr("pytest_pilotscope.postgres.embedded.connect", refuse)
    assert cache.is_dir()
    expected = r"^PostgreSQL runs, but cannot be used: cannot connect to .*: FATAL: database \"nowhere\" does not exist; its log ends with:"
    with pytest.raises(ServerError, match=expected):
        EmbeddedServer(newest_server.binaries)
    assert asked == [1]
    assert list(server_folder(server_account(), "servers").iterdir()) == []


def test_libraries_are_loaded_into_every_session(newest_server: EmbeddedServer, cache: Path) -> None:
    """They are copied to where the server's account can read them, by whatever name."""
    private = cache / "private folder"
    private.mkdir(mode=0o700)
    installed = newest_server.binaries.bindir.parent / "lib" / "postgresql"
    if not (installed / "plpgsql.so").is_file():
        pytest.skip("no plpgsql.so to stand in for a library")
    library = Path(shutil.copy(installed / "plpgsql.so", private / "a, library.so"))
    with EmbeddedServer(newest_server.binaries, libraries=[library]) as own, own.connect() as session:
        assert session.scalar("SHOW session_preload_libraries").endswith('/lib/a, library.so"')
        assert session.scalar("SELECT count(*) FROM pg_settings WHERE name = 'plpgsql.variable_conflict'") == 1


def test_two_servers_at_once(newest_server: EmbeddedServer) -> None:
    """They do not see each other."""
    with EmbeddedServer(newest_server.binaries) as one, EmbeddedServer(newest_server.binaries) as other:
        with one.connect() as session:
            session.execute("CREATE DATABASE only_here")
        with other.connect() as session:
            assert session.scalar("SELECT count(*) FROM pg_database WHERE datname = 'only_here'") == 0


def test_a_server_outlives_the_thread_that_started_it(newest_server: EmbeddedServer) -> None:
    """The kernel's death signal is tied to threads; ending one must not end the server."""
    started: list[EmbeddedServer] = []
    thread = threading.Thread(target=lambda: started.append(EmbeddedServer(newest_server.binaries)))
    thread.start()
    thread.join()
    with started[0] as server, server.connect() as session:
        assert session.scalar("SELECT 1") == 1


def test_kill_9_leaves_neither_server_nor_files() -> None:
    """When the process that uses the server is killed, PostgreSQL ends and its folders are deleted."""
    child = start_child(START_SERVER + "sys.stdin.read()")
    assert child.stdout is not None
    server, watchdog, *folders = json.loads(child.stdout.readline())
    child.kill()
    child.communicate()
    assert wait_for_end(server)
    assert wait_for_end(watchdog)
    assert [folder for folder in folders if Path(folder).exists()] == []


def test_kill_9_is_noticed_while_a_forked_child_lives() -> None:
    """A child of the killed process still holds the pipe to the watchdog; the server ends all the same."""
    if not hasattr(os, "pidfd_open"):
        pytest.skip("needs pidfd_open (Linux)")
    fork = "if os.fork() == 0:\n    sys.stdin.read()\n    os._exit(0)\nsys.stdin.read()"
    child = start_child(START_SERVER + fork)
    assert child.stdout is not None
    server, watchdog, *_ = json.loads(child.stdout.readline())
    child.kill()
    child.wait()
    assert wait_for_end(server)
    assert wait_for_end(watchdog)
    child.communicate()  # closes the forked child's standard input, which ends it


def test_killed_while_stopping_leaves_nothing() -> None:
    """The watchdog, which has been asked for the end, deletes the folders although we are killed before we have looked after them."""
    child = start_child(START_SERVER + "import shutil\nshutil.rmtree = lambda *_, **__: os.kill(os.getpid(), 9)\nserver.stop()")
    output, _ = child.communicate()
    assert child.returncode == -signal.SIGKILL
    server, watchdog, *folders = json.loads(output)
    assert wait_for_end(server)
    assert wait_for_end(watchdog)
    assert [folder for folder in folders if Path(folder).exists()] == []


@pytest.mark.slow
def test_killing_the_watchdog_ends_the_server(newest_server: EmbeddedServer) -> None:
    """PostgreSQL does not outlive its watchdog; the next server removes the folders of a run that was killed together with it."""
    if not Path("/proc").is_dir():
        pytest.skip("needs PR_SET_PDEATHSIG (Linux)")
    child = start_child(START_SERVER + "sys.stdin.read()")
    assert child.stdout is not None
    server, watchdog, *folders = json.loads(child.stdout.readline())
    os.kill(watchdog, signal.SIGKILL)
    assert wait_for_end(server)
    child.kill()
    child.communicate()
    with EmbeddedServer(newest_server.binaries):
        assert [folder for folder in folders if Path(folder).exists()] == []


def test_a_process_that_forgets_to_stop_leaves_nothing() -> None:
    """Without `stop` the server ends with the interpreter."""
    child = start_child(START_SERVER)
    output, errors = child.communicate()
    assert (child.returncode, errors) == (0, "")
    server, watchdog, *folders = json.loads(output)
    assert wait_for_end(server)
    assert wait_for_end(watchdog)
    assert [folder for folder in folders if Path(folder).exists()] == []


def test_leftovers_of_killed_machines_are_removed(newest_server: EmbeddedServer) -> None:
    """A folder whose lock nobody holds goes at the next start; that of a running server stays."""
    leftover = server_folder(server_account(), "servers") / "server-leftover"
    (leftover / "data").mkdir(parents=True)
    (leftover / "lock").touch()
    with EmbeddedServer(newest_server.binaries):
        assert not leftover.exists()
        assert newest_server.data_folder.exists()


def test_servers_that_come_at_the_same_time() -> None:
    """Nobody takes a folder that is just being made for a leftover."""
    account = server_account()

    def come_and_go(_: int) -> None:
        with Watchdog() as process:
            assert ServerFolder(account, process).path.exists()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(40)))


@pytest.mark.slow
def test_as_an_ordinary_user(cache: Path) -> None:
    """Started by an unprivileged user, everything is that user's own."""
    account = server_account()  # for root, its unprivileged account stands in for the user
    if account.dropped:
        os.chown(cache, account.uid, account.gid)
    report = "with server.connect() as session: print(os.geteuid(), server.data_folder.stat().st_uid, session.scalar('SELECT 1'))"
    child = start_child(
        START_SERVER + report,
        python=_python_for(account),
        environment={"HOME": str(cache), "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        cwd="/",
        **account.subprocess_options(),
    )
    output, errors = child.communicate()
    assert errors == ""
    uid, owner, one = output.splitlines()[1].split()
    assert (uid == owner != "0", one) == (True, "1")


def _python_for(account: Account) -> str:
    """Return a Python of this version that `account` can run together with this checkout."""
    needs = f"import sys; assert sys.version_info[:2] == {sys.version_info[:2]}; import psycopg2, pytest_pilotscope"
    for python in (sys.executable, "/usr/bin/python3"):
        environment = {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
        with contextlib.suppress(OSError):
            answer = subprocess.run(
                [python, "-c", needs], env=environment, cwd="/", capture_output=True, check=False, **account.subprocess_options()
            )
            if answer.returncode == 0:
                return python
    pytest.skip(f"no Python {sys.version_info[0]}.{sys.version_info[1]} with our packages that uid {account.uid} can run")


def test_root_without_an_account_to_hand_over_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the accounts that were looked for."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(account_module, "CANDIDATES", ("no-such-user", "nor-this-one"))
    expected = "PostgreSQL does not run as root and none of the accounts no-such-user, nor-this-one exists; run as another user"
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        server_account()


def test_the_cache_of_root_is_where_servers_can_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's home is closed to the server's account; a cache chosen there is refused, the default one moves."""
    if os.geteuid() != 0:
        pytest.skip("only root has to hand its server to another account")
    account = server_account()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.delenv("PILOTSCOPE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(closed))
    assert cache_folder(account) == Path("/var/cache/pilotscope")
    monkeypatch.setenv("PILOTSCOPE_CACHE", str(closed / "x"))
    expected = (
        f"the cache folder {closed}/x is out of reach of uid {account.uid}, which PostgreSQL runs as; "
        "set PILOTSCOPE_CACHE to a folder whose parents everybody may enter"
    )
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        cache_folder(account)


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which folder and why."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("PILOTSCOPE_CACHE", str(tmp_path / "file" / "x"))
    reason = os.strerror(errno.ENOTDIR)
    expected = f"cannot make the cache folder {tmp_path}/file/x: {reason}; set PILOTSCOPE_CACHE to a folder that can be written"
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        cache_folder(server_account())


@pytest.mark.slow
def test_a_copied_cluster_is_the_template(newest_server: EmbeddedServer) -> None:
    """A server works on a copy; what it does is not seen by the next one."""
    template = ClusterCache(server_account()).empty(newest_server.binaries)
    with EmbeddedServer(newest_server.binaries, template=template) as one, one.connect() as session:
        session.execute("CREATE TABLE t (i int)")
    with EmbeddedServer(newest_server.binaries, template=template) as other, other.connect() as session:
        assert session.scalar("SELECT to_regclass('t')") is None


def test_the_log_can_be_read(newest_server: EmbeddedServer) -> None:
    """PostgreSQL's standard error is in the server's folder."""
    assert "database system is ready to accept connections" in newest_server.log.read_text(errors="replace")


def test_nothing_is_reachable_by_tcp(newest_server: EmbeddedServer) -> None:
    """The server process has no listening TCP socket."""
    found = Path(f"/proc/{newest_server.pid}/net/tcp")
    if not found.exists() or shutil.which("ss") is None:
        with socket.socket() as probe:  # without the tools: port 5432 is not ours
            probe.settimeout(1)
            assert probe.connect_ex(("127.0.0.1", 1)) != 0
        return
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    assert f"pid={newest_server.pid}," not in listening


@pytest.mark.slow
def test_a_strict_umask(newest_server: EmbeddedServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's umask may close new folders to others; the cache is opened for the server's account all the same."""
    monkeypatch.setenv("PILOTSCOPE_CACHE", str(cache / "new"))
    before = os.umask(0o077)
    try:
        with EmbeddedServer(newest_server.binaries) as own, own.connect() as session:
            assert session.scalar("SELECT 1") == 1
    finally:
        os.umask(before)

"""A server by its DSN: what we may do there is found out, what is not ours is not touched, and no password shows."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_pilotscope.errors import DatasetError, ServerError, StatementFailed, UsageError
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.postgres import databases
from pytest_pilotscope.postgres.connecting import connect, dsn_of
from pytest_pilotscope.postgres.databases import (
    copy_database,
    create_database,
    drop_database,
    hold,
    locked,
    make_copy,
    mark_of,
    temporary_copy,
    unique_name,
    write_mark,
)
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.given import GivenServer
from pytest_pilotscope.postgres.server import Capability
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import PostgreSQLConfig
from pytest_pilotscope.provision.loading import content_key, load_database, loaded_name
from tests.toy import Toy

SECRET = "hunter2"  # noqa: S105 - what must not show


@pytest.fixture
def administrator(newest_server: EmbeddedServer) -> Iterator[Session]:
    """Open a superuser's session on the given server; drop everything that tests make there."""
    with newest_server.connect() as session:
        yield session
        for name in _ours(session):
            session.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        session.execute("DROP ROLE IF EXISTS maker; DROP ROLE IF EXISTS reader")


def _given(server: EmbeddedServer, role: str, database: str = "postgres") -> GivenServer:
    dsn = dsn_of(host=str(server._sockets), port=5432, user=role, password=SECRET, dbname=database)
    return GivenServer(dsn, allow_changes=("databases", "settings"))


def _ours(session: Session) -> set[str]:
    return {row[0] for row in session.execute("SELECT datname FROM pg_database WHERE datname LIKE 'pilotscope_toy%'")}


@pytest.fixture
def maker(newest_server: EmbeddedServer, administrator: Session) -> GivenServer:
    """Give the server to a role that may create databases and nothing else."""
    administrator.execute("CREATE ROLE maker LOGIN CREATEDB")
    return _given(newest_server, "maker")


@pytest.fixture
def elsewhere(newest_server: EmbeddedServer, maker: GivenServer, administrator: Session) -> Iterator[GivenServer]:
    """Give the same server and role by a DSN that names another database."""
    administrator.execute("CREATE DATABASE elsewhere")
    assert maker.capabilities
    yield _given(newest_server, "maker", "elsewhere")
    administrator.execute("DROP DATABASE elsewhere WITH (FORCE)")


@pytest.fixture
def reader(newest_server: EmbeddedServer, administrator: Session) -> GivenServer:
    """Give the server to a role without any right."""
    administrator.execute("CREATE ROLE reader LOGIN")
    return _given(newest_server, "reader")


def test_capabilities_follow_the_role(newest_server: EmbeddedServer, maker: GivenServer, reader: GivenServer) -> None:
    """A superuser may all but restart, CREATEDB is found out, and a plain role may nothing."""
    assert _given(newest_server, "postgres").capabilities == set(Capability) - {Capability.RESTART}
    assert maker.capabilities == {Capability.CREATE_DATABASE}
    assert reader.capabilities == frozenset()
    assert reader.version_num == newest_server.version_num


def test_report_without_rights(reader: GivenServer, newest_server: EmbeddedServer) -> None:
    """The report calls everything unknown that the role may not read."""
    report = reader.report()
    assert report.header() == f"given PostgreSQL {newest_server.binaries.version} (--server); no assertions, optimization unknown"
    assert report.configure == ""


def test_it_is_neither_restarted_nor_stopped(maker: GivenServer) -> None:
    """Restarting is refused with what to use instead; stopping does nothing."""
    expected = f"the server {maker.dsn} is not ours, so it is not restarted with work_mem; use --server embedded or --server container"
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        maker.restart({"work_mem": "1MB"})
    maker.stop()
    with maker.connect() as session:
        assert session.scalar("SELECT 1") == 1


def test_a_dsn_that_does_not_answer() -> None:
    """The message has host and port, what to check, and not the password."""
    expected = (
        'cannot connect to postgresql://me:***@127.0.0.1:1/db: connection to server at "127.0.0.1", port 1 failed: Connection refused '
        "Is the server running on that host and accepting TCP/IP connections?; "
        "check host, port, user and password, and that the server is running"
    )
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$") as caught:
        GivenServer(Dsn(f"postgresql://me:{SECRET}@127.0.0.1:1/db"))
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert SECRET not in shown
    assert "***" in shown


def test_a_role_that_does_not_exist(newest_server: EmbeddedServer) -> None:
    """libpq's own words are passed on."""
    with pytest.raises(ServerError, match=r"^cannot connect to .*password=\*\*\*.*: .*role \"nobody_here\" does not exist; check host, "):
        _given(newest_server, "nobody_here")


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://me:hun@ter2@db.example/x", "postgresql://me:***@db.example/x"),
        ("postgresql://me:hun/ter2@db.example/x", "postgresql://me:***@db.example/x"),
        ("postgresql://me:hunter2%@db.example/x", "postgresql://me:***@db.example/x"),
        ("postgresql:/me:hunter2@db.example/x", "postgresql:/me:***@db.example/x"),
        ("host=db.example password='hunter2", "host=db.example password=***"),
    ],
)
def test_a_dsn_that_libpq_would_misread(dsn: str, shown: str) -> None:
    """libpq's message would quote a piece of the password, so it is not shown; ours says how to write it."""
    expected = (
        f"cannot read the connection string {shown}: expected postgresql://user:password@host:port/database or key=value pairs; "
        "in a URL, write special characters of the password percent-encoded (@ is %40, / is %2F, : is %3A, % is %25)"
    )
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        connect(Dsn(dsn))


def test_a_session_does_not_show_the_password(maker: GivenServer) -> None:
    """Neither session nor server nor their errors."""
    with maker.connect() as session:
        assert SECRET not in repr(session) + repr(maker) + session.dsn + maker.report().header()
        with pytest.raises(StatementFailed, match=r"^statement failed: division by zero \[22012\]: SELECT 1/0$") as caught:
            session.execute("SELECT 1/0")
    assert SECRET not in "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())


def test_a_dataset_is_loaded_into_a_database_of_its_own_and_reused(maker: GivenServer, administrator: Session) -> None:
    """Loaded once, marked, with autovacuum off for its tables only; the second time nothing is loaded."""
    loads: list[int] = []
    toy = Toy(during=lambda: loads.append(1))
    load_database(maker, toy)
    load_database(maker, toy)
    assert loads == [1]
    name = loaded_name(toy)
    mark = mark_of(administrator, name)
    assert mark is not None
    assert {key: mark[key] for key in ("dataset", "key", "state")} == {"dataset": "toy", "key": content_key(toy), "state": "complete"}
    with maker.connect(name) as session:
        assert session.scalar("SELECT count(*) FROM b") == 100
        assert session.scalar("SELECT reltuples FROM pg_class WHERE relname = 'b'") == 100


def test_autovacuum_is_kept_off_our_tables_only(newest_server: EmbeddedServer, cache_of_settings: EmbeddedServer) -> None:
    """On a server with autovacuum, the loaded tables opt out; nothing of the server is changed."""
    assert newest_server is not cache_of_settings
    load_database(cache_of_settings, Toy())
    with cache_of_settings.connect(loaded_name(Toy())) as session:
        assert session.execute("SELECT DISTINCT reloptions FROM pg_class WHERE relname IN ('a', 'b')") == [(["autovacuum_enabled=off"],)]
        assert session.scalar("SHOW autovacuum") == "on"


@pytest.fixture
def cache_of_settings(newest_server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """Start a server with autovacuum on."""
    with EmbeddedServer(newest_server.binaries, settings={"autovacuum": "on"}) as server:
        yield server


def test_without_the_right_to_create_databases(reader: GivenServer) -> None:
    """The message names role and right."""
    expected = (
        f"loading dataset 'toy' would make the database {loaded_name(Toy())!r} on this server: role 'reader' may not create databases "
        "there: have a superuser run ALTER ROLE reader CREATEDB; or use --server embedded"
    )
    with pytest.raises(DatasetError, match=f"^{re.escape(expected)}$"):
        load_database(reader, Toy())
    expected = r"^copying database 'postgres' would make the database 'pilotscope_postgres_[0-9a-f]{16}' on this server: role 'reader' may "
    with pytest.raises(DatasetError, match=expected):
        temporary_copy(reader, "postgres").__enter__()


def test_a_database_of_that_name_that_is_not_ours(maker: GivenServer, administrator: Session) -> None:
    """It is left alone."""
    name = loaded_name(Toy())
    administrator.execute(f"CREATE DATABASE {name}")
    expected = f"database {name!r} on the server was not made by pilotscope; drop or rename it, dataset 'toy' wants the name"
    with pytest.raises(DatasetError, match=f"^{re.escape(expected)}$"):
        load_database(maker, Toy())
    with pytest.raises(DatasetError, match=f"^{re.escape(f'database {name!r} was not made by pilotscope, so it is not dropped')}$"):
        drop_database(administrator, name)
    assert mark_of(administrator, name) == {}


def test_what_a_killed_loader_left_is_dropped(maker: GivenServer, administrator: Session) -> None:
    """A database gets its name when it is complete; before that, marked or not yet, it is a leftover once its loader is gone."""
    for state in ({"state": "loading"}, {}):
        name = unique_name(loaded_name(Toy()))
        administrator.execute(f"CREATE DATABASE {name} OWNER maker")
        if state:
            write_mark(administrator, name, state)
    load_database(maker, Toy())
    assert _ours(administrator) == {loaded_name(Toy())}
    assert (mark_of(administrator, loaded_name(Toy())) or {})["state"] == "complete"


def test_a_loader_that_ends_before_the_mark(maker: GivenServer, administrator: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database that it made without getting to mark it does not keep the next one from loading, nor does it stay."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(databases, "write_mark", end)
        with pytest.raises(KeyboardInterrupt):
            load_database(maker, Toy())
    assert len(_ours(administrator)) == 1
    load_database(maker, Toy())
    assert _ours(administrator) == {loaded_name(Toy())}


def test_a_mark_survives_a_crash_of_the_server(newest_server: EmbeddedServer) -> None:
    """A copy has its mark and its settings after a crash on a server that writes its log late; so it can be dropped."""
    late = {"synchronous_commit": "off", "wal_writer_delay": "10s"}
    with EmbeddedServer(newest_server.binaries, settings=late) as server:
        with server.connect() as session:
            create_database(session, "pilotscope_one", {"state": "complete"})
            session.execute("ALTER DATABASE pilotscope_one SET work_mem = '9MB'")
            copy_database(session, "pilotscope_one", "pilotscope_two", {"state": "copy"}, by_file=True)
            os.kill(session.backend_pid, signal.SIGKILL)
        with _once_recovered(server, "pilotscope_two") as session:
            assert mark_of(session, "pilotscope_two") == {"state": "copy"}
            assert session.scalar("SHOW work_mem") == "9MB"


def _once_recovered(server: EmbeddedServer, database: str) -> Session:
    """Open a session as soon as the server has recovered from its crash."""
    end_s = time.monotonic() + 60
    while True:
        try:
            session = server.connect(database)
            session.execute("SELECT pg_sleep(0.1)")  # a server that has not noticed its crash yet ends this
        except ServerError:
            assert time.monotonic() < end_s, "the server did not recover"
        else:
            return session


def test_a_failed_load_leaves_no_database(maker: GivenServer, administrator: Session) -> None:
    """The dataset's own exception arrives."""

    def fail() -> None:
        raise ValueError("no data today")

    with pytest.raises(ValueError, match=r"^no data today$"):
        load_database(maker, Toy(during=fail))
    assert _ours(administrator) == set()


def test_temporary_copies_are_dropped_and_those_of_the_killed_too(maker: GivenServer, administrator: Session) -> None:
    """A copy lives as long as its block; one whose maker is gone is dropped when the next is made; one in use stays."""
    load_database(maker, Toy())
    source = loaded_name(Toy())
    left = unique_name(source)
    administrator.execute(f"CREATE DATABASE {left} OWNER maker")
    write_mark(administrator, left, {"state": "copy", "of": source})
    with temporary_copy(maker, source) as one, temporary_copy(maker, source) as two:
        assert _ours(administrator) == {source, one, two}
        with maker.connect(one) as session, maker.connect(two) as other:
            session.execute("DROP TABLE b")
            assert other.scalar("SELECT count(*) FROM b") == 100
    assert _ours(administrator) == {source}


def test_runs_that_connect_to_different_databases_see_each_other(
    maker: GivenServer, elsewhere: GivenServer, administrator: Session
) -> None:
    """A copy is in use for runs with another DSN, too, also before it is marked."""
    load_database(maker, Toy())
    source = loaded_name(Toy())
    unmarked = unique_name(source)
    with temporary_copy(maker, source) as one, maker.connect() as keeper:
        hold(keeper, unmarked)
        administrator.execute(f"CREATE DATABASE {unmarked} OWNER maker")
        with temporary_copy(elsewhere, source) as two:
            assert _ours(administrator) == {source, one, two, unmarked}
            with pytest.raises(
                DatasetError, match=f"^database {two!r} is in use by another run on this server; wait until that has ended$"
            ):
                make_copy(maker, keeper, source, two)


def test_a_lock_is_one_for_all_databases(maker: GivenServer, elsewhere: GivenServer, administrator: Session) -> None:
    """Whoever loads a dataset is waited for, whichever database the two are connected to; another name is free."""
    order = []

    def wait_and_enter() -> None:
        with locked(there, "x"):
            order.append("there")

    with maker.connect() as here, elsewhere.connect() as there, ThreadPoolExecutor(1) as pool:
        with locked(there, "y"), locked(here, "z"):
            pass
        with locked(here, "x"):
            waiting = pool.submit(wait_and_enter)
            while "pg_sleep" not in administrator.scalar("SELECT query FROM pg_stat_activity WHERE pid = %s", (there.backend_pid,)):
                assert not waiting.done()
            order.append("here")
        waiting.result(timeout=60)
    assert order == ["here", "there"]


@pytest.mark.slow
def test_only_what_our_role_may_drop_is_dropped(
    newest_server: EmbeddedServer, maker: GivenServer, reader: GivenServer, administrator: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """Others' leftovers are not tried; what is not marked must be our own, even for a superuser, and have a name that only we make."""
    assert reader.capabilities == frozenset()
    load_database(maker, Toy())
    source = loaded_name(Toy())
    theirs, unmarked, named = unique_name(source), unique_name(source), "pilotscope_toy_of_mine"
    for name, owner in ((theirs, "postgres"), (unmarked, "reader"), (named, "maker")):
        administrator.execute(f"CREATE DATABASE {name} OWNER {owner}")
    write_mark(administrator, theirs, {"state": "copy", "of": source})
    with temporary_copy(maker, source) as copy:
        assert _ours(administrator) == {source, copy, theirs, unmarked, named}
    with temporary_copy(_given(newest_server, "postgres"), source) as copy:
        assert _ours(administrator) == {source, copy, unmarked, named}
    assert caplog.messages == []


def test_a_leftover_that_cannot_be_dropped(
    newest_server: EmbeddedServer, maker: GivenServer, administrator: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """Our role may not disconnect a superuser who looks into it: that is logged, and ends nothing."""
    load_database(maker, Toy())
    source = loaded_name(Toy())
    left = unique_name(source)
    administrator.execute(f"CREATE DATABASE {left} OWNER maker")
    with newest_server.connect(left), temporary_copy(maker, source) as copy:
        assert _ours(administrator) == {source, copy, left}
    assert len(caplog.messages) == 1
    assert re.fullmatch(
        f"the database {left}, left behind by a run that is gone, could not be dropped: statement failed: permission denied to terminate "
        rf"process .*\[42501\]: DROP DATABASE IF EXISTS \"{left}\" WITH \(FORCE\)",
        caplog.messages[0],
    )
    with temporary_copy(maker, source):
        assert left not in _ours(administrator)


def test_names_are_ours_alone() -> None:
    """They begin with `pilotscope_`, fit into 63 bytes, and cut no character in two."""
    for source in ("toy", "pilotscope_toy_12345678", "x" * 63, "ü" * 31, "aü" * 21):
        name = unique_name(source)
        assert re.fullmatch(r"pilotscope_(toy|toy_12345678|x{35}|ü{17}|(aü){11}a?)_[0-9a-f]{16}", name)
        assert len(name.encode()) <= 63
        assert unique_name(source) != name


def test_a_copy_is_dropped_when_its_block_fails(maker: GivenServer, administrator: Session) -> None:
    """The block's exception is not swallowed, the copy is gone, sessions in it are cut off."""
    load_database(maker, Toy())
    copy = temporary_copy(maker, loaded_name(Toy()))
    maker.connect(copy.__enter__())
    error = ValueError("mine")
    assert not copy.__exit__(ValueError, error, None)
    assert _ours(administrator) == {loaded_name(Toy())}


@pytest.mark.slow
def test_a_database_in_use_is_not_copied(maker: GivenServer) -> None:
    """The message says who is in it."""
    load_database(maker, Toy())
    source = loaded_name(Toy())
    with maker.connect(source) as session:
        expected = (
            f"database {source!r} cannot be copied while it is in use, by pilotscope (process {session.backend_pid}); "
            "PostgreSQL copies idle databases only"
        )
        with pytest.raises(DatasetError, match=f"^{re.escape(expected)}$"):
            temporary_copy(maker, source).__enter__()


def test_a_copy_can_be_copied(maker: GivenServer, administrator: Session) -> None:
    """A copy in use is idle as long as nobody is connected to it, so copies of it can be made; all go."""
    load_database(maker, Toy())
    source = loaded_name(Toy())
    with temporary_copy(maker, source) as copy, temporary_copy(maker, copy) as other:
        assert _ours(administrator) == {source, copy, other}
    assert _ours(administrator) == {source}


@pytest.mark.parametrize("name", ["PGOPTIONS", "PGGEQO", "PGDATESTYLE", "PGTZ"])
def test_variables_that_set_something_are_not_passed_on(
    newest_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """They would be measured, and in no record; the warning says where to write them, and there they count and are recorded."""
    with newest_server.connect() as session:
        expected = session.execute("SELECT name, setting FROM pg_settings WHERE name IN ('work_mem', 'geqo', 'timezone', 'datestyle')")
    monkeypatch.setenv(name, {"PGOPTIONS": "-c work_mem=64kB", "PGGEQO": "off", "PGDATESTYLE": "german", "PGTZ": "Asia/Tokyo"}[name])
    given = _given(newest_server, "postgres")
    with given.connect() as session:
        found = session.execute("SELECT name, setting FROM pg_settings WHERE name IN ('work_mem', 'geqo', 'timezone', 'datestyle')")
    assert found == expected
    assert caplog.messages == [
        f"not passed on to the server, because it would change what is measured: {name}; if you want it, write it into the DSN as "
        "options='-c name=value'"
    ]
    chosen = GivenServer(Dsn(f"{given.dsn.reveal()} options='-c geqo=off'"))
    assert chosen.report().settings["geqo"] == "off"


@pytest.fixture
def port(newest_server: EmbeddedServer) -> Iterator[int]:
    """Let a TCP port lead to the server's socket."""

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        while piece := source.recv(1 << 16):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        caller, _ = listener.accept()
        with caller, socket.socket(socket.AF_UNIX) as server, ThreadPoolExecutor(1) as there:
            server.connect(str(newest_server._sockets / ".s.PGSQL.5432"))
            there.submit(pass_on, caller, server)
            pass_on(server, caller)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        pool.submit(serve)
        yield listener.getsockname()[1]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other names for these options")
@pytest.mark.parametrize(("given", "idle_s"), [({}, 30), ({"keepalives_idle": 7}, 7)])
def test_a_network_that_is_gone_is_noticed(port: int, given: dict[str, int], idle_s: int) -> None:
    """Nobody answers when a cable is cut, so the kernel asks after 30 s, or after what the DSN says, and gives up a minute later."""
    with connect(dsn_of(host="127.0.0.1", port=port, user="postgres", dbname="postgres", sslmode="disable", **given)) as session:
        line = socket.socket(fileno=os.dup(session._connection.fileno()))
        with line:
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert [line.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [idle_s, 10, 6, 90_000]


def test_variables_that_lead_to_a_server_are_for_given_ones(newest_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DSN may leave out what the user's environment says, while a server of ours does not see it."""
    for name, value in {"PGHOST": str(newest_server._sockets), "PGPORT": "5432", "PGUSER": "postgres"}.items():
        monkeypatch.setenv(name, value)
    given = GivenServer(Dsn("dbname=postgres"))
    monkeypatch.setenv("PGUSER", "nobody_here")
    with newest_server.connect() as session:
        assert session.scalar("SELECT current_user") == "postgres"
    with pytest.raises(ServerError, match="nobody_here"):
        given.connect()


def test_threads_do_not_take_each_others_variables(newest_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions on servers of ours and on given ones may be opened at the same time."""
    monkeypatch.setenv("PGUSER", "postgres")
    monkeypatch.setenv("PGHOST", str(newest_server._sockets))
    given = GivenServer(Dsn("port=5432 dbname=postgres"))

    def opened(number: int) -> str:
        with (given if number % 2 else newest_server).connect() as session:
            return str(session.scalar("SELECT current_user"))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(opened, range(64))) == {"postgres"}


@pytest.mark.parametrize("allowed", [(), ("settings",)])
def test_without_consent_nothing_is_made(newest_server: EmbeddedServer, administrator: Session, allowed: tuple[str, ...]) -> None:
    """Not even by a superuser, nor are leftovers dropped: the message says what would be made, and how to allow it."""
    dsn = dsn_of(host=str(newest_server._sockets), port=5432, user="postgres", password=SECRET, dbname="postgres")
    given = GivenServer(dsn, allow_changes=allowed)
    left = unique_name(loaded_name(Toy()))
    administrator.execute(f"CREATE DATABASE {left}")
    before = administrator.execute("SELECT datname FROM pg_database")
    end = "on this server: nobody has allowed that: add --allow-changes databases; or use --server embedded"
    expected = f"loading dataset 'toy' would make the database {loaded_name(Toy())!r} {end}"
    with pytest.raises(DatasetError, match=f"^{re.escape(expected)}$"):
        load_database(given, Toy())
    expected = rf"^copying database 'postgres' would make the database 'pilotscope_postgres_[0-9a-f]{{16}}' {re.escape(end)}$"
    with pytest.raises(DatasetError, match=expected), temporary_copy(given, "postgres"):
        pass
    assert administrator.execute("SELECT datname FROM pg_database") == before


def test_read_only(newest_server: EmbeddedServer, administrator: Session) -> None:
    """With --read-only not even a superuser's session can write, no database is copied and no setting changed."""
    dsn = dsn_of(host=str(newest_server._sockets), port=5432, user="postgres", password=SECRET, dbname="postgres")
    server = GivenServer(dsn, read_only=True, allow_changes=("databases", "settings"))
    assert server.capabilities == {Capability.LOAD_LIBRARY}
    refused = r"^statement failed: cannot execute CREATE TABLE in a read-only transaction \[25006\]: "
    with server.connect() as session, pytest.raises(StatementFailed, match=refused):
        session.execute("CREATE TABLE forbidden (id int)")
    assert server.refusal(Capability.ALTER_SYSTEM) == "--read-only forbids it"
    message = r"^copying database 'postgres' would make .* on this server: --read-only forbids it; or use --server embedded$"
    with pytest.raises(DatasetError, match=message), temporary_copy(server, "postgres"):
        pass


def test_read_only_is_about_a_given_server() -> None:
    """A server that is started here is written to anyway."""
    message = "--read-only needs a server of yours: name it with --server postgresql://user@host:port/database"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        PostgreSQLConfig("stats_tiny", read_only=True)

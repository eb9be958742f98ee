"""Settings in force on real servers: exactly as given, at the level they need, and the server as it was afterwards."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from select import select

import pytest

from pytest_pilotscope.algorithms.knob import trial_server as trial_server_module
from pytest_pilotscope.algorithms.knob.attempt import Task, attempt
from pytest_pilotscope.algorithms.knob.measuring import Selected
from pytest_pilotscope.algorithms.knob.objective import Objective
from pytest_pilotscope.algorithms.knob.space import KnobSpace
from pytest_pilotscope.algorithms.knob.trial_server import Reach, TrialServer, open_trial_server, prepared_database, reach_of, space_of
from pytest_pilotscope.algorithms.knob.tuning import KnobTuning
from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import AlgorithmError, ServerError, StatementFailed, UsageError
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.postgres.binaries import available_binaries
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.fingerprint import fingerprint
from pytest_pilotscope.postgres.given import GivenServer
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database, steering_libraries
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.runs.bench import Bench
from tests.algorithms.shop import Shop

NAMES = ("shared_buffers", "bgwriter_lru_maxpages", "work_mem", "cpu_operator_cost", "geqo")


def reached(database: Database, names: tuple[str, ...] | None = NAMES) -> tuple[Reach, KnobSpace]:
    """Return the knobs that can be changed on a server, and their space."""
    with database.session() as session:
        reach = reach_of(database)
        return reach, space_of(session, reach, names)


def state(database: Database) -> tuple[object, ...]:
    """Everything of the server that knob tuning must not change."""
    with database.session() as session:
        return (
            fingerprint(session),
            session.execute("SELECT datname FROM pg_database ORDER BY 1"),
            session.execute("SELECT name, setting, source FROM pg_settings WHERE name NOT LIKE 'pilotscope.%' ORDER BY 1"),
            session.execute("SELECT sourcefile, name, setting FROM pg_file_settings ORDER BY 1, 2"),
        )


@pytest.fixture(scope="module")
def somebodys() -> Iterator[EmbeddedServer]:
    """A server that we pretend to know by its connection string only."""
    binaries = next(available_binaries(), None)
    if binaries is None:
        pytest.skip("no PostgreSQL on this machine")
    with EmbeddedServer(binaries, libraries=steering_libraries(binaries.bindir)) as server:
        yield server


@pytest.fixture
def given(somebodys: EmbeddedServer, cache: Path) -> Iterator[Database]:
    """The shop on somebody else's server, whose settings are noted in a cache of this test's own."""
    with open_database(PostgreSQLConfig("shop", dsn=somebodys.dsn, allow_changes=("databases", "settings")), Shop()) as database:
        yield database


@pytest.fixture
def plain(given: Database, somebodys: EmbeddedServer) -> Iterator[Database]:
    """The same database for a role that may only read."""
    with given.session() as administrator:
        administrator.execute("CREATE ROLE visitor LOGIN")
        administrator.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO visitor")
    try:
        yield replace(
            given, server=GivenServer(Dsn(f"{somebodys.dsn.reveal()} user=visitor dbname={given.name}"), allow_changes=["settings"])
        )
    finally:
        _drop(given)


def _drop(given: Database) -> None:
    with given.session() as administrator:
        administrator.execute("DROP OWNED BY visitor")
        administrator.execute("DROP ROLE visitor")


def test_what_can_be_reached(shop: Database, given: Database, plain: Database) -> None:
    """Everything on a server of ours; no restart on somebody else's; settings of sessions for a role without rights. Each says so."""
    assert reached(shop)[0] == Reach(levels=("session", "reload", "restart"), own=True)
    assert reached(shop)[0].limit == ""
    limit = "no setting that needs a restart: this server was not started here"
    assert reached(given)[0] == Reach(levels=("session", "reload"), own=False, limit=limit)
    limit = "only settings of sessions: role 'visitor' may not change settings of the whole server there"
    assert reached(plain)[0] == Reach(levels=("session",), own=False, limit=limit)
    assert [knob.name for knob in reached(plain)[1].knobs] == ["work_mem", "cpu_operator_cost", "geqo"]


def header(dsn: str, name: str, folder: Path) -> list[str]:
    """Return the header's text about a server for a run with knob tuning."""
    (folder / "q1.sql").write_text("SELECT count(*) FROM orders")
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)

    settings = Settings(
        algorithms=("baseline", "knob"), server=dsn, queries_dir=folder, load_model="best", allow_changes=("databases", "settings")
    )
    bench = Bench(settings=settings, registry=builtin_registry(), say=say, progress=lambda description, total: silent(description, total))
    bench.database(name)
    bench.close()
    return lines


def test_the_header_says_what_cannot_be_tuned(given: Database, plain: Database, somebodys: EmbeddedServer, tmp_path: Path) -> None:
    """On a server that was given: for its superuser, and for a role that may only read."""
    for user, reason in (("", reached(given)[0].limit), ("user=visitor", reached(plain)[0].limit)):
        lines = header(f"{somebodys.dsn.reveal()} dbname={given.name} {user}", given.name, tmp_path)
        assert lines[1] == f"pilotscope: knob on this server: {reason}"


def test_nothing_to_tune(plain: Database) -> None:
    """A space without a knob is an error, and so is one that is refused."""
    expected = "there is no knob to tune: none of shared_buffers can be changed on this server"
    with pytest.raises(AlgorithmError, match=f"^{re.escape(expected)}$"):
        reached(plain, ("shared_buffers",))
    with pytest.raises(UsageError, match=r"^fsync is not tuned: a power cut would destroy the database$"):
        reached(plain, ("fsync",))


def test_each_change_takes_what_it_needs(shop: Database) -> None:
    """Session, reload, restart, nothing: never more, and every value is in force digit by digit."""
    before = state(shop)
    reach, space = reached(shop)
    with open_trial_server(shop, space, reach) as trial_server:
        assert trial_server.apply(space.defaults) is None
        values = space.complete({"work_mem": "5678", "cpu_operator_cost": "0.00123457", "geqo": "off"})
        assert trial_server.apply(values) == "session"
        assert trial_server.apply(values) is None
        values = {**values, "bgwriter_lru_maxpages": "0"}
        trial_server.cold = False
        assert (trial_server.apply(values), trial_server.cold) == ("reload", False)
        values = {**values, "shared_buffers": "4096", "work_mem": "1234"}
        assert (trial_server.apply(values), trial_server.cold) == ("restart", True)
        shown = trial_server.session.execute("SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (list(values),))
        assert dict(shown) == values
        assert trial_server.session.scalar("SHOW shared_buffers") == "32MB"
        assert trial_server.apply(space.defaults) == "restart"
    assert state(shop) == before


@pytest.mark.slow
def test_settings_that_a_restart_forgets(shop: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's restart takes with it what ALTER SYSTEM had set: that is set again, also when the restart is refused."""
    original = EmbeddedServer.restart

    def restart(self: EmbeddedServer, settings: Mapping[str, str]) -> None:
        with self.connect() as session:
            session.execute("ALTER SYSTEM RESET ALL")  # as ContainerServer does
        original(self, settings)

    monkeypatch.setattr(EmbeddedServer, "restart", restart)
    reach, space = reached(shop)
    with open_trial_server(shop, space, reach) as trial_server:
        values = space.complete({"bgwriter_lru_maxpages": "7"})
        trial_server.apply(values)
        assert trial_server.apply({**values, "shared_buffers": "4096"}) == "restart"
        assert trial_server.session.scalar("SHOW bgwriter_lru_maxpages") == "7"
        with pytest.raises(ServerError, match=r"^the old settings are back, these were refused: "):
            trial_server.apply({**values, "shared_buffers": "1000000000"})
        shown = trial_server.session.execute("SELECT current_setting('shared_buffers'), current_setting('bgwriter_lru_maxpages')")
        assert shown == [("32MB", "7")]


def test_settings_that_are_refused_leave_the_old_ones(shop: Database) -> None:
    """A server that does not start with them comes back with the old ones, all of them; so does a session that does not take one."""
    reach, space = reached(shop)
    with open_trial_server(shop, space, reach) as trial_server:
        values = space.complete({"work_mem": "5678", "bgwriter_lru_maxpages": "7"})
        trial_server.apply(values)
        with pytest.raises(ServerError, match=r"^the old settings are back, these were refused: "):
            trial_server.apply({**values, "shared_buffers": "1000000000", "work_mem": "9999", "bgwriter_lru_maxpages": "9"})
        with pytest.raises(StatementFailed, match=r"^statement failed: 1 kB is outside the valid range for parameter \"work_mem\""):
            trial_server.apply({**values, "work_mem": "1", "bgwriter_lru_maxpages": "9"})
        shown = trial_server.session.execute("SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (list(values),))
        assert dict(shown) == values
        assert trial_server.apply(values) is None


@pytest.mark.slow
def test_a_trial_server_survives_the_loss_of_its_session(shop: Database) -> None:
    """When a query takes its server process down, the next settings go to a new session of a server that has the defaults again."""
    reach, space = reached(shop)
    with open_trial_server(shop, space, reach) as trial_server:
        values = space.complete({"shared_buffers": "4096", "bgwriter_lru_maxpages": "7", "work_mem": "5678"})
        trial_server.apply(values)
        trial_server.cold = False
        with pytest.raises(StatementFailed, match=r"^statement failed: the connection to the server is closed: "):
            trial_server.session.execute("SELECT pg_terminate_backend(pg_backend_pid(), 5000), pg_sleep(5)")
        trial_server.ready()
        shown = trial_server.session.execute("SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (list(values),))
        assert (dict(shown), trial_server.cold) == (space.defaults, True)
        assert trial_server.apply(values) == "restart"


def task(space: KnobSpace, sql: str, **values: str) -> Task:
    """Some settings, for one query."""
    selected = Selected(queries=(Query(id="q", sql=sql),), default_s=(0.1,), too_long=0)
    return Task(values=space.complete(values), selected=selected, objective=Objective(target="total_time", count=1), limit=math.inf)


@pytest.mark.slow
def test_a_server_of_ours_that_is_killed_is_started_again(shop: Database) -> None:
    """Also while nothing is tried: the next settings are not taken for bad ones."""
    reach, space = reached(shop)
    with open_trial_server(shop, space, reach) as trial_server:
        for _ in range(2):
            assert attempt(task(space, "SELECT 1", bgwriter_lru_maxpages="7"), trial_server).status == "ok"
            os.kill(own(trial_server).pid, signal.SIGKILL)
            assert select([trial_server.session._connection], [], [], 10)[
                0
            ]  # the session's process is gone, which nobody has asked about yet


@pytest.mark.slow
def test_a_server_of_ours_that_stays_away(shop: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not the settings that failed: an error says what became of the server."""
    monkeypatch.setattr(trial_server_module, "RECOVERY_LIMIT_S", 1.0)
    reach, space = reached(shop)
    with open_trial_server(shop, space, reach) as trial_server:
        trial_server.apply(space.complete({"work_mem": "5678"}))
        (own(trial_server).data_folder / "global" / "pg_control").unlink()
        os.kill(own(trial_server).pid, signal.SIGKILL)
        with pytest.raises(ServerError, match=r"."):  # noqa: PT012 - a session may answer for a moment after the server's main process has died
            while True:
                trial_server.session.execute("SELECT 1")
        expected = (
            "the server on which settings are tried was lost and did not come back within 1 s; "
            "the trials so far are kept: start again to go on. Its last error: "
            "PostgreSQL stopped while starting (exit status 2); its log ends with:\n"
        )
        with pytest.raises(ServerError, match=f"^{re.escape(expected)}"):
            attempt(task(space, "SELECT 1", geqo="off"), trial_server)


def test_a_given_server_that_lets_us_in_no_more(given: Database, plain: Database) -> None:
    """Trying again does not help, so the search ends at once."""
    reach, space = reached(plain)
    with given.session() as administrator, open_trial_server(plain, space, reach) as trial_server:
        administrator.execute("ALTER ROLE visitor NOLOGIN")
        administrator.execute("SELECT pg_terminate_backend(%s, 5000)", (trial_server.session.backend_pid,))
        expected = (
            "the server on which settings are tried was lost and did not come back; the trials so far are kept: start again to go on. "
            "Its last error: cannot connect to "
        )
        with pytest.raises(ServerError, match=f"^{re.escape(expected)}.*is not permitted to log in"):
            trial_server.ready()


def own(trial_server: TrialServer) -> EmbeddedServer:
    """The second server."""
    server = trial_server._database.server
    assert isinstance(server, EmbeddedServer)
    return server


def test_somebody_elses_server_that_crashes(given: Database) -> None:
    """A trial whose query takes it down has failed; the server recovers, has the defaults, is tried on, and is put back."""
    before = state(given)
    reach, space = reached(given)
    with open_trial_server(given, space, reach) as trial_server:
        crash = f"COPY (SELECT 1) TO PROGRAM 'kill -9 {trial_server.session.backend_pid}'"
        outcome = attempt(task(space, crash, bgwriter_lru_maxpages="7"), trial_server)
        assert (outcome.status, outcome.applied) == ("failed", "reload")
        assert outcome.message.startswith("statement failed: the connection to the server is closed: COPY ")
        assert trial_server.session.scalar("SHOW bgwriter_lru_maxpages") == "100"
        assert attempt(task(space, "SELECT 1", bgwriter_lru_maxpages="9"), trial_server).status == "ok"
        assert trial_server.session.scalar("SHOW bgwriter_lru_maxpages") == "9"
    assert state(given) == before


def change(given: Database, error: type[BaseException] | None) -> None:
    """Reach for settings of the whole server, then fail."""
    reach, space = reached(given)
    with open_trial_server(given, space, reach) as trial_server:
        assert trial_server.apply(space.complete({"bgwriter_lru_maxpages": "7", "work_mem": "9999"})) == "reload"
        with given.session() as other:
            assert other.execute("SELECT current_setting('bgwriter_lru_maxpages'), current_setting('work_mem')") == [("7", "4MB")]
        if error is not None:
            raise error("stop")


def test_on_somebody_elses_server_everything_is_put_back(given: Database) -> None:
    """Reloadable settings are in force within the block and gone afterwards, after an error and after Ctrl-C, too."""
    before = state(given)
    change(given, None)
    assert state(given) == before
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error, match=r"^stop$"):
            change(given, error)
        assert state(given) == before


def test_prepared_by_sessions(shop: Database) -> None:
    """Settings of sessions need no second server: the baseline's sessions do not have them, and the data is the same."""
    before = state(shop)
    with prepared_database(shop, {"work_mem": "4321", "geqo": "off"}) as prepared, prepared.session() as session, shop.session() as plain:
        assert prepared.server is shop.server
        assert session.execute("SELECT current_setting('work_mem'), current_setting('geqo')") == [("4321kB", "off")]
        assert plain.scalar("SHOW work_mem") == "4MB"
        assert prepared.fingerprint.settings != shop.fingerprint.settings
        assert prepared.fingerprint.statistics == shop.fingerprint.statistics
    assert state(shop) == before


@pytest.mark.slow
def test_prepared_on_a_second_server(shop: Database) -> None:
    """A setting that needs a restart runs on a second server, with the same data and statistics as the baseline's."""
    before = state(shop)
    values = {"shared_buffers": "4096", "work_mem": "4321", "random_page_cost": "1.1"}
    with prepared_database(shop, values) as prepared, prepared.session() as session, shop.session() as plain:
        assert prepared.server is not shop.server
        assert session.execute("SELECT current_setting('shared_buffers'), current_setting('work_mem')") == [("32MB", "4321kB")]
        assert plain.scalar("SHOW shared_buffers") != "32MB"
        assert (prepared.fingerprint.data, prepared.fingerprint.statistics) == (shop.fingerprint.data, shop.fingerprint.statistics)
        for query in Shop().workload().test:
            assert session.execute(query.sql) == plain.execute(query.sql)
    assert state(shop) == before


def test_prepared_on_somebody_elses_server(given: Database, plain: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A reload is put back and its effect on the baseline is said; a restart is refused."""
    before = state(given)
    with prepared_database(given, {"bgwriter_lru_maxpages": "7", "work_mem": "4321"}) as prepared, prepared.session() as session:
        assert session.execute("SELECT current_setting('bgwriter_lru_maxpages'), current_setting('work_mem')") == [("7", "4321kB")]
    assert caplog.messages == ["bgwriter_lru_maxpages: in force for the whole server, so the baseline has them, too"]
    assert state(given) == before
    expected = "shared_buffers cannot be changed here: no setting that needs a restart: this server was not started here"
    with pytest.raises(AlgorithmError, match=f"^{re.escape(expected)}$"), prepared_database(given, {"shared_buffers": "4096"}):
        pass
    with prepared_database(plain, {"work_mem": "4321"}) as prepared, prepared.session() as session:
        assert session.scalar("SHOW work_mem") == "4321kB"


def test_without_consent_no_setting_of_the_server_is_changed(given: Database, somebodys: EmbeddedServer) -> None:
    """A superuser is asked for it, with --read-only settings of sessions are left; those alone need no consent."""
    before = state(given)
    dsn = Dsn(f"{somebodys.dsn.reveal()} dbname={given.name}")
    alone = replace(given, server=GivenServer(dsn))
    expected = (
        "knob tuning would change settings of the whole server with ALTER SYSTEM, and put them back at its end: nobody has allowed that: "
        "add --allow-changes settings, or --read-only to tune settings of sessions only"
    )
    for names in (None, ("work_mem", "bgwriter_lru_maxpages")):
        with pytest.raises(UsageError, match=f"^{re.escape(expected)}$"):
            reached(alone, names)
    with pytest.raises(UsageError, match=f"^{re.escape(expected)}$"):
        KnobTuning.restriction(alone)
    expected = (
        "bgwriter_lru_maxpages cannot be changed here: only settings of sessions: nobody has allowed that: add --allow-changes settings"
    )
    with pytest.raises(AlgorithmError, match=f"^{re.escape(expected)}$"), prepared_database(alone, {"bgwriter_lru_maxpages": "7"}):
        pass
    assert [knob.name for knob in reached(alone, ("work_mem",))[1].knobs] == ["work_mem"]
    with prepared_database(alone, {"work_mem": "4321"}) as prepared, prepared.session() as session:
        assert session.scalar("SHOW work_mem") == "4321kB"
    forbidden = replace(given, server=GivenServer(dsn, read_only=True))
    assert KnobTuning.restriction(forbidden) == "only settings of sessions: --read-only forbids it"
    assert {knob.level for knob in reached(forbidden)[1].knobs} == {"session"}
    assert state(given) == before


def test_nothing_to_prepare(shop: Database) -> None:
    """If the default is best, the database is the baseline's own."""
    with prepared_database(shop, {}) as prepared:
        assert prepared is shop


_KILLED = """
import os, signal, sys
from pytest_pilotscope.algorithms.knob.trial_server import prepared_database
from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database

with open_database(PostgreSQLConfig(None, dsn=sys.argv[1], allow_changes=("settings",))) as database:
    with prepared_database(database, {"bgwriter_lru_maxpages": "7", "work_mem": "4321"}):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.usefixtures("plain")
def test_after_kill_9_the_next_run_puts_everything_back(
    given: Database, somebodys: EmbeddedServer, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it runs: opening that server puts back what the killed process had changed; with --read-only or a plain role it is named."""
    before = state(given)
    dsn = f"{somebodys.dsn.reveal()} dbname={given.name}"
    killed = subprocess.run([sys.executable, "-c", _KILLED, dsn], check=False, env=dict(os.environ), cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    changed = state(given)
    assert changed != before
    may_not = (PostgreSQLConfig(None, dsn=dsn, read_only=True), PostgreSQLConfig(None, dsn=f"{dsn} user=visitor"))
    for config in (*may_not, PostgreSQLConfig(None, dsn=dsn)):
        with open_database(config):
            assert state(given) == changed
    with open_database(PostgreSQLConfig(None, dsn=dsn, allow_changes=("settings",))) as database:
        assert (state(given), database.fingerprint) == (before, given.fingerprint)
    (lock,) = cache.glob("settings/*.lock")
    left = (
        "a run that was killed had changed bgwriter_lru_maxpages on this server, and this run does not put the old values back, which are "
        f"in {lock.with_suffix('.json')}: "
    )
    nobody = "nobody has allowed that: add --allow-changes settings"
    assert caplog.messages == [
        f"{left}--read-only forbids it",
        f"{left}role 'visitor' may not change settings of the whole server there, and {nobody}",
        f"{left}{nobody}",
        "a run that was killed had changed settings of this server: put back: bgwriter_lru_maxpages (7 -> no entry)",
    ]

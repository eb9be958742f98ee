"""The faults of the table that happen while a program waits at a stop: each is a function of the scene."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.postgres.connecting import connect, dsn_of
from pytest_pilotscope.postgres.containers import LABEL
from pytest_pilotscope.postgres.embedded import PORT, EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from tests.faults.program import Program, Project

OURS = "SELECT pid, datname FROM pg_stat_activity WHERE application_name = 'pilotscope' AND pid <> pg_backend_pid()"
UNTIL_ASLEEP = """
DO $$ BEGIN
    WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid <> pg_backend_pid()) LOOP
        PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
    END LOOP;
END $$
"""
SMALL = "small"
"""The folder of a project that is a file system of a few megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """
    A program that waits at a stop, its project and, unless the program has its own, the server that it was given.

    A fault that lasts (a lock, connections) ends with the `stack`.
    """

    project: Project
    program: Program
    server: EmbeddedServer | None
    stack: ExitStack

    @property
    def data_folder(self) -> Path:
        """The data directory of the server that is measured."""
        if self.server is not None:
            return self.server.data_folder
        (found,) = self.project.cache.glob("uid-*/servers/server-*/data")
        return found

    def session(self, database: str = "postgres") -> Session:
        """Open a session of somebody else on the server that is measured."""
        if self.server is not None:
            dsn = self.server.dsn
        else:
            sockets = (self.data_folder / "postmaster.pid").read_text().splitlines()[4]
            dsn = dsn_of(host=sockets, port=PORT, user="postgres", options="")
        session = self.stack.enter_context(connect(Dsn(dsn.reveal()), dbname=database))
        session.execute("SET application_name = 'somebody else'")
        return session


def send(number: signal.Signals) -> Callable[[Scene], None]:
    """Return a fault that sends a signal to the process at the stop."""
    return lambda scene: os.kill(scene.program.pid, number)


def kill_server(scene: Scene) -> None:
    """Kill PostgreSQL."""
    os.kill(int((scene.data_folder / "postmaster.pid").read_text().split("\n", 1)[0]), signal.SIGKILL)


def stop_server(scene: Scene) -> None:
    """Shut PostgreSQL down, so that it refuses connections."""
    assert scene.server is not None
    assert scene.server._postmaster is not None
    scene.server._postmaster.stop()


def terminate(scene: Scene) -> None:
    """End every session of the measurement, as an administrator does."""
    with scene.session() as session:
        session.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM ({OURS}) AS ours")


def take_connections(scene: Scene) -> None:
    """Open sessions until the server accepts no more."""
    try:
        while True:
            scene.session()
    except ServerError:
        return


def lock(scene: Scene) -> None:
    """Lock every table of the databases that the measurement is connected to, or of all that have any if it is not yet connected."""
    with scene.session() as session:
        names = {name for _, name in session.execute(OURS)} or {"mine"}
    for name in names - {"postgres"}:
        session = scene.session(name)
        session.execute("BEGIN")
        tables = session.execute("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in tables:
            session.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")


def fill_disk(scene: Scene) -> None:
    """Fill the small file system of the project."""
    try:
        with (scene.project.folder / SMALL / "filling").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        return


def lock_store(scene: Scene) -> None:
    """Hold the lock of the tracking store, as another process does that makes one."""
    scene.stack.enter_context(FileLock(scene.project.folder / "mlflow.db.lock"))


def kill_container(scene: Scene) -> None:
    """Kill the container that the measurement has started."""
    from docker.client import DockerClient

    with closing(DockerClient.from_env()) as client:
        (container,) = client.containers.list(filters={"label": LABEL})
        container.kill()
        container.wait()


def in_a_statement(number: signal.Signals) -> Callable[[Scene], None]:
    """Return a fault that sends a signal while the server sleeps in a statement of the program."""

    def fault(scene: Scene) -> None:
        scene.program.go_on()
        with scene.session() as session:
            session.execute(UNTIL_ASLEEP)
        os.kill(scene.program.pid, number)

    return fault


FAULTS: dict[str, Callable[[Scene], None]] = {
    "SIGINT": send(signal.SIGINT),
    "SIGTERM": send(signal.SIGTERM),
    "SIGKILL": send(signal.SIGKILL),
    "SIGINT in a statement": in_a_statement(signal.SIGINT),
    "SIGTERM in a statement": in_a_statement(signal.SIGTERM),
    "SIGKILL in a statement": in_a_statement(signal.SIGKILL),
    "server killed": kill_server,
    "server stopped": stop_server,
    "sessions terminated": terminate,
    "no free connection": take_connections,
    "tables locked": lock,
    "disk full": fill_disk,
    "hangs": lambda scene: scene.program.keep(),
    "raises": lambda scene: scene.program.fail(),
    "container killed": kill_container,
    "run interrupted": lambda scene: scene.program.process.send_signal(signal.SIGINT),
    "run killed": lambda scene: scene.program.process.kill(),
    "store locked": lock_store,
}
"""Faults by the name that the table has for them; any other is in the arguments or the environment of the program."""

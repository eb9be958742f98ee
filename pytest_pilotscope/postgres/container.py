"""
PostgreSQL in a Docker container, by testcontainers' core.

Only its `DockerContainer` is used: the PostgreSQL class on top of it is deprecated in one place and absent in the other, depending on the
version, and its wait for readiness does not notice that a container has died.
"""

from __future__ import annotations

import gc
import io
import logging
import os
import secrets
import socket
import tarfile
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from psycopg2 import sql

from pytest_pilotscope.errors import MissingServer, ServerError
from pytest_pilotscope.postgres.server import Capability, Provider, ServerReport, describe
from pytest_pilotscope.postgres.session import Session, connect, dsn_of
from pytest_pilotscope.postgres.settings import PINNED, shared_buffers

DEFAULT_MAJOR = 18
PORT = 5432
LABEL = "pytest-pilotscope.owner"
"""Label of our containers: host name and process id of their owner, by which leftovers of killed processes are known."""

START_LIMIT_S = 120.0
_POLL_S = 0.1
_LOCAL = frozenset({"listen_addresses", "unix_socket_permissions"})  # how an embedded server is reached, not a container

logger = logging.getLogger(__name__)


class ContainerServer:
    """
    A PostgreSQL of the official image's kind (`postgres:<version>`, or the image in $PILOTSCOPE_IMAGE), removed with us.

    `settings` are on top of the pinned ones. MissingServer when testcontainers is not installed or no Docker daemon answers, ServerError
    with the container's log when PostgreSQL does not start.
    """

    provider: Provider = "container"
    capabilities = frozenset(Capability)

    def __init__(self, *, version: int | None = None, settings: Mapping[str, str] | None = None, why: str = "--server container") -> None:
        self.image = os.environ.get("PILOTSCOPE_IMAGE") or f"postgres:{version or DEFAULT_MAJOR}"
        self.why = f"image {self.image}, {why}"
        self._password = secrets.token_urlsafe(24)
        self._container = _new_container(self.image, self._password)
        self._settings: dict[str, str] = {}
        try:
            remove_leftovers(self._container.get_docker_client().client)
            self._begin()
            with self.connect() as session:
                self.version_num = session.server_version
                self._auto_conf = f"{session.scalar('SHOW data_directory')}/postgresql.auto.conf"
            self.restart(settings or {})
        except BaseException:
            self.stop()
            raise

    def __repr__(self) -> str:
        return f"ContainerServer({self.image!r})"

    def __enter__(self) -> ContainerServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def connect(self, database: str | None = None) -> Session:
        """A new session of the superuser in `database`, or in the empty database `postgres`."""
        host, port = self._container.get_container_host_ip(), self._container.get_exposed_port(PORT)
        dsn = dsn_of(host=host, port=port, user="postgres", password=self._password, options="")
        return connect(dsn, dbname=database or "postgres", connect_timeout=10)

    def restart(self, settings: Mapping[str, str]) -> None:
        """Restart with `settings` on top of the pinned ones, in place of the last restart's; those come back when it fails."""
        try:
            self._apply(settings)
        except ServerError as error:
            self._container.get_wrapped_container().put_archive(os.path.dirname(self._auto_conf), _as_tar("postgresql.auto.conf", b""))
            self._start_again()
            self._apply(self._settings)
            raise ServerError(f"the old settings are back, these were refused: {dict(settings)}: {error}") from error
        self._settings = dict(settings)

    def stop(self) -> None:
        """Remove the container and its volume; stopping twice is fine."""
        self._container.stop()

    def report(self) -> ServerReport:
        """What it is and how it was built and set up."""
        with self.connect() as session:
            return describe(session, provider=self.provider, why=self.why)

    def _begin(self) -> None:
        from docker.errors import DockerException

        try:
            self._container.start()
        except DockerException as error:
            raise ServerError(f"the container of image {self.image} cannot be started: {error}") from error
        wait_until_ready(self._container.get_wrapped_container(), lambda: self.connect().close())

    def _apply(self, settings: Mapping[str, str]) -> None:
        """By ALTER SYSTEM, not by command line: what is set there cannot be changed any more."""
        base = {name: value for name, value in PINNED.items() if name not in _LOCAL} | {"shared_buffers": shared_buffers()}
        with self.connect() as session:
            session.execute("ALTER SYSTEM RESET ALL")
            for name, value in {**base, **settings}.items():
                session.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(*name.split(".")), sql.Literal(value)))
        self._start_again()

    def _start_again(self) -> None:
        container = self._container.get_wrapped_container()
        container.reload()
        if container.status == "running":
            container.kill(signal="SIGINT")  # PostgreSQL's fast shutdown; `docker stop` sends what the image says, and may wait for clients
            container.wait()
        container.start()
        wait_until_ready(container, lambda: self.connect().close())


def wait_until_ready(container: Any, ask: Callable[[], None]) -> None:
    """Call `ask` until it raises no ServerError; ServerError with the end of the log when the container is dead or time is up."""
    deadline_s = time.monotonic() + START_LIMIT_S
    while True:
        container.reload()
        if container.status not in ("created", "running", "restarting"):
            raise ServerError(f"the container stopped while starting ({container.status}); its log ends with:{_log_tail(container)}")
        try:
            return ask()
        except ServerError as error:
            if time.monotonic() > deadline_s:
                raise ServerError(
                    f"the container did not answer within {START_LIMIT_S:.0f} s: {error}; its log ends with:{_log_tail(container)}"
                ) from error
        time.sleep(_POLL_S)


def remove_leftovers(client: Any) -> None:
    """Remove our containers whose owner, a process of this machine, is no more."""
    for container in client.containers.list(all=True, filters={"label": LABEL}):
        host, _, pid = container.labels[LABEL].rpartition(":")
        if host == socket.gethostname() and not _alive(int(pid)):
            logger.warning("removing container %s, left by the killed process %s", container.short_id, pid)
            container.remove(force=True, v=True)


def _new_container(image: str, password: str) -> Any:
    try:
        from docker.errors import DockerException
        from testcontainers.core.container import DockerContainer
    except ImportError as error:
        raise MissingServer(
            f"a container needs testcontainers ({error}); install it with: pip install 'pytest-pilotscope[container]'"
        ) from error
    reason = ""
    try:
        container = DockerContainer(image, labels={LABEL: f"{socket.gethostname()}:{os.getpid()}"}, shm_size="1g")
    except DockerException as error:
        reason = " ".join(str(error).split())
    if reason:
        _collect_forgotten_sockets()
        where = os.environ.get("DOCKER_HOST", "the default socket")
        raise MissingServer(f"no Docker daemon answers at {where} ({reason}); start Docker, or set DOCKER_HOST")
    return container.with_envs(POSTGRES_USER="postgres", POSTGRES_PASSWORD=password, POSTGRES_DB="postgres").with_exposed_ports(PORT)


def _collect_forgotten_sockets() -> None:
    """Docker's client leaves a socket to the garbage collector when nothing answers; it goes here, not as a warning about other code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _log_tail(container: Any) -> str:
    lines = container.logs(tail=20).decode(errors="replace").splitlines()
    return "".join(f"\n    {line}" for line in lines) or " (the log is empty)"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _as_tar(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o644
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()

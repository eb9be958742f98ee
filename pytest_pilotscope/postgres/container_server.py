"""
PostgreSQL in a Docker container, by testcontainers' core.

Only its `DockerContainer` is used: the PostgreSQL class on top of it is deprecated in one place and absent in the other, depending on the
version, and its wait for readiness does not notice that a container has died.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.secret import Secret
from pytest_pilotscope.postgres.connecting import IDENTITY, connect, dsn_of
from pytest_pilotscope.postgres.containers import (
    Limits,
    address,
    asking,
    explained,
    new_container,
    remove,
    remove_leftovers,
    start,
    wait_until_ready,
)
from pytest_pilotscope.postgres.pinned import PINNED, configuration, shared_buffers
from pytest_pilotscope.postgres.server import Capability, Provider, Server
from pytest_pilotscope.postgres.session import Session

if TYPE_CHECKING:
    from pytest_pilotscope.places.dsn import Dsn
    from pytest_pilotscope.postgres.containers import Reaper

DEFAULT_MAJOR = 18
_LOCAL = frozenset({"listen_addresses", "unix_socket_permissions"})  # how an embedded server is reached, not a container


class ContainerServer(Server):
    """
    A PostgreSQL of the official image's kind (`postgres:<version>`, or the image in $PILOTSCOPE_IMAGE), removed with us.

    `settings` are on top of the pinned ones. MissingServer when testcontainers is not installed, no Docker daemon answers or there is no
    such image, ServerError with the container's log when PostgreSQL does not start.
    """

    provider: Provider = "container"
    capabilities = frozenset(Capability)

    def __init__(
        self,
        *,
        version: int | None = None,
        settings: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        why: str = "--server container",
    ) -> None:
        self.image = os.environ.get("PILOTSCOPE_IMAGE") or f"postgres:{version or DEFAULT_MAJOR}"
        self.limits = limits or Limits()
        self.why = ", ".join(part for part in (f"image {self.image}", str(self.limits), why) if part)
        self._password = Secret(secrets.token_urlsafe(24))
        self._token = secrets.token_hex()
        first = [*_statements(self._all(settings or {})), f"ALTER ROLE ALL SET {IDENTITY} = '{self._token}'", ""]
        self._container = new_container(self.image, self._password, self.limits, ";\n".join(first))
        self._reaper: Reaper | None = None
        self._dsn: Dsn | None = None
        try:
            remove_leftovers(self._container.get_docker_client().client)
            self._reaper = start(self._container, self.image)
            self._wait()
            with self.connect() as session:
                self.version_num = session.server_version
                self._check_major(version)
                self._auto_conf = f"{session.scalar('SHOW data_directory')}/postgresql.auto.conf"
        except BaseException:
            self.stop()
            raise

    def __repr__(self) -> str:
        return f"ContainerServer({self.image!r})"

    @property
    def container_id(self) -> str:
        """Docker's id of the container."""
        return str(self._container.get_wrapped_container().id)

    def connect(self, database: str | None = None) -> Session:
        """Open a session of the superuser in `database`, or in the database `postgres`; ServerError says how the container ended."""
        try:
            return self._connect(database)
        except ServerError as error:
            raise explained(self._container.get_wrapped_container(), error) from error

    def restart(self, settings: Mapping[str, str]) -> None:
        """Restart with `settings` on top of the pinned ones, in place of the last restart's; those come back when it fails."""
        container = self._container.get_wrapped_container()
        with asking(container):
            before = b"".join(container.get_archive(self._auto_conf)[0])
        try:
            self._apply(settings)
        except ServerError as error:
            with asking(container):
                container.put_archive(os.path.dirname(self._auto_conf), before)  # with its owner and mode
            self._start_again()
            raise ServerError(f"the old settings are back, these were refused: {dict(settings)}: {error}") from error

    def stop(self) -> None:
        """Remove the container and its volume; stopping twice is fine."""
        remove(self._container)
        if self._reaper is not None:
            self._reaper.dismiss()
            self._reaper = None

    def _check_major(self, wanted: int | None) -> None:
        if wanted is not None and self.version_num // 10_000 != wanted:
            raise ServerError(
                f"the image {self.image!r} has PostgreSQL {self.version_num // 10_000}, and --pg-version asks for {wanted}; "
                "leave one of them out"
            )

    def _connect(self, database: str | None) -> Session:
        if self._dsn is None:  # Docker gives another port at every start
            host, port = address(self._container)
            self._dsn = dsn_of(host=host, port=port, user="postgres", password=self._password.reveal(), options="")
        return connect(self._dsn, token=self._token, dbname=database or "postgres", connect_timeout=10)

    def _wait(self) -> None:
        self._dsn = None
        wait_until_ready(self._container.get_wrapped_container(), self.image, lambda: self._connect(None).close())

    def _apply(self, settings: Mapping[str, str]) -> None:
        with self.connect() as session:
            session.execute("ALTER SYSTEM RESET ALL")
            for statement in _statements(self._all(settings)):
                session.execute(statement)
        self._start_again()

    def _all(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Return the pinned settings, with these on top."""
        base = {name: value for name, value in PINNED.items() if name not in _LOCAL}
        return {**base, "shared_buffers": shared_buffers(self.limits.memory_bytes), **settings}

    def _start_again(self) -> None:
        container = self._container.get_wrapped_container()
        with asking(container):
            container.reload()
            if container.status == "running":
                # PostgreSQL's fast shutdown; `docker stop` sends what the image says, and may wait for clients.
                container.kill(signal="SIGINT")
                container.wait()
            container.start()
        self._wait()


def _statements(settings: Mapping[str, str]) -> list[str]:
    """By ALTER SYSTEM, not by command line: what is set there cannot be changed any more."""
    configuration(settings)  # refuses what is not a name, and values that end a line
    quoted = {name: value.replace("'", "''") for name, value in settings.items()}
    return [f"ALTER SYSTEM SET {name} = '{value}'" for name, value in quoted.items()]

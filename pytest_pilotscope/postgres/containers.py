"""Containers of ours at Docker: start one that does not outlive us, wait until it serves, and explain how it ended."""

from __future__ import annotations

import gc
import logging
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_pilotscope.errors import CannotConnect, MissingServer, ServerError
from pytest_pilotscope.places.environment import clean_environment
from pytest_pilotscope.places.secret import Secret
from pytest_pilotscope.postgres import reaper

PORT = 5432
LABEL = "pytest-pilotscope.owner"
"""Label of our containers: host name and process id of their owner, by which leftovers of killed processes are known."""

FIRST_STATEMENTS = "/docker-entrypoint-initdb.d/pilotscope.sql"
"""The official image runs this after `initdb`, on a server that listens nowhere."""

START_LIMIT_S = 120.0
PORT_ATTEMPTS = 3
"""Docker may choose another port this often: it does not know which ones other programs listen on."""
_POLL_S = 0.1
_PORT_TAKEN = re.compile(r"port is already allocated|address already in use")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The resources that a container may use; None is all there is. `cpus` may be a fraction."""

    memory_bytes: int | None = None
    cpus: float | None = None

    def __str__(self) -> str:
        parts = [f"{self.memory_bytes / 2**20:g} MB of memory" if self.memory_bytes else "", f"{self.cpus:g} CPUs" if self.cpus else ""]
        return ", ".join(part for part in parts if part)

    def options(self) -> dict[str, Any]:
        """Docker's options; without swap, which would make a query slow instead of showing that memory does not suffice."""
        memory = {"mem_limit": self.memory_bytes, "memswap_limit": self.memory_bytes} if self.memory_bytes else {}
        return {**memory, **({"nano_cpus": round(self.cpus * 1e9)} if self.cpus else {})}


def new_container(image: str, password: Secret, limits: Limits, first: str) -> Any:
    """
    Make a container of testcontainers, not yet started; it runs the statements `first` before anybody can connect.

    MissingServer when testcontainers is not installed or no Docker daemon answers.
    """
    try:
        from docker.errors import DockerException
        from testcontainers.core.container import DockerContainer
    except ImportError as error:
        raise MissingServer(
            f"a container needs testcontainers ({error}); install it with: pip install 'pytest-pilotscope[container]'"
        ) from error
    reason = ""
    owner = f"{_place()}:{os.getpid()}"
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    name = "-".join(part for part in ("pilotscope", worker, secrets.token_hex(4)) if part)
    try:
        container = DockerContainer(image, name=name, labels={LABEL: owner}, shm_size="1g", **limits.options())
    except DockerException as error:
        reason = " ".join(str(error).split())
    if reason:
        _collect_forgotten_sockets()
        raise MissingServer(f"no Docker daemon answers at {daemon()} ({reason}); start Docker, or set DOCKER_HOST")
    about = {"POSTGRES_USER": "postgres", "POSTGRES_DB": "postgres", "POSTGRES_INITDB_ARGS": "--no-sync"}
    container.with_envs(**about, POSTGRES_PASSWORD=password.reveal()).with_exposed_ports(PORT)
    return container.with_copy_into_container(first.encode(), FIRST_STATEMENTS, 0o644)


def daemon() -> str:
    """Return the address of the Docker daemon."""
    return os.environ.get("DOCKER_HOST", "the default socket")


def start(container: Any, image: str) -> Reaper:
    """Start a container; ServerError says why Docker does not do it. The value ends when the container was removed."""
    from docker.errors import APIError, DockerException, ImageNotFound

    for attempt in range(1, PORT_ATTEMPTS + 1):
        try:
            with _without_ryuk():
                container.start()
            return Reaper(container.get_wrapped_container().id)
        except (APIError, DockerException) as error:
            said = _said(error)
            created = container._container is not None
            if not created and (isinstance(error, ImageNotFound) or "/images/create" in str(error)):
                raise MissingServer(
                    f"there is no image {image!r} on this Docker daemon, and it cannot be pulled ({said}); build one (docs/servers.md), or "
                    "name another in PILOTSCOPE_IMAGE"
                ) from error
            if not _PORT_TAKEN.search(said):
                doubt = "; is it an image of PostgreSQL?" if created else ""
                raise ServerError(f"Docker cannot start a container of image {image!r}: {said}{doubt}") from error
            if attempt == PORT_ATTEMPTS:
                raise ServerError(
                    f"Docker found no free port for a container of image {image!r} in {PORT_ATTEMPTS} attempts: {said}; see which program "
                    "listens there"
                ) from error
            container.get_wrapped_container().remove(force=True, v=True)
    raise AssertionError("unreachable")


class Reaper:
    """A process that removes a container when we die without a goodbye; see `reaper`."""

    def __init__(self, container_id: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", reaper.__file__, container_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=clean_environment("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG", "DOCKER_API_VERSION"),
            start_new_session=True,  # Ctrl-C on the terminal is for us
        )

    def dismiss(self) -> None:
        """End the process: the container is gone, or belongs to somebody else."""
        with suppress(BrokenPipeError):
            self._process.communicate(b"q")


@contextmanager
def _without_ryuk() -> Iterator[None]:
    """Without testcontainers' own reaper: it is an image to be pulled, and a container that can do everything."""
    from testcontainers.core.config import testcontainers_config

    before = testcontainers_config.ryuk_disabled
    testcontainers_config.ryuk_disabled = True
    try:
        yield
    finally:
        testcontainers_config.ryuk_disabled = before


def wait_until_ready(container: Any, image: str, ask: Callable[[], None]) -> None:
    """
    Call `ask` until it raises no ServerError; a CannotConnect ends that at once.

    ServerError with the end of the log when the container is dead or cannot be used, or time is up.
    """
    deadline_s = time.monotonic() + START_LIMIT_S
    while True:
        with asking(container):
            container.reload()
            if container.status not in ("created", "running", "restarting"):
                raise ServerError(f"the container of image {image!r} stopped while starting: {end_of(container)}")
        try:
            return ask()
        except ServerError as error:
            useless = isinstance(error, CannotConnect)
            if not useless and time.monotonic() < deadline_s:
                time.sleep(_POLL_S)
                continue
            why = "runs, but cannot be used" if useless else f"did not answer within {START_LIMIT_S:.0f} s"
            raise ServerError(f"the container of image {image!r} {why}: {error}; its log ends with:{_log_tail(container)}") from error


def address(container: Any) -> tuple[str, int]:
    """Return the address of PostgreSQL in a started container: host and port; ServerError when Docker knows none."""
    try:
        return container.get_container_host_ip(), container.get_exposed_port(PORT)
    except OSError as error:  # not running (any more), or no answer from the daemon
        raise ServerError(f"Docker publishes no port for it: {_said(error)}") from error


def end_of(container: Any) -> str:
    """Return how a container ended: its state, and the end of its log."""
    state = container.attrs["State"]
    memory = ", out of memory: raise --container-memory" if state.get("OOMKilled") else ""
    return f"{container.status} with status {state.get('ExitCode')}{memory}; its log ends with:{_log_tail(container)}"


@contextmanager
def asking(container: Any) -> Iterator[None]:
    """Within the block ServerError says that the daemon is gone, or the container; Docker's client would speak of HTTP."""
    from docker.errors import DockerException, NotFound
    from requests import RequestException

    reason = ""
    try:
        yield
    except NotFound as error:
        raise ServerError(f"container {container.short_id} was removed by somebody else: {_said(error)}") from error
    except (DockerException, RequestException) as error:
        reason = _said(error)
    if reason:
        _collect_forgotten_sockets()
        raise ServerError(f"the Docker daemon at {daemon()} no longer answers ({reason}), nor does container {container.short_id}")


def explained(container: Any, error: ServerError) -> ServerError:
    """Why a server that was there does not answer: the daemon is gone, the container is, or PostgreSQL itself says so."""
    try:
        with asking(container):
            container.reload()
            return error if container.status == "running" else ServerError(f"container {container.short_id} stopped: {end_of(container)}")
    except ServerError as gone:
        return gone


def remove(container: Any) -> None:
    """Remove a container and its volume; one that cannot be reached is only named, because what was measured on it is still good."""
    from docker.errors import DockerException, NotFound
    from requests import RequestException

    wrapped = container._container
    reason = ""
    try:
        container.stop()
    except NotFound:
        return
    except (DockerException, RequestException) as error:
        reason = _said(error)
    if reason:
        _collect_forgotten_sockets()
        logger.warning("container %s is not removed (%s); it will be at the next start", wrapped.short_id, reason)


def remove_leftovers(client: Any) -> None:
    """Remove our containers whose owner, a process of this machine, is no more."""
    from docker.errors import APIError

    for container in client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True):
        place, _, pid = container.labels[LABEL].rpartition(":")
        if place == _place() and not _alive(int(pid)):
            logger.warning("removing container %s, left by the killed process %s", container.short_id, pid)
            with suppress(APIError):  # its reaper, or another process like us, is at it
                container.remove(force=True, v=True)


def _place() -> str:
    """Return this machine, and the container that we may be in: process ids are those of this place."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}:{namespace.readlink() if namespace.is_symlink() else ''}"


def _said(error: Exception) -> str:
    """Return the words of Docker, on one line."""
    return " ".join(str(getattr(error, "explanation", None) or error).split())


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

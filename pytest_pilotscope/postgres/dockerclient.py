"""Create, start, watch and remove containers by Docker's client; no container outlives the process that created it."""

from __future__ import annotations

import gc
import io
import logging
import os
import re
import secrets
import socket
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytest_pilotscope.errors import MissingServer, ServerError
from pytest_pilotscope.postgres import reaper

PORT = 5432
LABEL = "pytest-pilotscope.owner"
"""Label of containers created here: machine and process id of their owner, by which leftovers of killed processes are known."""

FIRST_STATEMENTS = "/docker-entrypoint-initdb.d/pilotscope.sql"
"""File that the official image runs after `initdb`, on a server that listens nowhere."""

START_LIMIT_S = 120.0
PORT_ATTEMPTS = 3
"""Starts with another port each: Docker does not know the ports that other programs listen on."""
_POLL_S = 0.1
_PORT_TAKEN = re.compile(r"port is already allocated|address already in use")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The memory and processors that a container may use; None is no limit. `cpus` may be a fraction."""

    memory_bytes: int | None = None
    cpus: float | None = None

    def __str__(self) -> str:
        parts = [f"{self.memory_bytes / 2**20:g} MB of memory" if self.memory_bytes else "", f"{self.cpus:g} CPUs" if self.cpus else ""]
        return ", ".join(part for part in parts if part)

    def options(self) -> dict[str, Any]:
        """Return Docker's options; without swap, which would make a query slow instead of showing that memory does not suffice."""
        memory = {"mem_limit": self.memory_bytes, "memswap_limit": self.memory_bytes} if self.memory_bytes else {}
        return {**memory, **({"nano_cpus": round(self.cpus * 1e9)} if self.cpus else {})}


def open_client() -> Any:
    """Return a client of the Docker daemon; raise MissingServer when Docker's client is not installed or no daemon answers."""
    try:
        from docker.client import DockerClient
        from docker.errors import DockerException
    except ImportError as error:
        raise MissingServer(
            f"a container needs Docker's client ({error}); install it with: pip install 'pytest-pilotscope[container]'"
        ) from error
    reason = ""
    try:
        return DockerClient.from_env(use_ssh_client=daemon().startswith("ssh://"))
    except DockerException as error:
        reason = " ".join(str(error).split())
    _collect_forgotten_sockets()
    raise MissingServer(f"no Docker daemon answers at {daemon()} ({reason}); start Docker, or set DOCKER_HOST")


def create_container(client: Any, image: str, password: str, limits: Limits, first: str, *, host_port: int | None = None) -> Any:
    """
    Create a container, pulling the image if need be, that runs the statements `first` before anybody can connect.

    Docker chooses a free `host_port` at each start when it is None. Raise ServerError with Docker's reason, MissingServer without image.
    """
    from docker.errors import APIError, ImageNotFound

    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    options = {
        "name": "-".join(part for part in ("pilotscope", worker, secrets.token_hex(4)) if part),
        "labels": {LABEL: f"{_machine()}:{os.getpid()}"},
        "environment": {"POSTGRES_PASSWORD": password, "POSTGRES_INITDB_ARGS": "--no-sync"},
        "ports": {f"{PORT}/tcp": host_port},
        "shm_size": "1g",
        **limits.options(),
    }
    try:
        try:
            client.images.get(image)
        except ImageNotFound:
            _pull(client, image)
        container = client.containers.create(image, **options)
        container.put_archive("/", _archive(FIRST_STATEMENTS, first.encode()))
    except APIError as error:
        raise ServerError(f"Docker cannot start a container of image {image!r}: {_said(error)}") from error
    return container


def _pull(client: Any, image: str) -> None:
    from docker.errors import APIError

    try:
        client.images.pull(image)
    except APIError as error:
        raise MissingServer(
            f"there is no image {image!r} on this Docker daemon, and it cannot be pulled ({_said(error)}); build one (docs/servers.md), or "
            "name another in PILOTSCOPE_IMAGE"
        ) from error


def _archive(path: str, content: bytes) -> bytes:
    """Return a tar archive with one file that everybody may read."""
    file = tarfile.TarInfo(path.lstrip("/"))
    file.size, file.mode = len(content), 0o644
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        archive.addfile(file, io.BytesIO(content))
    return written.getvalue()


def daemon() -> str:
    """Return the address of the Docker daemon."""
    return os.environ.get("DOCKER_HOST", "the default socket")


def start(container: Any, image: str) -> None:
    """Start a container; raise ServerError with Docker's reason."""
    from docker.errors import DockerException

    said = ""
    for _ in range(PORT_ATTEMPTS):
        try:
            container.start()
        except DockerException as error:
            said = _said(error)
            if not _PORT_TAKEN.search(said):
                raise ServerError(f"Docker cannot start a container of image {image!r}: {said}; is it an image of PostgreSQL?") from error
        else:
            return
    raise ServerError(
        f"Docker found no free port for a container of image {image!r} in {PORT_ATTEMPTS} attempts: {said}; see which program listens there"
    )


class Reaper:
    """A process that removes a container when this process is killed; see `reaper`."""

    def __init__(self, container_id: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", reaper.__file__, container_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C on the terminal reaches only this process
        )

    def dismiss(self) -> None:
        """End the process without removing the container."""
        with suppress(BrokenPipeError):
            self._process.communicate(b"q")


def wait_until_ready(container: Any, image: str, ask: Callable[[], None]) -> None:
    """Call `ask` until it raises no ServerError; raise ServerError with the end of the log when the container is dead or time is up."""
    deadline_s = time.monotonic() + START_LIMIT_S
    while True:
        with asking(container):
            container.reload()
            if container.status not in ("created", "running", "restarting"):
                raise ServerError(f"the container of image {image!r} stopped while starting: {end_of(container)}")
        try:
            return ask()
        except ServerError as error:
            if time.monotonic() > deadline_s:
                raise ServerError(
                    f"the container of image {image!r} did not answer within {START_LIMIT_S:.0f} s: {error}; its log ends with:"
                    f"{_log_tail(container)}"
                ) from error
        time.sleep(_POLL_S)


def address(container: Any) -> tuple[str, int]:
    """
    Return host and port of PostgreSQL in a started container; raise ServerError when Docker publishes no port.

    From inside another container the daemon's machine is not `localhost`, but the gateway of the new container's network.
    """
    with asking(container):
        container.reload()
    network = container.attrs["NetworkSettings"]
    published = network["Ports"].get(f"{PORT}/tcp")
    if not published:
        raise ServerError(f"Docker publishes no port of container {container.short_id}")
    host = urlsplit(os.environ.get("DOCKER_HOST", "")).hostname or "localhost"
    if host in ("localhost", "127.0.0.1", "::1") and Path("/.dockerenv").exists():
        host = next(iter(network["Networks"].values()))["Gateway"]
    return host, int(published[0]["HostPort"])


def end_of(container: Any) -> str:
    """Return the state of an ended container, and the end of its log."""
    state = container.attrs["State"]
    memory = ", out of memory: raise --container-memory" if state.get("OOMKilled") else ""
    return f"{container.status} with status {state.get('ExitCode')}{memory}; its log ends with:{_log_tail(container)}"


@contextmanager
def asking(container: Any) -> Iterator[None]:
    """Raise ServerError when the daemon or the container is gone within the block; Docker's client would speak of HTTP."""
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
    """Return the error of a lost connection: the daemon is gone, the container is, or `error` itself."""
    try:
        with asking(container):
            container.reload()
            return error if container.status == "running" else ServerError(f"container {container.short_id} stopped: {end_of(container)}")
    except ServerError as gone:
        return gone


def remove(container: Any) -> None:
    """Remove a container and its volume; only warn about one that does not answer, because its measurements are still good."""
    from docker.errors import DockerException, NotFound
    from requests import RequestException

    reason = ""
    try:
        container.remove(force=True, v=True)
    except NotFound:
        return
    except (DockerException, RequestException) as error:
        reason = _said(error)
    if reason:
        _collect_forgotten_sockets()
        logger.warning("container %s is not removed (%s); it will be at the next start", container.short_id, reason)


def remove_leftovers(client: Any) -> None:
    """Remove the containers created here whose owner, a process of this machine, has ended."""
    from docker.errors import APIError

    for container in client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True):
        machine, _, pid = container.labels[LABEL].rpartition(":")
        if machine == _machine() and not _alive(int(pid)):
            logger.warning("removing container %s, left by the killed process %s", container.short_id, pid)
            with suppress(APIError):  # its reaper, or another process, removes it now
                container.remove(force=True, v=True)


def _machine() -> str:
    """Name the machine, and the container that this process may be in: process ids are unique in there only."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}:{namespace.readlink() if namespace.is_symlink() else ''}"


def _said(error: Exception) -> str:
    """Return Docker's message on one line."""
    return " ".join(str(getattr(error, "explanation", None) or error).split())


def _collect_forgotten_sockets() -> None:
    """Collect the socket that Docker's client forgets when nothing answers, lest Python warn about it in other code."""
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

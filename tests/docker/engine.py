"""A Docker engine of the tests' own, on a private socket in a private folder, and images for it that need no registry."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from pytest_pilotscope.postgres.containers import LABEL
from tests.docker import rootfs

START_LIMIT_S = 30.0
STOP_LIMIT_S = 60.0
NEEDED_BYTES = 2 << 30
MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made in it
REPOSITORY = Path(__file__).resolve().parents[2]
BASE = f"pilotscope-test-base:{rootfs.MAJOR}"
IMAGE = f"pilotscope-postgres:{rootfs.MAJOR}"


class Engine:
    """A running `dockerd`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/docker.sock"
        self.log = folder / "dockerd.log"
        self._spawn()

    def _spawn(self) -> None:
        options = {"host": self.url, "data-root": self.folder / "data", "exec-root": self.folder / "exec", "pidfile": self.folder / "pid"}
        command = [
            "setpriv",
            "--pdeathsig=TERM",
            "dockerd",
            *(f"--{name}={value}" for name, value in options.items()),
            "--oom-score-adjust=0",
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def end(self) -> None:
        """Stop every container, then the daemon."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_LIMIT_S)

    def start(self) -> None:
        """Start it again after `end`."""
        self._spawn()
        failure = self.wait_until_ready()
        if failure is not None:
            raise RuntimeError(failure)

    def client(self) -> Any:
        """A client of this engine; close it."""
        from docker.client import DockerClient

        return DockerClient(base_url=self.url)

    def wait_until_ready(self) -> str | None:
        """None when it answers, else why it does not."""
        deadline_s = time.monotonic() + START_LIMIT_S
        while self.process.poll() is None and time.monotonic() < deadline_s:
            with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
                connection.connect(self.url.removeprefix("unix://"))
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                if b" 200 " in connection.recv(64):
                    return None
            time.sleep(0.05)
        return f"dockerd does not start: {self.log.read_text(errors='replace').strip()[-500:]}"

    def stop(self) -> None:
        """End it, and delete what it has stored."""
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def running_engine() -> Iterator[Engine | str]:
    """An engine for the length of the block, or the reason why there can be none."""
    reason = _obstacle()
    if reason is not None:
        yield reason
        return
    with FileLock(Path(tempfile.gettempdir()) / "pilotscope-test-docker.lock"):  # two engines would fight for one network bridge
        yield from _running()


def _running() -> Iterator[Engine | str]:
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > NEEDED_BYTES
    engine = Engine(Path(tempfile.mkdtemp(prefix="pilotscope-docker-", dir=MEMORY if in_memory else None)))
    try:
        failure = engine.wait_until_ready()
        yield engine if failure is None else failure
    finally:
        engine.stop()


def make_images(engine: Engine) -> None:
    """Import the base made from this machine, and build docker/postgres/Dockerfile on it."""
    client = engine.client()
    try:
        tar = engine.folder / "rootfs.tar"
        rootfs.write_rootfs(tar)
        settings = (
            *('ENTRYPOINT ["docker-entrypoint.sh"]', 'CMD ["postgres"]', "EXPOSE 5432", "VOLUME /var/lib/postgresql/data"),
            *(f"ENV PG_MAJOR={rootfs.MAJOR}", "ENV PGDATA=/var/lib/postgresql/data"),
            f"ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:{rootfs.POSTGRES}/bin",
        )
        client.api.import_image_from_file(str(tar), repository=BASE.split(":")[0], tag=BASE.split(":")[1], changes=settings)
        tar.unlink()
        build_image(client, tag=IMAGE)
    finally:
        client.close()


def build_image(client: Any, *, tag: str) -> None:
    """Build docker/postgres/Dockerfile on the base: every stage as written, without the extension that Debian does not have."""
    client.images.build(
        path=str(REPOSITORY / "pytest_pilotscope" / "postgres" / "extension"),
        dockerfile=str(REPOSITORY / "docker" / "postgres" / "Dockerfile"),
        buildargs={"PG_MAJOR": str(rootfs.MAJOR), "BASE": BASE, "EXTENSIONS": "hypopg"},
        network_mode="none",
        tag=tag,
    )


def our_containers(client: Any) -> set[str]:
    """The ids of all containers that were started by the container server."""
    return {container.id for container in client.containers.list(all=True, filters={"label": LABEL})}


def _obstacle() -> str | None:
    if os.geteuid() != 0:
        return "a Docker engine needs root"
    lacking = [name for name in ("dockerd", "iptables") if shutil.which(name) is None] + rootfs.missing()
    return f"a Docker engine and its image need {', '.join(lacking)}, which this machine lacks" if lacking else None

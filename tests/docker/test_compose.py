"""docker-compose.yml: read by the compose tool, and as much of it started as there are images for."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_pilotscope.postgres.dsn import Dsn
from pytest_pilotscope.postgres.given import GivenServer
from pytest_pilotscope.postgres.steering import has_extension
from tests.docker import rootfs
from tests.docker.engine import REPOSITORY, Engine

Compose = Callable[..., subprocess.CompletedProcess[str]]
SECRETS = {"POSTGRES_PASSWORD": "not-random", "MLFLOW_DB_PASSWORD": "neither"}
LIMIT_S = 120


@pytest.fixture
def compose() -> Compose:
    """A function that runs the compose tool on the repository's file; skips where there is none."""
    if shutil.which("docker-compose") is None:
        pytest.skip("no docker-compose on this machine (Debian: docker-compose)")

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = ["docker-compose", "--project-name", "pilotscope-test", "--project-directory", str(REPOSITORY), *arguments]
        return subprocess.run(
            command, env={**os.environ, **environment}, cwd=REPOSITORY, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )

    return run


def test_the_file_is_valid(compose: Compose) -> None:
    """The tool accepts it; ports are open to this machine only, every volume has a name, and services start in order."""
    done = compose("config", **SECRETS)
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    services = found["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:5000:5000/tcp", "127.0.0.1:5432:5432/tcp"]
    mounts = [volume.split(":")[0] for service in services.values() for volume in service["volumes"]]
    assert {mount for mount in mounts if not mount.startswith("/")} == set(found["volumes"])
    assert [mount for mount in mounts if mount.startswith("/")] == [str(REPOSITORY)]
    order = {name: set(service.get("depends_on", {})) for name, service in services.items()}
    assert order == {"postgres": set(), "tracking-store": set(), "mlflow": {"tracking-store"}, "bench": {"postgres", "mlflow"}}
    conditions = {dependency["condition"] for service in services.values() for dependency in service.get("depends_on", {}).values()}
    assert conditions == {"service_healthy"}


def test_secrets_are_random_and_stay(tmp_path: Path) -> None:
    """They are written once, for the owner's eyes only, different every time; what is there is not overwritten."""
    texts = []
    for name in ("one", "two"):
        script = tmp_path / name / "docker" / "make_env.py"
        script.parent.mkdir(parents=True)
        shutil.copyfile(REPOSITORY / "docker" / "make_env.py", script)
        subprocess.run([sys.executable, str(script)], check=True)
        target = tmp_path / name / ".env"
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        texts.append(target.read_text())
    again = subprocess.run([sys.executable, str(script)], check=False, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (
        1,
        f"{target} is there already, and volumes may know its passwords: remove both (docker compose down --volumes) or keep both\n",
    )
    assert target.read_text() == texts[1]
    values = [dict(line.split("=", 1) for line in text.splitlines()) for text in texts]
    assert all(set(found) == set(SECRETS) and all(len(value) >= 32 for value in found.values()) for found in values)
    assert not set(values[0].values()) & set(values[1].values())


def test_the_servers_start(compose: Compose, engine: Engine, docker: Any) -> None:
    """The measured server can be steered and is set up as ours are; the tracking server's is another one, with its own data."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**SECRETS, "DOCKER_HOST": engine.url, "PG_MAJOR": str(rootfs.MAJOR), "POSTGRES_PORT": str(port)}
    try:
        done = compose("up", "--detach", "--no-build", "postgres", "tracking-store", **environment)
        assert done.returncode == 0, done.stderr
        events = docker.events(decode=True, since=0, filters={"event": "health_status"})
        healthy: set[str] = set()
        for event in events:
            if event["status"].endswith(": healthy"):
                healthy.add(event["Actor"]["Attributes"]["com.docker.compose.service"])
            if healthy == {"postgres", "tracking-store"}:
                break
        events.close()
        server = GivenServer(Dsn(f"postgresql://postgres:not-random@127.0.0.1:{port}/postgres"))
        with server.connect() as session:
            assert has_extension(session)
            assert session.execute("SELECT current_setting('jit'), current_setting('autovacuum')") == [("off", "off")]
        (store,) = docker.containers.list(filters={"label": "com.docker.compose.service=tracking-store"})
        asked = store.exec_run(["psql", "-U", "mlflow", "-At", "-c", "SELECT current_database()"])
        assert asked == (0, b"mlflow\n")
        assert store.attrs["NetworkSettings"]["Ports"] in ({}, {"5432/tcp": None})
    finally:
        down = compose("down", "--volumes", **environment)
        assert down.returncode == 0, down.stderr

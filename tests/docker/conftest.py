"""One Docker engine with our image, and the compose tool."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.docker.engine import IMAGE, REPOSITORY, Engine, make_images, running_engine

Compose = Callable[..., subprocess.CompletedProcess[str]]
SECRETS = {"POSTGRES_PASSWORD": "not-random", "MLFLOW_DB_PASSWORD": "neither", "SUITE_OWNER": "1234:1234"}
LIMIT_S = 120


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """
    A running engine with the images; skips with the reason where there can be none.

    It ends with the file of tests: of two workers of `-n`, one waits for the engine of the other.
    """
    with running_engine() as found:
        if isinstance(found, str):
            pytest.skip(f"no Docker engine for the tests: {found}")
        make_images(found)
        yield found


@pytest.fixture
def docker(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the engine; whatever starts a container in this test uses that engine and our image."""
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    monkeypatch.setenv("PILOTSCOPE_IMAGE", IMAGE)
    client = engine.client()
    yield client
    client.close()


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

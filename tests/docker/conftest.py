"""One Docker engine with our image, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.docker.engine import IMAGE, Engine, make_images, running_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A running engine with the images; skips with the reason where there can be none."""
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

"""Folders and stores that the measurements of the fault table start from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pilotscope.tracking.store import open_client
from tests.docker.conftest import docker, engine  # noqa: F401 - fixtures
from tests.faults.playing import COMMAND, GATE, Basis
from tests.faults.program import Program, Project


@pytest.fixture(scope="session")
def basis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Basis]:
    """The folders, after a measurement without faults: it prepares the cache, and shows that the faults are what ends the others."""
    folder = tmp_path_factory.mktemp("without")
    store = folder / "empty.db"
    open_client(f"sqlite:///{store}")  # MLflow needs seconds to create its tables
    with tempfile.TemporaryDirectory(prefix="pilotscope-faults-") as own, tempfile.TemporaryDirectory(dir=own) as temporary:
        for path in (Path(own), Path(temporary)):
            path.chmod(0o755)
        cache = Path(own) / "cache"
        project = Project(folder, store=store, cache=cache, temporary=Path(temporary))
        with Program(project, [*COMMAND, *GATE, "--algo", "watched", "--db", "toy"], environment={}) as program:
            ended = program.end()
        assert ended.code == 0, ended.output
        assert ([record.status for record in project.records()], project.statuses()) == (["FINISHED"], ["FINISHED"])
        yield Basis(folder=Path(own), store=store, cache=cache)


@pytest.fixture
def own_cache(basis: Basis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the servers that stand for somebody else's out of the cache of the measurements."""
    monkeypatch.setenv("PILOTSCOPE_CACHE", str(basis.folder / "theirs"))
    for name in ("PGHOST", "PGPORT", "PGUSER"):
        monkeypatch.delenv(name, raising=False)

"""Fixtures of the benchmarks of speed: a server, a dataset, the data to train on, and a way to print figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import MissingServer
from pytest_pilotscope.learning.algorithm import Algorithm
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.postgres.binaries import find_binaries
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.extension.build import build_library
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.queries.queries import Workload
from pytest_pilotscope.record.results import TrainingReport


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """Start an empty embedded server of the default version."""
    try:
        binaries = find_binaries()
    except MissingServer as error:
        pytest.skip(str(error))
    with EmbeddedServer(binaries, why="for the benchmark") as running:
        yield running


@pytest.fixture(scope="module")
def library(server: EmbeddedServer) -> Path:
    """Return the library, where the account that the server runs as can read it."""
    return server._placed(build_library(server.binaries.bindir))


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a text past pytest's capturing."""

    def shown(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")  # noqa: T201 - the figures are the purpose of a benchmark

    return shown


@contextmanager
def provisioned(dataset: str = "stats_tiny", pg_version: int | None = None) -> Iterator[Database]:
    """Open a dataset on one PostgreSQL; skip if that is missing."""
    with ExitStack() as stack:
        try:
            database = stack.enter_context(open_database(PostgreSQLConfig(dataset, server="embedded", pg_version=pg_version)))
        except MissingServer as error:
            pytest.skip(str(error))
        yield database


def workload_of(database: Database) -> Workload:
    """Return the queries of a dataset."""
    assert database.dataset is not None
    return database.dataset.workload()


def train(algorithm: Algorithm, database: Database, folder: Path, **options: Any) -> TrainingReport:
    """Train an algorithm with some of its options on all training queries, for as long as it takes."""
    with database.session() as session:
        training = Training.of(
            workload_of(database),
            algorithm=algorithm.name,
            database=database,
            session=session,
            settings=Settings(results=folder),
            options=builtin_registry().options(algorithm.name, {algorithm.name: options}),
            folder=folder,
            progress=silent,
        )
        return algorithm.train(training)

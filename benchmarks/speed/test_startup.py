"""
Time until a database can be measured.

    pytest benchmarks/speed/test_startup.py

Warm: from no running server to a fingerprinted `stats_tiny`, with the data directory in the cache (goal: under 3 s). Cold: the same with an
empty cache, so PostgreSQL is set up and the data generated, loaded, indexed and analyzed first. Restart: the cost of a knob trial (goal:
under 0.3 s).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make an empty cache folder that the server's account can enter."""
    with tempfile.TemporaryDirectory(prefix="pilotscope-benchmark-") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("PILOTSCOPE_CACHE", folder)
        yield Path(folder)


def _open(dataset: str) -> None:
    with open_database(PostgreSQLConfig(dataset)) as database, database.session() as session:
        assert session.scalar("SELECT count(*) FROM users") > 0


@pytest.mark.usefixtures("server")
def test_warm_start(benchmark: BenchmarkFixture) -> None:
    """Start, connect, count and stop with the data directory at hand."""
    benchmark.pedantic(_open, args=("stats_tiny",), rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part


@pytest.mark.usefixtures("server", "empty_cache")
@pytest.mark.parametrize("dataset", ["stats_tiny", "stats_synthetic"])
def test_cold_start(benchmark: BenchmarkFixture, dataset: str) -> None:
    """Set up, generate, load, index, analyze, copy, start, connect, count and stop."""
    benchmark.pedantic(_open, args=(dataset,), rounds=1)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part


def test_start_of_an_empty_server(benchmark: BenchmarkFixture, server: EmbeddedServer) -> None:
    """Copy an empty cluster, start, connect and stop."""

    def start() -> None:
        with EmbeddedServer(server.binaries) as own, own.connect() as session:
            assert session.scalar("SELECT 1") == 1

    benchmark.pedantic(start, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part


def test_restart(benchmark: BenchmarkFixture, server: EmbeddedServer) -> None:
    """Stop cleanly, start with other settings, answer."""
    benchmark.pedantic(server.restart, args=({"shared_buffers": "256MB"},), rounds=10, warmup_rounds=1)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part


def test_connect(benchmark: BenchmarkFixture, server: EmbeddedServer) -> None:
    """Open and close a session."""
    benchmark(lambda: server.connect().close())


def test_statement(benchmark: BenchmarkFixture, server: EmbeddedServer) -> None:
    """The smallest statement there and back, with the session's own work on top of the driver's."""
    with server.connect() as session:
        benchmark(session.execute, "SELECT 1")

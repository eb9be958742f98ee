"""
Time until a database can be measured.

    pytest benchmarks/speed/test_startup.py

Warm: from no running server to a fingerprinted `stats_tiny`, with the data directory in the cache (goal: under 3 s). Cold: the same with an
empty cache, so PostgreSQL is set up and the data generated, loaded, indexed and analyzed first. Restart: the cost of a knob trial (goal:
under 0.3 s). By size: the same warm start with the large files in place and, while another server uses them, with copies.

Imports: processor time of `pytest --co`, and of a run until its algorithm may learn, over the same when all libraries come first. Up to
release 0.2 they did: a run opened its MLflow run, whose store was made in a new folder, before it measured, with SciPy for its statistics
and matplotlib for its plots, and collecting tests imported PyTorch for its algorithms.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database
from pytest_pilotscope.provision.loading import prepared_cluster
from pytest_pilotscope.queries.queries import Workload

SIZES_MB = (64, 512, 2048)
TURNS = 3

BEFORE = """
import matplotlib.figure, scipy.special, torch
from mlflow import MlflowClient
MlflowClient("sqlite:///{folder}/mlflow.db").search_experiments()
"""
"""The imports up to release 0.2, and MLflow's start."""

PYTEST = """
import sys, time, pytest
status = pytest.main({arguments!r})
print("processor time", time.process_time())
sys.exit(status)
"""

CONFTEST = """
import time

class First:
    name = "first"

    def train(self, training):
        print("processor time", time.process_time())
        return training.report()

    def steer(self, query, subplans):
        return dict(subplans)

def pytest_pilotscope_register(registry):
    registry.add_algorithm("first", First, origin=__name__)
"""

COLLECTING = ("--co", "-q", "--algo", "mscn", "--db", "stats_tiny")
RUNNING = ("-s", "--algo", "first", "--db", "stats_tiny", "--limit", "1", "--rounds", "1", "--no-mlflow")


@dataclass(frozen=True, kw_only=True)
class Wide:
    """A table of some size, four rows to a page."""

    size_mb: int
    name: str = "wide"
    database: str = "wide"

    @property
    def key(self) -> str:
        """By its size."""
        return f"wide-{self.size_mb}"

    def load(self, session: Session) -> None:
        """Make and fill the table."""
        session.execute("CREATE TABLE users (id int PRIMARY KEY, t text); ALTER TABLE users ALTER t SET STORAGE PLAIN")
        session.execute("INSERT INTO users SELECT i, repeat('x', 1950) FROM generate_series(1, %s) i", (self.size_mb * 512,))

    def workload(self) -> Workload:
        """No query at all."""
        return Workload(dataset=self.name, train=(), validation=(), test=())


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


@contextmanager
def _started(dataset: Wide) -> Iterator[float]:
    """Start a server and give the seconds until its first answer."""
    began_s = perf_counter()
    with open_database(PostgreSQLConfig(dataset.name, server="embedded"), dataset) as database, database.session() as session:
        assert session.scalar("SELECT id FROM users WHERE id = 7") == 7
        yield perf_counter() - began_s


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("size_mb", SIZES_MB)
def test_warm_start_by_size(size_mb: int, server: EmbeddedServer, show: Callable[[str], None]) -> None:
    """Start with the large files in place, then beside such a server another one, which copies them."""
    dataset, in_place_s = Wide(size_mb=size_mb), []
    prepared_cluster(dataset, server.binaries)
    with _started(dataset):  # builds the steering library
        pass
    for _ in range(TURNS):
        with _started(dataset) as seconds:
            in_place_s.append(seconds)
    with _started(dataset), _started(dataset) as copied_s:
        pass
    alone_s = median(in_place_s)
    show(
        f"start on {size_mb} MB: in place {alone_s:.2f} s, {min(in_place_s):.2f} s at least; copied {copied_s / alone_s:.1f} times as long"
    )


def _processor_s(program: str) -> float:
    """Run a pytest in a new folder; return the first processor time that it prints."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "conftest.py").write_text(CONFTEST)
        command = [sys.executable, "-c", program.replace("{folder}", folder)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = re.search("processor time ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("arguments", [COLLECTING, RUNNING], ids=["collecting", "until-training"])
def test_imports(arguments: tuple[str, ...], show: Callable[[str], None]) -> None:
    """Import what is needed when it is needed, and everything before, in turns."""
    program = PYTEST.format(arguments=["--pyargs", "pytest_pilotscope.benchmarks", "-p", "no:cacheprovider", *arguments])
    _processor_s(BEFORE + program)  # the files of all libraries are in memory, the data in the cache
    today_s, before_s = zip(*((_processor_s(program), _processor_s(BEFORE + program)) for _ in range(TURNS)), strict=True)
    ratios = [before / today for before, today in zip(before_s, today_s, strict=True)]
    show(f"{' '.join(arguments)}: {median(today_s):.2f} s, before {median(before_s):.2f} s of processor time, {median(ratios):.1f} times")

"""
Speed of generating and loading the data.

    pytest benchmarks/speed/test_generation.py

Scale 1 is the size of the real database, 1.03 M rows: drawn (goal: under 5 s), and loaded and indexed (goal with ANALYZE: under
25 s on 2 cores). A first run also waits for the queries of `stats_tiny`; later runs take them from the cache.
"""

from __future__ import annotations

import itertools

from pytest_benchmark.fixture import BenchmarkFixture

from pytest_pilotscope.datasets.stats import StatsDataset, generate, make_workload
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session


def test_generate(benchmark: BenchmarkFixture) -> None:
    """1.03 M rows are drawn."""
    drawn = benchmark.pedantic(generate, args=(1.0, 0), rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part
    assert sum(table.rows for table in drawn.values()) == 1_029_842


def test_load(benchmark: BenchmarkFixture, server: EmbeddedServer) -> None:
    """1.03 M rows are drawn, loaded, indexed and analyzed with statistics that read every row."""
    numbers = itertools.count()

    def empty() -> tuple[tuple[Session], dict[str, object]]:
        name = f"load_{next(numbers)}"
        with server.connect() as administrator:
            administrator.execute(f"CREATE DATABASE {name}")
        return (server.connect(name),), {}

    def load(session: Session) -> int:
        with session:
            StatsDataset(name="stats_synthetic").load(session)
            session.execute("SET default_statistics_target = 10000")
            session.execute("VACUUM ANALYZE")
            return int(session.scalar("SELECT COUNT(*) FROM posthistory"))

    assert benchmark.pedantic(load, setup=empty, rounds=2) == 303_187  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part


def test_workload(benchmark: BenchmarkFixture) -> None:
    """The 1246 queries of `stats_tiny` are drawn, without the cache."""
    tables = generate(0.1, 0)
    workload = benchmark.pedantic(make_workload, args=("stats_tiny", tables), kwargs={"scale": 0.1, "seed": 0}, rounds=1)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part
    assert len(workload.train) + len(workload.validation) + len(workload.test) == 1246

"""
Cost of steering: planning time as a ratio to stock PostgreSQL, median over the 146 test queries of `stats_tiny`.

    pytest benchmarks/speed/test_planning_time.py

For each query the sides take turns: stock (a session without the library), stock once more (the noise of this machine), and the session
with the library idle, enumerating, with the planner's own rows injected, and with other rows injected for every subplan. Planning time is
the server's own figure in EXPLAIN (SUMMARY); of a query's rounds the median counts. Goals: idle 1.01, enumerating 1.04, changed rows 1.17,
SET + EXPLAIN + SHOW seen from Python 1.2 of one EXPLAIN, and 2 s for a build.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter_ns

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from pytest_pilotscope.datasets.stats.dataset import StatsDataset
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.extension.build import build_library
from pytest_pilotscope.postgres.extension.compiling import find_compiler
from pytest_pilotscope.postgres.meaning import read_meaning
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.queries import Query

ROUNDS = 15
GOALS = {"idle": 1.01, "enumerate": 1.04, "enumerate with SQL": 1.2, "own rows": 1.08, "changed rows": 1.17}

Setup = Callable[[dict[frozenset[str], float]], Mapping[str, str]]


@pytest.fixture(scope="module")
def queries() -> tuple[Query, ...]:
    """Return the test queries."""
    return StatsDataset(name="stats_tiny").workload().test


@pytest.fixture(scope="module")
def stock(server: EmbeddedServer) -> Iterator[Session]:
    """Open a session without the library in a database with the data."""
    with server.connect() as administrator:
        administrator.execute("CREATE DATABASE planning")
    with server.connect("planning") as session:
        StatsDataset(name="stats_tiny").load(session)
        session.execute("VACUUM ANALYZE")
        yield session


@pytest.fixture(scope="module")
def steered(server: EmbeddedServer, library: Path, stock: Session) -> Iterator[Session]:
    """Open a session with the library in the same database."""
    with server.connect(stock.database) as session:
        session.execute(f"LOAD '{library}'")
        yield session


def _planning_ms(session: Session, sql: str) -> float:
    planning_ms = session.explain(sql, summary=True).planning_ms
    assert planning_ms is not None
    return planning_ms


def _enter(session: Session, settings: Mapping[str, str]) -> None:
    for name in ("cardinalities", "enumerate", "enumerate_sql"):
        session.execute("SELECT set_config(%s, %s, false)", (f"pilotscope.{name}", settings.get(name, "off" if "enum" in name else "")))


def _text(rows: Mapping[frozenset[str], float]) -> str:
    return "{" + ", ".join(f'"{" ".join(sorted(key))}": {value}' for key, value in rows.items()) + "}"


def _sides(steered: Session, sql: str) -> dict[str, dict[str, str]]:
    own = steered.subplans(sql)
    changed = {subplan: 2 * rows + 3 for subplan, rows in own.items()}
    return {
        "idle": {},
        "enumerate": {"enumerate": "on"},
        "enumerate with SQL": {"enumerate": "on", "enumerate_sql": "on"},
        "own rows": {"cardinalities": _text(own)},
        "changed rows": {"cardinalities": _text(changed)},
    }


def _ratios(stock: Session, steered: Session, sql: str) -> dict[str, float]:
    """Return the planning time of every side over that of stock, for one query."""
    sides = _sides(steered, sql)
    times: dict[str, list[float]] = {name: [] for name in ("stock", "stock again", *sides)}
    for session in (stock, steered):
        _planning_ms(session, sql)
    for number in range(ROUNDS):
        order = list(times) if number % 2 else list(reversed(times))
        for name in order:
            session = steered if name in sides else stock
            if name in sides:
                _enter(steered, sides[name])
            _planning_ms(session, sql)  # without it, a side that follows itself, at the turn of two rounds, has the warmer caches
            times[name].append(_planning_ms(session, sql))
    _enter(steered, {})
    base = statistics.median(times["stock"])
    return {name: statistics.median(values) / base for name, values in times.items() if name != "stock"}


def test_planning_time(
    benchmark: BenchmarkFixture, stock: Session, steered: Session, queries: tuple[Query, ...], show: Callable[[str], None]
) -> None:
    """Planning time is paired query by query; the report has the ratio of every side beside its goal."""

    def measure() -> dict[str, float]:
        per_query = [_ratios(stock, steered, query.sql) for query in queries]
        return {name: statistics.median(ratios[name] for ratios in per_query) for name in per_query[0]}

    found = benchmark.pedantic(measure, rounds=1)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part
    benchmark.extra_info.update({f"ratio of {name} to stock": round(ratio, 4) for name, ratio in found.items()})
    lines = [f"{name}: {ratio:.3f}" + (f" (goal {GOALS[name]})" if name in GOALS else "") for name, ratio in found.items()]
    show("\n  ".join(["planning time / stock, median of 146 queries", *lines]))


def test_round_trips(benchmark: BenchmarkFixture, steered: Session, queries: tuple[Query, ...], show: Callable[[str], None]) -> None:
    """The report has a client's time for all estimates of a query, beside one EXPLAIN."""

    def seconds(work: Callable[[], object]) -> int:
        begin = perf_counter_ns()
        work()
        return perf_counter_ns() - begin

    def ratio(sql: str, ask: Callable[[Session, str], object]) -> float:
        pairs = [(seconds(lambda: ask(steered, sql)), seconds(lambda: steered.execute(f"EXPLAIN {sql}"))) for _ in range(ROUNDS)]
        return statistics.median(first for first, _ in pairs) / statistics.median(second for _, second in pairs)

    def measure() -> dict[str, float]:
        ways: dict[str, Callable[[Session, str], object]] = {
            "SET + EXPLAIN + SHOW": Session.subplans,
            "the meaning of all sets": read_meaning,
        }
        return {name: statistics.median(ratio(query.sql, ask) for query in queries) for name, ask in ways.items()}

    found = benchmark.pedantic(measure, rounds=1)  # type: ignore[no-untyped-call]  # typed in part
    benchmark.extra_info.update({f"ratio of {name} to EXPLAIN": round(ratio, 4) for name, ratio in found.items()})
    show("\n  ".join(["from Python, median of 146 queries", *(f"{name} / EXPLAIN: {ratio:.3f}" for name, ratio in found.items())]))


def test_build(benchmark: BenchmarkFixture, server: EmbeddedServer, show: Callable[[str], None]) -> None:
    """The report has the time to compile the library from scratch."""
    times_s: list[float] = []
    with tempfile.TemporaryDirectory() as folder:

        def build() -> None:
            begin = perf_counter_ns()
            build_library(server.binaries.bindir, Path(folder) / str(begin))
            times_s.append((perf_counter_ns() - begin) / 1e9)

        benchmark.pedantic(build, rounds=3)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part
    compiler = " ".join(find_compiler())
    benchmark.extra_info["compiler"] = compiler
    show(f"build with {compiler}\n  {statistics.median(times_s):.2f} s (goal 2 s)")

"""
Speed of labelling, from an empty cache and planning included, beside one COUNT(*) per subplan on one connection.

    pytest benchmarks/speed/test_labels.py

The ratio compares means per subplan: of the labels over all subplans (reading the columns and starting the processes included), of COUNT(*)
over the sampled ones that finish. Leaving out those that do not finish within the limit flatters COUNT(*).

`test_adding_up` compares counting with sums in C and with NumPy, in one process, with the columns at hand.
`test_digest` compares the check of the rows, made before columns are read, with that of version 0.2.0, which sent the hash of each row.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import random
import resource
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter_ns, process_time_ns
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from pytest_pilotscope.datasets.stats.dataset import StatsDataset
from pytest_pilotscope.errors import QueryTimeout
from pytest_pilotscope.labels import Labels, cardinalities, compiled, read_schema
from pytest_pilotscope.labels.labelcache import LABELS_FILE
from pytest_pilotscope.labels.source import SessionSource
from pytest_pilotscope.postgres.copying import Sink
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.meaning import read_meaning
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.queries import Query

SAMPLING_S = 60.0
PAIRS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A dataset, its labelled queries, the limit of a COUNT(*), and the goals."""

    dataset: str
    test_only: bool
    count_limit_ms: int
    goal_s: float
    goal_ratio: float


CASES = [
    Case(dataset="stats_tiny", test_only=False, count_limit_ms=2_000, goal_s=10, goal_ratio=50),
    Case(dataset="stats_synthetic", test_only=True, count_limit_ms=10_000, goal_s=180, goal_ratio=50),
]


@pytest.fixture
def load(server: EmbeddedServer, library: Path) -> Iterator[Callable[[StatsDataset], Session]]:
    """Return a function that loads a dataset as the suite does."""
    sessions = []

    def loaded(dataset: StatsDataset) -> Session:
        with server.connect() as administrator:
            administrator.execute(f"CREATE DATABASE {dataset.database}")
        session = server.connect(dataset.database)
        session.execute(f"LOAD '{library}'")
        sessions.append(session)
        dataset.load(session)
        session.execute("SET default_statistics_target = 10000")
        session.execute("VACUUM ANALYZE")
        return session

    yield loaded
    for session in sessions:
        session.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.dataset)
def test_labels(
    case: Case, load: Callable[[StatsDataset], Session], benchmark: BenchmarkFixture, tmp_path: Path, show: Callable[[str], None]
) -> None:
    """All subplans of the workload get labels; the report has the time per subplan beside that of COUNT(*)."""
    dataset = StatsDataset(name=case.dataset)
    session = load(dataset)
    workload = dataset.workload()
    queries = workload.test if case.test_only else (*workload.train, *workload.test)
    schema = read_schema(session)
    folders = (tmp_path / f"round{number}" for number in itertools.count())

    times_s: list[float] = []

    def label() -> Labels:
        started_ns = perf_counter_ns()
        found = cardinalities(session, queries, schema=schema, fingerprint=dataset.key, cache_dir=next(folders), workers=2)
        times_s.append((perf_counter_ns() - started_ns) / 1e9)
        return found

    labels: Labels = benchmark.pedantic(label, rounds=3)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part
    assert labels.unfinished == 0
    subplans = sum(len(of_query) for of_query in labels.values())
    seconds = statistics.median(times_s)
    counted_ms = sampled_counts_ms(session, queries, labels, case.count_limit_ms)
    ratio = statistics.mean(counted_ms) / (1000 * seconds / subplans)
    benchmark.extra_info.update(
        queries=len(queries),
        subplans=subplans,
        label_ms_per_subplan=1000 * seconds / subplans,
        count_ms_per_subplan=statistics.mean(counted_ms),
        counts_sampled=len(counted_ms),
        ratio_to_count=ratio,
        largest_rows=max(label.rows or 0 for of_query in labels.values() for label in of_query.values()),
        peak_memory_mb=peak_memory_mb(),
    )
    show(report(case, len(queries), subplans, seconds, counted_ms, ratio))


def test_adding_up(
    load: Callable[[StatsDataset], Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, show: Callable[[str], None]
) -> None:
    """The labels of 146 queries are counted in both ways in turns, and are the same; the report has both ratios."""
    dataset = StatsDataset(name="stats_adding", scale=10.0)
    session = load(dataset)
    schema, queries = read_schema(session), dataset.workload().test
    in_c = compiled.function()
    if in_c is None:
        pytest.skip("there is no C compiler")
    ways: dict[str, Any] = {"NumPy": None, "C": in_c}
    spent_ns: dict[str, list[int]] = {name: [0, 0] for name in ways}
    found: dict[str, Labels] = {}

    def count(name: str) -> None:
        found[name] = cardinalities(session, queries, schema=schema, fingerprint=dataset.key, cache_dir=tmp_path)

    for number in range(PAIRS + 1):  # the first pair reads the columns
        for name, way in ways.items():
            (tmp_path / LABELS_FILE).unlink(missing_ok=True)
            monkeypatch.setattr(compiled, "function", lambda way=way: way)
            _spend(spent_ns[name] if number else [0, 0], partial(count, name))
    assert found["C"] == found["NumPy"]
    clock, processor = (before / max(now, 1) for before, now in zip(spent_ns["NumPy"], spent_ns["C"], strict=True))
    show(f"labels of {len(queries)} queries, columns at hand, NumPy over C: {clock:.2f} by the clock, {processor:.2f} of Python's CPU")


def test_digest(load: Callable[[StatsDataset], Session], show: Callable[[str], None]) -> None:
    """The rows of 1.03 M rows are checked in both ways in turns; the report has the ratios of the clock and of Python's processor time."""
    session = load(StatsDataset(name="stats_synthetic", seed=1))
    tables = [f"ONLY {table}" for table in read_schema(session)]
    source = SessionSource(session)
    before_ns, now_ns = [0, 0], [0, 0]
    for _ in range(5):
        for table in tables:
            _spend(before_ns, lambda table=table: _digest_sent(session, table))  # type: ignore[misc]
            _spend(now_ns, lambda table=table: source.digest(table))  # type: ignore[misc]
    clock, processor = (before / max(now, 1) for before, now in zip(before_ns, now_ns, strict=True))
    show(f"digests of all tables, hashes sent over hashes summed on the server: {clock:.2f} by the clock, {processor:.0f} of Python's CPU")


def _spend(total_ns: list[int], work: Callable[[], object]) -> None:
    started_ns, started_cpu_ns = perf_counter_ns(), process_time_ns()
    work()
    total_ns[0] += perf_counter_ns() - started_ns
    total_ns[1] += process_time_ns() - started_cpu_ns


class _Hashing(io.RawIOBase):
    """A file of which only the hash is kept."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.digest.update(content)
        return len(content)


def _digest_sent(session: Session, table: str) -> str:
    """Do what version 0.2.0 did: COPY the hash of each row in physical order, and hash the hashes here in pieces of 4 MiB."""
    hashing = _Hashing()
    with session.rolled_back(), io.BufferedWriter(hashing, 4 << 20) as gathered:
        session.execute("SET LOCAL synchronize_seqscans = off; SET LOCAL max_parallel_workers_per_gather = 0")
        hashes = f"SELECT hash_record_extended(ROW(r.*), 0) FROM {table} AS r"  # noqa: S608
        session._copy(f"COPY ({hashes}) TO STDOUT (FORMAT binary)", Sink(gathered.write))
    return hashing.digest.hexdigest()


def sampled_counts_ms(session: Session, queries: Sequence[Query], labels: Labels, limit_ms: int) -> list[float]:
    """Time COUNT(*) on random subplans for a minute, check each against its label, and leave out those that do not finish."""
    meant = {query.id: read_meaning(session, query.sql).subplans() for query in queries}
    subplans = [(query, subplan, label.rows) for query in queries for subplan, label in labels[query.id].items()]
    random.Random(0).shuffle(subplans)  # noqa: S311  # a sample, not a secret
    times_ms: list[float] = []
    ends_ns = perf_counter_ns() + int(SAMPLING_S * 1e9)
    for query, subplan, rows in subplans:
        if perf_counter_ns() > ends_ns:
            break
        level, mask = meant[query.id][subplan]
        sql = level.count_sql(mask).sql
        started_ns = perf_counter_ns()
        try:
            with session.statement_timeout(limit_ms):
                counted = session.scalar(sql)
        except QueryTimeout:
            continue
        times_ms.append((perf_counter_ns() - started_ns) / 1e6)
        assert counted == rows
    return times_ms


def report(case: Case, queries: int, subplans: int, seconds: float, counted_ms: Sequence[float], ratio: float) -> str:
    """Return the figures beside their goals."""
    return (
        f"labels of {case.dataset}: {subplans} subplans of {queries} queries in {seconds:.2f} s (goal {case.goal_s:.0f} s), "
        f"{1000 * seconds / subplans:.3f} ms each, peak memory {peak_memory_mb()} MB\n"
        f"COUNT(*) on one connection: {statistics.mean(counted_ms):.2f} ms each for the {len(counted_ms)} sampled that finish "
        f"in {case.count_limit_ms} ms; ratio {ratio:.0f} (goal {case.goal_ratio:.0f})"
    )


def peak_memory_mb() -> int:
    """Return the largest resident memory of this process plus that of its largest child, in MB (ru_maxrss is in KiB on Linux)."""
    return sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024

"""
Speed of a collection by two Dask workers beside one.

    pytest benchmarks/speed/test_distributed.py -s

The same tasks on one worker and on two, in turns: Lero's candidates of training queries of `stats_tiny`, found and timed. Every worker has
started its server before the clock starts. The best possible ratio is 2; it needs a processor for each worker and each PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from time import perf_counter

import pytest

from pytest_pilotscope.algorithms.lero.collection import CollectionRules, collect_one
from pytest_pilotscope.algorithms.plans.collecting import collect_there
from pytest_pilotscope.algorithms.plans.timing import TimingRules
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, dataset_of, open_database
from pytest_pilotscope.provision.pool import Worker, WorkerPool, open_pool
from pytest_pilotscope.queries.queries import Query

Say = Callable[[str], None]
QUERIES = 24
ROUNDS = 3
RULES = CollectionRules(factors=(0.1, 10.0), max_candidates=6, timing=TimingRules(rounds=1, last_limit_ms=2000.0))
CONFIG = PostgreSQLConfig("stats_tiny", server="embedded")


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Load the dataset."""
    with open_database(CONFIG) as opened:
        yield opened


def warm(worker: Worker, task: int) -> float:
    """Read everything once; it takes so long that every worker gets one of these tasks."""
    started_s = perf_counter()
    with worker.database.session() as session:
        while perf_counter() - started_s < 1.0:
            session.scalar("SELECT count(*) FROM users, badges WHERE users.id = badges.userid")
    return task


def collected_s(pool: WorkerPool, queries: tuple[Query, ...]) -> float:
    """Return the time of the workers for all queries."""
    started_s = perf_counter()
    for number, query in enumerate(queries):
        pool.submit(str(number), collect_there, (query, partial(collect_one, rules=RULES)))
    for _ in queries:
        pool.next()
    return perf_counter() - started_s


def test_two_workers_beside_one(database: Database, show: Callable[[str], None]) -> None:
    """Two workers collect the same as one; the report has the medians of rounds in turns and their ratio."""
    queries = dataset_of(CONFIG).workload().train[:QUERIES]
    took: dict[int, list[float]] = {1: [], 2: []}
    with open_pool("local:1", database) as one, open_pool("local:2", database) as two:
        for pool in (one, two):
            for number in range(pool.size):
                pool.submit(str(number), warm, number)
            for _ in range(pool.size):
                pool.next()
        for _ in range(ROUNDS):
            for workers, pool in ((1, one), (2, two)):
                took[workers].append(collected_s(pool, queries))
    found = {workers: median(times) for workers, times in took.items()}
    show(f"{QUERIES} queries: 1 worker {found[1]:.2f} s, 2 workers {found[2]:.2f} s, ratio {found[1] / found[2]:.2f}; all {took}")

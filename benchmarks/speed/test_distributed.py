"""
How much faster two Dask workers collect than one.

    pytest benchmarks/speed/test_distributed.py -s

The same units of work on one worker and on two, in turns: Lero's candidates of training queries of `stats_tiny`, found and timed. Every
worker has started its server before the clock starts. On a machine that has no processor to spare for each worker and its PostgreSQL the
ratio says more about the machine than about the way: 2 is what can be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter

import pytest

from pytest_pilotscope.algorithms.lero.collection import CollectionRules, _collect_there
from pytest_pilotscope.algorithms.lero.timing import TimingRules
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, dataset_of, open_database
from pytest_pilotscope.provision.pool import Crew, Place, open_crew
from pytest_pilotscope.queries.queries import Query

Say = Callable[[str], None]
QUERIES = 24
ROUNDS = 3
RULES = CollectionRules(factors=(0.1, 10.0), max_candidates=6, timing=TimingRules(rounds=1, last_limit_ms=2000.0))
CONFIG = PostgreSQLConfig("stats_tiny", server="embedded")


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """The dataset, loaded."""
    with open_database(CONFIG) as opened:
        yield opened


def warm(place: Place, task: int) -> float:
    """Read everything once, long enough that every worker gets one of these."""
    started_s = perf_counter()
    with place.database.session() as session:
        while perf_counter() - started_s < 1.0:
            session.scalar("SELECT count(*) FROM users, badges WHERE users.id = badges.userid")
    return task


def collected_s(crew: Crew, queries: tuple[Query, ...]) -> float:
    """How long a crew takes for all queries."""
    started_s = perf_counter()
    for number, query in enumerate(queries):
        crew.submit(str(number), _collect_there, (query, RULES))
    for _ in queries:
        crew.next()
    return perf_counter() - started_s


def test_two_workers_beside_one(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """Medians of rounds in turns, and their ratio."""
    queries = dataset_of(CONFIG).workload().train[:QUERIES]
    took: dict[int, list[float]] = {1: [], 2: []}
    with open_crew("local:1", database) as one, open_crew("local:2", database) as two:
        for crew in (one, two):
            for number in range(crew.size):
                crew.submit(str(number), warm, number)
            for _ in range(crew.size):
                crew.next()
        for _ in range(ROUNDS):
            for workers, crew in ((1, one), (2, two)):
                took[workers].append(collected_s(crew, queries))
    found = {workers: median(times) for workers, times in took.items()}
    with capsys.disabled():
        print(f"\n{QUERIES} queries: 1 worker {found[1]:.2f} s, 2 workers {found[2]:.2f} s, ratio {found[1] / found[2]:.2f}; all {took}")  # noqa: T201

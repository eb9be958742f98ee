"""
Speed of one decision of mscn within a run: from the text of a query to the steered session.

    pytest benchmarks/speed/test_deciding.py

As in a run, every decision comes after the query was executed without steering, so that weights and code have left the caches.
Three ways take turns on each query: as it is; with every text parsed as a whole; and that with the network in NumPy, as up to
release 0.2. The masks of predicates on the sample are known, as in every round but the first. `test_mscn.py` measures the
published way.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.speed.conftest import provisioned, train, workload_of
from pytest_pilotscope.algorithms.mscn.estimation import TrainedModel
from pytest_pilotscope.algorithms.mscn.estimator import Mscn
from pytest_pilotscope.measurement.sides import Side, side_of
from pytest_pilotscope.measurement.supervision import Supervision
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.plainparser import PlainQuery
from pytest_pilotscope.queries.plaintemplates import PlainParser
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.runs.machine_load import machine_load

ROUNDS = 3


class WithoutReuse(PlainParser):
    """Parses every text as a whole."""

    def read(self, sql: str) -> PlainQuery:
        """Forget what was parsed before."""
        self._known.clear()
        return super().read(sql)


class Trusted(WeakKeyDictionary[object, bool]):
    """Trusts the text of every template, also of one that is new each time."""

    def get(self, key: object, default: bool | None = None) -> bool:  # type: ignore[override]
        """Return True."""
        return True


def parsing_every_text(trained: Mscn, *, numpy: bool) -> Mscn:
    """Return an algorithm with the same weights that reuses nothing of a template."""
    assert trained.model is not None
    made = Mscn()
    made.model = TrainedModel(vocabulary=trained.model.vocabulary, samples=trained.model.samples, network=trained.model.network)
    made.model._parser = WithoutReuse(made.model.vocabulary.schema)
    made._metadata, made._session, made._alike = trained._metadata, trained._session, Trusted()
    if numpy:
        made.model.use_numpy("for the benchmark")
    return made


def decided(side: Side, query: Query) -> tuple[float, float, str]:
    """Run a query without steering, then decide on it; return the ms of deciding, of processor time in it, and the plan without numbers."""
    side.session.timed_stream(query.sql, None)
    with side.steered(query) as steering:
        return steering.inference_ms, steering.inference_processor_ms, side.session.explain(query.sql).shape_hash


def sides_of(session: Session, trained: Mscn) -> dict[str, Side]:
    """Return the three ways."""
    ways = {
        "now": trained,
        "every text parsed": parsing_every_text(trained, numpy=False),
        "every text parsed, NumPy": parsing_every_text(trained, numpy=True),
    }
    supervision = Supervision(session=session, timeout_ms=60_000, exclusive=True)
    return {name: side_of(name, algorithm, session, supervision) for name, algorithm in ways.items()}


def test_deciding(benchmark: BenchmarkFixture, show: Callable[[str], None], tmp_path: Path) -> None:
    """All ways lead to the same plans; the report has the median times of a decision, and their ratios query by query."""
    with provisioned() as database:
        trained = Mscn()
        train(trained, database, tmp_path)
        with database.session() as session:
            trained._session = session
            sides = sides_of(session, trained)
            queries = workload_of(database).test
            for query in queries:  # the first decisions list the subplans
                assert len({decided(side, query)[2] for side in sides.values()}) == 1
            rounds = [{name: decided(side, query) for name, side in sides.items()} for _ in range(ROUNDS) for query in queries]
    benchmark.pedantic(lambda: None)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part
    for name in sides:
        wall_ms, processor_ms = statistics.median(found[name][0] for found in rounds), statistics.median(found[name][1] for found in rounds)
        processor_ratio = statistics.median(found[name][1] / found["now"][1] for found in rounds)
        ratio = statistics.median(found[name][0] / found["now"][0] for found in rounds)
        benchmark.extra_info[name] = {"ms": wall_ms, "processor_ms": processor_ms, "ratio": ratio, "processor_ratio": processor_ratio}
        show(
            f"mscn decides, {name}: {wall_ms:.2f} ms ({processor_ms:.2f} ms of processor time), "
            f"{ratio:.2f} and {processor_ratio:.2f} times now"
        )
    show(f"{machine_load()}")

"""
Speed of index selection, and its gain in a database without secondary indexes.

    pytest benchmarks/speed/test_index.py

The reference is Extend with a per-query cache of relevant configurations: one EXPLAIN for every query and every set of indexes on its
columns, on one connection. Both select for the 146 test queries, to convergence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import pytest

from benchmarks.speed.conftest import provisioned, train, workload_of
from pytest_pilotscope.algorithms.index.advisor import select, take_start
from pytest_pilotscope.algorithms.index.costs import Question, UsedSetCosts, WhatIf
from pytest_pilotscope.algorithms.index.extend import Configuration, Limits, Selection
from pytest_pilotscope.algorithms.index.query_columns import IndexedQuery, indexed_query
from pytest_pilotscope.algorithms.index.selection import IndexSelection
from pytest_pilotscope.algorithms.index.whatif import BackEnd, open_what_if
from pytest_pilotscope.algorithms.knob.measuring import Selected, take_turns
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.postgres.indexes import Index
from pytest_pilotscope.statistics.ratios import Interval, query_ratios, workload_ratios

LIMITS = Limits(budget_bytes=250 << 20)
MEANS: tuple[tuple[BackEnd, int | None], ...] = (("hidden", None), ("hypopg", 15))
Show = Callable[[str], None]


@dataclass(slots=True)
class RelevanceCache:
    """The reference: one question per query and set of indexes on its columns, each asked once."""

    what_if: WhatIf
    queries: Sequence[IndexedQuery]
    calls: int = 0
    known: dict[tuple[str, Configuration], float] = field(default_factory=dict)

    def totals(self, configurations: Sequence[Configuration]) -> list[float]:
        """Return the sum over all queries, for each configuration."""
        return [sum(self.cost(query, configuration) for query in self.queries) for configuration in configurations]

    def lower_bounds(self, configurations: Sequence[Configuration]) -> list[float]:
        """Return zeros: the cache has no bounds."""
        return [0.0] * len(configurations)

    def size_bytes(self, index: Index) -> int:
        """Return the back end's size."""
        return self.what_if.size_bytes(index)

    def cost(self, query: IndexedQuery, configuration: Configuration) -> float:
        """Return a cost from the cache, or ask."""
        relevant = frozenset(index for index in configuration if query.touched_by(index))
        if (query.id, relevant) not in self.known:
            self.calls += 1
            self.known[query.id, relevant] = self.what_if.ask([Question(query, relevant)])[0].cost
        return self.known[query.id, relevant]


@pytest.mark.parametrize(("means", "pg_version"), MEANS, ids=[means for means, _ in MEANS])
def test_selection(means: BackEnd, pg_version: int | None, show: Show) -> None:
    """Both ways select the same indexes; the report has the ratios of EXPLAINs and of times."""
    with provisioned(pg_version=pg_version) as database, database.copy() as copy, copy.session() as session:
        start = take_start(session, drop=True)
        schema = read_schema(session)
        queries = [indexed_query(query, schema) for query in workload_of(database).test]
        try:
            with open_what_if(copy, means) as what_if:
                costs = UsedSetCosts(what_if, queries)
                ours, ours_s = timed(lambda: select(queries, costs, LIMITS, start.kept_indexes))
        except UsageError as error:
            pytest.skip(str(error))
        take_start(session, drop=True)  # so that both ways build their own
        with open_what_if(copy, means, connections=1) as what_if:
            reference = RelevanceCache(what_if, queries)
            theirs, theirs_s = timed(lambda: select(queries, reference, LIMITS, start.kept_indexes))
    show(
        f"{means}: {len(ours.steps)} steps, {len(ours.indexes)} indexes, {ours.size_bytes / 2**20:.1f} MB, estimated cost "
        f"{ours.cost_before:.0f} -> {ours.cost_after:.0f}; {costs.calls} EXPLAINs in {ours_s:.1f} s; "
        f"reference {reference.calls} EXPLAINs in {theirs_s:.1f} s: {reference.calls / costs.calls:.2f} x fewer, {theirs_s / ours_s:.2f} x faster"  # noqa: E501 - one table row
    )
    assert ours.indexes == theirs.indexes


def timed(work: Callable[[], Selection]) -> tuple[Selection, float]:
    """Return a selection and its time, in s."""
    started_ns = perf_counter_ns()
    selection = work()
    return selection, (perf_counter_ns() - started_ns) / 1e9


@pytest.mark.parametrize("dataset", ["stats_tiny", "stats_small", "tpch"])
def test_gain_without_secondary_indexes(dataset: str, tmp_path: Path, show: Show) -> None:
    """The report compares selected indexes with primary keys only, on the test queries, in turns."""
    with provisioned(dataset) as database, database.copy() as bare, bare.session() as plain:
        take_start(plain, drop=True)
        workload = workload_of(database)
        algorithm = IndexSelection()
        report = train(algorithm, database, tmp_path, start="none")
        with algorithm.prepare(database) as prepared, prepared.session() as candidate:
            default_s = tuple(run_s(plain, query.sql) for query in workload.test)
            selected = Selected(queries=workload.test, default_s=default_s, too_long=0)
            pairs = take_turns(plain, candidate, selected, rounds=3)
    ratios = workload_ratios(pairs)
    outcomes = Counter(query.outcome for query in query_ratios(pairs))
    show(
        f"{dataset}: {len(algorithm.indexes or ())} indexes for {len(workload.train)} training queries in {report.duration_s:.0f} s, "
        f"{report.scalars['whatif_calls']} EXPLAINs; {len(workload.test)} test queries are {as_text(ratios.total.inverse)} times as fast "
        f"in total as without secondary indexes, {as_text(ratios.geometric_mean.inverse)} per query; beyond noise: {dict(outcomes)}"
    )


def as_text(interval: Interval) -> str:
    """Format an interval."""
    return f"{interval.estimate:.3f} [{interval.low:.3g}, {interval.high:.4g}]"


def run_s(session: Any, sql: str) -> float:
    """Run a query and return its time by the server's clock."""
    run = session.timed_stream(sql, None)
    return float(run.planning_ms + run.execution_ms) / 1000

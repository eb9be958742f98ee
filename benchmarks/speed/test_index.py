"""
Speed of index selection, and its gain in a database without secondary indexes.

    pytest benchmarks/speed/test_index.py

The reference is Extend as its authors' group published it (`Published`), on one connection. Both select for the 146 test queries, to
convergence.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import process_time_ns
from typing import Any, TypeVar

import pytest

from benchmarks.speed.conftest import provisioned, train, workload_of
from pytest_pilotscope.algorithms.index.advisor import select, take_start
from pytest_pilotscope.algorithms.index.costs import Question, UsedSetCosts, WhatIf
from pytest_pilotscope.algorithms.index.extend import Configuration, Limits
from pytest_pilotscope.algorithms.index.query_columns import IndexedQuery, indexed_query
from pytest_pilotscope.algorithms.index.selection import IndexSelection
from pytest_pilotscope.algorithms.index.whatif import BackEnd, OpenWhatIf, open_what_if
from pytest_pilotscope.algorithms.knob.measuring import Selected, take_turns
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.postgres.indexes import Index
from pytest_pilotscope.statistics.intervals import Interval, query_ratios, workload_ratios

LIMITS = Limits(budget_bytes=250 << 20)
MEANS: tuple[tuple[BackEnd, int | None], ...] = (("hidden", None), ("hypopg", 15))
T = TypeVar("T")
Show = Callable[[str], None]


@dataclass(slots=True)
class Published:
    """
    Extend as the code of its authors' group runs it (hyrise/index_selection_evaluation, `extend_algorithm.py` and `cost_evaluation.py`).

    A step evaluates every index on one column that has room, and every chosen index with one more column of its table. A cost is asked for
    once for each query and set of indexes that have a column of the query. It knows no bounds. It knows nothing of the indexes that exist,
    either, and repeats primary keys; told which are `kept`, it leaves out those columns, and asks less than it is published to.
    """

    what_if: WhatIf
    queries: Sequence[IndexedQuery]
    kept: Configuration
    calls: int = 0
    known: dict[tuple[str, Configuration], float] = field(default_factory=dict)

    def select(self, limits: Limits) -> tuple[tuple[Index, ...], float]:
        """Return the chosen indexes and the cost with them."""
        columns = sorted({(table, name) for query in self.queries for table, names in query.indexable.items() for name in names})
        columns = [one for one in columns if not any(Index(one[0], (one[1],)).is_prefix_of(index) for index in self.kept)]
        chosen: tuple[Index, ...] = ()
        cost = self.total(chosen)
        while True:
            used_bytes = sum(map(self.what_if.size_bytes, chosen))
            best_ratio, best, best_cost = 0.0, chosen, cost
            for replaced, added in self.moves(columns, chosen, limits):
                kept = tuple(index for index in chosen if index != replaced)
                growth_bytes = self.what_if.size_bytes(added) - (self.what_if.size_bytes(replaced) if replaced else 0)
                if replaced is None and used_bytes + growth_bytes > limits.budget_bytes:
                    continue
                total = self.total((*kept, added))
                ratio = (cost - total) / growth_bytes if total * limits.min_improvement < cost else 0.0
                if ratio > best_ratio and used_bytes + growth_bytes <= limits.budget_bytes:
                    best_ratio, best, best_cost = ratio, (*kept, added), total
            if best_ratio <= 0:
                return tuple(sorted(chosen)), cost
            chosen, cost = best, best_cost

    @staticmethod
    def moves(columns: Sequence[tuple[str, str]], chosen: Sequence[Index], limits: Limits) -> Iterator[tuple[Index | None, Index]]:
        """Yield each step: the chosen index that it replaces, or None, and the new one."""
        for table, name in columns:
            if (index := Index(table, (name,))) not in chosen:
                yield None, index
        for table, name in columns:
            for index in chosen:
                wider = Index(index.table, (*index.columns, name))
                if index.table == table and name not in index.columns and len(wider.columns) <= limits.width and wider not in chosen:
                    yield index, wider

    def total(self, indexes: Sequence[Index]) -> float:
        """Return the sum over all queries."""
        return sum(self.cost(query, frozenset(index for index in indexes if _has_its_columns(query, index))) for query in self.queries)

    def cost(self, query: IndexedQuery, relevant: Configuration) -> float:
        """Return a cost from the cache, or ask."""
        if (query.id, relevant) not in self.known:
            self.calls += 1
            self.known[query.id, relevant] = self.what_if.ask([Question(query, relevant)])[0].cost
        return self.known[query.id, relevant]


def _has_its_columns(query: IndexedQuery, index: Index) -> bool:
    return not query.referenced.get(index.table, frozenset()).isdisjoint(index.columns)


@pytest.mark.parametrize(("means", "pg_version"), MEANS, ids=[means for means, _ in MEANS])
def test_selection(means: BackEnd, pg_version: int | None, show: Show) -> None:
    """Both ways select the same indexes if both know those that exist; the report has the ratios of EXPLAINs and of processor time."""
    with provisioned(pg_version=pg_version) as database, database.copy() as copy, copy.session() as session:
        start = take_start(session, drop=True)
        schema = read_schema(session)
        queries = [indexed_query(query, schema) for query in workload_of(database).test]
        try:
            with open_what_if(copy, means) as what_if:
                costs = UsedSetCosts(what_if, queries)
                ours, ours_s = spent(what_if, lambda: select(queries, costs, LIMITS, start.kept_indexes))
        except UsageError as error:
            pytest.skip(str(error))
        show(
            f"{means}: {len(ours.steps)} steps, {len(ours.indexes)} indexes, {ours.size_bytes / 2**20:.1f} MB, estimated cost "
            f"{ours.cost_before:.0f} -> {ours.cost_after:.0f}; {costs.calls} EXPLAINs in {ours_s:.1f} s of processor time"
        )
        for name, kept in (("published", frozenset[Index]()), ("told of existing indexes", start.kept_indexes)):
            take_start(session, drop=True)  # so that each way builds its own
            with open_what_if(copy, means, connections=1) as what_if:
                reference = Published(what_if, queries, kept)
                (theirs, their_cost), theirs_s = spent(what_if, partial(reference.select, LIMITS))
            show(
                f"  {name}: {len(theirs)} indexes, cost {their_cost:.0f}, {reference.calls} EXPLAINs in {theirs_s:.1f} s: "
                f"{reference.calls / costs.calls:.2f} x fewer, {theirs_s / ours_s:.2f} x less processor time"
            )
    assert ours.indexes == theirs


def spent(what_if: OpenWhatIf, work: Callable[[], T]) -> tuple[T, float]:
    """Return a result and the processor time that it took here and in the planners' server processes, in s."""
    pids = [one._session.backend_pid for one in what_if._opened]
    before_s = process_time_ns() / 1e9 + sum(map(processor_s, pids))
    result = work()
    return result, process_time_ns() / 1e9 + sum(map(processor_s, pids)) - before_s


def processor_s(pid: int) -> float:
    """Return the processor time of a process so far, in s."""
    ticks = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


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

"""The content of a page by query, as values, so that the template only formats them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import inf

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryReport, Scalar
from pytest_pilotscope.report.plans import Node, compared, is_aligned, judged, shortened
from pytest_pilotscope.statistics.accuracy import estimating_sides, worst_q_error
from pytest_pilotscope.statistics.figures import QueryTimes, SideSummary, is_tie
from pytest_pilotscope.statistics.intervals import Interval, Outcome, QueryRatio
from pytest_pilotscope.statistics.summary import Summary

OFF = 10.0
"""The smallest q-error that marks a node's estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySide:
    """
    One query on one side.

    `speedup`, `lost_ms` and `outcome` compare it with the baseline; None for the baseline itself and without a pair.
    `worst_q_error` is the largest of its subplans. `changed` is set if the plan differs from the baseline's; None if one of them is
    unknown. It is `tied` if the other plan has the same cost. `facts` explain its decision.
    """

    name: str
    times: QueryTimes | None = None
    speedup: Interval | None = None
    lost_ms: float | None = None
    outcome: Outcome | None = None
    error: str | None = None
    report: QueryReport | None = None
    changed: bool | None = None
    tied: bool = False
    facts: Mapping[str, Scalar] = field(default_factory=dict)
    worst_q_error: float | None = None

    @property
    def trouble(self) -> bool:
        """True if it failed, timed out, or PostgreSQL did not use all steering."""
        unsteered = self.report is not None and self.report.steered_ratio is not None and self.report.steered_ratio < 1
        return self.error is not None or (self.times is not None and self.times.timed_out > 0) or unsteered


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTable:
    """
    One plan and the sides that run it.

    `columns` are these sides, those with the same estimates together; `nodes` has a tuple of nodes, in the same order, for each of them.
    """

    columns: tuple[tuple[str, ...], ...]
    nodes: tuple[tuple[Node, ...], ...]

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that run it."""
        return tuple(chain.from_iterable(self.columns))

    @property
    def rows(self) -> Iterator[tuple[Node, ...]]:
        """The nodes of all sides, node by node."""
        return zip(*self.nodes, strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryContent:
    """One query: its place in the workload, its sides, the baseline first, and its different plans, the baseline's first."""

    id: str
    place: int
    sql: str
    sides: tuple[QuerySide, ...]
    plans: tuple[PlanTable, ...]

    @property
    def most_lost_ms(self) -> float:
        """The time that the query loses on the side where it loses most, negative if it loses on none; infinite if it failed."""
        lost = [inf if side.error else side.lost_ms for side in self.sides]
        return max((ms for ms in lost if ms is not None), default=-inf)

    @property
    def flags(self) -> str:
        """The values for the filter: `win`, `loss`, `plan`, `trouble`."""
        found = {
            "win": any(side.outcome == "win" for side in self.sides),
            "loss": any(side.outcome == "loss" for side in self.sides),
            "plan": any(side.changed for side in self.sides),
            "trouble": any(side.trouble for side in self.sides),
        }
        return " ".join(name for name, is_there in found.items() if is_there)


def queries_of(record: Record, summary: Summary) -> Iterator[QueryContent]:
    """Yield the queries of a record in its order; the page sorts them by lost time."""
    baseline = record.header.baseline_side
    order = (baseline, *(name for name in record.header.sides if name != baseline))
    sides = [_Side.of(record, summary.sides[name]) for name in order]
    for place, query_id in enumerate(record.query_ids()):
        found = tuple(side.query(query_id, sides[0]) for side in sides)
        yield QueryContent(id=query_id, place=place, sql=record.header.queries.get(query_id, ""), sides=found, plans=_plans(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """The figures of a side by query."""

    name: str
    times: dict[str, QueryTimes]
    ratios: dict[str, QueryRatio]
    errors: dict[str, str]
    reports: dict[str, QueryReport]
    facts: dict[str, Mapping[str, Scalar]]
    itself: bool
    estimates: bool

    @classmethod
    def of(cls, record: Record, side: SideSummary) -> _Side:
        return cls(
            name=side.side,
            times={query.query_id: query for query in side.queries},
            ratios={query.query_id: query for query in side.against.queries} if side.against else {},
            errors={run.query_id: run.error for run in record.runs if run.side == side.side and run.error is not None},
            reports={report.query_id: report for report in record.reports if report.side == side.side},
            facts={decision.query_id: decision.facts for decision in record.decisions if decision.side == side.side},
            itself=side.against is not None and side.against.itself,
            estimates=side.side in estimating_sides(record),
        )

    def query(self, query_id: str, baseline: _Side) -> QuerySide:
        ratio, report = self.ratios.get(query_id), self.reports.get(query_id)
        times, own = self.times.get(query_id), baseline.times.get(query_id)
        return QuerySide(
            name=self.name,
            times=times,
            speedup=ratio.ratio.inverse if ratio else None,
            lost_ms=times.end_to_end_ms - own.end_to_end_ms if times and own and self is not baseline else None,
            outcome=ratio.outcome if ratio and not self.itself else None,
            error=self.errors.get(query_id),
            report=report,
            changed=_changed(report, baseline.reports.get(query_id)) if self is not baseline else None,
            tied=bool(report and (its := baseline.reports.get(query_id)) and is_tie(report, its)),
            facts=self.facts.get(query_id, {}),
            worst_q_error=worst_q_error(report) if report and self.estimates else None,
        )


def _changed(report: QueryReport | None, baseline: QueryReport | None) -> bool | None:
    if report is None or baseline is None or report.plan_shape is None or baseline.plan_shape is None:
        return None
    return report.plan_shape != baseline.plan_shape


def _plans(sides: Sequence[QuerySide]) -> tuple[PlanTable, ...]:
    """
    Return the different plans of a query. Sides with the same plan share its table, and those with the same estimates a column.

    The nodes of the first, which is the baseline's if that is known, are marked against all others, and theirs against the first.
    """
    groups: list[dict[str, tuple[Node, ...]]] = []
    for side in sides:
        nodes = judged(side.report) if side.report else ()
        group = next((group for group in groups if is_aligned(next(iter(group.values())), nodes)), None)
        if group is not None:
            group[side.name] = nodes
        elif nodes:
            groups.append({side.name: nodes})
    own, *others = [next(iter(group.values())) for group in groups] or [()]
    marked = [compared(own, *others), *(shortened(compared(nodes, own), own) for nodes in others)]
    return tuple(_table(group, first) for group, first in zip(groups, marked, strict=False))


def _table(group: Mapping[str, tuple[Node, ...]], first: tuple[Node, ...]) -> PlanTable:
    """Return the table of a plan, with the marked nodes of its first side."""
    columns: dict[tuple[object, ...], list[str]] = {}
    for name, nodes in group.items():
        estimates = tuple((node.plan.rows, node.estimated_rows, node.q_error) for node in nodes)
        columns.setdefault(estimates, []).append(name)
    others = [group[names[0]] for names in columns.values()][1:]
    return PlanTable(columns=tuple(map(tuple, columns.values())), nodes=(first, *others))

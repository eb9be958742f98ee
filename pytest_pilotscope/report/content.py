"""The content of a page by query, as values, so that the template only formats them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryReport, Scalar
from pytest_pilotscope.report.plans import Node, compared, judged
from pytest_pilotscope.statistics.accuracy import worst_q_error
from pytest_pilotscope.statistics.figures import QueryTimes, SideSummary, is_tie
from pytest_pilotscope.statistics.ratios import Interval, Outcome, QueryRatio
from pytest_pilotscope.statistics.summary import Summary

OFF = 10.0
"""The smallest q-error that marks a node's estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySide:
    """
    One query on one side. `speedup` and `outcome` compare it with the baseline; None for the baseline itself and without a pair.

    `worst_q_error` is the largest of its subplans. `changed` is set if the plan differs from the baseline's; None if one of them is
    unknown. It is `tied` if the other plan has the same cost. `facts` explain its decision.
    """

    name: str
    times: QueryTimes | None = None
    speedup: Interval | None = None
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
class PlanPair:
    """
    The plans of the baseline and of another side, whose nodes are marked if the other plan differs.

    `same` is set if they do the same; `alike` if their estimated costs and rows are equal, too.
    """

    side: str
    baseline: tuple[Node, ...]
    other: tuple[Node, ...]
    same: bool
    alike: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryContent:
    """One query: its sides, the baseline first, and the plans of the others paired with the baseline's."""

    id: str
    sql: str
    sides: tuple[QuerySide, ...]
    plans: tuple[PlanPair, ...]

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
    """Yield the queries of a record in its order."""
    baseline = record.header.baseline_side
    order = (baseline, *(name for name in record.header.sides if name != baseline))
    sides = [_Side.of(record, summary.sides[name]) for name in order]
    for query_id in record.query_ids():
        found = tuple(side.query(query_id, sides[0]) for side in sides)
        yield QueryContent(id=query_id, sql=record.header.queries.get(query_id, ""), sides=found, plans=tuple(_plans(found[0], found[1:])))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """The figures of a side by query."""

    name: str
    times: dict[str, QueryTimes]
    ratios: dict[str, QueryRatio]
    errors: dict[str, str]
    reports: dict[str, QueryReport]
    facts: dict[str, Mapping[str, Scalar]]

    @classmethod
    def of(cls, record: Record, side: SideSummary) -> _Side:
        return cls(
            name=side.side,
            times={query.query_id: query for query in side.queries},
            ratios={query.query_id: query for query in side.against.queries} if side.against else {},
            errors={run.query_id: run.error for run in record.runs if run.side == side.side and run.error is not None},
            reports={report.query_id: report for report in record.reports if report.side == side.side},
            facts={decision.query_id: decision.facts for decision in record.decisions if decision.side == side.side},
        )

    def query(self, query_id: str, baseline: _Side) -> QuerySide:
        ratio, report = self.ratios.get(query_id), self.reports.get(query_id)
        return QuerySide(
            name=self.name,
            times=self.times.get(query_id),
            speedup=ratio.ratio.inverse if ratio else None,
            outcome=ratio.outcome if ratio else None,
            error=self.errors.get(query_id),
            report=report,
            changed=_changed(report, baseline.reports.get(query_id)) if self is not baseline else None,
            tied=bool(report and (its := baseline.reports.get(query_id)) and is_tie(report, its)),
            facts=self.facts.get(query_id, {}),
            worst_q_error=worst_q_error(report) if report else None,
        )


def _changed(report: QueryReport | None, baseline: QueryReport | None) -> bool | None:
    if report is None or baseline is None or report.plan_shape is None or baseline.plan_shape is None:
        return None
    return report.plan_shape != baseline.plan_shape


def _plans(baseline: QuerySide, others: Sequence[QuerySide]) -> Iterator[PlanPair]:
    left = _nodes(baseline)
    for other in others:
        right = _nodes(other)
        if left or right:
            pair = compared(left, right), compared(right, left)
            same = not any(node.difference for nodes in pair for node in nodes)
            yield PlanPair(side=other.name, baseline=pair[0], other=pair[1], same=same, alike=left == right)


def _nodes(side: QuerySide) -> tuple[Node, ...]:
    return judged(side.report) if side.report else ()

"""The queries that one side of a run has won, lost, or neither, with their speed-ups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_pilotscope.queries.statements import is_single
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryReport
from pytest_pilotscope.statistics.intervals import Interval, Outcome, QueryRatio, query_ratios, workload_ratios
from pytest_pilotscope.statistics.pairs import Pairs, pairs_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Won:
    """
    A run of one `side` beside the baseline: the ratios of its queries, and the reports of both sides, by query.

    `left_out` are the queries without complete rounds on both sides, with the reason.
    """

    record: Record
    side: str
    ratios: Mapping[str, QueryRatio]
    reports: Mapping[str, QueryReport]
    baseline: Mapping[str, QueryReport]
    pairs: Pairs

    @classmethod
    def of(cls, record: Record, side: str) -> Won:
        """Read a record of this side and the baseline alone."""
        pairs = pairs_of(record, side)
        reports = {of: {one.query_id: one for one in record.reports if one.side == of} for of in (side, record.header.baseline_side)}
        ratios = {ratio.query_id: ratio for ratio in query_ratios(pairs)} if pairs.query_ids else {}
        return cls(
            record=record, side=side, ratios=ratios, reports=reports[side], baseline=reports[record.header.baseline_side], pairs=pairs
        )

    def queries(self, outcome: Outcome, among: Iterable[str] | None = None) -> tuple[QueryRatio, ...]:
        """Return the queries with this outcome, the largest difference first."""
        chosen = self.ratios if among is None else [query_id for query_id in among if query_id in self.ratios]
        found = (self.ratios[query_id] for query_id in chosen)
        return tuple(
            sorted((one for one in found if one.outcome == outcome), key=lambda one: one.ratio.estimate, reverse=outcome == "loss")
        )

    def total(self, query_ids: Sequence[str]) -> Interval:
        """Return the speed-up of these very queries together, by the sums of their times in each round."""
        pairs = self.pairs.restricted_to(query_ids)
        summed = Pairs(
            query_ids=("total",),
            baseline_ms=pairs.baseline_ms.sum(axis=0, keepdims=True),
            candidate_ms=pairs.candidate_ms.sum(axis=0, keepdims=True),
            baseline_timed_out=pairs.baseline_timed_out[:1],  # no ratio reads these two
            candidate_timed_out=pairs.candidate_timed_out[:1],
        )
        return query_ratios(summed)[0].ratio.inverse

    def workload(self) -> Interval:
        """Return the speed-up of the whole workload in total, as the tables show it."""
        return workload_ratios(self.pairs, seed=self.record.header.seed).total.inverse


def times_as_fast(speedup: Interval) -> str:
    """Return a speed-up with its interval in words."""
    return f"{_factor(speedup.estimate)} times as fast [{_factor(speedup.low)}, {_factor(speedup.high)}]"


def listed(ratios: Sequence[QueryRatio]) -> str:
    """Return queries with their speed-ups."""
    return ", ".join(f"{one.query_id} {times_as_fast(one.ratio.inverse)}" for one in ratios)


def comment(text: str) -> str:
    """Return a comment of one line, whatever line ends the text has."""
    return f"-- {' '.join(text.split())}"


def is_plain(sql: str) -> bool:
    """Tell whether psql runs a text of a record as one statement, and no part of it as a command of its own (a backslash)."""
    return "\\" not in sql and is_single(sql)


def _factor(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"

"""
The paired, interleaved protocol.

For each query: one warm-up of every side, in which answers are compared and plans read back; then rounds in which the sides take turns in
an order that rotates and reverses, so that no side is always first and drift hits all of them alike (docs/measurement.md has the evidence).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import ceil

from pytest_pilotscope.algorithm import Cardinalities, Subplan
from pytest_pilotscope.core.answers import answer_hash, is_empty
from pytest_pilotscope.core.queries import Query
from pytest_pilotscope.core.results import WARM_UP, QueryDecision, QueryReport, QueryRun
from pytest_pilotscope.errors import DifferentAnswer, IncompleteEstimate, QueryTimeout, SideFailed, StatementFailed
from pytest_pilotscope.measurement.accuracy import estimates_of, p_error
from pytest_pilotscope.measurement.clocks import Clock
from pytest_pilotscope.measurement.sides import Side, Steering, check_estimates
from pytest_pilotscope.postgres.explain import Plan, node_of
from pytest_pilotscope.postgres.steering import verify

TIMEOUT_FACTOR = 10.0
TIMEOUT_FLOOR_MS = 1_000.0
FIRST_RUN_LIMIT_MS = 600_000.0
"""The limit of a query of which nothing is known yet: its first baseline run."""

Line = QueryRun | QueryReport | QueryDecision
"""What measuring a query adds to a record."""

Write = Callable[[Line], None]


@dataclass(slots=True, kw_only=True)
class QueryMeasurement:
    """
    Measures one query on all sides; the first side is the baseline.

    `clock` times a statement on a session (`clocks.clock_of`). `timeout_ms` is a fixed limit, or None for 10 x the slowest baseline
    repetition so far, at least 1 s. Every execution is handed to `write` as soon as it is there. `truth` are the true
    cardinalities, where they are known.
    """

    query: Query
    sides: Sequence[Side]
    timeout_ms: float | None
    write: Write
    clock: Clock
    truth: Mapping[Subplan, int] | None = None
    _slowest_baseline_ms: float | None = field(default=None, init=False)

    def run(self, rounds: int) -> tuple[QueryRun, ...]:
        """
        Warm up, compare answers, read plans back, then measure; return all runs, warm-ups included.

        A side on which the statement failed is not run again. Raises `DifferentAnswer`.
        """
        warm = [self._execute(side, WARM_UP, order, self.limit_ms) for order, side in enumerate(self.sides)]
        self._compare_answers(warm)
        ran = [(side, run) for side, run in zip(self.sides, warm, strict=True) if run.error is None]
        for side, run in ran:
            self.write(self._inspect(side, ends=not run.timed_out))
        alive = [side for side, _ in ran]
        measured = [run for repetition in range(1, rounds + 1) for run in self._round(alive, repetition)]
        return (*warm, *measured)

    def _round(self, sides: Sequence[Side], repetition: int) -> list[QueryRun]:
        """Measure every side once, all with the same limit."""
        limit_ms = self.limit_ms
        return [self._execute(side, repetition, order, limit_ms) for order, side in enumerate(_turns(sides, repetition))]

    @property
    def limit_ms(self) -> float:
        """The limit of the next round. A baseline run that was cut off says nothing about how long the query takes: it moves no limit."""
        if self.timeout_ms is not None:
            return self.timeout_ms
        if self._slowest_baseline_ms is None:
            return FIRST_RUN_LIMIT_MS
        return max(TIMEOUT_FACTOR * self._slowest_baseline_ms, TIMEOUT_FLOOR_MS)

    def _execute(self, side: Side, repetition: int, order: int, limit_ms: float) -> QueryRun:
        run = self._timed(side, repetition, order, ceil(limit_ms))
        if side is self.sides[0] and run.error is None and not run.timed_out:
            self._slowest_baseline_ms = max(self._slowest_baseline_ms or 0.0, run.execution_ms)
        self.write(run)
        return run

    def _timed(self, side: Side, repetition: int, order: int, limit_ms: int) -> QueryRun:
        with side.steered(self.query) as steering:
            run = QueryRun(
                query_id=self.query.id,
                side=side.name,
                repetition=repetition,
                order=order,
                inference_ms=steering.inference_ms,
                planning_ms=0.0,
                execution_ms=0.0,
            )
            try:
                with side.session.statement_timeout(limit_ms):
                    timed = self.clock(side.session, self.query.sql)
            except QueryTimeout:
                return replace(run, execution_ms=limit_ms, timed_out=True)
            except StatementFailed as error:
                return replace(run, error=str(error))
        run = replace(run, planning_ms=timed.planning_ms, execution_ms=timed.execution_ms, row_count=len(timed.rows))
        return replace(run, answer_hash=answer_hash(timed.rows), empty=is_empty(timed.rows)) if run.warm_up else run

    def _compare_answers(self, warm: Sequence[QueryRun]) -> None:
        baseline = warm[0]
        for run in warm[1:]:
            comparable = all(r.error is None and not r.timed_out for r in (baseline, run))
            if comparable and run.answer_hash != baseline.answer_hash:
                raise DifferentAnswer(
                    f"query {self.query.id!r}: side {run.side!r} returned other rows than {baseline.side!r} "
                    f"({run.row_count} rows, hash {run.answer_hash}, against {baseline.row_count} rows, hash {baseline.answer_hash}); "
                    "its times cannot be compared",
                    side=run.side,
                )

    def _inspect(self, side: Side, *, ends: bool) -> QueryReport:
        steering, plan = self._planned(side, ends=ends)
        if steering.facts:
            self.write(QueryDecision(query_id=self.query.id, side=side.name, facts=steering.facts))
        report = QueryReport(
            query_id=self.query.id, side=side.name, plan_shape=plan.shape_hash, plan=node_of(plan), plan_cost=plan.total_cost
        )
        estimates = self._estimates(side, steering)
        if self.truth:
            report = replace(
                report,
                estimates=None if estimates is None else estimates_of(estimates, self.truth),
                p_error=p_error(side.session, self.query.sql, plan, self.truth),
            )
        if steering.unsupported is not None:
            return replace(report, steered_ratio=0.0, steering_reasons=(f"not taken apart: {steering.unsupported}",))
        if not steering.cardinalities:
            return report
        adherence = verify(plan, steering.cardinalities)
        return replace(report, steered_ratio=adherence.steered_ratio, steering_reasons=adherence.reasons)

    def _estimates(self, side: Side, steering: Steering) -> Cardinalities | None:
        """
        What the planner believed of each of its subplans: the side's estimates, else PostgreSQL's own; None where nobody's are of interest.

        SideFailed (IncompleteEstimate) for a side that found the subplans by itself, and missed one of the planner's.
        """
        if steering.by_candidate or not (self.truth or steering.cardinalities):
            return None
        own = side.session.subplans(self.query.sql)
        if steering.cardinalities is None:
            return own
        try:
            check_estimates(side.name, self.query, own, steering.cardinalities)
        except IncompleteEstimate as error:
            raise SideFailed(side.name, error) from error
        return {subplan: steering.cardinalities[subplan] for subplan in own}

    def _planned(self, side: Side, *, ends: bool) -> tuple[Steering, Plan]:
        """What the side decides, and the plan; with the rows that its nodes really have where no cardinalities are known and it `ends`."""
        if ends and not self.truth:
            with suppress(QueryTimeout), side.steered(self.query) as steering, side.session.statement_timeout(ceil(self.limit_ms)):
                return steering, side.session.explain(self.query.sql, analyze=True, timing=False)
        with side.steered(self.query) as steering:
            return steering, side.session.explain(self.query.sql)


def _turns(sides: Sequence[Side], repetition: int) -> list[Side]:
    """The order of one round: forwards and backwards in turn, starting one side later every second round."""
    start = (repetition - 1) // 2 % max(len(sides), 1)
    rotated = [*sides[start:], *sides[:start]]
    return rotated if repetition % 2 else rotated[::-1]

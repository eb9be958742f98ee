"""
The paired, interleaved protocol.

For each query: one warm-up of every side, in which answers are compared and plans read back; then rounds in which the sides take turns in
an order that rotates and reverses, so that no side is always first and drift affects all alike (docs/measurement.md has the evidence).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, TypeVar

from pytest_pilotscope.errors import DifferentAnswer, QueryTimeout
from pytest_pilotscope.learning.algorithm import Cardinalities, Subplan, unknown_of
from pytest_pilotscope.measurement.accuracy import estimates_of, p_error
from pytest_pilotscope.measurement.answers import Answer
from pytest_pilotscope.measurement.clocks import Clock
from pytest_pilotscope.measurement.differences import Differs, explained
from pytest_pilotscope.measurement.executing import executed
from pytest_pilotscope.measurement.inspection import Inspection, adherence_of, inspected, unused
from pytest_pilotscope.measurement.sides import Side
from pytest_pilotscope.postgres.explain import Plan, node_of
from pytest_pilotscope.postgres.steering import has_extension
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import WARM_UP, QueryDecision, QueryReport, QueryRun

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

logger = logging.getLogger(__name__)

TIMEOUT_FACTOR = 10.0
TIMEOUT_FLOOR_MS = 1_000.0
FIRST_RUN_LIMIT_MS = 600_000.0
"""The limit of the first baseline run of a query."""

T = TypeVar("T")

Line = QueryRun | QueryReport | QueryDecision
"""A line of the record that measuring a query adds."""

Write = Callable[[Line], None]


@dataclass(slots=True, kw_only=True)
class QueryMeasurement:
    """
    Measures one query on all sides; the first side is the baseline.

    `clock` times a statement on a session (`clocks.clock_of`). `timeout_ms` is a fixed limit, or None for 10 x the slowest baseline
    repetition so far, at least 1 s. Every execution goes to `write` at once. `truth` are the true cardinalities that are known; a
    `PartialCardinalities` has reasons for the others. `chill` is called with the session before each execution.
    """

    query: Query
    sides: Sequence[Side]
    timeout_ms: float | None
    write: Write
    clock: Clock
    truth: Cardinalities | None = None
    chill: Callable[[Session], None] | None = None
    _slowest_baseline_ms: float | None = field(default=None, init=False)
    _slowest_other_ms: float | None = field(default=None, init=False)
    _answers: dict[str, Answer] = field(default_factory=dict, init=False)
    _open: dict[str, str] = field(default_factory=dict, init=False)
    _judged: frozenset[Subplan] | None = field(default=None, init=False)
    _ran: Sequence[Side] = field(default=(), init=False)
    _rounds: int = field(default=0, init=False)
    _cut_off: QueryRun | None = field(default=None, init=False)

    def run(self, rounds: int) -> tuple[QueryRun, ...]:
        """
        Warm up, compare answers, read plans back, then measure; return all runs, warm-ups included.

        A side on which the statement failed is not run again. Raises `DifferentAnswer`.
        """
        warm = self._warm_up()
        if self._hopeless(warm):
            self._give_up(warm[0])
            return (*warm, *self._measured(self.sides, rounds))
        self._compare_answers(warm)
        self._answers.clear()
        ran = [(side, run) for side, run in zip(self.sides, warm, strict=True) if run.error is None]
        for side, run in ran:
            self.write(self._inspect(side, ends=not run.timed_out))
        self._ran = [side for side, _ in ran]
        return (*warm, *self._measured(self._ran, rounds))

    def more(self, rounds: int, sides: Sequence[Side], write: Write) -> tuple[QueryRun, ...]:
        """Measure further rounds on those of these sides that ran before, after a warm-up that is not recorded."""
        self.write = write
        names = {side.name for side in sides}
        again = [side for side in self._ran if side.name in names]
        for side in again if self._cut_off is None else ():
            self._timed(side, WARM_UP, 0, ceil(self.limit_ms))
        self._answers.clear()
        return tuple(self._measured(again, rounds))

    def ran_on(self, sides: Sequence[Side]) -> bool:
        """Tell whether the query was not given up, and ran on all of these sides."""
        return self._cut_off is None and {side.name for side in sides} <= {side.name for side in self._ran}

    def _measured(self, sides: Sequence[Side], rounds: int) -> list[QueryRun]:
        first = self._rounds + 1
        self._rounds += rounds
        return [run for repetition in range(first, first + rounds) for run in self._round(sides, repetition)]

    def _warm_up(self) -> list[QueryRun]:
        """Run every side once, unless the query is hopeless."""
        warm: list[QueryRun] = []
        for order, side in enumerate(self.sides):
            if len(warm) > 1 and self._hopeless(warm):
                warm.append(self._not_run(warm[0], side, WARM_UP, order))
            else:
                warm.append(self._execute(side, WARM_UP, order, self.limit_ms))
        return warm

    def _hopeless(self, warm: Sequence[QueryRun]) -> bool:
        """Tell whether all of these runs were cut off at `FIRST_RUN_LIMIT_MS`, which the user did not choose."""
        return self.timeout_ms is None and all(run.timed_out for run in warm)

    def _give_up(self, cut_off: QueryRun) -> None:
        """Count a hopeless query as timed out on every side in every round; running it again would take hours and tell nothing."""
        self._cut_off, self._ran = cut_off, self.sides
        logger.warning(
            "query %s was cut off after %d s on %s, so it counts as timed out on every side and is not run again; give a limit with "
            "--query-timeout-ms",
            *(self.query.id, FIRST_RUN_LIMIT_MS // 1000, " and ".join(repr(side.name) for side in self.sides[:2])),
        )

    def _not_run(self, cut_off: QueryRun, side: Side, repetition: int, order: int) -> QueryRun:
        """Write a run that was cut off for one that does not take place."""
        run = replace(cut_off, side=side.name, repetition=repetition, order=order, inference_ms=0.0, inference_processor_ms=0.0)
        self.write(run)
        return run

    def _round(self, sides: Sequence[Side], repetition: int) -> list[QueryRun]:
        """Measure every side once, all with the same limit; of a query that was given up, write the time-outs only."""
        in_turns = enumerate(turns(sides, repetition))
        if self._cut_off is not None:
            return [self._not_run(self._cut_off, side, repetition, order) for order, side in in_turns]
        limit_ms = self.limit_ms
        return [self._execute(side, repetition, order, limit_ms) for order, side in in_turns]

    @property
    def limit_ms(self) -> float:
        """
        The limit of the next round, from the slowest run of the baseline.

        If the baseline was cut off, take the slowest run of another side that ended: the times of the baseline are then lower bounds, and
        its later runs need not take as long as the first.
        """
        if self.timeout_ms is not None:
            return self.timeout_ms
        slowest_ms = self._slowest_other_ms if self._slowest_baseline_ms is None else self._slowest_baseline_ms
        return FIRST_RUN_LIMIT_MS if slowest_ms is None else max(TIMEOUT_FACTOR * slowest_ms, TIMEOUT_FLOOR_MS)

    def _execute(self, side: Side, repetition: int, order: int, limit_ms: float) -> QueryRun:
        run = self._timed(side, repetition, order, ceil(limit_ms))
        if run.error is None and not run.timed_out:
            if side is self.sides[0]:
                self._slowest_baseline_ms = max(self._slowest_baseline_ms or 0.0, run.execution_ms)
            else:
                self._slowest_other_ms = max(self._slowest_other_ms or 0.0, run.execution_ms)
        self.write(run)
        return run

    def _timed(self, side: Side, repetition: int, order: int, limit_ms: int) -> QueryRun:
        answer = Answer() if repetition == WARM_UP else None
        with side.steered(self.query) as steering:
            run = QueryRun(
                query_id=self.query.id,
                side=side.name,
                repetition=repetition,
                order=order,
                inference_ms=steering.inference_ms,
                inference_processor_ms=steering.inference_processor_ms,
                planning_ms=0.0,
                execution_ms=0.0,
            )
            if self.chill is not None:
                self.chill(side.session)
            take = None if answer is None else answer.take
            run = executed(run, side.session, self.query.sql, self.clock, limit_ms=limit_ms, take=take)
        if answer is None or run.error is not None or run.timed_out:
            return run
        self._answers[side.name] = answer
        return replace(run, answer_hash=answer.hash, empty=answer.empty)

    def _compare_answers(self, warm: Sequence[QueryRun]) -> None:
        """Compare each side's answer with the baseline's; note those that cannot be compared, and raise `DifferentAnswer` for others."""
        baseline = warm[0]
        for side, run in zip(self.sides[1:], warm[1:], strict=True):
            if None in (baseline.answer_hash, run.answer_hash) or run.answer_hash == baseline.answer_hash:
                continue
            answers = self._answers[baseline.side], self._answers[run.side]
            try:
                reason = explained(self.query, self.sides[0], side, answers, ceil(self.limit_ms))
            except Differs:
                raise DifferentAnswer(
                    f"query {self.query.id!r}: side {run.side!r} returned other rows than {baseline.side!r} "
                    f"({run.row_count} rows, hash {run.answer_hash}, against {baseline.row_count} rows, hash {baseline.answer_hash}); "
                    "its times cannot be compared",
                    side=run.side,
                ) from None
            if reason is not None:
                self._open[side.name] = reason

    def _inspect(self, side: Side, *, ends: bool) -> QueryReport:
        inspection = self._inspection(side, ends=ends)
        steering, plan = inspection.steering, inspection.plan
        if steering.facts:
            self.write(QueryDecision(query_id=self.query.id, side=side.name, facts=steering.facts))
        report = QueryReport(
            query_id=self.query.id,
            side=side.name,
            not_comparable=self._open.get(side.name),
            left=steering.unsupported,
            settings=steering.decision.settings if steering.decision is not None else {},
        )
        if plan is not None:
            report = replace(report, plan_shape=plan.shape_hash, plan=node_of(plan), plan_cost=plan.total_cost)
            report = self._with_accuracy(report, side, inspection, plan)
        if steering.unsupported is not None:
            return replace(report, steered_ratio=0.0, steering_reasons=(f"not steered: {steering.unsupported}",))
        adherence = adherence_of(inspection, side.session, self.query.sql)
        if adherence is None:
            return report
        left = unused(adherence, inspection)
        return replace(report, left=left, steered_ratio=adherence.steered_ratio, steering_reasons=adherence.reasons)

    def _with_accuracy(self, report: QueryReport, side: Side, inspection: Inspection, plan: Plan) -> QueryReport:
        """
        Add q-errors, unless the rows only force a plan, and the p-error, or the reason why there is none.

        Every side is judged on the sets of the baseline: one that an estimator leaves to PostgreSQL has the rows that PostgreSQL planned
        with. A side on which PostgreSQL does not consider all of them has no q-errors: settings (`join_collapse_limit`), and the genetic
        optimizer with other costs, choose others.
        """
        if not has_extension(side.session):
            return replace(report, p_error_reason="its server has no pilotscope library" if self.truth else None)
        if not self.truth:
            return replace(report, p_error_reason=next(iter(unknown_of(self.truth).values()), None))
        estimates = None
        if inspection.steering.decision is None:
            own = side.session.subplans(self.query.sql)
            given, planned = inspection.steering.estimates or {}, {**own, **inspection.considered}
            if self._judged is None:  # the baseline is the first
                self._judged = frozenset(subplan for subplan in own if subplan in self.truth)
            if self._judged <= own.keys():
                judged = {subplan: given.get(subplan, given.get(frozenset(subplan), planned[subplan])) for subplan in own}
                estimates = estimates_of({subplan: rows for subplan, rows in judged.items() if subplan in self._judged}, self.truth)
        found = p_error(side.session, self.query.sql, plan, self.truth)
        return replace(report, estimates=estimates, p_error=found.value, p_error_reason=found.reason)

    def _inspection(self, side: Side, *, ends: bool) -> Inspection:
        """Read the plan; with the actual rows of its nodes if no cardinalities are known and the statement `ends` in time."""
        if ends and not self.truth:
            with suppress(QueryTimeout), side.steered(self.query) as steering, side.session.statement_timeout(ceil(self.limit_ms)):
                return inspected(side.session, self.query.sql, steering, analyze=True)
        with side.steered(self.query) as steering, side.session.statement_timeout(ceil(self.limit_ms)):
            return inspected(side.session, self.query.sql, steering)


def turns(sides: Sequence[T], repetition: int) -> list[T]:
    """Return the sides in the order of one round: forwards and backwards in turn, starting one side later every second round."""
    start = (repetition - 1) // 2 % max(len(sides), 1)
    rotated = [*sides[start:], *sides[:start]]
    return rotated if repetition % 2 else rotated[::-1]

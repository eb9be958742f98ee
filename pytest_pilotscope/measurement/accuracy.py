"""
The accuracy of the estimates of one query: against the true rows (q-error), and by the cost of the plan that they lead to (p-error).

P-error as in Han et al., "Cardinality Estimation in DBMS: A Comprehensive Benchmark Evaluation", PVLDB 15(4), 2022: the cost of the chosen
plan, computed with the true cardinalities, over the cost of the plan PostgreSQL chooses when it knows them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_pilotscope.learning.algorithm import Cardinalities, Subplan, unknown_of
from pytest_pilotscope.postgres.plan_hints import hints_of
from pytest_pilotscope.record.results import SubplanEstimate

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.explain import Plan
    from pytest_pilotscope.postgres.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class PError:
    """The p-error of a plan, or the `reason` why it is not known."""

    value: float | None = None
    reason: str | None = None


def estimates_of(estimated: Cardinalities, truth: Cardinalities) -> tuple[SubplanEstimate, ...]:
    """Pair the estimates with the true rows of every subplan whose truth is known, in all query levels."""
    return tuple(
        SubplanEstimate(aliases=tuple(sorted(subplan)), estimated=rows, true=float(truth[subplan]))
        for subplan, rows in estimated.items()
        if subplan in truth
    )


def p_error(session: Session, sql: str, plan: Plan, truth: Cardinalities) -> PError:
    """
    Return the cost of `plan` over the cost of the best plan, both with the true cardinalities, at least 1.

    It is not known if the planner considers a set whose true rows are not known, or if no hints make PostgreSQL plan `plan` again.
    """
    join_order, methods = hints_of(plan)
    with session.cardinalities(truth):
        best = session.explain(sql)
        reason = _without_truth(session.subplans(sql), truth)
        if reason is not None or best.shape_hash == plan.shape_hash:
            return PError(value=1.0) if reason is None else PError(reason=reason)
        with session.hints(join_order=join_order, methods=methods):
            again = session.explain(sql)
            reason = _without_truth(session.subplans(sql), truth)
    if reason is None and hints_of(again) != (join_order, methods):
        reason = "no hints make PostgreSQL plan it once more with the true rows"
    return PError(value=max(again.total_cost / best.total_cost, 1.0)) if reason is None else PError(reason=reason)


def _without_truth(considered: Iterable[Subplan], truth: Cardinalities) -> str | None:
    """Return the reason why sets that the planner considered have no true rows; None when all have them."""
    considered = list(considered)
    unknown = [subplan for subplan in considered if subplan not in truth]
    if not unknown:
        return None
    first = next((subplan for subplan in unknown if subplan in unknown_of(truth)), unknown[0])
    why = unknown_of(truth).get(first, "PostgreSQL did not consider them together when true rows were counted")
    return f"the true rows of {len(unknown)} of {len(considered)} sets are not known, those of {' '.join(sorted(first))} because: {why}"

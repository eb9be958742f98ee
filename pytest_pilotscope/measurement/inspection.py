"""The plan that a side's decision led to, and how far PostgreSQL followed the decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import QueryTimeout, StatementFailed, named
from pytest_pilotscope.learning.algorithm import Cardinalities, unknown_of
from pytest_pilotscope.postgres.adherence import Adherence, Tally, combined, uninjected, verify
from pytest_pilotscope.postgres.plan_hints import verify_hints
from pytest_pilotscope.postgres.plannersettings import settings_in_force, verify_settings

if TYPE_CHECKING:
    from pytest_pilotscope.learning.decision import Decision
    from pytest_pilotscope.measurement.sides import Steering
    from pytest_pilotscope.postgres.explain import Plan
    from pytest_pilotscope.postgres.session import Session

_WARNING = "WARNING:  "


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """
    A side's decision on a query, and the plan that it led to, or the reason (`failure`) why there is none.

    `considered` are the sets that PostgreSQL considered for it, `in_force` the settings that were decided (see `settings_in_force`), and
    `warnings` those of the library about rows and hints that fit no relations.
    """

    steering: Steering
    plan: Plan | None = None
    considered: Cardinalities = field(default_factory=dict)
    in_force: Mapping[str, str | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    failure: str | None = None


def inspected(session: Session, sql: str, steering: Steering, *, analyze: bool = False) -> Inspection:
    """
    Explain a statement while its side is steered; `analyze` runs it.

    A statement that EXPLAIN refuses (a command that is no query) has no plan. Raise `QueryTimeout` if `analyze` takes too long.
    """
    settings = list(steering.decision.settings) if steering.decision is not None else []
    options = {"settings": bool(settings)} | ({"analyze": True, "timing": False} if analyze else {})
    session.take_notices()
    try:
        plan = session.unable_to_write(lambda: session.explain(sql, **options))
    except QueryTimeout as error:
        if analyze:
            raise
        return Inspection(steering=steering, failure=f"planning it takes more than {error.timeout_ms} ms")
    except StatementFailed as error:
        if not error.sqlstate:
            raise
        return Inspection(steering=steering, failure=error.reason)
    return Inspection(
        steering=steering,
        plan=plan,
        warnings=tuple(notice.removeprefix(_WARNING) for notice in session.take_notices() if notice.startswith(_WARNING + "pilotscope.")),
        considered=session.subplans(sql) if steering.estimates else {},
        in_force=settings_in_force(session, settings) if settings else {},
    )


def adherence_of(inspection: Inspection, session: Session, sql: str) -> Adherence | None:
    """Compare the plan with the decision. Return None if there was nothing to follow; nothing was followed without a plan."""
    steering, plan = inspection.steering, inspection.plan
    if not (steering.estimates or unknown_of(steering.estimates) or steering.decision):
        return None
    if plan is None:
        return Tally(reasons=[f"its plan is not known: {inspection.failure}"]).adherence()
    if steering.decision is not None:
        return combined(_of_decision(steering.decision, plan, inspection))
    rows, own = steering.estimates or {}, session.subplans(sql)
    unknown = uninjected(rows, inspection.considered, own, unknown_of(rows))
    there = frozenset().union(*inspection.considered)
    return verify(plan, {subplan: number for subplan, number in rows.items() if subplan <= there}, unknown)


def unused(adherence: Adherence | None, inspection: Inspection) -> str | None:
    """Return the reason why PostgreSQL used nothing of a decision; None if it used some, or if its plan is not known."""
    if adherence is None or adherence.steered_ratio > 0 or inspection.plan is None or not inspection.steering.decision:
        return None
    return f"PostgreSQL used nothing of its decision: {named(adherence.reasons, 1)}"


def _of_decision(decision: Decision, plan: Plan, inspection: Inspection) -> list[Adherence]:
    """Return the adherence to each kind of decision; the rows of a decision are for some sets, and the plan may have none of these."""
    return [
        Tally(reasons=list(inspection.warnings)).adherence(),
        verify(plan, decision.rows, only_injected=True),
        verify_hints(plan, decision.join_order, decision.methods, inspection.warnings),
        verify_settings(plan, inspection.in_force),
    ]

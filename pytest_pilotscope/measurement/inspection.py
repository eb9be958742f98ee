"""The plan that a side's decision led to, and how far PostgreSQL followed the decision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import QueryTimeout, StatementFailed, named
from pytest_pilotscope.learning.algorithm import Cardinalities, Subplan, unknown_of
from pytest_pilotscope.postgres.adherence import Adherence, Tally, combined, level_of, uninjected, verify
from pytest_pilotscope.postgres.plan_hints import verify_hints
from pytest_pilotscope.postgres.plannersettings import settings_in_force, verify_settings
from pytest_pilotscope.postgres.subplans import key_text

if TYPE_CHECKING:
    from pytest_pilotscope.learning.decision import Decision
    from pytest_pilotscope.measurement.sides import Steering
    from pytest_pilotscope.postgres.explain import Plan
    from pytest_pilotscope.postgres.session import Session

NO_RELATIONS = "the statement has no relations whose rows, joins or scans can be decided"
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
        considered=session.subplans(sql) if steering.estimates or _of_planner(steering.decision) else {},
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
        own = session.subplans(sql) if steering.decision.rows else {}
        return combined(_of_decision(steering.decision, plan, inspection, own))
    rows, own = steering.estimates or {}, session.subplans(sql)
    unknown = uninjected(rows, inspection.considered, own, unknown_of(rows))
    there = frozenset().union(*inspection.considered)
    return verify(plan, {subplan: number for subplan, number in rows.items() if subplan <= there}, unknown)


def unused(adherence: Adherence | None, inspection: Inspection) -> str | None:
    """Return the reason why PostgreSQL used nothing of a decision; None if it used some, or if its plan is not known."""
    if adherence is None or adherence.steered_ratio > 0 or inspection.plan is None or not inspection.steering.decision:
        return None
    return f"PostgreSQL used nothing of its decision: {named(adherence.reasons, 1)}"


def _of_planner(decision: Decision | None) -> bool:
    """Tell whether a decision is about relations."""
    return decision is not None and bool(decision.rows or decision.join_order is not None or decision.methods)


def _of_decision(decision: Decision, plan: Plan, inspection: Inspection, own: Cardinalities) -> list[Adherence]:
    """
    Return the adherence to each kind of decision; the rows of a decision are for some sets, and the plan may have none of these.

    `own` are the sets that PostgreSQL considers by itself.
    """
    considered = inspection.considered
    if _of_planner(decision) and not considered:
        return [Tally(reasons=[NO_RELATIONS]).adherence(), verify_settings(plan, inspection.in_force)]
    reasons = [*inspection.warnings, *_never_considered(decision.rows, considered, own)]
    return [
        Tally(reasons=reasons).adherence(),
        verify(plan, decision.rows, uninjected(decision.rows, considered, considered, {}), only_injected=True),
        verify_hints(plan, decision.join_order, decision.methods, inspection.warnings, frozenset().union(*considered)),
        verify_settings(plan, inspection.in_force),
    ]


def _never_considered(rows: Cardinalities, considered: Cardinalities, own: Cardinalities) -> Iterator[str]:
    """
    Yield a sentence for each set with rows that PostgreSQL considers neither with the decision nor without it: no plan joins it by itself.

    The library warns about sets of relations that the statement does not have. A statement of one level has sets without a level.
    """
    known: dict[int | None, set[Subplan]] = {None: set()}
    for subplan in considered.keys() | own.keys():
        for level in {None, level_of(subplan) or 1}:
            known.setdefault(level, set()).add(frozenset(subplan))
    there = {level: frozenset().union(*sets) for level, sets in known.items()}
    for subplan in rows:
        level, aliases = level_of(subplan), frozenset(subplan)
        if aliases <= there.get(level, frozenset()) and aliases not in known[level]:
            yield f"rows of {key_text(subplan)}: PostgreSQL considers no such set"

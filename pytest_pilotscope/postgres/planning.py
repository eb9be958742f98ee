"""
Plan one statement under many cardinalities, in as few messages as possible.

Each call is one message of several statements, hence one transaction: its settings end with it, even when it fails. So do not use these
functions inside `Session.rolled_back`, where a setting would stay until the block ends.
PostgreSQL would run the rest of a text of several statements, so it is refused (`statements.single`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from psycopg2 import sql as composing

from pytest_pilotscope.postgres.subplans import key_text, parse_subplans
from pytest_pilotscope.queries.statements import single

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

RawPlan = dict[str, Any]
"""The root node of EXPLAIN's JSON, as decoded; `explain.parse_plan` makes a typed tree of it."""


def planned_with_subplans(session: Session, sql: str) -> tuple[RawPlan, dict[frozenset[str], float]]:
    """
    Plan once; return the plan and the planner's own rows of every subplan, keyed as by `steering.subplans`.

    Needs the library (`steering.has_extension`).
    """
    plan = _explained(session, composing.SQL("SET LOCAL pilotscope.enumerate = on"), sql)
    return plan, parse_subplans(session.scalar("SHOW pilotscope.subplans"))


def planned_with(session: Session, sql: str, rows: Mapping[frozenset[str], float]) -> RawPlan:
    """Plan with these cardinalities injected. Needs the library."""
    value = json.dumps({key_text(subplan): float(number) for subplan, number in rows.items()})
    return _explained(session, composing.SQL("SET LOCAL pilotscope.cardinalities = {}").format(composing.Literal(value)), sql)


def planned_under(session: Session, sql: str, settings: Mapping[str, str]) -> RawPlan:
    """Plan under these settings of the planner, which `plannersettings` has checked."""
    set_all = [
        composing.SQL("SET LOCAL {} = {}").format(composing.Identifier(name), composing.Literal(value)) for name, value in settings.items()
    ]
    return _explained(session, composing.SQL("; ").join(set_all), sql)


def _explained(session: Session, setting: composing.Composable, sql: str) -> RawPlan:
    statement = composing.SQL("; EXPLAIN (FORMAT JSON) ").join([setting, composing.SQL(single(sql))])
    plan: RawPlan = session.scalar(statement)[0]["Plan"]
    return plan

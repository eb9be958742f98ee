"""
Plan one statement under many cardinalities, in as few messages as possible.

Each call is one message of several statements, hence one transaction: its settings end with it, even when it fails. So do not use these
functions inside `Session.rolled_back`, where a setting would stay until the block ends. A text is planned and not run only if it is one
statement: ask `is_one_statement` where that is not known.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from psycopg2 import sql as composing

from pytest_pilotscope.postgres.subplans import key_text, parse_subplans
from pytest_pilotscope.queries.statements import single

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

RawPlan = dict[str, Any]
"""The root node of EXPLAIN's JSON, as decoded; `explain.parse_plan` makes a typed tree of it."""

_QUOTED = re.compile(r"(['\"]).*?\1", re.DOTALL)
_DOUBTFUL = ("\\", "$", "--", "/*")
"""Characters with which the end of a quoted text depends on settings and versions."""


def is_one_statement(sql: str) -> bool:
    """
    Tell whether PostgreSQL takes this text for one statement: its only semicolons are at its end and in quotes.

    The functions here send any text, and PostgreSQL would run the rest after a semicolon. This check is for text from strangers: it returns
    False for a text with both a semicolon and anything of `_DOUBTFUL`.
    """
    text = sql.rstrip(f";{string.whitespace}")
    if ";" not in text:
        return True
    return not any(mark in text for mark in _DOUBTFUL) and ";" not in _QUOTED.sub("", text)


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


def _explained(session: Session, setting: composing.Composable, sql: str) -> RawPlan:
    statement = composing.SQL("; EXPLAIN (FORMAT JSON) ").join([setting, composing.SQL(single(sql))])
    plan: RawPlan = session.scalar(statement)[0]["Plan"]
    return plan

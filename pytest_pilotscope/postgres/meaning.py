"""Ask the planner for the meaning of each set of relations of a statement."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pytest_pilotscope.postgres.steering import require_extension
from pytest_pilotscope.queries.meaning import Statement
from pytest_pilotscope.queries.meaning_report import read_statement
from pytest_pilotscope.queries.statements import single

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

_SWITCHES = ("pilotscope.enumerate", "pilotscope.enumerate_sql")


def read_meaning(session: Session, sql: str, *, statistics: bool = True) -> Statement:
    """
    Plan a statement once and return the meaning of each set of relations that the planner considered.

    Without `statistics` the planner does not look at them, which takes most of its time where there are many. Then its estimates mean
    nothing, and neither do its choice of sets where it considers a random part of them (GEQO) and the filters that it takes out of an OR
    over several relations: it does so only where they seem to help.

    The text must be one statement (`statements.single`): PostgreSQL would run the rest after a semicolon. Raises
    `MissingExtension` without the library, and `StatementFailed` where PostgreSQL cannot plan the statement.
    """
    require_extension(session)
    # One message, hence one transaction: a failing statement takes the settings with it. SET plans nothing, so that the report stays.
    switches = _SWITCHES if statistics else (*_SWITCHES, "pilotscope.ignore_statistics")
    on, off = ("".join(f"SET {name} = {value}; " for name in switches) for value in ("on", "off"))
    shown = session.scalar(f"{on}EXPLAIN (COSTS off) {single(sql)}\n; {off}SHOW pilotscope.meaning")
    return read_statement(sql, json.loads(shown))

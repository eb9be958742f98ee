"""Ask the planner what the sets of relations of a statement mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_pilotscope.core.meaning import Statement
    from pytest_pilotscope.postgres.session import Session


def read_meaning(session: Session, sql: str) -> Statement:
    """
    Plan a statement once and return what the planner means by each set of relations that it considered.

    Raises `MissingExtension` without the library, and `StatementFailed` where PostgreSQL cannot plan the statement.
    """
    raise NotImplementedError

"""A saved model that answers SQL, for MLflow's server; it plans on a database that it leaves as it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from algorithms.lero.decision import decide
from algorithms.lero.storage import read_model
from pytest_pilotscope.errors import ModelError, UsageError, shortened
from pytest_pilotscope.postgres.dsn import Dsn
from pytest_pilotscope.postgres.planning import is_one_statement
from pytest_pilotscope.postgres.session import connect

SERVING_DSN = "PILOTSCOPE_DSN"
"""Environment variable with the database that a served model plans on."""


def decider(folder: Path) -> Callable[[str], dict[str, Any]]:
    """
    Return a function from SQL to `Decision.served`, by the model in a folder; several threads may call it.

    ModelError without a database in the environment variable. The function raises UsageError for anything but one statement, and whatever
    deciding raises.
    """
    model = read_model(folder)
    dsn = os.environ.get(SERVING_DSN)
    if not dsn:
        raise ModelError(
            f"lero needs the planner of the database it was trained on to find candidate plans: set {SERVING_DSN} to its "
            "connection string, postgresql://user@host:port/database"
        )
    session = connect(Dsn(dsn))
    session.forbid_writing()  # planning may run functions
    turn = Lock()

    def answer(sql: str) -> dict[str, Any]:
        if not is_one_statement(sql):
            raise UsageError(
                f"lero chooses a plan for one statement, and this may be more than one: {shortened(sql)}; ask for each by itself, and "
                "leave out comments (a semicolon inside the statement is taken as its end where there is a comment, a backslash or a $)"
            )
        with turn:
            decision = decide(model, session, sql)
        return decision.served(model.policy.margin)

    return answer

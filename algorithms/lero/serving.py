"""A saved model that answers SQL, for MLflow's server; it plans on a database that it does not change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from pytest_pilotscope.algorithms.lero.choice import choose
from pytest_pilotscope.algorithms.lero.saved_ranker import model_metadata, read_model
from pytest_pilotscope.errors import ModelError, UsageError, shortened
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.postgres.connecting import connect
from pytest_pilotscope.postgres.fingerprint import data_fingerprint
from pytest_pilotscope.postgres.steering import require_extension
from pytest_pilotscope.queries.statements import is_single

SERVING_DSN = "PILOTSCOPE_DSN"
"""Environment variable with the connection string of a served model's database."""


def decider(folder: Path) -> Callable[[str], dict[str, Any]]:
    """
    Return a function from SQL to `Choice.served`, by the model in a folder; several threads may call it.

    ModelError without a database in the environment variable, and for one of another schema or other data; MissingExtension for a database
    without the pilotscope library. The function raises UsageError for anything but one statement, StatementFailed for a statement that
    PostgreSQL cannot plan, and the errors of `choose`.
    """
    model = read_model(folder)
    dsn = os.environ.get(SERVING_DSN)
    if not dsn:
        raise ModelError(
            f"lero needs the planner of the database it was trained on to find candidate plans: set {SERVING_DSN} to its "
            "connection string, postgresql://user@host:port/database"
        )
    session = connect(Dsn(dsn))
    try:
        session.forbid_writing()  # planning may run functions
        require_extension(session)
        model_metadata(folder).check(data_fingerprint=data_fingerprint(session), schema=read_schema(session))
    except BaseException:
        session.close()
        raise
    turn = Lock()

    def answer(sql: str) -> dict[str, Any]:
        if not is_single(sql):
            raise UsageError(
                f"lero chooses a plan for one statement, and this may be more than one: {shortened(sql)}; ask for each by itself, and "
                "leave out backslashes (where a text has both a semicolon and a backslash, its literals end by the settings of the server)"
            )
        with turn:
            choice = choose(model, session, sql)
            if choice.candidates is None:  # the policy skipped the query, so nobody has checked the statement
                session.execute(f"EXPLAIN (COSTS off) {sql}")
        return choice.served(model.policy.margin)

    return answer

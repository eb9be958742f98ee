"""The server's clocks: the last statement of the user's, without instrumentation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_pilotscope.errors import StatementFailed
from pytest_pilotscope.postgres.session import Session

_SQL = "SELECT count(*) FROM generate_series(1, 20000) AS g WHERE g % 3 = 0"


def _timing(session: Session) -> dict[str, Any]:
    found = json.loads(session.scalar("SHOW pilotscope.timing"))
    assert isinstance(found, dict)
    return found


def test_nothing_planned_yet(steered: Session) -> None:
    """Before the first statement there is nothing to tell."""
    assert _timing(steered) == {}


def test_a_statement_is_timed(steered: Session) -> None:
    """Planning and execution both take time, and the rows come along."""
    run = steered.timed(_SQL)
    assert run.rows == [(6666,)]
    assert run.planning_ms > 0
    assert run.execution_ms > 0


def test_show_does_not_count(steered: Session) -> None:
    """SHOW, SET and other statements that are not planned leave the times of the last one."""
    steered.execute(_SQL)
    before = _timing(steered)
    steered.execute("SET work_mem = '5MB'; CREATE TABLE t (i int)")
    assert _timing(steered) == before


def test_explain_does_not_execute(steered: Session) -> None:
    """EXPLAIN is planned and not executed, EXPLAIN ANALYZE is executed."""
    steered.execute(_SQL)
    steered.execute(f"EXPLAIN {_SQL}")
    assert _timing(steered)["execution_ms"] is None
    steered.execute(f"EXPLAIN ANALYZE {_SQL}")
    assert _timing(steered)["execution_ms"] > 0


def test_a_kept_plan_takes_no_planning(steered: Session) -> None:
    """Of a prepared statement with a generic plan, planning costs nothing from the second execution on."""
    steered.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE q AS {_SQL}")
    steered.execute("EXECUTE q")
    assert _timing(steered)["planning_ms"] > 0
    steered.execute("EXECUTE q")
    assert _timing(steered)["planning_ms"] == 0
    assert _timing(steered)["execution_ms"] > 0


def test_inner_statements_belong_to_the_outer_one(steered: Session) -> None:
    """Statements inside a function are part of the one that calls it, so that it takes longer than each of them."""
    steered.execute(
        f"CREATE FUNCTION f() RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE n bigint; BEGIN "
        f"FOR i IN 1..5 LOOP {_SQL.replace('count(*)', 'count(*) INTO n')}; END LOOP; PERFORM 1; RETURN n; END $$"
    )
    single = min(steered.timed(_SQL).execution_ms for _ in range(5))
    assert steered.timed("SELECT f()").execution_ms > single


def test_time_between_fetches_is_the_clients(steered: Session) -> None:
    """A cursor has the time of its own phases, also when other statements run between its FETCHes."""
    with steered.rolled_back():
        steered.execute("DECLARE c CURSOR FOR SELECT g FROM generate_series(1, 10) AS g")
        assert steered.execute("FETCH 5 FROM c") == [(1,), (2,), (3,), (4,), (5,)]
        assert _timing(steered)["execution_ms"] is None
        steered.execute("CLOSE c")
        assert _timing(steered)["execution_ms"] > 0


def test_a_failed_statement_has_no_execution_time(steered: Session) -> None:
    """A statement that fails leaves no execution time, and the next one is timed as ever."""
    with pytest.raises(StatementFailed, match="division by zero"):
        steered.execute("SELECT 1 / (g - g) FROM generate_series(1, 3) AS g")
    assert _timing(steered)["execution_ms"] is None
    assert steered.timed(_SQL).execution_ms > 0

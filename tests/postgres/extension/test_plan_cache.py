"""Plans that PostgreSQL keeps follow SET and RESET."""

from __future__ import annotations

import json

import pytest

from pytest_pilotscope.postgres.explain import parse_plan
from pytest_pilotscope.postgres.session import Session

_PAIR = frozenset({"a", "b"})


@pytest.fixture
def tables(steered: Session) -> Session:
    """Two joined tables, and a procedure and functions that query them."""
    steered.execute("CREATE TABLE t AS SELECT g AS id, g % 10 AS k FROM generate_series(1, 1000) AS g; ANALYZE t")
    steered.execute("PREPARE q(int) AS SELECT * FROM t AS a JOIN t AS b ON a.id = b.id WHERE a.k = $1")
    steered.execute(
        "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ DECLARE n bigint; BEGIN "
        "SELECT count(*) INTO n FROM t AS a JOIN t AS b ON a.id = b.id; END $$"
    )
    steered.execute(
        "CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $$ DECLARE line text; plan text = ''; BEGIN "
        "FOR line IN EXECUTE 'EXPLAIN SELECT * FROM t AS a JOIN t AS b ON a.id = b.id' LOOP plan = plan || line; END LOOP; "
        "RETURN plan; END $$"
    )
    return steered


@pytest.mark.parametrize("kind", ["force_generic_plan", "force_custom_plan", "auto"])
def test_prepared_statement_follows(tables: Session, kind: str) -> None:
    """A prepared statement is planned anew when cardinalities are set, changed and reset, whatever kind of plan it has."""

    def rows() -> float:
        return parse_plan(tables.scalar("EXPLAIN (FORMAT json) EXECUTE q(3)")).rows

    tables.execute(f"SET plan_cache_mode = {kind}")
    for _ in range(7):
        tables.execute("EXECUTE q(3)")
    stock = rows()
    with tables.cardinalities({_PAIR: 777}):
        assert rows() == 777
        with tables.cardinalities({_PAIR: 778}):
            assert rows() == 778
        assert rows() == 777
    assert rows() == stock == 100


def test_prepared_statement_follows_rollback(tables: Session) -> None:
    """Plans no longer obey the settings of a transaction that was rolled back."""
    tables.execute("SET plan_cache_mode = force_generic_plan")
    with tables.rolled_back():
        tables.execute("SET LOCAL pilotscope.cardinalities = '{\"a b\": 779}'")
        assert parse_plan(tables.scalar("EXPLAIN (FORMAT json) EXECUTE q(3)")).rows == 779
    assert parse_plan(tables.scalar("EXPLAIN (FORMAT json) EXECUTE q(3)")).rows == 100


def test_procedure_follows(tables: Session) -> None:
    """A statement in a plpgsql procedure that is CALLed is planned anew after SET and after RESET, and not in between."""
    tables.execute("SET pilotscope.enumerate = on")

    def planned() -> dict[str, float]:
        tables.execute("CALL p()")
        report = json.loads(tables.scalar("SHOW pilotscope.subplans"))
        return {" ".join(sorted(entry["rels"])): entry["rows"] for entry in report}

    stock = planned()
    assert stock == {"a": 1000, "b": 1000, "a b": 1000}
    tables.execute("SET pilotscope.cardinalities = '{\"a b\": 77}'")
    assert planned() == {"a": 1000, "b": 1000, "a b": 77}
    tables.execute("EXPLAIN SELECT 1")
    assert planned() == {}, "the plan was kept, so that nothing was planned after the EXPLAIN"
    tables.execute("RESET pilotscope.cardinalities")
    assert planned() == stock


def test_inner_statements_are_not_steered(tables: Session) -> None:
    """A query inside a function has its own aliases: it keeps its estimates, and no report has it."""
    stock = tables.scalar("SELECT f()")
    tables.execute("SET pilotscope.enumerate = on")
    with tables.cardinalities({_PAIR: 777}):
        assert tables.scalar("SELECT f()") == stock
        assert tables.scalar("SHOW pilotscope.subplans") == "[]"
        assert tables.explain("SELECT * FROM t AS a JOIN t AS b ON a.id = b.id").rows == 777


def test_function_evaluated_while_planning(tables: Session) -> None:
    """A function that queries tables while the outer statement is planned disturbs neither its report nor its rows."""
    tables.execute(
        "CREATE FUNCTION limit_of() RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN "
        "RETURN (SELECT count(*) FROM t AS a JOIN t AS x ON a.id = x.id); END $$"
    )
    sql = "SELECT * FROM t AS a JOIN t AS b ON a.id = b.id WHERE a.k < limit_of()"
    assert tables.subplans(sql) == {frozenset("a"): 1000, frozenset("b"): 1000, _PAIR: 1000}
    with tables.cardinalities({frozenset("a"): 5, _PAIR: 6}):
        assert tables.subplans(sql) == {frozenset("a"): 5, frozenset("b"): 1000, _PAIR: 6}

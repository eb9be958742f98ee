"""EXPLAIN's JSON as a typed tree: every node of real plans, unknown ones too."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.postgres.explain import Plan, parse_plan, render
from pytest_pilotscope.postgres.session import Session

_SCAN: dict[str, Any] = {
    "Node Type": "Seq Scan",
    "Parent Relationship": "Outer",
    "Parallel Aware": False,
    "Relation Name": "users",
    "Alias": "u",
    "Startup Cost": 0.0,
    "Total Cost": 8.04,
    "Plan Rows": 403,
    "Plan Width": 4,
    "Filter": "(upvotes >= 0)",
}
_JOIN: dict[str, Any] = {
    "Node Type": "Hash Join",
    "Join Type": "Left",
    "Startup Cost": 1.0,
    "Total Cost": 46.14,
    "Plan Rows": 900,
    "Plan Width": 8,
    "Hash Cond": "(u.id = x.id)",
    "Plans": [
        _SCAN,
        {"Node Type": "Quantum Scan", "Parent Relationship": "Inner", "Alias": "x", "Plan Rows": 3, "Total Cost": 1.5, "Entangled": True},
    ],
}


def _statement(plan: dict[str, Any], **rest: Any) -> list[dict[str, Any]]:
    return [{"Plan": plan, **rest}]


def test_fields_are_typed() -> None:
    """Costs, rows, relation and conditions are fields; what this version does not know is kept."""
    plan = parse_plan(_statement(_JOIN, **{"Planning Time": 0.5, "Execution Time": 2.5, "Triggers": []}))
    scan, unknown = plan.children
    assert (plan.node_type, plan.join_type, plan.rows, plan.total_cost) == ("Hash Join", "Left", 900, 46.14)
    assert (plan.planning_ms, plan.execution_ms, plan.details) == (0.5, 2.5, {"Triggers": []})
    assert (scan.relation, scan.alias, scan.conditions, scan.relationship) == ("users", "u", {"Filter": "(upvotes >= 0)"}, "Outer")
    assert (unknown.node_type, unknown.details) == ("Quantum Scan", {"Entangled": True})
    assert [node.node_type for node in plan.nodes()] == ["Hash Join", "Seq Scan", "Quantum Scan"]
    assert plan.aliases == {"u", "x"}


def test_text_is_decoded() -> None:
    """Drivers that do not decode JSON give text."""
    assert parse_plan(json.dumps(_statement(_JOIN))) == parse_plan(_statement(_JOIN))


@pytest.mark.parametrize("found", [[], [{}], {"Plan": 3}, [[1]], 5])
def test_anything_else_is_refused(found: object) -> None:
    """The error quotes a text that is not the output of EXPLAIN."""
    message = f"the output of EXPLAIN (FORMAT JSON) was expected, found {str(found)!r}"
    with pytest.raises(ServerError, match=f"^{re.escape(message)}$"):
        parse_plan(found)


def test_rendering_is_one_line_per_node() -> None:
    """Type, relation, conditions, rows and cost, indented by depth."""
    assert render(parse_plan(_statement(_JOIN))) == (
        "Hash Left Join [u.id = x.id] rows=900 cost=46.14\n"
        "  Seq Scan users u [upvotes >= 0] rows=403 cost=8.04\n"
        "  Quantum Scan x rows=3 cost=1.50"
    )


def test_rendering_keeps_inner_parentheses() -> None:
    """Only parentheses around a whole condition go."""
    plan = Plan(node_type="Seq Scan", conditions={"Filter": "((a > 1) AND (b < 2))", "Recheck Cond": "(a = 1) OR (b = 2)"})
    assert render(plan) == "Seq Scan [(a > 1) AND (b < 2)] [(a = 1) OR (b = 2)] rows=0 cost=0.00"


def test_shape_ignores_numbers() -> None:
    """Costs, rows, widths and constants in conditions are not part of the shape."""
    other = {**_JOIN, "Total Cost": 1.0, "Plan Rows": 1, "Plan Width": 99, "Hash Cond": "(u.id = 5)"}
    assert parse_plan(_statement(other)).shape_hash == parse_plan(_statement(_JOIN)).shape_hash


@pytest.mark.parametrize(
    "change",
    [
        {"Node Type": "Merge Join"},
        {"Join Type": "Inner"},
        {"Parallel Aware": True},
        {"Plans": list(reversed(_JOIN["Plans"]))},
        {"Plans": [{**_SCAN, "Node Type": "Index Scan", "Index Name": "i"}, _JOIN["Plans"][1]]},
        {"Plans": [{**_SCAN, "Relation Name": "posts"}, _JOIN["Plans"][1]]},
    ],
)
def test_shape_is_what_the_plan_does(change: dict[str, Any]) -> None:
    """Methods, join types, order of the sides, relations and indexes are the shape."""
    assert parse_plan(_statement({**_JOIN, **change})).shape_hash != parse_plan(_statement(_JOIN)).shape_hash


_KINDS = {
    "Result": "SELECT 1",
    "ProjectSet": "SELECT generate_series(1, 3)",
    "Values Scan": "SELECT * FROM (VALUES (1), (2)) AS v",
    "Function Scan": "SELECT * FROM generate_series(1, 3) AS g",
    "Table Function Scan": "SELECT * FROM xmltable('/r' PASSING (NULL::xml) COLUMNS c text)",
    "Tid Scan": "SELECT * FROM t WHERE ctid = '(0,1)'",
    "Index Only Scan": "SELECT id FROM t WHERE id = 5",
    "Bitmap Heap Scan": "SELECT * FROM t WHERE k = 5 OR id = 7",
    "BitmapOr": "SELECT * FROM t WHERE k = 5 OR id = 7",
    "Sample Scan": "SELECT * FROM t TABLESAMPLE SYSTEM (10)",
    "Append": "SELECT id FROM t UNION ALL SELECT k FROM t",
    "Recursive Union": "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT * FROM r",
    "WorkTable Scan": "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT * FROM r",
    "CTE Scan": "WITH s AS MATERIALIZED (SELECT * FROM t) SELECT * FROM s",
    "Subquery Scan": "SELECT * FROM (SELECT id, row_number() OVER () AS n FROM t) AS s WHERE n % 2 = 1",
    "WindowAgg": "SELECT row_number() OVER (ORDER BY k) FROM t",
    "Unique": "SELECT DISTINCT ON (k) * FROM t",
    "SetOp": "SELECT id FROM t INTERSECT SELECT k FROM t",
    "Limit": "SELECT * FROM t LIMIT 3",
    "LockRows": "SELECT * FROM t FOR UPDATE",
    "ModifyTable": "UPDATE t SET k = 1 WHERE id = 3",
    "Nested Loop": "SELECT * FROM t AS a, t AS b WHERE a.id < b.k",
    "Hash Join": "SELECT * FROM t AS a FULL JOIN t AS b ON a.k = b.k",
    "Sort": "SELECT * FROM t ORDER BY k + 1",
    "Incremental Sort": "SELECT * FROM t ORDER BY id, k LIMIT 5",
    "Aggregate": "SELECT k, count(*) FROM t GROUP BY GROUPING SETS ((k), ())",
}


@pytest.fixture(scope="module")
def table(module_scratch: Session) -> Session:
    """Open a session with an indexed table in a database of its own."""
    module_scratch.execute("CREATE TABLE t AS SELECT g AS id, g % 10 AS k FROM generate_series(1, 10000) AS g")
    module_scratch.execute("CREATE INDEX ON t (id); CREATE INDEX ON t (k)")
    module_scratch.execute("VACUUM ANALYZE t")
    return module_scratch


@pytest.mark.parametrize("node_type", _KINDS)
def test_real_plans(table: Session, node_type: str) -> None:
    """Each kind of node of a real server is parsed and drawn, and two EXPLAINs have the same shape."""
    plan = table.explain(_KINDS[node_type], verbose=True)
    assert node_type in {node.node_type for node in plan.nodes()}
    assert all(node.rows >= 0 and node.total_cost >= node.startup_cost for node in plan.nodes())
    assert len(render(plan).splitlines()) == len(list(plan.nodes()))
    assert table.explain(_KINDS[node_type], verbose=True).shape_hash == plan.shape_hash


def test_analyzed_plan(table: Session) -> None:
    """EXPLAIN ANALYZE adds actual rows, loops and times."""
    plan = table.explain("SELECT * FROM t WHERE k = 3", analyze=True)
    assert (plan.actual_rows, plan.actual_loops) == (1000, 1)
    assert plan.planning_ms is not None
    assert plan.execution_ms is not None
    assert "actual=1000 loops=1" in render(plan)

"""The hints of pg_hint_plan that `pilotscope export` writes say what the plan is."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pytest_pilotscope.commands.export.hint_plan import NoHints, hints_of
from pytest_pilotscope.postgres.explain import node_of
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.steering import has_extension
from pytest_pilotscope.record.results import PlanNode
from tests.algorithms.conftest import forum, forum_session  # noqa: F401  # fixtures
from tests.algorithms.forum import Forum

METHODS = {"NestLoop": "nestloop", "MergeJoin": "mergejoin", "HashJoin": "hashjoin", "SeqScan": "seqscan", "IndexScan": "indexscan"}
METHODS |= {"IndexOnlyScan": "indexonlyscan", "BitmapScan": "bitmapscan"}
CHANGED = (
    {"enable_hashjoin": "off"},
    {"enable_nestloop": "off", "enable_hashjoin": "off"},
    {"enable_nestloop": "off", "enable_mergejoin": "off", "enable_indexscan": "off"},
    {"join_collapse_limit": "1", "from_collapse_limit": "1", "random_page_cost": "100"},
)
"""Ways to plan that lead to other plans than the default."""


def scan(alias: str, operation: str = "Seq Scan", *, relation: str = "t", index: str | None = None) -> PlanNode:
    """Return a scan."""
    return PlanNode(operation=operation, rows=10.0, cost=1.0, relation=relation, alias=alias, index=index)


def node(operation: str, *children: PlanNode, rows: float = 5.4, subplan: str | None = None) -> PlanNode:
    """Return any other node."""
    return PlanNode(operation=operation, rows=rows, cost=1.0, children=children, subplan=subplan)


def hints(plan: PlanNode, sql: str, version_num: int = 160000) -> list[str]:
    """Return the hints of a plan."""
    return list(hints_of(plan, sql, version_num=version_num))


@pytest.mark.parametrize("changed", CHANGED, ids=str)
def test_the_planner_follows_them_to_the_same_plan(forum_session: Session, changed: dict[str, str]) -> None:  # noqa: F811
    """Order and methods that were read from a plan make the planner choose that plan again, whatever it would choose by itself."""
    if not has_extension(forum_session):
        pytest.skip("the pilotscope library cannot be built here")
    moved = 0
    for query in Forum().workload().test[:12]:
        own = forum_session.explain(query.sql)
        for name, value in changed.items():
            forum_session.execute(f"SET {name} = {value}")
        wanted = forum_session.explain(query.sql)
        for name in changed:
            forum_session.execute(f"RESET {name}")
        found = hints(node_of(wanted), query.sql, forum_session.server_version)
        (order, *_) = [*re.findall(r"^Leading\((.*)\)$", "\n".join(found), re.MULTILINE), None]
        told = [re.fullmatch(r"(\w+)\((.+)\)", hint) for hint in found]
        methods = {}
        for one in told:
            if one is not None and one[1] in METHODS:
                names = one[2].split()
                methods[" ".join(names if one[1] in ("NestLoop", "MergeJoin", "HashJoin") else names[:1])] = METHODS[one[1]]
        with forum_session.hints(join_order=order, methods=methods):
            assert forum_session.explain(query.sql).shape_hash == wanted.shape_hash, query.sql
        moved += own.shape_hash != wanted.shape_hash
    assert moved > 2


def test_every_part_of_a_plan_has_its_hint() -> None:
    """The outer side comes first; rows are those of joins that run once; an index and its bitmaps are named; names are quoted."""
    bitmap = replace(scan("Odd b", "Bitmap Heap Scan"), children=(node("BitmapAnd", scan_index("i1"), scan_index("i 2")),))
    inner = node("Memoize", scan("c", "Index Only Scan", index="c_pkey"))
    plan = node("Aggregate", node("Nested Loop Left Join", node("Merge Join", scan("a"), node("Sort", bitmap), rows=2e9), inner, rows=0.2))
    sql = 'SELECT count(*) FROM t AS A JOIN t AS "Odd b" ON true LEFT JOIN t c ON true'
    assert hints(plan, sql) == [
        'Leading(((a "Odd b") c))',
        'MergeJoin(a "Odd b")',
        'NestLoop(a "Odd b" c)',
        'Memoize(a "Odd b" c)',
        "SeqScan(a)",
        'BitmapScan("Odd b" i1 "i 2")',
        "IndexOnlyScan(c c_pkey)",
        'Rows(a "Odd b" #2000000000)',
        'Rows(a "Odd b" c #1)',
    ]
    assert not any(hint.startswith("Memoize") for hint in hints(plan, sql, 130012))


def scan_index(name: str) -> PlanNode:
    """Return the scan of an index for a bitmap."""
    return PlanNode(operation="Bitmap Index Scan", rows=1.0, cost=1.0, index=name)


def test_rows_of_a_part_are_no_rows_of_a_join() -> None:
    """Below Gather the numbers are those of one worker, and on the inner side of a nested loop those of one row: neither is a hint."""
    join = node("Parallel Hash Join", scan("a", "Parallel Seq Scan"), node("Parallel Hash", scan("b", "Parallel Seq Scan")))
    gathered = node("Nested Loop", node("Gather", join), node("Hash Join", scan("c"), node("Hash", scan("d"))))
    found = hints(gathered, "SELECT 1 FROM a, b, c, d")
    assert [hint for hint in found if hint.startswith("Rows")] == ["Rows(a b c d #5)"]
    assert found[0] == "Leading(((a b) (c d)))"
    assert "SeqScan(b)" in found


def test_every_level_has_an_order_of_its_own() -> None:
    """Subqueries in FROM are one relation outside, and have an order inside; so have subplans and CTEs."""
    inside = node("Hash Join", scan("x"), node("Hash", scan("y")))
    subquery = replace(scan("s", "Subquery Scan"), relation=None, children=(node("Aggregate", inside),))
    subplan = node("Nested Loop", scan("v"), scan("w"), subplan="SubPlan 1")
    plan = node("Merge Anti Join", replace(scan("a"), children=(subplan,)), subquery)
    sql = "SELECT 1 FROM a, (SELECT 1 FROM x, y GROUP BY 1) s WHERE EXISTS (SELECT FROM v, w)"
    assert [hint for hint in hints(plan, sql) if hint.startswith("Leading")] == ["Leading((v w))", "Leading((x y))", "Leading((a s))"]


@pytest.mark.parametrize(
    ("plan", "sql", "reason"),
    [
        (scan("t_1"), "SELECT 1 FROM t", "the alias t_1 is not in the statement, and hints go by alias"),
        (scan("a"), "SELECT 1 FROM a WHERE EXISTS (SELECT FROM a)", "the alias a names several relations, and hints go by alias"),
        (
            node("Hash Join", scan("a"), node("Hash", node("Aggregate", scan("b")))),
            "SELECT 1 FROM a, (SELECT DISTINCT 1 FROM b) s",
            "its plan has the node Aggregate below a join, which hides the names of the relations there",
        ),
        (
            node("Nested Loop", scan("a"), node("Append", scan("p_1"), scan("p_2"))),
            "SELECT 1 FROM a, p",
            "its plan has the node Append below a join, which hides the names of the relations there",
        ),
        (scan("a"), "SELECT 1 FROM (a", "the statement cannot be read for its aliases"),
        (scan("a*/b"), 'SELECT 1 FROM "a*/b"', "a name has the sign of a comment in it"),
    ],
)
def test_a_plan_that_hints_cannot_fix_has_a_reason(plan: PlanNode, sql: str, reason: str) -> None:
    """No hints at all are better than hints that pg_hint_plan applies to something else."""
    with pytest.raises(NoHints, match=f"^{re.escape(reason)}$"):
        hints(plan, sql)

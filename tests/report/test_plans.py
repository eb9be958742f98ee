"""The nodes of plans, with true rows and the differences from another plan."""

from __future__ import annotations

from dataclasses import replace

from pytest_pilotscope.record.results import PlanNode, QueryReport, SubplanEstimate
from pytest_pilotscope.report.plans import Node, compared, judged
from tests.report.samples import INNER, OTHER_PLAN, PLAN, USERS


def nodes_of(plan: PlanNode) -> tuple[Node, ...]:
    """Return the nodes of a plan without known true rows."""
    return judged(QueryReport(query_id="q", side="mscn", plan=plan))


def counted(plan: PlanNode, rows: float, loops: float = 1) -> PlanNode:
    """Return a node that ran with counters."""
    return replace(plan, actual_rows=rows, loops=loops)


def joined(outer: PlanNode, inner: PlanNode) -> PlanNode:
    """Return a hash join of two plans."""
    return PlanNode(operation="Hash Join", rows=1, cost=1, children=(outer, inner))


def test_every_node_is_there_with_its_depth() -> None:
    """Parents first, the outer side first."""
    assert [(node.depth, node.plan.title) for node in nodes_of(PLAN)] == [
        (0, "Aggregate"),
        (1, "Hash Join"),
        (2, "Seq Scan comments c"),
        (2, "Hash"),
        (3, "Seq Scan users u"),
    ]


def test_counted_rows_are_the_truth() -> None:
    """If the plan ran with counters, they are the true rows of each node, per execution."""
    join = replace(counted(OTHER_PLAN.children[0], 200), rows=175, children=(counted(USERS, 400), counted(INNER, 0.5, 400)))
    nodes = judged(QueryReport(query_id="q", side="mscn", plan=join))
    assert [(node.estimated_rows, node.true_rows, node.q_error) for node in nodes] == [
        (175, 200, 200 / 175),
        (393, 400, 400 / 393),
        (3, 0.5, 3),
    ]


def test_what_was_never_executed_is_not_judged() -> None:
    """The inner side of a join without outer rows never runs, so it has no q-error."""
    (node,) = nodes_of(counted(INNER, 0, 0))
    assert (node.true_rows, node.q_error) == (None, None)


def test_known_cardinalities_are_the_truth_of_scans_and_joins() -> None:
    """A scan or join has the estimated and true rows of its relations; aggregates and hash tables have none."""
    estimates = tuple(
        SubplanEstimate(aliases=aliases, estimated=estimated, true=true)
        for aliases, estimated, true in ((("c", "u"), 175.0, 350.0), (("c",), 1706.0, 1706.0))
    )
    nodes = judged(QueryReport(query_id="q", side="mscn", plan=PLAN, estimates=estimates))
    assert [(node.estimated_rows, node.true_rows, node.q_error) for node in nodes] == [
        (None, None, None),
        (175, 350, 2),
        (1706, 1706, 1),
        (None, None, None),
        (None, None, None),
    ]


def test_what_the_other_plan_does_differently_is_marked() -> None:
    """Another method for the same relations is marked; equal nodes are not, at any position."""
    assert [node.difference for node in compared(nodes_of(OTHER_PLAN), nodes_of(PLAN))] == ["", "method", "", "method"]
    assert [node.difference for node in compared(nodes_of(PLAN), nodes_of(PLAN))] == [""] * 5


def test_relations_that_the_other_plan_never_joins_are_another_order() -> None:
    """(a b) c and a (b c) have the three together in common, and no two of them."""
    a, b, c = (PlanNode(operation="Seq Scan", alias=alias, rows=1, cost=1) for alias in "abc")
    left, right = nodes_of(joined(joined(a, b), c)), nodes_of(joined(a, joined(b, c)))
    assert [node.difference for node in compared(left, right)] == ["", "order", "", "", ""]


def test_without_a_plan_there_are_no_nodes() -> None:
    """A report without a plan has no nodes."""
    assert judged(QueryReport(query_id="q", side="mscn")) == ()

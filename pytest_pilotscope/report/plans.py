"""The plans of a record, node by node, with the rows that are known to be true and what the other plan does differently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pytest_pilotscope.record.results import PlanNode, QueryReport, SubplanEstimate
from pytest_pilotscope.statistics.accuracy import q_error

Difference = Literal["", "method", "order"]
"""What the other plan does differently here: nothing, the same relations by another method, or it never has these relations together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """
    One node of a plan as the page shows it.

    `estimated_rows` are those that the planner expected of the relations below the node and `true_rows` those that are true, with the
    q-error between the two; None where they are not known.
    """

    plan: PlanNode
    depth: int
    estimated_rows: float | None = None
    true_rows: float | None = None
    q_error: float | None = None
    difference: Difference = ""


def judged(report: QueryReport) -> tuple[Node, ...]:
    """
    Return the nodes of a report's plan, parents first, with true rows.

    These are the rows that were counted while the plan ran, else those known for the same relations. A node that was never executed has
    none.
    """
    if report.plan is None:
        return ()
    estimates = report.estimates or ()
    times = Counter(frozenset(estimate.aliases) for estimate in estimates)  # those of several query levels cannot be told apart
    known = {aliases: estimate for estimate in estimates if times[aliases := frozenset(estimate.aliases)] == 1}
    return tuple(_judged(node, depth, known) for depth, node in report.plan.nodes())


def compared(nodes: Sequence[Node], others: Sequence[Node]) -> tuple[Node, ...]:
    """Return the nodes, marked where the other plan does something else."""
    same = Counter((node.plan.title, node.plan.aliases) for node in others)
    together = {node.plan.aliases for node in others}
    marked = []
    for node in nodes:
        key = (node.plan.title, node.plan.aliases)
        difference: Difference = "" if same[key] > 0 else "method" if node.plan.aliases in together else "order"
        same[key] -= 1
        marked.append(replace(node, difference=difference))
    return tuple(marked)


def _judged(plan: PlanNode, depth: int, known: dict[frozenset[str], SubplanEstimate]) -> Node:
    estimated, true = plan.rows, plan.actual_rows
    if true is None and _yields_its_relations(plan) and plan.aliases in known:
        estimated, true = known[plan.aliases].estimated, known[plan.aliases].true
    if true is None or plan.loops == 0:
        return Node(plan=plan, depth=depth)
    return Node(plan=plan, depth=depth, estimated_rows=estimated, true_rows=true, q_error=float(q_error(estimated, true)))


def _yields_its_relations(plan: PlanNode) -> bool:
    """Whether the rows of a node are those of the relations below it: scans and joins, not sorts of a part or aggregates."""
    return any(word in plan.operation for word in ("Scan", "Join", "Nested Loop"))

"""The nodes of a record's plans, with true rows and the differences from another plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pytest_pilotscope.record.results import PlanNode, QueryReport, SubplanEstimate
from pytest_pilotscope.statistics.accuracy import q_error

Difference = Literal["", "method", "order"]
"""The difference of the other plan: none, another method for the same relations, or it never has exactly these relations together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """
    One node of a plan as the page shows it.

    `estimated_rows` are the planner's estimate for the relations below the node, `true_rows` their true number, and `q_error` is between
    the two; None if they are unknown. `brief` is set if another plan beside it shows a node with the same conditions.
    """

    plan: PlanNode
    depth: int
    estimated_rows: float | None = None
    true_rows: float | None = None
    q_error: float | None = None
    difference: Difference = ""
    brief: bool = False

    @property
    def text(self) -> str:
        """The node in words; a `brief` one has `[…]` for its conditions."""
        return f"{self.plan.title} […]" if self.brief and self.plan.conditions else self.plan.text


def judged(report: QueryReport) -> tuple[Node, ...]:
    """
    Return the nodes of a report's plan, parents first, with true rows.

    These are the rows that PostgreSQL counted while the plan ran, else those known for the same relations. A node without executions has
    none.
    """
    if report.plan is None:
        return ()
    estimates = report.estimates or ()
    times = Counter(frozenset(estimate.aliases) for estimate in estimates)  # several query levels may have the same aliases
    known = {aliases: estimate for estimate in estimates if times[aliases := frozenset(estimate.aliases)] == 1}
    return tuple(_judged(node, depth, known) for depth, node in report.plan.nodes())


def is_aligned(nodes: Sequence[Node], others: Sequence[Node]) -> bool:
    """Tell whether two plans do the same in the same order, whatever their estimates are."""
    return [(node.depth, node.plan.text) for node in nodes] == [(node.depth, node.plan.text) for node in others]


def compared(nodes: Sequence[Node], *plans: Sequence[Node]) -> tuple[Node, ...]:
    """Return the nodes, marked with the differences of the other plans; another order of the joins is the larger difference."""
    for others in plans:
        nodes = _compared(nodes, others)
    return tuple(nodes)


def shortened(nodes: Sequence[Node], others: Sequence[Node]) -> tuple[Node, ...]:
    """Return the nodes, without the conditions that a node of the other plan shows."""
    shown = {node.plan.text for node in others}
    return tuple(replace(node, brief=not node.difference and node.plan.text in shown) for node in nodes)


def _compared(nodes: Sequence[Node], others: Sequence[Node]) -> tuple[Node, ...]:
    same = Counter((node.plan.title, node.plan.aliases) for node in others)
    together = {node.plan.aliases for node in others}
    marked = []
    for node in nodes:
        key = (node.plan.title, node.plan.aliases)
        difference: Difference = "" if same[key] > 0 else "method" if node.plan.aliases in together else "order"
        same[key] -= 1
        marked.append(node if node.difference == "order" or not difference else replace(node, difference=difference))
    return tuple(marked)


def _judged(plan: PlanNode, depth: int, known: dict[frozenset[str], SubplanEstimate]) -> Node:
    estimated, true = plan.rows, plan.actual_rows
    if true is None and _yields_its_relations(plan) and plan.aliases in known:
        estimated, true = known[plan.aliases].estimated, known[plan.aliases].true
    if true is None or plan.loops == 0:
        return Node(plan=plan, depth=depth)
    return Node(plan=plan, depth=depth, estimated_rows=estimated, true_rows=true, q_error=float(q_error(estimated, true)))


def _yields_its_relations(plan: PlanNode) -> bool:
    """Tell whether the rows of a node are those of the relations below it: scans and joins, not sorts or aggregates."""
    return any(word in plan.operation for word in ("Scan", "Join", "Nested Loop"))

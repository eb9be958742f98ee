"""The nodes of a record's plans, with true rows and the differences from another plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from pytest_pilotscope.record.results import PlanNode, QueryReport, SubplanEstimate
from pytest_pilotscope.statistics.accuracy import q_error

Difference = Literal["", "method", "order"]
"""The difference of the other plan: none, another method for the same relations, or it never has exactly these relations together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """
    One node of a plan as the page shows it.

    `title`, `words` and `aliases` are those of `plan`, with all relations below it. `estimated_rows` are the planner's estimate for these
    relations, `true_rows` their true number, and `q_error` is between the two; None if they are unknown. `brief` is set if another plan
    beside it shows a node with the same conditions.
    """

    plan: PlanNode
    depth: int
    title: str
    words: str
    aliases: frozenset[str]
    estimated_rows: float | None = None
    true_rows: float | None = None
    q_error: float | None = None
    difference: Difference = ""
    brief: bool = False

    @property
    def text(self) -> str:
        """The node in words; a `brief` one has `[…]` for its conditions."""
        return f"{self.title} […]" if self.brief and self.plan.conditions else self.words


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
    nodes = _nodes(report.plan, 0)
    rows = [_rows(node, known) for node in nodes]
    errors = iter(q_error(*zip(*pairs, strict=True)).tolist() if (pairs := [pair for pair in rows if pair]) else ())
    return tuple(
        replace(node, estimated_rows=pair[0], true_rows=pair[1], q_error=next(errors)) if pair else node
        for node, pair in zip(nodes, rows, strict=True)
    )


def is_aligned(nodes: Sequence[Node], others: Sequence[Node]) -> bool:
    """Tell whether two plans do the same in the same order, whatever their estimates are."""
    return [(node.depth, node.words) for node in nodes] == [(node.depth, node.words) for node in others]


def compared(nodes: Sequence[Node], *plans: Sequence[Node]) -> tuple[Node, ...]:
    """Return the nodes, marked with the differences of the other plans; another order of the joins is the larger difference."""
    for others in plans:
        nodes = _compared(nodes, others)
    return tuple(nodes)


def shortened(nodes: Sequence[Node], others: Sequence[Node]) -> tuple[Node, ...]:
    """Return the nodes, without the conditions that a node of the other plan shows."""
    shown = {node.words for node in others}
    return tuple(replace(node, brief=True) if not node.difference and node.words in shown else node for node in nodes)


def _compared(nodes: Sequence[Node], others: Sequence[Node]) -> tuple[Node, ...]:
    same = Counter((node.title, node.aliases) for node in others)
    together = {node.aliases for node in others}
    marked = []
    for node in nodes:
        key = (node.title, node.aliases)
        difference: Difference = "" if same[key] > 0 else "method" if node.aliases in together else "order"
        same[key] -= 1
        marked.append(node if node.difference == "order" or not difference else replace(node, difference=difference))
    return tuple(marked)


def _nodes(plan: PlanNode, depth: int) -> list[Node]:
    """Return the nodes of a plan, parents first, each with the aliases at and below it."""
    below = [_nodes(child, depth + 1) for child in plan.children]
    own = () if plan.alias is None else (plan.alias,)
    aliases = frozenset(own).union(*(nodes[0].aliases for nodes in below))
    return [Node(plan=plan, depth=depth, title=plan.title, words=plan.text, aliases=aliases), *chain.from_iterable(below)]


def _rows(node: Node, known: dict[frozenset[str], SubplanEstimate]) -> tuple[float, float] | None:
    """Return the estimated and the true rows of a node, or None if they are not known."""
    estimated, true = node.plan.rows, node.plan.actual_rows
    if true is None and _yields_its_relations(node.plan) and node.aliases in known:
        estimated, true = known[node.aliases].estimated, known[node.aliases].true
    return None if true is None or node.plan.loops == 0 else (estimated, true)


def _yields_its_relations(plan: PlanNode) -> bool:
    """Tell whether the rows of a node are those of the relations below it: scans and joins, not sorts or aggregates."""
    return any(word in plan.operation for word in ("Scan", "Join", "Nested Loop"))

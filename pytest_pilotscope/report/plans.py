"""
Plans out of their text in the record, node by node, with the rows that are known to be true and what the other plan does differently.

The text has a line for each node, indented by two spaces for each level: `Hash Join [a.id = b.a] rows=10 actual=12 loops=1 cost=3.10`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pytest_pilotscope.core.accuracy import q_error
from pytest_pilotscope.core.results import QueryReport

Difference = Literal["", "method", "order"]
"""What the other plan does differently here: nothing, the same relations by another method, or it never has these relations together."""

_NUMBERS = re.compile(r" rows=(?P<rows>\S+)(?: actual=(?P<actual>\S+)(?: loops=(?P<loops>\S+))?)? cost=(?P<cost>\S+)$")
_SCAN = re.compile(r"^(?P<title>(?:\S+ )*?Scan)(?: (?P<target>.+))?$")
_INDENT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """
    One node of a plan. `text` is everything but the numbers, `aliases` are those of the relations at and below it.

    `rows` are estimated, per execution. `estimated_rows` are those that the planner expected of these relations in all and `true_rows`
    those that are true, with the q-error between the two; None where they are not known.
    """

    depth: int
    text: str
    rows: float
    cost: float
    actual_rows: float | None = None
    loops: float | None = None
    aliases: frozenset[str] = frozenset()
    estimated_rows: float | None = None
    true_rows: float | None = None
    q_error: float | None = None
    difference: Difference = ""

    @property
    def operation(self) -> str:
        """What it does to what, without its conditions."""
        return self.text.split(" [", 1)[0]


def nodes_of(plan: str) -> tuple[Node, ...]:
    """The nodes of a plan's text, parents first. What cannot be read as a node belongs to the condition before or after it."""
    nodes: list[Node] = []
    pending = ""
    for line in plan.splitlines():
        pending = f"{pending}\n{line}" if pending else line
        found = _NUMBERS.search(pending)
        if found:
            nodes.append(_node(pending[: found.start()], found))
            pending = ""
    return tuple(_with_aliases(nodes))


def judged(nodes: Sequence[Node], report: QueryReport) -> tuple[Node, ...]:
    """The nodes with true rows: those counted while it ran, else those known for the same relations; none where it was never executed."""
    estimates = report.estimates or ()
    times = Counter(frozenset(estimate.aliases) for estimate in estimates)  # those of several query levels cannot be told apart
    known = {aliases: estimate for estimate in estimates if times[aliases := frozenset(estimate.aliases)] == 1}
    judged_nodes = []
    for node in nodes:
        estimate = known.get(node.aliases) if node.aliases else None
        if node.loops == 0:
            judged_nodes.append(node)
        elif node.actual_rows is not None:
            judged_nodes.append(_judged(node, node.rows, node.actual_rows))
        elif estimate is not None and _yields_its_relations(node):
            judged_nodes.append(_judged(node, estimate.estimated, estimate.true))
        else:
            judged_nodes.append(node)
    return tuple(judged_nodes)


def compared(nodes: Sequence[Node], others: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes, marked where the other plan does something else."""
    same = Counter((node.operation, node.aliases) for node in others)
    together = {node.aliases for node in others}
    marked = []
    for node in nodes:
        key = (node.operation, node.aliases)
        difference: Difference = "" if same[key] > 0 else "method" if node.aliases in together else "order"
        same[key] -= 1
        marked.append(replace(node, difference=difference))
    return tuple(marked)


def _node(head: str, numbers: re.Match[str]) -> Node:
    text = head.lstrip(" ")
    return Node(
        depth=(len(head) - len(text)) // _INDENT,
        text=text,
        rows=float(numbers["rows"]),
        cost=float(numbers["cost"]),
        actual_rows=float(numbers["actual"]) if numbers["actual"] else None,
        loops=float(numbers["loops"]) if numbers["loops"] else None,
    )


def _judged(node: Node, estimated: float, true: float) -> Node:
    return replace(node, estimated_rows=estimated, true_rows=true, q_error=float(q_error(estimated, true)))


def _with_aliases(nodes: Sequence[Node]) -> Iterator[Node]:
    for i, node in enumerate(nodes):
        below = [node]
        for other in nodes[i + 1 :]:
            if other.depth <= node.depth:
                break
            below.append(other)
        yield replace(node, aliases=frozenset(alias for each in below if (alias := _alias(each))))


def _alias(node: Node) -> str | None:
    """The alias that a scan has in the query: the last word before the index and the conditions."""
    scan = _SCAN.match(node.operation.split(" using ", 1)[0])
    return scan["target"].split(" ")[-1] if scan and scan["target"] else None


def _yields_its_relations(node: Node) -> bool:
    """Whether the rows of a node are those of the relations below it: scans and joins, not sorts of a part or aggregates."""
    return "Scan" in node.operation or "Join" in node.operation or node.operation.endswith("Nested Loop")

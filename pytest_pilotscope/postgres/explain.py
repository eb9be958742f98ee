"""
Read EXPLAIN's JSON into a typed tree, for PostgreSQL 13 to 18.

All node types of these versions share the few fields that matter to an optimizer; `details` keeps every other field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.record.results import PlanNode

_CONDITIONS = (
    "Index Cond",
    "Recheck Cond",
    "TID Cond",
    "Order By",
    "Hash Cond",
    "Merge Cond",
    "Join Filter",
    "Filter",
    "One-Time Filter",
    "Cache Key",
    "Function Call",
)
_FIELDS = {
    "Node Type": "node_type",
    "Plan Rows": "rows",
    "Plan Width": "width_bytes",
    "Startup Cost": "startup_cost",
    "Total Cost": "total_cost",
    "Schema": "schema",
    "Relation Name": "relation",
    "Alias": "alias",
    "Index Name": "index",
    "Join Type": "join_type",
    "Strategy": "strategy",
    "Partial Mode": "partial_mode",
    "Scan Direction": "scan_direction",
    "Operation": "operation",
    "Command": "command",
    "CTE Name": "cte",
    "Function Name": "function",
    "Parent Relationship": "relationship",
    "Subplan Name": "subplan",
    "Parallel Aware": "parallel_aware",
    "Workers Planned": "workers",
    "Actual Rows": "actual_rows",
    "Actual Loops": "actual_loops",
    "Actual Startup Time": "actual_startup_ms",
    "Actual Total Time": "actual_total_ms",
}
_SHAPE = ("node_type", "join_type", "strategy", "partial_mode", "operation", "command", "relation", "alias", "index", "scan_direction")
_SHAPE_TOO = ("cte", "function", "relationship", "subplan", "parallel_aware")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    A node of a plan and, through `children`, the plan below it.

    Costs are in the optimizer's units, `rows` is its estimate of the rows per execution of the node, `actual_rows` the average over
    `actual_loops` executions (EXPLAIN ANALYZE only, likewise the `actual_` times, which are per execution too). `planning_ms` and
    `execution_ms` are of the whole statement and only on the root. `conditions` are index, join and filter conditions by EXPLAIN's names,
    `details` everything else that EXPLAIN said.
    """

    node_type: str
    rows: float = 0.0
    width_bytes: int = 0
    startup_cost: float = 0.0
    total_cost: float = 0.0
    schema: str | None = None
    relation: str | None = None
    alias: str | None = None
    index: str | None = None
    join_type: str | None = None
    strategy: str | None = None
    partial_mode: str | None = None
    scan_direction: str | None = None
    operation: str | None = None
    command: str | None = None
    cte: str | None = None
    function: str | None = None
    relationship: str | None = None
    subplan: str | None = None
    parallel_aware: bool = False
    workers: int | None = None
    actual_rows: float | None = None
    actual_loops: float | None = None
    actual_startup_ms: float | None = None
    actual_total_ms: float | None = None
    planning_ms: float | None = None
    execution_ms: float | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    children: tuple[Plan, ...] = ()

    def __str__(self) -> str:
        return render(self)

    def nodes(self) -> Iterator[Plan]:
        """Yield all nodes, parents before their children, outer sides before inner ones."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(reversed(node.children))

    @property
    def aliases(self) -> frozenset[str]:
        """The aliases of all relations that are scanned in this plan, as EXPLAIN prints them, in all query levels."""
        return frozenset(node.alias for node in self.nodes() if node.alias is not None)

    @property
    def is_join(self) -> bool:
        """True when this node joins its two inputs."""
        return self.join_type is not None

    @property
    def shape_hash(self) -> str:
        """
        16 hex digits of the plan's operations, whatever their estimated cost.

        It covers, node by node, type, join type, strategy, relation and alias, index and direction, parallel awareness and the place
        among the children; it leaves out costs, rows, widths, workers, conditions and everything measured.
        """
        return hashlib.sha256(repr(_shape(self)).encode()).hexdigest()[:16]


def parse_plan(explained: object) -> Plan:
    """
    Read what `EXPLAIN (FORMAT JSON)` returned, as text or already decoded.

    Raise ServerError for anything else.
    """
    decoded = json.loads(explained) if isinstance(explained, str | bytes) else explained
    statement = decoded[0] if isinstance(decoded, list) and decoded else decoded
    if not isinstance(statement, dict) or not isinstance(statement.get("Plan"), dict):
        raise ServerError(f"the output of EXPLAIN (FORMAT JSON) was expected, found {str(explained)[:200]!r}")
    root = _node(statement["Plan"])
    rest = {name: value for name, value in statement.items() if name not in ("Plan", "Planning Time", "Execution Time")}
    return replace(
        root,
        planning_ms=statement.get("Planning Time"),
        execution_ms=statement.get("Execution Time"),
        details={**root.details, **rest},
    )


def _node(raw: dict[str, Any]) -> Plan:
    known: dict[str, Any] = {_FIELDS[name]: value for name, value in raw.items() if name in _FIELDS}
    conditions = {name: _text(raw[name]) for name in _CONDITIONS if name in raw}
    details = {name: value for name, value in raw.items() if name not in _FIELDS and name not in conditions and name != "Plans"}
    children = tuple(_node(child) for child in raw.get("Plans", ()))
    return Plan(**known, conditions=conditions, details=details, children=children)


def _text(condition: object) -> str:
    """Return one condition as text; some kinds are lists of keys."""
    return ", ".join(map(str, condition)) if isinstance(condition, list) else str(condition)


def _shape(plan: Plan) -> tuple[Any, ...]:
    return (*(getattr(plan, name) for name in (*_SHAPE, *_SHAPE_TOO)), tuple(_shape(child) for child in plan.children))


def render(plan: Plan) -> str:
    """
    Draw a plan with one line per node, children indented below it.

        Nested Loop rows=900 cost=46.14
          Seq Scan users u [upvotes >= 0] rows=403 cost=8.04
    """
    return "\n".join("  " * depth + _line(node) for depth, node in node_of(plan).nodes())


def node_of(plan: Plan) -> PlanNode:
    """Return the plan as a record keeps it: the fields that every version of PostgreSQL has, and the conditions."""
    return PlanNode(
        operation=_operation(plan),
        rows=plan.rows,
        cost=plan.total_cost,
        subplan=plan.subplan,
        relation=plan.relation or plan.cte or plan.function,
        alias=plan.alias,
        index=plan.index,
        conditions=tuple(map(_bare, plan.conditions.values())),
        actual_rows=plan.actual_rows,
        loops=plan.actual_loops,
        children=tuple(map(node_of, plan.children)),
    )


def _line(node: PlanNode) -> str:
    parts = [node.text, f"rows={node.rows:.0f}"]
    if node.actual_rows is not None:
        parts += [f"actual={node.actual_rows:g}"]
    if node.loops is not None:
        parts += [f"loops={node.loops:.0f}"]
    return " ".join([*parts, f"cost={node.cost:.2f}"])


def _operation(node: Plan) -> str:
    """Return the node type as people say it: Parallel Hash Left Join, Hashed Aggregate, Update."""
    name = node.operation or node.node_type
    if node.join_type not in (None, "Inner"):
        base = name[: -len(" Join")] if name.endswith(" Join") else name
        name = f"{base} {node.join_type} Join"
    if node.strategy not in (None, "Plain"):
        name = f"{node.strategy} {name}"
    if node.partial_mode not in (None, "Simple"):
        name = f"{node.partial_mode} {name}"
    return f"Parallel {name}" if node.parallel_aware else name


def _bare(condition: str) -> str:
    """Return a condition without the one pair of parentheses around all of it."""
    if not (condition.startswith("(") and condition.endswith(")")):
        return condition
    depth = 0
    for position, character in enumerate(condition):
        depth += (character == "(") - (character == ")")
        if depth == 0 and position < len(condition) - 1:
            return condition
    return condition[1:-1]

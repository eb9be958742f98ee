"""
Reading plans from records of format 1 (0.1.0), in which a plan is text.

The text has a line for each node, indented by two spaces for each level: `Hash Join [a.id = b.a] rows=10 actual=12 loops=1 cost=3.10`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

_NODE = re.compile(
    r"(?P<indent> *)(?P<text>.+?) rows=(?P<rows>\S+)(?: actual=(?P<actual>\S+)(?: loops=(?P<loops>\S+))?)? cost=(?P<cost>\S+)(?:\n|\Z)",
    re.DOTALL,  # a constant in a condition may hold a line break
)
_SCAN = re.compile(r"(?P<operation>.*?Scan)(?: (?P<relation>\S+))??(?: (?P<alias>\S+))?")
_INDENT = 2


def with_tree(report: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON values of a report with its plan as a tree; raise ValueError if the text is not a plan."""
    if not isinstance(report.get("plan"), str):
        return report
    lines = list(_NODE.finditer(report["plan"]))
    if "".join(line[0] for line in lines) != report["plan"] or not lines:
        raise ValueError(f"field 'plan' must be the text of a plan, found {report['plan'][:80]!r}")
    return {**report, "plan": _tree(lines)}


def _tree(lines: Sequence[re.Match[str]]) -> dict[str, Any]:
    """Return the node of the first line, with its children."""
    root, below = lines[0], lines[1:]
    starts = [i for i, line in enumerate(below) if len(line["indent"]) == len(root["indent"]) + _INDENT]
    title, _, conditions = root["text"].partition(" [")
    return {
        **_words(title),
        "conditions": conditions.removesuffix("]").split("] [") if conditions else [],
        "rows": float(root["rows"]),
        "cost": float(root["cost"]),
        "actual_rows": float(root["actual"]) if root["actual"] else None,
        "loops": float(root["loops"]) if root["loops"] else None,
        "children": [_tree(below[start:end]) for start, end in pairwise([*starts, len(below)])],
    }


def _words(title: str) -> dict[str, str | None]:
    """Return the fields in a title such as `CTE recent: Index Scan posts p using posts_pkey`; a table without an alias fills `alias`."""
    node, _, index = title.partition(" using ")
    subplan, _, operation = node.rpartition(": ")
    scan = _SCAN.fullmatch(operation)
    return {"subplan": subplan or None, "index": index or None, **(scan.groupdict() if scan else {"operation": operation})}

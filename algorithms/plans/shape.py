"""The shape of a plan: the properties of its nodes that make it another plan, and those that are kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_pilotscope.postgres.planning import RawPlan

SHAPE = (
    *("Node Type", "Join Type", "Strategy", "Partial Mode", "Operation", "Command", "Relation Name", "Alias", "Index Name"),
    *("Scan Direction", "CTE Name", "Function Name", "Parent Relationship", "Subplan Name"),
)
"""Properties of a plan's node that make its shape, apart from `Parallel Aware`."""

_NODE = frozenset({*SHAPE, "Parallel Aware", "Workers Planned", "Plan Rows", "Plan Width", "Total Cost", "Startup Cost"})


def shape_key(plan: RawPlan) -> tuple[Any, ...]:
    """Return a key of a plan's shape: two keys are equal if the plans' `Plan.shape_hash` is, and ten times cheaper than parsing."""
    get = plan.get
    children: Sequence[RawPlan] = get("Plans", ())
    return (*[get(name) for name in SHAPE], get("Parallel Aware", False), *[shape_key(child) for child in children])


def trimmed(plan: RawPlan) -> RawPlan:
    """Return a plan with only those properties of its nodes that are learned from or shown."""
    kept: RawPlan = {name: value for name, value in plan.items() if name in _NODE}
    if "Plans" in plan:
        kept["Plans"] = [trimmed(child) for child in plan["Plans"]]
    return kept

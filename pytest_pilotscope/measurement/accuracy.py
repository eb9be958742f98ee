"""
How good the estimates of one query were: against the truth (q-error), and in what the plan they led to costs (p-error).

P-error as in Han et al., "Cardinality Estimation in DBMS: A Comprehensive Benchmark Evaluation", PVLDB 15(4), 2022: the cost of the chosen
plan, computed with the true cardinalities, over the cost of the plan PostgreSQL chooses when it knows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_pilotscope.core.joins import LeveledSubplan
from pytest_pilotscope.core.results import SubplanEstimate
from pytest_pilotscope.postgres.subplans import alias_text, key_text

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.explain import Plan
    from pytest_pilotscope.postgres.session import Session

Subplan = frozenset[str]

JOIN_METHODS = {"Nested Loop": "nestloop", "Merge Join": "mergejoin", "Hash Join": "hashjoin"}
SCAN_METHODS = {
    "Seq Scan": "seqscan",
    "Index Scan": "indexscan",
    "Index Only Scan": "indexonlyscan",
    "Bitmap Heap Scan": "bitmapscan",
    "Tid Scan": "tidscan",
    "Tid Range Scan": "tidscan",
}


def estimates_of(estimated: Mapping[Subplan, float], truth: Mapping[Subplan, int]) -> tuple[SubplanEstimate, ...]:
    """
    Pair the estimates with the true rows of every subplan whose truth is known.

    Of a statement with several query levels these are the subplans of the query itself, which is planned last.
    """
    itself = max((subplan.level for subplan in estimated if isinstance(subplan, LeveledSubplan)), default=None)
    plain = {
        frozenset(subplan): rows
        for subplan, rows in estimated.items()
        if not isinstance(subplan, LeveledSubplan) or subplan.level == itself
    }
    return tuple(
        SubplanEstimate(aliases=tuple(sorted(subplan)), estimated=rows, true=float(truth[subplan]))
        for subplan, rows in plain.items()
        if subplan in truth
    )


def p_error(session: Session, sql: str, plan: Plan, truth: Mapping[Subplan, int]) -> float | None:
    """
    Cost of `plan` over the cost of the best plan, both with the true cardinalities; at least 1 but for ties in the planner's search.

    None when PostgreSQL could not be made to plan `plan` again (a shape that hints cannot say), so that no other plan is costed for it.
    """
    join_order, methods = hints_of(plan)
    with session.cardinalities({subplan: float(rows) for subplan, rows in truth.items()}):
        best = session.explain(sql)
        if best.shape_hash == plan.shape_hash:
            return 1.0
        with session.hints(join_order=join_order, methods=methods):
            again = session.explain(sql)
    if hints_of(again) != (join_order, methods):
        return None
    return max(again.total_cost / best.total_cost, 1.0)


def hints_of(plan: Plan) -> tuple[str | None, dict[str, str]]:
    """The hints that ask for a plan's join order and methods: a tree with the outer side first, and methods by aliases."""
    methods: dict[str, str] = {}
    tree = _tree(plan, methods)
    return (tree if tree is not None and tree.startswith("(") else None), methods


def _tree(node: Plan, methods: dict[str, str]) -> str | None:
    """Describe the joins of a subtree, collecting its methods."""
    if node.alias is not None:
        if node.node_type in SCAN_METHODS:
            methods[alias_text(node.alias)] = SCAN_METHODS[node.node_type]
        return alias_text(node.alias)
    sides = [tree for child in node.children if (tree := _tree(child, methods)) is not None]
    if node.is_join and len(sides) == 2:
        if node.node_type in JOIN_METHODS:
            methods[key_text(node.aliases)] = JOIN_METHODS[node.node_type]
        return f"({sides[0]} {sides[1]})"
    return sides[0] if len(sides) == 1 else None

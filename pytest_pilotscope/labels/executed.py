"""
The rows of sets of relations, as plans counted them while they were executed.

Only a node that was executed once and read to its end has all rows of its set. The nodes above it decide whether it was
(src/backend/executor); a node for which this is not certain is left out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pytest_pilotscope.postgres.explain import Plan
from pytest_pilotscope.queries.joins import Subplan

_APPENDS = ("Append", "Merge Append")
_BLOCKING = ("Sort", "Hash")
"""Nodes that read all of their input before they return a row."""
_STREAMING = (
    "Materialize",
    "Aggregate",
    "Group",
    "Unique",
    "Incremental Sort",
    "Result",
    "ProjectSet",
    "LockRows",
    "WindowAgg",
    "Hash Join",
)
"""Nodes that read their input to its end if they are read to theirs."""
_KEEP_UNMATCHED_OUTER = ("Left", "Full", "Anti")
_MEMBER = re.compile(r"_\d+$")
_SWITCHES = ("hashjoin", "mergejoin", "nestloop", "material", "memoize", "hashagg", "sort", "seqscan", "indexscan", "bitmapscan")
_HASHED = {"enable_nestloop": "off", "enable_mergejoin": "off", "enable_material": "off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """Settings and injected rows that make the planner choose another plan for the same statement."""

    settings: Mapping[str, str]
    rows: Mapping[Subplan, float]


class Executed(NamedTuple):
    """The rows of a plan node that joined exactly this set of relations."""

    subplan: Subplan
    rows: int
    node: str


def variations(subplans: Iterable[Subplan], *, count: int, seed: int | str) -> Iterator[Variation]:
    """Yield one variation of hash joins only, whose nodes are all read to their end, and `count - 1` drawn at random."""
    draw = random.Random(seed)  # noqa: S311  # draws plans
    listed = list(subplans)
    yield Variation(settings=_HASHED, rows={})
    for _ in range(count - 1):
        settings = {f"enable_{name}": "off" for name in _SWITCHES if draw.random() < 0.25}
        if draw.random() < 0.3:
            settings["enable_partitionwise_join"] = "on"
        if draw.random() < 0.15:
            settings |= {"geqo_threshold": "2", "geqo_seed": str(draw.random())}
        yield Variation(settings=settings, rows={subplan: float(round(10 ** draw.uniform(0, 6))) for subplan in listed})


def executed_sets(plan: Plan, aliases: frozenset[str], whole: Subplan) -> list[Executed]:
    """
    Return the sets of relations whose rows an analyzed, serial plan shows.

    `aliases` are relations of the statement's own level whose names EXPLAIN uses for nothing else, `whole` are all that the level joins.
    If the plan names all of them but one, the only part of it without a name is that one: EXPLAIN leaves out the alias of some subqueries
    and of UNION ALL.
    """
    reader = _Reader(aliases, _unnamed(plan, aliases, whole))
    reader.visit(plan, _Reading(once=True, to_the_end=True))
    return reader.found


def _unnamed(plan: Plan, aliases: frozenset[str], whole: Subplan) -> tuple[Plan, str] | None:
    """Return the node that yields the one relation which the plan does not name, with its alias."""
    nodes = list(_without_names(plan, aliases))
    missing = whole - _named(plan, aliases)
    return (nodes[0], next(iter(missing))) if len(nodes) == len(missing) == 1 else None


def _named(node: Plan, aliases: frozenset[str]) -> Subplan:
    if node.node_type in _APPENDS:
        return _appended(node, aliases) or frozenset()
    if node.alias is not None:
        return frozenset({node.alias}) & aliases
    return frozenset().union(*(_named(child, aliases) for child in _own(node)))


def _without_names(node: Plan, aliases: frozenset[str]) -> Iterator[Plan]:
    """Yield the topmost nodes with no relation of the level below them."""
    if not _named(node, aliases):
        yield node
    elif node.alias is None:
        for child in _own(node):
            yield from _without_names(child, aliases)


class _Reading(NamedTuple):
    """`once`: the node does not depend on rows of another one. `to_the_end`: if it was executed, its parent asked for all rows."""

    once: bool
    to_the_end: bool


class _Reader:
    """Collects the rows of the nodes of a plan; `unnamed` is a node whose relation EXPLAIN does not name."""

    def __init__(self, aliases: frozenset[str], unnamed: tuple[Plan, str] | None) -> None:
        self._aliases = aliases
        self._unnamed = unnamed
        self.found: list[Executed] = []

    def visit(self, node: Plan, reading: _Reading) -> None:
        """Collect from a node that is read in this way, and from those below it."""
        relations = self._relations(node)
        is_set = node.is_join or node.alias is not None or node.node_type in _APPENDS
        if is_set and relations is not None and reading == (True, True) and node.actual_loops == 1:
            self.found.append(Executed(relations, round(node.actual_rows or 0.0), f"{node.join_type or ''} {node.node_type}".strip()))
        if node.alias is None:
            for child in _own(node):
                self.visit(child, _below(node, child, reading))

    def _relations(self, node: Plan) -> Subplan | None:
        """Return the relations of the statement's level that a node joins, None if that is not certain."""
        if self._unnamed is not None and node is self._unnamed[0]:
            return frozenset({self._unnamed[1]})
        if node.node_type in _APPENDS:
            return _appended(node, self._aliases)
        if node.alias is not None:
            # A bitmap may be made of an OR over several relations: then it is a filter in advance, and not one of the relation.
            in_advance = any(below.node_type == "BitmapOr" for below in node.nodes())
            return frozenset({node.alias}) if node.alias in self._aliases and not in_advance else None
        below = [self._relations(child) for child in _own(node)]
        known = [relations for relations in below if relations is not None]
        return frozenset().union(*known) if below and len(known) == len(below) else None


def _below(node: Plan, child: Plan, reading: _Reading) -> _Reading:
    """Tell how a child of `node` is read."""
    if not reading.once:
        return _Reading(once=False, to_the_end=False)
    if node.node_type in _BLOCKING or (node.node_type == "Aggregate" and node.strategy in ("Plain", "Hashed")):
        return _Reading(once=True, to_the_end=node.actual_loops == 1)
    if node.node_type == "Nested Loop":
        return _below_nested_loop(node, child, reading)
    if node.node_type == "Merge Join":  # it stops when one side ends
        return _Reading(once=True, to_the_end=False)
    if node.node_type == "Limit" or "Run Condition" in node.details:
        return _Reading(once=True, to_the_end=False)
    if node.node_type not in _STREAMING:
        return _Reading(once=False, to_the_end=False)
    if node.node_type == "Hash Join" and child is _own(node)[0]:  # it does not read on where nothing can match
        matched = bool(_own(node)[1].actual_rows) or node.join_type in _KEEP_UNMATCHED_OUTER
        return _Reading(once=True, to_the_end=reading.to_the_end and matched)
    return reading


def _below_nested_loop(node: Plan, child: Plan, reading: _Reading) -> _Reading:
    outer, inner = _own(node)
    if child is outer:
        return reading
    all_matches = node.join_type in ("Inner", "Left") and not node.details.get("Inner Unique")
    # Only an inner side without parameters is materialized.
    once = inner.node_type == "Materialize"
    return _Reading(once=once, to_the_end=once and reading.to_the_end and all_matches and bool(outer.actual_rows))


def _own(node: Plan) -> list[Plan]:
    """Return the children in the same query level."""
    return [child for child in node.children if child.relationship in ("Outer", "Inner")]


def _appended(node: Plan, aliases: frozenset[str]) -> Subplan | None:
    """Return the table whose partitions or children are appended; EXPLAIN names them t_1, t_2 for t."""
    scans = [child for child in node.children if child.relationship == "Member"]
    names = {_MEMBER.sub("", scan.alias) for scan in scans if scan.alias and _MEMBER.search(scan.alias)}
    all_named = all(scan.alias and _MEMBER.search(scan.alias) for scan in scans)
    return frozenset(names) if all_named and len(names) == 1 and names <= aliases else None

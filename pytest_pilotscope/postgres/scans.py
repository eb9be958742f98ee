"""Find the scans and joins of a plan, with their relations and the rows that PostgreSQL prints for them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from pytest_pilotscope.postgres.explain import Plan

APPENDS = ("Append", "Merge Append", "Recursive Union")

MOST_ROWS = 1e100
"""PostgreSQL plans with no more rows."""

_MOST_WORKERS = 8
_QUOTED = re.compile(r"'(?:[^']|'')*'")
_QUALIFIED = re.compile(r'(?:"((?:[^"]|"")+)"|\b([A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*))\.')
_COPY_SUFFIX = re.compile(r"(?:_|#)\d+$")
_OWN_LEVEL = ("Outer", "Inner", "Member", None)
_UNIONS = ("Append", "Merge Append", "SetOp")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Around:
    """The effect of the nodes above on its rows: shared by processes, part of a union, per execution of a nested loop's inner side."""

    workers: int = 0
    member: bool = False
    repeated: bool = False

    def below(self, node: Plan, child: Plan) -> _Around:
        """Return the effect of `node` and those above it on its child."""
        workers = node.workers if node.workers and node.node_type.startswith("Gather") else self.workers
        if child.relationship not in _OWN_LEVEL:
            return _Around(workers=workers)
        repeated = self.repeated or (node.node_type == "Nested Loop" and child is node.children[1])
        return _Around(workers=workers, member=self.member or node.node_type in _UNIONS, repeated=repeated)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationNode:
    """
    A scan, a join or a union of relations in a plan.

    `relations` are those that EXPLAIN names below it in its query level; `unnamed` is True when there are others. A `member` is a partition
    or a branch of a union.
    """

    plan: Plan
    relations: frozenset[str]
    unnamed: bool
    around: _Around

    def __str__(self) -> str:
        return f"{self.plan.node_type} {' '.join(sorted(self.relations))}"

    @property
    def member(self) -> bool:
        """True below a union."""
        return self.around.member

    @property
    def per_execution(self) -> bool:
        """True when it gets the rows of a relation outside of it one at a time, so that its own are those of one execution."""
        if self.around.repeated and "Function Scan" in self.plan.node_type:
            return True  # EXPLAIN does not show the arguments of a function
        return any(alias not in self.relations and not self._is_own_copy(alias) for alias in _referenced(self.plan))

    def carries(self, rows: float) -> bool:
        """Tell whether it has these rows. Below a Gather, each node has its own number of processes, which EXPLAIN does not print."""
        shared = range(1, max(self.around.workers, _MOST_WORKERS) + 1) if self.around.workers else ()
        return self.plan.rows in (rows, *(clamped(rows / _divisor(workers)) for workers in shared))

    def _is_own_copy(self, alias: str) -> bool:
        return any(_COPY_SUFFIX.sub("", other) == alias for other in self.relations)


def relation_nodes(plan: Plan) -> list[RelationNode]:
    """Return all scans and joins of relations, and their unions."""
    found: list[RelationNode] = []
    present = frozenset(node.alias for node in plan.nodes() if node.alias is not None and node.node_type != "ModifyTable")
    _visit(plan, _Around(), present, found)
    return found


def clamped(rows: float) -> float:
    """Return rows as the planner keeps them (clamp_row_est in costsize.c)."""
    return min(max(1.0, float(round(rows))), MOST_ROWS)


def is_copy(alias: str) -> bool:
    """Tell whether EXPLAIN or the library may have numbered this alias, because it occurs more than once (a_1, a#2)."""
    return _COPY_SUFFIX.search(alias) is not None


def stems(aliases: Iterable[str]) -> tuple[str, ...]:
    """Return aliases without such numbers, sorted."""
    return tuple(sorted(_COPY_SUFFIX.sub("", alias) for alias in aliases))


def is_named(found: frozenset[str], relations: frozenset[str], aliases: Collection[str]) -> bool:
    """
    Tell whether the relations that EXPLAIN names are these; it numbers aliases that occur more than once in a statement.

    An alias of the statement itself (`aliases`) that looks like a numbered one is none: users JOIN users AS users_1.
    """
    if found == relations:
        return True
    return any(is_copy(alias) and alias not in aliases for alias in found) and _unnumbered(found, aliases) == _unnumbered(
        relations, aliases
    )


def _unnumbered(relations: frozenset[str], aliases: Collection[str]) -> list[str]:
    """Return relations without the numbers of EXPLAIN and of the library (a#2), sorted."""
    return sorted(alias if alias in aliases and "#" not in alias else stems([alias])[0] for alias in relations)


def level_relations(plan: Plan) -> frozenset[str]:
    """Return the relations of its query level at and below the root of a plan."""
    return _visit(plan, _Around(), plan.aliases, [])[0]


def _divisor(workers: int) -> float:
    """Return the processes that share the rows (get_parallel_divisor in costsize.c): the leader helps less the more workers there are."""
    return workers + max(1.0 - 0.3 * workers, 0.0)


def _referenced(node: Plan) -> Iterator[str]:
    for below in node.nodes():
        for condition in below.conditions.values():
            for quoted, plain in _QUALIFIED.findall(_QUOTED.sub("''", condition)):
                yield quoted.replace('""', '"') or plain


def _visit(node: Plan, around: _Around, present: frozenset[str], found: list[RelationNode]) -> tuple[frozenset[str], bool]:
    """Note the scans and joins at and below `node`; return the relations of its level below it, and whether there are unnamed ones."""
    visited = [(child, _visit(child, around.below(node, child), present, found)) for child in node.children]
    below = [relations for child, relations in visited if child.relationship in _OWN_LEVEL]
    if node.alias is not None and node.node_type != "ModifyTable":
        named, unnamed = frozenset({node.alias}), False
    else:
        named = frozenset().union(*(names for names, _ in below))
        unnamed = not below or any(others for _, others in below)
    if node.node_type in APPENDS and present.isdisjoint(tables := stems(named)):
        named = frozenset(tables)  # EXPLAIN does not name a partitioned table, but its partitions: t_1, t_2 for t
    if node.node_type != "ModifyTable" and (node.alias is not None or node.is_join or node.node_type in APPENDS):
        found.append(RelationNode(plan=node, relations=named, unnamed=unnamed, around=around))
    return named, unnamed

"""
Whether a plan carries the cardinalities that were injected.

PostgreSQL prints the rows of a node per execution and per process, so that some nodes rightly show another number than what was injected
for their relations. What these rules explain is counted apart; what they do not is an injection that failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pytest_pilotscope.postgres.explain import Plan

_MAX_ROWS = 1e100
_MOST_WORKERS = 8
_QUOTED = re.compile(r"'(?:[^']|'')*'")
_QUALIFIED = re.compile(r'(?:"((?:[^"]|"")+)"|\b([A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*))\.')
_COPY_SUFFIX = re.compile(r"(?:_|#)\d+$")
_OWN_LEVEL = ("Outer", "Inner", "Member", None)
_APPENDS = ("Append", "Merge Append", "Recursive Union")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adherence:
    """
    How far a plan carries injected cardinalities.

    `steered_ratio` (0..1) is the share of the nodes with an injected value that carry it, 1 when there are none to compare. `reasons` has
    a line for each that does not, `explained` one for each that a rule lets off: it is neither in the numerator nor in the denominator.
    """

    steered_ratio: float
    reasons: tuple[str, ...]
    explained: tuple[str, ...]
    compared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Around:
    """What the nodes above make of its rows: shared by processes, part of a union, per execution of a nested loop's inner side."""

    workers: int = 0
    member: bool = False
    repeated: bool = False

    def below(self, node: Plan, child: Plan) -> _Around:
        """What `node` makes of its child."""
        workers = node.workers if node.workers and node.node_type.startswith("Gather") else self.workers
        if child.relationship not in _OWN_LEVEL:
            return _Around(workers=workers)
        repeated = self.repeated or (node.node_type == "Nested Loop" and child is node.children[1])
        return _Around(workers=workers, member=self.member or node.node_type in _APPENDS, repeated=repeated)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A node and what surrounds it. `relations` are those below it in its level, None where EXPLAIN does not say which."""

    node: Plan
    relations: frozenset[str] | None
    around: _Around


def verify(plan: Plan, injected: Mapping[frozenset[str], float]) -> Adherence:
    """
    Compare every scan and join of `plan` with the rows injected for its relations.

    `plan` was explained while `injected` (subplan -> rows) held. EXPLAIN does not say which query level a node is of, so that a node
    may carry the value of its aliases in any level.
    """
    values: dict[frozenset[str], set[float]] = {}
    for subplan, rows in injected.items():
        values.setdefault(frozenset(subplan), set()).add(_clamped(rows))
    reasons: list[str] = []
    explained: list[str] = []
    carried = 0
    for place in _places(plan):
        wanted = _wanted(values, place.relations)
        if wanted is None:
            continue
        if place.around.member:
            explained.append(f"{_name(place)}: a partition or branch of a union has a share of the rows of the whole")
        elif any(_carries(place, rows) for rows in wanted):
            carried += 1
        elif (_is_parameterized(place) or _is_lateral_function(place)) and place.node.rows <= max(wanted):
            explained.append(f"{_name(place)}: rows are per execution of the inner side of a nested loop")
        else:
            numbers = " or ".join(f"{rows:.0f}" for rows in sorted(wanted))
            reasons.append(f"{_name(place)}: injected {numbers} rows, the plan has {place.node.rows:.0f}")
    compared = carried + len(reasons)
    ratio = carried / compared if compared else 1.0
    return Adherence(steered_ratio=ratio, reasons=tuple(reasons), explained=tuple(explained), compared=compared)


def _clamped(rows: float) -> float:
    """Rows as the planner keeps them (clamp_row_est in costsize.c)."""
    return min(max(1.0, float(round(rows))), _MAX_ROWS)


def _wanted(values: Mapping[frozenset[str], set[float]], relations: frozenset[str] | None) -> set[float] | None:
    """What was injected for these relations; EXPLAIN numbers aliases that occur more than once in a statement (a, a_1)."""
    if not relations:
        return None
    if relations in values:
        return values[relations]
    if all(not _COPY_SUFFIX.search(alias) for alias in relations):
        return None
    stems = sorted(_COPY_SUFFIX.sub("", alias) for alias in relations)
    found = [rows for subplan, rows in values.items() if sorted(_COPY_SUFFIX.sub("", alias) for alias in subplan) == stems]
    return set().union(*found) if found else None


def _carries(place: _Place, rows: float) -> bool:
    """Below a Gather, every scan and join has a number of processes of its own, which EXPLAIN does not say."""
    shared = range(1, max(place.around.workers, _MOST_WORKERS) + 1) if place.around.workers else ()
    return place.node.rows in (rows, *(_clamped(rows / _divisor(workers)) for workers in shared))


def _divisor(workers: int) -> float:
    """Processes that share the rows (get_parallel_divisor in costsize.c): the leader helps the less the more workers there are."""
    return workers + max(1.0 - 0.3 * workers, 0.0)


def _is_parameterized(place: _Place) -> bool:
    """Whether a condition below the node refers to a relation outside of it, of which it gets one row at a time."""
    relations = place.relations or frozenset()
    return any(alias not in relations and not _is_own_copy(alias, relations) for alias in _referenced(place.node))


def _is_lateral_function(place: _Place) -> bool:
    """Whether it is a function that may have arguments from other relations: EXPLAIN does not show them."""
    return place.around.repeated and "Function Scan" in place.node.node_type


def _is_own_copy(alias: str, relations: frozenset[str]) -> bool:
    return any(_COPY_SUFFIX.sub("", other) == alias for other in relations)


def _referenced(node: Plan) -> Iterator[str]:
    for below in node.nodes():
        for condition in below.conditions.values():
            for quoted, plain in _QUALIFIED.findall(_QUOTED.sub("''", condition)):
                yield quoted.replace('""', '"') or plain


def _name(place: _Place) -> str:
    return f"{place.node.node_type} {' '.join(sorted(place.relations or ()))}"


def _places(plan: Plan) -> list[_Place]:
    """All scans and joins of relations."""
    found: list[_Place] = []
    _visit(plan, _Around(), found)
    return found


def _visit(node: Plan, around: _Around, found: list[_Place]) -> frozenset[str] | None:
    """Note the scans and joins at and below `node`, and return the relations of its level that it yields rows of."""
    visited = [(child, _visit(child, around.below(node, child), found)) for child in node.children]
    relations = _relations(node, [below for child, below in visited if child.relationship in _OWN_LEVEL])
    if node.node_type != "ModifyTable" and (node.alias is not None or node.is_join or node.node_type in _APPENDS):
        found.append(_Place(node=node, relations=relations, around=around))
    return relations


def _relations(node: Plan, children: list[frozenset[str] | None]) -> frozenset[str] | None:
    if node.alias is not None and node.node_type != "ModifyTable":
        return frozenset({node.alias})
    if not children or any(child is None for child in children):
        return None
    below = frozenset().union(*(child for child in children if child is not None))
    if node.node_type not in _APPENDS:
        return below
    # EXPLAIN does not name a partitioned table, but its partitions: t_1, t_2 for t.
    stems = {_COPY_SUFFIX.sub("", alias) for alias in below}
    return frozenset(stems) if len(stems) == 1 else None

"""
Extend, as published: Schlosser, Kossmann, Boissier, "Efficient Scalable Multi-attribute Index Selection Using Recursive Strategies",
ICDE 2019.

Start with no index. In every step either add an index on one column, or append one column to an index that was chosen before (which
replaces it), whichever lowers the workload's cost most per byte of additional storage. Stop when no affordable step lowers the cost by the
minimal relative improvement; there is no other stop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Protocol

from pytest_pilotscope.postgres.indexes import Index

Configuration = frozenset[Index]
Columns = Mapping[str, frozenset[str]]
"""Table -> columns."""
Partners = Mapping[tuple[str, str], frozenset[str]]
"""(table, column) -> columns of the table that some query uses together with it; appending any other column cannot help."""


class WorkloadCosts(Protocol):
    """The costs and sizes that Extend needs, from the planner or, in a test, from a table."""

    def total(self, configuration: Configuration) -> float:
        """Return the cost of the whole workload, in optimizer units."""

    def lower_bounds(self, configurations: Sequence[Configuration], chosen: Configuration) -> list[float]:
        """Return lower bounds of the totals of possible successors of `chosen`, whose total is known. Zeros are always right."""

    def tightened(self, configuration: Configuration, bound: float) -> tuple[float, bool]:
        """Return a lower bound for one of these successors, above `bound` if a little work finds one; tell whether it is the total."""

    def size_bytes(self, index: Index) -> int:
        """Return the storage of an index, estimated or real; above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`budget_bytes` of storage, at most `width` columns per index, and the ratio old / new cost that a step must exceed."""

    budget_bytes: int
    width: int = 2
    min_improvement: float = 1.003


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of Extend: `added` is new, in place of `replaced` if that is not None; cost and storage are those after it."""

    added: Index
    replaced: Index | None
    cost: float
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The chosen indexes, sorted, the workload's cost before and after, and the steps."""

    indexes: tuple[Index, ...]
    cost_before: float
    cost_after: float
    size_bytes: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    added: Index
    replaced: Index | None
    configuration: Configuration
    growth_bytes: int


def extend(
    columns: Columns,
    partners: Partners,
    costs: WorkloadCosts,
    limits: Limits,
    *,
    kept: Configuration = frozenset(),
) -> Selection:
    """
    Select indexes on `columns` for the workload behind `costs`.

    `kept` indexes always exist (primary keys, for instance): a prefix of one is no candidate, and a step can append a column to one, too,
    which adds an index and replaces none. Size and then name break ties, so that the result does not depend on the order of the arguments.
    """
    chosen: Configuration = frozenset()
    size_bytes = 0
    before = cost = costs.total(chosen)
    steps: list[Step] = []
    while True:
        moves = [
            move
            for move in _moves(chosen, kept, columns, partners, costs, limits.width)
            if size_bytes + move.growth_bytes <= limits.budget_bytes
        ]
        best = _best(moves, chosen, costs, cost, limits.min_improvement)
        if best is None:
            break
        move, cost = best
        chosen, size_bytes = move.configuration, size_bytes + move.growth_bytes
        steps.append(Step(added=move.added, replaced=move.replaced, cost=cost, size_bytes=size_bytes))
    return Selection(indexes=tuple(sorted(chosen)), cost_before=before, cost_after=cost, size_bytes=size_bytes, steps=tuple(steps))


def _moves(
    chosen: Configuration,
    kept: Configuration,
    columns: Columns,
    partners: Partners,
    costs: WorkloadCosts,
    width: int,
) -> Iterator[_Move]:
    """Yield every possible step: a new index on one column, or one more column for an existing index."""
    singles = (Index(table, (column,)) for table in sorted(columns) for column in sorted(columns[table]))
    for index in singles:
        if _is_new(index, chosen, kept):
            yield _Move(added=index, replaced=None, configuration=chosen | {index}, growth_bytes=costs.size_bytes(index))
    for index in sorted(chosen | kept):
        for column in sorted(_appendable(index, columns, partners)) if len(index.columns) < width else ():
            wider = Index(index.table, (*index.columns, column))
            if _is_new(wider, chosen, kept):
                replaced = index if index in chosen else None
                growth_bytes = costs.size_bytes(wider) - (costs.size_bytes(index) if replaced else 0)
                yield _Move(added=wider, replaced=replaced, configuration=chosen - {index} | {wider}, growth_bytes=growth_bytes)


def _is_new(index: Index, chosen: Configuration, kept: Configuration) -> bool:
    return index not in chosen and not any(index.is_prefix_of(other) for other in kept)


def _appendable(index: Index, columns: Columns, partners: Partners) -> frozenset[str]:
    together = frozenset[str]().union(*(partners.get((index.table, column), frozenset()) for column in index.columns))
    return (together & columns.get(index.table, frozenset())).difference(index.columns)


def _best(
    moves: Sequence[_Move], chosen: Configuration, costs: WorkloadCosts, cost: float, min_improvement: float
) -> tuple[_Move, float] | None:
    """
    Return the move with the largest cost reduction per byte and the resulting cost; None if none improves enough.

    It tightens the bound of the move that promises most, until that bound is the total: no other move can be better.
    """
    bounds = costs.lower_bounds([move.configuration for move in moves], chosen)
    queue = [(_rank(move, cost - bound), bound, False, move) for move, bound in zip(moves, bounds, strict=True)]
    heapify(queue)
    while queue:
        _, bound, is_total, move = heappop(queue)
        if bound * min_improvement >= cost:
            continue
        if is_total:
            return move, bound
        bound, is_total = costs.tightened(move.configuration, bound)
        heappush(queue, (_rank(move, cost - bound), bound, is_total, move))
    return None


_Rank = tuple[float, int, Index]


def _rank(move: _Move, reduction: float) -> _Rank:
    """Return a sort key, the best move first: by cost reduction per byte, then size, then name."""
    return (-reduction / max(move.growth_bytes, 1), move.growth_bytes, move.added)

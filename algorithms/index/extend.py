"""
Extend, as published: Schlosser, Kossmann, Boissier, "Efficient Scalable Multi-attribute Index Selection Using Recursive Strategies",
ICDE 2019.

Start with no index. In every step either add an index on one column, or append one column to an index that was chosen before (which
replaces it), whichever lowers the workload's cost most per byte of additional storage. Stop when nothing affordable lowers the cost by the
minimal relative improvement; there is no other stop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pytest_pilotscope.postgres.indexes import Index

Configuration = frozenset[Index]
Columns = Mapping[str, frozenset[str]]
"""Table -> columns."""


class WorkloadCosts(Protocol):
    """What Extend has to know, from wherever it comes: the planner, or a table in a test."""

    def totals(self, configurations: Sequence[Configuration]) -> list[float]:
        """The cost of the whole workload under each configuration, in optimizer units."""

    def size_bytes(self, index: Index) -> int:
        """The storage an index takes, estimated or real; above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`budget_bytes` of storage, at most `width` columns per index, and the ratio old / new cost that a step must exceed."""

    budget_bytes: int
    width: int = 2
    min_improvement: float = 1.003


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of Extend: `added` came, in place of `replaced` if that is not None; cost and storage are those after it."""

    added: Index
    replaced: Index | None
    cost: float
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The chosen indexes, sorted, with the workload's cost before and after, and the steps that led there."""

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


def extend(columns: Columns, partners: Mapping[tuple[str, str], frozenset[str]], costs: WorkloadCosts, limits: Limits) -> Selection:
    """
    Select indexes on `columns` for the workload behind `costs`.

    `partners` maps (table, column) to the columns of the table that some query uses together with it: appending any other column cannot
    help. Ties are broken by size, then by name, so that the result does not depend on the order of anything.
    """
    chosen: Configuration = frozenset()
    size_bytes = 0
    before = cost = costs.totals([chosen])[0]
    steps: list[Step] = []
    while True:
        moves = [
            move for move in _moves(chosen, columns, partners, costs, limits.width) if size_bytes + move.growth_bytes <= limits.budget_bytes
        ]
        best = _best(moves, costs.totals([move.configuration for move in moves]), cost, limits.min_improvement)
        if best is None:
            break
        move, cost = best
        chosen, size_bytes = move.configuration, size_bytes + move.growth_bytes
        steps.append(Step(added=move.added, replaced=move.replaced, cost=cost, size_bytes=size_bytes))
    return Selection(indexes=tuple(sorted(chosen)), cost_before=before, cost_after=cost, size_bytes=size_bytes, steps=tuple(steps))


def _moves(
    chosen: Configuration,
    columns: Columns,
    partners: Mapping[tuple[str, str], frozenset[str]],
    costs: WorkloadCosts,
    width: int,
) -> Iterator[_Move]:
    """Everything one step can do: a new index on one column, or one more column for a chosen index."""
    singles = (Index(table, (column,)) for table in sorted(columns) for column in sorted(columns[table]))
    for index in singles:
        if index not in chosen:
            yield _Move(added=index, replaced=None, configuration=chosen | {index}, growth_bytes=costs.size_bytes(index))
    for index in sorted(chosen):
        if len(index.columns) >= width:
            continue
        for column in sorted(_appendable(index, columns, partners)):
            wider = Index(index.table, (*index.columns, column))
            if wider not in chosen:
                growth_bytes = costs.size_bytes(wider) - costs.size_bytes(index)
                yield _Move(added=wider, replaced=index, configuration=chosen - {index} | {wider}, growth_bytes=growth_bytes)


def _appendable(index: Index, columns: Columns, partners: Mapping[tuple[str, str], frozenset[str]]) -> frozenset[str]:
    together = frozenset[str]().union(*(partners.get((index.table, column), frozenset()) for column in index.columns))
    return (together & columns.get(index.table, frozenset())).difference(index.columns)


def _best(moves: Sequence[_Move], totals: Sequence[float], cost: float, min_improvement: float) -> tuple[_Move, float] | None:
    """The move with the largest cost reduction per byte and the cost it leads to; None when none improves enough."""
    ranked = [
        (-(cost - total) / max(move.growth_bytes, 1), move.growth_bytes, move.added, move, total)
        for move, total in zip(moves, totals, strict=True)
        if total * min_improvement < cost
    ]
    if not ranked:
        return None
    *_, move, total = min(ranked, key=lambda entry: entry[:3])
    return move, total

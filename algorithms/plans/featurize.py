"""
Plans as arrays: one pass over EXPLAIN's decoded JSON, one row per distinct subtree, indices instead of nested objects.

The rows of a join are PostgreSQL's own estimate for its relations, not the injected one, so that equal subtrees of different candidates of
a query have equal features, and are stored (and convolved) once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log1p
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.postgres.planning import RawPlan

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

OPERATORS = (
    *("unknown", "more children"),
    *("Result", "ProjectSet", "ModifyTable", "Append", "Merge Append", "Recursive Union", "BitmapAnd", "BitmapOr"),
    *("Nested Loop", "Merge Join", "Hash Join"),
    *("Seq Scan", "Sample Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan", "Bitmap Heap Scan", "Tid Scan", "Tid Range Scan"),
    *("Subquery Scan", "Function Scan", "Table Function Scan", "Values Scan", "CTE Scan", "Named Tuplestore Scan", "WorkTable Scan"),
    *("Foreign Scan", "Custom Scan"),
    *("Gather", "Gather Merge", "Materialize", "Memoize", "Sort", "Incremental Sort", "Hash", "LockRows"),
    *("Group", "Aggregate", "WindowAgg", "Unique", "SetOp", "Limit"),
)
"""Every node type that EXPLAIN of PostgreSQL 13 to 18 prints; `more children` makes two children of the third, fourth, ..."""

_OPERATOR = {name: position for position, name in enumerate(OPERATORS)}
_MORE = _OPERATOR["more children"]
_COLLAPSING = frozenset({"Aggregate", "Group", "Unique", "SetOp", "Limit"})
_NOTHING = -1
_DISABLED_COST = 1e10
"""The amount that PostgreSQL before 18 adds to the cost of a node that a setting disables (`disable_cost` in costsize.c)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """
    Smallest and largest logarithm (of 1 + x) of rows, widths in bytes and total costs, which become 0 and 1; values outside are clipped.

    Without `cost`, costs are no feature.
    """

    rows: tuple[float, float]
    width: tuple[float, float]
    cost: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanArrays:
    """
    The distinct nodes of some plans as arrays. -1 stands for no child.

    `features` is (N, F), `left` and `right` are (N,) rows of the children, `trees` is (T, M): the rows of each plan, its root first, and
    repeated up to the width, so that a maximum over them does not change.
    """

    features: Floats
    left: Indices
    right: Indices
    trees: Indices


@dataclass(slots=True)
class OwnRows:
    """PostgreSQL's own estimates of a query, by a bit per alias."""

    bits: dict[str, int]
    rows: dict[int, float]

    @classmethod
    def of(cls, subplans: Mapping[frozenset[str], float]) -> OwnRows:
        """Take the planner's estimates; of several query levels with the same aliases the first counts."""
        bits: dict[str, int] = {}
        rows: dict[int, float] = {}
        for subplan, number in subplans.items():
            aliases = 0
            for alias in subplan:
                aliases |= bits.setdefault(alias, 1 << len(bits))
            rows.setdefault(aliases, number)
        return cls(bits, rows)


@dataclass(slots=True)
class DistinctNodes:
    """Collects the distinct subtrees of the plans of one query; with `costs`, subtrees of other costs are others."""

    tables: Mapping[str, int]
    own: OwnRows
    costs: bool = False
    nodes: dict[tuple[int, bool, int, float, float, float, int, int], int] = field(default_factory=dict)
    trees: list[list[int]] = field(default_factory=list)

    def add(self, plan: RawPlan) -> None:
        """Add the nodes of one plan."""
        tree: list[int] = []
        self._walk(plan, tree)
        tree.reverse()
        self.trees.append(tree)

    def _walk(self, raw: RawPlan, tree: list[int]) -> tuple[int, int, int]:
        """Add a node after those below it; return its row, the bits of its tables and, up to an aggregation, those of its aliases."""
        get = raw.get
        left = right = _NOTHING
        tables = aliases = 0
        if (below := get("Plans")) is not None:
            left, tables, aliases = self._walk(below[0], tree)
            if len(below) > 1:
                right, more_tables, more_aliases = self._rest(below[1:], tree)
                tables |= more_tables
                aliases |= more_aliases
        name = raw["Node Type"]
        if (table := get("Relation Name")) is not None:
            tables |= self.tables.get(table, 0)
        if (alias := get("Alias")) is not None:
            aliases = self.own.bits.get(alias, 0)
        if name in _COLLAPSING:
            aliases = 0
        rows = get("Plan Rows", 0.0)
        if aliases & (aliases - 1):  # more than one relation
            rows = self.own.rows.get(aliases, rows)
        cost = get("Total Cost", 0.0) % _DISABLED_COST if self.costs else 0.0
        key = (_OPERATOR.get(name, 0), get("Parallel Aware", False), tables, rows, get("Plan Width", 0), cost, left, right)
        node = self.nodes.setdefault(key, len(self.nodes))
        tree.append(node)
        return node, tables, aliases

    def _rest(self, below: Sequence[RawPlan], tree: list[int]) -> tuple[int, int, int]:
        """Add all children but the first as one."""
        left, tables, aliases = self._walk(below[0], tree)
        if len(below) == 1:
            return left, tables, aliases
        right, more_tables, more_aliases = self._rest(below[1:], tree)
        tables |= more_tables
        node = self.nodes.setdefault((_MORE, False, tables, 0.0, 0.0, 0.0, left, right), len(self.nodes))
        tree.append(node)
        return node, tables, aliases | more_aliases


class Featurizer:
    """Knows the tables and the scales of a model."""

    def __init__(self, tables: Iterable[str], scales: Scales) -> None:
        self.tables = tuple(tables)
        self.scales = scales
        self._bits = table_bits(self.tables)
        self._table_bytes = (len(self.tables) + 7) // 8

    @property
    def width(self) -> int:
        """Features per node: operator one-hot, tables below it, rows, width, parallel awareness, and the cost if it is one."""
        return len(OPERATORS) + len(self.tables) + 3 + (self.scales.cost is not None)

    def arrays(self, plans: Iterable[RawPlan], subplans: Mapping[frozenset[str], float]) -> PlanArrays:
        """Make arrays of the plans of one query; `subplans` are PostgreSQL's own estimates."""
        distinct = DistinctNodes(self._bits, OwnRows.of(subplans), self.scales.cost is not None)
        for plan in plans:
            distinct.add(plan)
        return self._arrays(distinct)

    def _arrays(self, distinct: DistinctNodes) -> PlanArrays:
        operators, parallel, tables, rows, widths, costs, left, right = zip(*distinct.nodes, strict=True)
        count, first_table = len(operators), len(OPERATORS)
        after = first_table + len(self.tables)
        features = np.zeros((count, self.width), dtype=np.float32)
        features[np.arange(count), operators] = 1.0
        packed = b"".join([bits.to_bytes(self._table_bytes, "little") for bits in tables])
        unpacked = np.unpackbits(np.frombuffer(packed, dtype=np.uint8).reshape(count, self._table_bytes), axis=1, bitorder="little")
        features[:, first_table:after] = unpacked[:, : len(self.tables)]
        features[:, after] = _scaled(rows, self.scales.rows)
        features[:, after + 1] = _scaled(widths, self.scales.width)
        features[:, after + 2] = parallel
        if self.scales.cost is not None:
            features[:, after + 3] = _scaled(costs, self.scales.cost)
        longest = max(map(len, distinct.trees))
        trees = np.array([tree + [tree[0]] * (longest - len(tree)) for tree in distinct.trees], dtype=np.int64)
        return PlanArrays(features=features, left=np.array(left, dtype=np.int64), right=np.array(right, dtype=np.int64), trees=trees)


def table_bits(tables: Sequence[str]) -> dict[str, int]:
    """Return one bit per table."""
    return {table: 1 << position for position, table in enumerate(tables)}


def scales_of(plans: Iterable[tuple[Sequence[RawPlan], Mapping[frozenset[str], float]]], *, costs: bool = False) -> Scales:
    """Find the smallest and largest logarithms in the plans of some queries, each with its query's own estimates."""
    logs: list[tuple[float, float, float]] = []
    for of_query, subplans in plans:
        distinct = DistinctNodes({}, OwnRows.of(subplans), costs)
        for plan in of_query:
            distinct.add(plan)
        logs += [(log1p(node[3]), log1p(node[4]), log1p(node[5])) for node in distinct.nodes]
    rows, widths, found = ((min(each), max(each)) for each in (zip(*logs, strict=True) if logs else [(0.0,)] * 3))
    return Scales(rows=rows, width=widths, cost=found if costs else None)


def merged(parts: Sequence[PlanArrays]) -> PlanArrays:
    """Concatenate the arrays of several queries; rows of one never refer to another."""
    offsets = np.cumsum([0, *(len(arrays.left) for arrays in parts[:-1])])
    longest = max(arrays.trees.shape[1] for arrays in parts)
    return PlanArrays(
        features=np.concatenate([arrays.features for arrays in parts]),
        left=np.concatenate([_shifted(arrays.left, offset) for arrays, offset in zip(parts, offsets, strict=True)]),
        right=np.concatenate([_shifted(arrays.right, offset) for arrays, offset in zip(parts, offsets, strict=True)]),
        trees=np.concatenate([_widened(arrays.trees, longest) + offset for arrays, offset in zip(parts, offsets, strict=True)]),
    )


def _shifted(children: Indices, offset: int) -> Indices:
    return np.where(children == _NOTHING, _NOTHING, children + offset)


def _widened(trees: Indices, longest: int) -> Indices:
    return np.concatenate([trees, np.repeat(trees[:, :1], longest - trees.shape[1], axis=1)], axis=1)


def _scaled(values: Sequence[Any], ends: tuple[float, float]) -> Floats:
    low, high = ends
    logs = np.log1p(np.array(values, dtype=np.float64))
    scaled: Floats = np.clip((logs - low) / ((high - low) or 1.0), 0.0, 1.0).astype(np.float32)
    return scaled

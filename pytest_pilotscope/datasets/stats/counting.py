"""
Exact sizes of acyclic joins without running them.

Along a tree of equalities the number of result rows is a sum of products: every relation sends its neighbour, for each key, how
many rows of its side of the tree have that key (Yannakakis, VLDB 1981, with counts in place of sets).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .schema import FOREIGN_KEYS
from .tables import Table
from .templates import ALIASES, Join

Weights = NDArray[np.float64]
Mask = NDArray[np.bool_]
Codes = NDArray[np.intp]


class Population:
    """The generated tables with every join key as a position in its parent table plus one, 0 where NULL."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self.tables = tables
        self._codes: dict[tuple[str, str], Codes] = {}
        self._degrees: dict[tuple[str, str], Weights] = {}
        self._statistics: dict[tuple[str, str], tuple[int, float]] = {}
        for (table, column), parent in FOREIGN_KEYS.items():
            data = tables[table][column]
            codes = np.searchsorted(tables[parent]["id"].values, data.values) + 1
            self._codes[table, column] = codes if data.nulls is None else np.where(data.nulls, 0, codes)

    def domain(self, table: str, column: str) -> int:
        """The number of different keys that the column may have, and one for NULL."""
        return self.tables[FOREIGN_KEYS.get((table, column), table)].rows + 1

    def codes(self, table: str, column: str) -> Codes:
        """The key of every row, (rows,)."""
        return np.arange(1, self.tables[table].rows + 1) if column == "id" else self._codes[table, column]

    def degrees(self, table: str, column: str) -> Weights:
        """How many rows have each key, (keys,); 0 for NULL, which joins with nothing."""
        if (table, column) not in self._degrees:
            degrees = np.bincount(self.codes(table, column), minlength=self.domain(table, column)).astype(np.float64)
            degrees[0] = 0.0
            self._degrees[table, column] = degrees
        return self._degrees[table, column]

    def density(self, join: Join) -> float:
        """The selectivity of the join by the textbook: the shares of non-NULL keys over the larger number of distinct keys."""
        distinct, present = 1, 1.0
        for alias, column, _, _ in join.sides():
            keys, share = self._key_statistics(ALIASES[alias], column)
            distinct, present = max(distinct, keys), present * share
        return present / distinct

    def _key_statistics(self, table: str, column: str) -> tuple[int, float]:
        """The number of distinct keys and the share of rows that have one."""
        if (table, column) not in self._statistics:
            degrees = self.degrees(table, column)
            self._statistics[table, column] = int(np.count_nonzero(degrees)), float(degrees.sum()) / self.tables[table].rows
        return self._statistics[table, column]


class JoinCounts:
    """
    Sizes of the join of filtered relations, and of connected parts of it. Exact up to 2**53 rows, nearly exact beyond.

    `masks` has a mask over the rows of its table for every alias, or None where the relation is not filtered.
    """

    def __init__(self, population: Population, joins: Sequence[Join], masks: Mapping[str, Mask | None]) -> None:
        self._population = population
        self._joins = joins
        self._neighbours: dict[str, list[tuple[str, str, str]]] = {alias: [] for alias in masks}
        for join in joins:
            for alias, column, other, other_column in join.sides():
                self._neighbours[alias].append((column, other, other_column))
        self._rows = {alias: None if mask is None else np.flatnonzero(mask) for alias, mask in masks.items()}
        self._messages: dict[tuple[str, str, frozenset[str]], Weights] = {}

    def size(self, aliases: Iterable[str] | None = None) -> int:
        """The rows in the join of all relations, or of these (which must be connected)."""
        part = frozenset(self._rows if aliases is None else aliases)
        root = max(part, key=lambda alias: (len(self._neighbours[alias]), alias))
        weights = self._weights(root, "", part)
        return self.filtered(root) if weights is None else int(weights.sum())

    def size_unfiltered(self, alias: str) -> int:
        """The rows in the join of all relations when the predicates of this one are left out."""
        rows, self._rows[alias] = self._rows[alias], None
        try:
            weights = self._weights(alias, "", frozenset(self._rows))
            return self.filtered(alias) if weights is None else int(weights.sum())
        finally:
            self._rows[alias] = rows

    def filtered(self, alias: str) -> int:
        """The rows of one relation after its predicates."""
        rows = self._rows[alias]
        return self._population.tables[ALIASES[alias]].rows if rows is None else len(rows)

    def textbook_estimate(self) -> float:
        """What independence and uniform fan-outs predict from the exact sizes of the filtered relations (Selinger, SIGMOD 1979)."""
        estimate = 1.0
        for alias in self._rows:
            estimate *= self.filtered(alias)
        for join in self._joins:
            estimate *= self._population.density(join)
        return estimate

    def _weights(self, alias: str, to: str, part: frozenset[str]) -> Weights | None:
        """How many rows of its side of the tree each selected row of `alias` stands for, (selected,); None where that is one."""
        weights: Weights | None = None
        for column, other, other_column in self._neighbours[alias]:
            if other != to and other in part:
                received = self._message(other, other_column, alias, part)
                received = received[self._codes(alias, column)] if column != "id" else self._selected(alias, received)
                weights = received if weights is None else weights * received
        return weights

    def _selected(self, alias: str, values: Weights) -> Weights:
        """The values of the selected rows; the id of row n is key n + 1 of its domain."""
        rows = self._rows[alias]
        return values[1:] if rows is None else values[rows + 1]

    def _codes(self, alias: str, column: str) -> Codes:
        codes = self._population.codes(ALIASES[alias], column)
        rows = self._rows[alias]
        return codes if rows is None else codes[rows]

    def _message(self, alias: str, column: str, to: str, part: frozenset[str]) -> Weights:
        """For every key of `column`, how many rows of the side of `alias` have it: (keys,), 0 for NULL."""
        side = self._side(alias, to, part)
        key = (alias, column, side)
        if key not in self._messages:
            weights = self._weights(alias, to, part)
            if weights is None and self._rows[alias] is None:
                self._messages[key] = self._population.degrees(ALIASES[alias], column)
            else:
                domain = self._population.domain(ALIASES[alias], column)
                message = np.bincount(self._codes(alias, column), weights=weights, minlength=domain).astype(np.float64, copy=False)
                message[0] = 0.0
                self._messages[key] = message
        return self._messages[key]

    def _side(self, alias: str, to: str, part: frozenset[str]) -> frozenset[str]:
        """The relations of `part` that hang on `alias` when the edge to `to` is cut."""
        found, open_ends = {alias}, [alias]
        while open_ends:
            for _, other, _ in self._neighbours[open_ends.pop()]:
                if other in part and other not in found and other != to:
                    found.add(other)
                    open_ends.append(other)
        return frozenset(found)

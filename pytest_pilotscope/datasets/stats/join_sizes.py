"""
Exact sizes of acyclic joins without running them.

In a tree of equalities the number of result rows is a sum of products. Every relation sends its neighbour a message: for each key, the
number of rows with that key on its side of the tree (Yannakakis, VLDB 1981, with counts in place of sets).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .join_templates import ALIASES, Join
from .schema import FOREIGN_KEYS
from .tables import Table

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
        """Return the number of different keys that the column may have, plus one for NULL."""
        return self.tables[FOREIGN_KEYS.get((table, column), table)].rows + 1

    def codes(self, table: str, column: str) -> Codes:
        """Return the key of every row, (rows,)."""
        return np.arange(1, self.tables[table].rows + 1) if column == "id" else self._codes[table, column]

    def degrees(self, table: str, column: str) -> Weights:
        """Return the number of rows of each key, (keys,); 0 for NULL, which joins with nothing."""
        if (table, column) not in self._degrees:
            degrees = np.bincount(self.codes(table, column), minlength=self.domain(table, column)).astype(np.float64)
            degrees[0] = 0.0
            self._degrees[table, column] = degrees
        return self._degrees[table, column]

    def density(self, join: Join) -> float:
        """Return the selectivity of the join by the textbook: the shares of non-NULL keys over the larger number of distinct keys."""
        distinct, present = 1, 1.0
        for alias, column, _, _ in join.sides():
            keys, share = self._key_statistics(ALIASES[alias], column)
            distinct, present = max(distinct, keys), present * share
        return present / distinct

    def _key_statistics(self, table: str, column: str) -> tuple[int, float]:
        """Return the number of distinct keys and the share of rows that have one."""
        if (table, column) not in self._statistics:
            degrees = self.degrees(table, column)
            self._statistics[table, column] = int(np.count_nonzero(degrees)), float(degrees.sum()) / self.tables[table].rows
        return self._statistics[table, column]


class JoinSizes:
    """
    Sizes of the join of filtered relations, and of connected parts of it. Exact up to 2**53 rows, nearly exact beyond.

    `masks` has for every alias a mask over the rows of its table, or None if the relation is not filtered.
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
        """Return the rows in the join of all relations, or of these (which must be connected)."""
        part = frozenset(self._rows if aliases is None else aliases)
        root = max(part, key=lambda alias: (len(self._neighbours[alias]), alias))
        weights = self._weights(root, "", part)
        return self.filtered(root) if weights is None else int(weights.sum())

    def size_unfiltered(self, alias: str) -> int:
        """Return the rows in the join of all relations without the predicates of this one."""
        rows, self._rows[alias] = self._rows[alias], None
        try:
            weights = self._weights(alias, "", frozenset(self._rows))
            return self.filtered(alias) if weights is None else int(weights.sum())
        finally:
            self._rows[alias] = rows

    def filtered(self, alias: str) -> int:
        """Return the rows of one relation after its predicates."""
        rows = self._rows[alias]
        return self._population.tables[ALIASES[alias]].rows if rows is None else len(rows)

    def textbook_estimate(self) -> float:
        """Return the estimate by independence and uniform fan-outs from exact sizes of the filtered relations (Selinger, SIGMOD 1979)."""
        estimate = 1.0
        for alias in self._rows:
            estimate *= self.filtered(alias)
        for join in self._joins:
            estimate *= self._population.density(join)
        return estimate

    def _weights(self, alias: str, to: str, part: frozenset[str]) -> Weights | None:
        """Return the rows on its side of the tree that each selected row of `alias` joins with, (selected,); None if always one."""
        weights: Weights | None = None
        for column, other, other_column in self._neighbours[alias]:
            if other != to and other in part:
                received = self._message(other, other_column, alias, part)
                received = received[self._codes(alias, column)] if column != "id" else self._selected(alias, received)
                weights = received if weights is None else weights * received
        return weights

    def _selected(self, alias: str, values: Weights) -> Weights:
        """Return the values of the selected rows; the id of row n is key n + 1 of its domain."""
        rows = self._rows[alias]
        return values[1:] if rows is None else values[rows + 1]

    def _codes(self, alias: str, column: str) -> Codes:
        codes = self._population.codes(ALIASES[alias], column)
        rows = self._rows[alias]
        return codes if rows is None else codes[rows]

    def _message(self, alias: str, column: str, to: str, part: frozenset[str]) -> Weights:
        """Return the number of rows of each key of `column` on the side of `alias`: (keys,), 0 for NULL."""
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
        """Return the relations of `part` that stay connected with `alias` without the edge to `to`."""
        found, open_ends = {alias}, [alias]
        while open_ends:
            for _, other, _ in self._neighbours[open_ends.pop()]:
                if other in part and other not in found and other != to:
                    found.add(other)
                    open_ends.append(other)
        return frozenset(found)

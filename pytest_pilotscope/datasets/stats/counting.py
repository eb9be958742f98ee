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


class Population:
    """The generated tables with every join key as a position in its parent table, -1 where NULL."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self.tables = tables
        self._codes: dict[tuple[str, str], NDArray[np.intp]] = {}
        for (table, column), parent in FOREIGN_KEYS.items():
            data = tables[table][column]
            codes = np.searchsorted(tables[parent]["id"].values, data.values)
            self._codes[table, column] = codes if data.nulls is None else np.where(data.nulls, -1, codes)

    def domain(self, table: str, column: str) -> int:
        """The number of different keys that the column may have."""
        return self.tables[FOREIGN_KEYS.get((table, column), table)].rows

    def codes(self, table: str, column: str) -> NDArray[np.intp]:
        """The position of every row's key, (rows,)."""
        if column == "id":
            return np.arange(self.tables[table].rows)
        return self._codes[table, column]


class JoinCounts:
    """Sizes of the join of filtered relations and of the parts of it. Exact up to 2**53 rows, nearly exact beyond."""

    def __init__(self, population: Population, joins: Sequence[Join], masks: Mapping[str, Mask]) -> None:
        self._population = population
        self._neighbours: dict[str, list[tuple[str, str, str]]] = {}
        for join in joins:
            for alias, column, other, other_column in join.sides():
                self._neighbours.setdefault(alias, []).append((column, other, other_column))
        self._rows = {alias: np.flatnonzero(mask) for alias, mask in masks.items()}
        self._keys: dict[tuple[str, str], tuple[NDArray[np.intp], NDArray[np.intp] | None]] = {}
        self._messages: dict[tuple[str, str, frozenset[str]], Weights] = {}

    def size(self, aliases: Iterable[str] | None = None) -> int:
        """The rows in the join of all relations, or of these (which must be connected)."""
        part = frozenset(self._rows if aliases is None else aliases)
        root = max(part, key=lambda alias: (len(self._neighbours.get(alias, ())), alias))
        return int(self._weights(root, "", part).sum())

    def parts(self) -> set[frozenset[str]]:
        """Every connected set of at least two relations."""
        found = {frozenset([alias]) for alias in self._rows}
        grown = found
        while grown:
            grown = {
                part | {other} for part in grown for alias in part for _, other, _ in self._neighbours[alias] if other not in part
            } - found
            found |= grown
        return {part for part in found if len(part) > 1}

    def _weights(self, alias: str, to: str, part: frozenset[str]) -> Weights:
        """How many rows of its side each selected row of `alias` stands for, (selected,)."""
        weights: Weights = np.ones(len(self._rows[alias]), dtype=np.float64)
        for column, other, other_column in self._neighbours.get(alias, ()):
            if other != to and other in part:
                weights *= self._received(alias, column, other, other_column, part)
        return weights

    def _received(self, alias: str, column: str, other: str, other_column: str, part: frozenset[str]) -> Weights:
        message = self._message(other, other_column, alias, part)
        codes, missing = self._key(alias, column)
        received = message[codes]
        if missing is not None:
            received[missing] = 0.0
        return received

    def _message(self, alias: str, column: str, to: str, part: frozenset[str]) -> Weights:
        side = self._side(alias, to, part)
        if (alias, column, side) not in self._messages:
            table = ALIASES[alias]
            codes, missing = self._key(alias, column)
            weights = self._weights(alias, to, part)
            if missing is not None:
                weights[missing] = 0.0
            domain = self._population.domain(table, column)
            self._messages[alias, column, side] = np.bincount(codes, weights=weights, minlength=domain).astype(np.float64, copy=False)
        return self._messages[alias, column, side]

    def _side(self, alias: str, to: str, part: frozenset[str]) -> frozenset[str]:
        """The relations of `part` that hang on `alias` when the edge to `to` is cut."""
        found, open_ends = {alias}, [alias]
        while open_ends:
            for _, other, _ in self._neighbours[open_ends.pop()]:
                if other in part and other not in found and other != to:
                    found.add(other)
                    open_ends.append(other)
        return frozenset(found)

    def _key(self, alias: str, column: str) -> tuple[NDArray[np.intp], NDArray[np.intp] | None]:
        """Key positions of the selected rows with NULL as 0, and which of them are NULL."""
        if (alias, column) not in self._keys:
            codes = self._population.codes(ALIASES[alias], column)[self._rows[alias]]
            missing = np.flatnonzero(codes < 0)
            self._keys[alias, column] = (np.maximum(codes, 0), missing) if len(missing) else (codes, None)
        return self._keys[alias, column]

"""
Joins whose keys form a cycle: relations that share two keys, triangles, and larger joins that contain them.

Here a factor is a table: distinct combinations of keys with their counts. Summing out a key multiplies the tables that have
it. The product may have more keys than any relation; it is made in pieces, each summed at once, so that memory stays
bounded. `TooLarge` is raised when there are too many pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.labels.exact import Codes, Counts, counts, gather, ones, product, scatter, total
from pytest_pilotscope.labels.memory import Memory, TooLarge

_PIECE_ROWS = 2_000_000
_MOST_ROWS = 400_000_000  # some tens of seconds; PostgreSQL may do better with its indexes
_WIDEST_KEY = 2**62
BYTES_PER_COMBINATION = 128  # of two keys and more with their counts, sorted and united


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Combinations of keys and their counts: (N,) codes per key, (N,) weights, and the domain size of each key."""

    keys: Mapping[int, Codes]
    sizes: Mapping[int, int]
    weights: Counts

    @staticmethod
    def of_rows(keys: Mapping[int, Codes], sizes: Mapping[int, int]) -> Table:
        """Make a table of rows without NULLs; equal rows are united."""
        rows = next(iter(keys.values())).size
        return Table(keys, sizes, ones(rows)).grouped(set(keys))

    @property
    def rows(self) -> int:
        """Number of combinations."""
        return int(self.weights.values.size)

    def weighted(self, key: int, vector: Counts) -> Table:
        """Multiply with a vector over the domain of a key; combinations that become 0 are dropped."""
        return self._nonzero(product(self.weights, gather(vector, self.keys[key])))

    def picked(self, rows: npt.NDArray[np.intp] | slice) -> Table:
        """Return some of the combinations."""
        return Table({key: codes[rows] for key, codes in self.keys.items()}, self.sizes, counts(self.weights.values[rows]))

    def grouped(self, kept: set[int]) -> Table:
        """Sum out all keys but `kept`, which must not be empty."""
        names = sorted(kept & self.keys.keys())
        [labels] = composite([self], names)
        _, first, group = np.unique(labels, return_index=True, return_inverse=True)
        return Table({name: self.keys[name][first] for name in names}, self.sizes, scatter(self.weights, group.reshape(-1), first.size))

    def times(self, other: Table) -> Table:
        """Multiply with a table that has no other keys than this one: a look-up per combination."""
        mine, theirs = composite([self, other], sorted(other.keys))
        order = np.argsort(theirs, kind="stable")
        place = np.searchsorted(theirs, mine, sorter=order)
        found = place < theirs.size
        partner = order[np.where(found, place, 0)] if theirs.size else np.zeros(mine.size, dtype=np.intp)
        found = found & (theirs[partner] == mine) if theirs.size else np.zeros(mine.size, dtype=np.bool_)
        matched = self.picked(np.flatnonzero(found))
        return matched._nonzero(product(matched.weights, gather(other.weights, partner[found])))

    def pieces(self, other: Table, most_rows: int) -> Iterator[Table]:
        """Multiply with a table that has further keys, a bounded number of combinations at a time."""
        mine, theirs = composite([self, other], sorted(self.keys.keys() & other.keys.keys()))
        order = np.argsort(theirs, kind="stable")
        low, high = (np.searchsorted(theirs, mine, side=side, sorter=order) for side in ("left", "right"))
        ends = np.cumsum(high - low)
        if ends.size and ends[-1] > _MOST_ROWS:
            raise TooLarge(f"{int(ends[-1])} combinations of keys")
        start = 0
        while start < mine.size:
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + most_rows, side="right")))
            matches = (high - low)[start:stop]
            left = np.repeat(np.arange(start, stop), matches)
            offset = np.arange(left.size) - np.repeat(np.cumsum(matches) - matches, matches)
            yield self._joined(left, other, order[low[left] + offset])
            start = stop

    def _joined(self, left: npt.NDArray[np.intp], other: Table, right: npt.NDArray[np.intp]) -> Table:
        keys = {key: codes[left] for key, codes in self.keys.items()} | {key: codes[right] for key, codes in other.keys.items()}
        weights = product(counts(self.weights.values[left]), counts(other.weights.values[right]))
        return Table(keys, {**self.sizes, **other.sizes}, weights)

    def _nonzero(self, weights: Counts) -> Table:
        rows = np.flatnonzero(weights.values)
        return Table({key: codes[rows] for key, codes in self.keys.items()}, self.sizes, counts(weights.values[rows]))


def eliminate(tables: Sequence[Table], memory: Memory) -> int:
    """Sum the product of tables over all of their keys; raise `TooLarge` if there are too many combinations of them."""
    memory.check(BYTES_PER_COMBINATION * sum(table.rows for table in tables))
    remaining = _reduced(list(tables))
    rows = 1
    while remaining and rows:
        bucket, remaining = _next_bucket(remaining)
        needed = {key for table in remaining for key in table.keys}.intersection(*[{k for table in bucket for k in table.keys}])
        first, *others = sorted(bucket, key=lambda table: (-len(table.keys), table.rows))
        pieces = _multiplied(first, others, memory)
        if needed:
            summed: Table | None = None
            for piece in pieces:
                summed = united([*([] if summed is None else [summed]), piece.grouped(needed)])
                memory.check(BYTES_PER_COMBINATION * summed.rows)
            if summed is None:
                return 0
            remaining.append(summed)
        else:
            rows *= sum(total(piece.weights) for piece in pieces)
    return rows


def composite(tables: Sequence[Table], names: Sequence[int]) -> list[npt.NDArray[np.int64]]:
    """Give each combination of some keys a number, the same in all tables: (N,) per table."""
    labels = [table.keys[names[0]].astype(np.int64) for table in tables]
    size = tables[0].sizes[names[0]]
    for name in names[1:]:
        if size * tables[0].sizes[name] > _WIDEST_KEY:
            size, labels = _compressed(labels)
        size *= tables[0].sizes[name]
        labels = [label * tables[0].sizes[name] + table.keys[name] for label, table in zip(labels, tables, strict=True)]
    return labels


def _compressed(labels: Sequence[npt.NDArray[np.int64]]) -> tuple[int, list[npt.NDArray[np.int64]]]:
    distinct, places = np.unique(np.concatenate(labels), return_inverse=True)
    return distinct.size, np.split(places.reshape(-1).astype(np.int64), np.cumsum([label.size for label in labels])[:-1])


def _reduced(tables: list[Table]) -> list[Table]:
    """Drop the combinations whose code of a key is missing in another table (a semi-join per pair)."""
    for position, table in enumerate(tables):
        for other in tables[:position] + tables[position + 1 :]:
            for key in table.keys.keys() & other.keys.keys():
                present = np.zeros(table.sizes[key], dtype=np.bool_)
                present[other.keys[key]] = True
                table = table.picked(np.flatnonzero(present[table.keys[key]]))
        tables[position] = table
    return tables


def _next_bucket(tables: list[Table]) -> tuple[list[Table], list[Table]]:
    """Choose the key whose tables have the fewest keys together; return every table within those keys, and the rest."""
    scope = {key: {other for table in tables if key in table.keys for other in table.keys} for table in tables for key in table.keys}
    key = min(scope, key=lambda key: (len(scope[key]), sum(table.rows for table in tables if key in table.keys), key))
    bucket = [table for table in tables if table.keys.keys() <= scope[key]]
    return bucket, [table for table in tables if not table.keys.keys() <= scope[key]]


def _multiplied(table: Table, others: list[Table], memory: Memory) -> Iterator[Table]:
    within = [other for other in others if other.keys.keys() <= table.keys.keys()]
    if within:
        yield from _multiplied(table.times(within[0]), [other for other in others if other is not within[0]], memory)
        return
    if not others:
        yield table
        return
    closest = max(others, key=lambda other: (len(other.keys.keys() & table.keys.keys()), -other.rows))
    for piece in table.pieces(closest, min(_PIECE_ROWS, memory.largest_bytes // BYTES_PER_COMBINATION)):
        yield from _multiplied(piece, [other for other in others if other is not closest], memory)


def united(tables: Sequence[Table]) -> Table:
    """Unite tables of the same keys; equal combinations become one."""
    first = tables[0]
    if len(tables) == 1:
        return first
    keys = {key: np.concatenate([table.keys[key] for table in tables]) for key in first.keys}
    weights = counts(np.concatenate([table.weights.values for table in tables]))
    return Table(keys, first.sizes, weights).grouped(set(keys))

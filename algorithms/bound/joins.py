"""
The degree-sequence bound of an inner join by equality of columns.

Among all data with the same degree sequences the join is largest when in each relation the most frequent values of all columns are in the
same rows (Deeds, Suciu, Balazinska, Cai, "Degree Sequence Bound for Join Cardinality Estimation", ICDT 2023). The size of that join is
computed along the tree of relations and classes of equal columns. Where the classes make a cycle, an equality that closes it is left out:
the bound holds without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pytest_pilotscope.algorithms.bound.steps import Steps, by_rank, by_row, product
from pytest_pilotscope.queries.joins import JoinQuery, KeyType

DegreesBy: TypeAlias = Callable[[str, str, KeyType], Steps | None]
"""
From table, column and the type in which it is compared to the rows of each value, NULL left out, the most frequent value first.

None where nothing is known of it, such as for a column without an order.
"""

ROUNDING = 1 + 1e-9
"""The bound is raised by so much, so that rounding never makes it smaller than the truth."""


@dataclass(slots=True)
class JoinBound:
    """The bounds of the sets of one query level; `filtered` has the most rows of each relation after its filters."""

    query: JoinQuery
    degrees: DegreesBy
    filtered: Sequence[float]
    _columns: list[dict[int, Steps]] = field(init=False)
    _classes: list[dict[int, None]] = field(init=False)
    _known: dict[tuple[int, int, int], Steps] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Connect relations with the classes of their columns, as a forest."""
        count = len(self.query.aliases)
        self._columns = [{} for _ in range(count)]
        self._classes = [{} for _ in self.query.classes]
        tree = list(range(count + len(self.query.classes)))
        for number, (members, key) in enumerate(zip(self.query.classes, self.query.keys, strict=True)):
            for ref in members:
                relation = self.query.aliases.index(ref.alias)
                one, other = _root(tree, relation), _root(tree, count + number)
                degrees = self.degrees(self.query.relations[ref.alias].table, ref.column, key)
                if one != other and degrees is not None:  # else the equality closes a cycle, or nothing is known of it
                    tree[one] = other
                    self._columns[relation][number] = degrees.cut(self.filtered[relation])
                    self._classes[number][relation] = None

    def rows(self, mask: int) -> float:
        """Return the most rows of a set of relations."""
        found, left = 1.0, mask
        while left:
            root = left.bit_length() - 1
            there = self._reached(root, None, mask)
            left &= ~there
            weights = self._weights(root, None, there)
            found *= self.filtered[root] if weights is None else weights.total
        return max(found * ROUNDING, 1.0)

    def _weights(self, relation: int, above: int | None, mask: int) -> Steps | None:
        """Return the number of combinations with the relations below that each row of a relation has; None without relations below."""
        below = [
            by_row(degrees, product(functions))
            for number, degrees in self._columns[relation].items()
            if number != above and (functions := [self._from(other, number, mask) for other in self._others(number, relation, mask)])
        ]
        return product(below) if below else None

    def _from(self, relation: int, above: int, mask: int) -> Steps:
        """Return the number of combinations of a relation, and those below it, for each value of the class above it."""
        key = (relation, above, self._reached(relation, above, mask))
        if key not in self._known:
            weights = self._weights(relation, above, mask)
            degrees = self._columns[relation][above]
            self._known[key] = degrees if weights is None else by_rank(degrees, weights)
        return self._known[key]

    def _others(self, number: int, relation: int, mask: int) -> Iterator[int]:
        return (other for other in self._classes[number] if other != relation and mask >> other & 1)

    def _reached(self, relation: int, above: int | None, mask: int) -> int:
        """Return the relations of a set that are connected with one of them by other classes than `above`."""
        found = 1 << relation
        for number in self._columns[relation]:
            if number != above:
                for other in self._others(number, relation, mask):
                    found |= self._reached(other, number, mask)
        return found


def _root(tree: list[int], node: int) -> int:
    while tree[node] != node:
        node = tree[node]
    return node

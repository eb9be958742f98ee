"""
Features: three sets of elements for a query, and for each subplan the elements that it holds.

The featurizer finds a query's elements once; a subplan is a row of weights over them, without any parsing or look-up of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from operator import or_
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.algorithms.mscn.vocabulary import OPERATORS, PredicateElement, Vocabulary
from pytest_pilotscope.algorithms.table_samples import Samples
from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.queries.joins import JoinQuery, Relation

Floats: TypeAlias = npt.NDArray[np.float32]
Masks: TypeAlias = npt.NDArray[np.int64]

SETS = ("tables", "joins", "predicates")
"""The three sets, in the order of their concatenated encodings."""

MOST_RELATIONS = 62
"""Most relations of one query: a subplan is a bit mask in an int64."""

_CACHED_PREDICATES = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryElements:
    """
    The elements of the three sets of one query, and the (E,) masks of the relations that they need, in the same order.

    An element is in the set of a subplan if the subplan has all the relations that the element needs. Aliases of the same table are
    separate elements. `joins` are pairs of column positions: all pairs of each class of equal columns, so that neither the order of the
    FROM clause nor the choice of written equalities makes a difference.
    """

    relations: tuple[Relation, ...]
    joins: tuple[tuple[int, int], ...]
    predicates: tuple[PredicateElement, ...]
    needs: Masks

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The number of elements in each set."""
        return (len(self.relations), len(self.joins), len(self.predicates))

    def averages(self, masks: Masks) -> Floats:
        """
        Return for (S,) subplans the (S, E) weights of their elements.

        Each element that a subplan holds has 1 / the size of its set, so that a weighted sum averages each of the three sets.
        """
        weights: Floats = (masks[:, None] & self.needs == self.needs).astype(np.float32)
        first = 0
        for size in self.sizes:
            part = weights[:, first : first + size]
            part /= np.maximum(part.sum(axis=1, keepdims=True), 1)
            first += size
        return weights


class Featurizer:
    """Finds the elements of queries and writes their features; without samples, tables have no bitmaps."""

    def __init__(self, vocabulary: Vocabulary, samples: Samples | None) -> None:
        self.vocabulary = vocabulary
        self.samples = samples
        self._predicates: dict[tuple[str, str], list[PredicateElement]] = {}

    @property
    def widths(self) -> dict[str, int]:
        """Features per element of each set."""
        columns = len(self.vocabulary.columns)
        bits = 0 if self.samples is None else self.samples.rows
        return {"tables": len(self.vocabulary.tables) + bits, "joins": columns, "predicates": columns + len(OPERATORS) + 2}

    def elements(self, query: JoinQuery, masks: Sequence[int]) -> QueryElements:
        """
        Find the elements of the relations of some sets, which are inner joins of tables by equality of columns.

        `ModelError` names a table, column or join that has no features.
        """
        if len(query.aliases) > MOST_RELATIONS:
            raise ModelError(f"mscn estimates queries of up to {MOST_RELATIONS} relations, found {len(query.aliases)}")
        within = reduce(or_, masks, 0)
        bits = {alias: 1 << position for position, alias in enumerate(query.aliases) if within >> position & 1}
        relations = tuple(query.relations[alias] for alias in bits)
        for relation in relations:
            self.vocabulary.table(relation)
        joins = self._joins(query, bits)
        predicates = [
            (element, bits[relation.alias])
            for relation in relations
            for found in relation.predicates
            for element in self.predicate(relation.table, found.sql, found.condition)
        ]
        needs = np.array([*bits.values(), *(need for _, need in joins), *(need for _, need in predicates)], dtype=np.int64)
        return QueryElements(
            relations=relations, joins=tuple(pair for pair, _ in joins), predicates=tuple(element for element, _ in predicates), needs=needs
        )

    def described(self, query: JoinQuery) -> Counter[Hashable]:
        """Return all elements of a query, bitmaps included, each with its relations: equal for queries with equal estimates."""
        elements = self.elements(query, query.masks)
        bitmaps = self.bitmaps(elements.relations)
        tables = [(relation.table, bits.tobytes()) for relation, bits in zip(elements.relations, bitmaps, strict=True)]
        needs = [query.subplan(need) for need in elements.needs.tolist()]
        return Counter(zip([*tables, *elements.joins, *elements.predicates], needs, strict=True))

    def _joins(self, query: JoinQuery, bits: dict[str, int]) -> list[tuple[tuple[int, int], int]]:
        found = []
        for members in query.classes:
            known = [(bits[ref.alias], (query.relations[ref.alias].table, ref)) for ref in members if ref.alias in bits]
            found += [(self.vocabulary.join(a, b), left | right) for (left, a), (right, b) in combinations(known, 2) if left != right]
        return found

    def predicate(self, table: str, sql: str, condition: object) -> list[PredicateElement]:
        """Return the elements of a predicate, found once per table and canonical text."""
        found = self._predicates.get((table, sql))
        if found is None:
            if len(self._predicates) >= _CACHED_PREDICATES:
                self._predicates.clear()
            found = self._predicates[table, sql] = self.vocabulary.predicate(table, condition)  # type: ignore[arg-type]
        return found

    def table_features(self, relations: Sequence[Relation]) -> Floats:
        """Return (E, T [+ sample rows]): the table's one-hot, then the bitmap."""
        features = np.zeros((len(relations), self.widths["tables"]), dtype=np.float32)
        first_bit = len(self.vocabulary.tables)
        for row, relation in zip(features, relations, strict=True):
            row[self.vocabulary.table(relation)] = 1
        features[:, first_bit:] = self.bitmaps(relations)
        return features

    def bitmaps(self, relations: Sequence[Relation]) -> npt.NDArray[np.bool_]:
        """Return (E, sample rows); without samples there are no rows."""
        bits = np.zeros((len(relations), 0 if self.samples is None else self.samples.rows), dtype=np.bool_)
        for row, relation in zip(bits, relations, strict=True):
            if self.samples is not None:
                self.samples.bitmap(relation, row)
        return bits

    def join_features(self, joins: Sequence[tuple[int, int]]) -> Floats:
        """Return (E, C): the sum of the one-hots of both columns."""
        features = np.zeros((len(joins), self.widths["joins"]), dtype=np.float32)
        for row, (left, right) in zip(features, joins, strict=True):
            row[left] += 1
            row[right] += 1
        return features

    def predicate_features(self, predicates: Sequence[PredicateElement]) -> Floats:
        """Return (E, C + O + 2): one-hots of columns and operator, the normalised value, and whether there is one."""
        features = np.zeros((len(predicates), self.widths["predicates"]), dtype=np.float32)
        first_operator = len(self.vocabulary.columns)
        for row, element in zip(features, predicates, strict=True):
            for position in element.columns:
                row[position] = 1
            row[first_operator + element.operator] = 1
            if element.value is not None:
                row[-2:] = (element.value, 1)
        return features

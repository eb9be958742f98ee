"""
Labelled subplans of many queries: the distinct elements once, and for every sample the numbers of its elements.

One numbering covers the elements of the three sets: tables, then joins, then predicates. The samples of a query lie together, so a batch of
whole queries is a few slices, and the network encodes equal elements once per batch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.algorithms.mscn.featurize import Featurizer, Floats
from pytest_pilotscope.queries.joins import JoinQuery, Relation

Indices: TypeAlias = npt.NDArray[np.int64]
Features: TypeAlias = tuple[Floats, Floats, Floats]
Element = TypeVar("Element")


class Bags(NamedTuple):
    """Weighted sums of rows: (M,) numbers of the rows, (M,) their weights, (B,) the first member of each sum."""

    members: Indices
    weights: Floats
    offsets: Indices

    def transposed(self, rows: int) -> Bags:
        """Return the sums for the gradients: for each of `rows` rows, the sums that it was part of."""
        counts = np.bincount(self.members, minlength=rows)
        sums = np.repeat(np.arange(self.offsets.size), np.diff(np.append(self.offsets, self.members.size)))
        narrow = self.members.astype(np.uint16) if rows <= np.iinfo(np.uint16).max else self.members  # radix sort
        order = np.argsort(narrow, kind="stable")
        return Bags(sums[order], self.weights[order], np.cumsum(counts) - counts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """
    B samples: (E, F) features of the distinct elements of each set, the averages over them, and (B,) logarithms of true rows.

    One numbering covers the elements of the three sets. A sample's bag has the weight 1 / size for each element of a set.
    """

    features: Features
    bags: Bags
    labels: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledSubplans:
    """
    N samples of Q queries, with one numbering of the elements of the three sets.

    (E, F) features of all distinct elements of each set; (M,) members and weights, (N + 1,) offsets; (N,) logarithms of true rows,
    of which 0 count as 1; (Q + 1,) first sample of each query.
    """

    features: Features
    members: Indices
    weights: Floats
    offsets: Indices
    labels: Floats
    queries: Indices

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled_queries(self) -> int:
        """The number of queries that have samples."""
        return int(np.count_nonzero(np.diff(self.queries)))

    def batches(self, size: int, order: Indices) -> Iterator[Batch]:
        """Yield batches of at most `size` samples: whole queries in the given order; only a query larger than a batch is split."""
        for starts, counts in _packed(self.queries, size, order):
            yield self._batch(starts, counts)

    def _batch(self, starts: Indices, counts: Indices) -> Batch:
        """Gather the samples of some slices, given by first sample and number of samples."""
        begin, end = self.offsets[starts], self.offsets[starts + counts]
        taken = spans(begin, end - begin)
        members, samples = self.members[taken], spans(starts, counts)
        sizes = self.offsets[samples + 1] - self.offsets[samples]
        ends = np.cumsum([len(part) for part in self.features])
        seen = np.zeros(ends[-1], dtype=np.bool_)
        seen[members] = True
        distinct = np.flatnonzero(seen)
        position = np.empty(ends[-1], dtype=np.int64)
        position[distinct] = np.arange(distinct.size)
        tables, joins, predicates = (
            part[distinct[np.searchsorted(distinct, stop - len(part)) : np.searchsorted(distinct, stop)] - (stop - len(part))]
            for part, stop in zip(self.features, ends.tolist(), strict=True)
        )
        bags = Bags(position[members], self.weights[taken], np.cumsum(sizes) - sizes)
        return Batch(features=(tables, joins, predicates), bags=bags, labels=self.labels[samples])


def spans(starts: Indices, counts: Indices) -> Indices:
    """Concatenate the ranges `start .. start + count`."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if ends.size else 0
    places: Indices = np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - counts), counts)
    return places


def _packed(queries: Indices, size: int, order: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Pack queries into batches; a batch is the first samples and the numbers of samples of its slices."""
    starts: list[int] = []
    counts: list[int] = []
    room = size
    for query in order.tolist():
        start, end = int(queries[query]), int(queries[query + 1])
        if starts and end - start > room:
            yield np.array(starts), np.array(counts)
            starts, counts, room = [], [], size
        while end - start > size:
            yield np.array([start]), np.array([size])
            start += size
        starts.append(start)
        counts.append(end - start)
        room -= end - start
    if starts:
        yield np.array(starts), np.array(counts)


@dataclass(slots=True)
class _Interned(Generic[Element]):
    """Distinct elements in the order of their first use."""

    key: Callable[[Element], Hashable]
    numbers: dict[Hashable, int] = field(default_factory=dict)
    elements: list[Element] = field(default_factory=list)

    def number(self, element: Element) -> int:
        key = self.key(element)
        number = self.numbers.get(key)
        if number is None:
            number = self.numbers[key] = len(self.elements)
            self.elements.append(element)
        return number


@dataclass(slots=True)
class _Collected:
    """The members of the samples so far: set, number within the set, weight; members per sample; true rows."""

    tables: _Interned[Relation]
    joins: _Interned[tuple[int, int]] = field(default_factory=lambda: _Interned(lambda pair: pair))
    predicates: _Interned[Any] = field(default_factory=lambda: _Interned(lambda element: element))
    sets: list[Indices] = field(default_factory=list)
    numbers: list[Indices] = field(default_factory=list)
    weights: list[Floats] = field(default_factory=list)
    sizes: list[Indices] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    firsts: list[int] = field(default_factory=lambda: [0])

    def add(self, featurizer: Featurizer, query: JoinQuery, rows: Mapping[int, int]) -> None:
        """Add the labelled sets of one query, given as masks."""
        elements = featurizer.elements(query, tuple(rows))
        parts: tuple[tuple[_Interned[Any], Iterable[Any]], ...] = (
            (self.tables, elements.relations),
            (self.joins, elements.joins),
            (self.predicates, elements.predicates),
        )
        numbers = [[interned.number(element) for element in part] for interned, part in parts]
        of_set = np.repeat(np.arange(len(parts)), elements.sizes)
        weights = elements.averages(np.array(list(rows), dtype=np.int64))
        columns = weights.nonzero()[1]
        self.sets.append(of_set[columns])
        self.numbers.append(np.array([number for part in numbers for number in part], dtype=np.int64)[columns])
        self.weights.append(weights[weights > 0])
        self.sizes.append(np.count_nonzero(weights, axis=1))
        self.rows += rows.values()
        self.firsts.append(len(self.rows))

    def finish(self, featurizer: Featurizer) -> LabelledSubplans:
        """Give the elements of all sets one numbering and write their features."""
        starts = np.cumsum([0, len(self.tables.elements), len(self.joins.elements)])
        sizes = np.concatenate([np.zeros(1, dtype=np.int64), *self.sizes])
        return LabelledSubplans(
            features=(
                featurizer.table_features(self.tables.elements),
                featurizer.join_features(self.joins.elements),
                featurizer.predicate_features(self.predicates.elements),
            ),
            members=_joined(self.numbers, np.int64) + starts[_joined(self.sets, np.int64)],
            weights=_joined(self.weights, np.float32),
            offsets=np.cumsum(sizes),
            labels=np.log(np.maximum(np.array(self.rows, dtype=np.float64), 1)).astype(np.float32),
            queries=np.array(self.firsts, dtype=np.int64),
        )


def _joined(parts: Sequence[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype=dtype), *parts])


def labelled(featurizer: Featurizer, queries: Iterable[tuple[JoinQuery, Mapping[int, int]]]) -> LabelledSubplans:
    """Make samples of queries, each with the true rows of some of its sets of relations, by mask."""
    bitmaps = featurizer.samples is not None
    collected = _Collected(_Interned(lambda relation: relation.filter_key if bitmaps else relation.table))
    for query, rows in queries:
        collected.add(featurizer, query, rows)
    return collected.finish(featurizer)

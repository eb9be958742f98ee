"""
Labelled subplans of many queries, stored once: distinct elements, and for every sample the numbers of its elements.

The samples of a query lie together, so a batch of whole queries is a few slices, and equal elements are encoded once per batch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from algorithms.mscn.columns import Mask
from algorithms.mscn.featurize import Featurizer, Floats, QueryElements
from pytest_pilotscope.core.joins import JoinQuery, Relation, Subplan
from pytest_pilotscope.core.queries import Query

Indices: TypeAlias = npt.NDArray[np.int64]
Element = TypeVar("Element")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SetBatch:
    """One set of a batch: (E, F) features of the distinct elements, (M,) which of them, (B,) where each sample's begin."""

    features: Floats
    members: Indices
    offsets: Indices


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """The three sets of B samples, and (B,) logarithms of their true rows."""

    sets: tuple[SetBatch, SetBatch, SetBatch]
    labels: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RaggedSet:
    """One of the three sets of N samples: (E, F) features of all distinct elements, (M,) element numbers, (N + 1,) offsets."""

    features: Floats
    members: Indices
    offsets: Indices

    def batch(self, starts: Indices, counts: Indices) -> SetBatch:
        """Gather the samples of some slices, given by first sample and number of samples."""
        begin, end = self.offsets[starts], self.offsets[starts + counts]
        taken = self.members[spans(begin, end - begin)]
        samples = spans(starts, counts)
        sizes = self.offsets[samples + 1] - self.offsets[samples]
        seen = np.zeros(len(self.features), dtype=np.bool_)
        seen[taken] = True
        distinct = np.flatnonzero(seen)
        position = np.empty(len(self.features), dtype=np.int64)
        position[distinct] = np.arange(distinct.size)
        offsets = np.cumsum(sizes) - sizes
        return SetBatch(features=self.features[distinct], members=position[taken], offsets=offsets)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledSubplans:
    """N samples of Q queries: the three sets, (N,) logarithms of true rows (0 rows count as 1), (Q + 1,) first sample of each query."""

    sets: tuple[RaggedSet, RaggedSet, RaggedSet]
    labels: Floats
    queries: Indices

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int, order: Indices) -> Iterator[Batch]:
        """Yield batches of at most `size` samples: whole queries in the given order; only a query larger than a batch is cut."""
        for starts, counts in _packed(self.queries, size, order):
            tables, joins, predicates = (ragged.batch(starts, counts) for ragged in self.sets)
            yield Batch(sets=(tables, joins, predicates), labels=self.labels[spans(starts, counts)])


def spans(starts: Indices, counts: Indices) -> Indices:
    """Concatenate the ranges `start .. start + count`."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if ends.size else 0
    places: Indices = np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - counts), counts)
    return places


def _packed(queries: Indices, size: int, order: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Pack queries into batches; each is the first samples and the numbers of samples of its slices."""
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
    """Distinct elements in the order they were met, and the element numbers of the samples so far."""

    key: Callable[[Element], Hashable]
    numbers: dict[Hashable, int] = field(default_factory=dict)
    elements: list[Element] = field(default_factory=list)
    members: list[Indices] = field(default_factory=list)
    sizes: list[Indices] = field(default_factory=list)

    def add(self, elements: Iterable[Element], member: Mask) -> None:
        """Add the (S, E) memberships of the subplans of one query."""
        numbers = np.array([self._number(element) for element in elements], dtype=np.int64)
        self.members.append(numbers[member.nonzero()[1]])
        self.sizes.append(member.sum(axis=1))

    def _number(self, element: Element) -> int:
        key = self.key(element)
        number = self.numbers.get(key)
        if number is None:
            number = self.numbers[key] = len(self.elements)
            self.elements.append(element)
        return number

    def finish(self, features: Callable[[Sequence[Element]], Floats]) -> RaggedSet:
        sizes = np.concatenate([np.zeros(1, dtype=np.int64), *self.sizes])
        members = np.concatenate([np.zeros(0, dtype=np.int64), *self.members])
        return RaggedSet(features=features(self.elements), members=members, offsets=np.cumsum(sizes))


def labelled(
    featurizer: Featurizer, queries: Sequence[tuple[Query, JoinQuery]], labels: Mapping[str, Mapping[Subplan, int]]
) -> LabelledSubplans:
    """
    Make samples of every subplan of the queries that has a label.

    Subplans without one (counting did not finish) are left out: there is nothing to learn from them.
    """
    bitmaps = featurizer.samples is not None
    tables: _Interned[Relation] = _Interned(lambda relation: relation.filter_key if bitmaps else relation.table)
    joins: _Interned[Any] = _Interned(lambda pair: pair)
    predicates: _Interned[Any] = _Interned(lambda element: element)
    rows: list[int] = []
    firsts = [0]
    for query, parsed in queries:
        known = labels.get(query.id, {})
        found = [(mask, known[subplan]) for mask, subplan in zip(parsed.masks, parsed.subplans(), strict=True) if subplan in known]
        elements = featurizer.elements(parsed)
        _add(elements, [mask for mask, _ in found], (tables, joins, predicates))
        rows += [count for _, count in found]
        firsts.append(len(rows))
    return LabelledSubplans(
        sets=(
            tables.finish(featurizer.table_features),
            joins.finish(featurizer.join_features),
            predicates.finish(featurizer.predicate_features),
        ),
        labels=np.log(np.maximum(np.array(rows, dtype=np.float64), 1)).astype(np.float32),
        queries=np.array(firsts, dtype=np.int64),
    )


def _add(elements: QueryElements, masks: list[int], sets: tuple[_Interned[Relation], _Interned[Any], _Interned[Any]]) -> None:
    parts: tuple[Sequence[Any], ...] = (elements.relations, elements.joins, elements.predicates)
    for interned, part, member in zip(sets, parts, elements.members(np.array(masks, dtype=np.int64)), strict=True):
        interned.add(part, member)

"""
The workload's cost under many configurations, with few questions to the planner.

The planner takes the cheapest of the possible plans. So a plan for the indexes K that uses only U of them is also the cheapest for every K'
with U <= K' <= K: fewer plans are possible, and this one still is. One answer holds for all of them (the used-set rule).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from itertools import islice
from operator import or_
from typing import NamedTuple, Protocol

from pytest_pilotscope.algorithms.index.extend import Configuration
from pytest_pilotscope.algorithms.index.query_columns import IndexedQuery
from pytest_pilotscope.postgres.indexes import Index

_SHARE = 0.5
"""Of the largest possible gain of a query: those that may gain at least as much are asked about together."""


class Question(NamedTuple):
    """A question for the cost of `query` if, of all indexes that touch it, exactly `indexes` existed."""

    query: IndexedQuery
    indexes: Configuration


class Answer(NamedTuple):
    """The cost in optimizer units, and the question's indexes that the plan uses."""

    cost: float
    used: Configuration


class WhatIf(Protocol):
    """A back end that answers what-if questions, many at a time."""

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Return one answer per question, in their order."""

    def size_bytes(self, index: Index) -> int:
        """Return the storage of an index; more than any budget if it cannot be built."""


class _Bound(NamedTuple):
    """A lower bound of the cost of a query under a configuration; once the plan's indexes are known, as a bit mask, it is the cost."""

    cost: float = 0.0
    used: int | None = None


class _Known(dict[int, _Bound]):
    """The bounds for one query by configuration, each computed when it is first looked up and raised by every new answer."""

    def __init__(self) -> None:
        super().__init__()
        self._answers: list[tuple[int, int, float]] = []

    def __missing__(self, mask: int) -> _Bound:
        lower = 0.0
        for used, asked, cost in self._answers:
            if mask & asked == mask:
                if used & mask == used:
                    return self.setdefault(mask, _Bound(cost, used))
                lower = max(lower, cost)
        return self.setdefault(mask, _Bound(lower))

    def add(self, used: int, asked: int, cost: float) -> None:
        """Take in an answer, which holds from the used indexes to those asked for, and is a lower bound for fewer."""
        self._answers.append((used, asked, cost))
        for mask, bound in self.items():
            if bound.used is None and mask & asked == mask:
                if used & mask == used:
                    self[mask] = _Bound(cost, used)
                elif cost > bound.cost:
                    self[mask] = _Bound(cost)


class _Part(NamedTuple):
    """The indexes of a configuration that can matter to a query, and what is known for that query."""

    query: IndexedQuery
    known: _Known
    mask: int


class _Whole(NamedTuple):
    """A configuration for the whole workload: what it costs besides the queries, their costs before, and its parts for those it changes."""

    upkeep: float
    current: list[float]
    parts: dict[int, _Part]

    @property
    def costs(self) -> list[float]:
        """The lower bound for each query."""
        costs = self.current.copy()
        for position, part in self.parts.items():
            costs[position] = part.known[part.mask].cost
        return costs

    @property
    def bound(self) -> float:
        """The lower bound of the total."""
        return self.upkeep + sum(self.costs)

    @property
    def unknown(self) -> list[int]:
        """The positions of the queries whose bound is not known to be the cost."""
        return [position for position, part in self.parts.items() if part.known[part.mask].used is None]

    def likeliest(self) -> list[_Part]:
        """Return the unknown parts that may gain most: at least half as much as the one that may gain most of all."""
        costs = self.costs
        gains = {position: self.current[position] - costs[position] for position in self.unknown}
        most = max(gains.values(), default=0.0)
        return [self.parts[position] for position, gain in gains.items() if gain >= min(most * _SHARE, most)]


class UsedSetCosts:
    """
    Costs of a workload from as few questions as possible. Answers for a query stay when `queries` changes.

    For all the compared configurations whose cost for a query is unknown, it first asks about the union of their indexes. If the plan uses
    none of them, one answer holds for all. Otherwise the next question is about those that have the same of the used indexes.

    `calls` counts questions. `upkeep` returns what a configuration costs for each query besides: the maintenance of its indexes.
    """

    def __init__(
        self, what_if: WhatIf, queries: Sequence[IndexedQuery] = (), upkeep: Callable[[Configuration], float] = lambda configuration: 0.0
    ) -> None:
        self.queries = tuple(queries)
        self.upkeep = upkeep
        self.calls = 0
        self._what_if = what_if
        self._known: defaultdict[str, _Known] = defaultdict(_Known)
        self._bits: dict[Index, int] = {}
        self._relevant: dict[str, tuple[int, int]] = {}
        self._compared: dict[Configuration, _Whole] = {}
        self._groups: dict[tuple[str, int], list[int]] = {}

    @property
    def hits(self) -> int:
        """The costs of single queries that are known without a question of their own."""
        return sum(bound.used is not None for known in self._known.values() for bound in known.values()) - self.calls

    def size_bytes(self, index: Index) -> int:
        """Return the storage of an index, from the back end."""
        return self._what_if.size_bytes(index)

    def total(self, configuration: Configuration) -> float:
        """Return the sum over all queries."""
        (whole,) = self._wholes([configuration])
        self._ask([(whole.parts[position], whole.parts[position].mask) for position in whole.unknown])
        return whole.bound

    def lower_bounds(self, configurations: Sequence[Configuration], chosen: Configuration) -> list[float]:
        """Return lower bounds of the totals without a question; `tightened` then asks about these configurations together."""
        (current,) = self._wholes([chosen])
        compared = self._wholes(configurations, current)
        self._compared = dict(zip(configurations, compared, strict=True))
        self._groups = {}
        groups = defaultdict[str, list[int]](list)
        for part in (part for whole in compared for part in whole.parts.values() if part.known[part.mask].used is None):
            if (part.query.sql, part.mask) not in self._groups:
                self._groups[part.query.sql, part.mask] = groups[part.query.sql]
                groups[part.query.sql].append(part.mask)
        return [whole.bound for whole in compared]

    def tightened(self, configuration: Configuration, bound: float) -> tuple[float, bool]:
        """
        Return a lower bound of the total of a compared configuration, and tell whether it is the total.

        If it is not above `bound`, ask first about the queries that may gain most.
        """
        whole = self._compared[configuration]
        if whole.bound <= bound:
            self._ask([(part, self._shared(part)) for part in whole.likeliest()])
        return whole.bound, not whole.unknown

    def _wholes(self, configurations: Iterable[Configuration], current: _Whole | None = None) -> list[_Whole]:
        """Return what each configuration means: the parts of the queries for which it differs from the `current` one, or of all."""
        masks = [(configuration, self._mask(configuration)) for configuration in configurations]
        others = [part.mask for part in current.parts.values()] if current else [-1] * len(self.queries)
        costs = current.costs if current else [0.0] * len(self.queries)
        known = [(self._known[query.sql], self._relevance(query)) for query in self.queries]
        return [
            _Whole(
                len(known) * self.upkeep(configuration),
                costs,
                {
                    position: _Part(self.queries[position], bounds, mask & relevance)
                    for position, ((bounds, relevance), other) in enumerate(zip(known, others, strict=True))
                    if mask & relevance != other
                },
            )
            for configuration, mask in masks
        ]

    def _shared(self, part: _Part) -> int:
        """
        Return the union of the compared configurations that share the next question of a query with this one.

        If the answer about a union is known, none of its unknown configurations has all the used indexes; those stay that have the same.
        """
        masks = self._groups[part.query.sql, part.mask]
        while (used := part.known[union := reduce(or_, masks)].used) is not None:
            masks = [mask for mask in masks if mask & used == part.mask & used and part.known[mask].used is None]
            self._groups.update(((part.query.sql, mask), masks) for mask in masks)
        return union

    def _ask(self, wanted: Sequence[tuple[_Part, int]]) -> None:
        """Ask each different question once, and take in the answers."""
        asked = {(part.query.sql, mask): (part.known, Question(part.query, self._configuration(mask))) for part, mask in wanted}
        answers = self._what_if.ask([question for _, question in asked.values()])
        for (_, mask), (known, _), answer in zip(asked, asked.values(), answers, strict=True):
            known.add(self._mask(answer.used), mask, answer.cost)
        self.calls += len(asked)

    def _mask(self, configuration: Configuration) -> int:
        mask = 0
        for index in configuration:
            mask |= 1 << self._bits.setdefault(index, len(self._bits))
        return mask

    def _configuration(self, mask: int) -> Configuration:
        return frozenset(index for index, bit in self._bits.items() if mask >> bit & 1)

    def _relevance(self, query: IndexedQuery) -> int:
        """Return the mask of the indexes that can matter to a query; check only indexes that are new since the last call."""
        mask, seen = self._relevant.get(query.sql, (0, 0))
        if seen < len(self._bits):
            for index, bit in islice(self._bits.items(), seen, None):
                if query.touched_by(index):
                    mask |= 1 << bit
            self._relevant[query.sql] = (mask, len(self._bits))
        return mask

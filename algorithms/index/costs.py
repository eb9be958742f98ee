"""
The workload's cost under many configurations, with few questions to the planner.

The planner takes the cheapest of the possible plans. So a plan for the indexes K that uses only U of them is also the cheapest for every K'
with U <= K' <= K: fewer plans are possible, and this one still is. One answer holds for all of them (the used-set rule).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from operator import or_
from typing import NamedTuple, Protocol

from pytest_pilotscope.algorithms.index.extend import Configuration
from pytest_pilotscope.algorithms.index.query_columns import IndexedQuery
from pytest_pilotscope.postgres.indexes import Index

_ROUNDS = 3
"""Rounds of questions for lower bounds. 1, 2, 3 and any number of rounds took 11.8, 7.3, 6.5 and 8.1 thousand questions (STATS)."""


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


@dataclass(slots=True)
class _Known:
    """The answers for one query: by configuration, and the ranges used..asked for which they hold, all as bit masks."""

    answers: dict[int, tuple[int, float]] = field(default_factory=dict)  # configuration -> (used, cost)
    ranges: list[tuple[int, int, float]] = field(default_factory=list)  # (used, asked, cost), newest last

    def find(self, mask: int) -> tuple[int, float] | None:
        """Return the used indexes and the cost under a configuration, if an answer holds for it."""
        answer = self.answers.get(mask)
        if answer is None:
            for used, asked, cost in reversed(self.ranges):
                if used & mask == used and mask & asked == mask:
                    self.answers[mask] = answer = (used, cost)
                    break
        return answer

    def bound(self, mask: int) -> float:
        """Return a lower bound of the cost under a configuration: the cost with more indexes."""
        answer = self.find(mask)
        if answer is not None:
            return answer[1]
        return max((cost for _, asked, cost in self.ranges if mask & asked == mask), default=0.0)

    def add(self, used: int, asked: int, cost: float) -> None:
        self.answers[asked] = (used, cost)
        self.ranges.append((used, asked, cost))


class _Group(NamedTuple):
    """Configurations of one query that share a question."""

    query: IndexedQuery
    masks: list[int]


class UsedSetCosts:
    """
    Costs of a workload from as few questions as possible. Answers for a query stay when `queries` changes.

    For all the configurations that a query still needs, it first asks about the union of their indexes. If the plan uses none of them, one
    answer holds for all. Otherwise it groups the configurations by the used indexes that they contain, and asks again for each group.

    `calls` counts questions, `hits` the costs of single queries that needed no question of their own. `upkeep` returns what a configuration
    costs for each query besides: the maintenance of its indexes.
    """

    def __init__(
        self, what_if: WhatIf, queries: Sequence[IndexedQuery] = (), upkeep: Callable[[Configuration], float] = lambda configuration: 0.0
    ) -> None:
        self.queries = tuple(queries)
        self.upkeep = upkeep
        self.calls = 0
        self.hits = 0
        self._what_if = what_if
        self._known: dict[str, _Known] = {}
        self._bits: dict[Index, int] = {}
        self._relevant: dict[str, tuple[int, int]] = {}

    def size_bytes(self, index: Index) -> int:
        """Return the storage of an index, from the back end."""
        return self._what_if.size_bytes(index)

    def totals(self, configurations: Sequence[Configuration]) -> list[float]:
        """Return the sum over all queries, for each configuration."""
        needs = self._needs(configurations)
        self._learn(needs, alone=True)
        return self._with_upkeep(configurations, ([self._known[query.sql].answers[mask][1] for mask in masks] for query, masks in needs))

    def lower_bounds(self, configurations: Sequence[Configuration]) -> list[float]:
        """Return lower bounds of the totals, without a question about a single configuration."""
        needs = self._needs(configurations)
        self._learn(needs, alone=False)
        return self._with_upkeep(configurations, ([self._known[query.sql].bound(mask) for mask in masks] for query, masks in needs))

    def _with_upkeep(self, configurations: Sequence[Configuration], costs: Iterable[Sequence[float]]) -> list[float]:
        upkeep = [len(self.queries) * self.upkeep(configuration) for configuration in configurations]
        return [sum(of_configuration) for of_configuration in zip(upkeep, *costs, strict=True)]

    def _needs(self, configurations: Sequence[Configuration]) -> list[_Group]:
        """Return, per query, the relevant part of each configuration."""
        masks = [self._mask(configuration) for configuration in configurations]
        needs = []
        for query in self.queries:
            self._known.setdefault(query.sql, _Known())
            relevant = self._relevance(query)
            needs.append(_Group(query, [mask & relevant for mask in masks]))
        return needs

    def _learn(self, needs: Sequence[_Group], *, alone: bool) -> None:
        """Ask until every cost is known; unless `alone`, only for some rounds and about several configurations at a time."""
        calls, wanted = self.calls, 0
        groups: list[_Group] = []
        for query, masks in needs:
            distinct = set(masks)
            wanted += len(distinct)
            groups += self._groups(query, self._unknown(query, distinct), alone=alone)
        rounds = 0
        while groups and (alone or rounds < _ROUNDS):
            groups = self._ask(groups, alone=alone)
            rounds += 1
        if alone:
            self.hits += max(wanted - (self.calls - calls), 0)

    def _ask(self, groups: Sequence[_Group], *, alone: bool) -> list[_Group]:
        """Ask one question per group, about all of its indexes; return the configurations that are still unknown, in smaller groups."""
        questions = [Question(group.query, self._configuration(_union(group.masks))) for group in groups]
        answers = self._what_if.ask(questions)
        self.calls += len(questions)
        for group, answer in zip(groups, answers, strict=True):
            self._known[group.query.sql].add(self._mask(answer.used), _union(group.masks), answer.cost)
        return [smaller for group in groups for smaller in self._groups(group.query, self._unknown(group.query, group.masks), alone=alone)]

    def _groups(self, query: IndexedQuery, masks: list[int], *, alone: bool) -> list[_Group]:
        """
        Group the configurations of a query so that the answer about all indexes of each group is still unknown.

        If that answer is known, none of the group's configurations has all the used indexes; group them by the used indexes that they have.
        """
        if len(masks) < (1 if alone else 2):
            return []
        known = self._known[query.sql].find(_union(masks))
        if known is None:
            return [_Group(query, masks)]
        parts: dict[int, list[int]] = {}
        for mask in masks:
            parts.setdefault(mask & known[0], []).append(mask)
        return [group for part in parts.values() for group in self._groups(query, part, alone=alone)]

    def _unknown(self, query: IndexedQuery, masks: Iterable[int]) -> list[int]:
        known = self._known[query.sql]
        return sorted(mask for mask in masks if known.find(mask) is None)

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


def _union(masks: Iterable[int]) -> int:
    return reduce(or_, masks)

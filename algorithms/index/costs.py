"""
The workload's cost under many configurations with few questions to the planner.

A plan is the cheapest of those that are possible. So the plan for the indexes K that uses only U of them is also the cheapest for every K'
with U <= K' <= K: fewer plans are possible, and this one still is. One answer is good for all of them (the used-set rule).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from operator import or_
from typing import NamedTuple, Protocol

from pytest_pilotscope.algorithms.index.extend import Configuration
from pytest_pilotscope.algorithms.index.query_columns import IndexedQuery
from pytest_pilotscope.postgres.indexes import Index

_ROUNDS = 3
"""How often a query is asked for lower bounds. 1, 2, 3 and any number of rounds took 11.8, 7.3, 6.5 and 8.1 thousand questions (STATS)."""


class Question(NamedTuple):
    """What would `query` cost if, of all indexes that touch it, exactly `indexes` were there?"""

    query: IndexedQuery
    indexes: Configuration


class Answer(NamedTuple):
    """The cost in optimizer units, and which of the question's indexes the plan uses."""

    cost: float
    used: Configuration


class WhatIf(Protocol):
    """Something that answers what-if questions, many at a time."""

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question, in their order."""

    def size_bytes(self, index: Index) -> int:
        """The storage an index takes; more than any budget where it cannot be built."""


@dataclass(slots=True)
class _Known:
    """What is known of one query: answers by configuration, and the ranges used..asked that answers hold for, all as bit masks."""

    answers: dict[int, tuple[int, float]] = field(default_factory=dict)  # configuration -> (used, cost)
    ranges: list[tuple[int, int, float]] = field(default_factory=list)  # (used, asked, cost), newest last

    def find(self, mask: int) -> tuple[int, float] | None:
        """The used indexes and the cost under a configuration, if an answer holds for it."""
        answer = self.answers.get(mask)
        if answer is None:
            for used, asked, cost in reversed(self.ranges):
                if used & mask == used and mask & asked == mask:
                    self.answers[mask] = answer = (used, cost)
                    break
        return answer

    def bound(self, mask: int) -> float:
        """What the query costs at least under a configuration: as much as with more indexes."""
        answer = self.find(mask)
        if answer is not None:
            return answer[1]
        return max((cost for _, asked, cost in self.ranges if mask & asked == mask), default=0.0)

    def costs(self, masks: Iterable[int]) -> list[float]:
        """The costs of configurations that are all known."""
        return [self.answers[mask][1] for mask in masks]

    def bounds(self, masks: Iterable[int]) -> list[float]:
        """What they cost at least."""
        return [self.bound(mask) for mask in masks]

    def add(self, used: int, asked: int, cost: float) -> None:
        self.answers[asked] = (used, cost)
        self.ranges.append((used, asked, cost))


class _Group(NamedTuple):
    """Configurations of one query that are asked about together."""

    query: IndexedQuery
    masks: list[int]


class UsedSetCosts:
    """
    Answers for a workload from as few questions as possible. What is known of a query stays when `queries` is changed.

    For all the configurations that a query still needs it first asks about their indexes together. Those that the plan leaves alone then
    need no question of their own; where the plan uses some, the configurations are parted by which of these they hold, and so on.

    `calls` counts questions asked, `hits` the needs of single queries that were met without a question of their own.
    """

    def __init__(self, what_if: WhatIf, queries: Sequence[IndexedQuery] = ()) -> None:
        self.queries = tuple(queries)
        self.calls = 0
        self.hits = 0
        self._what_if = what_if
        self._known: dict[str, _Known] = {}
        self._bits: dict[Index, int] = {}
        self._relevant: dict[str, tuple[int, int]] = {}

    def size_bytes(self, index: Index) -> int:
        """The storage an index takes, as the back end has it."""
        return self._what_if.size_bytes(index)

    def totals(self, configurations: Sequence[Configuration]) -> list[float]:
        """The sum over all queries, for each configuration."""
        needs = self._needs(configurations)
        self._learn(needs, alone=True)
        return [sum(costs) for costs in zip(*(self._known[need.query.sql].costs(need.masks) for need in needs), strict=True)]

    def lower_bounds(self, configurations: Sequence[Configuration]) -> list[float]:
        """At most the totals: nothing is asked about a configuration alone."""
        needs = self._needs(configurations)
        self._learn(needs, alone=False)
        return [sum(costs) for costs in zip(*(self._known[need.query.sql].bounds(need.masks) for need in needs), strict=True)]

    def _needs(self, configurations: Sequence[Configuration]) -> list[_Group]:
        """Per query, the part of each configuration that matters to it."""
        masks = [self._mask(configuration) for configuration in configurations]
        needs = []
        for query in self.queries:
            self._known.setdefault(query.sql, _Known())
            relevant = self._relevance(query)
            needs.append(_Group(query, [mask & relevant for mask in masks]))
        return needs

    def _learn(self, needs: Sequence[_Group], *, alone: bool) -> None:
        """Ask until every need is known; unless `alone`, only for some rounds and about several configurations at a time."""
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
        """Ask one question per group of configurations, about all of their indexes; return what is still unknown, in smaller groups."""
        questions = [Question(group.query, self._configuration(_union(group.masks))) for group in groups]
        answers = self._what_if.ask(questions)
        self.calls += len(questions)
        for group, answer in zip(groups, answers, strict=True):
            self._known[group.query.sql].add(self._mask(answer.used), _union(group.masks), answer.cost)
        return [smaller for group in groups for smaller in self._groups(group.query, self._unknown(group.query, group.masks), alone=alone)]

    def _groups(self, query: IndexedQuery, masks: list[int], *, alone: bool) -> list[_Group]:
        """
        Part the configurations of a query until the answer about all indexes of a group is not known yet.

        Where it is known, none of the group's configurations has all the indexes that the plan uses; they are parted by those they have.
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
        """The mask of the indexes that can matter to a query; only indexes that are new since the last call are looked at."""
        mask, seen = self._relevant.get(query.sql, (0, 0))
        if seen < len(self._bits):
            for index, bit in islice(self._bits.items(), seen, None):
                if query.touched_by(index):
                    mask |= 1 << bit
            self._relevant[query.sql] = (mask, len(self._bits))
        return mask


def _union(masks: Iterable[int]) -> int:
    return reduce(or_, masks)

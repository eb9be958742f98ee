"""
The workload: 1000 training, 100 validation and 146 test queries over a generated database.

Templates, kinds and numbers of predicates follow STATS-CEB (training and validation its training set, test its test
set); constants come from the quantiles of the data. A query is taken when its exact result is not empty and no larger
than a limit that grows with the scale, so that it can be run; if a template's queries are too large, its predicates get
stricter. Everything is a function of tables, scale and seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pytest_pilotscope.core.queries import Query, Workload
from pytest_pilotscope.errors import DatasetError

from .counting import JoinCounts, Mask, Population
from .draws import Draws
from .predicates import TEST, TRAIN, Predicate, PredicateSource
from .tables import Table
from .templates import ALIASES, Template, templates

TRAIN_QUERIES, VALIDATION_QUERIES, TEST_QUERIES = 1000, 100, 146
_ATTEMPTS = 40  # draws for one query of a template
_PATIENCE = 3  # draws that are too large before the predicates get stricter
_STRICTEST = 6
_TOUCHED = 4  # times the limit: the most rows that an index may fetch for one query before predicates apply
_CHOICE = (8, 3)  # acceptable draws (test, training) to choose from where others of the template were too large


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinQuery:
    """A generated query in parts: what it joins, in which order it names the relations, and its predicates."""

    template: Template
    aliases: tuple[str, ...]
    predicates: tuple[Predicate, ...]
    rows: int
    estimate: float

    @property
    def sql(self) -> str:
        """The statement, without a semicolon."""
        tables = ", ".join(f"{ALIASES[alias]} AS {alias}" for alias in self.aliases)
        conditions = [join.sql for join in self.template.joins] + [predicate.sql for predicate in self.predicates]
        return f"SELECT COUNT(*) FROM {tables} WHERE {' AND '.join(conditions)}"  # noqa: S608  (names and numbers of our own)


def largest_result(scale: float) -> int:
    """The largest result that a query may count: 4 million rows at scale 0.1, growing with the power 3/2 of the scale."""
    return 4 * round(scale * 10_000) ** 2


def make_workload(dataset: str, tables: Mapping[str, Table], *, scale: float, seed: int) -> Workload:
    """Draw all queries; ids are t0001.., v001.. and q001.., and no statement occurs twice."""
    source = QuerySource(tables, scale=scale, seed=seed)
    return Workload(
        dataset=dataset,
        test=_named("q", 3, source.queries("test", TEST_QUERIES, TEST)),
        train=_named("t", 4, source.queries("train", TRAIN_QUERIES, TRAIN)),
        validation=_named("v", 3, source.queries("validation", VALIDATION_QUERIES, TRAIN)),
    )


def _named(prefix: str, digits: int, queries: list[JoinQuery]) -> tuple[Query, ...]:
    return tuple(Query(id=f"{prefix}{number:0{digits}}", sql=query.sql) for number, query in enumerate(queries, 1))


class QuerySource:
    """Draws queries over one database, and remembers them so that none is drawn twice."""

    def __init__(self, tables: Mapping[str, Table], *, scale: float, seed: int) -> None:
        self._tables = tables
        self._population = Population(tables)
        self._too_large: dict[str, int] = {}
        self._predicates = PredicateSource(tables)
        self._limit = largest_result(scale)
        self._seed = seed
        self._taken: set[str] = set()

    def queries(self, name: str, count: int, split: int) -> list[JoinQuery]:
        """`count` queries of the split `name`, with the template mix of STATS-CEB's test or training set."""
        mix = [(template, template.test if split == TEST else template.train) for template in templates()]
        deck = [template for template, weight in mix for _ in range(weight)]
        order = Draws(self._seed, f"{name} templates").shuffled(len(deck))
        drawn = []
        for number in range(count):
            query = None
            for retry in range(len(deck)):
                draws = Draws(self._seed, f"{name} query {number} {retry}")
                template = deck[int(order[(number + retry * 37) % len(deck)])]
                query = self._query(draws, template, split)
                if query is not None:
                    break
            if query is None:
                raise DatasetError(f"no query of at most {self._limit} rows could be drawn for the {name} workload; choose a larger scale")
            drawn.append(query)
        return drawn

    def _query(self, draws: Draws, template: Template, split: int) -> JoinQuery | None:
        """
        One query of the template, or None where no try was new, non-empty and small enough.

        The limit takes away the draws that are hardest to estimate. To make up for it, a template that has met the limit
        gives the one of several acceptable draws that the textbook estimate gets most wrong.
        """
        aliases = tuple(template.aliases[i] for i in draws.shuffled(len(template.aliases)))
        found: list[JoinQuery] = []
        for _ in range(_ATTEMPTS):
            strictness = min(self._too_large.get(template.code, 0) // _PATIENCE, _STRICTEST)
            query = self._tried(template, aliases, tuple(self._predicates.draw(draws, aliases, split, strictness)))
            if query.rows > self._limit:
                self._too_large[template.code] = self._too_large.get(template.code, 0) + 1
            elif query.rows and query.sql not in self._taken and self._touched(query) <= _TOUCHED * self._limit:
                found.append(query)
            if len(found) == (_CHOICE[split] if template.code in self._too_large else 1):
                break
        if not found:
            return None
        hardest = max(found, key=lambda query: query.rows / query.estimate)
        self._taken.add(hardest.sql)
        return hardest

    def _touched(self, query: JoinQuery) -> int:
        """
        The largest result with the selective predicates of one relation left out.

        A nested loop over an index fetches these rows before it applies the predicates, so the result alone does not bound
        the time.
        """
        masks = self._masks(query.aliases, query.predicates)
        sizes = [query.rows]
        for alias, mask in masks.items():
            if mask is not None and np.count_nonzero(mask) * _TOUCHED < len(mask):
                sizes.append(JoinCounts(self._population, query.template.joins, masks | {alias: None}).size())
        return max(sizes)

    def _tried(self, template: Template, aliases: tuple[str, ...], predicates: tuple[Predicate, ...]) -> JoinQuery:
        counts = JoinCounts(self._population, template.joins, self._masks(aliases, predicates))
        return JoinQuery(template=template, aliases=aliases, predicates=predicates, rows=counts.size(), estimate=counts.textbook_estimate())

    def _masks(self, aliases: tuple[str, ...], predicates: tuple[Predicate, ...]) -> dict[str, Mask | None]:
        """The rows of each relation that pass its predicates, None where it has none."""
        masks: dict[str, Mask | None] = dict.fromkeys(aliases)
        for predicate in predicates:
            if self._predicates.always_holds(predicate):
                continue
            holds, before = predicate.holds(self._tables[ALIASES[predicate.alias]]), masks[predicate.alias]
            masks[predicate.alias] = holds if before is None else before & holds
        return masks

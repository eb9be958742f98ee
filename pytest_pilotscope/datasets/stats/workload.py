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

from .counting import JoinCounts, Population
from .draws import Draws
from .predicates import TEST, TRAIN, Predicate, PredicateSource
from .tables import Table
from .templates import ALIASES, Template, templates

TRAIN_QUERIES, VALIDATION_QUERIES, TEST_QUERIES = 1000, 100, 146
_ATTEMPTS = 8  # draws per strictness
_STRICTEST = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinQuery:
    """A generated query in parts: what it joins, in which order it names the relations, and its predicates."""

    template: Template
    aliases: tuple[str, ...]
    predicates: tuple[Predicate, ...]
    rows: int

    @property
    def sql(self) -> str:
        """The statement, without a semicolon."""
        tables = ", ".join(f"{ALIASES[alias]} AS {alias}" for alias in self.aliases)
        conditions = [join.sql for join in self.template.joins] + [predicate.sql for predicate in self.predicates]
        return f"SELECT COUNT(*) FROM {tables} WHERE {' AND '.join(conditions)}"  # noqa: S608  (names and numbers of our own)


def largest_result(scale: float) -> int:
    """The largest result that a query may count: 4 million rows at scale 0.1, growing with the power 3/2 of the scale."""
    millionths = round(scale * 1_000_000)
    return 4_000_000 * millionths * _square_root(millionths) // (100_000 * _square_root(100_000))


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
        self._population = Population(tables)
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
                query = self._query(draws, deck[int(order[(number + retry * 37) % len(deck)])], split)
                if query is not None:
                    break
            if query is None:
                raise DatasetError(f"no query of at most {self._limit} rows could be drawn for the {name} workload; choose a larger scale")
            drawn.append(query)
        return drawn

    def _query(self, draws: Draws, template: Template, split: int) -> JoinQuery | None:
        """One query of the template, or None where none of the tries was new, non-empty and small enough."""
        order = draws.shuffled(len(template.aliases))
        aliases = tuple(template.aliases[i] for i in order)
        for strictness in range(_STRICTEST + 1):
            for _ in range(_ATTEMPTS):
                predicates = tuple(self._predicates.draw(draws, aliases, split, strictness))
                rows = self.counts(template, predicates).size()
                query = JoinQuery(template=template, aliases=aliases, predicates=predicates, rows=rows)
                if 0 < rows <= self._limit and query.sql not in self._taken:
                    self._taken.add(query.sql)
                    return query
        return None

    def counts(self, template: Template, predicates: tuple[Predicate, ...]) -> JoinCounts:
        """The sizes of the query and its parts."""
        masks = {alias: np.ones(self._population.tables[ALIASES[alias]].rows, dtype=np.bool_) for alias in template.aliases}
        for predicate in predicates:
            masks[predicate.alias] &= predicate.holds(self._population.tables[ALIASES[predicate.alias]])
        return JoinCounts(self._population, template.joins, masks)


def _square_root(number: int) -> int:
    """The integer part of the square root of a number below 2**52, where the correctly rounded one is exact enough."""
    return int(np.sqrt(np.float64(number)))

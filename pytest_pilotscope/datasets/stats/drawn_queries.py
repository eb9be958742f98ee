"""
The workload: 1000 training, 100 validation and 146 test queries over a generated database.

Templates, kinds and numbers of predicates follow STATS-CEB (training and validation its training set, test its test
set); constants come from the quantiles of the data. A query is accepted if its exact result is not empty and no larger
than a limit that grows with the scale, so that it can be run; if a template's queries are too large, its predicates get
stricter. Everything is a function of tables, scale and seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pilotscope.errors import DatasetError
from pytest_pilotscope.queries.queries import Query, Workload

from .drawn_predicates import TEST, TRAIN, Predicate, PredicateSource
from .draws import Draws
from .join_sizes import JoinSizes, Mask, Population
from .join_templates import ALIASES, Template, templates
from .tables import Table

TRAIN_QUERIES, VALIDATION_QUERIES, TEST_QUERIES = 1000, 100, 146
_ATTEMPTS = 40  # draws for one query of a template
_PATIENCE = 3  # draws that are too large, beyond those that are taken, before the predicates get stricter
_STRICTEST = 6
_ROUNDS = 5  # how often a template is tried again when all that was found would touch too many rows
_REPLACEMENTS = 20  # templates that are tried in place of one that gives no query
_CHOICE = (8, 3)  # acceptable draws (test, training) to choose from if others of the template were too large


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedQuery:
    """A generated query: its join template, the order of its relations, its predicates, and its true and estimated `rows`."""

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
    """Return the largest result that a query may count: 4 million rows at scale 0.1, growing with the square of the scale."""
    return 4 * round(scale * 10_000) ** 2


def most_touched(scale: float) -> int:
    """
    Return the most rows that an index may fetch for a query before predicates apply: 12 million at scale 0.1, with the cube of the scale.

    This keeps every query of the small databases under 2 s; queries of larger databases may take longer.
    """
    return max(3 * largest_result(scale), 12 * round(scale * 1_000) ** 3)


def make_workload(dataset: str, tables: Mapping[str, Table], *, scale: float, seed: int) -> Workload:
    """Draw all queries; ids are t0001.., v001.. and q001.., and no statement occurs twice."""
    source = QuerySource(tables, scale=scale, seed=seed)
    return Workload(
        dataset=dataset,
        test=_named("q", 3, source.queries("test", TEST_QUERIES, TEST)),
        train=_named("t", 4, source.queries("train", TRAIN_QUERIES, TRAIN)),
        validation=_named("v", 3, source.queries("validation", VALIDATION_QUERIES, TRAIN)),
    )


def _named(prefix: str, digits: int, queries: list[GeneratedQuery]) -> tuple[Query, ...]:
    return tuple(Query(id=f"{prefix}{number:0{digits}}", sql=query.sql) for number, query in enumerate(queries, 1))


class QuerySource:
    """A source of queries over one database; it remembers them, so that none occurs twice."""

    def __init__(self, tables: Mapping[str, Table], *, scale: float, seed: int) -> None:
        self._tables = tables
        self._population = Population(tables)
        self._excess: dict[str, int] = {}
        self._predicates = PredicateSource(tables)
        self._limit = largest_result(scale)
        self._most_touched = most_touched(scale)
        self._seed = seed
        self._taken: set[str] = set()

    def queries(self, name: str, count: int, split: int) -> list[GeneratedQuery]:
        """Draw `count` queries of the split `name`, with the template mix of STATS-CEB's test or training set."""
        mix = [(template, template.test if split == TEST else template.train) for template in templates()]
        deck = [template for template, weight in mix for _ in range(weight)]
        order = Draws(self._seed, f"{name} templates").shuffled(len(deck))
        drawn = []
        for number in range(count):
            query = None
            for retry in range(_REPLACEMENTS):
                draws = Draws(self._seed, f"{name} query {number} {retry}")
                template = deck[int(order[(number + retry * 37) % len(deck)])]
                query = self._query(draws, template, split)
                if query is not None:
                    break
            if query is None:
                raise DatasetError(f"no query of at most {self._limit} rows could be drawn for the {name} workload; choose a larger scale")
            drawn.append(query)
        return drawn

    def _query(self, draws: Draws, template: Template, split: int) -> GeneratedQuery | None:
        """
        Draw one query of the template, or None if no draw was new, non-empty and small enough.

        The limit removes the draws that are hardest to estimate. To make up for it, a template that has met the limit
        gives, of several acceptable draws, the one with the worst textbook estimate.
        """
        aliases = tuple(template.aliases[i] for i in draws.shuffled(len(template.aliases)))
        for _ in range(_ROUNDS):
            found = self._acceptable(draws, template, aliases, split)
            for query in sorted(found, key=lambda query: query.estimate / query.rows):
                if self._touched(query) <= self._most_touched:
                    self._taken.add(query.sql)
                    return query
            self._excess[template.code] = self._excess.get(template.code, 0) + _PATIENCE
        return None

    def _acceptable(self, draws: Draws, template: Template, aliases: tuple[str, ...], split: int) -> list[GeneratedQuery]:
        """Draw new, non-empty and small enough queries of the template: one, or several if it is known to meet the limit."""
        found: list[GeneratedQuery] = []
        for _ in range(_ATTEMPTS):
            excess = self._excess.get(template.code, 0)
            strictness = min(excess // _PATIENCE, _STRICTEST)
            query = self._tried(template, aliases, tuple(self._predicates.draw(draws, aliases, split, strictness)))
            if query.rows > self._limit:
                self._excess[template.code] = excess + 1
            elif query.rows and query.sql not in self._taken:
                found.append(query)
            if len(found) == (_CHOICE[split] if template.code in self._excess else 1):
                break
        if found and template.code in self._excess:
            self._excess[template.code] = max(0, self._excess[template.code] - 1)
        return found

    def _touched(self, query: GeneratedQuery) -> int:
        """
        Return the largest result with the predicates of one relation left out.

        A nested loop over an index fetches these rows before it applies the predicates, and a relation whose predicates
        remove the heavy users may be joined last, so the result alone does not bound the time.
        """
        sizes = self._sizes(query.template, self._masks(query.aliases, query.predicates))
        return max(sizes.size_unfiltered(alias) for alias in query.aliases)

    def _tried(self, template: Template, aliases: tuple[str, ...], predicates: tuple[Predicate, ...]) -> GeneratedQuery:
        sizes = self._sizes(template, self._masks(aliases, predicates))
        return GeneratedQuery(
            template=template, aliases=aliases, predicates=predicates, rows=sizes.size(), estimate=sizes.textbook_estimate()
        )

    def _sizes(self, template: Template, masks: dict[str, Mask | None]) -> JoinSizes:
        return JoinSizes(self._population, template.joins, masks)

    def _masks(self, aliases: tuple[str, ...], predicates: tuple[Predicate, ...]) -> dict[str, Mask | None]:
        """Return a mask of each relation's rows that pass its predicates, None if it has none."""
        masks: dict[str, Mask | None] = dict.fromkeys(aliases)
        for predicate in predicates:
            if self._predicates.always_holds(predicate):
                continue
            holds, before = predicate.holds(self._tables[ALIASES[predicate.alias]]), masks[predicate.alias]
            masks[predicate.alias] = holds if before is None else before & holds
        return masks

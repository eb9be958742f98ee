"""The generated workload: its mix, that it can be run, and that it is as hard to estimate as the real one."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_pilotscope.datasets.stats import Table, generate, make_workload
from pytest_pilotscope.datasets.stats.drawn_predicates import TEST, Predicate
from pytest_pilotscope.datasets.stats.drawn_queries import GeneratedQuery, QuerySource, largest_result
from pytest_pilotscope.datasets.stats.join_sizes import JoinSizes, Population
from pytest_pilotscope.datasets.stats.join_templates import ALIASES, Join, figures, parse_template, templates
from pytest_pilotscope.datasets.stats.schema import TABLES
from pytest_pilotscope.errors import DatasetError
from pytest_pilotscope.queries.queries import Query, Workload

SCALE = 0.03


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    """Generate a small database."""
    return generate(SCALE, 0)


@pytest.fixture(scope="module")
def workload(tables: dict[str, Table]) -> Workload:
    """Generate the workload of the small database."""
    return make_workload("small", tables, scale=SCALE, seed=0)


@pytest.fixture(scope="module")
def hard_queries() -> list[GeneratedQuery]:
    """Draw the test queries at scale 1, in parts, with true and textbook sizes."""
    return QuerySource(generate(1.0, 0), scale=1.0, seed=0).queries("test", 146, TEST)


def template_of(query: Query) -> frozenset[str]:
    """Return the join conditions of a statement."""
    return frozenset(re.findall(r"\w+\.\w+ = \w+\.\w+", query.sql))


def predicates_of(query: Query) -> list[Predicate]:
    """Return the filters of a statement."""
    found = re.findall(r"(\w+)\.(\w+) (=|<=|>=) (-?\d+)", query.sql)
    return [Predicate(alias=alias, column=column, operator=operator, value=int(value)) for alias, column, operator, value in found]


def q_errors(queries: list[GeneratedQuery]) -> NDArray[np.float64]:
    """Return the q-error of each query's textbook estimate, >= 1."""
    ratios = np.array([query.rows / query.estimate for query in queries])
    errors: NDArray[np.float64] = np.maximum(ratios, 1 / ratios)
    return errors


def test_numbers_and_ids(workload: Workload) -> None:
    """1000 training, 100 validation and 146 test queries, with ids that tell the split."""
    assert [query.id for query in workload.train] == [f"t{number:04}" for number in range(1, 1001)]
    assert [query.id for query in workload.validation] == [f"v{number:03}" for number in range(1, 101)]
    assert [query.id for query in workload.test] == [f"q{number:03}" for number in range(1, 147)]


def test_no_statement_occurs_twice(workload: Workload) -> None:
    """A test query is never a training query."""
    statements = [query.sql for query in (*workload.train, *workload.validation, *workload.test)]
    assert len(set(statements)) == len(statements)


def test_the_workload_is_a_function_of_the_seed(tables: dict[str, Table], workload: Workload) -> None:
    """The same seed gives the same queries, to the letter; another seed gives others."""
    assert workload.fingerprint == "070b8fea25c1626b"
    source = QuerySource(tables, scale=SCALE, seed=1)
    assert source.queries("test", 1, TEST)[0].sql != workload.test[0].sql


def test_statements_have_one_form(workload: Workload) -> None:
    """Every statement counts an equality join of aliased tables with =, <= and >= on columns of theirs."""
    form = re.compile(r"SELECT COUNT\(\*\) FROM (\w+ AS \w+)(, \w+ AS \w+)* WHERE (\w+\.\w+ (=|<=|>=) (\w+\.\w+|-?\d+)( AND |$))+")
    for query in (*workload.train, *workload.validation, *workload.test):
        assert form.fullmatch(query.sql)
        tables = dict(re.findall(r"(\w+) AS (\w+)", query.sql))
        assert all(ALIASES[alias] == table for table, alias in tables.items())
        assert all(column in TABLES[ALIASES[alias]] for alias, column in re.findall(r"(\w+)\.(\w+)", query.sql))


def test_template_mix_of_the_test_queries(workload: Workload) -> None:
    """Each join template occurs as often as in STATS-CEB's test set, but for a few that had to be replaced."""
    expected = Counter({frozenset(join.sql for join in template.joins): template.test for template in templates()})
    found = Counter(template_of(query) for query in workload.test)
    assert sum((expected - found).values()) <= 15


def test_template_mix_of_the_training_queries(workload: Workload) -> None:
    """The training set follows the mix of STATS-CEB's training set, but for at most one in ten."""
    expected = Counter({frozenset(join.sql for join in template.joins): template.train for template in templates()})
    found = Counter(template_of(query) for query in workload.train)
    assert sum((expected - found).values()) <= 100


def test_every_number_of_relations(workload: Workload) -> None:
    """Test queries join 2 to 7 relations, most often 4."""
    relations = Counter(query.sql.count(" AS ") for query in workload.test)
    assert set(relations) == set(range(2, 8))
    assert relations.most_common(1)[0][0] == 4


def test_predicates_follow_the_real_ones(workload: Workload) -> None:
    """Queries have one to 17 predicates, 6 to 8 on average; columns and kinds are those of STATS-CEB."""
    counts = [len(predicates_of(query)) for query in workload.test]
    assert min(counts) >= 1
    assert max(counts) <= 20
    assert 5.5 < np.mean(counts) < 8
    columns = {f"{ALIASES[one.alias]}.{one.column}" for query in workload.train for one in predicates_of(query)}
    assert columns <= set(figures()["predicates"])
    assert len(columns) >= 22


def test_results_are_not_empty_and_not_too_large(tables: dict[str, Table], workload: Workload) -> None:
    """Every statement counts at least one row and no more than the limit of its scale; sizes span four orders of magnitude."""
    population = Population(tables)
    joins = {frozenset(join.sql for join in template.joins): template.joins for template in templates()}
    sizes = []
    for query in (*workload.test, *workload.validation):
        masks: dict[str, NDArray[np.bool_] | None] = dict.fromkeys(re.findall(r"AS (\w+)", query.sql))
        for predicate in predicates_of(query):
            before = masks[predicate.alias]
            holds = predicate.holds(tables[ALIASES[predicate.alias]])
            masks[predicate.alias] = holds if before is None else before & holds
        sizes.append(JoinSizes(population, joins[template_of(query)], masks).size())
    assert min(sizes) >= 1
    assert max(sizes) <= largest_result(SCALE)
    assert max(sizes) / min(sizes) > 1e4


def test_the_limit_of_each_database() -> None:
    """4 million rows for stats_tiny, 36 million for stats_small, 400 million for stats_synthetic."""
    assert [largest_result(scale) for scale in (0.1, 0.3, 1.0)] == [4_000_000, 36_000_000, 400_000_000]


def test_the_textbook_estimate_fails_like_on_the_real_data(hard_queries: list[GeneratedQuery]) -> None:
    """
    With exact sizes of the filtered relations the textbook is still off by 8 to 40 in the median and by over 1000 for every tenth query.

    On the real data and queries the median is 17 and the 90th percentile 3500.
    """
    errors = q_errors(hard_queries)
    assert 8 < np.median(errors) < 40
    assert np.quantile(errors, 0.9) > 1000


def test_the_textbook_estimate_is_too_small(hard_queries: list[GeneratedQuery]) -> None:
    """At least four in five are underestimates (real: nine in ten)."""
    assert np.mean([query.rows > query.estimate for query in hard_queries]) >= 0.8


def test_hard_queries_have_the_real_templates(hard_queries: list[GeneratedQuery]) -> None:
    """The limit replaces no template at scale 1."""
    found = Counter(query.template.code for query in hard_queries)
    assert found == Counter({template.code: template.test for template in templates() if template.test})


def test_two_relations_suffice_for_a_hard_one(hard_queries: list[GeneratedQuery]) -> None:
    """Errors grow with the number of relations."""
    by_relations = {
        few: np.median(q_errors([query for query in hard_queries if (len(query.aliases) <= 3) == few])) for few in (True, False)
    }
    assert by_relations[False] > 2 * by_relations[True]


def test_templates_add_up() -> None:
    """The templates are those of 146 test and 1000 training queries."""
    assert sum(template.test for template in templates()) == 146
    assert sum(template.train for template in templates()) == 1000


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("c>p", "c.postid = p.id"),
        ("pLE>u", "p.lasteditoruserid = u.id"),
        ("plR>p", "pl.relatedpostid = p.id"),
        ("t>p", "t.excerptpostid = p.id"),
        ("b~p@u", "b.userid = p.owneruserid"),
        ("ph~pl@p", "ph.postid = pl.postid"),
    ],
)
def test_edges_are_read(code: str, expected: str) -> None:
    """Every kind of edge names its two columns."""
    assert parse_template(code)[0].sql == expected


@pytest.mark.parametrize("code", ["b>u c>u v>u", "c>p p>u v>p", "b~c@u c~p@u pl>p", "t>p p>u"])
def test_counts_are_those_of_a_nested_loop(code: str) -> None:
    """The sizes of joins, and of their connected parts, are what comparing all rows with each other gives, NULLs joining with nothing."""
    tables = generate(0.005, 2)
    joins = parse_template(code)
    draws = np.random.default_rng(0)
    aliases = list(dict.fromkeys(alias for join in joins for alias in (join.left, join.right)))
    masks: dict[str, NDArray[np.bool_] | None] = {alias: draws.random(tables[ALIASES[alias]].rows) < 0.1 for alias in aliases[1:]}
    masks[aliases[0]] = None
    counts = JoinSizes(Population(tables), joins, masks)
    assert counts.size() == _nested_loop(tables, joins, masks, aliases)
    assert counts.size(aliases[:2]) == _nested_loop(tables, joins[:1], masks, aliases[:2])


def _nested_loop(tables: dict[str, Table], joins: Sequence[Join], masks: dict[str, NDArray[np.bool_] | None], aliases: list[str]) -> int:
    """Join one relation after the other by comparing keys."""
    rows: list[dict[str, int]] = [{}]
    for alias in aliases:
        table, mask = tables[ALIASES[alias]], masks[alias]
        keep = np.arange(table.rows) if mask is None else np.flatnonzero(mask)
        joining = [side for join in joins for side in join.sides() if side[0] == alias]
        grown = []
        for row in rows:
            fits = np.ones(len(keep), dtype=bool)
            for _, column, other, other_column in joining:
                if other in row:
                    there = tables[ALIASES[other]][other_column]
                    same = table[column].values[keep] == there.values[row[other]]
                    fits &= same & table[column].present()[keep] & there.present()[row[other]]
            grown += [row | {alias: int(one)} for one in keep[fits]]
        rows = grown
    return len(rows)


def test_sizes_without_the_predicates_of_one_relation() -> None:
    """Leaving out the predicates of a relation is counting with a mask that all its rows pass, and leaves the rest as it was."""
    tables = generate(0.005, 2)
    joins = parse_template("b>u c>p p>u")
    population = Population(tables)
    draws = np.random.default_rng(0)
    masks: dict[str, NDArray[np.bool_] | None] = {alias: draws.random(tables[ALIASES[alias]].rows) < 0.5 for alias in ("b", "u", "c", "p")}
    counts = JoinSizes(population, joins, masks)
    before = counts.size()
    for alias in masks:
        assert counts.size_unfiltered(alias) == JoinSizes(population, joins, masks | {alias: None}).size() > before
    assert counts.size() == before


def test_a_predicate_fails_on_null(tables: dict[str, Table]) -> None:
    """A comparison with NULL is not true, also where the smallest value is asked for."""
    predicate = Predicate(alias="p", column="viewcount", operator=">=", value=-1)
    assert (predicate.holds(tables["posts"]) == tables["posts"]["viewcount"].present()).all()


def test_queries_that_cannot_be_drawn(tables: dict[str, Table], monkeypatch: pytest.MonkeyPatch) -> None:
    """If no query is small enough, an error says so, and the generator does not run for ever."""
    monkeypatch.setattr("pytest_pilotscope.datasets.stats.drawn_queries.largest_result", lambda scale: 0)
    source = QuerySource(tables, scale=SCALE, seed=0)
    message = "no query of at most 0 rows could be drawn for the test workload; choose a larger scale"
    with pytest.raises(DatasetError, match=f"^{re.escape(message)}$"):
        source.queries("test", 1, TEST)


def test_splits_share_templates_only_as_in_the_original(workload: Workload) -> None:
    """Validation follows the training set: each of its templates is trained on."""
    trained = {template_of(query) for query in workload.train}
    assert {template_of(query) for query in workload.validation} <= trained
    assert not {template_of(query) for query in workload.test} <= trained


def test_pairs_of_queries_differ_in_constants(workload: Workload) -> None:
    """Queries of one template differ: no two neighbours in the training set are equal up to the order of their tables."""
    normal = [frozenset(re.split(r" WHERE | AND ", query.sql)[1:]) for query in workload.train]
    assert all(first != second for first, second in itertools.pairwise(normal))

"""Templates of queries, and what is divided by them."""

from __future__ import annotations

import re

import pytest

from pytest_pilotscope.errors import WorkloadError
from pytest_pilotscope.queries.queries import SPLITS, Query, Workload
from pytest_pilotscope.queries.splitting import check_disjoint, divide, seen_and_unseen, without_test_queries
from pytest_pilotscope.queries.templates import template_of

PLAIN = "SELECT COUNT(*) FROM users AS u, posts AS p WHERE u.id = p.owneruserid AND u.views >= 3 AND p.score = -1"


def workload(*sql: str, train: tuple[str, ...] = ()) -> Workload:
    """Test and training queries, numbered."""
    return Workload(
        dataset="w",
        train=tuple(Query(id=f"t{i}", sql=text) for i, text in enumerate(train)),
        test=tuple(Query(id=f"q{i}", sql=text) for i, text in enumerate(sql)),
    )


@pytest.mark.parametrize(
    "other",
    [
        "select count(*) from posts p, users u where p.owneruserid=u.id and p.score between 3 and 7",
        "SELECT MIN(p.id) AS least FROM users AS a, posts AS p WHERE a.id = p.owneruserid AND p.title LIKE '%and x = y%';",
        "SELECT * FROM users u, posts p WHERE u.id = p.owneruserid AND (u.name LIKE 'a' OR u.name IN ('b', 'c'))",
        "SELECT u.id FROM users u JOIN posts p ON u.id = p.owneruserid WHERE u.views IS NULL",
    ],
)
def test_joins_make_the_template(other: str) -> None:
    """Filters, constants, aliases, order and select lists are no part of it; with and without the SQL parser it is the same."""
    assert template_of(other) == template_of(PLAIN)


@pytest.mark.parametrize(
    "other",
    [
        "SELECT COUNT(*) FROM users AS u, posts AS p WHERE u.id = p.lasteditoruserid AND u.views >= 3",
        "SELECT COUNT(*) FROM users AS u, posts AS p, posts AS o WHERE u.id = p.owneruserid AND u.id = o.owneruserid",
        "SELECT COUNT(*) FROM users AS u WHERE u.views >= 3",
    ],
)
def test_other_joins_are_another_template(other: str) -> None:
    """Another column, another relation or none is another template."""
    assert template_of(other) != template_of(PLAIN)


def test_equalities_that_follow_from_others() -> None:
    """Writing down what follows from the other equalities changes nothing."""
    short = "SELECT 1 FROM a, b, c WHERE a.id = b.a AND b.a = c.a"
    assert template_of(short) == template_of(short + " AND a.id = c.a")


def test_statements_without_joins() -> None:
    """Of a single table, and of subqueries, the text without filters and constants is the template."""
    first = "SELECT sum(price * discount) FROM lineitem WHERE quantity < 24 AND shipdate >= DATE '1994-01-01'"
    assert template_of(first) == template_of(first.replace("24", "25").replace("1994", "1995"))
    assert template_of(first) != template_of("SELECT flag, sum(quantity) FROM lineitem WHERE quantity < 24 GROUP BY flag")
    nested = "SELECT count(*) FROM o WHERE o.d < 5 AND EXISTS (SELECT * FROM l WHERE l.o = o.id AND l.x < 3)"
    assert template_of(nested) == template_of(nested.replace("5", "6").replace("3", "4"))


def test_what_cannot_be_parsed() -> None:
    """It is a template of its own; so is what is nested too deeply for sqlglot."""
    assert template_of("SELECT  a b c;") == "SELECT a b c"
    deep = f"SELECT count(*) FROM p WHERE {'(' * 300}p.id = 1{')' * 300}"
    assert template_of(deep) == deep
    wide = f"SELECT count(*) FROM p WHERE {' OR '.join(f'p.id = {number}' for number in range(2000))}"
    assert template_of(wide) == "SELECT COUNT(*) FROM p"


def test_share_of_templates_seen() -> None:
    """Of two test templates one is trained on."""
    other = "SELECT COUNT(*) FROM a, b WHERE a.id = b.a"
    assert workload(PLAIN, PLAIN + " AND p.id = 1", other, train=(PLAIN.replace("-1", "5"),)).templates_seen == 0.5
    assert workload(PLAIN).templates_seen is None


QUERIES = [f"SELECT 1 FROM t{n % 10} AS a, u AS b WHERE a.id = b.t AND a.v = {n}" for n in range(100)]


def test_random_split() -> None:
    """Each query is in one split; 70, 10 and 20 of 100; the seed decides, and the order of the input does not."""
    divided = divide(workload(*QUERIES), "random", seed=1)
    assert [len(divided.of(split)) for split in SPLITS] == [70, 10, 20]
    assert sorted(query.sql for split in SPLITS for query in divided.of(split)) == sorted(QUERIES)
    texts = {query.sql for query in divided.test}
    assert texts == {query.sql for query in divide(workload(*reversed(QUERIES)), "random", seed=1).test}
    assert texts != {query.sql for query in divide(workload(*QUERIES), "random", seed=2).test}


def test_split_by_template() -> None:
    """No test template is trained on; 2 of 10 templates are tested, with all their queries."""
    divided = divide(workload(*QUERIES), "template", seed=0)
    assert divided.templates_seen == 0
    assert [len(divided.of(split)) for split in SPLITS] == [70, 10, 20]
    check_disjoint(divided)


def test_a_query_that_is_given_twice_is_kept_once() -> None:
    """The splits are disjoint afterwards, and ids of different files that are equal get a number."""
    given = Workload(dataset="w", train=(Query(id="a", sql=QUERIES[0]), Query(id="b", sql=QUERIES[1])), test=workload(*QUERIES).test)
    divided = divide(given, "random", seed=0)
    assert sum(len(divided.of(split)) for split in SPLITS) == 100
    cleaned = without_test_queries(given)
    assert cleaned.origin == "0 training (2 more are test queries too and are left out)"
    assert divide(cleaned, "random", seed=0).origin is None
    mixed = Workload(dataset="w", train=(Query(id="q0", sql="SELECT 0"),), test=workload(*QUERIES).test)
    for split in SPLITS:
        ids = [query.id for query in divide(mixed, "random", seed=0).of(split)]
        assert len(set(ids)) == len(ids)


def test_too_few_to_divide() -> None:
    """Three splits need three of them."""
    message = "w: 2 different queries cannot be divided into training, validation and test"
    with pytest.raises(WorkloadError, match=f"^{re.escape(message)}$"):
        divide(workload("SELECT 1", "SELECT 2"), "random", seed=0)
    message = "w: 1 different templates cannot be divided into training, validation and test"
    with pytest.raises(WorkloadError, match=f"^{re.escape(message)}$"):
        divide(workload(*(PLAIN + f" AND p.id = {i}" for i in range(9))), "template", seed=0)


def test_the_same_query_in_two_splits_is_refused() -> None:
    """Layout does not make another query; published workloads are cleaned instead, and say so."""
    given = workload(PLAIN, train=("SELECT 1", PLAIN.replace(" ", "\n") + ";"))
    message = "w: query 'q0' of test is the same as 't1' of train; remove one of them, or have the queries divided anew with --split random"
    with pytest.raises(WorkloadError, match=f"^{re.escape(message)}$"):
        check_disjoint(given)
    cleaned = without_test_queries(given)
    check_disjoint(cleaned)
    assert cleaned.origin == "1 training (1 more are test queries too and are left out)"


def _joined(*tables: str, number: int = 1) -> tuple[str, ...]:
    return tuple(f"SELECT count(*) FROM a, {table} WHERE a.id = {table}.id AND a.n = {number}" for table in tables)


SHARED = workload(*_joined("b", "c", "d", "e", number=1), *_joined("b", "c", number=2), *_joined("f"), train=_joined(*"bcdex", number=9))
"""Test queries of four templates that are trained on, and one of a template that is not."""


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_drift_of_templates_divides_those_in_common(share: float) -> None:
    """Training before knows nothing of the templates after, which are trained on again; what is never trained on is left out."""
    before, after = seen_and_unseen(SHARED, share, seed=0)
    templates = [{template_of(query.sql) for query in part.test} for part in (before, after)]
    trained = [{template_of(query.sql) for query in part.train} for part in (before, after)]
    assert not templates[0] & templates[1]
    assert len(templates[1]) == {0.1: 1, 0.5: 2, 0.9: 3}[share]
    assert len(templates[0]) + len(templates[1]) == 4
    assert trained == [templates[0] | {template_of(_joined("x")[0])}, templates[1]]
    assert len(before.test) + len(after.test) == 6
    assert seen_and_unseen(SHARED, share, seed=0) == (before, after)


def test_no_drift_of_templates_divides_queries() -> None:
    """With 0 % both parts have all training queries, and the test queries are dealt whatever their template: an A/A."""
    before, after = seen_and_unseen(SHARED, 0.0, seed=0)
    assert before.train == after.train == SHARED.train
    assert (len(before.test), len(after.test)) == (3, 3)
    assert not set(before.test) & set(after.test)


@pytest.mark.parametrize(
    ("train", "share", "found"),
    [((), 0.5, "0 templates"), (_joined("b"), 0.5, "1 template"), (_joined("d"), 0.0, "1 query"), ((), 0.0, "0 queries")],
)
def test_a_drift_of_templates_needs_templates(train: tuple[str, ...], share: float, found: str) -> None:
    """Without templates in common nothing is seen before, and nothing can be learned again after."""
    given = workload(*_joined("b", "c", "d", number=1), *_joined("b", number=2), train=train)
    with pytest.raises(WorkloadError) as refused:
        seen_and_unseen(given, share, seed=0)
    assert str(refused.value) == (
        f"{given.dataset}: a drift of templates divides at least 2 that training and test queries have in common, found {found} in 4 test "
        "queries; divide all queries anew with --split random"
    )

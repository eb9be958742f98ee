"""`--algo oracle`: what it knows of a query it has met, and what it does not claim to know."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_pilotscope.algorithms.oracle import MOST_PLANNINGS, Oracle
from pytest_pilotscope.errors import LabelError, UnsupportedQuery
from pytest_pilotscope.labels import Labels
from pytest_pilotscope.labels.collect import UNFINISHED
from pytest_pilotscope.labels.labelcache import Label
from pytest_pilotscope.learning.algorithm import Cardinalities, PartialCardinalities, Subplan
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.measurement.sides import missed
from pytest_pilotscope.postgres.adherence import uninjected, verify
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import TrainingReport
from tests.conftest import LibraryOf

SCHEMA = {"a": {"x": "integer"}, "b": {"x": "integer"}}
QUERY = Query(id="q", sql="SELECT count(*) FROM a, b WHERE a.x = b.x")
TRUE = {frozenset("a"): 3, frozenset("b"): 4, frozenset("ab"): 5}
ASKED = dict.fromkeys(TRUE, 1.0)


def trained(labels: Callable[[list[Query]], Labels], session: Session | None = None) -> Oracle:
    """An oracle with these labels."""
    training = SimpleNamespace(data_fingerprint="d", schema=SCHEMA, labels=labels, report=lambda **_: TrainingReport, session=session)
    made = Oracle()
    made.train(cast(Training, training))
    return made


def label(rows: int | None) -> Label:
    """A label that PostgreSQL counted; None: it did not finish."""
    return Label(rows=rows, source="postgres", timeout_ms=1)


def test_a_query_that_was_met_needs_no_list_of_its_subplans() -> None:
    """The first time the planner lists them, afterwards the answer is the same without it."""
    made = trained(lambda queries: Labels({QUERY.id: {subplan: label(rows) for subplan, rows in TRUE.items()}}, {}))
    assert made.steer_by_text(QUERY) is None
    assert made.steer(QUERY, ASKED) == TRUE
    assert made.steer_by_text(QUERY) == TRUE


def test_what_could_not_be_counted_has_a_reason() -> None:
    """Rows that are known are given, and every other subplan is named with the reason, also the second time."""
    found = {frozenset("a"): label(3), frozenset("ab"): label(None)}
    made = trained(lambda queries: Labels({QUERY.id: found}, {}, {QUERY.id: {frozenset("b"): "it has a LIMIT"}}))
    for answer in (made.steer(QUERY, ASKED), made.steer_by_text(QUERY)):
        assert isinstance(answer, PartialCardinalities)
        assert answer == {frozenset("a"): 3}
        assert answer.unknown == {
            frozenset("b"): "it has a LIMIT",
            frozenset("ab"): UNFINISHED.format(1, 10),
        }
        assert missed(ASKED, answer) is None


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (Labels({}, {QUERY.id: "it has no relations"}), "it has no relations"),
        (Labels({QUERY.id: {}}, {}, {QUERY.id: {frozenset("a"): "it has a LIMIT"}}), "it has a LIMIT"),
    ],
)
def test_a_query_of_which_nothing_is_known_is_left_to_postgresql(labels: Labels, reason: str) -> None:
    """It is refused with the reason; the second time without asking again."""
    made = trained(lambda queries: labels)
    expected = f"^{re.escape(f'this query has no subplans to estimate or count: {reason}; query: {QUERY.sql}')}$"
    assert made.steer_by_text(QUERY) is None
    with pytest.raises(UnsupportedQuery, match=expected):
        made.steer(QUERY, ASKED)
    with pytest.raises(UnsupportedQuery, match=expected):
        made.steer_by_text(QUERY)


def test_labels_that_may_not_be_counted() -> None:
    """Without any label and with --no-collection, the message says what to do."""
    made = trained(lambda queries: Labels({}, {}))
    message = (
        "oracle has no rows for query 'q': --no-collection was given, and the cache has no labels of it for this data; "
        "run once without --no-collection"
    )
    with pytest.raises(LabelError, match=f"^{re.escape(message)}$"):
        made.steer(QUERY, ASKED)


EQUAL = Query(
    id="equal",
    sql="SELECT count(*) FROM t t1, t t2, t t3, t t4, t t5, t t6, t t7, t t8 "
    "WHERE t1.k = t2.k AND t2.k = t3.k AND t3.k = t4.k AND t4.k = t5.k AND t5.k = t6.k AND t6.k = t7.k AND t7.k = t8.k",
)


@pytest.fixture
def genetic(newest_server: EmbeddedServer, newest_scratch: Session, library_of: LibraryOf) -> Session:
    """A session in which PostgreSQL looks at a few of the joins of four or more relations."""
    newest_scratch.execute(f"LOAD '{library_of(newest_server)}'")
    newest_scratch.execute("CREATE TABLE t AS SELECT g AS id, g * 7 % 100 AS k FROM generate_series(1, 1000) AS g; ANALYZE t")
    newest_scratch.execute("SET geqo_threshold = 4; SET geqo_pool_size = 4; SET geqo_generations = 8")
    return newest_scratch


def counted(subplan: Subplan) -> int:
    """Rows that make PostgreSQL take whatever was not counted."""
    return 1000 if len(subplan) == 1 else 10**9 + zlib.crc32(" ".join(sorted(subplan)).encode()) % 10**9


def test_a_genetic_search_is_followed(genetic: Session) -> None:
    """The sets that PostgreSQL looks at under the known rows are counted too, until its plan has known sets only."""
    plannings: list[Cardinalities] = []

    def labels(queries: list[Query]) -> Labels:
        plannings.append(genetic.subplans(EQUAL.sql))  # as labels do: the query is planned in the session
        return Labels({EQUAL.id: {subplan: label(counted(subplan)) for subplan in plannings[-1]}}, {})

    own = genetic.subplans(EQUAL.sql)
    once = {subplan: float(counted(subplan)) for subplan in own}
    with genetic.cardinalities(once):
        plan, considered = genetic.explain(EQUAL.sql), genetic.subplans(EQUAL.sql)
    reasons = uninjected(once, considered, own, {})
    assert set(reasons.values()) == {"GEQO: PostgreSQL did not consider these relations together when it was asked"}
    assert verify(plan, once, reasons).not_injected > 0

    known = trained(labels, genetic).steer(EQUAL, own)
    assert 1 < len(plannings) < MOST_PLANNINGS
    assert known.keys() == set().union(*plannings)
    with genetic.cardinalities(known):
        plan, considered = genetic.explain(EQUAL.sql), genetic.subplans(EQUAL.sql)
    found = verify(plan, known, uninjected(known, considered, own, {}))
    assert (found.steered_ratio, found.reasons) == (1.0, ())


def test_a_genetic_search_that_may_not_be_counted(genetic: Session) -> None:
    """With --no-collection the rows of the first planning are given, and what else there is in the plan counts as not steered."""
    own = genetic.subplans(EQUAL.sql)
    answers = iter([Labels({EQUAL.id: {subplan: label(counted(subplan)) for subplan in own}}, {}), Labels({}, {})])
    assert trained(lambda queries: next(answers), genetic).steer(EQUAL, own).keys() == own.keys()

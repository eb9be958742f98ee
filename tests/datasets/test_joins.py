"""The generated joins: bounded results that are never empty, on data on which the textbook fails."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from math import prod

import numpy as np
import pytest

from pytest_pilotscope.datasets.joins import JoinsDataset
from pytest_pilotscope.datasets.joins.queries import SHAPES, SIZES
from pytest_pilotscope.datasets.joins.rows import CORE, HOT, MOST_ROWS, Rows
from pytest_pilotscope.datasets.joins.schema import TABLES
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.queries.splitting import check_disjoint
from pytest_pilotscope.statistics.accuracy import q_error

SCALE = 0.25


@pytest.fixture(scope="module")
def joins(newest_server: EmbeddedServer) -> Iterator[Session]:
    """Open a small database of joins."""
    with newest_server.connect() as administrator:
        administrator.execute("CREATE DATABASE joins_test")
        with newest_server.connect("joins_test") as session:
            JoinsDataset(scale=SCALE).load(session)
            session.execute("VACUUM ANALYZE")
            yield session
        administrator.execute("DROP DATABASE joins_test WITH (FORCE)")


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Return the rows of the same scale and seed."""
    return Rows(entities=500, seed=0)


@pytest.fixture(scope="module")
def counts(joins: Session) -> dict[str, int]:
    """Return the rows of every test query."""
    return {query.id: joins.scalar(query.sql) for query in JoinsDataset(scale=SCALE).workload().test}


def relations(query: Query) -> list[str]:
    """Return the tables of a query, whichever way it lists them."""
    found = re.search(r"FROM (.*?) WHERE", query.sql)
    assert found is not None
    return re.split(r", | ON [^J]*? JOIN | JOIN ", re.sub(r" ON .*?(?= JOIN|$)", "", found[1]))


def test_shapes_and_sizes() -> None:
    """Each shape has every size from 8 to 40 in the test, as a list of tables or as JOIN ... ON."""
    workload = JoinsDataset(scale=SCALE).workload()
    assert [query.id for query in workload.test] == [f"{shape}{size:02}" for shape in SHAPES for size in SIZES]
    assert (min(SIZES), max(SIZES)) == (8, 40)
    for query in workload.test:
        assert len(set(relations(query))) == len(relations(query)) == int(query.id[-2:]), query.id
    listed = {query.id for query in workload.test if " JOIN " not in query.sql}
    assert listed == {
        *("chain08", "chain13", "chain26", "cycle10", "cycle18", "cycle40"),
        *("star08", "star13", "snowflake10", "clique08", "clique13"),
    }
    assert (len(workload.train), len(workload.validation)) == (100, 10)
    check_disjoint(workload)


def test_data_and_queries_are_of_the_seed() -> None:
    """The same seed gives the same rows and queries, another seed others; the key has scale and seed."""
    first, again, other = (JoinsDataset(scale=SCALE, seed=seed) for seed in (0, 0, 1))
    assert first.workload().fingerprint == again.workload().fingerprint != other.workload().fingerprint
    assert (first.key, other.key) == ("joins-v1-scale0.25-seed0", "joins-v1-scale0.25-seed1")
    digest = hashlib.sha256()
    rows = Rows(entities=200, seed=0)
    for table in TABLES.values():
        for name, values in rows.of(table).items():
            digest.update("\0".join([name, *map(str, values)]).encode())
    assert digest.hexdigest()[:16] == "19dcde550cc6d0fc"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_results_are_bounded_by_construction(seed: int) -> None:
    """The rows of an entity in all tables of a group multiply to at most 12**3, and every third entity has a row in each."""
    rows = Rows(entities=500, seed=seed)
    for group in ("route", "child"):
        counts = np.array([rows._counts(table) for name, table in TABLES.items() if name.startswith(group)])
        assert prod([MOST_ROWS] * HOT) >= counts.prod(axis=0).max() > 1
        assert counts[:, ::CORE].min() == 1
        assert (counts == 0).any()
        assert (counts.max(axis=1) > 1).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_references_stay_within_the_cluster(seed: int) -> None:
    """A text that refers names an entity of its row's cluster, so a path through hot tables cannot meet those of other clusters."""
    rows = Rows(entities=300, seed=seed)
    route = rows.of(TABLES["route01"])
    for place, code in zip(route["place_id"], route["next_code"], strict=True):
        assert code is None or rows.cluster[int(code.split("-")[1])] == rows.cluster[place]


def test_no_result_is_empty_or_large(counts: dict[str, int], rows: Rows) -> None:
    """Every test query has rows, and at most as many as the bound."""
    assert all(0 < count <= rows.bound() for count in counts.values()), counts


@pytest.mark.slow
def test_the_written_order_makes_no_difference(joins: Session, counts: dict[str, int]) -> None:
    """Joined just as they are written, the queries have the same rows; training and validation queries have rows too."""
    workload = JoinsDataset(scale=SCALE).workload()
    with joins.rolled_back():
        joins.execute("SET LOCAL join_collapse_limit = 1")
        assert {query.id: joins.scalar(query.sql) for query in workload.test} == counts
    assert all(joins.scalar(query.sql) > 0 for query in (*workload.train, *workload.validation))


def test_the_textbook_fails(joins: Session, counts: dict[str, int]) -> None:
    """PostgreSQL's estimate of half of the results is wrong by a factor of more than 20."""
    plans = {query.id: joins.explain(query.sql.replace("COUNT(*)", "1")) for query in JoinsDataset(scale=SCALE).workload().test}
    errors = [q_error([plan.rows], [counts[name]])[0] for name, plan in plans.items()]
    assert np.median(errors) > 20


def test_what_the_data_has(joins: Session, rows: Rows) -> None:
    """Texts, dates and numbers, NULL in what is filtered and in references; LIKE, BETWEEN, IN and IS NULL in the queries."""
    for column in ("child01.detail_code", "route01.next_code", "hub.kind", "hub.born", "hub.size"):
        table, _, name = column.partition(".")
        share = joins.scalar(f"SELECT avg(({name} IS NULL)::int) FROM {table}")
        assert 0 < share < 0.5, column
    text = " ".join(query.sql for query in JoinsDataset(scale=SCALE).workload().train)
    assert all(word in text for word in (" LIKE 'a", " LIKE '%", " BETWEEN ", " IN (", " IS NULL", ".born >= '2"))


def test_keys_and_indexes(joins: Session) -> None:
    """Every key is declared, and an index begins with each column that refers to a table."""
    declared = joins.scalar("SELECT count(*) FROM pg_constraint WHERE contype IN ('p', 'u', 'f') AND connamespace = 'public'::regnamespace")
    assert declared == sum(len(table.keys) for table in TABLES.values())
    indexed = joins.scalar("SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'")
    assert indexed == declared


def test_scales() -> None:
    """Scales out of range are refused."""
    with pytest.raises(UsageError, match=r"^scale 0.01 of dataset 'joins' is out of range; choose one between 0.1 and 100$"):
        JoinsDataset(scale=0.01)

"""Training queries are generated from schema, statistics and joins of a workload."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pilotscope.datasets.generated import generate_training
from pytest_pilotscope.datasets.generated.sampled_conditions import ColumnStatistics, ConditionSampler, name_sql
from pytest_pilotscope.datasets.generated.shape import Column, edge, shape_of
from pytest_pilotscope.errors import DatasetError
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.queries.templates import normalized
from tests.conftest import EmptyDatabasesOf

TEST = (
    Query(id="a", sql="SELECT MIN(o.note) FROM orders AS o, customer AS c WHERE o.customer = c.id AND c.name LIKE '%Q%' AND o.total > 40"),
    Query(id="b", sql="SELECT count(*) FROM orders o, orders p WHERE o.customer = p.customer AND o.note IN ('x', 'y') AND p.day IS NULL"),
    Query(id="c", sql="SELECT count(*) FROM (SELECT 1) AS s"),
)
WORKLOAD = Workload(dataset="shop", test=TEST)


@pytest.fixture(scope="module")
def shop(newest_server: EmbeddedServer, empty_databases: EmptyDatabasesOf) -> Iterator[Session]:
    """Create customers and their orders, with a declared foreign key, NULLs, dates, words with quotes and braces, and a reserved name."""
    with empty_databases(newest_server).session() as session:
        session.execute('CREATE TABLE customer (id int PRIMARY KEY, name text, "group" smallint)')
        session.execute(
            "CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customer, total numeric(8, 2), day date, note text)"
        )
        session.execute(
            "INSERT INTO customer SELECT i, (ARRAY['O''Neil {x}', 'Quux', 'Ann Lee'])[i % 3 + 1] || i % 7, i % 4 "
            "FROM generate_series(1, 60) i"
        )
        session.execute(
            "INSERT INTO orders SELECT i, i % 50 + 1, i * 0.5, CASE WHEN i % 5 > 0 THEN DATE '2020-01-01' + i END, 'note ' || i % 4 "
            "FROM generate_series(1, 400) i"
        )
        session.execute("ANALYZE")
        yield session


def made(session: Session, *, count: int = 60, seed: int = 0, fingerprint: str = "f") -> Workload:
    """Return the workload with training queries."""
    return generate_training(session, WORKLOAD, count=count, seed=seed, references={}, data_fingerprint=fingerprint, show_progress=silent)


def test_queries_are_new_different_and_find_something(shop: Session, cache: Path) -> None:
    """As many as asked for and a tenth for validation; none is empty, none is a test query or twice there."""
    workload = made(shop)
    queries = [*workload.train, *workload.validation]
    assert (len(workload.train), len(workload.validation), workload.test) == (60, 6, TEST)
    assert workload.origin == "60 generated training"
    assert len({normalized(query.sql) for query in queries}) == 66
    assert min(shop.scalar(query.sql) for query in queries) > 0


def test_queries_look_like_the_workload(shop: Session, cache: Path) -> None:
    """They join along its edges, in its sizes, filter what it filters by what it filters with, and know none of its constants."""
    schema = read_schema(shop)
    queries = made(shop).train
    shape = shape_of(queries, schema, [])
    assert set(shape.edges) == {edge(Column("orders", "customer"), Column("customer", "id")), edge(*[Column("orders", "customer")] * 2)}
    assert set(shape.sizes) == {2}
    assert shape.filtered["customer"] == {"name"}
    assert shape.filtered["orders"] <= {"note", "total", "day"}
    assert shape.kinds <= {">=", "<=", "=", "Like", "InList", "IsNull"}
    assert not any("'x'" in query.sql or "%Q%" in query.sql for query in queries)


def test_the_seed_decides(shop: Session, cache: Path) -> None:
    """The same seed makes the same queries in any process, another seed makes others; what was made is kept."""
    first = made(shop).train
    for path in (cache / "workloads").glob("*.json"):
        path.unlink()
    assert made(shop).train == first
    assert made(shop, seed=1).train != first
    assert len(list((cache / "workloads").glob("shop-training-*.json"))) == 2


def test_too_little_data(newest_scratch: Session, cache: Path) -> None:
    """If the data has too few different queries, the error says so."""
    newest_scratch.execute("CREATE TABLE t AS SELECT 1 AS a")
    newest_scratch.execute("ANALYZE")
    workload = Workload(dataset="mine", test=(Query(id="q", sql="SELECT count(*) FROM t WHERE a = 1"),))
    with pytest.raises(
        DatasetError, match=r"^only \d+ of 22 different training queries could be made for mine: there is too little data; "
    ):
        generate_training(newest_scratch, workload, count=20, seed=0, references={}, data_fingerprint="g", show_progress=silent)


@pytest.mark.parametrize(
    ("value", "statistics"),
    [
        ("7", ColumnStatistics(type="integer", common=("7", "-3"), bounds=("1", "20"), few=True)),
        ("-2.50", ColumnStatistics(type="numeric", bounds=("-10", "3"), nulls=True)),
        ("NaN", ColumnStatistics(type="double precision", common=("NaN", "Infinity"), bounds=("-Infinity", "3.5"))),
        ("3.5", ColumnStatistics(type="numeric", common=("NaN", "7"), bounds=("-1", "7"))),
        ("2020-02-01", ColumnStatistics(type="date", bounds=("2019-01-01", "2021-01-01"))),
        ("it's {a} 'word'", ColumnStatistics(type="text", common=("other words", "it's {a} 'word'"), nulls=True)),
        (None, ColumnStatistics(type="integer", nulls=True)),
    ],
)
def test_a_row_fulfils_what_was_drawn_for_it(value: str | None, statistics: ColumnStatistics, newest_server: EmbeddedServer) -> None:
    """Whatever kind of condition is drawn, it is true for the value that it was drawn for."""
    sampler = ConditionSampler(rng=random.Random(0), kinds=frozenset())  # noqa: S311 - not for secrets
    drawn = {sampler.condition("r1", "c", value, statistics) for _ in range(60)} - {None}
    assert drawn
    with newest_server.connect() as session:
        for condition in drawn:
            source = f"(SELECT CAST(%s AS {statistics.type}) AS c) AS r1"
            text = str(condition).replace("%", "%%")
            assert session.scalar(f"SELECT count(*) FROM {source} WHERE {text}", (value,)) == 1, condition


def test_ids_are_not_filtered() -> None:
    """A number that every row has one of its own of is an id."""
    sampler = ConditionSampler(rng=random.Random(0), kinds=frozenset())  # noqa: S311 - not for secrets
    assert sampler.condition("r1", "id", "5", ColumnStatistics(type="integer", unique=True)) is None


@pytest.mark.parametrize(("name", "sql"), [("movie_id", "movie_id"), ("group", '"group"'), ("Mixed", '"Mixed"'), ('a"b', '"a""b"')])
def test_names(name: str, sql: str) -> None:
    """Names are quoted where PostgreSQL needs it."""
    assert re.fullmatch(re.escape(sql), name_sql(name))

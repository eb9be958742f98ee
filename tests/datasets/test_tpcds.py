"""TPC-DS: its data, its keys, and its 99 queries."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest

from pytest_pilotscope.datasets.tpcds import TpcdsDataset
from pytest_pilotscope.datasets.tpcds.queries import FIRST_YEAR, LAST_YEAR
from pytest_pilotscope.datasets.tpcds.schema import PRIMARY_KEYS, referred
from pytest_pilotscope.errors import DatasetError, UsageError
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session

SCALE = 0.01


@pytest.fixture(scope="module")
def tpcds(newest_server: EmbeddedServer) -> Iterator[Session]:
    """Open a small TPC-DS database."""
    with newest_server.connect() as administrator:
        administrator.execute("CREATE DATABASE tpcds_test")
        with newest_server.connect("tpcds_test") as session:
            TpcdsDataset(scale=SCALE).load(session)
            session.execute("VACUUM ANALYZE")
            yield session
        administrator.execute("DROP DATABASE tpcds_test WITH (FORCE)")


def test_tables_and_keys(tpcds: Session) -> None:
    """24 tables with their primary keys; an index on every other column that refers to one, and every such value is there."""
    keys = tpcds.execute("SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'p' AND connamespace = 'public'::regnamespace")
    assert {table for (table,) in keys} == PRIMARY_KEYS.keys()
    indexed = {
        (table, column)
        for table, column in tpcds.execute(
            "SELECT i.indrelid::regclass::text, a.attname FROM pg_index AS i JOIN pg_attribute AS a "
            "ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
        )
    }
    references = TpcdsDataset(scale=SCALE).references
    assert references.keys() <= indexed
    assert len(references) > 80
    for (table, column), parent in references.items():
        strangers = tpcds.scalar(
            f"SELECT count(*) FROM {table} WHERE {column} NOT IN (SELECT {PRIMARY_KEYS[parent][0]} FROM {parent})"  # our names
        )
        assert strangers == 0 or parent == "date_dim", (table, column, parent, strangers)


@pytest.mark.slow
def test_every_query_runs(tpcds: Session) -> None:
    """PostgreSQL runs all 99 as they are, and most have rows, even of so little data."""
    queries = TpcdsDataset(scale=SCALE).workload().test
    assert [query.id for query in queries] == [f"q{number:02}" for number in range(1, 100)]
    assert sum(bool(tpcds.execute(query.sql)) for query in queries) > 60


def test_every_query_is_planned(tpcds: Session) -> None:
    """With the parameters of several seeds; the same seed gives the same queries, and another one gives others."""
    for seed in (0, 1, 2):
        for query in TpcdsDataset(scale=SCALE, seed=seed).workload().test:
            tpcds.execute(f"EXPLAIN {query.sql}")
    first, second, again = (TpcdsDataset(scale=SCALE, seed=seed).workload() for seed in (1, 2, 1))
    assert first.fingerprint == again.fingerprint != second.fingerprint
    assert sum(one.sql != other.sql for one, other in zip(first.test, second.test, strict=True)) > 60


def test_a_seed_stays_within_the_years_of_the_data() -> None:
    """No query asks for a year in which nothing was sold."""
    for seed in range(1, 6):
        for query in TpcdsDataset(scale=SCALE, seed=seed).workload().test:
            years = {int(year) for year in re.findall(r"d_year\s*=\s*(\d{4})\b", query.sql)}
            assert all(FIRST_YEAR <= year <= LAST_YEAR for year in years), query.id


def test_what_a_column_refers_to() -> None:
    """Its name tells, unless it is the table's own key."""
    assert referred("web_sales", "ws_bill_customer_sk") == "customer"
    assert referred("customer", "c_customer_sk") is None
    assert referred("customer", "c_birth_year") is None


def test_wrong_scale_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors say what is possible, and how to install what is missing."""
    with pytest.raises(UsageError, match=r"^scale 0 of dataset 'tpcds' is out of range; choose one above 0, up to 1000$"):
        TpcdsDataset(scale=0.0)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(DatasetError, match=r"^dataset 'tpcds' needs DuckDB; install it with: pip install 'pytest-pilotscope\[tpcds\]'$"):
        TpcdsDataset().workload()

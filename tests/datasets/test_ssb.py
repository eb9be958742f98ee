"""The Star Schema Benchmark: its data, its keys, and its 13 queries."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from pytest_pilotscope.datasets.ssb import SsbDataset
from pytest_pilotscope.datasets.ssb.queries import SPECIFIED, query_sql
from pytest_pilotscope.datasets.ssb.rows import generate
from pytest_pilotscope.datasets.ssb.schema import FOREIGN_KEYS, PRIMARY_KEYS
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.splitting import check_disjoint

SCALE = 0.02


@pytest.fixture(scope="module")
def ssb(newest_server: EmbeddedServer) -> Iterator[Session]:
    """Open a small SSB database."""
    with newest_server.connect() as administrator:
        administrator.execute("CREATE DATABASE ssb_test")
        with newest_server.connect("ssb_test") as session:
            SsbDataset(scale=SCALE).load(session)
            session.execute("VACUUM ANALYZE")
            yield session
        administrator.execute("DROP DATABASE ssb_test WITH (FORCE)")


def test_rows_of_the_scale(ssb: Session) -> None:
    """The number of rows follows the scale, except of date, which has seven years of days."""
    counts = {table: ssb.scalar(f"SELECT count(*) FROM {table}") for table in PRIMARY_KEYS}
    lines = counts.pop("lineorder")
    assert counts == {"date": 2557, "part": 4000, "supplier": 40, "customer": 600}
    assert 0.97 < lines / (6_000_000 * SCALE) < 1.03


def test_keys_and_indexes(ssb: Session) -> None:
    """Every table has its primary key; every foreign key is declared, and an index begins with it."""
    kinds = Counter(
        kind
        for (kind,) in ssb.execute(
            "SELECT contype::text FROM pg_constraint WHERE contype IN ('p', 'f') AND connamespace = 'public'::regnamespace"
        )
    )
    assert kinds == {"p": len(PRIMARY_KEYS), "f": len(FOREIGN_KEYS)}
    indexed = {
        column for (column,) in ssb.execute("SELECT substring(indexdef from '\\((\\w+)') FROM pg_indexes WHERE tablename = 'lineorder'")
    }
    assert indexed == {"lo_orderkey", *FOREIGN_KEYS}


def test_hierarchies(ssb: Session) -> None:
    """A city is of one nation and a nation of one region; a brand is of one category and that of one maker, and a day of one month."""
    for finer, coarser, table, count in (
        ("c_city", "c_nation", "customer", 250),
        ("c_nation", "c_region", "customer", 25),
        ("p_brand1", "p_category", "part", 1000),
        ("p_category", "p_mfgr", "part", 25),
        ("d_yearmonth", "d_yearmonthnum", "date", 84),
    ):
        found = ssb.execute(f"SELECT count(DISTINCT {finer}), count(DISTINCT ({finer}, {coarser})) FROM {table}")[0]
        assert found[0] == found[1] > 0.8 * count, finer


def test_amounts_of_an_order(ssb: Session) -> None:
    """Revenue is the price less the discount, and an order has one customer and one day; prices are of the part."""
    assert ssb.scalar("SELECT count(*) FROM lineorder WHERE lo_revenue <> lo_extendedprice * (100 - lo_discount) / 100") == 0
    assert ssb.scalar("SELECT max(n) FROM (SELECT count(DISTINCT (lo_custkey, lo_orderdate)) n FROM lineorder GROUP BY lo_orderkey) t") == 1
    assert ssb.scalar("SELECT count(*) FROM lineorder WHERE lo_commitdate <= lo_orderdate OR lo_linenumber NOT BETWEEN 1 AND 7") == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_every_query_runs(ssb: Session, seed: int) -> None:
    """PostgreSQL runs the 13 test queries and plans all others; the first flight always has a result."""
    workload = SsbDataset(scale=SCALE, seed=seed).workload()
    rows = {query.id: ssb.execute(query.sql) for query in workload.test}
    assert list(rows) == [f"q{number}-1" for number in SPECIFIED]
    assert all(rows[f"q1.{number}-1"][0][0] is not None for number in (1, 2))
    for query in (*workload.train, *workload.validation):
        ssb.execute(f"EXPLAIN {query.sql}")


def test_the_parameters_of_the_seed() -> None:
    """Seed 0 tests the specification's parameters; the same seed gives the same queries, another one others; all of one seed differ."""
    first, other, again = (SsbDataset(seed=seed).workload() for seed in (0, 1, 0))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert [query.sql for query in first.test] == [query_sql(number, parameters) for number, parameters in SPECIFIED.items()]
    for workload in (first, other):
        check_disjoint(workload)
        assert (len(workload.train), len(workload.validation), len(workload.test)) == (130, 13, 13)
        assert len({query.sql for query in workload.train}) == 130
    assert first.templates_seen == 1.0


def test_the_same_bits_everywhere() -> None:
    """The data is a function of the scale."""
    digest = hashlib.sha256()
    for columns in generate(0.001).values():
        for name, values in columns.items():
            digest.update("\0".join([name, *map(str, np.asarray(values).tolist())]).encode())
    assert digest.hexdigest()[:16] == "1e60dd5b19f87550"


def test_names_and_scales() -> None:
    """The key has the scale and not the seed, because the data is the same; scales out of range are refused."""
    assert SsbDataset(seed=1).key == SsbDataset().key == "ssb-v1-scale0.1"
    with pytest.raises(UsageError, match=r"^scale 0 of dataset 'ssb' is out of range; choose one between 0.001 and 100$"):
        SsbDataset(scale=0.0)

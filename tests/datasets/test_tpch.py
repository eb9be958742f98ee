"""TPC-H: its data, its keys, and its queries with parameters of the specification."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator

import pytest

from pytest_pilotscope.datasets.tpch import TpchDataset
from pytest_pilotscope.datasets.tpch.parameters import COLORS, REGION_OF, RULES
from pytest_pilotscope.datasets.tpch.schema import FOREIGN_KEYS, TABLES
from pytest_pilotscope.errors import DatasetError, UsageError
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.splitting import check_disjoint
from pytest_pilotscope.queries.templates import template_of

SCALE = 0.01


@pytest.fixture(scope="module")
def tpch(newest_server: EmbeddedServer) -> Iterator[Session]:
    """Open a small TPC-H database."""
    with newest_server.connect() as administrator:
        administrator.execute("CREATE DATABASE tpch_test")
        with newest_server.connect("tpch_test") as session:
            TpchDataset(scale=SCALE).load(session)
            yield session
        administrator.execute("DROP DATABASE tpch_test WITH (FORCE)")


def test_rows_of_the_scale(tpch: Session) -> None:
    """Clause 4.2.5: the number of rows follows the scale, except of nation and region; of lineitem it is near it."""
    counts = {table: tpch.scalar(f"SELECT count(*) FROM {table}") for table in TABLES}
    lines = counts.pop("lineitem")
    wanted = {"region": 5, "nation": 25, "part": 2000, "supplier": 100, "partsupp": 8000, "customer": 1500, "orders": 15000}
    assert counts == wanted
    assert 0.95 < lines / (6_000_000 * SCALE) < 1.05


def test_keys_and_indexes(tpch: Session) -> None:
    """Every table has its primary key, every foreign key is declared, and an index begins with it."""
    kinds = Counter(
        kind
        for (kind,) in tpch.execute(
            "SELECT contype::text FROM pg_constraint WHERE contype IN ('p', 'f') AND connamespace = 'public'::regnamespace"
        )
    )
    assert kinds == {"p": len(TABLES), "f": sum(map(len, FOREIGN_KEYS.values()))}
    indexed = [
        list(columns)
        for (columns,) in tpch.execute(
            "SELECT array_agg(a.attname::text ORDER BY k.n) FROM pg_index AS i, unnest(i.indkey) WITH ORDINALITY AS k (attnum, n), "
            "pg_attribute AS a "
            "WHERE a.attrelid = i.indrelid AND a.attnum = k.attnum AND i.indrelid::regclass::text = ANY (%s) GROUP BY i.indexrelid",
            (list(TABLES),),
        )
    ]
    for keys in FOREIGN_KEYS.values():
        for key in keys:
            assert any(columns[: len(key)] == list(key) for columns in indexed), key


def test_every_query_runs(tpch: Session) -> None:
    """PostgreSQL runs all 22; those that no tiny database can leave without a row have one."""
    for query in TpchDataset(scale=SCALE).workload().test:
        rows = tpch.execute(query.sql)
        assert rows or query.id in ("q18-1",), query.id


def test_the_workload() -> None:
    """22 templates in every split, no query twice; q18 has four different parameters, so two of its queries are left for training."""
    workload = TpchDataset(scale=1.0).workload()
    assert [len(workload.test), len(workload.validation)] == [22, 22]
    assert Counter(query.id[:3] for query in workload.train) == {**{f"q{n:02}": 10 for n in RULES}, "q18": 2}
    check_disjoint(workload)
    assert len({template_of(query.sql) for query in workload.test}) == 22
    assert workload.fingerprint == TpchDataset(scale=1.0).workload().fingerprint
    assert workload.fingerprint != TpchDataset(scale=1.0, seed=1).workload().fingerprint


def test_parameters_keep_to_the_specification() -> None:
    """Ranges of clause 2.4: seen over many seeds, both ends of each range are met and nothing beyond them."""
    texts = [query.sql for seed in range(40) for query in TpchDataset(scale=1.0, seed=seed).workload().train]
    deltas = {int(days) for text in texts for days in re.findall(r"'(\d+) days'", text)}
    assert deltas <= set(range(60, 121))
    assert {60, 120} <= deltas
    quantities = {int(number) for text in texts for number in re.findall(r"HAVING sum\(l_quantity\) > (\d+)", text)}
    assert quantities == {312, 313, 314, 315}
    discounts = {number for text in texts for number in re.findall(r"BETWEEN (0\.\d+) - 0.01", text)}
    assert discounts == {f"0.0{n}" for n in range(2, 10)}
    quarters = {day for text in texts if "o_orderpriority, count" in text for day in re.findall(r">= DATE '([\d-]+)'", text)}
    assert (min(quarters), max(quarters)) == ("1993-01-01", "1997-10-01")
    assert len(COLORS) == len(set(COLORS)) == 92
    assert len(REGION_OF) == 25
    assert all(
        "HAVING sum(ps_supplycost * ps_availqty) > (\n    SELECT sum(ps_supplycost * ps_availqty) * 0.0001000000" in text
        for text in texts
        if "AS value" in text
    )


def test_the_key() -> None:
    """It changes with the scale and not with the seed, which chooses parameters only."""
    assert TpchDataset(scale=1.0).key == TpchDataset(scale=1.0, seed=5).key
    assert TpchDataset(scale=1.0).key != TpchDataset(scale=2.0).key


def test_bad_scales() -> None:
    """A scale of nothing is refused."""
    with pytest.raises(UsageError, match=r"^scale 0 of dataset 'tpch' is out of range; choose one above 0, up to 1000$"):
        TpchDataset(scale=0.0)
    message = (
        "at scale 0.002 dataset 'tpch' would have the same supplier twice for a part, because its rules are made for larger ones; choose "
        "0.01, 0.1, or anything from 0.025"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        TpchDataset(scale=0.002)
    for scale in (0.01, 0.1, *(0.025 + 0.001 * step for step in range(100))):
        assert TpchDataset(scale=scale).scale == scale


def test_without_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """If tpchgen-cli is not installed, the error says how to install it."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    message = "dataset 'tpch' needs tpchgen-cli; install it with: pip install 'pytest-pilotscope[tpch]'"
    with pytest.raises(DatasetError, match=f"^{re.escape(message)}$"):
        _ = TpchDataset().key

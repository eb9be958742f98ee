"""The generated STATS data as a dataset: names, keys, and the rows in a real PostgreSQL."""

from __future__ import annotations

import re

import pytest

from pytest_pilotscope.datasets.stats import StatsDataset, generate
from pytest_pilotscope.datasets.stats.drawn_predicates import TEST
from pytest_pilotscope.datasets.stats.drawn_queries import QuerySource
from pytest_pilotscope.datasets.stats.schema import FOREIGN_KEYS, TABLES
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.postgres.session import Session


def test_names_choose_scales() -> None:
    """The three built-in names are scales 0.1, 0.3 and 1; a scale given explicitly wins."""
    assert [StatsDataset(name=name).scale for name in ("stats_tiny", "stats_small", "stats_synthetic")] == [0.1, 0.3, 1.0]
    assert StatsDataset(name="stats_tiny", scale=0.05).scale == 0.05


def test_key_identifies_the_bytes() -> None:
    """Scale and seed change the key, the name does not: two names of the same bytes share one prepared database."""
    keys = {StatsDataset(scale=scale, seed=seed).key for scale in (0.1, 0.100001, 1.0) for seed in (0, 1)}
    assert len(keys) == 6
    assert StatsDataset(name="stats_tiny").key == StatsDataset(name="stats_small", scale=0.1).key


@pytest.mark.parametrize("scale", [0.0, 0.004, 21.0, float("nan")])
def test_scale_out_of_range(scale: float) -> None:
    """A scale that makes no database is refused before anything is drawn."""
    message = f"scale {scale:g} of dataset 'stats_tiny' is out of range; choose one between 0.005 and 20"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        StatsDataset(name="stats_tiny", scale=scale)


def test_name_without_scale() -> None:
    """A name of one's own needs a scale."""
    message = "dataset 'mine' has no scale of its own; choose one of stats_tiny, stats_small, stats_synthetic, or give a scale"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        StatsDataset(name="mine")


def test_loaded_rows_are_the_generated_ones(newest_scratch: Session) -> None:
    """PostgreSQL holds exactly the generated values after loading, NULLs included, in every column of every table."""
    dataset = StatsDataset(scale=0.01, seed=3)
    dataset.load(newest_scratch)
    for name, table in generate(0.01, 3).items():
        columns = [
            [None if column.nulls is not None and column.nulls[row] else int(column.values[row]) for row in range(table.rows)]
            for column in table.columns.values()
        ]
        assert newest_scratch.execute(f"SELECT {', '.join(TABLES[name])} FROM {name} ORDER BY id") == list(zip(*columns, strict=True))


def test_keys_and_foreign_keys_are_indexed(newest_scratch: Session) -> None:
    """Every table has its primary key and every foreign key column an index, under the names of the published database."""
    StatsDataset(scale=0.005).load(newest_scratch)
    found = {str(row[0]) for row in newest_scratch.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")}
    expected = {f"{table}_pkey" for table in TABLES} | {f"idx_{table}_{column}" for table, column in FOREIGN_KEYS}
    assert found == expected


def test_workload_runs(newest_scratch: Session) -> None:
    """The generated statements are PostgreSQL's SQL, and it counts what the generator says they count."""
    StatsDataset(scale=0.02, seed=1).load(newest_scratch)
    for query in QuerySource(generate(0.02, 1), scale=0.02, seed=1).queries("test", 12, TEST):
        assert newest_scratch.scalar(query.sql) == query.rows

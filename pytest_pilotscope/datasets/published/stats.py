"""STATS-CEB: a dump of stats.stackexchange.com as simplified by Han et al., PVLDB 15(4), 2022."""

from __future__ import annotations

from pytest_pilotscope.datasets.stats.schema import FOREIGN_KEYS, TABLES

from .source import Source

TIMES = ("date", "creationdate")
"""Columns that the CSV files have as timestamps."""

SOURCE = Source(
    name="stats",
    url="https://github.com/weiwch/ai4db_datasets/releases/download/stats/postgres_stats.tar.gz",
    sha256="4079854d51034e5aedcaaea6a23ef967ecd0f0cce559781cb825334760a6152a",
    tables={
        table: {name: "timestamp without time zone" if name in TIMES else kind for name, kind in columns.items()}
        for table, columns in TABLES.items()
    },
    references=FOREIGN_KEYS,
    csv="FORMAT csv",
    header=True,
    limit_bytes=4 << 30,
    queries="STATS-CEB's queries are the file workloads/stats_CEB/stats_CEB.sql of https://github.com/Nathaniel-Han/End-to-End-CardEst-Benchmark",
)

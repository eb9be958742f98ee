"""Runs whose answers SQL leaves open, and runs of an algorithm that changes the data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.record import Record, read_record
from pytest_pilotscope.record.results import TrainingReport
from pytest_pilotscope.report.page import write_page
from pytest_pilotscope.report.terminal import render_records
from pytest_pilotscope.runs.opening import benchmark_run
from pytest_pilotscope.statistics.summary import metrics, summarize
from tests.toy import Toy

QUERIES = {
    "time": "SELECT clock_timestamp(), count(*) FROM a",
    "chance": "SELECT sum(a.id * b.id) FROM a, b, generate_series(1, 50) WHERE random() < 0.5",
    "order": "SELECT array_agg(id) FROM a",
    "sum": "SELECT v, sum(1.0::float8 / id), avg(id / 3::real) FROM a GROUP BY v",
    "first": "SELECT id, t FROM a ORDER BY v, id LIMIT 3",
}
REASONS = {
    "time": "clock_timestamp() may have another value in each execution",
    "chance": "random() may have another value in each execution",
}


class Deleting:
    """Deletes a row of a copy of the database, and writes the others anew in the reverse order."""

    name = "deleting"
    copies = True

    def train(self, training: Training) -> TrainingReport:
        """Learn nothing."""
        return training.report()

    @contextmanager
    def prepare(self, database: Database) -> Iterator[Database]:
        """Change the copy."""
        with database.copy() as copy:
            with copy.session() as session:
                session.execute("CREATE TABLE c AS SELECT * FROM a WHERE id <> 10 ORDER BY id DESC; DELETE FROM b")
                session.execute("DELETE FROM a; INSERT INTO a TABLE c")
            yield copy


def measured(name: str, folder: Path) -> tuple[Record, dict[str, list[str]]]:
    """Return the record of a run, and the problems by query."""
    data = Toy()
    registry = builtin_registry()
    registry.add_algorithm("deleting", Deleting, origin="the tests")
    workload = replace(data.workload(), test=tuple(Query(id=one, sql=sql) for one, sql in QUERIES.items()))
    with (
        open_database(PostgreSQLConfig("toy", server="embedded"), data) as database,
        benchmark_run(
            name,
            database=database,
            workload=workload,
            settings=Settings(results=folder, rounds=1),
            registry=registry,
            progress=lambda text, steps: nullcontext(lambda done: None),
        ) as run,
    ):
        problems = {query.id: found for query, found in run.measure_all()}
    (path,) = folder.glob("*.jsonl")
    return read_record(path), problems


@pytest.mark.slow
def test_open_answers_fail_nothing(tmp_path: Path) -> None:
    """PostgreSQL beside itself ends FINISHED; the terminal, the page and the figures tell the reasons."""
    record, problems = measured("baseline", tmp_path)
    assert (record.status, list(problems.values())) == ("FINISHED", [[]] * len(QUERIES))
    found = {(report.side, report.query_id): report.not_comparable for report in record.reports if report.not_comparable is not None}
    assert found == {("baseline-again", query): reason for query, reason in REASONS.items()}
    page = write_page(tmp_path / "page.html", [record]).read_text(encoding="utf-8")
    for query, reason in REASONS.items():
        told = f"baseline-again: the answer of {query} is not comparable with the baseline's: {reason}"
        assert told in render_records([record], width=None, color=False)
        assert told.replace("'", "&#39;") in page
    assert metrics(summarize(record), "baseline-again")["test_incomparable_count"] == 2
    assert record.header.machine_load is not None


@pytest.mark.slow
def test_other_data_fail_all_that_is_not_open(tmp_path: Path) -> None:
    """A row that is gone is found in every answer that SQL does not leave open, also beside a column that it does."""
    record, problems = measured("deleting", tmp_path)
    assert record.status == "FAILED"
    assert {query for query, found in problems.items() if found} == {"time", "sum", "first"}
    assert problems["sum"][0].startswith("query 'sum': side 'deleting' returned other rows than 'baseline' (10 rows, hash ")

"""A run over statements that are deep, that GEQO plans, or that cannot be counted or steered: none ends the run of the others."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.record.record import Record, read_record
from pytest_pilotscope.record.results import QueryReport
from pytest_pilotscope.runs.opening import benchmark_run
from tests.toy import Toy

_ALIASES = [f"t{number}" for number in range(8)]
DEEP = {
    "parentheses": f"SELECT count(*) FROM a WHERE {'(' * 300}id = 1{')' * 300}",
    "or": f"SELECT count(*) FROM a JOIN b ON a.id = b.a WHERE {' OR '.join(f'b.id = {number}' for number in range(2000))}",
    "list": f"SELECT count(*) FROM a WHERE id IN ({', '.join(map(str, range(20_000)))})",
    "sum": f"SELECT count(*) FROM a WHERE id = {' + '.join(['1'] * 1500)}",
}
LEFT = {
    "limit": "SELECT count(*) FROM a JOIN (SELECT * FROM b LIMIT 5) AS s ON a.id = s.a",
    "correlated": "SELECT count(*) FROM a WHERE id = (SELECT max(id) FROM b WHERE b.a = a.v)",
    "no relation": "SELECT 1",
    "command": "SHOW work_mem",
}
LIMITED = "LIMIT or DISTINCT ON, and no order that decides which rows these are"
GENETIC = (
    f"SELECT count(*) FROM {', '.join(f'twice AS {alias}' for alias in _ALIASES)} "
    f"WHERE {' AND '.join(f'{one}.k = {other}.k AND {one}.j = {other}.j' for one, other in pairwise(_ALIASES))} AND t0.k < 3"
)
FEW_JOINS = {"geqo_threshold": "4", "geqo_pool_size": "4", "geqo_generations": "8"}


@dataclass(frozen=True, kw_only=True)
class Difficult(Toy):
    """The toy tables, and a table with two equal columns, which PostgreSQL assumes to be independent. GEQO looks at few joins."""

    name: str = "difficult"
    database: str = "difficult"

    @property
    def key(self) -> str:
        """Another key than the toy's."""
        return f"difficult-{self.rows}"

    def load(self, session: Session) -> None:
        """Make and fill the tables."""
        super().load(session)
        session.execute("CREATE TABLE twice AS SELECT g % 20 AS k, g % 20 AS j FROM generate_series(1, 60) AS g")

    def workload(self) -> Workload:
        """Return test queries only."""
        statements = {**DEEP, **LEFT, "genetic": GENETIC, "plain": "SELECT count(*) FROM a JOIN b ON b.a = a.id WHERE a.v = 3"}
        test = tuple(Query(id=name, sql=sql) for name, sql in statements.items())
        return replace(super().workload(), dataset=self.name, test=test)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Give the record of a run of the oracle."""
    folder = tmp_path_factory.mktemp("results")
    data = Difficult()
    with (
        open_database(PostgreSQLConfig("difficult", server="embedded", settings=FEW_JOINS), data) as database,
        benchmark_run(
            "oracle",
            database=database,
            workload=data.workload(),
            settings=Settings(results=folder, rounds=1, max_unsteered=1.0),
            registry=builtin_registry(),
            progress=lambda text, steps: nullcontext(lambda done: None),
        ) as run,
    ):
        problems = {query.id: found for query, found in run.measure_all()}
    assert not any(problems.values())
    (path,) = folder.glob("*.jsonl")
    return read_record(path)


def of_oracle(record: Record) -> Mapping[str, QueryReport]:
    """Give the reports of the record by query."""
    return {report.query_id: report for report in record.reports if report.side == "oracle"}


def test_every_statement_is_measured(record: Record) -> None:
    """Every query is measured on both sides, and the run ends FINISHED."""
    assert record.status == "FINISHED"
    for side in record.header.sides:
        assert [run.query_id for run in record.measured(side)] == [*DEEP, *LEFT, "genetic", "plain"]


@pytest.mark.parametrize("name", [*DEEP, "plain"])
def test_deep_statements_are_steered(record: Record, name: str) -> None:
    """PostgreSQL plans these statements, so they are counted and steered like others."""
    report = of_oracle(record)[name]
    assert (report.steered_ratio, report.steering_reasons, report.p_error) == (1.0, (), 1.0)


@pytest.mark.parametrize(
    ("name", "steered_ratio", "reasons", "p_error_reason"),
    [
        (
            "limit",
            0.5,
            (f"Subquery Scan s: not known: {LIMITED}", f"Hash Join a s: not known: {LIMITED}"),
            f"the true rows of 2 of 4 sets are not known, those of s because: {LIMITED}",
        ),
        (
            "correlated",
            0.5,
            ("Seq Scan b: not known: it depends on a row of the query around it",),
            "the true rows of 1 of 2 sets are not known, those of b because: it depends on a row of the query around it",
        ),
        ("no relation", 0.0, ("not steered: it has no relations",), "it has no relations"),
        ("command", 0.0, ('not steered: PostgreSQL does not plan it: syntax error at or near "SHOW"',), None),
    ],
)
def test_the_others_are_named(
    record: Record, name: str, steered_ratio: float, reasons: tuple[str, ...], p_error_reason: str | None
) -> None:
    """Known cardinalities are injected; every unknown one, and an unknown p-error, has its reason."""
    report = of_oracle(record)[name]
    assert (report.steered_ratio, report.steering_reasons) == (steered_ratio, reasons)
    assert (report.p_error, report.p_error_reason) == (None, p_error_reason)


def test_what_a_genetic_search_looks_at_is_counted(record: Record) -> None:
    """Every node of the measured plan has its true rows, even if the first planning did not consider it."""
    report = of_oracle(record)["genetic"]
    assert (report.steered_ratio, report.steering_reasons) == (1.0, ())
    assert report.p_error is None
    assert report.p_error_reason is not None
    assert "PostgreSQL did not consider them together when true rows were counted" in report.p_error_reason

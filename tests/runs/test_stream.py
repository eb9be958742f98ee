"""`--stream` on a real PostgreSQL: queries in one order, writes in between, and algorithms that learn on the way."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.options.drifts import Drift
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.provision.database import steering_libraries
from pytest_pilotscope.record.record import Record, read_record
from pytest_pilotscope.runs.stream import check_stream
from tests.projects import measure

pytestmark = pytest.mark.usefixtures("prepared_cache")

ALGORITHM = """
    from pytest_pilotscope import Decision

    class Watching:
        '''It decides on a setting or on nothing in turns, and writes down what it is asked and what it observes.'''

        name = "watching"
        settings_only = True

        def train(self, training):
            self.log = []
            self.known = set()
            return training.report()

        def decide(self, query, session):
            rows = session.scalar("SELECT count(*) FROM badges")
            self.last = (query.id, rows)
            return Decision(settings={"enable_mergejoin": "off"}) if query.sql in self.known else Decision()

        def explain(self, query):
            return {"known": query.sql in self.known, "badges": self.last[1], "observed": len(self.log)}

        def observe(self, query, decision, execution_ms):
            assert self.last[0] == query.id and execution_ms > 0
            assert bool(decision) == (query.sql in self.known)
            self.log.append(query.id)
            self.known.add(query.sql)
            if query.id.startswith("09-") and FAILS:
                raise RuntimeError("it forgot")

    FAILS = False

    class Still:
        '''It decides on nothing, and learns nothing on the way.'''

        name = "still"
        settings_only = True

        def train(self, training):
            return training.report()

        def decide(self, query, session):
            return Decision()

    def pytest_pilotscope_register(registry):
        registry.add_algorithm("still", Still, origin=__name__)
        registry.add_algorithm("watching", Watching, origin=__name__)
"""
SPEC = """
queries = 12
repeated = 0.75
exact = 0.8
[writes]
every = 4
statements = [
    "INSERT INTO badges (id, userid, date) SELECT (SELECT max(id) FROM badges) + row_number() OVER (), userid, date FROM badges LIMIT 100",
    "DELETE FROM badges",
]
"""


def _records(folder: Path) -> dict[str, Record]:
    """Return the records by algorithm."""
    records = [read_record(path) for path in (folder / "results").glob("*.jsonl")]
    return {record.header.algorithm: record for record in records}


@pytest.mark.slow
def test_a_stream_is_run_in_order_and_learned_from(pytester: pytest.Pytester) -> None:
    """
    Each algorithm meets the same queries and the same data; one that learns observes each of its executions once, before the next query.

    Both sides run a query on the same data, and the writes of one run are gone in the next. The regret is the sum of the differences.
    """
    (pytester.path / "day.toml").write_text(SPEC)
    chosen = ("--algo", "baseline,watching", "--stream", "day.toml", "--report", "r.html")
    result = measure(pytester, *chosen, conftest=ALGORITHM)
    assert result.ret == 0, result.stdout.str()
    records = _records(pytester.path)
    baseline, watching = records["baseline"], records["watching"]
    header = watching.header
    assert (header.dataset, header.sides) == ("stats_tiny+stream:day", ("baseline", "watching"))
    assert header.tags["stream"] == "12 queries: 3 new, 7 repeated exactly, 2 with other parameters; 2 writes in between"
    assert header.queries == baseline.header.queries
    assert [step.query_id for step in watching.steps] == list(header.queries)
    assert [step.writes for step in watching.steps] == [0] * 5 + [1] * 4 + [2] * 3
    assert [place for place, step in enumerate(watching.steps) if step.write] == [4, 8]

    facts: list[Any] = [decision.facts for decision in watching.decisions]
    assert [fact["observed"] for fact in facts] == list(range(12))
    assert [fact["known"] for fact in facts] == [step.repeat == "exact" for step in watching.steps]
    first = facts[0]["badges"]
    assert [fact["badges"] for fact in facts] == [first] * 4 + [first + 100] * 4 + [0] * 4
    answers = {(run.query_id, run.answer_hash) for run in watching.runs if run.warm_up}
    assert len(answers) == 12
    again = {(run.query_id, run.answer_hash) for run in baseline.runs if run.warm_up}
    assert again == answers

    times = {
        (query_id, side): median(run.end_to_end_ms for run in watching.measured(side) if run.query_id == query_id)
        for query_id in header.queries
        for side in header.sides
    }
    lost = [times[query_id, "watching"] - times[query_id, "baseline"] for query_id in header.queries]
    assert [step.regret_ms for step in watching.steps] == pytest.approx(list(accumulate(lost)))
    assert all(step.learning_ms > 0 for step in watching.steps)
    assert [step.side for step in baseline.steps] == ["baseline-again"] * 12
    assert not any(step.learning_ms for step in baseline.steps)
    result.stdout.fnmatch_lines(
        [
            f"stream: stats_tiny+stream:day, {header.tags['stream']}",
            "  watching: regret against PostgreSQL * s after 3, * s after 6, * s after 9, * s after 12; against the best known +* s",
            "  watching learned on the way for * s, which is in no query's time",
        ]
    )
    assert "Regret over time" in (pytester.path / "r.html").read_text(encoding="utf-8")
    client = MlflowClient(f"sqlite:///{pytester.path / 'mlflow.db'}")
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments() if one.name == "watching_stats_tiny+stream:day"])
    series = client.get_metric_history(run.info.run_id, "regret_time")
    assert [metric.value for metric in series] == pytest.approx([step.regret_ms / 1e3 for step in watching.steps])
    assert run.data.metrics["test_regret_time"] == pytest.approx(watching.steps[-1].regret_ms / 1e3)


@pytest.mark.slow
def test_an_algorithm_that_fails_to_learn_leaves_the_stream(pytester: pytest.Pytester) -> None:
    """Its side ends with its error and the query, and the other sides go on."""
    (pytester.path / "day.toml").write_text(SPEC)
    chosen = ("--algo", "watching,still", "--compare", "--stream", "day.toml", "--no-mlflow")
    result = measure(pytester, *chosen, conftest=ALGORITHM.replace("FAILS = False", "FAILS = True"))
    assert result.ret == 1, result.stdout.str()
    (record,) = _records(pytester.path).values()
    assert record.end is not None
    assert ", learning from its execution: RuntimeError: it forgot" in record.end.failures["watching"]
    assert [len([step for step in record.steps if step.side == side]) for side in ("watching", "still")] == [8, 12]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM badge", 'relation "badge" does not exist; mend it: DELETE FROM badge'),
        (
            "SELECT pg_sleep(600)",
            "statement cut off after 1500 ms: SELECT pg_sleep(600); give it more time with --query-timeout-ms",
        ),
    ],
)
def test_a_write_that_fails_ends_the_run(statement: str, reason: str, pytester: pytest.Pytester) -> None:
    """The message has the statement and PostgreSQL's reason; nothing is measured on data that it should have changed."""
    (pytester.path / "day.toml").write_text(f'queries = 4\nrepeated = 0.5\n[writes]\nevery = 1\nstatements = ["{statement}"]')
    result = measure(pytester, "--algo", "baseline", "--stream", "day.toml", "--no-mlflow", "--query-timeout-ms", "1500")
    assert result.ret == 1
    expected = f"--stream day.toml: a write failed: {reason}"
    (record,) = _records(pytester.path).values()
    assert record.end is not None
    assert record.end.error is not None
    assert expected in record.end.error
    assert {run.query_id[:2] for run in record.runs} == {"1-"}


MINE = (
    "SELECT count(*) FROM t WHERE id < 5",
    "SELECT count(*) FROM t WHERE id < 9",
    "SELECT count(*) FROM t AS a, t AS b WHERE a.id = b.id",
)


@pytest.mark.slow
def test_somebody_elses_data_are_written_to_in_a_copy_only(pytester: pytest.Pytester, newest_server: EmbeddedServer) -> None:
    """
    Without consent the run ends before anything is measured; with it a copy is changed, which is gone at the end.

    A stream that writes nothing needs no consent.
    """
    (pytester.path / "mine.sql").write_text(";\n".join(MINE))
    (pytester.path / "still.toml").write_text("queries = 6\nrepeated = 0.67")
    (pytester.path / "day.toml").write_text('queries = 6\nrepeated = 0.67\n[writes]\nevery = 2\nstatements = ["DELETE FROM t"]')
    binaries = newest_server.binaries
    with EmbeddedServer(binaries, libraries=steering_libraries(binaries.bindir)) as server, server.connect() as administrator:
        administrator.execute("CREATE DATABASE mine")
        with server.connect("mine") as session:
            session.execute("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 1000) AS g")
        arguments = ("--server", f"{server.dsn.reveal()} dbname=mine", "--queries-dir", "mine.sql", "--no-mlflow", "--stream")
        refused = measure(pytester, *arguments, "day.toml")
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        expected = (
            "ERROR: --stream day.toml would make the database 'pilotscope_mine_...' on this server: nobody has allowed that: add "
            "--allow-changes databases; or use --server embedded"
        )
        assert expected in refused.stderr.str()
        assert measure(pytester, *arguments, "still.toml").ret == 0
        changed = measure(pytester, *arguments, "day.toml", "--allow-changes", "databases", "--results", "changed")
        assert changed.ret == 0, changed.stdout.str()
        with server.connect("mine") as session:
            assert session.scalar("SELECT count(*) FROM t") == 1000
        assert administrator.execute("SELECT datname FROM pg_database WHERE datname LIKE '%mine%'") == [("mine",)]
    (path,) = (pytester.path / "changed").glob("*.jsonl")
    assert [step.write for step in read_record(path).steps] == [None, None, "DELETE FROM t", None, "DELETE FROM t", None]


@pytest.mark.slow
def test_the_oracle_knows_the_rows_after_each_write(pytester: pytest.Pytester) -> None:
    """It counts anew on changed data, and leaves nothing of that in the cache of the data as they were."""
    (pytester.path / "day.toml").write_text('queries = 4\nrepeated = 1.0\n[writes]\nevery = 2\nstatements = ["DELETE FROM users"]')
    chosen = ("--algo", "oracle", "--stream", "day.toml", "--no-mlflow", "--queries", "q001")
    for _ in range(2):
        result = measure(pytester, *chosen)
        assert result.ret == 0, result.stdout.str()
    for record in map(read_record, (pytester.path / "results").glob("*.jsonl")):
        (sql,) = set(record.header.queries.values())
        assert "users" in sql
        rows = [report.plan for report in record.reports if report.side == "oracle"]
        estimated = [{node.rows for _, node in plan.nodes() if node.relation == "users"} for plan in rows if plan is not None]
        assert estimated[0] == estimated[1]
        assert estimated[2] == estimated[3] != estimated[0]


REFUSED = "its queries run in one order, and only what they teach counts; leave {} out"


@pytest.mark.parametrize(
    ("chosen", "option"),
    [
        ({"drift": Drift("skew", 2.0)}, "--drift"),
        ({"calibrate": True}, "--calibrate"),
        ({"gate": "baseline"}, "--gate"),
        ({"measure": False}, "--no-measure"),
        ({"clients": 2}, "--clients"),
        ({"rounds": "auto"}, "--rounds auto"),
        ({"variants": ("nojit:jit=off",)}, "--variant"),
        ({"algorithms": ("lero",), "options": {"lero": {"dynamic": True}}}, "--lero-dynamic"),
    ],
)
def test_options_that_do_not_fit_are_refused(chosen: dict[str, Any], option: str) -> None:
    """The message names the option."""
    with pytest.raises(UsageError) as found:
        check_stream(Settings(stream=Path("day.toml"), **chosen), builtin_registry())
    assert str(found.value) == f"--stream day.toml: {REFUSED.format(option)}"

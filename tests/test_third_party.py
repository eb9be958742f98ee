"""Algorithms from a conftest.py: measured like the built-in ones, and held to the same contract."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.provision.database import PostgreSQLConfig
from pytest_pilotscope.record.results import TrainingReport
from pytest_pilotscope.runs.scheduler import Scheduler
from tests.projects import BENCHMARK, SMALL, measure, record_lines, summary

pytestmark = pytest.mark.usefixtures("prepared_cache")

README = Path(__file__).resolve().parents[1] / "README.md"

BAD = """
    class Bad:
        name = "bad"

        def train(self, training):
            return training.report()

        def steer(self, query, subplans):
            {body}

    def pytest_pilotscope_register(registry):
        registry.add_algorithm("bad", Bad, origin=__name__)
"""


@pytest.mark.slow
def test_the_algorithm_of_the_readme(pytester: pytest.Pytester) -> None:
    """
    The class of the README, as written, is steered to the last node, measured beside the baseline, and judged by its q-errors.

    The baseline's own run, which comes first, is judged on the same subplans: labels are counted for it, because an estimator is to follow.
    """
    conftest = README.read_text(encoding="utf-8").split("```python\n")[-1].split("```")[0]
    assert "class Doubler" in conftest
    result = measure(pytester, "--algo", "baseline,doubler", "--limit", "3", "--no-mlflow", conftest=conftest)
    assert result.ret == 0, result.stdout.str()
    (baseline,), (path,) = ((pytester.path / "results").glob(f"{name}_*.jsonl") for name in ("baseline", "doubler"))
    baseline, found = (json.loads(run.with_suffix(".json").read_text(encoding="utf-8")) for run in (baseline, path))
    assert {"qerror_p50", "qerror_p95", "perror_p50", "perror_max"} <= baseline["metrics"].keys()
    assert found["metrics"]["steered_ratio"] == 1.0
    assert {"speedup", "speedup_ci_low", "speedup_ci_high", "qerror_p50", "perror_p50"} <= found["metrics"].keys()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    reports = {(line["query_id"], line["side"]): line for line in lines if line["kind"] == "query_report"}
    for query in ("q001", "q002", "q003"):
        own = {tuple(entry["aliases"]): entry["estimated"] for entry in reports[query, "baseline"]["estimates"]}
        doubled = {tuple(entry["aliases"]): entry["estimated"] for entry in reports[query, "doubler"]["estimates"]}
        assert doubled == {aliases: 2 * rows for aliases, rows in own.items()}


PARTIAL = """
    from pytest_pilotscope.learning.algorithm import PartialCardinalities

    class Partial:
        name = "partial"

        def train(self, training):
            return training.report()

        def steer(self, query, subplans):
            known = {subplan: 3 * rows for subplan, rows in subplans.items() if len(subplan) == 1}
            return PartialCardinalities(known, dict.fromkeys(subplans.keys() - known.keys(), "it is a join"))

    class Fails(Partial):
        name = "fails"

        def steer(self, query, subplans):
            if query.id == "q002":
                raise ValueError("lost my weights")
            return super().steer(query, subplans)

    def pytest_pilotscope_register(registry):
        registry.add_algorithm("partial", Partial, origin=__name__)
        registry.add_algorithm("fails", Fails, origin=__name__)
"""


def test_an_estimator_that_knows_some_sets_is_judged_beside_the_others(pytester: pytest.Pytester) -> None:
    """All tests of the benchmark accept it, also beside a side that fails on its way, which fails the measurement alone."""
    views = ("test_estimation", "test_inference")
    pytester.makepyfile(**{name: (README.parent / "benchmarks" / f"{name}.py").read_text(encoding="utf-8") for name in views})
    pytester.makeconftest(PARTIAL)
    pytester.makepyfile(test_workload=BENCHMARK)
    result = pytester.runpytest_subprocess(*SMALL, "--algo", "oracle,partial,fails", "--compare", "--limit", "3", "--no-mlflow", "-rA")
    result.stdout.fnmatch_lines(["PASSED test_estimation.py*", "PASSED test_inference.py*", "FAILED test_workload.py*"])
    reports = [line for line in record_lines(pytester.path) if line["kind"] == "query_report" and line["query_id"] == "q001"]
    judged = {line["side"]: {tuple(one["aliases"]): one["estimated"] for one in line["estimates"]} for line in reports}
    assert len({frozenset(estimates) for estimates in judged.values()}) == 1
    assert all((judged["partial"][aliases] == 3 * rows) for aliases, rows in judged["baseline"].items() if len(aliases) == 1)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(
            "return {subplan: float('nan') for subplan in subplans}",
            r"InvalidEstimate: bad estimated nan rows for subplan \{\w+\} of query 'q001'; a cardinality must be a finite number >= 0",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "return {subplan: -1 for subplan in subplans}",
            r"InvalidEstimate: bad estimated -1 rows for subplan \{\w+\} of query 'q001'; a cardinality must be a finite number >= 0",
            marks=pytest.mark.slow,
        ),
        (
            "return {subplan: 'many' for subplan in subplans}",
            r"InvalidEstimate: bad estimated 'many' rows for subplan \{\w+\} of query 'q001'; a cardinality must be a finite number >= 0",
        ),
        pytest.param(
            "return None",
            r"AlgorithmError: bad answered query 'q001' with None; it must be a mapping of subplans \(frozensets of aliases\) to rows",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "raise ValueError('lost my weights')", "bad failed on query 'q001': ValueError: lost my weights", marks=pytest.mark.slow
        ),
    ],
)
def test_a_broken_estimator_fails_its_run(pytester: pytest.Pytester, body: str, error: str) -> None:
    """
    Nothing falls back to PostgreSQL's estimates: the run is FAILED with the reason, the exit code is 1, and there is no total.

    An error of ours is shown as its message, one of the algorithm with its traceback.
    """
    result = measure(pytester, "--algo", "bad", "--limit", "2", "--no-mlflow", conftest=BAD.format(body=body))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    end = record_lines(pytester.path)[-1]
    assert end["status"] == "FAILED"
    assert re.fullmatch(error, end["error"])
    assert "total_time" not in summary(pytester.path)["metrics"]
    named = "ValueError" not in error
    assert (end["error"].partition(": ")[2] in result.outlines) is named
    assert ("\nE   " in result.stdout.str()) is not named
    assert "pytest_pilotscope/runs/" not in result.stdout.str()


@pytest.mark.slow
def test_a_broken_model_fails_its_run_and_altered_labels_are_counted_again(pytester: pytest.Pytester, prepared: Path) -> None:
    """A changed model file is named, and nothing is measured with it; a label cache that was altered is made again."""
    small = ("--limit", "1", "--training-size", "3", "--epochs", "1", "--no-mlflow")
    trained = measure(pytester, "--algo", "mscn", *small)
    assert trained.ret == 0, trained.stdout.str()
    (weights,) = (pytester.path / "results").glob("mscn_*/model/*/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    (cache,) = (prepared / "labels").glob("*/labels.sqlite")
    with sqlite3.connect(cache) as labels:
        labels.execute("UPDATE about SET value = 'other' WHERE name = 'fingerprint'")
    labels.close()
    result = measure(pytester, "--algo", "oracle,mscn", *small, "--results", "broken", "--load-model", str(weights.parents[2]))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    runs = sorted((pytester.path / "broken").glob("*.jsonl"))
    ends = [json.loads(run.read_text(encoding="utf-8").splitlines()[-1]) for run in runs]
    assert [end["status"] for end in ends] == ["FAILED", "FINISHED"]
    assert ends[0]["failures"]["mscn"].startswith(f"ModelError: {weights} ")


@pytest.mark.slow
def test_a_parameter_is_reported_with_one_value(pytester: pytest.Pytester) -> None:
    """
    The report of training may not contradict the run: no tracking store takes two values of one parameter.

    With --tb there is a traceback.
    """
    conftest = BAD.format(body="return subplans").replace("training.report()", 'training.report(parameters={"rounds": 2, "seed": 7})')
    result = measure(pytester, "--algo", "bad", "--limit", "1", "--no-mlflow", "--tb=short", conftest=conftest)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "\nE   " in result.stdout.str()
    assert record_lines(pytester.path)[-1]["error"] == (
        "AlgorithmError: bad reports the parameter 'seed' as 7, but its run has it as 0; give it a name of its own"
    )


@pytest.mark.slow
def test_a_different_answer_fails_the_run(pytester: pytest.Pytester) -> None:
    """A side that returns other rows than the baseline is not compared: its run is FAILED and says which query."""
    conftest = """
        from contextlib import contextmanager

        class Emptied:
            name = "emptied"

            def train(self, training):
                return training.report()

            @contextmanager
            def prepare(self, database):
                with database.copy() as copy:
                    with copy.session() as session:
                        for (table,) in session.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
                            session.execute(f"TRUNCATE {table} CASCADE")
                    yield copy

        def pytest_pilotscope_register(registry):
            registry.add_algorithm("emptied", Emptied, origin=__name__)
    """
    result = measure(pytester, "--algo", "emptied", "--limit", "1", "--no-mlflow", conftest=conftest)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    failures = record_lines(pytester.path)[-1]["failures"]
    assert failures["emptied"].startswith("query 'q001': side 'emptied' returned other rows than 'baseline' (1 rows, hash ")
    assert failures["emptied"].endswith("its times cannot be compared")


SHIFTED = """
    class Shifted:
        name = "shifted"

        def train(self, training):
            return training.report(parameters={"shifted_by": training.options["by"], "shifted_up": training.options["up"]})

        def steer(self, query, subplans):
            return subplans

    def pytest_pilotscope_register(registry):
        registry.add_algorithm("shifted", Shifted, origin=__name__)
        registry.add_option("shifted", "by", default=2.0, help="100% of what it is shifted by")
        registry.add_option("shifted", "up", default=True, help="shift it down")
"""
SHIFTED_ONCE = ("--algo", "shifted", "--limit", "1", "--no-mlflow")


def trained_with(folder: Path) -> dict[str, Any]:
    """The parameters that training reported to the only record of a project."""
    (report,) = [line for line in record_lines(folder) if line["kind"] == "training"]
    parameters: dict[str, Any] = report["parameters"]
    return parameters


@pytest.mark.slow
def test_options_of_a_conftest(pytester: pytest.Pytester) -> None:
    """An algorithm of a conftest.py declares options: they are in --help, on the command line and in the ini file."""
    pytester.makeconftest(SHIFTED)
    text = " ".join(pytester.runpytest_subprocess("--help").stdout.str().split())
    assert "--shifted-by=BY 100% of what it is shifted by (default: 2) --shifted-no-up shift it down" in text
    pytester.makeini("[pytest]\npilotscope_shifted_by = 3\npilotscope_shifted_no_up = true")
    result = measure(pytester, *SHIFTED_ONCE, "--shifted-by", "4", conftest=SHIFTED)
    assert result.ret == 0, result.stdout.str()
    assert trained_with(pytester.path) == {"shifted_by": 4.0, "shifted_up": False}
    refused = pytester.runpytest_subprocess("--shifted-by", "far")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    assert ": error: argument --shifted-by: expected a number, got 'far'" in refused.stderr.str()


@pytest.mark.slow
def test_options_of_a_late_conftest(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conftest.py that is found while collecting comes too late for the command line: the ini file chooses, and the user is told."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    late = pytester.mkdir("late") / "deeper"
    late.mkdir()
    (late / "conftest.py").write_text(dedent(SHIFTED))
    (late / "test_late.py").write_text(BENCHMARK)
    pytester.makeini("[pytest]\npilotscope_shifted_by = 3")
    result = pytester.runpytest_subprocess("--strict-config", "late", *SMALL, *SHIFTED_ONCE)
    assert result.ret == 0, result.stdout.str()
    assert trained_with(pytester.path) == {"shifted_by": 3.0, "shifted_up": True}
    assert (
        "shifted was registered after the command line was read; set its options in the ini file: "
        "pilotscope_shifted_by, pilotscope_shifted_no_up"
    ) in result.outlines


def test_options_from_python() -> None:
    """A scheduler with a registry that knows the algorithm gives it what `Settings.options` chooses."""
    registry, given = builtin_registry(), list[dict[str, Any]]()

    class Kept:
        name = "kept"

        def train(self, training: Training) -> TrainingReport:
            given.append(dict(training.options))
            return training.report()

    registry.add_option("kept", "count", default=3, help="how many are kept")
    registry.add_option("kept", "order", default="new", choices=("new", "old"), help="which ones are kept")
    config = PostgreSQLConfig("stats_tiny", server="embedded", scale=0.01)
    with Scheduler(config=config, algorithm=Kept(), settings=Settings(options={"kept": {"order": "old"}}), registry=registry):
        pass
    assert given == [{"count": 3, "order": "old"}]


@pytest.mark.slow
def test_a_query_that_writes_is_refused(pytester: pytest.Pytester) -> None:
    """Measuring sessions are read-only: a statement that changes data is a failed query, and the data is as it was."""
    (pytester.path / "mine.sql").write_text("WITH gone AS (DELETE FROM badges RETURNING 1) SELECT count(*) FROM gone;")
    result = measure(pytester, "--queries-dir", "mine.sql", "--no-mlflow")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    errors = {line["error"] for line in record_lines(pytester.path) if line["kind"] == "query_run"}
    assert len(errors) == 1
    assert "in a read-only transaction" in errors.pop()


def test_a_project_with_its_own_algorithms_package_is_left_alone(pytester: pytest.Pytester) -> None:
    """The plugin is loaded in every project; a package of the same name as ours must not break one that does not measure."""
    pytester.mkpydir("algorithms")
    pytester.makeconftest("")
    pytester.makepyfile("def test_x(): pass")
    result = pytester.runpytest_subprocess("-W", "error")
    result.assert_outcomes(passed=1)


OWN = README.parent / "docs" / "own.md"


@pytest.mark.slow
def test_the_chooser_of_the_docs(pytester: pytest.Pytester) -> None:
    """The Bao-like chooser of docs/own.md, as written, is trained and measured, and PostgreSQL follows each of its settings."""
    (conftest,) = (block for block in OWN.read_text(encoding="utf-8").split("```python\n") if "class Bao" in block)
    conftest = conftest.split("```")[0]
    result = measure(pytester, "--algo", "bao", "--limit", "8", "--no-mlflow", conftest=conftest)
    assert result.ret == 0, result.stdout.str()
    reports = [line for line in record_lines(pytester.path) if line["kind"] == "query_report" and line["side"] == "bao"]
    assert [(line["steering_reasons"], line["left"]) for line in reports] == [([], None)] * 8
    assert {line["steered_ratio"] for line in reports} <= {1.0, None}
    assert all(line["settings"] for line in reports if line["steered_ratio"] is not None)


@pytest.mark.slow
def test_the_chooser_of_the_docs_keeps_the_contract(pytester: pytest.Pytester) -> None:
    """Its decisions are legal, repeatable and followed."""
    (conftest,) = (block for block in OWN.read_text(encoding="utf-8").split("```python\n") if "class Bao" in block)
    inherit = "from pytest_pilotscope.testing import AlgorithmContract\n\nclass TestBao(AlgorithmContract):\n    algorithm = Bao\n"
    pytester.makepyfile(f"{conftest.split('```')[0]}\n{inherit}")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=5, skipped=3)


LEAVES = """
    from pytest_pilotscope.errors import UnsupportedQuery

    class Leaves:
        name = "leaves"

        def train(self, training):
            return training.report()

        def steer(self, query, subplans):
            if query.id == "q002":
                raise UnsupportedQuery("it has no embedding", query.sql)
            return dict(list(subplans.items())[query.id == "q004":])

    def pytest_pilotscope_register(registry):
        registry.add_algorithm("leaves", Leaves, origin=__name__)
"""


@pytest.mark.slow
def test_a_run_that_leaves_too_many_queries_fails(pytester: pytest.Pytester) -> None:
    """
    All queries are measured, the left ones count as not steered with their reason, and the run fails with one sentence.

    It passes with a higher limit, also one of the ini file.
    """
    leaves = ("--algo", "leaves", "--limit", "6", "--no-mlflow")
    result = measure(pytester, *leaves, conftest=LEAVES)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines = record_lines(pytester.path)
    left = {line["query_id"]: line["left"] for line in lines if line["kind"] == "query_report" and line["left"] is not None}
    missed = left.get("q004", "")
    assert left.keys() == {"q002", "q004"}
    assert left["q002"] == "it has no embedding"
    assert re.fullmatch(
        r"it has no rows for 1 of \d+ subplans, among them \w+; return {\*\*subplans, \.\.\.} to keep .+ the others", missed
    )
    sentence = (
        f"leaves left 2 of 6 queries (33.3%) to PostgreSQL, and --max-unsteered allows 5.0%: it has no embedding (1); {missed} (1); "
        "measure queries that it can decide on (--queries), or allow more with --max-unsteered 34%"
    )
    end = lines[-1]
    assert (end["status"], end["error"], end["failures"]) == ("FAILED", None, {"leaves": sentence})
    assert sum(line["kind"] == "query_run" for line in lines) == 6 * 2 * 3
    assert sentence in result.outlines
    assert not any("Traceback" in line or line.startswith("E   ") for line in result.outlines)
    pytester.makeini("[pytest]\npilotscope_max_unsteered = 34%")
    again = measure(pytester, *leaves, "--results", "again", conftest=LEAVES)
    assert again.ret == 0, again.stdout.str()
    assert measure(pytester, *leaves, "--max-unsteered", "0.3", "--results", "more", conftest=LEAVES).ret == pytest.ExitCode.TESTS_FAILED


REFUSED = """
    from pytest_pilotscope import Decision

    class Refused:
        name = "refused"

        def train(self, training):
            return training.report()

        def decide(self, query, session):
            return Decision(join_order="((nosuch b) c)")

    def pytest_pilotscope_register(registry):
        registry.add_algorithm("refused", Refused, origin=__name__)
"""


@pytest.mark.slow
def test_a_run_whose_decisions_are_all_refused_fails(pytester: pytest.Pytester) -> None:
    """The sentence names an alias that no query has."""
    result = measure(pytester, "--algo", "refused", "--limit", "2", "--no-mlflow", conftest=REFUSED)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    end = record_lines(pytester.path)[-1]
    assert (end["status"], list(end["failures"])) == ("FAILED", ["refused"])
    assert end["failures"]["refused"].startswith(
        "refused left 2 of 2 queries (100.0%) to PostgreSQL, and --max-unsteered allows 5.0%: PostgreSQL used nothing of its decision: "
        'pilotscope.join_order: tree 1 of 1 was not used: it does not fit the relations of this statement, which has no "nosuch"'
    )
    assert end["failures"]["refused"] in result.outlines


@pytest.mark.slow
def test_in_a_comparison_only_the_side_fails_that_left_too_many(pytester: pytest.Pytester) -> None:
    """The others are judged and sent as before."""
    result = measure(pytester, "--algo", "baseline,oracle,leaves", "--compare", "--limit", "4", "--no-mlflow", conftest=LEAVES)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (path,) = (pytester.path / "results").glob("compare_*.jsonl")
    end = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    assert (end["status"], end["failures"].keys()) == ("FAILED", {"leaves"})
    summaries = {run.name.split("_")[0]: json.loads(run.read_text(encoding="utf-8")) for run in path.parent.glob("*.json")}
    assert {name: run["extra_info"]["status"] for name, run in summaries.items()} == {
        "baseline": "FINISHED",
        "oracle": "FINISHED",
        "leaves": "FAILED",
    }

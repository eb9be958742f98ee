"""`--compare` on a real PostgreSQL: several algorithms in one run, and what is made of it."""

from __future__ import annotations

import pytest

from pytest_pilotscope.tracking.store import open_client
from pytest_pilotscope.tracking.sync import sync
from pytest_pilotscope.tracking.tracker import MLflowTracker
from tests.projects import measure, record_lines

pytestmark = pytest.mark.usefixtures("prepared_cache")

ALGORITHMS = """
    class Doubler:
        '''PostgreSQL's own estimates, doubled.'''

        name = "doubler"

        def train(self, training):
            return training.report(parameters={"factor": 2})

        def steer(self, query, subplans):
            return {subplan: 2 * rows for subplan, rows in subplans.items()}

    class Dropout(Doubler):
        name = "dropout"

        def steer(self, query, subplans):
            if query.id == "q002":
                raise KeyError("lost")
            return subplans

    class Dunce(Doubler):
        name = "dunce"

        def train(self, training):
            raise ValueError("cannot learn")

    def pytest_pilotscope_register(registry):
        for algorithm in (Doubler, Dropout, Dunce):
            registry.add_algorithm(algorithm.name, algorithm, origin=__name__)
"""


@pytest.mark.slow
def test_algorithms_take_turns_within_each_query(pytester: pytest.Pytester) -> None:
    """
    One test and one record for a dataset; in it all sides of a query before the next query, in an order that changes.

    In MLflow each side has a run of its own like any single run, with the record, the table and its own summary; a second `sync` adds
    nothing, and the gate finds a side's run by its experiment.
    """
    chosen = ("--algo", "baseline,doubler,oracle", "--compare", "--limit", "3", "--rounds", "3", "--report", "pages/report.html")
    result = measure(pytester, *chosen, conftest=ALGORITHMS)
    assert result.ret == 0, result.stdout.str()
    result.assert_outcomes(passed=1)
    lines = record_lines(pytester.path)
    runs = [line for line in lines if line["kind"] == "query_run"]
    assert [run["query_id"] for run in runs] == sorted(run["query_id"] for run in runs)
    rounds = [[run["side"] for run in runs if (run["query_id"], run["repetition"]) == ("q001", number)] for number in range(4)]
    assert {frozenset(sides) for sides in rounds} == {frozenset(("baseline", "doubler", "oracle"))}
    assert rounds[1] != rounds[2]

    name = lines[0]["run_name"]
    assert name.startswith("compare_stats_tiny_")
    results = pytester.path / "results"
    stamp = name.removeprefix("compare")
    assert {path.name for path in results.glob("*.json")} == {f"{side}{stamp}.json" for side in ("baseline", "doubler", "oracle")}
    assert (results / f"{name}.md").read_text(encoding="utf-8").startswith("# stats_tiny: baseline, doubler, oracle\n")
    assert [line.split() for line in result.outlines if line.strip().startswith("baseline  ")] == [["baseline", "doubler", "oracle"]]

    assert "report: pages/report.html" in result.outlines
    page = (pytester.path / "pages" / "report.html").read_text(encoding="utf-8")
    assert page == (results / f"{name}.html").read_text(encoding="utf-8")

    store = f"sqlite:///{pytester.path}/mlflow.db"
    (run,) = MLflowTracker.list_runs("doubler_stats_tiny", tracking_uri=store)
    assert (run["run_name"], run["status"], run["params.factor"]) == (f"doubler{stamp}", "FINISHED", "2")
    assert (run["params.algorithm"], run["tags.comparison"]) == ("doubler", name)
    assert run["metrics.test_qerror_p50"] >= 1
    artifacts = open_client(store)
    assert {artifact.path for artifact in artifacts.list_artifacts(run["run_id"])} == {
        "plots",
        f"doubler{stamp}.json",
        *(f"{name}.{kind}" for kind in ("jsonl", "md", "html")),
    }
    assert "plots/scatter.svg" in {artifact.path for artifact in artifacts.list_artifacts(run["run_id"], "plots")}
    (baseline,) = MLflowTracker.list_runs("baseline_stats_tiny", tracking_uri=store)
    assert "metrics.test_speedup" not in baseline
    assert {one.state for one in sync(results, tracking_uri=store)} == {"there"}

    generous = ("--gate-delta", "5000%", "--gate-query-delta", "5000%")  # queries of 1 ms beside other tests; it is about finding the run
    gated = measure(
        pytester,
        "--algo",
        "doubler",
        "--limit",
        "3",
        "--rounds",
        "3",
        "--gate",
        "mlflow:doubler_stats_tiny",
        *generous,
        conftest=ALGORITHMS,
    )
    assert [line for line in gated.outlines if line.startswith("doubler on stats_tiny: gate against the reference: PASSED")]


@pytest.mark.slow
def test_one_that_breaks_does_not_take_the_others_along(pytester: pytest.Pytester) -> None:
    """
    One fails in training, one at the second query; the third is measured to the end and its run is FINISHED.

    The test fails, and the reasons are in the record and on the terminal.
    """
    chosen = ("--algo", "dunce,dropout,doubler", "--compare", "--limit", "3")
    result = measure(pytester, *chosen, conftest=ALGORITHMS)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines = record_lines(pytester.path)
    reasons = {"dunce": "ValueError: cannot learn", "dropout": "query 'q002' on side 'dropout': KeyError: 'lost'"}
    assert (lines[-1]["status"], lines[-1]["failures"]) == ("FAILED", reasons)
    measured = {(line["query_id"], line["side"]) for line in lines if line["kind"] == "query_run" and line["error"] is None}
    assert measured == {("q001", side) for side in ("baseline", "dropout", "doubler")} | {
        (query, side) for query in ("q002", "q003") for side in ("baseline", "doubler")
    }
    assert len([line for line in lines if line["kind"] == "query_report" and line["query_id"] == "q002"]) == 2
    for side, reason in reasons.items():
        assert f"{side} failed: {reason}" in result.outlines
    assert "pytest_pilotscope.errors.SideFailed: dunce failed in training: ValueError: cannot learn" in result.stdout.str()
    store = f"sqlite:///{pytester.path}/mlflow.db"
    status = {side: MLflowTracker.list_runs(f"{side}_stats_tiny", tracking_uri=store)[0]["status"] for side in (*reasons, "doubler")}
    assert status == {"dunce": "FAILED", "dropout": "FAILED", "doubler": "FINISHED"}


@pytest.mark.slow
def test_the_baseline_alone_is_compared_with_itself(pytester: pytest.Pytester) -> None:
    """`--compare` without an opponent is the A/A run that `--algo baseline` is."""
    result = measure(pytester, "--compare", "--limit", "1", "--no-mlflow")
    assert result.ret == 0
    assert record_lines(pytester.path)[0]["sides"] == ["baseline", "baseline-again"]

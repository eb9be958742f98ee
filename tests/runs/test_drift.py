"""`--drift` on a real PostgreSQL: an algorithm learns before, and is measured before and after."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.options.drifts import Drift
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.record.record import read_record
from pytest_pilotscope.runs.drift import check_drift
from tests.projects import measure

pytestmark = pytest.mark.usefixtures("prepared_cache")

ALGORITHM = """
    class Counting:
        '''PostgreSQL's own estimates; it reports the data that it learned from.'''

        name = "counting"

        def train(self, training):
            labels = training.labels(training.queries[:5])
            users = training.session.scalar("SELECT count(*) FROM users")
            own = training.labels_cache is not None
            return training.report(parameters={
                **{"data": training.data_fingerprint, "users": users, "labels": len(labels), "own": own},
                "learned": " ".join(query.id for query in training.queries),
            })

        def steer(self, query, subplans):
            return dict(subplans)

    def pytest_pilotscope_register(registry):
        registry.add_algorithm("counting", Counting, origin=__name__)
"""
SIDES = ("baseline", "baseline-analyzed", "counting", "counting-analyzed", "counting-retrained")


def _records(pytester: pytest.Pytester) -> tuple[Any, Any]:
    """Return the records before and after."""
    after, before = (read_record(next((pytester.path / "results").glob(f"{name}_*.jsonl"))) for name in ("drift-counting", "counting"))
    return before, after


@pytest.mark.slow
def test_an_algorithm_is_measured_before_and_after_a_drift(pytester: pytest.Pytester) -> None:
    """
    The model before and the one trained again take turns on the drifted data, with the statistics as they were and with fresh ones.

    Both learned from the data that they are said to be of, all answers are equal, and the conclusion has the loss and the costs.
    """
    result = measure(pytester, "--algo", "counting", "--drift", "insert:30%", "--limit", "3", "--no-mlflow", conftest=ALGORITHM)
    assert result.ret == 0, result.stdout.str()
    before, after = _records(pytester)
    header = after.header
    assert (header.algorithm, header.dataset, header.sides) == ("drift-counting", "stats_tiny+insert:30%", SIDES)
    assert header.parameters["drift"] == "insert:30%"
    data = before.header.fingerprints["data"]
    assert header.tags["drift.model"] == f"trained on the data {data}, before the drift, on purpose"
    assert header.fingerprints["data"] != data

    training = {report.side: report.parameters for report in after.training}
    assert training["counting"]["data"] == data
    assert training["counting-retrained"]["data"] == header.fingerprints["data"]
    assert training["counting-retrained"]["users"] == round(1.3 * training["counting"]["users"])
    assert training["counting-retrained"]["labels"] == 5
    assert (training["counting"]["own"], training["counting-retrained"]["own"]) == (False, True)  # the cost has all labels
    answers = {(run.query_id, run.answer_hash) for run in after.runs if run.warm_up}
    assert len(answers) == len(header.queries)
    rows = {(report.query_id, report.side): [node.rows for _, node in report.plan.nodes()] for report in after.reports}
    assert {side for _, side in rows} == set(SIDES)
    assert any(rows[query, "baseline"] != rows[query, "baseline-analyzed"] for query in header.queries)

    lines = [
        line
        for line in result.outlines
        if "drift insert:30%" in line or line.startswith(("  before", "  after", "  ANALYZE", "  training"))
    ]
    assert [line.partition(": speed-up")[0].partition(" took")[0] for line in lines[1:]] == [
        "  before",
        "  after: counting against baseline",
        "  after: baseline-analyzed against baseline",
        "  after: counting-analyzed against baseline-analyzed",
        "  after: counting-retrained against baseline-analyzed",
        "  ANALYZE",
        "  training again",
    ]
    assert all("[" in line or line.endswith("never") for line in lines[1:])


@pytest.mark.slow
def test_time_goes_on_between_two_runs(pytester: pytest.Pytester) -> None:
    """The model learns from the past and is measured there, then on all data with the statistics of the past, and with fresh ones."""
    result = measure(pytester, "--algo", "counting", "--drift", "time", "--limit", "3", "--no-mlflow", conftest=ALGORITHM)
    assert result.ret == 0, result.stdout.str()
    before, after = _records(pytester)
    assert (before.header.dataset, after.header.dataset, after.header.sides) == ("stats_tiny+before-time:70%", "stats_tiny+time:70%", SIDES)
    data = before.header.fingerprints["data"]
    training = {report.side: report.parameters for report in after.training}
    assert [training[side]["data"] for side in ("counting", "counting-retrained")] == [data, after.header.fingerprints["data"]]
    assert training["counting"]["users"] < training["counting-retrained"]["users"]
    assert after.header.tags["drift.model"] == f"trained on the data {data}, before the drift, on purpose"
    result.stdout.fnmatch_lines(
        ["  before: speed-up *", "  after: counting-retrained against baseline-analyzed: *", "  training again took *"]
    )

    other = measure(pytester, "--algo", "baseline", "--results", "whole", "--limit", "1", "--no-mlflow")
    assert other.ret == 0, other.stdout.str()
    (path,) = (pytester.path / "whole").glob("*.jsonl")
    assert read_record(path).header.fingerprints["data"] == after.header.fingerprints["data"]


@pytest.mark.slow
def test_an_algorithm_meets_templates_that_it_has_not_seen(pytester: pytest.Pytester) -> None:
    """It learns on some templates and is measured on them, then on others, as it is and trained on their training queries."""
    chosen = ("--algo", "baseline,counting", "--drift", "template", "--limit", "3", "--no-mlflow")
    result = measure(pytester, *chosen, conftest=ALGORITHM)
    assert result.ret == 0, result.stdout.str()
    before, after = _records(pytester)
    assert (before.header.dataset, after.header.dataset) == ("stats_tiny+before-template:50%", "stats_tiny+template:50%")
    assert after.header.sides == ("baseline", "counting", "counting-retrained")
    assert after.header.fingerprints["data"] == before.header.fingerprints["data"]
    assert after.header.tags["drift.templates"] == "17 templates before, 17 after, 0 of them the same"
    learned = {report.side: set(report.parameters["learned"].split()) for report in after.training}
    assert learned.keys() == {"counting", "counting-retrained"}
    assert not learned["counting"] & learned["counting-retrained"]
    assert learned["counting"] == set(before.training[0].parameters["learned"].split())
    lines = [line.partition(": speed-up")[0].partition(" took")[0] for line in result.outlines]
    assert lines[lines.index("  after: counting against baseline") - 1 :][:4] == [
        "  before",
        "  after: counting against baseline",
        "  after: counting-retrained against baseline",
        "  training again",
    ]
    assert "  after: baseline-again against baseline" in lines


@pytest.mark.slow
def test_no_drift_is_an_a_a_run(pytester: pytest.Pytester) -> None:
    """With `insert:0%` the data have the same fingerprint, and every side the same plans."""
    result = measure(pytester, "--algo", "counting", "--drift", "insert:0%", "--limit", "3", "--no-mlflow", conftest=ALGORITHM)
    assert result.ret == 0, result.stdout.str()
    before, after = _records(pytester)
    assert after.header.fingerprints == before.header.fingerprints
    shapes = {(report.query_id, report.plan_shape, report.plan_cost) for report in after.reports}
    assert len(shapes) == len(after.header.queries)


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ({"compare": True}, "measures each algorithm before and after, and trains it again; leave --compare out"),
        ({"gate": "baseline"}, "measures each algorithm before and after, and trains it again; leave --gate out"),
        ({"calibrate": True}, "measures each algorithm before and after, and trains it again; leave --calibrate out"),
        ({"measure": False}, "measures each algorithm before and after, and trains it again; leave --no-measure out"),
        ({"training": False}, "measures each algorithm before and after, and trains it again; leave --no-training out"),
        ({"dask": "local:2"}, "measures each algorithm before and after, and trains it again; leave --dask out"),
        ({"clients": 2}, "measures each algorithm before and after, and trains it again; leave --clients out"),
        ({"writes": ("s.sql",)}, "measures each algorithm before and after, and trains it again; leave --writes out"),
        ({"variants": ("nojit:jit=off",)}, "measures each algorithm before and after, and trains it again; leave --variant out"),
        *(
            (
                {"algorithms": ("baseline", name)},
                f"{name} prepares a database of its own or joins several algorithms, and a drift is measured with an algorithm that "
                "decides on single queries only; leave it out",
            )
            for name in ("index", "index+oracle")
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(chosen: dict[str, Any], reason: str) -> None:
    """The message names the option, or the algorithm."""
    with pytest.raises(UsageError) as found:
        check_drift(Settings(drift=Drift("skew", 2.0), **chosen), builtin_registry())
    separator = ": " if "algorithms" in chosen else " "
    assert str(found.value) == f"--drift skew:2{separator}{reason}"

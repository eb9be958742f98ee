"""The lines about a drift: the loss, and the cost of training again."""

from __future__ import annotations

from dataclasses import replace
from math import isinf

import numpy as np
import pytest

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import TrainingReport
from pytest_pilotscope.report.drift import drift_lines
from pytest_pilotscope.statistics.drift import drift_figures
from tests.record.building import record_of

TAGS = {
    "drift": "insert:30%",
    "drift.model": "trained on the data abc, before the drift, on purpose",
    "drift.rows": "10 rows before, 13 after",
}


def record(algorithm: str = "mscn", **factors: float) -> Record:
    """Return a record of sides that take so many times as long as 100 ms per query, with 1 % of noise."""
    random = np.random.default_rng(len(factors))
    times = {
        side.replace("_", "-"): {f"q{i}": [100 * factor * float(np.exp(random.normal(0, 0.01))) for _ in range(5)] for i in range(20)}
        for side, factor in {"baseline": 1.0, **factors}.items()
    }
    made = record_of(times, algorithm=algorithm)
    reports = tuple(TrainingReport(side=side, duration_s=10.0) for side in times if side.endswith(("baseline-analyzed", "retrained")))
    return replace(made, header=replace(made.header, tags=TAGS), training=reports)


def drifted() -> Record:
    """Return a record after a drift, in which the model has lost all, and is as good as before when it is trained again."""
    return record("drift-mscn", baseline_analyzed=0.8, mscn=1.0, mscn_analyzed=0.8, mscn_retrained=0.4)


def test_each_side_is_compared_with_postgresql_on_the_same_statistics() -> None:
    """The loss is the speed-up after over that before; trained again, nothing is lost."""
    figures = drift_figures(record(mscn=0.5), drifted(), "mscn")
    assert figures.before is not None
    assert figures.before.estimate == pytest.approx(2.0, rel=0.02)
    found: object = {(side.side, side.baseline): (side.speedup.estimate, side.change and side.change.estimate) for side in figures.sides}
    assert found == {
        ("mscn", "baseline"): (pytest.approx(1.0, rel=0.02), pytest.approx(0.5, rel=0.02)),
        ("baseline-analyzed", "baseline"): (pytest.approx(1.25, rel=0.02), None),
        ("mscn-analyzed", "baseline-analyzed"): (pytest.approx(1.0, rel=0.02), pytest.approx(0.5, rel=0.02)),
        ("mscn-retrained", "baseline-analyzed"): (pytest.approx(2.0, rel=0.02), pytest.approx(1.0, rel=0.02)),
    }
    assert all(side.change is None or side.change.low < side.change.estimate < side.change.high for side in figures.sides)


def test_training_again_has_paid_off_against_the_model_before() -> None:
    """10 s of training, and 20 queries that each take 40 ms less: after 12.5 executions; ANALYZE saves 20 ms of each."""
    analyze, training = drift_figures(record(mscn=0.5), drifted(), "mscn").costs
    assert analyze.paid_off is not None
    assert training.paid_off is not None
    assert analyze.paid_off.estimate == pytest.approx(25, rel=0.1)
    assert training.paid_off.estimate == pytest.approx(12.5, rel=0.05)
    assert training.paid_off.low < 12.5 < training.paid_off.high


def test_what_saves_nothing_never_pays_off() -> None:
    """A model that is slower after training again has no number of executions."""
    worse = record("drift-mscn", baseline_analyzed=0.8, mscn=1.0, mscn_analyzed=0.4, mscn_retrained=0.8)
    *_, training = drift_figures(record(mscn=0.5), worse, "mscn").costs
    assert training.paid_off is not None
    assert isinf(training.paid_off.low)
    assert list(drift_lines(None, worse, "mscn"))[-1] == (
        "  training again took 10.0 s; paid off after executions of the workload, against mscn-analyzed: never"
    )


def test_the_lines_name_the_drift_and_the_model_of_other_data() -> None:
    """Without a run before, no loss is stated; sides that were not measured have no line."""
    lines = list(drift_lines(None, record("drift-mscn", baseline_analyzed=0.8), "mscn"))
    assert lines[:2] == [
        "drift insert:30%: mscn on stats_tiny (10 rows before, 13 after); the model: trained on the data abc, before the drift, on purpose",
        "  before: not measured, so no loss is known",
    ]
    assert [line.partition(" speed-up")[0].partition(" took")[0] for line in lines[2:]] == [
        "  after: baseline-analyzed against baseline:",
        "  ANALYZE",
    ]


def test_an_interval_that_tells_nothing_is_not_shown() -> None:
    """Two rounds that are far apart have no speed-up that a line could state, and no loss."""
    scattered = record_of({"baseline": {"q0": [1.0, 90.0]}, "mscn": {"q0": [90.0, 1.0]}}, algorithm="drift-mscn")
    after = replace(scattered, header=replace(scattered.header, tags=TAGS))
    before = record_of({"baseline": {"q0": [1.0, 90.0]}, "mscn": {"q0": [90.0, 1.0]}}, algorithm="mscn")
    assert list(drift_lines(before, after, "mscn"))[1:] == [
        "  before: speed-up unknown, too few rounds or queries to tell",
        "  after: mscn against baseline: speed-up unknown, too few rounds or queries to tell; "
        "the loss is unknown, too few rounds or queries to tell",
    ]


def test_templates_that_were_not_seen_have_no_pairs_with_the_others() -> None:
    """Without a change of the data nothing is analyzed; other queries are measured after, so speed-ups are compared, not queries."""
    before = record(mscn=0.5)
    after = record("drift-mscn", mscn=1.0, mscn_retrained=0.5)
    renamed = {query_id: f"u{query_id}" for query_id in after.header.queries}
    after = replace(
        after,
        header=replace(
            after.header,
            queries={renamed[query_id]: sql for query_id, sql in after.header.queries.items()},
            tags={"drift": "template:50%", "drift.templates": "4 templates before, 4 after, 0 of them the same"},
        ),
        runs=tuple(replace(run, query_id=renamed[run.query_id]) for run in after.runs),
    )
    figures = drift_figures(before, after, "mscn")
    found: object = {(side.side, side.baseline): side.change and side.change.estimate for side in figures.sides}
    assert found == {
        ("mscn", "baseline"): pytest.approx(0.5, rel=0.02),
        ("mscn-retrained", "baseline"): pytest.approx(1.0, rel=0.02),
    }
    assert all(side.change is not None and side.change.low < side.change.estimate < side.change.high for side in figures.sides)
    assert [(cost.side, cost.without) for cost in figures.costs] == [("mscn-retrained", "mscn")]
    first = next(iter(drift_lines(before, after, "mscn")))
    assert first == "drift template:50%: mscn on stats_tiny (4 templates before, 4 after, 0 of them the same)"

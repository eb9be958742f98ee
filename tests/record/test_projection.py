"""Splitting a comparison into single runs."""

from __future__ import annotations

from dataclasses import replace

from pytest_pilotscope.record.projection import COMPARISON, baselines_last, is_comparison, own_header, runs_of
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryDecision, QueryReport, RunEnd, Scalar, TrainingReport
from pytest_pilotscope.statistics.summary import summarize
from tests.record.building import record_of

TIMES = {
    "baseline": {"q0": [10.0, 10.0, 10.0], "q1": [20.0, 20.0, 20.0]},
    "mscn": {"q0": [5.0, 5.0, 5.0], "q1": [10.0, 10.0, 10.0]},
    "lero": {"q0": [20.0, 20.0, 20.0], "q1": [40.0, 40.0, 40.0]},
}


def comparison(end: RunEnd | None = None) -> Record:
    """Return a record of three sides, of which two have learned."""
    record = record_of(TIMES, algorithm=COMPARISON)
    parameters: dict[str, Scalar] = {"algorithm": COMPARISON, "num_epoch": 7, "enable_training": True, "rounds": 3}
    return replace(
        record,
        header=replace(record.header, parameters=parameters, tags={"record_id": "a1"}),
        reports=tuple(QueryReport(query_id="q0", side=side) for side in TIMES),
        decisions=tuple(QueryDecision(query_id="q0", side=side, facts={"looked": True}) for side in TIMES),
        training=(TrainingReport(side="mscn", duration_s=1.0), TrainingReport(side="lero", duration_s=2.0)),
        end=end or record.end,
    )


def test_a_single_run_stays_as_it_is() -> None:
    """A record of one algorithm, A/A runs included, is its own only run."""
    for algorithm, sides in (("mscn", ("baseline", "mscn")), ("baseline", ("baseline", "baseline-again"))):
        record = record_of({side: {"q": [1.0]} for side in sides}, algorithm=algorithm)
        assert not is_comparison(record.header)
        assert runs_of(record) == (record,)


def test_a_comparison_is_one_run_for_each_side() -> None:
    """Each run has the name, parameters, figures and training that it would have alone, and names its comparison."""
    baseline, mscn, lero = runs_of(comparison())
    assert [run.header.run_name for run in (baseline, mscn)] == ["baseline_stats_tiny_20250101_000000", "mscn_stats_tiny_20250101_000000"]
    assert [run.header.sides for run in (baseline, mscn, lero)] == [("baseline",), ("baseline", "mscn"), ("baseline", "lero")]
    assert mscn.header.parameters == {"algorithm": "mscn", "num_epoch": 7, "enable_training": True, "rounds": 3}
    assert baseline.header.parameters == {"algorithm": "baseline", "num_epoch": 0, "enable_training": False, "rounds": 3}
    assert lero.header.tags == {"record_id": "a1", "comparison": "compare_stats_tiny_20250101_000000"}
    assert {run.side for run in lero.runs} == {report.side for report in lero.reports} == {"baseline", "lero"}
    assert [decision.side for decision in lero.decisions] == ["baseline", "lero"]
    assert [training.side for training in lero.training] == ["lero"]
    against = summarize(lero).sides["lero"].against
    assert against is not None
    assert round(against.speedup.estimate, 6) == 0.5


def test_only_the_side_that_failed_has_failed() -> None:
    """If an algorithm fails, only its run is FAILED; if the baseline or the whole run fails, all are."""
    failed = RunEnd(status="FAILED", finished_at="2025-01-01T00:10:00+00:00", failures={"lero": "boom"})
    assert [run.status for run in runs_of(comparison(failed))] == ["FINISHED", "FINISHED", "FAILED"]
    assert [run.status for run in runs_of(comparison(replace(failed, failures={"baseline": "boom"})))] == ["FAILED"] * 3
    assert [run.status for run in runs_of(comparison(replace(failed, failures={}, error="boom")))] == ["FAILED"] * 3
    assert [run.status for run in runs_of(comparison(replace(failed, status="KILLED")))] == ["KILLED"] * 3


def test_records_of_their_own_name_the_baseline_that_they_share() -> None:
    """Each header is that of a single run, with an id of its own and the name of the measurement, which is the same in all."""
    together = comparison().header
    headers = [own_header(together, name, sides) for name, sides in (("baseline", ()), ("mscn", ("mscn",)), ("lero", ("lero",)))]
    assert [header.sides for header in headers] == [("baseline",), ("baseline", "mscn"), ("baseline", "lero")]
    assert [header.run_name for header in headers] == [f"{name}_stats_tiny_20250101_000000" for name in ("baseline", "mscn", "lero")]
    assert {header.shared_baseline for header in headers} == {f"mscn, lero on stats_tiny, {together.started_at}"}
    assert {header.tags["shared_baseline"] for header in headers} == {headers[0].shared_baseline}
    assert len({header.tags["record_id"] for header in headers}) == 3
    assert [header.parameters["num_epoch"] for header in headers] == [0, 7, 7]
    assert together.shared_baseline is None


def test_a_baseline_that_others_share_comes_last() -> None:
    """The runs keep their order, but a reader meets a comparison before the baseline alone; a run that shares nothing stays."""
    runs = runs_of(comparison())
    assert baselines_last(runs) == list(runs)
    shared = [replace(run, header=replace(run.header, shared_baseline="mscn, lero on stats_tiny, then")) for run in runs]
    assert [run.header.sides[-1] for run in baselines_last(shared)] == ["mscn", "lero", "baseline"]

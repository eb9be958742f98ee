"""Records as frames, as tables and as lists of files."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pilotscope import Results, read_results
from pytest_pilotscope.errors import RecordError
from pytest_pilotscope.record.record import Record, RecordWriter
from pytest_pilotscope.record.results import QueryReport, SubplanEstimate, TrainingReport
from tests.record.building import FINISHED, Time, record_of

TIMES: dict[str, dict[str, list[Time]]] = {
    "baseline": {"q1": [100.0, 101.0, 102.0, 99.0, 100.0], "q2": [40.0] * 5, "q3": [10.0] * 5},
    "mscn": {"q1": [50.0, 51.0, 49.0, 50.0, 50.5], "q2": [">400"] * 5, "q3": ["no such column"]},
}


@pytest.fixture
def record() -> Record:
    """A record with a faster query, one that timed out, and one that failed."""
    estimates = (SubplanEstimate(aliases=("a", "b"), estimated=10.0, true=40.0), SubplanEstimate(aliases=("a",), estimated=3.0, true=3.0))
    return replace(
        record_of(TIMES),
        reports=(QueryReport(query_id="q1", side="mscn", steered_ratio=1.0, estimates=estimates, p_error=1.5),),
        training=(TrainingReport(side="mscn", duration_s=2.0, metrics={"train_loss": (3.0, 2.0)}),),
    )


def test_queries_have_a_row_for_each_side(record: Record) -> None:
    """Times are medians; speed-up, interval and outcome are against the baseline; a failed query has its error and no time."""
    rows = Results((record,)).queries.set_index(["query_id", "side"])
    assert len(rows) == 6
    fast = rows.loc[("q1", "mscn")]
    assert fast.end_to_end_ms == pytest.approx(50.0)
    assert fast.inference_ms == pytest.approx(1.0)
    assert fast.speedup == pytest.approx(2.0, rel=0.02)
    assert fast.speedup_low < 2 < fast.speedup_high
    assert (fast.outcome, fast.joins, fast.p_error, fast.sql) == ("win", 1, 1.5, "SELECT count(*) FROM q1")
    assert rows.loc[("q2", "mscn")].timed_out == 5
    failed = rows.loc[("q3", "mscn")]
    assert (failed.error, failed.rounds) == ("no such column", 0)
    assert failed[["end_to_end_ms", "speedup"]].isna().all()
    assert rows.xs("baseline", level="side")[["speedup", "outcome"]].isna().all(axis=None)


@pytest.mark.parametrize("frame", ["queries", "executions", "subplans", "training", "summary"])
def test_a_frame_without_rows_has_its_columns(record: Record, frame: str) -> None:
    """They are those of a frame with rows, in the same order; of a summary, those of every record."""
    rows = getattr(Results((record,)), frame)
    for records in ((), (replace(record, runs=(), reports=(), training=(), header=replace(record.header, queries={})),)):
        without = list(getattr(Results(records), frame).columns)
        assert without == list(rows.columns) if frame != "summary" else without[:4] == list(rows.columns)[:4]


def test_executions_subplans_and_training_are_those_of_the_record(record: Record) -> None:
    """One row for each execution, each estimated subplan, and each step of a series."""
    results = Results((record,))
    assert len(results.executions) == len(record.runs)
    assert results.executions.execution_ms.max() == 399.0
    assert results.subplans[["aliases", "joins", "q_error"]].to_numpy().tolist() == [[("a", "b"), 1, 4.0], [("a",), 0, 1.0]]
    assert results.training[["side", "metric", "step", "value"]].to_numpy().tolist() == [
        ["mscn", "train_loss", 0, 3.0],
        ["mscn", "train_loss", 1, 2.0],
    ]


def test_the_summary_has_the_names_of_mlflow(record: Record) -> None:
    """A side whose figures cover a part of the workload has no total."""
    rows = Results((record,)).summary.set_index("side")
    assert rows.loc["baseline", "test_total_time"] == pytest.approx(0.15)
    assert rows["test_error_count"].to_dict() == {"baseline": 0, "mscn": 1}
    assert rows["test_total_time"].isna().to_dict() == {"baseline": False, "mscn": True}


def test_a_record_without_entries_has_empty_frames() -> None:
    """A run that ended in training has nothing else."""
    results = Results((replace(record_of({"baseline": {}, "mscn": {}}), end=None),))
    assert [len(frame) for frame in (results.queries, results.executions, results.subplans, results.training)] == [0, 0, 0, 0]
    assert results.summary.status.tolist() == ["INTERRUPTED", "INTERRUPTED"]
    assert "INTERRUPTED" in results._repr_html_()


def test_repr_is_one_line(record: Record) -> None:
    """It names the runs with their sides."""
    assert repr(Results((record,))) == "<Results of 1 run: mscn_stats_tiny_20250101_000000 (baseline, mscn; FINISHED)>"


def test_html_escapes_what_people_named(record: Record) -> None:
    """A name of a run is no markup."""
    text = Results((replace(record, header=replace(record.header, run_name="<b>x")),))._repr_html_()
    assert "<b>&lt;b&gt;x</b>: FINISHED" in text


def test_latex_is_the_table_of_a_paper(record: Record) -> None:
    """A row for each side, with intervals, and what LaTeX reads as a command escaped."""
    sides = {"baseline": TIMES["baseline"], "my_mscn": TIMES["baseline"]}
    text = Results((record_of(sides, algorithm="my_mscn"),)).to_latex()
    assert text.splitlines()[:3] == [
        r"\begin{tabular}{llllllll}",
        r"\toprule",
        r"side & total s & speed-up [95 \%] & per query [95 \%] & won/lost/tied & q-error p50 & q-error p95 & p-error p95 \\",
    ]
    assert r"my\_mscn & 0.150 & 1.000 [" in text


def _write(path: Path, started_at: str) -> None:
    record = record_of({"baseline": {"q": [1.0]}})
    with RecordWriter(path, replace(record.header, run_name=path.stem, started_at=started_at)) as writer:
        for run in record.runs:
            writer.write(run)
        writer.write(FINISHED)


@pytest.mark.parametrize("name", ["", "*.jsonl", "[ab].jsonl"])
def test_read_results_takes_a_folder_and_a_pattern(tmp_path: Path, name: str) -> None:
    """The records are in the order of their start."""
    _write(tmp_path / "a.jsonl", "2026-01-02T00:00:00+00:00")
    _write(tmp_path / "b.jsonl", "2026-01-01T00:00:00+00:00")
    results = read_results(tmp_path / name)
    assert [record.header.run_name for record in results.records] == ["b", "a"]
    assert results.queries.run.tolist() == ["b", "a"]
    assert repr(read_results(str(tmp_path / "a.jsonl"))) == "<Results of 1 run: a (baseline; FINISHED)>"


def test_read_results_without_records_says_what_to_do(tmp_path: Path) -> None:
    """An empty folder is no result."""
    message = f"{tmp_path}: no record is there; measure first, or name a file, a folder or a pattern such as results/*.jsonl"
    with pytest.raises(RecordError, match=f"^{re.escape(message)}$"):
        read_results(tmp_path)

"""Remarks that figures are no result: queries that find nothing, and differences below the noise floor."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_pilotscope.measurement.answers import is_empty
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.report.remarks import no_results, record_remarks
from pytest_pilotscope.statistics.ranking import ranks
from pytest_pilotscope.statistics.summary import summarize
from pytest_pilotscope.statistics.verdict import verdict
from tests.record.building import record_of

STEADY = [10.0, 10.01, 10.02, 9.99, 10.0]


def compared(added_ms: float) -> Record:
    """Return four queries that take about 10 ms, and `added_ms` more on the other side in every round."""
    baseline = {f"q{i}": STEADY for i in range(4)}
    return record_of({"baseline": baseline, "mscn": {name: [time + added_ms for time in times] for name, times in baseline.items()}})


def texts(record: Record) -> list[str]:
    """Return the remarks."""
    return [remark.text for remark in no_results(record)]


def test_below_the_noise_floor() -> None:
    """0.3 ms per query are no result, even with a narrow interval: the queries tie, the ranks are equal, and a remark says so."""
    summary = summarize(compared(0.3))
    against = summary.sides["mscn"].against
    assert against is not None
    assert against.speedup.high < 1
    assert (against.wins, against.losses, against.ties) == (0, 0, 4)
    assert ranks(summary)["mscn"] == ranks(summary)["baseline"]
    (told,) = verdict(compared(0.3), summary)
    assert told.text == (
        "mscn cannot be told apart from PostgreSQL on stats_tiny (0.97 to 0.97 times as fast): they differ by 0.30 ms per query, less than "
        "the noise floor of 0.5 ms."
    )


def test_above_the_noise_floor() -> None:
    """0.8 ms per query in every round are a result."""
    summary = summarize(compared(0.8))
    against = summary.sides["mscn"].against
    assert against is not None
    assert (against.wins, against.losses, against.ties) == (0, 4, 0)
    assert texts(compared(0.8)) == []


@pytest.mark.parametrize(("empty", "told"), [(4, True), (3, True), (2, False)])
def test_empty_results_are_counted(empty: int, told: bool) -> None:
    """If more than half of the baseline's queries find nothing, a remark states their share."""
    record = compared(5.0)
    names = [f"q{i}" for i in range(empty)]
    warm = [replace(run, repetition=0, empty=run.query_id in names) for run in record.runs if run.repetition == 1]
    found = texts(replace(record, runs=(*record.runs, *warm)))
    expected = (
        f"{empty} of 4 queries ({empty / 4:.0%}) have an empty result: PostgreSQL stops as soon as it finds nothing to join, so these "
        "times say little about plans; use this data only to check that everything works"
    )
    assert found == ([expected] if told else [])


@pytest.mark.parametrize(
    ("rows", "empty"),
    [([], True), ([(0,)], True), ([(None, None)], True), ([(None, 1)], False), ([(0,), (0,)], False), ([("",)], False)],
)
def test_what_is_empty(rows: list[tuple[object, ...]], empty: bool) -> None:
    """An answer is empty if it has no row, or the single row of an aggregate over nothing."""
    assert is_empty(rows) is empty


def test_lines_that_were_left_out_are_told() -> None:
    """Remarks name a line that is cut off, and lines of unknown kinds."""
    record = replace(compared(0.8), truncated=True, ignored={"note": 2, "mark": 1})
    assert [remark.text for remark in record_remarks(record)] == [
        "The last line of the record is cut off and left out.",
        "2 lines of the record left out: this version does not know the kind 'note'.",
        "1 line of the record left out: this version does not know the kind 'mark'.",
    ]

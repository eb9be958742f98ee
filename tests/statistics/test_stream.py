"""The regret of the sides of a stream."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import StreamStep
from pytest_pilotscope.report.stream import regret_plots, stream_lines
from pytest_pilotscope.statistics.stream import regrets_of
from pytest_pilotscope.statistics.summary import metrics, summarize
from tests.record.building import record_of

SQL = {"1-a": "A", "2-b": "B", "3-a": "A", "4-a": "A"}


def streamed() -> Record:
    """Return a stream of four queries, three of them the same, with a write before the last."""
    times = {
        "baseline": {"1-a": [100.0], "2-b": [50.0], "3-a": [110.0], "4-a": [20.0]},
        "mine": {"1-a": [150.0], "2-b": [50.0], "3-a": [60.0], "4-a": [30.0]},
    }
    record = record_of(times, algorithm="mine")
    regret_ms = {"1-a": 50.0, "2-b": 50.0, "3-a": 0.0, "4-a": 10.0}

    def step(query_id: str, repeat: Literal["new", "exact"], writes: int = 0, write: str | None = None) -> StreamStep:
        return StreamStep(
            query_id=query_id,
            side="mine",
            original=query_id[2:],
            repeat=repeat,
            regret_ms=regret_ms[query_id],
            learning_ms=7.0,
            writes=writes,
            write=write,
        )

    steps = (step("1-a", "new"), step("2-b", "new"), step("3-a", "exact"), step("4-a", "exact", write="DELETE FROM t"))
    tags = {"stream": "4 queries: 2 new, 2 repeated exactly, 0 with other parameters; 1 write in between"}
    return replace(record, header=replace(record.header, queries=SQL, tags=tags), steps=steps)


def test_regret_is_summed_up_against_postgresql_and_against_the_best_known_time() -> None:
    """The best time of a statement is that of any side, anywhere in the stream, on the same data: 60 ms before the write, 20 ms after."""
    (regret,) = regrets_of(streamed()).values()
    assert regret.against_baseline_ms == (50.0, 50.0, 0.0, 10.0)
    assert regret.against_best_ms == pytest.approx((90.0, 90.0, 90.0, 100.0))
    assert regret.learning_ms == 28.0
    assert regrets_of(record_of({"baseline": {"q": [1.0]}, "mine": {"q": [1.0]}}, algorithm="mine")) == {}


def test_the_regret_is_in_the_figures_the_lines_and_a_plot() -> None:
    """Stores have it in seconds; the lines have it after each quarter of the stream."""
    record = streamed()
    found = metrics(summarize(record), "mine")
    assert (found["test_regret_time"], found["test_regret_best_time"]) == pytest.approx((0.01, 0.1))
    assert found["test_learning_time"] == pytest.approx(0.028)
    assert list(stream_lines(record)) == [
        f"stream: stats_tiny, {record.header.tags['stream']}",
        "  mine: regret against PostgreSQL +0.050 s after 1, +0.050 s after 2, +0.000 s after 3, +0.010 s after 4; against the best known "
        "+0.100 s",
        "  mine learned on the way for 0.028 s, which is in no query's time",
    ]
    (plot,) = regret_plots(record)
    assert (plot.name, plot.title) == ("regret", "Regret over time")
    assert list(regret_plots(replace(record, steps=()))) == []


def test_a_query_that_failed_adds_nothing() -> None:
    """Its time is unknown, so the curve stays where it was."""
    record = streamed()
    failed = tuple(replace(run, error="oops") if (run.query_id, run.side) == ("2-b", "mine") else run for run in record.runs)
    (regret,) = regrets_of(replace(record, runs=failed)).values()
    assert regret.against_best_ms == pytest.approx((90.0, 90.0, 90.0, 100.0))

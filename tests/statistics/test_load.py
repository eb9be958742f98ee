"""Throughput and latency under load."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from pytest_pilotscope.record.projection import runs_of
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import TimeSlice, WriteRun
from pytest_pilotscope.report.figure_table import figure_table
from pytest_pilotscope.report.remarks import all_remarks
from pytest_pilotscope.statistics.intervals import Interval
from pytest_pilotscope.statistics.load import load_of, rounds_until
from pytest_pilotscope.statistics.pairs import pairs_of
from pytest_pilotscope.statistics.summary import metrics, summarize
from tests.record.building import record_of, run_of


def loaded(factors: list[float]) -> Record:
    """Return slices of two clients and two queries; `mscn` takes `factors` times as long in each."""
    record = record_of({side: {"q0": [1.0] * len(factors), "q1": [1.0] * len(factors)} for side in ("baseline", "mscn")})
    runs, slices = [], []
    for number, factor in enumerate(factors, start=1):
        for side, times in (("baseline", 1.0), ("mscn", factor)):
            for client in (1, 2):
                runs += [replace(run_of(side, query, number, times * 10 * client), client=client) for query in ("q0", "q1")]
            slices.append(TimeSlice(side=side, repetition=number, order=0, duration_s=0.04 * times, executions=4))
    return replace(record, runs=tuple(runs), slices=tuple(slices))


def test_ratios_are_paired_by_slice() -> None:
    """A side that is twice as fast in every slice has a ratio of 2 without an interval; quantiles are over all executions."""
    load = load_of(loaded([0.5, 0.5, 0.5]), "mscn")
    assert load is not None
    assert load.throughput_per_s == pytest.approx(200)
    assert load.latency_ms[50] == pytest.approx(7.5)
    assert load.throughput is not None
    assert [load.throughput.estimate, load.throughput.low] == pytest.approx([2, 2])
    assert load.speedups is not None
    assert [load.speedups[quantile].estimate for quantile in (50, 95, 99)] == [pytest.approx(2)] * 3
    noisy = load_of(loaded([0.4, 0.5, 0.6]), "mscn")
    assert noisy is not None
    assert noisy.throughput is not None
    assert noisy.throughput.low < noisy.throughput.estimate < noisy.throughput.high


def test_the_baseline_has_no_ratio_and_one_slice_no_interval() -> None:
    """Without clients there is no load at all."""
    load = load_of(loaded([0.5]), "baseline")
    assert load is not None
    assert (load.throughput, load.speedups) == (None, None)
    single = load_of(loaded([0.5]), "mscn")
    assert single is not None
    assert single.throughput is not None
    assert (single.throughput.low, single.throughput.high) == (0.0, inf)
    assert load_of(replace(loaded([0.5]), slices=()), "mscn") is None


def test_two_slices_give_no_interval() -> None:
    """Two that happen to be alike would have one of no width; a remark names the rounds to measure."""
    record = loaded([0.5, 0.5])
    load = load_of(record, "mscn")
    assert load is not None
    assert load.throughput is not None
    assert (load.throughput.low, load.throughput.high) == (0.0, inf)
    texts = [remark.text for remark in all_remarks(record, summarize(record))]
    assert "mscn: 2 rounds of slices tell no interval of throughput; measure with --rounds 5 or more" in texts
    assert dict(figure_rows(record))["throughput [95 %]"] == ("-", "2.000 [unknown]")


def test_noisy_slices_name_the_rounds_that_would_tell() -> None:
    """The rounds are those with which the same noise gives an interval of 10 %."""
    record = loaded([0.4, 0.5, 0.6])
    texts = [remark.text for remark in all_remarks(record, summarize(record))]
    found = "mscn: 3 rounds of slices tell the throughput within a factor of 1.66 only; with this noise about 20 would tell within 10%"
    assert found in texts
    assert not [text for text in texts if "3 rounds of slices" in text and text != found]
    load = load_of(loaded([0.4, 0.5, 0.6] * 7), "mscn")
    assert load is not None
    assert load.throughput is not None
    assert load.throughput.high / load.throughput.estimate == pytest.approx(1.09, abs=0.01)
    quiet = loaded([0.5, 0.51, 0.5])
    assert not [remark for remark in all_remarks(quiet, summarize(quiet)) if "slices" in remark.text]
    assert rounds_until(Interval(estimate=1.0, low=1e-6, high=1e6), 3, 1.1) is None


def figure_rows(record: Record) -> list[tuple[str, tuple[str, ...]]]:
    """Return the names of all figures with their cells."""
    return [(figure.name, cells) for figure, cells in figure_table(summarize(record)).rows]


def test_the_clients_of_a_slice_are_one_pair() -> None:
    """They share the load of the slice, so that each query has one pair a slice: the mean of its clients."""
    pairs = pairs_of(loaded([0.5, 0.5]), "mscn")
    assert pairs.baseline_ms.tolist() == [[15.0, 15.0], [15.0, 15.0]]
    assert pairs.candidate_ms.tolist() == [[7.5, 7.5], [7.5, 7.5]]


def test_load_is_among_the_metrics() -> None:
    """Their names begin as those of other figures; times are in seconds."""
    found = metrics(summarize(loaded([0.5] * 3)), "mscn")
    assert {name: found[name] for name in found if "throughput" in name or "latency" in name} == pytest.approx(
        {
            "test_throughput": 200,
            "test_latency_p50": 0.0075,
            "test_latency_p95": 0.01,
            "test_latency_p99": 0.01,
            "test_throughput_ratio": 2,
            "test_throughput_ratio_ci_low": 2,
            "test_throughput_ratio_ci_high": 2,
        }
    )


def test_writes_have_figures_of_their_own() -> None:
    """A side whose scripts take twice as long in every slice has a ratio of a half without an interval, whatever its queries do."""
    record = loaded([0.5, 0.5, 0.5])
    writes = [
        WriteRun(side=side, script="s.sql", repetition=number, client=1, latency_ms=factor * latency_ms)
        for number in (1, 2, 3)
        for side, factor in (("baseline", 1.0), ("mscn", 2.0))
        for latency_ms in (1.0, 2.0, 3.0)
    ]
    record = replace(record, writes=tuple(writes))
    load = load_of(record, "mscn")
    assert load is not None
    assert load.writes is not None
    assert load.writes.speedup is not None
    assert (load.writes.throughput_per_s, load.writes.mean_ms, load.writes.latency_ms[50]) == pytest.approx((150, 4, 4))
    assert (load.writes.speedup.low, load.writes.speedup.estimate, load.writes.speedup.high) == pytest.approx((0.5, 0.5, 0.5))
    assert {q: found.estimate for q, found in (load.writes.speedups or {}).items()} == pytest.approx(dict.fromkeys((50, 95, 99), 0.5))
    baseline = load_of(record, "baseline")
    assert baseline is not None
    assert baseline.writes is not None
    assert (baseline.writes.speedup, baseline.writes.mean_ms) == (None, 2)
    found = metrics(summarize(record), "mscn")
    assert {name: found[name] for name in found if "write" in name} == pytest.approx(
        {
            "test_write_throughput": 150,
            "test_write_average_time": 0.004,
            "test_write_latency_p50": 0.004,
            "test_write_latency_p95": 0.006,
            "test_write_latency_p99": 0.006,
            "test_write_speedup": 0.5,
            "test_write_speedup_ci_low": 0.5,
            "test_write_speedup_ci_high": 0.5,
        }
    )
    texts = [remark.text for remark in all_remarks(record, summarize(record))]
    assert "mscn: a script of --writes takes 2.00 times as long as on the baseline [2.00, 2.00]" in texts
    (alone,) = runs_of(replace(record, header=replace(record.header, sides=("baseline", "mscn"))))
    assert alone.writes == record.writes

"""Throughput and latency of a side whose clients ran the workload at once, paired with the baseline slice by slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isinf, log, sqrt

import numpy as np
from scipy.special import stdtrit

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import TimeSlice
from pytest_pilotscope.statistics.intervals import CONFIDENCE, FEWEST_ROUNDS, Interval, exponentiated
from pytest_pilotscope.statistics.pairs import CLOCK_RESOLUTION_MS

QUANTILES = (50, 95, 99)
"""The quantiles of the latency, in per cent."""

MOST_ROUNDS = 1000
"""Nobody is advised to measure more."""

_LEAST = 1e-9
"""In place of 0, so that a ratio always exists."""

_ByRound = Mapping[int, Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """
    The figures of one side under load; `writes` are those of the scripts among its queries.

    `throughput_per_s` are the executions of all clients that ended, per second. `latency_ms` has quantiles over all executions, end to end,
    in per cent. `throughput` is this side / baseline, `speedups` are baseline / this side for each quantile, both above 1 if the side
    is faster; None and empty for the baseline.
    """

    throughput_per_s: float
    latency_ms: Mapping[int, float]
    throughput: Interval | None = None
    speedups: Mapping[int, Interval] | None = None
    writes: WriteLoad | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteLoad:
    """
    The figures of the scripts that write on one side.

    `throughput_per_s` are the runs of scripts of all clients per second, `mean_ms` is their mean latency, `latency_ms` has its quantiles,
    in per cent. `speedup` is baseline / this side of the mean, `speedups` of each quantile; None and empty for the baseline.
    """

    throughput_per_s: float
    mean_ms: float
    latency_ms: Mapping[int, float]
    speedup: Interval | None = None
    speedups: Mapping[int, Interval] | None = None


def load_of(record: Record, side: str) -> Load | None:
    """Return the load of a side; None without clients."""
    own, own_ms = _slices(record, side), _latencies(record, side)
    if not own:
        return None
    every_ms = [latency_ms for of_slice in own_ms.values() for latency_ms in of_slice]
    load = Load(
        throughput_per_s=sum(one.executions for one in own.values()) / max(sum(one.duration_s for one in own.values()), _LEAST),
        latency_ms={quantile: _quantile(every_ms, quantile) for quantile in QUANTILES},
        writes=_write_load(record, side),
    )
    baseline = record.header.baseline_side
    theirs, theirs_ms = _slices(record, baseline), _latencies(record, baseline)
    shared = sorted(own.keys() & theirs.keys())
    if side == baseline or not shared:
        return load
    throughput = interval_of_logs([log(_throughput(own[n]) / _throughput(theirs[n])) for n in shared])
    return replace(load, throughput=throughput, speedups=_speedups(own_ms, theirs_ms, shared))


def _write_load(record: Record, side: str) -> WriteLoad | None:
    own_ms = _write_latencies(record, side)
    if not own_ms:
        return None
    every_ms = [latency_ms for of_slice in own_ms.values() for latency_ms in of_slice]
    duration_s = sum(one.duration_s for one in _slices(record, side).values())
    load = WriteLoad(
        throughput_per_s=len(every_ms) / max(duration_s, _LEAST),
        mean_ms=float(np.mean(every_ms)),
        latency_ms={quantile: _quantile(every_ms, quantile) for quantile in QUANTILES},
    )
    theirs_ms = _write_latencies(record, record.header.baseline_side)
    shared = sorted(own_ms.keys() & theirs_ms.keys())
    if side == record.header.baseline_side or not shared:
        return load
    speedup = interval_of_logs(write_slow_downs(record, side)).inverse
    return replace(load, speedup=speedup, speedups=_speedups(own_ms, theirs_ms, shared))


def write_slow_downs(record: Record, side: str) -> list[float]:
    """Return, for each round, the log of the mean time of a script on a side / on the baseline."""
    own_ms, theirs_ms = (_write_latencies(record, name) for name in (side, record.header.baseline_side))
    means = [[max(float(np.mean(of[n])), _LEAST) for of in (own_ms, theirs_ms)] for n in sorted(own_ms.keys() & theirs_ms.keys())]
    return [log(own / theirs) for own, theirs in means]


def _speedups(own_ms: _ByRound, theirs_ms: _ByRound, shared: Sequence[int]) -> dict[int, Interval]:
    return {
        quantile: interval_of_logs(
            [log(_quantile(theirs_ms.get(n, []), quantile) / _quantile(own_ms.get(n, []), quantile)) for n in shared]
        )
        for quantile in QUANTILES
    }


def _slices(record: Record, side: str) -> dict[int, TimeSlice]:
    return {one.repetition: one for one in record.slices if one.side == side}


def _write_latencies(record: Record, side: str) -> _ByRound:
    found: dict[int, list[float]] = {}
    for run in record.writes:
        if run.side == side:
            found.setdefault(run.repetition, []).append(run.latency_ms)
    return found


def _latencies(record: Record, side: str) -> _ByRound:
    """Return the times of all executions that did not fail, by round."""
    found: dict[int, list[float]] = {}
    for run in record.measured(side):
        if run.error is None:
            found.setdefault(run.repetition, []).append(run.end_to_end_ms)
    return found


def _quantile(values_ms: Sequence[float], quantile: int) -> float:
    return max(float(np.quantile(values_ms, quantile / 100)), CLOCK_RESOLUTION_MS) if values_ms else CLOCK_RESOLUTION_MS


def _throughput(one: TimeSlice) -> float:
    return max(one.executions, _LEAST) / max(one.duration_s, _LEAST)


def interval_of_logs(logs: Sequence[float]) -> Interval:
    """Return the geometric mean of ratios, given by their logs, with Student's t interval; 0 to infinity for fewer than FEWEST_ROUNDS."""
    margin = float(np.std(logs, ddof=1)) * _margin(len(logs)) if len(logs) >= FEWEST_ROUNDS else inf
    return exponentiated(float(np.mean(logs)), margin)


def rounds_until(interval: Interval, rounds: int, factor: float) -> int | None:
    """Return the rounds after which an interval of `rounds` would reach no further than a factor; None if there are too many."""
    if isinf(interval.high):
        return None
    spread = log(interval.high / interval.estimate) / _margin(rounds)
    return next((number for number in range(rounds, MOST_ROUNDS + 1) if spread * _margin(number) <= log(factor)), None)


def _margin(rounds: int) -> float:
    """Return half the width of the interval of a log ratio for each standard deviation by which it differs from round to round."""
    return float(stdtrit(rounds - 1, (1 + CONFIDENCE) / 2)) / sqrt(rounds)

"""
The summary of a record by side: the figures of the terminal table, of MLflow and of `results/<run name>.json`.

If a query failed or was not measured, the figures cover only a part of the workload. The summary keeps them for display, but `metrics`
leaves them out, so that a run that failed half-way does not look like the fastest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import RunHeader
from pytest_pilotscope.statistics.accuracy import Quantiles
from pytest_pilotscope.statistics.figures import Against, SideSummary, summarize_side
from pytest_pilotscope.statistics.load import Load, WriteLoad
from pytest_pilotscope.statistics.stream import Regret, regrets_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of all sides of a record, in its order; of a stream also their `regrets`."""

    header: RunHeader
    status: str
    sides: Mapping[str, SideSummary]
    regrets: Mapping[str, Regret] = field(default_factory=dict)


def summarize(record: Record) -> Summary:
    """Return the figures of a record, also of an interrupted one."""
    sides = {side: summarize_side(record, side) for side in record.header.sides}
    return Summary(header=record.header, status=record.status, sides=sides, regrets=regrets_of(record))


def metrics(summary: Summary, side: str) -> dict[str, float]:
    """
    Return the values of one side by their fixed names (`test_total_time` and so on); times are in seconds.

    Leave out figures that do not exist for this side, that cover only a part of the workload, or that are infinite (the interval of a
    single round). Raise KeyError for a side that the record does not have.
    """
    this = summary.sides[side]
    values: dict[str, float | None] = {
        "test_query_count": this.query_count,
        "test_timeout_count": this.timeout_count,
        "test_error_count": this.error_count,
        "steered_ratio": this.steered_ratio,
    }
    if this.complete:
        values |= _times(this)
    if this.complete and this.against and not this.against.left_out:
        values |= _comparison(this.against)
    if this.complete and this.load:
        values |= _load(this.load)
    if this.complete and side in summary.regrets:
        values |= _regret(summary.regrets[side])
    if this.q_errors:
        values |= _quantiles("test_qerror", this.q_errors.all)
        values |= _quantiles("test_qerror_nonempty", this.q_errors.nonempty)
    values |= _quantiles("test_perror", this.p_errors)
    counts = {
        "test_perror_unknown_count": this.unknown_p_errors,
        "test_incomparable_count": this.incomparable_answers,
        "test_left_count": this.left_queries,
    }
    values |= {name: count for name, count in counts.items() if count}
    return {name: float(value) for name, value in values.items() if value is not None and isfinite(value)}


def summary_json(record: Record) -> dict[str, Any]:
    """
    Return the content of `results/<run name>.json`: `algorithm`, `database`, `timestamp`, `metrics` of the algorithm's side, `extra_info`.

    Metrics have the names of `metrics` without `test_`. All values are JSON values.
    """
    summary, header = summarize(record), record.header
    side = header.algorithm if header.algorithm in summary.sides else header.baseline_side
    return {
        "algorithm": header.algorithm,
        "database": header.dataset,
        "timestamp": header.started_at,
        "metrics": _json_metrics(summary, side),
        "extra_info": {
            "run_name": header.run_name,
            "status": summary.status,
            "parallel": header.parallel,
            "total_is_lower_bound": summary.sides[side].lower_bound,
            "parameters": dict(header.parameters),
            "fingerprints": dict(header.fingerprints),
            "server": dict(header.server),
            "sides": {name: _json_metrics(summary, name) for name in summary.sides},
            "regressions": {name: found.against.regressions for name, found in summary.sides.items() if found.against},
        },
    }


def _json_metrics(summary: Summary, side: str) -> dict[str, float | int]:
    whole = {"test_wins", "test_losses", "test_ties"}
    return {
        name.removeprefix("test_"): int(value) if name in whole or name.endswith("_count") else value
        for name, value in metrics(summary, side).items()
    }


def _times(side: SideSummary) -> dict[str, float | None]:
    return {
        "test_total_time": side.total_s,
        "test_average_time": side.average_s,
        "test_db_execution_time": side.planning_s + side.execution_s,
        "test_overhead_time": side.inference_s,
        "test_p50_time": side.p50_s,
        "test_p95_time": side.p95_s,
        "test_p99_time": side.p99_s,
    }


def _comparison(against: Against) -> dict[str, float | None]:
    return {
        "test_speedup": against.speedup.estimate,
        "test_speedup_ci_low": against.speedup.low,
        "test_speedup_ci_high": against.speedup.high,
        "test_wins": against.wins,
        "test_losses": against.losses,
        "test_ties": against.ties,
        "test_break_even": against.break_even.estimate if against.break_even else None,
    }


def _load(load: Load) -> dict[str, float | None]:
    values: dict[str, float | None] = {"test_throughput": load.throughput_per_s}
    values |= {f"test_latency_p{quantile}": latency_ms / 1e3 for quantile, latency_ms in load.latency_ms.items()}
    if load.throughput is not None:
        ratio = load.throughput
        values |= {
            "test_throughput_ratio": ratio.estimate,
            "test_throughput_ratio_ci_low": ratio.low,
            "test_throughput_ratio_ci_high": ratio.high,
        }
    return values | (_writes(load.writes) if load.writes else {})


def _writes(writes: WriteLoad) -> dict[str, float | None]:
    values: dict[str, float | None] = {"test_write_throughput": writes.throughput_per_s, "test_write_average_time": writes.mean_ms / 1e3}
    values |= {f"test_write_latency_p{quantile}": latency_ms / 1e3 for quantile, latency_ms in writes.latency_ms.items()}
    if (speedup := writes.speedup) is not None:
        values |= {
            "test_write_speedup": speedup.estimate,
            "test_write_speedup_ci_low": speedup.low,
            "test_write_speedup_ci_high": speedup.high,
        }
    return values


def _regret(regret: Regret) -> dict[str, float | None]:
    return {
        "test_regret_time": regret.against_baseline_ms[-1] / 1e3,
        "test_regret_best_time": regret.against_best_ms[-1] / 1e3,
        "test_learning_time": regret.learning_ms / 1e3,
    }


def _quantiles(name: str, values: Quantiles | None) -> dict[str, float]:
    return {f"{name}_{key}": value for key, value in asdict(values).items() if key != "count"} if values else {}

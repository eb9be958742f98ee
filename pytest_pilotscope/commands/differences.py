"""The differences of two results: each metric with its difference and verdict, each parameter equal or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pytest_pilotscope.record.results import Scalar
from pytest_pilotscope.statistics.direction import Direction, direction

Verdict = Literal["better", "worse", "equal"]

FINGERPRINT = "fingerprint."
"""The prefix of the tags that hold a run's fingerprints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One of the two results. `reference` is its run id in the store, or the path of its record."""

    reference: str
    name: str
    status: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPair:
    """
    One metric of both results; None where a result lacks it.

    `percent` is None if the first is zero. `verdict` judges the second; None if neither direction is better.
    """

    name: str
    first: float | None
    second: float | None
    difference: float | None
    percent: float | None
    verdict: Verdict | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterPair:
    """One parameter of both results; None where a result lacks it."""

    name: str
    first: Scalar
    second: Scalar
    equal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """
    Two results and their differences.

    `different` names the fingerprints (build, data, statistics, ...) that differ: then the times are not comparable. `speedups_overlap`
    is True if the intervals of the speed-ups overlap; None if a result has none.
    """

    first: Result
    second: Result
    metrics: tuple[MetricPair, ...]
    parameters: tuple[ParameterPair, ...]
    different: tuple[str, ...]
    speedups_overlap: bool | None


def compare(first: Result, second: Result) -> Differences:
    """Compare the second with the first."""
    return Differences(
        first=first,
        second=second,
        metrics=tuple(_metrics(first, second)),
        parameters=tuple(_parameters(first, second)),
        different=tuple(
            name
            for name in sorted(first.fingerprints.keys() & second.fingerprints.keys())
            if first.fingerprints[name] != second.fingerprints[name]
        ),
        speedups_overlap=_overlap(first.metrics, second.metrics),
    )


def _overlap(first: Mapping[str, float], second: Mapping[str, float]) -> bool | None:
    ends = [(of.get("test_speedup_ci_low"), of.get("test_speedup_ci_high")) for of in (first, second)]
    (first_low, first_high), (second_low, second_high) = ends
    if first_low is None or first_high is None or second_low is None or second_high is None:
        return None
    return first_low <= second_high and second_low <= first_high


def _metrics(first: Result, second: Result) -> Iterator[MetricPair]:
    targets = {str(result.parameters["target_metric"]) for result in (first, second) if "target_metric" in result.parameters}
    target = targets.pop() if len(targets) == 1 else None
    same = first.parameters.get("algorithm") == second.parameters.get("algorithm")
    for name in sorted(first.metrics.keys() | second.metrics.keys()):
        good = direction(name, target=target) if same or not name.endswith("_loss") else None  # each algorithm has a loss of its own
        yield _metric(name, first.metrics.get(name), second.metrics.get(name), good)


def _metric(name: str, first: float | None, second: float | None, good: Direction | None) -> MetricPair:
    if first is None or second is None:
        return MetricPair(name=name, first=first, second=second, difference=None, percent=None, verdict=None)
    difference = second - first
    return MetricPair(
        name=name,
        first=first,
        second=second,
        difference=difference,
        percent=100 * difference / abs(first) if first else None,
        verdict=_verdict(difference, good),
    )


def _verdict(difference: float, good: Direction | None) -> Verdict | None:
    if good is None or difference != difference:  # NaN is neither better nor worse
        return None
    if difference == 0:
        return "equal"
    return "better" if (difference < 0) == (good == "lower") else "worse"


def _parameters(first: Result, second: Result) -> Iterator[ParameterPair]:
    for name in sorted(first.parameters.keys() | second.parameters.keys()):
        both = name in first.parameters and name in second.parameters
        values = first.parameters.get(name), second.parameters.get(name)
        yield ParameterPair(name=name, first=values[0], second=values[1], equal=both and values[0] == values[1])

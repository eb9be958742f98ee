"""Find the runs of a trend: those of an experiment in the store, and those whose records are in the folder of results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import NoReturn

import click

from pytest_pilotscope.commands.differences import FINGERPRINT
from pytest_pilotscope.commands.output import show_json
from pytest_pilotscope.commands.two_runs import below, experiment_names
from pytest_pilotscope.errors import RecordError, UnknownName, UsageError, counted
from pytest_pilotscope.places.secret import StoreUri
from pytest_pilotscope.record.projection import runs_of
from pytest_pilotscope.record.record import Record, read_record
from pytest_pilotscope.record.results import PARTIAL
from pytest_pilotscope.report.trend import Change, TrendRun
from pytest_pilotscope.tracking.find import runs_of as runs_in_store
from pytest_pilotscope.tracking.publish import tested_metrics
from pytest_pilotscope.tracking.store import missing_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """The runs of an experiment that have a figure, and the others with the reason why they are left out."""

    runs: tuple[TrendRun, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A run wherever it is: `identity` is the same in the store and in its record."""

    name: str
    identity: str
    status: str
    started_at: datetime
    metrics: Mapping[str, float]
    commit: str | None
    conditions: Mapping[str, str]


def trend_of(experiment: str, metric: str, *, results: Path, limit: int, tracking_uri: str | StoreUri | None = None) -> Trend:
    """
    Return the newest runs of an experiment, each once: those of the store, if there is one, and those of the records in a folder.

    Raise `UsageError` if none has the figure, `UnknownName` for an experiment that is nowhere.
    """
    found = {run.identity: run for run in _recorded(experiment, results)}
    try:
        found |= {run.identity: run for run in _stored(experiment, limit, tracking_uri)}
    except UnknownName:
        if not found:
            raise
    if not found:
        _raise_unknown(experiment, results)
    newest = sorted(found.values(), key=lambda run: run.started_at)[-limit:]
    left_out = {run.name: why for run in newest if (why := _reason(run, metric))}
    runs = tuple(_run(run, metric) for run in newest if not _reason(run, metric))
    if not runs:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise UsageError(f"no run of {experiment!r} has a {metric!r} to show ({reasons})")
    return Trend(runs=runs, left_out=left_out)


def show_trend(path: Path, trend: Trend, changes: Sequence[Change], *, as_json: bool) -> None:
    """Show the path of the page, the number of its runs, and its changes."""
    if as_json:
        show_json({"trend": path, "runs": trend.runs, "changes": changes, "left_out": trend.left_out})
        return
    rest = f", {len(trend.left_out)} left out" if trend.left_out else ""
    click.echo(f"{path}: {counted(len(trend.runs), 'run')}{rest}, {counted(len(changes), 'change point')}")
    for change in changes:
        click.echo(f"  from {change.run.name} on: {change.before:.6g} before, {change.after:.6g} after, p = {change.p_value:.3f}")


def _stored(experiment: str, limit: int, tracking_uri: str | StoreUri | None) -> Iterator[_Found]:
    """Yield the newest runs of the store, if it exists."""
    if missing_store(tracking_uri) is not None:
        return
    for run in runs_in_store(experiment, limit=limit, tracking_uri=tracking_uri):
        tags = below(run, "tags.")
        commit = run.get("params.git_commit")
        yield _Found(
            name=run["run_name"],
            identity=tags.get("record_id", run["run_id"]),
            status=run["status"],
            started_at=run["start_time"],
            metrics=below(run, "metrics."),
            commit=None if commit == "None" else commit,
            conditions=_conditions(below(tags, FINGERPRINT), tags),
        )


def _raise_unknown(experiment: str, results: Path) -> NoReturn:
    known = experiment_names(results)
    if known:
        raise UnknownName("experiment", experiment, known)
    raise UsageError(
        f"unknown experiment {experiment!r}: there are no records in {results} and no MLflow store; run a benchmark first, or name the "
        "folder with --results or the store with --tracking-uri"
    )


def _recorded(experiment: str, results: Path) -> Iterator[_Found]:
    """Yield the runs of the records in a folder."""
    for path in sorted(results.glob("*.jsonl")):
        try:
            record = read_record(path)
        except RecordError:  # not a record
            continue
        yield from (_of_record(run) for run in runs_of(record) if f"{run.header.algorithm}_{run.header.dataset}" == experiment)


def _of_record(record: Record) -> _Found:
    header = record.header
    commit = header.parameters.get("git_commit")
    return _Found(
        name=header.run_name,
        identity=header.tags.get("record_id", header.run_name),
        status=record.status,
        started_at=datetime.fromisoformat(header.started_at),
        metrics=tested_metrics(record),
        commit=None if commit is None else str(commit),
        conditions=_conditions(header.fingerprints, header.tags),
    )


def _conditions(fingerprints: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """Return all that two runs must have in common to be on one line."""
    return {**fingerprints, **{name: tags[name] for name in (PARTIAL, "conditions", "variant") if name in tags}}


def _reason(run: _Found, metric: str) -> str:
    """Return why a run is left out; empty if it is shown."""
    if run.status != "FINISHED":
        return f"it is {run.status}"
    value = run.metrics.get(metric)
    if value is None:
        return f"it has no {metric}"
    return "" if isfinite(value) else f"its {metric} is {value}"


def _run(run: _Found, metric: str) -> TrendRun:
    ends = (run.metrics.get(f"{metric}_ci_{end}") for end in ("low", "high"))
    low, high = (end if end is not None and isfinite(end) else None for end in ends)
    return TrendRun(
        name=run.name,
        started_at=run.started_at,
        value=run.metrics[metric],
        low=low,
        high=high,
        commit=run.commit,
        conditions=run.conditions,
    )

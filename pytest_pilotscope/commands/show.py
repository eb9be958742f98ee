"""Show experiments, runs, differences of two runs, and sent records, as tables or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_pilotscope.commands.output import MISSING, Column, moment, number, say, show_json, show_table
from pytest_pilotscope.record.results import PARTIAL, Scalar
from pytest_pilotscope.tracking.find import SHORT_ID, Experiment

if TYPE_CHECKING:
    from pytest_pilotscope.commands.differences import Differences, MetricPair, Result
    from pytest_pilotscope.tracking.sync import Sent

RUNS_FIRST_TO_GO = ("took s", "p95 s", "started (UTC)", "timeouts", "errors", "queries", "total s", "interval", "name", "status")
"""The columns of `pilotscope runs` that a narrow terminal does without, in this order; a run's name has its start."""


def show_experiments(experiments: Sequence[Experiment], *, as_json: bool) -> None:
    """Show one line for each experiment."""
    if as_json:
        show_json(experiments)
    elif not experiments:
        say("no experiments yet; a benchmark makes one: pytest benchmarks --algo baseline --db stats_tiny")
    else:
        columns = (Column("experiment"), Column("runs", number=True), Column("newest run"), Column("status"), Column("started (UTC)"))
        show_table(columns, [_experiment(experiment) for experiment in experiments], first_to_go=("started (UTC)", "status", "runs"))


def show_runs(runs: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Show one line for each run, with its main figures."""
    if as_json:
        show_json(runs)
    elif not runs:
        click.echo("no runs yet")
    else:
        titles = ("queries", "total s", "p95 s", "speed-up", "interval", "timeouts", "errors")
        columns = [Column("run"), Column("name"), Column("status"), Column("started (UTC)"), Column("took s", number=True)]
        every = [*columns, *(Column(title, number=True) for title in titles)]
        show_table(every, [_run(run) for run in runs], first_to_go=RUNS_FIRST_TO_GO)


def show_best(best: Mapping[str, Any], *, ascending: bool, as_json: bool) -> None:
    """Show the best run with its parameters."""
    if as_json:
        show_json(best)
        return
    unit = " s" if best["metric_name"].endswith(("_time", "_seconds")) else ""
    click.echo(
        f"{best['metric_name']} = {number(best['metric_value'])}{unit}, the {'smallest' if ascending else 'largest'} of the finished runs"
    )
    click.echo(f"run {best['run_id']}  {best['run_name']}")
    click.echo(f"artifacts {best['artifact_uri']}\n")
    chosen = sorted((name, value) for name, value in best["params"].items() if value != str(None))
    show_table((Column("parameter"), Column("value")), chosen)


def show_comparison(comparison: Differences, *, as_json: bool) -> None:
    """Show metrics, then parameters, then the reasons why the two are hard to compare."""
    if as_json:
        show_json(comparison)
        return
    show_table(
        (Column(""), Column("name"), Column("status"), Column("what")),
        [_result("first", comparison.first), _result("second", comparison.second)],
        first_to_go=("what", "status"),
    )
    click.echo()
    columns = (Column("metric"), *(Column(title, number=True) for title in ("first", "second", "difference", "percent")))
    show_table((*columns, Column("second is")), [_metric(pair) for pair in comparison.metrics], first_to_go=("difference", "percent"))
    click.echo()
    differing = [pair for pair in comparison.parameters if not pair.equal]
    if differing:
        rows = [(pair.name, _scalar(pair.first), _scalar(pair.second)) for pair in differing]
        show_table((Column("parameter"), Column("first"), Column("second")), rows)
    equal = [pair.name for pair in comparison.parameters if pair.equal]
    say(f"equal parameters: {', '.join(equal) or 'none'}")
    if comparison.speedups_overlap:
        say("\nThe intervals of the two speed-ups overlap: neither is surely the faster one.")
    if comparison.different:
        say(
            f"\nThe two differ in {', '.join(comparison.different)}, so their times are not comparable; "
            "the speed-up, which each has over its own baseline, is."
        )


def show_sent(sent: Iterable[Sent], results: Path, *, as_json: bool) -> bool:
    """Show one line for each record; return False if one failed."""
    done = list(sent)
    if as_json:
        show_json(done)
    elif not done:
        click.echo(f"no records in {results}")
    else:
        columns = (Column("record"), Column("result"), Column("run"), Column("status"), Column("experiment"))
        show_table(columns, [_sent(one) for one in done], first_to_go=("experiment", "status", "run"))
        counts = {state: sum(one.state == state for one in done) for state in dict.fromkeys(one.state for one in done)}
        click.echo(f"\n{', '.join(f'{count} {state}' for state, count in counts.items())}")
    for one in done:
        if one.reason:
            click.echo(f"{one.path.name}: {one.reason}", err=True)
        if one.missing:
            click.echo(f"{one.path.name}: sent without artifacts that are not in its folder: {', '.join(one.missing)}", err=True)
    return all(one.state != "failed" for one in done)


def _experiment(experiment: Experiment) -> tuple[str, ...]:
    newest = experiment.newest or {}
    count = f"{experiment.runs}+" if experiment.more else str(experiment.runs)
    return (experiment.name, count, *(newest.get(key) or MISSING for key in ("run_name", "status")), moment(newest.get("start_time")))


def _run(run: Mapping[str, Any]) -> tuple[str, ...]:
    figures = {name: run.get(f"metrics.test_{name}") for name in ("total_time", "p95_time", "speedup", "timeout_count", "error_count")}
    return (
        run["run_id"][:SHORT_ID],
        run["run_name"],
        run["status"],
        moment(run["start_time"]),
        _took(run["start_time"], run["end_time"]),
        run.get(f"tags.{PARTIAL}", "").removesuffix(" queries") or number(run.get("metrics.test_query_count")),
        _rounded(figures["total_time"]),
        _rounded(figures["p95_time"]),
        _rounded(figures["speedup"]),
        _interval(run),
        number(figures["timeout_count"]),
        number(figures["error_count"]),
    )


def _rounded(value: float | None) -> str:
    """Return a figure with three decimals, as the summary of a run has it; no time is shown as zero."""
    return MISSING if value is None else f"{value:.3f}" if value >= 0.001 or value == 0 else f"{value:.2g}"


def _took(start: datetime | None, end: datetime | None) -> str:
    return f"{(end - start).total_seconds():.0f}" if start and end else MISSING


def _interval(run: Mapping[str, Any]) -> str:
    low, high = (run.get(f"metrics.test_speedup_ci_{end}") for end in ("low", "high"))
    return MISSING if low is None or high is None else f"{low:.3f}..{high:.3f}"


def _result(which: str, result: Result) -> tuple[str, ...]:
    return (which, result.name, result.status or MISSING, result.reference)


def _metric(pair: MetricPair) -> tuple[str, ...]:
    difference = MISSING if pair.difference is None else f"{pair.difference:+.6g}"
    percent = MISSING if pair.percent is None else f"{pair.percent:+.1f} %"
    return (pair.name, number(pair.first), number(pair.second), difference, percent, pair.verdict or MISSING)


def _sent(one: Sent) -> tuple[str, ...]:
    return (one.path.stem, one.state, (one.run_id or MISSING)[:SHORT_ID], one.status or MISSING, one.experiment or MISSING)


def _scalar(value: Scalar) -> str:
    return MISSING if value is None else str(value)

"""The syntax of the commands that read stored runs; each imports its work when it runs, so that help appears at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pytest_pilotscope.commands.shared_options import (
    experiment_names,
    json_option,
    policy_options,
    results_option,
    run_names,
    store_option,
)
from pytest_pilotscope.errors import UsageError

DEFAULT_LIMIT = 20
DEFAULT_METRIC = "test_total_time"
TREND_METRIC = "test_speedup"
DEFAULT_PORT = 5000
EXIT_FAULT = 1


@click.command("list")
@store_option
@json_option
def list_(tracking_uri: str | None, as_json: bool) -> None:
    """List the experiments."""
    from pytest_pilotscope.commands.show import show_experiments
    from pytest_pilotscope.tracking.find import experiments

    show_experiments(experiments(tracking_uri), as_json=as_json)


@click.command()
@click.argument("experiment", shell_complete=experiment_names)
@click.option("--limit", type=click.IntRange(min=1), default=DEFAULT_LIMIT, show_default=True, help="How many runs at most.")
@store_option
@json_option
def runs(experiment: str, limit: int, tracking_uri: str | None, as_json: bool) -> None:
    """List the runs of an EXPERIMENT, the newest first."""
    from pytest_pilotscope.commands.show import show_runs
    from pytest_pilotscope.tracking.find import runs_of

    show_runs(runs_of(experiment, limit=limit, tracking_uri=tracking_uri), as_json=as_json)


@click.command()
@click.argument("experiment", shell_complete=experiment_names)
@click.option("--metric", default=DEFAULT_METRIC, show_default=True, help="The metric that decides.")
@click.option("--maximize/--minimize", default=None, help="Which direction is better; without it, the metric's name tells.")
@click.option("--partial", is_flag=True, help="Include runs of some test queries only (--limit, --queries).")
@store_option
@json_option
def best(experiment: str, metric: str, maximize: bool | None, partial: bool, tracking_uri: str | None, as_json: bool) -> None:
    """Show the best finished run of an EXPERIMENT."""
    from pytest_pilotscope.commands.show import show_best
    from pytest_pilotscope.statistics.direction import direction
    from pytest_pilotscope.tracking.find import best_of

    ascending = direction(metric) != "higher" if maximize is None else not maximize
    found = best_of(experiment, metric, ascending=ascending, partial=partial, tracking_uri=tracking_uri)
    show_best(found, ascending=ascending, as_json=as_json)


@click.command()
@click.argument("run", nargs=-1, shell_complete=run_names)
@click.option("--files", nargs=2, type=click.Path(path_type=Path), metavar="A.jsonl B.jsonl", help="Compare two records instead.")
@click.option("--latest", nargs=2, metavar="ALGO ALGO", help="Compare the newest records of two algorithms instead.")
@click.option("--db", metavar="NAME", help="The database, with --latest.")
@results_option
@store_option
@json_option
def compare(
    run: tuple[str, ...],
    files: tuple[Path, Path] | None,
    latest: tuple[str, str] | None,
    db: str | None,
    results: Path,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """
    Compare two runs.

    Each RUN is the beginning of a run id, or a run's name. The tables show every metric with its difference and whether the second run is
    better, and every parameter as equal or not.
    """
    from pytest_pilotscope.commands.differences import compare as compared
    from pytest_pilotscope.commands.show import show_comparison
    from pytest_pilotscope.commands.two_runs import two_results

    first, second = two_results(run, files=files, latest=latest, database=db, results=results, tracking_uri=tracking_uri)
    show_comparison(compared(first, second), as_json=as_json)


@click.command()
@click.argument("base", shell_complete=run_names)
@click.argument("head", shell_complete=run_names)
@policy_options
@click.option("--junitxml", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write each verdict as a test.")
@click.option("--annotate", type=click.Choice(["github"]), help="Print annotations for GitHub Actions, too.")
@results_option
@store_option
@json_option
def gate(
    base: str,
    head: str,
    junitxml: Path | None,
    annotate: str | None,
    results: Path,
    tracking_uri: str | None,
    as_json: bool,
    **policy: Any,
) -> None:
    """
    Judge the stored run HEAD by the stored BASE.

    Each is a record, a pytest-benchmark JSON, a folder of records, the name of a record in the folder of results, the beginning of a run
    id, or a run's name; BASE may also be mlflow:EXPERIMENT, or baseline. The exit code is 1 if HEAD is worse, or cannot be compared.
    """
    from pytest_pilotscope.commands.gating import judged, show_judgement, write_junit

    if as_json and annotate:
        raise UsageError("--json and --annotate both write to standard output; leave one of them out")
    judgement = judged(base, head, policy, results=results, tracking_uri=tracking_uri)
    if junitxml is not None:
        write_junit(junitxml, judgement)
    show_judgement(judgement, annotate=annotate is not None, as_json=as_json)
    if judgement.exit_code:
        raise SystemExit(EXIT_FAULT)


@click.command()
@click.argument("run", nargs=-1, required=True, shell_complete=run_names)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("report.html"), show_default=True)
@results_option
@store_option
@json_option
def report(run: tuple[str, ...], output: Path, results: Path, tracking_uri: str | None, as_json: bool) -> None:
    """
    Write a page with tables, plots and plans of runs.

    Each RUN is a record or a pytest-benchmark JSON, the name of a record in the folder of results, the beginning of a run id, or a run's
    name.
    """
    from pytest_pilotscope.commands.reporting import records_of, show_report
    from pytest_pilotscope.report.page import write_page

    records = records_of(run, results=results, tracking_uri=tracking_uri)
    show_report(write_page(output, records), records, as_json=as_json)


@click.command()
@click.argument("experiment", shell_complete=experiment_names)
@click.option("--metric", default=TREND_METRIC, show_default=True, help="The figure to show.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many of the newest runs.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("trend.html"), show_default=True)
@results_option
@store_option
@json_option
def trend(experiment: str, metric: str, limit: int, output: Path, results: Path, tracking_uri: str | None, as_json: bool) -> None:
    """
    Write a page with a figure of an EXPERIMENT over its runs.

    The runs are those of the store, if there is one, and of the records in the folder of results. Comparable runs are on one line. Change
    points inform; they fail nothing.
    """
    from pytest_pilotscope.commands.trending import show_trend, trend_of
    from pytest_pilotscope.report.trend import write_trend

    found = trend_of(experiment, metric, results=results, limit=limit, tracking_uri=tracking_uri)
    changes = write_trend(output, f"{metric} of {experiment}", metric, found.runs, left_out=found.left_out)
    show_trend(output, found, changes, as_json=as_json)


@click.command()
@click.argument("run", shell_complete=run_names)
@click.option("--algo", metavar="NAME", help="The algorithm, if there are several in RUN.")
@click.option("--database", metavar="NAME", help="The database that gets settings of sessions; else the measured one.")
@click.option("--role", metavar="NAME", help="The role that gets settings of sessions; with --database in that database only.")
@click.option("--undo", is_flag=True, help="Write the statements that undo it.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write to a file.")
@results_option
@store_option
def export(
    run: str,
    algo: str | None,
    database: str | None,
    role: str | None,
    undo: bool,
    output: Path | None,
    results: Path,
    tracking_uri: str | None,
) -> None:
    """
    Print what RUN has won beyond noise as SQL.

    Those are indexes, settings, and hints of pg_hint_plan, with intervals as comments, and the statements that undo them. RUN is a record,
    the name of one in the folder of results, the beginning of a run id, or a run's name.
    """
    from pytest_pilotscope.commands.export.changes import Scope
    from pytest_pilotscope.commands.export.script import chosen_run, script
    from pytest_pilotscope.commands.reporting import records_of
    from pytest_pilotscope.places.privatefiles import private_folder, write_private

    chosen = chosen_run(records_of((run,), results=results, tracking_uri=tracking_uri), algo)
    measured = chosen.header.tags.get("dataset.db", chosen.header.dataset)
    text = script(chosen, Scope(database=database if database or role else measured, role=role), undo=undo)
    if output is None:
        click.echo(text, nl=False)
    else:
        private_folder(output.parent)
        write_private(output, text)
        click.echo(f"{output}: {chosen.header.run_name}")


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True, help="Port on 127.0.0.1.")
@store_option
@json_option
def ui(port: int, tracking_uri: str | None, as_json: bool) -> None:
    """Show the store in MLflow's UI, on this machine only."""
    from pytest_pilotscope.commands.ui import announce, check_ui, run_ui

    uri = check_ui(port, tracking_uri)
    announce(uri, port, as_json=as_json)
    run_ui(uri, port)


@click.command()
@results_option
@store_option
@json_option
def sync(results: Path, tracking_uri: str | None, as_json: bool) -> None:
    """
    Send records that the store lacks.

    Those are records without a run in the store, or with an unfinished one; nothing is sent twice.
    """
    from pytest_pilotscope.commands.show import show_sent
    from pytest_pilotscope.tracking.sync import sync as sent

    if not show_sent(sent(results, tracking_uri=tracking_uri), results, as_json=as_json):
        raise SystemExit(EXIT_FAULT)


COMMANDS = (list_, runs, best, compare, gate, report, trend, export, ui, sync)
"""Those that `cli` adds to the group."""

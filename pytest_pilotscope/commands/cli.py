"""
The syntax of the `pilotscope` command. Each command imports its work from `commands/` when it runs, so that help appears at once.

click is used because MLflow depends on it already, it completes in the shell, suggests near matches, and tests can run its commands.

Exit codes: 0 done; 1 a fault (the store, a check of the doctor, a record that could not be sent, a gate that failed); 2 wrong usage.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from pytest_pilotscope.commands.policy_options import policy_options
from pytest_pilotscope.errors import PilotscopeError, UsageError, counted, shortened

F = TypeVar("F", bound=Callable[..., Any])

PROGRAM = "pilotscope"
DEFAULT_LIMIT = 20
DEFAULT_METRIC = "test_total_time"
TREND_METRIC = "test_speedup"
DEFAULT_PORT = 5000
_EXIT_FAULT = 1


class _Fault(click.ClickException):
    """A fault: exit code 1."""

    exit_code = _EXIT_FAULT


class _Misuse(click.ClickException):
    """Wrong usage: exit code 2."""

    exit_code = 2


class _Commands(click.Group):
    """A group of commands that shows our own errors in one line, without a traceback."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the program; escape what the terminal cannot show, such as a file name that is not UTF-8."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return super().main(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn our errors, and those of files that cannot be used, into click's."""
        try:
            return super().invoke(ctx)
        except PilotscopeError as error:
            raise (_Misuse if isinstance(error, UsageError) else _Fault)(str(error)) from error
        except OSError as error:
            if error.filename is None:  # such as a closed pipe, which click knows
                raise
            raise _Fault(f"{shortened(str(error.filename))}: {error.strerror}; give another file or folder") from error


def _json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def _store_option(command: F) -> F:
    text = "The MLflow store; else MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."
    return click.option("--tracking-uri", metavar="URI", help=text)(command)


def _results_option(command: F) -> F:
    kind = click.Path(path_type=Path, file_okay=False)
    return click.option("--results", type=kind, default=Path("results"), show_default=True, help="Folder of the records.")(command)


def _server_options(command: F) -> F:
    server = click.option(
        "--server", default="auto", show_default=True, metavar="auto|embedded|container|DSN", help="The PostgreSQL to use."
    )
    bindir = click.option("--pg-bindir", type=click.Path(path_type=Path), metavar="DIR", help="bin directory of the PostgreSQL to embed.")
    major = click.option("--pg-version", type=click.IntRange(min=1), metavar="MAJOR", help="PostgreSQL major version to embed or to run.")
    return server(bindir(major(command)))


def _run_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete from the records in the folder of results, because asking MLflow takes seconds."""
    from pytest_pilotscope.commands.two_runs import names

    folder = context.params.get("results") or Path("results")
    return [CompletionItem(name) for name in names(folder) if name.startswith(incomplete)]


def _experiment_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from pytest_pilotscope.commands.two_runs import experiment_names

    return [CompletionItem(name) for name in experiment_names(Path("results")) if name.startswith(incomplete)]


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pytest-pilotscope", prog_name=PROGRAM)
def cli() -> None:
    """Look at the measurements of pytest-pilotscope, and check this machine."""


@cli.command("list")
@_store_option
@_json_option
def list_(tracking_uri: str | None, as_json: bool) -> None:
    """List the experiments."""
    from pytest_pilotscope.commands.show import show_experiments
    from pytest_pilotscope.tracking.find import experiments

    show_experiments(experiments(tracking_uri), as_json=as_json)


@cli.command()
@click.argument("experiment", shell_complete=_experiment_names)
@click.option("--limit", type=click.IntRange(min=1), default=DEFAULT_LIMIT, show_default=True, help="How many runs at most.")
@_store_option
@_json_option
def runs(experiment: str, limit: int, tracking_uri: str | None, as_json: bool) -> None:
    """List the runs of an EXPERIMENT, the newest first."""
    from pytest_pilotscope.commands.show import show_runs
    from pytest_pilotscope.tracking.find import runs_of

    show_runs(runs_of(experiment, limit=limit, tracking_uri=tracking_uri), as_json=as_json)


@cli.command()
@click.argument("experiment", shell_complete=_experiment_names)
@click.option("--metric", default=DEFAULT_METRIC, show_default=True, help="The metric that decides.")
@click.option("--maximize/--minimize", default=None, help="Which direction is better; without it, the metric's name tells.")
@click.option("--partial", is_flag=True, help="Include runs of some test queries only (--limit, --queries).")
@_store_option
@_json_option
def best(experiment: str, metric: str, maximize: bool | None, partial: bool, tracking_uri: str | None, as_json: bool) -> None:
    """Show the best finished run of an EXPERIMENT."""
    from pytest_pilotscope.commands.show import show_best
    from pytest_pilotscope.statistics.direction import direction
    from pytest_pilotscope.tracking.find import best_of

    ascending = direction(metric) != "higher" if maximize is None else not maximize
    found = best_of(experiment, metric, ascending=ascending, partial=partial, tracking_uri=tracking_uri)
    show_best(found, ascending=ascending, as_json=as_json)


@cli.command()
@click.argument("run", nargs=-1, shell_complete=_run_names)
@click.option("--files", nargs=2, type=click.Path(path_type=Path), metavar="A.jsonl B.jsonl", help="Compare two records instead.")
@click.option("--latest", nargs=2, metavar="ALGO ALGO", help="Compare the newest records of two algorithms instead.")
@click.option("--db", metavar="NAME", help="The database, with --latest.")
@_results_option
@_store_option
@_json_option
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


@cli.command()
@click.argument("base", shell_complete=_run_names)
@click.argument("head", shell_complete=_run_names)
@policy_options
@click.option("--junitxml", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write each verdict as a test.")
@click.option("--annotate", type=click.Choice(["github"]), help="Print annotations for GitHub Actions, too.")
@_results_option
@_store_option
@_json_option
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
        raise SystemExit(_EXIT_FAULT)


@cli.command()
@click.argument("run", nargs=-1, required=True, shell_complete=_run_names)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("report.html"), show_default=True)
@_results_option
@_store_option
@_json_option
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


@cli.command()
@click.argument("experiment", shell_complete=_experiment_names)
@click.option("--metric", default=TREND_METRIC, show_default=True, help="The figure to show.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many of the newest runs.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("trend.html"), show_default=True)
@_results_option
@_store_option
@_json_option
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


@cli.command()
@click.argument("run", shell_complete=_run_names)
@click.option("--algo", metavar="NAME", help="The algorithm, if there are several in RUN.")
@click.option("--database", metavar="NAME", help="The database that gets settings of sessions; else the measured one.")
@click.option("--role", metavar="NAME", help="The role that gets settings of sessions; with --database in that database only.")
@click.option("--undo", is_flag=True, help="Write the statements that undo it.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write to a file.")
@_results_option
@_store_option
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


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True, help="Port on 127.0.0.1.")
@_store_option
@_json_option
def ui(port: int, tracking_uri: str | None, as_json: bool) -> None:
    """Show the store in MLflow's UI, on this machine only."""
    from pytest_pilotscope.commands.ui import announce, check_ui, run_ui

    uri = check_ui(port, tracking_uri)
    announce(uri, port, as_json=as_json)
    run_ui(uri, port)


@cli.command()
@_results_option
@_store_option
@_json_option
def sync(results: Path, tracking_uri: str | None, as_json: bool) -> None:
    """
    Send records that the store lacks.

    Those are records without a run in the store, or with an unfinished one; nothing is sent twice.
    """
    from pytest_pilotscope.commands.show import show_sent
    from pytest_pilotscope.tracking.sync import sync as sent

    if not show_sent(sent(results, tracking_uri=tracking_uri), results, as_json=as_json):
        raise SystemExit(_EXIT_FAULT)


@cli.command()
@_server_options
@_store_option
@_json_option
def doctor(server: str, pg_bindir: Path | None, pg_version: int | None, tracking_uri: str | None, as_json: bool) -> None:
    """Check this machine, and say how to repair faults."""
    from pytest_pilotscope.commands.doctor import examine, show_checks
    from pytest_pilotscope.provision.database import PostgreSQLConfig

    config = PostgreSQLConfig(server=server, pg_bindir=pg_bindir, pg_version=pg_version)
    if not show_checks(examine(config, tracking_uri), as_json=as_json):
        raise SystemExit(_EXIT_FAULT)


def _workload_options(command: F) -> F:
    options = (
        click.option("--db", metavar="NAME", help="The dataset; else the database that the DSN of --server names."),
        click.option("--queries-dir", type=click.Path(path_type=Path, exists=True), metavar="PATH", help="Folder or file of queries."),
        _server_options,
        click.option("--allow-changes", multiple=True, metavar="databases", help="Let --db make databases on the server of a DSN."),
        click.option("--scale", type=float, help="Size of a generated dataset."),
        click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Files of a published dataset."),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For what is drawn at random."),
        click.option("--limit", type=click.IntRange(min=1), help="How many queries at most."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@cli.command()
@_workload_options
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), required=True, help="A .jsonl, .csv or .parquet file.")
@click.option("--true-rows", is_flag=True, help="Count the true rows of each set, too.")
def subplans(queries_dir: Path | None, output: Path, limit: int | None, true_rows: bool, **config: Any) -> None:
    """
    Write every subplan of the test queries to a file.

    A line has the query, the aliases of the set, the SQL that counts it and PostgreSQL's estimate. Fill in `rows` with other estimates and
    measure them: pytest benchmarks --algo replay --replay-estimates FILE
    """
    from pytest_pilotscope.commands.subplans import write_subplans
    from pytest_pilotscope.provision.database import PostgreSQLConfig

    count = write_subplans(PostgreSQLConfig(**config), queries_dir, output, limit=limit, true_rows=true_rows)
    click.echo(f"{counted(count, 'subplan')} in {output}")


@cli.command("verify-labels")
@_workload_options
@click.option("--plans", type=click.IntRange(min=1), default=6, show_default=True, help="Different plans to execute for each query.")
@click.option("--timeout-ms", type=click.IntRange(min=1), default=60_000, show_default=True, help="Limit of each count and execution.")
@_json_option
def verify_labels(queries_dir: Path | None, limit: int | None, plans: int, timeout_ms: int, as_json: bool, **config: Any) -> None:
    """
    Compare labels with COUNT(*) and with executed plans.

    For every set of relations of every query, the label, its SQL, and the plan nodes that join exactly this set must agree. The command
    writes nothing to the database; with --db on a server of yours, it loads the dataset there and works in a copy, which it drops.
    """
    from pytest_pilotscope.commands.verifying import show_verification
    from pytest_pilotscope.commands.verifying import verify_labels as verified
    from pytest_pilotscope.provision.database import PostgreSQLConfig

    found = verified(PostgreSQLConfig(**config), queries_dir, limit=limit, plans=plans, timeout_ms=timeout_ms)
    show_verification(found, as_json=as_json)
    if found.mismatches:
        raise SystemExit(_EXIT_FAULT)


@cli.command()
@click.option("--yes", is_flag=True, help="Remove the entries that are not in use; without it, only list them.")
@_json_option
def clean(yes: bool, as_json: bool) -> None:
    """
    List the cache folder, or remove its entries.

    Entries are prepared databases, libraries and leftovers of servers; a run makes again what it needs.
    """
    from pytest_pilotscope.commands.cleaning import clean as cleaned
    from pytest_pilotscope.commands.cleaning import show_cleaning
    from pytest_pilotscope.places.folders import cache_folder

    cleaning = cleaned(cache_folder(), remove=yes)
    show_cleaning(cleaning, remove=yes, as_json=as_json)
    if cleaning.failures:
        raise SystemExit(_EXIT_FAULT)


@cli.group()
def workload() -> None:
    """Make workloads."""


@workload.command("from-log")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("workload"), show_default=True)
@click.option("--split", type=click.Choice(["random", "template"]), default="random", show_default=True, help="How to divide the queries.")
@click.option("--db", metavar="NAME", help="Only statements that ran in this database.")
@click.option(
    "--per-template", type=click.IntRange(min=1), default=20, show_default=True, help="Different queries of one template at most."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@_json_option
def from_log(file: Path, output: Path, split: Any, db: str | None, per_template: int, seed: int, as_json: bool) -> None:
    """
    Make a workload from a server's log.

    FILE is a csvlog or jsonlog of PostgreSQL, or a CSV export of pg_stat_statements. The command extracts the queries with their constants,
    keeps each once, and writes one file each to the folders train, validation and test of --output.
    """
    from pytest_pilotscope.commands.server_log import from_log as made

    made(file, output, split=split, database=db, per_template=per_template, seed=seed, as_json=as_json)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """
    Print a script that completes this command in the shell.

    For instance in ~/.bashrc: eval "$(pilotscope completion bash)"
    """
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    if script is None:  # pragma: no cover - click has all three
        raise UsageError(f"no completion for {shell}")
    click.echo(script(cli, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())


def main() -> None:
    """Run the command line of this process."""
    cli(prog_name=PROGRAM)


if __name__ == "__main__":
    main()

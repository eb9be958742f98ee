"""
The syntax of the `pilotscope` command. Each command imports its work from `commands/` when it runs, so that help appears at once.

click is used because MLflow depends on it already, it completes in the shell, suggests near matches, and tests can run its commands.

Exit codes: 0 done; 1 a fault (the store, a check of the doctor, a record that could not be sent, a gate that failed); 2 wrong usage.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import click

from pytest_pilotscope.commands.run_commands import COMMANDS, EXIT_FAULT
from pytest_pilotscope.commands.shared_options import json_option, server_options, store_option, workload_options
from pytest_pilotscope.errors import PilotscopeError, UsageError, counted, shortened

PROGRAM = "pilotscope"


class _Fault(click.ClickException):
    """A fault: exit code 1."""

    exit_code = EXIT_FAULT


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
        except UnicodeEncodeError as error:  # of a name that no file system has
            raise _Misuse(f"{error.object!a} cannot be the name of a file; give another one") from error
        except OSError as error:
            if error.filename is None:  # such as a closed pipe, which click knows
                raise
            raise _Fault(f"{shortened(str(error.filename))}: {error.strerror}; give another file or folder") from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pytest-pilotscope", prog_name=PROGRAM)
def cli() -> None:
    """Look at the measurements of pytest-pilotscope, and check this machine."""


for _command in COMMANDS:
    cli.add_command(_command)


@cli.command()
@server_options
@store_option
@json_option
def doctor(server: str, pg_bindir: Path | None, pg_version: int | None, tracking_uri: str | None, as_json: bool) -> None:
    """Check this machine, and say how to repair faults."""
    from pytest_pilotscope.commands.doctor import examine, show_checks
    from pytest_pilotscope.provision.database import PostgreSQLConfig

    config = PostgreSQLConfig(server=server, pg_bindir=pg_bindir, pg_version=pg_version)
    if not show_checks(examine(config, tracking_uri), as_json=as_json):
        raise SystemExit(EXIT_FAULT)


@cli.command()
@workload_options
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
@workload_options
@click.option("--plans", type=click.IntRange(min=1), default=6, show_default=True, help="Different plans to execute for each query.")
@click.option("--timeout-ms", type=click.IntRange(min=1), default=60_000, show_default=True, help="Limit of each count and execution.")
@json_option
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
        raise SystemExit(EXIT_FAULT)


@cli.command()
@click.option("--yes", is_flag=True, help="Remove the entries that are not in use; without it, only list them.")
@json_option
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
        raise SystemExit(EXIT_FAULT)


@cli.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
@json_option
def init(folder: Path, as_json: bool) -> None:
    """
    Write a small project with an algorithm of your own.

    FOLDER (the current one without it) gets a conftest.py with a commented algorithm, the test of its contract, the benchmark, and a job
    for GitHub Actions. Nothing is overwritten.
    """
    from pytest_pilotscope.commands.starting import show_project, start_project

    show_project(folder, start_project(folder), as_json=as_json)


@cli.command("install-library")
@click.argument("dsn")
@click.option("--pg-bindir", type=click.Path(path_type=Path), metavar="DIR", help="bin directory of the PostgreSQL whose headers to use.")
@json_option
def install_library(dsn: str, pg_bindir: Path | None, as_json: bool) -> None:
    """
    Build the steering library for a server of yours.

    DSN is its connection string. The command changes nothing there; it prints the two commands that an administrator runs.
    """
    from pytest_pilotscope.commands.installing import install_library as installed
    from pytest_pilotscope.commands.installing import show_installation

    show_installation(installed(dsn, pg_bindir), as_json=as_json)


def _sample(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    from pytest_pilotscope.commands.cloning import Sample

    try:
        return None if text is None else Sample.read(text)
    except argparse.ArgumentTypeError as error:
        raise click.BadParameter(str(error)) from error


@cli.command()
@click.argument("dsn")
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="The dump to write; gzipped if it ends in .gz.")
@click.option("--sample", callback=_sample, metavar="SHARE|ROWS", help="Rows of each table: 10%, or 5000; and all that they refer to.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For what is drawn at random.")
@json_option
def clone(dsn: str, output: Path, sample: Any, seed: int, as_json: bool) -> None:
    """
    Make a dump of a database that you may only read.

    DSN is its connection string, such as postgresql://me@db.example/shop. Nothing is written there. Without --sample, all rows are taken.
    """
    from pytest_pilotscope.commands.cloning import clone as cloned
    from pytest_pilotscope.commands.cloning import show_clone

    show_clone(cloned(dsn, output, sample=sample, seed=seed, say=lambda text: click.echo(text, err=True)), as_json=as_json)


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
@json_option
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

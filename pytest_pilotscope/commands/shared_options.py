"""
Options that several commands have, and the names that complete in the shell.

The options of the gate are those that pytest has, with the same names, checks and help.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from pytest_pilotscope.options.declaring import Option
from pytest_pilotscope.options.settings import OPTIONS

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def store_option(command: F) -> F:
    """Add --tracking-uri."""
    text = "The MLflow store; else MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."
    return click.option("--tracking-uri", metavar="URI", help=text)(command)


def results_option(command: F) -> F:
    """Add --results."""
    kind = click.Path(path_type=Path, file_okay=False)
    return click.option("--results", type=kind, default=Path("results"), show_default=True, help="Folder of the records.")(command)


def server_options(command: F) -> F:
    """Add the options that choose a server."""
    server = click.option(
        "--server", default="auto", show_default=True, metavar="auto|embedded|container|DSN", help="The PostgreSQL to use."
    )
    bindir = click.option("--pg-bindir", type=click.Path(path_type=Path), metavar="DIR", help="bin directory of the PostgreSQL to embed.")
    major = click.option("--pg-version", type=click.IntRange(min=1), metavar="MAJOR", help="PostgreSQL major version to embed or to run.")
    return server(bindir(major(command)))


def run_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete from the records in the folder of results, because asking MLflow takes seconds."""
    from pytest_pilotscope.commands.two_runs import names

    folder = context.params.get("results") or Path("results")
    return [CompletionItem(name) for name in names(folder) if name.startswith(incomplete)]


def experiment_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete from the names of these records."""
    from pytest_pilotscope.commands.two_runs import experiment_names as known

    return [CompletionItem(name) for name in known(Path("results")) if name.startswith(incomplete)]


def workload_options(command: F) -> F:
    """Add the options that choose a database and its queries."""
    options = (
        click.option("--db", metavar="NAME", help="The dataset; else the database that the DSN of --server names."),
        click.option("--queries-dir", type=click.Path(path_type=Path, exists=True), metavar="PATH", help="Folder or file of queries."),
        server_options,
        click.option("--allow-changes", multiple=True, metavar="databases", help="Let --db make databases on the server of a DSN."),
        click.option("--scale", type=float, help="Size of a generated dataset."),
        click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Files of a published dataset."),
        click.option(
            "--dump", type=click.Path(path_type=Path), metavar="PATH", help="Dump of a database of yours, under the name of --db."
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For what is drawn at random."),
        click.option("--limit", type=click.IntRange(min=1), help="How many queries at most."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def policy_options(command: F) -> F:
    """Add every option whose name begins with `--gate-`; a command gets None, or () for one that repeats, if it is not given."""
    for option in reversed([option for option in OPTIONS if option.key.startswith("gate_")]):
        command = click.option(
            f"--{option.name}",
            option.key,
            callback=_reader(option),
            metavar=option.metavar or "|".join(option.choices),
            multiple=option.repeats,
            help=option.help_with_default,
        )(command)
    return command


def _reader(option: Option) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def read(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        """Read what was given; click shows what was expected instead of a wrong value."""
        try:
            if option.repeats:
                return tuple(map(option.read, value))
            return None if value is None else option.read(value)
        except argparse.ArgumentTypeError as error:
            raise click.BadParameter(str(error), context, parameter) from error

    return read

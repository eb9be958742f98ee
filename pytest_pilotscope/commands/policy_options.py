"""The options of the gate for a command: those that pytest has, with the same names, checks and help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeVar

import click

from pytest_pilotscope.options.settings import OPTIONS
from pytest_pilotscope.options.table import Option

F = TypeVar("F", bound=Callable[..., Any])


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

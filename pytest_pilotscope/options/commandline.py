"""Read command line and ini file into `Settings`. Nothing else calls `config.getoption`."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.options.declaring import Option
from pytest_pilotscope.options.settings import OPTIONS, Settings
from pytest_pilotscope.places.dsn import Dsn

if TYPE_CHECKING:
    from pytest_pilotscope.registry import Registry

SHOWN_KEY = "pilotscope_algo"
"""The ini key that the help shows for all."""

NAMING = ("--algo", "--db", "--pilotscope-algo", "--pilotscope-db")
"""Options whose names may also follow each other, as the predecessor had it."""

MEASURING = ("algo", "variant", "db", "compare", "gate", "calibrate", "report")
"""Options that only a measurement uses: a command line with one of them asks for a measurement."""

JUDGING = ("gate", "calibrate")
"""Options that judge a measurement: with one of them, a session that measures nothing is no success."""


def add_options(parser: pytest.Parser, options: Iterable[Option] = OPTIONS) -> None:
    """Add the prefixed names and the ini keys of options."""
    for option in options:
        _group(parser, option).addoption(f"--pilotscope-{option.name}", **_attributes(option, help_text=argparse.SUPPRESS))
        _add_ini_key(parser, option)


def add_short_names(parser: pytest.Parser, options: Iterable[Option]) -> tuple[str, ...]:
    """
    Add the short names, after every plugin and conftest.py has added its own options.

    Return the names that other plugins have taken; those options keep their prefixed name only.
    """
    taken = []
    for option in options:
        try:
            _group(parser, option).addoption(
                f"--{option.name}", **_attributes(option, help_text=option.help_with_default.replace("%", "%%"))
            )
        except (ValueError, argparse.ArgumentError):
            taken.append(f"--{option.name}")
    return tuple(taken)


def joined(arguments: Iterable[str]) -> Iterator[str]:
    """
    Yield the arguments of a command line, with the names after --algo and --db joined by commas: `--algo a b` is `--algo a,b`.

    What exists as a file or folder, or looks like one, is not taken for a name, because it says where the tests are.
    """
    names: list[str] | None = None
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if names is not None and (not names or not (argument.startswith("-") or _is_place(argument))):
            names.append(argument)
            continue
        yield from [",".join(names)] if names else []
        names = [value] * bool(equals) if flag in NAMING else None
        yield argument if names is None else flag
    yield from [",".join(names)] if names else []


def _is_place(argument: str) -> bool:
    path = Path(argument.partition("::")[0])
    return path.exists() or "::" in argument or len(path.parts) > 1 or path.suffix == ".py"


def shorten_help(config: pytest.Config) -> None:
    """Let `--help` show one ini key for all: each option has one, and their names say nothing new."""
    if config.getoption("help", False):
        keys = config._parser._inidict  # pytest offers no public access to it
        for key in [key for key in keys if key.startswith("pilotscope_") and key != SHOWN_KEY]:
            del keys[key]


def add_late_keys(config: pytest.Config, registry: Registry) -> None:
    """Add the ini keys of options that a conftest.py declared too late for the command line."""
    for declared in registry.declared.values():
        for option in late(config, declared.values()):
            _add_ini_key(config._parser, option)  # pytest offers no public access to its parser after it has read the command line


def late(config: pytest.Config, options: Iterable[Option]) -> tuple[Option, ...]:
    """Return the options that the command line does not know."""
    return tuple(option for option in options if not hasattr(config.option, option.dest))


def _add_ini_key(parser: pytest.Parser, option: Option) -> None:
    others = "; every other option of pilotscope has such a key, too: pilotscope_NAME, with _ for -" if option.dest == SHOWN_KEY else ""
    parser.addini(option.dest, f"the same as --pilotscope-{option.name}{others}")


def _group(parser: pytest.Parser, option: Option) -> pytest.OptionGroup:
    return parser.getgroup(f"pilotscope-{option.group}", f"pilotscope, {option.group}")


def _attributes(option: Option, *, help_text: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {"dest": option.dest, "default": None, "help": help_text}
    if option.is_flag:
        return {**attributes, "action": "store_const", "const": not option.default}
    metavar = option.metavar or "|".join(option.choices) or option.key.upper()
    return {**attributes, "metavar": metavar, "type": option.read, "action": "append" if option.repeats else "store"}


def settings(config: pytest.Config) -> Settings:
    """Read all options. Raise `pytest.UsageError` (exit code 4) for an unreadable ini value and for options that exclude each other."""
    chosen: dict[str, Any] = {}
    for option in OPTIONS:
        if (value := _chosen(config, option)) is not None:
            chosen[option.key] = value
    server = chosen.get("server")
    if "datasets" not in chosen and "queries_dir" in chosen and isinstance(server, Dsn) and server.database:
        chosen["datasets"] = (server.database,)  # the user's queries on the user's server: measure its database
    elif "datasets" not in chosen and "dump" in chosen:
        chosen["datasets"] = (chosen["dump"].name.partition(".")[0] or chosen["dump"].name,)
    if config.getoption("pilotscope_register_model") and not chosen.get("mlflow", True):
        raise pytest.UsageError("--register-model registers in MLflow, which --no-mlflow switches off; leave one of them out")
    try:
        return Settings(**chosen)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error


def algorithm_options(config: pytest.Config, registry: Registry) -> dict[str, dict[str, Any]]:
    """Read the options that algorithms declare, for `Settings.options`; those declared late come from the ini file only."""
    return {
        algorithm: {name: value for name, option in declared.items() if (value := _chosen(config, option)) is not None}
        for algorithm, declared in registry.declared.items()
    }


def asks_for(config: pytest.Config, names: Collection[str]) -> bool:
    """Tell whether the command line has one of these options."""
    return any(config.getoption(option.dest) not in (None, "none") for option in OPTIONS if option.name in names)


def _chosen(config: pytest.Config, option: Option) -> Any:
    """Return the value of the command line, else of the ini file, else None."""
    value = config.getoption(option.dest, None)
    if value is None:
        value = _from_ini(config, option)
    return option.gathered(value) if option.repeats and value is not None else value


def _from_ini(config: pytest.Config, option: Option) -> Any:
    text = config.getini(option.dest)
    if not text:
        return None
    if option.is_flag:
        if text.lower() not in ("true", "false", "1", "0"):
            raise pytest.UsageError(f"{option.dest} in {config.inipath}: expected true or false, got {text!r}")
        return not option.default if text.lower() in ("true", "1") else None
    try:
        return [option.read(line) for line in text.splitlines() if line.strip()] if option.repeats else option.read(text)
    except argparse.ArgumentTypeError as error:
        raise pytest.UsageError(f"{option.dest} in {config.inipath}: {error}") from error

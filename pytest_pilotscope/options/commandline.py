"""Command line and ini file -> `Settings`. The only reader of `config.getoption`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_pilotscope.options.settings import OPTIONS, Settings
from pytest_pilotscope.options.table import Option
from pytest_pilotscope.places.dsn import Dsn

if TYPE_CHECKING:
    from pytest_pilotscope.registry import Registry

GROUP = "pilotscope"

MEASURING = ("algo", "db", "compare", "gate", "calibrate", "report")
"""Options that only a measurement needs."""


def add_options(parser: pytest.Parser, options: Iterable[Option] = OPTIONS) -> None:
    """Add options by their prefixed names, and their ini keys."""
    group = parser.getgroup(GROUP, "pilotscope: learned database components, measured")
    for option in options:
        group.addoption(f"--pilotscope-{option.name}", **_attributes(option, help_text=argparse.SUPPRESS))
        _add_ini_key(parser, option)


def add_short_names(parser: pytest.Parser, options: Iterable[Option]) -> tuple[str, ...]:
    """
    Add the short names, after every plugin and conftest.py has added its own options.

    Returns the names that somebody else has already taken; those options are there by their prefixed name only.
    """
    group = parser.getgroup(GROUP)
    taken = []
    for option in options:
        try:
            group.addoption(f"--{option.name}", **_attributes(option, help_text=option.help_with_default.replace("%", "%%")))
        except (ValueError, argparse.ArgumentError):
            taken.append(f"--{option.name}")
    return tuple(taken)


def add_late_keys(config: pytest.Config, registry: Registry) -> None:
    """Add the ini keys of the options that a conftest.py declared too late for the command line."""
    for declared in registry.declared.values():
        for option in late(config, declared.values()):
            _add_ini_key(config._parser, option)  # pytest hands its parser out before the command line is read, and not afterwards


def late(config: pytest.Config, options: Iterable[Option]) -> tuple[Option, ...]:
    """Return those of these options that are not on the command line."""
    return tuple(option for option in options if not hasattr(config.option, option.dest))


def _add_ini_key(parser: pytest.Parser, option: Option) -> None:
    parser.addini(option.dest, f"the same as --pilotscope-{option.name}")


def _attributes(option: Option, *, help_text: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {"dest": option.dest, "default": None, "help": help_text}
    if option.is_flag:
        return {**attributes, "action": "store_const", "const": not option.default}
    metavar = option.metavar or "|".join(option.choices) or option.key.upper()
    return {**attributes, "metavar": metavar, "type": option.read, "action": "append" if option.repeats else "store"}


def settings(config: pytest.Config) -> Settings:
    """Read all options; `pytest.UsageError` (exit code 4) for an ini value that cannot be parsed and options that exclude each other."""
    chosen: dict[str, Any] = {}
    for option in OPTIONS:
        if (value := _chosen(config, option)) is not None:
            chosen[option.key] = value
    if "datasets" not in chosen and "queries_dir" in chosen and (own := Dsn(chosen.get("server", "")).database):
        chosen["datasets"] = (own,)  # one's own queries on one's own server: its database as it is
    if config.getoption("pilotscope_register_model") and not chosen.get("mlflow", True):
        raise pytest.UsageError("--register-model registers in MLflow, which --no-mlflow switches off; leave one of them out")
    return Settings(**chosen)


def algorithm_options(config: pytest.Config, registry: Registry) -> dict[str, dict[str, Any]]:
    """Read the options that algorithms declare, those of late ones from the ini file only, as `Settings.options` has them."""
    return {
        algorithm: {name: value for name, option in declared.items() if (value := _chosen(config, option)) is not None}
        for algorithm, declared in registry.declared.items()
    }


def asks_to_measure(config: pytest.Config) -> bool:
    """Whether something was chosen on the command line that only a measurement needs, such as an algorithm or a gate."""
    return any(config.getoption(option.dest) not in (None, "none") for option in OPTIONS if option.name in MEASURING)


def asks_to_judge(config: pytest.Config) -> bool:
    """Whether a gate or a calibration was asked for on the command line: then having measured nothing is not a success."""
    return any(config.getoption(option.dest) not in (None, "none") for option in OPTIONS if option.name in ("gate", "calibrate"))


def _chosen(config: pytest.Config, option: Option) -> Any:
    """Return what the command line says, else the ini file, else None."""
    value = config.getoption(option.dest, None)
    if value is None:
        value = _from_ini(config, option)
    return _split(value) if option.repeats and value is not None else value


def _from_ini(config: pytest.Config, option: Option) -> Any:
    text = config.getini(option.dest)
    if not text:
        return None
    if option.is_flag:
        if text.lower() not in ("true", "false", "1", "0"):
            raise pytest.UsageError(f"{option.dest} in {config.inipath}: expected true or false, got {text!r}")
        return not option.default if text.lower() in ("true", "1") else None
    try:
        return [option.read(text)] if option.repeats else option.read(text)
    except argparse.ArgumentTypeError as error:
        raise pytest.UsageError(f"{option.dest} in {config.inipath}: {error}") from error


def _split(values: Sequence[str]) -> tuple[str, ...]:
    parts = (part.strip() for value in values for part in value.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))

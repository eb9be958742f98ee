"""Command line and ini file -> `Settings`. The only reader of `config.getoption`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import pytest

from pytest_pilotscope.core.settings import Settings
from pytest_pilotscope.optiontable import OPTIONS, Option
from pytest_pilotscope.postgres.dsn import Dsn

GROUP = "pilotscope"

MEASURING = ("algo", "db", "compare", "gate", "calibrate", "report")
"""Options that only a measurement needs."""


def add_options(parser: pytest.Parser) -> None:
    """Add every option by its prefixed name, and its ini key."""
    group = parser.getgroup(GROUP, "pilotscope: learned database components, measured")
    for option in OPTIONS:
        group.addoption(f"--pilotscope-{option.name}", **_attributes(option, help_text=argparse.SUPPRESS))
        parser.addini(option.dest, f"the same as --pilotscope-{option.name}")


def add_short_names(parser: pytest.Parser) -> tuple[str, ...]:
    """
    Add the short names, after every plugin and conftest.py has added its own options.

    Returns the names that somebody else has already taken; those options are there by their prefixed name only.
    """
    group = parser.getgroup(GROUP)
    taken = []
    for option in OPTIONS:
        try:
            group.addoption(f"--{option.name}", **_attributes(option, help_text=option.help_with_default))
        except (ValueError, argparse.ArgumentError):
            taken.append(f"--{option.name}")
    return tuple(taken)


def _attributes(option: Option, *, help_text: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {"dest": option.dest, "default": None, "help": help_text}
    if option.flag:
        return {**attributes, "action": "store_const", "const": option.constant}
    return {**attributes, "metavar": option.metavar, "type": option.parse, "action": "append" if option.repeat else "store"}


def settings(config: pytest.Config) -> Settings:
    """Read all options; `pytest.UsageError` (exit code 4) for an ini value that cannot be parsed and options that exclude each other."""
    chosen: dict[str, Any] = {}
    for option in OPTIONS:
        value = config.getoption(option.dest)
        if value is None:
            value = _from_ini(config, option)
        if value is not None:
            chosen[option.field] = _split(value) if option.repeat else value
    if "datasets" not in chosen and "queries_dir" in chosen and (own := Dsn(chosen.get("server", "")).database):
        chosen["datasets"] = (own,)  # one's own queries on one's own server: its database as it is
    if config.getoption("pilotscope_register_model") and not chosen.get("mlflow", True):
        raise pytest.UsageError("--register-model registers in MLflow, which --no-mlflow switches off; leave one of them out")
    return Settings(**chosen)


def asks_to_measure(config: pytest.Config) -> bool:
    """Whether something was chosen on the command line that only a measurement needs, such as an algorithm or a gate."""
    return any(config.getoption(option.dest) not in (None, "none") for option in OPTIONS if option.name in MEASURING)


def asks_to_judge(config: pytest.Config) -> bool:
    """Whether a gate or a calibration was asked for on the command line: then having measured nothing is not a success."""
    return any(config.getoption(option.dest) not in (None, "none") for option in OPTIONS if option.name in ("gate", "calibrate"))


def _from_ini(config: pytest.Config, option: Option) -> Any:
    text = config.getini(option.dest)
    if not text:
        return None
    if option.flag:
        if text.lower() not in ("true", "false", "1", "0"):
            raise pytest.UsageError(f"{option.dest} in {config.inipath}: expected true or false, got {text!r}")
        return option.constant if text.lower() in ("true", "1") else None
    try:
        return [option.parse(text)] if option.repeat else option.parse(text)
    except argparse.ArgumentTypeError as error:
        raise pytest.UsageError(f"{option.dest} in {config.inipath}: {error}") from error


def _split(values: Sequence[str]) -> tuple[str, ...]:
    parts = (part.strip() for value in values for part in value.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))

"""An option: name, default, help and check, declared once for the command line, the ini file and Python."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.options import values


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """
    One option: `--pilotscope-NAME`, the short `--NAME`, and the ini key `pilotscope_NAME`.

    Python knows its value by `key`. An option with a truth value as its default is a flag: it takes no value and stands for the other one.
    `parse` reads the text of a value; it raises `ValueError` or `argparse.ArgumentTypeError` for a wrong one. Without it the value is one
    of the `choices`, where there are some, or of the type of the default.
    """

    name: str
    key: str
    default: Any
    help: str
    parse: Callable[[str], Any] | None = None
    choices: tuple[str, ...] = ()
    metavar: str | None = None

    @property
    def dest(self) -> str:
        """The name that argparse keeps the value under; also the ini key."""
        return f"pilotscope_{self.name.replace('-', '_')}"

    @property
    def is_flag(self) -> bool:
        """Tell whether the option takes no value."""
        return isinstance(self.default, bool)

    @property
    def repeats(self) -> bool:
        """Tell whether the option may be given several times, or once with several names."""
        return self.parse is values.names

    @property
    def help_with_default(self) -> str:
        """The help text, with the default when there is one."""
        if self.is_flag or self.default is None or self.default == ():
            return self.help
        return f"{self.help} (default: {_text(self.default)})"

    def read(self, text: str) -> Any:
        """Read a value; `argparse.ArgumentTypeError` says what was expected."""
        if self.parse is None:
            parse = values.one_of(*self.choices) if self.choices else values.OF_TYPE.get(type(self.default), str)
            return parse(text)
        try:
            return self.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"expected {self.metavar or 'another value'}, got {text!r} ({error})") from error

    def checked(self, value: Any, argument: str) -> Any:
        """
        Return the value that Python was given as this argument; UsageError, which names the argument, for one that the command line would
        not take. None is taken where it is the default.
        """
        if value is None and self.default is None:
            return value
        try:
            expected = values.truth(value) if self.is_flag else self.read(_text(value))
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{argument}: {error}") from error
        if value != expected and not self.repeats:
            raise UsageError(f"{argument}: expected {expected!r}, got {value!r}")
        return value if self.repeats else expected


def option(default: Any, help: str, *, name: str | None = None, **declared: Any) -> Any:
    """Declare a field of a dataclass as an option, which is called like the field; `no-` stands before a flag that is on by default."""
    return field(default=default, metadata={"name": name, "help": help, **declared})


def options_of(declaring: type) -> tuple[Option, ...]:
    """Return the options that the fields of a dataclass declare."""
    return tuple(
        Option(**{**one.metadata, "name": one.metadata["name"] or name_of(one.name, one.default)}, key=one.name, default=one.default)
        for one in fields(declaring)
        if one.metadata
    )


def name_of(key: str, default: Any, *, prefix: str = "") -> str:
    """Return the name that an option has on the command line."""
    return f"{prefix}{'no-' if default is True else ''}{key.replace('_', '-')}"


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

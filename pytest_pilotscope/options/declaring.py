"""The class of an option, and the dataclass fields that declare one."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.options import values
from pytest_pilotscope.options.variants import variant

_OF_NAMES = (values.names, values.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """
    One option: `--pilotscope-NAME`, the short `--NAME`, and the ini key `pilotscope_NAME`.

    `key` is its Python name, `group` its heading in the help. An option whose default is True or False is a flag: it takes no value and
    sets the opposite.
    `parse` reads the text of a value and raises `ValueError` or `argparse.ArgumentTypeError` for a wrong one. Without `parse`, the value is
    one of the `choices` if there are any, else it has the type of the default.
    """

    name: str
    key: str
    default: Any
    help: str
    group: str
    parse: Callable[[str], Any] | None = None
    choices: tuple[str, ...] = ()
    metavar: str | None = None

    @property
    def dest(self) -> str:
        """The attribute that argparse stores the value in; also the ini key."""
        return f"pilotscope_{self.name.replace('-', '_')}"

    @property
    def is_flag(self) -> bool:
        """True if the option takes no value."""
        return isinstance(self.default, bool)

    @property
    def repeats(self) -> bool:
        """True if the option may be repeated, or given once with several names."""
        return self.parse in (*_OF_NAMES, variant)

    def gathered(self, read: Sequence[Any]) -> tuple[Any, ...]:
        """Return the values of an option that repeats; names may be in one text, separated by commas."""
        return values.parts(",".join(read)) if self.parse in _OF_NAMES else tuple(read)

    @property
    def help_with_default(self) -> str:
        """The help text, with the default if there is one."""
        if self.is_flag or self.default is None or self.default == ():
            return self.help
        return f"{self.help} (default: {self._shown_default()})"

    def _shown_default(self) -> str:
        """Return the default as a user writes it."""
        if self.parse in (values.share, values.share_of_all):
            return f"{100 * self.default:g}%"
        if self.parse is values.size:
            return f"{self.default >> 30}g" if self.default % (1 << 30) == 0 else f"{self.default >> 20}m"
        return f"{self.default:.15g}" if isinstance(self.default, float) else _text(self.default)

    def read(self, text: str) -> Any:
        """Read a value. Raise `argparse.ArgumentTypeError`, which says what was expected."""
        values.readable(text)
        for name in values.parts(text) if self.repeats and self.choices else ():
            values.one_of(*self.choices)(name)
        if self.parse is None:
            parse = values.one_of(*self.choices) if self.choices else values.OF_TYPE.get(type(self.default), str)
            return parse(text)
        try:
            return self.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"expected {self.metavar or 'another value'}, got {values.shown(text)} ({error})") from error

    def checked(self, value: Any, argument: str) -> Any:
        """
        Return a value that Python passed as this argument.

        None is accepted if it is the default. Names may be one text, separated by commas. Raise `UsageError`, which names the argument, if
        the command line would reject the value.
        """
        if (value is None and self.default is None) or (value == () and self.repeats):
            return value
        try:
            expected = values.truth(value) if self.is_flag else self.read(_text(value))
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{argument}: {error}") from error
        if self.repeats:
            return values.parts(expected if isinstance(expected, str) else _text(value))
        if value != expected and not (self.parse is values.size and isinstance(value, str)):
            raise UsageError(f"{argument}: expected {expected!r}, got {value!r}")
        return expected


def option(default: Any, help: str, *, name: str | None = None, **declared: Any) -> Any:
    """Declare a dataclass field as an option with the name of the field, after `no-` for a flag that is on by default."""
    return field(default=default, metadata={"name": name, "help": help, **declared})


def options_of(declaring: type, groups: Mapping[str, str]) -> tuple[Option, ...]:
    """Return the options that a dataclass declares. `groups` has the headings in the help, by the field that each begins with."""
    options, group = [], ""
    for one in fields(declaring):
        group = groups.get(one.name, group)
        if one.metadata:
            name = one.metadata["name"] or name_of(one.name, one.default)
            options.append(Option(**{**one.metadata, "name": name}, key=one.name, default=one.default, group=group))
    return tuple(options)


def name_of(key: str, default: Any, *, prefix: str = "") -> str:
    """Return the name that an option has on the command line."""
    return f"{prefix}{'no-' if default is True else ''}{key.replace('_', '-')}"


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)

"""`--variant`: PostgreSQL with another setting, of another build or on another server, as a side of its own."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.places.dsn import Dsn, is_dsn

FORM = "NAME:SETTING=VALUE[,SETTING=VALUE]|NAME@BINDIR|NAME@MAJOR|NAME@DSN"
_NAME = re.compile(r"\w[\w.-]{0,59}", re.ASCII)
_URL = re.compile(r"postgres(ql)?://", re.IGNORECASE)
_NEXT_SETTING = re.compile(r",(?=\s*[A-Za-z_][\w.]*\s*=)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """
    A side called `name`: PostgreSQL with `settings` of its session, or another one, from the folder `bindir` or behind `dsn`.

    It has one of the three. Names of settings are in lower case. A `bindir` of digits is a major version to look for.
    """

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    bindir: Path | None = None
    dsn: Dsn | None = None

    def __str__(self) -> str:
        if self.settings:
            return ",".join(f"{name}={value}" for name, value in self.settings.items())
        return str(self.dsn or self.bindir)


def variant(text: str) -> Variant:
    """Read a text of this `FORM`; a value may contain commas."""
    if _URL.match(text.strip()):
        raise argparse.ArgumentTypeError(f"expected {FORM}, got {str(Dsn(text.strip()))!r} without a name")
    name, kind, rest = _split(text)
    if not _NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(
            f"expected {FORM}, where NAME has 1 to 60 letters (a-z), digits, _, . and - and begins with one of the first three, "
            f"got the name {_shown(name)}"
        )
    if kind == "@" and is_dsn(rest):
        return Variant(name=name, dsn=Dsn(rest))
    if kind == "@" and rest:
        return Variant(name=name, bindir=Path(rest))
    if kind == ":" and rest:
        return Variant(name=name, settings=_settings(name, rest))
    raise argparse.ArgumentTypeError(f"expected {FORM}, got the name {name!r} and nothing that is different about it")


def _split(text: str) -> tuple[str, str, str]:
    """Divide a text at its first colon or @; the rest of it may have a password, so that no message shows it."""
    found = re.match(r"([^:@]*)([:@]?)(.*)", text.strip(), re.DOTALL)
    return (found[1].strip(), found[2], found[3].strip()) if found else ("", "", "")


def _shown(name: str) -> str:
    return repr(str(Dsn(name)) if is_dsn(name) else name[:200])


def _settings(name: str, text: str) -> dict[str, str]:
    settings: dict[str, str] = {}
    for part in _NEXT_SETTING.split(text):
        setting, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not setting:
            raise argparse.ArgumentTypeError(f"expected {FORM}, got {part!r} as a setting of {name!r}")
        if setting.lower() in settings:
            raise argparse.ArgumentTypeError(f"expected each setting once, got {setting} twice for {name!r}")
        settings[setting.lower()] = value
    return settings


def variants(chosen: Iterable[Variant | str]) -> tuple[Variant, ...]:
    """Return the variants, read where they are texts. Raise `UsageError` for one that cannot be read, and for a name given twice."""
    try:
        found = [variant(one) if isinstance(one, str) else one for one in ((chosen,) if isinstance(chosen, str) else chosen)]
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"variants: {error}") from error
    by_name: dict[str, Variant] = {}
    for one in found:
        first = by_name.setdefault(one.name.lower(), one)
        if first is not one:
            raise UsageError(f"--variant {one.name} is given twice: {first} and {one}; give each variant a name of its own")
    return tuple(found)

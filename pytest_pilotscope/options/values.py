"""Readers of option values. Each takes a text and raises `argparse.ArgumentTypeError`, which says what was expected."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

from pytest_pilotscope.places.dsn import Dsn, is_dsn

CHANGES = ("databases", "settings")
"""The kinds of changes that a user can allow on a server that was not started here."""

LEAST_CPUS = 0.01
"""The smallest CPU limit that Docker accepts."""

LEAST_MEMORY_BYTES = 64 << 20
"""With our settings PostgreSQL does not start in less memory."""

MOST = 2**31 - 1
"""The largest number that an option takes; PostgreSQL accepts no longer time limit in ms."""

LONGEST_NAME_BYTES, LONGEST_PATH_BYTES = 255, 4095
"""The limits of Linux and macOS, which are not larger elsewhere."""


def _number(parse: Callable[[str], Any], accept: Callable[[Any], bool], wanted: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = parse(text)
        except ValueError:
            value = None
        if value is None or not accept(value):
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {shown(text)}")
        if abs(value) > MOST:
            raise argparse.ArgumentTypeError(f"expected at most {MOST}, got {shown(text)}")
        return value

    return read


def shown(text: str) -> str:
    """Return a text for a message, in quotes, its middle left out if it is long."""
    return repr(text if len(text) <= 200 else f"{text[:100]}...{text[-50:]}")


def readable(text: str) -> str:
    """Return a text without a NUL and without bytes that are no UTF-8: nothing that reads it later, such as libpq, takes them."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise argparse.ArgumentTypeError(f"expected a text in UTF-8 without NUL, got {shown(text)}")
    return text


def path(text: str) -> Path:
    """Read the name of a file or folder."""
    return Path(nameable(text))


def nameable(text: str) -> str:
    """Return a text that may name a file; no system has longer names."""
    if any(len(part.encode()) > LONGEST_NAME_BYTES for part in text.split("/")) or len(text.encode()) > LONGEST_PATH_BYTES:
        raise argparse.ArgumentTypeError(
            f"expected names of at most {LONGEST_NAME_BYTES} bytes, {LONGEST_PATH_BYTES} in all, got {shown(text)}"
        )
    return text


whole = _number(int, lambda value: True, "a whole number")
positive_int = _number(int, lambda value: value >= 1, "a whole number of at least 1")
non_negative_int = _number(int, lambda value: value >= 0, "a whole number of at least 0")
number = _number(float, isfinite, "a number")
_auto_or_number = _number(float, lambda value: isfinite(value) and value >= 0, "auto or a number of at least 0")
_auto_or_count = _number(int, lambda value: value >= 1, "auto or a whole number of at least 1")
positive_float = _number(float, lambda value: isfinite(value) and value > 0, "a number above 0")
milliseconds = _number(float, lambda value: 0 < value <= MOST, f"a number of milliseconds above 0, up to {MOST}")
seconds = _number(float, lambda value: 0 < value <= MOST // 1000, f"a number of seconds above 0, up to {MOST // 1000}")
processors = _number(float, lambda value: isfinite(value) and value >= LEAST_CPUS, f"a number of at least {LEAST_CPUS}")


def truth(value: object) -> bool:
    """Return a Python bool; reject texts such as "true"."""
    if not isinstance(value, bool):
        raise argparse.ArgumentTypeError(f"expected True or False, got {value!r}")
    return value


def names(text: str) -> str:
    """Read one or more names, separated by commas."""
    if not text.replace(",", "").strip():
        raise argparse.ArgumentTypeError(f"expected at least one name, got {shown(text)}")
    return text


def words(text: str) -> str:
    """Read one or more names without blanks in them, separated by commas or blanks."""
    return names(",".join(text.split()))


def parts(text: str) -> tuple[str, ...]:
    """Return the names of a text, separated by commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def server(text: str) -> str | Dsn:
    """Read auto, embedded, container, or a DSN; the password of a DSN shows nowhere."""
    return Dsn(text) if is_dsn(text) else text


def one_of(*names: str) -> Callable[[str], str]:
    """Return a reader that accepts these words only."""

    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected {', '.join(names[:-1])} or {names[-1]}, got {shown(text)}")
        return text

    return parse


def size(text: str) -> int:
    """Read a size such as 512m or 2g, or bytes without a unit, as Python passes them; return bytes."""
    match = re.fullmatch(r"(\d{1,15})|(\d{1,9}(?:\.\d{1,9})?)([mMgG])[bB]?", text)
    size_bytes = 0
    if match is not None:
        size_bytes = int(match[1]) if match[1] else int(float(match[2]) * (1 << (20 if match[3] in "mM" else 30)))
    if size_bytes < LEAST_MEMORY_BYTES:
        raise argparse.ArgumentTypeError(f"expected a size such as 512m or 2g, at least 64m, got {shown(text)}")
    return size_bytes


def dask(text: str) -> str:
    """Read local:N, or the address of a scheduler."""
    if not re.fullmatch(r"local:[1-9]\d*|(?!local:)(\w+://)?[\w.-]+:\d+", text):
        raise argparse.ArgumentTypeError(f"expected local:N or the address of a scheduler such as tcp://host:8786, got {shown(text)}")
    return text


def factors(text: str) -> tuple[float, ...]:
    """Read numbers above 0, separated by commas."""
    return tuple(positive_float(part.strip()) for part in text.split(","))


def margin(text: str) -> Any:
    """Read auto, or a number of at least 0."""
    return text if text == "auto" else _auto_or_number(text)


def auto_or_count(text: str) -> Any:
    """Read auto, or a whole number of at least 1."""
    return text if text == "auto" else _auto_or_count(text)


def share(text: str) -> float:
    """Read a percentage, or a share below 1."""
    number = text[:-1] if text.endswith("%") else text
    try:
        value = float(number) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not (isfinite(value) and value >= 0) or (value >= 1 and not text.endswith("%")):
        raise argparse.ArgumentTypeError(f"expected a percentage such as 3% or a share below 1 such as 0.03, got {shown(text)}")
    return value


def share_of_all(text: str) -> float:
    """Read a percentage up to 100%, or a share up to 1.0; 1 could be either."""
    value = 1.0 if text == "1.0" else share(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected a percentage from 0% to 100%, got {shown(text)}")
    return value


def gate(text: str) -> str:
    """Read a file, mlflow:EXPERIMENT, baseline or none."""
    if text in ("", "mlflow:"):
        raise argparse.ArgumentTypeError(f"expected a file, mlflow:EXPERIMENT, baseline or none, got {shown(text)}")
    return text if text.startswith("mlflow:") else nameable(text)


def page(text: str) -> Path:
    """Read the name of an HTML file."""
    if not text.lower().endswith((".html", ".htm")):
        raise argparse.ArgumentTypeError(f"expected the name of an HTML file such as report.html, got {shown(text)}")
    return path(text)


def files(text: str) -> tuple[Path, ...]:
    """Read names of files, separated by commas; none for an empty text."""
    return tuple(path(name.strip()) for name in text.split(",") if name.strip())


OF_TYPE: dict[type, Callable[[str], Any]] = {int: whole, float: number}
"""The reader for the type of a default; other types are read as text."""

"""
Values of a column as NumPy arrays, and constants of the same type, which compare as in PostgreSQL.

Types that compare exactly: whole numbers, decimals, floats without NaN, booleans, times, and text for equality. The rest (order of text,
which depends on a collation, `char(n)`, arrays, ...) has no typed column, and PostgreSQL has to answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.queries.evaluation import OPERATORS
from pytest_pilotscope.queries.predicates import Constant, Operator, TypedText, bare_type

Mask: TypeAlias = npt.NDArray[np.bool_]
Comparable: TypeAlias = int | float | Decimal | str | bool
Kind: TypeAlias = Literal["integer", "numeric", "float", "boolean", "date", "time", "instant", "text"]

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("smallint", "integer", "bigint"), "integer"),
    "numeric": "numeric",
    **dict.fromkeys(("real", "double precision"), "float"),
    "boolean": "boolean",
    "timestamp without time zone": "time",
    "date": "date",
    "timestamp with time zone": "instant",
    **dict.fromkeys(("text", "character varying"), "text"),
}
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?", re.ASCII)
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?(Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """(N,) values of one kind; a value whose (N,) `known` is not set is NULL."""

    kind: Kind
    values: npt.NDArray[Any]
    known: Mask


def kind_of(column_type: str) -> Kind | None:
    """Return the kind of a type's values; None if only PostgreSQL can compare them."""
    return _KINDS.get(bare_type(column_type))


def column(texts: Sequence[str | None], column_type: str) -> Column | None:
    """Make a column from PostgreSQL's text of its values; return None if only PostgreSQL can compare them."""
    kind = kind_of(column_type)
    if kind is None:
        return None
    known = np.array([text is not None for text in texts], dtype=np.bool_)
    zero, read, dtype = _READERS[kind]
    if bare_type(column_type) == "real":
        read = _read_real
    values = [zero if text is None else read(text) for text in texts]
    if any(value is None for value in values):
        return None
    return Column(kind, np.array(values, dtype=dtype), known)


def comparable(value: Constant, kind: Kind) -> Comparable | None:
    """Return a constant as a value of a column's kind; None if only PostgreSQL can compare them."""
    if kind == "text":
        return value if isinstance(value, str) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, TypedText):
        return _typed_constant(value, kind)
    return value if kind == "integer" and isinstance(value, int) and not isinstance(value, bool) else None


def number(value: Comparable) -> float | None:
    """Return the position of a value on the line of real numbers; None for text."""
    return None if isinstance(value, str) else float(value)


def compared(found: Column, symbol: Operator, value: Comparable) -> Mask | None:
    """Compare a column with a value; ignore the result for NULLs. None for the order of text, which only PostgreSQL knows."""
    if found.kind == "text" and symbol not in ("=", "<>"):
        return None
    return np.asarray(OPERATORS[symbol](found.values, value), dtype=np.bool_)


def _typed_constant(value: TypedText, kind: Kind) -> Comparable | None:
    """Return a constant of a column's own kind; None if PostgreSQL would convert it with the session's time zone."""
    given = kind_of(value.type)
    if given in ("date", "time", "instant"):
        return _microseconds(value.text, given) if kind in _ALIKE[given] else None
    if given != kind or kind not in ("numeric", "float"):
        return None
    read = _read_real if value.type == "real" else _READERS[kind][1]
    return read(value.text)


_ALIKE: dict[Kind, tuple[Kind, ...]] = {"date": ("date", "time"), "time": ("date", "time"), "instant": ("instant",)}


def _microseconds(text: str, kind: Kind) -> int | None:
    """Read an ISO 8601 text: a date alone for a date, an offset exactly for an instant; None for anything else."""
    match = _TIME.fullmatch(text.strip())
    if match is None or (match[8] is not None) != (kind == "instant") or (kind == "date" and match[4] is not None):
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    try:
        moment = datetime(year, month, day, hour, minute, second, int((match[7] or "").ljust(6, "0")), tzinfo=timezone.utc)
    except ValueError:  # 24:00:00, a leap second, the year 0: PostgreSQL has rules for them, or an error
        return None
    return (moment - _EPOCH) // _MICROSECOND - _offset(match[8])


def _offset(text: str | None) -> int:
    """Return an offset in microseconds east of UTC."""
    if text is None or text == "Z":
        return 0
    minutes = int(text[1:3]) * 60 + int(text[3:].lstrip(":") or 0)
    return (-1 if text[0] == "-" else 1) * minutes * 60_000_000


def _read_float(text: str) -> float | None:
    value = float(text)
    return None if np.isnan(value) else value


def _read_real(text: str) -> float | None:
    value = float(np.float32(text))
    return None if np.isnan(value) else value


_READERS: dict[Kind, tuple[Comparable, Callable[[str], Comparable | None], Any]] = {
    "integer": (0, int, np.int64),
    "numeric": (Decimal(0), lambda text: Decimal(text) if _NUMBER.fullmatch(text) else None, object),
    "float": (0.0, _read_float, np.float64),
    "boolean": (False, lambda text: text == "true", np.bool_),
    "date": (0, lambda text: _microseconds(text, "date"), np.int64),
    "time": (0, lambda text: _microseconds(text, "time"), np.int64),
    "instant": (0, lambda text: _microseconds(text, "instant"), np.int64),
    "text": ("", str, object),
}

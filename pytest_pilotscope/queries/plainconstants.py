"""Constants of plain queries, as values of the types of the columns beside them."""

from __future__ import annotations

import re
from typing import NamedTuple

from pytest_pilotscope.queries.predicates import Constant, TypedText, bare_type

_FAMILIES = {**dict.fromkeys(("smallint", "integer", "bigint"), "integer"), **dict.fromkeys(("text", "character varying"), "text")}
_CONSTANTS = {
    "integer": re.compile(r"[+-]?\d{1,18}", re.ASCII),  # a longer one may be too long for bigint
    "text": re.compile(".*", re.DOTALL),
    **dict.fromkeys(("numeric", "double precision"), re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)),
    "date": re.compile(r"\d{4}-\d\d-\d\d", re.ASCII),
    "timestamp without time zone": re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d(\.\d{1,6})?)?", re.ASCII),
}
"""Family of types -> the constants whose value does not depend on a setting or on the time of day."""


class Slot(NamedTuple):
    """A constant of a query as it is written: its type, its sign, whether it has quotes; and its value."""

    family: str
    sign: str
    quoted: bool
    value: Constant


def family_of(column_type: str) -> str:
    """Return the family of a type; integers of any width are one, and so are text and varchar: `=` casts neither side."""
    found = bare_type(column_type)
    return _FAMILIES.get(found, found)


def typed_constant(family: str, text: str, *, quoted: bool) -> Constant | None:
    """Return a constant as a value of a family of types; None for one of another type, or whose value only PostgreSQL knows."""
    known = _CONSTANTS.get(family)
    if known is None or not known.fullmatch(text) or (family == "text" and not quoted):
        return None
    if family == "text":
        return text
    return int(text) if family == "integer" else TypedText(text, family)

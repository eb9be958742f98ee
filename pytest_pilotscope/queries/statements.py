"""Splitting SQL into statements, as psql does: a semicolon in a literal, a quoted name, a comment or a dollar quote ends no statement."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_pilotscope.errors import StatementFailed

QUERY = re.compile(r"(?:/\*\+(?:[^*]|\*(?!/))*\*/\s*)*(?:(?:select|with|values|table)\b|\()", re.IGNORECASE)
"""The beginning of a query, maybe after hints, as opposed to any other statement."""

# To PostgreSQL every character beyond ASCII is a letter, also those that Python calls none: a sign, a digit, an emoji.
_LETTER = "A-Za-z_\\x80-\\U0010ffff"
_TAG = f"(?:[{_LETTER}][{_LETTER}0-9]*)?"
_WITHIN_A_NAME = f"[{_LETTER}0-9$]"
_PIECE = re.compile(
    rf"""
      (?P<escaped>(?<!{_WITHIN_A_NAME})[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<literal>'(?:[^']|'')*')
    | (?P<name>"(?:[^"]|"")*")
    | (?P<comment>--[^\r\n]*)
    | (?P<dollar>(?<!{_WITHIN_A_NAME})\$(?P<tag>{_TAG})\$.*?\$(?P=tag)\$)
    | (?P<block>/\*)
    | (?P<end>;)
    | (?P<backslash>\\)
    | (?P<open>'|"|(?<!{_WITHIN_A_NAME})\${_TAG}\$)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK = re.compile(r"/\*|\*/")
_OPENED = {"'": "a literal", '"': "a quoted name", "$": "a dollar quote", "/": "a comment"}
_SYNTAX_ERROR = "42601"


class NeverEnds(ValueError):
    """A literal, name, comment or dollar quote is not closed. `line` counts from 1."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(f"{what} is opened here and never closed")
        self.line = line


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """SQL without its semicolon and without the blanks and comments before it; `line` counts from 1."""

    sql: str
    line: int


def split_statements(text: str) -> list[Statement]:
    """Return all statements that are not empty, in order; raise NeverEnds for a quote or comment that is not closed."""
    found = []
    start = 0
    for end in [*(begin for kind, begin, _ in _pieces(text) if kind == "end"), len(text)]:
        begin = _first_word(text, start, end)
        if begin < end:
            found.append(Statement(sql=text[begin:end].strip(), line=line_of(text, begin)))
        start = end + 1
    return found


def command_of_psql(text: str, start: int) -> int | None:
    """Return the position of the first backslash from `start` on that is in no quotes and no comment, where SQL has none."""
    try:
        return next((begin for kind, begin, _ in _pieces(text, start) if kind == "backslash"), None)
    except NeverEnds:
        return None


def statement_count(text: str) -> int:
    """Return the number of statements; 1 for a text whose quotes do not end, which PostgreSQL refuses."""
    if ";" not in text:
        return 1
    try:
        return len(split_statements(text))
    except NeverEnds:
        return 1


def is_single(sql: str) -> bool:
    """
    Tell whether a text is one statement for PostgreSQL, whatever its settings.

    A text with both a semicolon and a backslash is not: where its literals end depends on settings. Nor is one with a semicolon and quotes
    that do not end.
    """
    text = sql.strip(" \t\r\n").rstrip("; \t\r\n")
    if ";" not in text:
        return True
    try:
        return "\\" not in text and not text.startswith(";") and len(split_statements(text)) == 1
    except NeverEnds:
        return False


def single(sql: str) -> str:
    """Return a text that `is_single`. Raise `StatementFailed` for any other: PostgreSQL would run the rest after the first statement."""
    if not is_single(sql):
        raise StatementFailed(sql, reason="it is not one statement; make a query of each", sqlstate=_SYNTAX_ERROR)
    return sql


def line_of(text: str, offset: int) -> int:
    """Return the line of this character, counted from 1."""
    return text.count("\n", 0, offset) + 1


def _first_word(text: str, start: int, end: int) -> int:
    """Return the position after `start` of the first character outside blanks and comments, hints excepted; `end` if there is none."""
    position = start
    for kind, begin, after in _pieces(text, start, end):
        if text[position:begin].strip() or kind not in ("comment", "block") or text.startswith("/*+", begin):
            break
        position = after
    rest = text[position:end]
    return position + len(rest) - len(rest.lstrip())


def _pieces(text: str, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, int, int]]:
    """Yield every quoted text, comment, semicolon and backslash as (kind, start, end)."""
    stop = len(text) if stop is None else stop
    position = start
    while match := _PIECE.search(text, position, stop):
        kind = match.lastgroup or ""
        kind = "dollar" if kind == "tag" else kind
        if kind == "open":
            raise NeverEnds(_OPENED[match.group()[0]], line_of(text, match.start()))
        position = _end_of_block(text, match.start(), stop) if kind == "block" else match.end()
        yield kind, match.start(), position


def _end_of_block(text: str, start: int, stop: int) -> int:
    """Return the end of a block comment; block comments nest in PostgreSQL."""
    depth = 0
    for match in _BLOCK.finditer(text, start, stop):
        depth += 1 if match.group() == "/*" else -1
        if depth == 0:
            return match.end()
    raise NeverEnds(_OPENED["/"], line_of(text, start))

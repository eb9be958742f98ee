"""The words, constants and symbols of a plain query, one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NoReturn, cast

from pytest_pilotscope.errors import UnsupportedQuery

_TOKEN = re.compile(
    r"""
    \s* (?: ([a-z_][a-z0-9_]*) | ("(?:[^"]|"")+") | ('(?:[^'\\]|'')*') | (\d+(?:\.\d+)?)(?![\w.]) | (<=|>=|<>|!=|::|[=<>(),.;*-]) | (\S) )
    """,
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
WORD, QUOTED, STRING, NUMBER, SYMBOL, _OTHER, END = range(1, 8)
# PostgreSQL's reserved words, of all versions: none of them is a table, a column or an alias unless it is quoted.
_RESERVED_WORDS = (
    "all analyse analyze and any array as asc asymmetric authorization between binary both case cast check collate collation "
    "column concurrently constraint create cross current_catalog current_date current_role current_schema current_time "
    "current_timestamp current_user default deferrable desc distinct do else end except exists extract false fetch filter for "
    "foreign freeze from full grant group having ilike in initially inner intersect interval into is isnull join lateral "
    "leading left like limit localtime localtimestamp natural not notnull null offset on only or order outer over overlaps "
    "placing primary references returning right row select session_user similar some symmetric system_user table tablesample "
    "then to trailing true union unique user using variadic verbose when where window with"
)
RESERVED = frozenset(_RESERVED_WORDS.split())
"""Words that are no name of a table, a column or an alias unless they are quoted."""


def tokens(sql: str) -> Iterator[tuple[int, str]]:
    """Yield kind and text of every token; words are in lower case."""
    for match in _TOKEN.finditer(sql):
        kind = cast(int, match.lastindex)
        yield kind, match[kind].lower() if kind == WORD else match[kind]


class Tokens:
    """Steps from token to token. Raises `UnsupportedQuery` for a token that is not expected."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self._tokens = [*tokens(sql), (END, "")]
        self._at = next((at for at, (kind, _) in enumerate(self._tokens) if kind == _OTHER), 0)
        if "--" in sql or self._at:
            self.refuse("'--', which may begin a comment," if "--" in sql else "")

    @property
    def kind(self) -> int:
        """The kind of the next token."""
        return self._tokens[self._at][0]

    @property
    def at_name(self) -> bool:
        """True before a word that can be a name without quotes, and before a quoted name."""
        kind, text = self._tokens[self._at]
        return kind == QUOTED or (kind == WORD and text not in RESERVED)

    def refuse(self, what: str = "") -> NoReturn:
        """Raise `UnsupportedQuery` for something, or for the next token."""
        found = what or (repr(self._tokens[self._at][1]) if self.kind != END else "its end")
        reason = f"{found} has no place in a plain conjunction over tables, so that only PostgreSQL knows its meaning"
        raise UnsupportedQuery(reason, self.sql)

    def took(self, text: str) -> bool:
        """Step over a keyword or a symbol if it is there."""
        kind, found = self._tokens[self._at]
        if found != text or kind not in (WORD, SYMBOL):
            return False
        self._at += 1
        return True

    def expect(self, text: str) -> None:
        """Step over a keyword or a symbol that must be there."""
        if not self.took(text):
            self.refuse()

    def take(self, kind: int) -> str:
        """Step over a token of a kind, and return it."""
        if self.kind != kind:
            self.refuse()
        self._at += 1
        return self._tokens[self._at - 1][1]

    def name(self) -> str:
        """Read the name of a table, an alias or a column."""
        if not self.at_name:
            self.refuse()
        return self.take(WORD) if self.kind == WORD else self.take(QUOTED)[1:-1].replace('""', '"')

    def text(self) -> str:
        """Read a constant in quotes."""
        return self.take(STRING)[1:-1].replace("''", "'")

    def constant(self) -> tuple[str, bool]:
        """Read a constant; tell whether it is in quotes."""
        if self.kind == STRING:
            return self.text(), True
        sign = "-" if self.took("-") else ""
        return sign + self.take(NUMBER), False

    def skip_until(self, word: str, refused: Sequence[str]) -> None:
        """Step over everything up to a word outside of parentheses, and over the word."""
        depth = 0
        while depth or not self.took(word):
            kind, text = self._tokens[self._at]
            if kind == END or text in refused:
                self.refuse()
            depth += (text == "(") - (text == ")")
            self._at += 1

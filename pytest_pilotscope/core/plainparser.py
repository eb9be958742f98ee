"""
The plain queries of cardinality benchmarks, taken apart in a tenth of the time that sqlglot needs.

    SELECT ... FROM table [AS] alias, ... WHERE condition AND condition ...

with conditions between two columns, or a column and constants. Estimating a query within a millisecond, and labelling
thousands, leaves no time for a complete SQL parser. Whatever is not plainly of this form (a word, a character or an order of
them that is not expected) is not for this module: the answer is None, and sqlglot reads the query. What it does read it reads
as sqlglot does; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn, TypeVar, cast

from pytest_pilotscope.core.assembly import Assembly
from pytest_pilotscope.core.joins import ColumnRef, JoinQuery, Schema
from pytest_pilotscope.core.predicates import (
    Between,
    ColumnComparison,
    Comparison,
    Condition,
    Constant,
    IsNull,
    Like,
    Not,
    Operator,
    in_list,
    number,
)
from pytest_pilotscope.errors import UnsupportedQuery

_TOKEN = re.compile(
    r"""
    \s* (?: ([a-z_][a-z0-9_]*) | ("(?:[^"]|"")+") | ('(?:[^'\\]|'')*') | (\d+(?:\.\d+)?)(?![\w.]) | (<=|>=|<>|!=|[=<>(),.;*-]) | (\S) )
    """,
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_WORD, _QUOTED, _STRING, _NUMBER, _SYMBOL, _OTHER, _END = range(1, 8)
_FLIPPED: dict[str, Operator] = {"=": "=", "<>": "<>", "!=": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
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
"""What no table, column or alias is called without quotes."""
Read = TypeVar("Read")


def parse_plain(sql: str, schema: Schema) -> JoinQuery | None:
    """Take a plain query apart; None when it is not one, or when something about it is wrong."""
    try:
        return _PlainReader(sql, schema).read()
    except (_NotPlain, UnsupportedQuery):
        return None


class _NotPlain(Exception):
    """The query is for sqlglot."""


class _PlainReader:
    """Reads token after token; words and symbols are compared in lower case."""

    def __init__(self, sql: str, schema: Schema) -> None:
        self._assembly = Assembly(sql, schema)
        self._kinds: list[int] = []
        self._texts: list[str] = []
        for match in _TOKEN.finditer(sql):
            kind = cast(int, match.lastindex)
            self._kinds.append(kind)
            self._texts.append(match[kind].lower() if kind == _WORD else match[kind])
        self._kinds.append(_END)
        self._texts.append("")
        self._at = 0

    def read(self) -> JoinQuery:
        if _OTHER in self._kinds or "--" in self._assembly.sql:  # a comment could hide anything
            self._refuse()
        self._expect("select")
        self._skip_select_list()
        self._separated(self._relation, ",")
        if self._took("where"):
            self._separated(self._conjunct, "and")
        self._took(";")
        if self._kinds[self._at] != _END:
            self._refuse()
        return self._assembly.finish()

    def _refuse(self) -> NoReturn:
        raise _NotPlain

    def _took(self, *texts: str) -> bool:
        """Step over a keyword or a symbol if it is there."""
        if self._kinds[self._at] in (_WORD, _SYMBOL) and self._texts[self._at] in texts:
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._took(text):
            self._refuse()

    def _take(self, kind: int) -> str:
        if self._kinds[self._at] != kind:
            self._refuse()
        self._at += 1
        return self._texts[self._at - 1]

    def _separated(self, read: Callable[[], Read], separator: str) -> list[Read]:
        found = [read()]
        while self._took(separator):
            found.append(read())
        return found

    def _skip_select_list(self) -> None:
        depth = 0
        while depth or not self._took("from"):
            if self._kinds[self._at] == _END or self._took("select", "into", ";"):
                self._refuse()
            depth += (self._texts[self._at] == "(") - (self._texts[self._at] == ")")
            self._at += 1

    def _name(self) -> str:
        if self._kinds[self._at] == _QUOTED:
            return self._take(_QUOTED)[1:-1].replace('""', '"')
        name = self._take(_WORD)
        return self._refuse() if name in RESERVED else name

    def _relation(self) -> None:
        table = self._name()
        named = self._took("as") or self._kinds[self._at] == _QUOTED
        named = named or (self._kinds[self._at] == _WORD and self._texts[self._at] not in RESERVED)
        self._assembly.add_relation(table, self._name() if named else table)

    def _column(self) -> ColumnRef:
        name = self._name()
        return self._assembly.resolve(name, self._name()) if self._took(".") else self._assembly.resolve(None, name)

    def _operator(self) -> Operator:
        text = self._take(_SYMBOL)
        if text not in _FLIPPED:
            self._refuse()
        return cast(Operator, "<>" if text == "!=" else text)

    def _conjunct(self) -> None:
        if self._kinds[self._at] in (_NUMBER, _STRING, _SYMBOL):
            at = self._at
            self._literal()
            operator, ref = _FLIPPED[self._operator()], self._column()
            after, self._at = self._at, at
            self._assembly.add_condition(ref.alias, Comparison(ref.column, operator, self._constant(ref)))
            self._at = after
            return
        ref = self._column()
        if self._kinds[self._at] == _SYMBOL:
            self._compared(ref)
        else:
            self._assembly.add_condition(ref.alias, self._test(ref))

    def _compared(self, ref: ColumnRef) -> None:
        operator = self._operator()
        if self._kinds[self._at] not in (_WORD, _QUOTED):
            self._assembly.add_condition(ref.alias, Comparison(ref.column, operator, self._constant(ref)))
            return
        other = self._column()
        if operator == "=" and self._assembly.is_equality(ref, other):
            self._assembly.add_equality(ref, other)
        elif ref.alias == other.alias:
            self._assembly.add_condition(ref.alias, ColumnComparison(ref.column, operator, other.column))
        else:
            self._refuse()

    def _test(self, ref: ColumnRef) -> Condition:
        if self._took("is"):
            found: Condition = Not(IsNull(ref.column)) if self._took("not") else IsNull(ref.column)
            self._expect("null")
            return found
        negated = self._took("not")
        found = self._list_or_range(ref)
        return Not(found) if negated else found

    def _list_or_range(self, ref: ColumnRef) -> Condition:
        if self._took("between"):
            low = self._constant(ref)
            self._expect("and")
            return Between(ref.column, low, self._constant(ref))
        if self._took("in"):
            self._expect("(")
            values = self._separated(lambda: self._constant(ref), ",")
            self._expect(")")
            return in_list(ref.column, values)
        case_sensitive = self._took("like")
        if not case_sensitive:
            self._expect("ilike")
        return Like(ref.column, _unquoted(self._take(_STRING)), case_sensitive=case_sensitive)

    def _constant(self, ref: ColumnRef) -> Constant:
        value = self._assembly.coerced(self._literal(), ref)
        return self._refuse() if value is None else value

    def _literal(self) -> Constant:
        if self._kinds[self._at] == _STRING:
            return _unquoted(self._take(_STRING))
        negative = self._took("-")
        value = number(self._take(_NUMBER))
        return -value if negative else value


def _unquoted(text: str) -> str:
    return text[1:-1].replace("''", "'")

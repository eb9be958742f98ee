"""
A parser for the plainest of queries, forty times faster than the general one and with the same result.

An estimate has to be there in a millisecond and the general parser (`core.joins.parse`) needs three. What it is for is the form in
which benchmarks write their queries: relations with commas between them, and a conjunction of equalities of columns and of simple
predicates on qualified columns. At the first sign of anything else the general parser is asked; so this one never refuses a query,
and never has an opinion of its own: it uses the same predicates, classes and derivations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from pytest_pilotscope.core.equivalence import close, derive
from pytest_pilotscope.core.joins import ColumnRef, JoinQuery, Relation, Schema, key_family, parse
from pytest_pilotscope.core.predicates import (
    Between,
    Comparison,
    Condition,
    Constant,
    InList,
    IsNull,
    Like,
    Not,
    Operator,
    Predicate,
    TypedText,
    predicate,
    render_constant,
)

_NUMBER = r"-?\d+(?:\.\d+)?"
_TEXT = r"'(?:[^'\\]|'')*'(?:::(?:timestamp|date))?"
_VALUE = rf"(?:{_NUMBER}|{_TEXT})"
_FLAGS = re.IGNORECASE | re.ASCII | re.DOTALL
_STATEMENT = re.compile(
    r"\s*select\s+(?P<list>[\w\s.,*()]+?)\s+from\s+(?P<sources>[\w\s,]+?)(?:\s+where\s+(?P<where>.*?))?\s*;?\s*", _FLAGS
)
_KEYWORDS = "where|as|on|using|group|order|limit|offset|having|union|join|natural|cross|inner|left|right|full|for|fetch"
_SOURCE = re.compile(rf"\s*([a-z_]\w*)(?:\s+(?:as\s+)?(?!(?:{_KEYWORDS})\b)([a-z_]\w*))?\s*", _FLAGS)
_CONJUNCT = re.compile(
    rf"""\s*(?P<alias>[a-z_]\w*)\.(?P<column>[a-z_]\w*)(?:
        \s*(?P<operator><=|>=|<>|!=|=|<|>)\s*(?:(?P<value>{_VALUE})|(?P<other>[a-z_]\w*)\.(?P<other_column>[a-z_]\w*))
      | \s+between\s+(?P<low>{_VALUE})\s+and\s+(?P<high>{_VALUE})
      | \s+(?P<not_in>not\s+)?in\s*\((?P<list>\s*{_VALUE}(?:\s*,\s*{_VALUE})*)\s*\)
      | \s+(?P<not_like>not\s+)?like\s+(?P<pattern>'(?:[^'\\]|'')*')
      | \s+is\s+(?P<not_null>not\s+)?(?P<null>null)
    )(?:\s+and(?=\s)|\s*\Z)""",
    _FLAGS | re.VERBOSE,
)
_LISTED = re.compile(_VALUE, _FLAGS)
_INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
_NOT_A_LIST = re.compile(r"\b(?:select|distinct|into|from)\b", _FLAGS)


class _Unusual(Exception):
    """The query is not of the plain form."""


def quick_parse(sql: str, schema: Schema) -> JoinQuery:
    """Take a SELECT apart, like `core.joins.parse` and with its errors."""
    try:
        return _plain(sql, schema)
    except _Unusual:
        return parse(sql, schema)


def _plain(sql: str, schema: Schema) -> JoinQuery:
    statement = _STATEMENT.fullmatch(sql)
    if statement is None or _NOT_A_LIST.search(statement["list"]):
        raise _Unusual
    tables = _tables(statement["sources"], schema)
    equalities: list[tuple[ColumnRef, ColumnRef]] = []
    found: dict[str, dict[str, Predicate]] = {alias: {} for alias in tables}
    for match in _conjuncts(statement["where"]):
        left = _column(match["alias"], match["column"], tables, schema)
        if match["other"] is None:
            _add(found, predicate(left.alias, _condition(match, left.column, _type(left, tables, schema))))
        else:
            equalities.append(_equality(match, left, tables, schema))
    return _query(sql, schema, tables, equalities, found)


def _query(
    sql: str,
    schema: Schema,
    tables: Mapping[str, str],
    equalities: list[tuple[ColumnRef, ColumnRef]],
    found: dict[str, dict[str, Predicate]],
) -> JoinQuery:
    classes = close(equalities, list(tables))
    written = {alias: tuple(predicates.values()) for alias, predicates in found.items()}
    for derived in derive(classes, written, lambda ref: _type(ref, tables, schema)):
        _add(found, derived)
    relations = {alias: Relation(alias=alias, table=table, predicates=tuple(found[alias].values())) for alias, table in tables.items()}
    return JoinQuery(sql=sql, relations=relations, equalities=tuple(equalities), residuals=(), classes=classes)


def _tables(sources: str, schema: Schema) -> dict[str, str]:
    tables: dict[str, str] = {}
    for source in sources.split(","):
        match = _SOURCE.fullmatch(source)
        if match is None:
            raise _Unusual
        table, alias = match[1].lower(), (match[2] or match[1]).lower()
        if table not in schema or alias in tables:
            raise _Unusual
        tables[alias] = table
    return tables


def _conjuncts(where: str | None) -> Iterator[re.Match[str]]:
    position = 0
    while where is not None and position < len(where):
        match = _CONJUNCT.match(where, position)
        if match is None:
            raise _Unusual
        yield match
        position = match.end()
    if where is not None and (not where or where[-3:].lower() == "and"):
        raise _Unusual


def _column(alias: str, column: str, tables: Mapping[str, str], schema: Schema) -> ColumnRef:
    ref = ColumnRef(alias.lower(), column.lower())
    if ref.alias not in tables or ref.column not in schema[tables[ref.alias]]:
        raise _Unusual
    return ref


def _type(ref: ColumnRef, tables: Mapping[str, str], schema: Schema) -> str:
    return schema[tables[ref.alias]][ref.column]


def _equality(match: re.Match[str], left: ColumnRef, tables: Mapping[str, str], schema: Schema) -> tuple[ColumnRef, ColumnRef]:
    right = _column(match["other"], match["other_column"], tables, schema)
    family = key_family(_type(left, tables, schema))
    if match["operator"] != "=" or left.alias == right.alias or family is None or family != key_family(_type(right, tables, schema)):
        raise _Unusual
    return left, right


def _add(found: dict[str, dict[str, Predicate]], new: Predicate) -> None:
    found[new.alias].setdefault(new.sql, new)


def _condition(match: re.Match[str], column: str, column_type: str) -> Condition:
    if match["value"] is not None:
        operator: Operator = "<>" if match["operator"] == "!=" else match["operator"]  # type: ignore[assignment]  # the pattern allows these only
        return Comparison(column, operator, _constant(match["value"], column_type))
    if match["low"] is not None:
        return Between(column, _constant(match["low"], column_type), _constant(match["high"], column_type))
    if match["list"] is not None:
        constants = [_constant(text, column_type) for text in _LISTED.findall(match["list"])]
        values = {render_constant(value): value for value in constants}
        return _unless(match["not_in"], InList(column, tuple(values[text] for text in sorted(values))))
    if match["pattern"] is not None:
        return _unless(match["not_like"], Like(column, _unquoted(match["pattern"])))
    return _unless(match["not_null"], IsNull(column))


def _unless(negation: str | None, condition: Condition) -> Condition:
    return condition if negation is None else Not(condition)


def _constant(text: str, column_type: str) -> Constant:
    if text[0] != "'":
        return Decimal(text) if "." in text else int(text)
    body, _, type_name = text.rpartition("'")
    value = body[1:].replace("''", "'")
    if type_name:
        return TypedText(value, type_name[2:].lower())
    if key_family(column_type) != "integer":
        return value
    if not _INTEGER.fullmatch(value):
        raise _Unusual
    return int(value)


def _unquoted(literal: str) -> str:
    return literal[1:-1].replace("''", "'")

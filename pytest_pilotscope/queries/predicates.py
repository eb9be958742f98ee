"""
Conditions on the columns of one relation, in typed form and as canonical SQL.

A condition has the names of its columns and no alias, so that two queries that filter a table in the same way
share the text, and results that are cached by it. A condition without a typed form is `Opaque`: only PostgreSQL evaluates its SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Operator: TypeAlias = Literal["=", "<>", "<", "<=", ">", ">="]
_MODIFIERS = re.compile(r"\([^)]*\)")


@dataclass(frozen=True, slots=True)
class TypedText:
    """A constant written as text with a type, such as `'2010-01-01'::date`; `type` is a PostgreSQL type name."""

    text: str
    type: str


Constant: TypeAlias = int | str | bool | TypedText


@dataclass(frozen=True, slots=True)
class Comparison:
    """`column operator value`."""

    column: str
    operator: Operator
    value: Constant


@dataclass(frozen=True, slots=True)
class ColumnComparison:
    """`left operator right`, two columns of the same relation."""

    left: str
    operator: Operator
    right: str


@dataclass(frozen=True, slots=True)
class InList:
    """`column IN (values)`; the values are distinct and in a canonical order."""

    column: str
    values: tuple[Constant, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """`column LIKE pattern`, or ILIKE when not `case_sensitive`; the escape character is the backslash."""

    column: str
    pattern: str
    case_sensitive: bool = True


@dataclass(frozen=True, slots=True)
class IsNull:
    """`column IS NULL`; IS NOT NULL is `Not(IsNull(...))`."""

    column: str


@dataclass(frozen=True, slots=True)
class Not:
    """The negation of a condition: unknown stays unknown."""

    child: Condition


@dataclass(frozen=True, slots=True)
class And:
    """All of the children; at least two."""

    children: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of the children; at least two."""

    children: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Opaque:
    """A condition without a typed form: casts, functions, interval arithmetic. `sql` uses bare column names."""

    columns: tuple[str, ...]
    sql: str


Condition: TypeAlias = Comparison | ColumnComparison | InList | Like | IsNull | Not | And | Or | Opaque


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicate:
    """One conjunct of a relation's filter; `sql` names columns without their alias."""

    columns: tuple[str, ...]
    sql: str
    condition: Condition


def predicate(condition: Condition) -> Predicate:
    """Make a predicate from its condition."""
    return Predicate(columns=tuple(dict.fromkeys(condition_columns(condition))), sql=render(condition), condition=condition)


def in_list(column: str, values: Iterable[Constant]) -> InList:
    """Make an IN condition of values in any order and number; there must be one."""
    distinct = {render_constant(value): value for value in values}
    return InList(column, tuple(distinct[text] for text in sorted(distinct)))


def bare_type(column_type: str) -> str:
    """Return a type without its modifiers: `numeric(8,2)` is `numeric`."""
    return _MODIFIERS.sub("", column_type)


def quote_identifier(name: str) -> str:
    """Quote a name as an SQL identifier, always, so that the text does not depend on a list of reserved words."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """Quote a string as an SQL literal (with `standard_conforming_strings` on, PostgreSQL's default since 9.1)."""
    return "'" + text.replace("'", "''") + "'"


def render_constant(value: Constant) -> str:
    """Return a constant as SQL."""
    if isinstance(value, TypedText):
        return f"CAST({quote_text(value.text)} AS {value.type})"
    if isinstance(value, str):
        return quote_text(value)
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return str(value) if value >= 0 else f"({value})"


def condition_columns(condition: Condition) -> tuple[str, ...]:
    """List the columns of a condition, in order of appearance, with repetitions."""
    if isinstance(condition, Comparison):  # nearly all of them
        return (condition.column,)
    if isinstance(condition, Not):
        return condition_columns(condition.child)
    if isinstance(condition, And | Or):
        return tuple(column for child in condition.children for column in condition_columns(child))
    if isinstance(condition, Opaque):
        return condition.columns
    if isinstance(condition, ColumnComparison):
        return (condition.left, condition.right)
    return (condition.column,)


def render(condition: Condition) -> str:
    """Return the canonical SQL of a condition; columns are quoted and bare."""
    if isinstance(condition, Comparison):  # nearly all of them
        return f"{quote_identifier(condition.column)} {condition.operator} {render_constant(condition.value)}"
    if isinstance(condition, Opaque):
        return condition.sql
    if isinstance(condition, Not):
        return _render_negation(condition.child)
    if isinstance(condition, And | Or):
        word = " AND " if isinstance(condition, And) else " OR "
        return "(" + word.join(render(child) for child in condition.children) + ")"
    if isinstance(condition, ColumnComparison):
        return f"{quote_identifier(condition.left)} {condition.operator} {quote_identifier(condition.right)}"
    return _render_leaf(condition, negated=False)


def _render_negation(child: Condition) -> str:
    if isinstance(child, InList | Like | IsNull):
        return _render_leaf(child, negated=True)
    return f"NOT ({render(child)})"


def _render_leaf(leaf: InList | Like | IsNull, *, negated: bool) -> str:
    column = quote_identifier(leaf.column)
    word = "NOT " if negated else ""
    if isinstance(leaf, InList):
        return f"{column} {word}IN ({', '.join(render_constant(value) for value in leaf.values)})"
    if isinstance(leaf, Like):
        return f"{column} {word}{'LIKE' if leaf.case_sensitive else 'ILIKE'} {quote_text(leaf.pattern)}"
    return f"{column} IS {word}NULL"

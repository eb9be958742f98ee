"""
A model's vocabulary: every table and column of the schema, and the range of every column that has one.

The vocabulary does not depend on the training queries. A join has no entry of its own but is the sum of its two columns, so the model knows
every join of known columns. A name that is not in the schema raises an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from pytest_pilotscope.algorithms.typed_columns import column, comparable, kind_of, number
from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.queries.joins import ColumnRef, Relation, Schema
from pytest_pilotscope.queries.predicates import (
    And,
    ColumnComparison,
    Comparison,
    Condition,
    Constant,
    InList,
    IsNull,
    Like,
    Not,
    Opaque,
    Operator,
    condition_columns,
    quote_identifier,
)

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

OPERATORS = (
    *("=", "<>", "<", "<=", ">", ">="),
    *("IN", "NOT IN", "LIKE", "NOT LIKE", "IS NULL", "IS NOT NULL"),
    *("columns", "OR", "other"),
)
"""The one-hot of a predicate's operator. `columns` compares two columns of a relation, `other` has no typed form."""

_OPERATOR = {name: position for position, name in enumerate(OPERATORS)}
_NEGATED: dict[Operator, Operator] = {"=": "<>", "<>": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_MARGIN = 0.05  # constants outside the range of their column are placed so far beyond its ends

Ranges = Mapping[str, Mapping[str, tuple[float, float]]]
"""Table -> column -> smallest and largest value, of columns that have numbers."""


class PredicateElement(NamedTuple):
    """One element of the set of predicates: positions of its columns and operator, and its normalised value, if it has one."""

    columns: tuple[int, ...]
    operator: int
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Positions of tables and columns, in the order of the schema."""

    schema: Schema
    ranges: Ranges
    tables: Mapping[str, int] = field(init=False)
    columns: Mapping[tuple[str, str], int] = field(init=False)

    def __post_init__(self) -> None:
        names = [(table, name) for table, types in self.schema.items() for name in types]
        object.__setattr__(self, "tables", {table: position for position, table in enumerate(self.schema)})
        object.__setattr__(self, "columns", {name: position for position, name in enumerate(names)})

    def table(self, relation: Relation) -> int:
        """Return the position of a relation's table."""
        position = self.tables.get(relation.table)
        if position is None:
            self._unknown(f"table {relation.table!r}")
        return position

    def column(self, table: str, name: str) -> int:
        """Return the position of a column."""
        position = self.columns.get((table, name))
        if position is None:
            self._unknown(f"column {table}.{name}")
        return position

    def join(self, left: tuple[str, ColumnRef], right: tuple[str, ColumnRef]) -> tuple[int, int]:
        """Return the positions of the two joined columns, given with their tables, the smaller first."""
        a, b = self.column(left[0], left[1].column), self.column(right[0], right[1].column)
        return (a, b) if a <= b else (b, a)

    def predicate(self, table: str, condition: Condition) -> list[PredicateElement]:
        """
        Return the elements of a predicate: each number of an IN list, each part of an AND, else one.

        Text, LIKE, IS NULL, OR and predicates without a typed form have no value: their constants act through the bitmap.
        """
        if isinstance(condition, Comparison):
            return [self._element(table, condition.column, condition.operator, condition.value)]
        if isinstance(condition, And):
            return [element for child in condition.children for element in self.predicate(table, child)]
        if isinstance(condition, InList):
            return self._in_list(table, condition, "IN")
        if isinstance(condition, Not):
            return self._negated(table, condition)
        return [self._bare(table, condition, _word(condition))]

    def _negated(self, table: str, condition: Not) -> list[PredicateElement]:
        child = condition.child
        if isinstance(child, Comparison):
            return [self._element(table, child.column, _NEGATED[child.operator], child.value)]
        if isinstance(child, InList):
            return self._in_list(table, child, "NOT IN")
        if isinstance(child, Like):
            return [self._bare(table, child, "NOT LIKE")]
        return [self._bare(table, child, "IS NOT NULL" if isinstance(child, IsNull) else "other")]

    def _in_list(self, table: str, condition: InList, word: str) -> list[PredicateElement]:
        elements = [self._element(table, condition.column, word, value) for value in condition.values]
        return list(dict.fromkeys(elements))

    def _element(self, table: str, name: str, word: str, value: Constant) -> PredicateElement:
        return PredicateElement((self.column(table, name),), _OPERATOR[word], self._normalised(table, name, value))

    def _bare(self, table: str, condition: Condition, word: str) -> PredicateElement:
        positions = {self.column(table, name) for name in condition_columns(condition)}
        return PredicateElement(tuple(sorted(positions)), _OPERATOR[word], None)

    def _normalised(self, table: str, name: str, value: Constant) -> float | None:
        """Return a constant's position in the range of its column: 0 at the smallest value, 1 at the largest, a little beyond outside."""
        kind = kind_of(self.schema[table][name])
        found = self.ranges.get(table, {}).get(name)
        typed = None if kind is None or found is None else comparable(value, kind)
        place = None if typed is None else number(typed)
        if place is None or found is None:
            return None
        low, high = found
        return min(max((place - low) / ((high - low) or 1.0), -_MARGIN), 1 + _MARGIN)

    def _unknown(self, what: str) -> NoReturn:
        raise ModelError(f"this mscn model has no {what}; it was trained on {', '.join(sorted(self.schema))}: train it again")


def _word(condition: Condition) -> str:
    if isinstance(condition, Like):
        return "LIKE"
    if isinstance(condition, IsNull):
        return "IS NULL"
    if isinstance(condition, ColumnComparison):
        return "columns"
    return "other" if isinstance(condition, Opaque) else "OR"


def read_ranges(session: Session, schema: Schema) -> dict[str, dict[str, tuple[float, float]]]:
    """Read the smallest and largest value of every column of numbers or times, in one scan per table."""
    return {table: _table_ranges(session, table, types) for table, types in schema.items()}


def _table_ranges(session: Session, table: str, types: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    names = [name for name, column_type in types.items() if kind_of(column_type) not in (None, "text", "boolean")]
    if not names:
        return {}
    ends = ", ".join(f"CAST({end}({quote_identifier(name)}) AS text)" for name in names for end in ("min", "max"))
    [texts] = session.execute(f"SELECT {ends} FROM {quote_identifier(table)}")  # noqa: S608  # identifiers are quoted
    found = {name: _range(texts[2 * position : 2 * position + 2], types[name]) for position, name in enumerate(names)}
    return {name: ends for name, ends in found.items() if ends is not None}


def _range(texts: Sequence[str | None], column_type: str) -> tuple[float, float] | None:
    """Return both ends as numbers; None for an empty column and for ends that are not finite."""
    typed = column(texts, column_type)
    if typed is None or not typed.known.all():
        return None
    low, high = (float(value) for value in typed.values)
    return (low, high) if isfinite(low) and isfinite(high) else None

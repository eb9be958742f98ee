"""Puts a `JoinQuery` together from what a parser finds in the text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pytest_pilotscope.core.equivalence import across, close, derive
from pytest_pilotscope.core.joins import ColumnRef, JoinQuery, Relation, Residual, Schema, key_family
from pytest_pilotscope.core.predicates import ColumnComparison, Condition, Constant, Predicate, predicate
from pytest_pilotscope.core.specialjoins import Source
from pytest_pilotscope.errors import UnsupportedQuery

_INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)


class Assembly:
    """Relations first, conditions afterwards: a column is resolved among all relations. Raises `UnsupportedQuery`."""

    def __init__(self, sql: str, schema: Schema) -> None:
        self.sql = sql
        self.schema = schema
        self.tables: dict[str, str] = {}  # alias -> table
        self.subqueries: dict[str, None] = {}  # texts, in order
        self._merged: dict[str, ColumnRef] = {}  # columns of USING, named without a table
        self._equalities: list[tuple[ColumnRef, ColumnRef]] = []
        self._predicates: dict[str, dict[str, Predicate]] = {}
        self._outer_equalities: list[tuple[ColumnRef, ColumnRef]] = []
        self._residuals: list[Residual] = []

    def add_relation(self, table: str, alias: str) -> None:
        """Add an item of the FROM clause."""
        if table not in self.schema:
            raise UnsupportedQuery(f"table {table!r} is not in the schema", self.sql)
        if alias in self.tables:
            raise UnsupportedQuery(f"two relations are called {alias!r}", self.sql)
        self.tables[alias] = table

    def resolve(self, alias: str | None, column: str) -> ColumnRef:
        """Find the relation of a column, written with or without one."""
        if alias is None:
            return self._merged.get(column) or self._only_owner(column, list(self.tables))
        if alias not in self.tables:
            raise UnsupportedQuery(f"relation {alias!r} is not in FROM", self.sql)
        if column not in self.schema[self.tables[alias]]:
            raise UnsupportedQuery(f"table {self.tables[alias]!r} has no column {column!r}", self.sql)
        return ColumnRef(alias, column)

    def type_of(self, ref: ColumnRef) -> str:
        """Return the type of a column."""
        return self.schema[self.tables[ref.alias]][ref.column]

    def coerced(self, value: Constant | None, ref: ColumnRef) -> Constant | None:
        """Return a constant as it compares with a column: a string beside an integer is one, or None if it is not."""
        if isinstance(value, str) and key_family(self.type_of(ref)) == "integer":
            return int(value) if _INTEGER.fullmatch(value) else None
        return value

    def join_columns(
        self, before: Sequence[str], after: Sequence[str], columns: Sequence[str] | None, *, kept: int | None = 0
    ) -> list[tuple[ColumnRef, ColumnRef]]:
        """
        Return what USING equates between the relations so far and new ones, or NATURAL (all columns in common) when `columns` is None.

        Without a relation, such a column is that of the side `kept` (0 or 1); None: of neither, as in a FULL JOIN.
        """
        if columns is None:
            columns = [column for alias in after for column in self.schema[self.tables[alias]] if self._owners(column, before)]
        pairs = []
        for column in columns:
            pair = (self._merged.get(column) or self._only_owner(column, before), self._only_owner(column, after))
            if not self.is_equality(*pair):
                types = f"{self.type_of(pair[0])} and {self.type_of(pair[1])}"
                raise UnsupportedQuery(f"USING or NATURAL over columns {column!r} of type {types}", self.sql)
            if kept is not None:
                self._merged[column] = pair[kept]
            pairs.append(pair)
        return pairs

    def is_equality(self, left: ColumnRef, right: ColumnRef) -> bool:
        """Tell whether `=` between two columns is one of their values as they are."""
        family = key_family(self.type_of(left))
        return left != right and family is not None and family == key_family(self.type_of(right))

    def add_equality(self, left: ColumnRef, right: ColumnRef) -> None:
        """Add an equality; one within a relation also restricts it."""
        self._equalities.append((left, right))
        if left.alias == right.alias:
            first, second = sorted((left.column, right.column))
            self.add_condition(left.alias, ColumnComparison(first, "=", second))

    def add_condition(self, alias: str, condition: Condition) -> None:
        """Add a conjunct on one relation."""
        self._add(predicate(alias, condition))

    def add_residual(self, aliases: frozenset[str], sql: str) -> None:
        """Add a conjunct on several relations that is no equality of columns."""
        self._residuals.append(Residual(aliases=aliases, sql=sql))

    def add_outer_equality(self, left: ColumnRef, right: ColumnRef) -> None:
        """Add what ON of an outer join equates: a constant on the left restricts the nullable right (`reconsider_outer_join_clauses`)."""
        self._outer_equalities.append((left, right))

    def finish(self, sources: Sequence[Source] = ()) -> JoinQuery:
        """Close the equalities, derive what follows from them, and make the query; without `sources` there is no special join."""
        classes = close(self._equalities, list(self.tables))
        for _ in range(1 + len(self._outer_equalities)):  # a constant crosses at least one outer join each time
            for found in [*derive(classes, self._written(), self.type_of), *across(self._outer_equalities, self._written(), self.type_of)]:
                self._add(found)
        relations = {
            alias: Relation(alias=alias, table=table, predicates=tuple(self._predicates.get(alias, {}).values()))
            for alias, table in self.tables.items()
        }
        return JoinQuery(
            sql=self.sql,
            relations=relations,
            equalities=tuple(self._equalities),
            residuals=tuple(self._residuals),
            classes=classes,
            sources=tuple(sources) or tuple(self.tables),
            subqueries=tuple(self.subqueries),
        )

    def _written(self) -> Mapping[str, tuple[Predicate, ...]]:
        return {alias: tuple(found.values()) for alias, found in self._predicates.items()}

    def _add(self, found: Predicate) -> None:
        self._predicates.setdefault(found.alias, {}).setdefault(found.sql, found)

    def _owners(self, column: str, aliases: Sequence[str]) -> list[str]:
        return [alias for alias in aliases if column in self.schema[self.tables[alias]]]

    def _only_owner(self, column: str, aliases: Sequence[str]) -> ColumnRef:
        owners = self._owners(column, aliases)
        if len(owners) != 1:
            found = "no relation" if not owners else f"more than one relation ({', '.join(owners)})"
            raise UnsupportedQuery(f"column {column!r} belongs to {found}", self.sql)
        return ColumnRef(owners[0], column)

"""
Expressions of the planner's report as SQL: the marks in them become placeholders, parameters and subqueries.

The library writes a mark (`meaning.MARK`, a letter, a number) where PostgreSQL cannot deparse an expression outside of its query:

    h   a placeholder
    p   a parameter: a value of the level around this one, or of a subquery that runs first
    s   a subquery inside an expression
    x   an expression without SQL; the number says why
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_pilotscope.queries.meaning import MARK, NoCount, Subquery

if TYPE_CHECKING:
    from pytest_pilotscope.queries.countsql import Writer

_MARK = re.compile(re.escape(MARK) + r"([a-z])(\d+)")
_OF_ARRAY = re.compile(r"\b(?:ANY|ALL) \(+$")
_REASONS = {
    1: "a parameter of the statement",
    2: "WHERE CURRENT OF",
    3: "a field of a record",
    4: "a column of a relation that was removed",
    5: "a constant row",
    6: "the names of the fields of a row",
    7: "a constant with the library's own mark",
    8: "an array with NULL, and array_nulls is off",
}


class Scope:
    """A place in the SQL of a level, where some placeholders are computed already; it resolves the marks in expressions."""

    def __init__(self, writer: Writer, computed: frozenset[int]) -> None:
        self._writer = writer
        self._computed = computed

    def resolved(self, sql: str, instead: Mapping[int, str] | None = None) -> str:
        """Return an expression without marks; `instead` has the SQL of some parameters."""
        if MARK not in sql:
            return sql
        return _MARK.sub(lambda found: self._replaced(found, instead or {}), sql)

    def _replaced(self, found: re.Match[str], instead: Mapping[int, str]) -> str:
        """Return what a mark stands for; a subquery that yields an array must not look like the rows of ANY or ALL."""
        written = self._mark(found[1], int(found[2]), instead)
        alone = found.string.startswith(")", found.end()) and _OF_ARRAY.search(found.string, 0, found.start())
        return f"COALESCE({written})" if alone and written.startswith("(SELECT") else written

    def _mark(self, kind: str, number: int, instead: Mapping[int, str]) -> str:
        if kind == "x":
            raise NoCount(_REASONS[number])
        if kind == "h":
            return self._placeholder(number)
        if kind == "s":
            return self._subplan(self._writer.level.statement.subqueries[number])
        return instead[number - 1] if number - 1 in instead else self._parameter(number - 1)

    def _placeholder(self, number: int) -> str:
        if number in self._computed:
            return f'"#h{number}".v'
        placeholder = self._writer.level.placeholders.get(number)
        if placeholder is None:
            raise NoCount("an expression that was removed")
        return f"({self.resolved(placeholder.sql)})"

    def _parameter(self, number: int) -> str:
        parameter = self._writer.level.statement.parameters.get(number)
        if parameter is None:
            raise NoCount("a value that is not known before the statement runs")
        if parameter.plan is None:
            scope: Scope | None = self
            while scope is not None and scope._writer.level.id != parameter.level:
                scope = scope._writer.around
            if scope is None:
                raise NoCount("it depends on a row of the query around it")
            return scope.resolved(parameter.sql)
        subquery = self._writer.level.statement.subqueries[parameter.plan]
        if subquery.kind not in ("EXPR", "ROW") or (parameter.column == 1 and self._width(subquery) == 1):
            return self._subplan(subquery)
        columns = ", ".join(f"c{column}" for column in range(1, self._width(subquery) + 1))
        return f'(SELECT "#s".c{parameter.column} FROM ({self._writer.subquery(subquery.level, self)}) AS "#s"({columns}))'  # noqa: S608  # made from the planner's report

    def _width(self, subquery: Subquery) -> int:
        result = self._writer.level.statement.level(subquery.level).result
        while result is not None and result.operation is not None:  # all branches have as many columns
            operation = result.operation
            while not isinstance(operation, int):
                operation = operation[1]
            result = self._writer.level.statement.level(operation).result
        return len(result.targets) if result else 0

    def _subplan(self, subquery: Subquery) -> str:
        select = self._writer.subquery(subquery.level, self)
        if subquery.kind == "EXISTS":
            return f"(EXISTS ({select}))"
        if subquery.kind == "ARRAY":
            return f"ARRAY({select})"
        if subquery.kind == "EXPR":
            return f"({select})"
        if subquery.kind == "other" or subquery.test is None:
            raise NoCount("a subquery that assigns several columns")
        if subquery.direct:
            return self.resolved(subquery.test, {subquery.columns[0]: f"{subquery.kind} ({select})"})
        test = self.resolved(subquery.test, {column: f'"#s".c{place}' for place, column in enumerate(subquery.columns, start=1)})
        columns = ", ".join(f"c{place}" for place in range(1, len(subquery.columns) + 1))
        if subquery.kind == "ROW":
            return f'(SELECT {test} FROM ({select}) AS "#s"({columns}))'  # noqa: S608  # made from the planner's report
        decided, found, otherwise = ("t", "true", "false") if subquery.kind == "ANY" else ("NOT t", "false", "true")
        rows = f'SELECT {test} AS t FROM ({select}) AS "#s"({columns})'  # noqa: S608  # made from the planner's report
        value = f"CASE WHEN bool_or({decided}) THEN {found} WHEN bool_or(t IS NULL) THEN NULL ELSE {otherwise} END"
        return f'(SELECT {value} FROM ({rows}) AS "#t")'  # noqa: S608  # made from the planner's report

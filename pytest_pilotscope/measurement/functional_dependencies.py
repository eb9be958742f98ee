"""One query level of a query tree: its tables and columns, and the columns that other columns determine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from pytest_pilotscope.measurement.catalog_facts import Facts
from pytest_pilotscope.postgres.querytree import Node

RELATION, SUBQUERY, JOIN, FUNCTION, VALUES, CTE, RESULT, GROUP = 0, 1, 2, 3, 5, 6, 8, 9
"""Kinds of tables (RTEKind)."""
_INNER, _LEFT, _RIGHT = 0, 1, 3  # JoinType
TYPE_FIELDS = ("vartype", "aggtype", "wintype", "consttype", "funcresulttype", "opresulttype", "resulttype", "casetype", "coalescetype")
COLLATION_FIELDS = ("varcollid", "aggcollid", "wincollid", "constcollid", "funccollid", "opcollid", "resultcollid", "collOid")
"""The fields of expressions that have the type and the collation of their values."""

Column = tuple[int, int]
"""The number of a table in its level, and of a column in the table."""


class _Equality(NamedTuple):
    """`column` is determined by `by`, or by nothing if it equals a constant."""

    column: Column
    by: Column | None


class Level:
    """A query level: `query` within the level `outer`."""

    def __init__(self, query: Node, outer: Level | None, facts: Facts) -> None:
        self.query = query
        self.outer = outer
        self._facts = facts
        self._tables = query.nodes("rtable")
        self.targets = [target for target in query.nodes("targetList") if not target.flag("resjunk")]
        self.grouped = bool(query["groupClause"] or query["groupingSets"])
        self.one_row = query.flag("hasAggs") and not self.grouped and not query["havingQual"]

    def table(self, number: int) -> Node:
        """Return a table by its number, from 1."""
        return self._tables[number - 1]

    def above(self, levels: int) -> Level:
        """Return the level so many levels further out."""
        return self if not levels or self.outer is None else self.outer.above(levels - 1)

    @cached_property
    def used(self) -> list[int]:
        """The numbers of the tables that FROM or a UNION reads."""
        found = [node for name in ("jointree", "setOperations") if self.query[name] for node in _within(self.query[name])]
        return [node.number("rtindex") for node in found if node.type == "RANGETBLREF"]

    def inner(self, number: int) -> Level | None:
        """Return the level of a table that is a subquery or a CTE; None for others and for a CTE that refers to itself."""
        table = self.table(number)
        if table.number("rtekind") == SUBQUERY:
            return Level(table["subquery"], self, self._facts)
        if table.number("rtekind") != CTE or table.flag("self_reference"):
            return None
        level = self.above(table.number("ctelevelsup"))
        queries = [cte["ctequery"] for cte in level.query.nodes("cteList") if cte["ctename"] == table["ctename"]]
        return Level(queries[0], level, self._facts) if queries else None

    def behind(self, var: Node) -> Node | None:
        """Return the expression that a column of a join or of the groups stands for; None for any other column."""
        table, number = self.table(var.number("varno")), var.number("varattno")
        listed = table["joinaliasvars"] if table.number("rtekind") == JOIN else table["groupexprs"]
        found = listed[number - 1] if isinstance(listed, list) and 0 < number <= len(listed) else None
        return found if isinstance(found, Node) else None

    def sorted_by(self, *clauses: Sequence[Node]) -> list[Node]:
        """Return the expressions of sort and group clauses."""
        wanted = {one.number("tleSortGroupRef") for clause in clauses for one in clause}
        return [target["expr"] for target in self.query.nodes("targetList") if target.number("ressortgroupref") in wanted]

    def columns(self, expression: Node, depth: int = 0) -> Iterator[Column]:
        """Yield the columns of this level that an expression reads, also within its subqueries."""
        if expression.type == "VAR" and expression.number("varlevelsup") == depth:
            behind = self.behind(expression)
            if behind is None:
                yield expression.number("varno"), expression.number("varattno")
            else:
                yield from self.columns(behind)
        for child in expression.children():
            yield from self.columns(child, depth + (child.type == "QUERY"))

    def loose(self, expression: Node) -> bool:
        """Tell whether equal values of an expression may be written differently."""
        return any(expression.number(name) in self._facts.loose for name in (*TYPE_FIELDS, *COLLATION_FIELDS) if expression[name])

    def merged(self, target: Node) -> Iterator[Node]:
        """Yield the values in a column of the result that stand for several equal ones: itself if rows are merged, columns of groups."""
        if self.query["distinctClause"] or self.query["setOperations"]:
            yield target["expr"]
        if self.grouped:
            yield from (node for node in _outside_aggregates(target["expr"]) if node.type == "VAR")

    def fixes_output(self, by: Sequence[Node]) -> bool:
        """Tell whether two rows of the result that are equal in these expressions are equal everywhere."""
        outputs = [target["expr"] for target in self.targets]
        if self.one_row or all(any(output is one for one in by) and not self.loose(output) for output in outputs):
            return True
        if self.query["setOperations"] or self.query["groupingSets"] or self.query.flag("hasTargetSRFs"):
            return False
        return self.fixes_row(by) or (not self.grouped and self.fixes(outputs, by))

    def fixes_row(self, by: Sequence[Node]) -> bool:
        """Tell whether these expressions are equal in one row (or one group) only."""
        if self.grouped:
            return not self.query["groupingSets"] and self.fixes(self.sorted_by(self.query.nodes("groupClause")), by)
        return self._closure(by)[1] >= set(self.used)

    def fixes(self, expressions: Sequence[Node], by: Sequence[Node]) -> bool:
        """Tell whether rows that are equal in `by` are equal in these expressions."""
        known, whole = self._closure(by)
        loosely = self._loosely(by)

        def fixed(expression: Node) -> bool:
            if self.loose(expression):
                return whole >= {table for table, _ in self.columns(expression)}
            if any(expression is one for one in by):
                return True
            if any(node.type in ("AGGREF", "WINDOWFUNC") for node in _within(expression)):
                return whole >= set(self.used)
            return all((column in known and column not in loosely) or column[0] in whole for column in self.columns(expression))

        return all(map(fixed, expressions))

    def _closure(self, by: Sequence[Node]) -> tuple[set[Column], set[int]]:
        """Return the columns, and the tables with all of their columns, that these expressions determine."""
        known = {column for expression in by if (column := self._plain(expression)) is not None}
        whole: set[int] = set()
        loosely = self._loosely(by)
        while True:
            before = len(known), len(whole)
            known |= {one.column for one in self._equalities if one.by is None or one.by in known or one.by[0] in whole}
            whole |= {number for number in self.used if number not in whole and self._one_row_of(number, known, loosely)}
            if (len(known), len(whole)) == before:
                return known, whole

    def _loosely(self, by: Sequence[Node]) -> set[Column]:
        """Return the columns in these expressions whose equal values may be written differently."""
        return {column for expression in by if self.loose(expression) for column in self.columns(expression)}

    def _one_row_of(self, number: int, known: set[Column], loosely: set[Column]) -> bool:
        """Tell whether the known columns leave one row of a table, or equal rows only."""
        table = self.table(number)
        kind, columns = table.number("rtekind"), {column for of, column in known if of == number}
        if kind == RESULT or (kind == VALUES and len(table["values_lists"]) == 1):
            return True
        if kind == RELATION and any(columns >= key for key in self._facts.keys.get(table.number("relid"), ())):
            return True
        inner = self.inner(number)
        if inner is not None:
            return inner.fixes_output([target["expr"] for target in inner.targets if target.number("resno") in columns])
        return len(columns - {column for of, column in loosely if of == number}) >= len(table["eref"]["colnames"] or ())

    @cached_property
    def _equalities(self) -> list[_Equality]:
        return list(self._equal(self.query["jointree"])) if self.query["jointree"] else []

    def _equal(self, item: Node) -> Iterator[_Equality]:
        """Yield the equalities of a part of FROM. Across an outer join, only columns of the side that may be missing are determined."""
        kind = item.number("jointype")
        optional = {_LEFT: item["rarg"], _RIGHT: item["larg"]}.get(kind) if item.type == "JOINEXPR" else None
        if item.type == "FROMEXPR" or kind == _INNER or optional is not None:
            tables = None if optional is None else {node.number("rtindex") for node in _within(optional) if node.type == "RANGETBLREF"}
            for left, right in self._compared(item["quals"]):
                for one, other in ((left, right), (right, left)):
                    column, by = self._plain(one), self._plain(other)
                    constant = by is None and not any(self.columns(other))
                    if column is not None and (constant or by is not None) and (tables is None or (not constant and column[0] in tables)):
                        yield _Equality(column, by)
        for part in (*item.nodes("fromlist"), item["larg"], item["rarg"]):
            if isinstance(part, Node):
                yield from self._equal(part)

    def _compared(self, condition: Node | None) -> Iterator[tuple[Node, Node]]:
        if condition is None:
            return
        if condition.type == "BOOLEXPR" and condition["boolop"] == "and":
            for one in condition.nodes("args"):
                yield from self._compared(one)
        elif condition.type == "OPEXPR" and condition.number("opno") in self._facts.equalities:
            left, right = condition.nodes("args")
            yield left, right

    def _plain(self, expression: Node) -> Column | None:
        """Return the column that an expression is."""
        while expression.type == "RELABELTYPE":
            expression = expression["arg"]
        behind = self.behind(expression) if expression.type == "VAR" and not expression.number("varlevelsup") else None
        if behind is not None:
            return self._plain(behind)
        if expression.type != "VAR" or expression.number("varlevelsup"):
            return None
        return expression.number("varno"), expression.number("varattno")


def _outside_aggregates(node: Node) -> Iterator[Node]:
    """Yield a node and all below it, without those of aggregates and subqueries."""
    yield node
    for child in node.children():
        if child.type not in ("AGGREF", "QUERY") and node.type != "AGGREF":
            yield from _outside_aggregates(child)


def _within(node: Node) -> Iterator[Node]:
    """Yield a node and all below it, without those of subqueries."""
    yield node
    for child in node.children():
        if child.type != "QUERY":
            yield from _within(child)

"""
SQL that counts the rows of a set of relations, put together from the planner's report.

    base relation   an item of FROM, its filters in WHERE
    INNER           both sides in one FROM list, so that the server is free to order them
    LEFT            one item in parentheses; the filters of its right side go into ON
    FULL            likewise; the filters of both sides stay below it
    SEMI, ANTI      EXISTS and NOT EXISTS in WHERE: the inner relations are hidden from then on
    UNIQUE          the distinct values of the inner side: its other columns are hidden from then on
    placeholder     an item of FROM that computes the expression, so that outer joins above make it NULL

A clause of an equivalence class may name a hidden relation; any visible member of the class on the same side says the same. Where values
that an anti join made NULL are used above it, anti joins are written as LEFT JOIN ... WHERE ... IS NULL instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pytest_pilotscope.queries.meaning import (
    MARK,
    Branch,
    Clause,
    CountSql,
    Level,
    Member,
    NoCount,
    Operation,
    Pair,
    Statement,
    Subquery,
    Volatility,
)
from pytest_pilotscope.queries.predicates import quote_identifier

_MARK = re.compile(re.escape(MARK) + r"([a-z])(\d+)")
_REASONS = {
    1: "a parameter of the statement",
    2: "WHERE CURRENT OF",
    3: "a field of a record",
    4: "a column of a relation that was removed",
    5: "a constant row",
}
_HIDDEN = "a value of a relation that a semi join hides"


class _Item:
    """An item of a FROM list: `relations` that it brings, and those that must stand before it."""

    __slots__ = ("needs", "relations", "sql")

    def __init__(self, sql: str, relations: int, needs: int = 0) -> None:
        self.sql, self.relations, self.needs = sql, relations, needs & ~relations


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """
    A set as the parts of a SELECT.

    `visible` are the relations whose columns can be named, `distinct` has the new names of expressions of a unique side, `computed` are the
    placeholders that are items.
    """

    items: tuple[_Item, ...]
    conditions: tuple[str, ...] = ()
    visible: int = 0
    distinct: Mapping[str, str] = field(default_factory=dict)
    computed: frozenset[int] = frozenset()

    def beside(self, other: _Parts) -> _Parts:
        """Put two lists of FROM and WHERE together."""
        return _Parts(
            items=self.items + other.items,
            conditions=self.conditions + other.conditions,
            visible=self.visible | other.visible,
            distinct={**self.distinct, **other.distinct},
            computed=self.computed | other.computed,
        )


def count_sql(level: Level, mask: int) -> CountSql:
    """Return a statement that counts a set of relations; raises `NoCount`."""
    reason: NoCount | None = None
    for nulls_visible in (False, True):
        writer = _Writer(level, None, nulls_visible)
        try:
            parts = writer.parts(mask)
            return CountSql(f"SELECT count(*) FROM {_from(parts, mask)}{_where(parts.conditions)}", writer.worst)  # noqa: S608  # made from the planner's report
        except NoCount as error:
            reason = reason or error
    raise reason or NoCount("")


class _Writer:
    """Writes the sets of one level, inside the SQL of the level around it if there is one."""

    def __init__(self, level: Level, around: _Scope | None, nulls_visible: bool) -> None:
        self._level = level
        self._statement: Statement = level.statement
        self._around = around
        self._nulls_visible = nulls_visible
        self._known: dict[int, _Parts | NoCount] = {}
        self.worst: Volatility = "i"

    def parts(self, mask: int) -> _Parts:
        """Return the parts of a set."""
        if mask not in self._known:
            try:
                self._known[mask] = self._written(mask)
            except NoCount as error:
                self._known[mask] = error
        known = self._known[mask]
        if isinstance(known, NoCount):
            raise known
        return known

    def result(self) -> str:
        """Return the SELECT of a whole subquery."""
        result = self._level.result
        if result is None or result.why is not None:
            raise NoCount(result.why or "" if result else "the statement itself inside of it")
        if result.operation is not None:
            return self._operation(result.operation)
        everything = (1 << len(self._level.sources)) - 1
        parts = self.parts(everything) if everything else _Parts(items=())
        if result.relations & ~parts.visible:
            raise NoCount(_HIDDEN)
        self._met(result.volatility)
        scope = _Scope(self, parts.computed)
        targets = ", ".join(f"{scope.resolved(sql)} AS c{number}" for number, sql in enumerate(result.targets, start=1))
        source = f" FROM {_from(parts, everything)}" if everything else ""
        conditions = [*parts.conditions, *map(scope.resolved, result.where)]
        group = f" GROUP BY {', '.join(map(scope.resolved, result.group))}" if result.group else ""
        having = f" HAVING {' AND '.join(map(scope.resolved, result.having))}" if result.having else ""
        return f"SELECT {'DISTINCT ' if result.distinct else ''}{targets}{source}{_where(conditions)}{group}{having}"

    def _operation(self, operation: Operation) -> str:
        if isinstance(operation, int):
            return _Scope(self, frozenset()).subquery(operation)
        word, left, right = operation
        return f"({self._operation(left)}) {word} ({self._operation(right)})"

    def _met(self, volatility: Volatility) -> None:
        self.worst = max(self.worst, volatility)

    def _written(self, mask: int) -> _Parts:
        if mask in self._level.empty:
            return self._with_placeholders(self._empty(mask), mask, ())
        if mask.bit_count() == 1:
            return self._with_placeholders(self._base(mask.bit_length() - 1), mask, ())
        pairs = sorted(self._level.pairs.get(mask, ()), key=lambda pair: pair.kind == "UNIQUE")
        reason = NoCount("the planner did not say what joins it")
        for number, pair in enumerate(pairs):
            try:
                return self._joined(pair)
            except NoCount as error:
                reason = error if number == 0 else reason
        raise reason

    def _empty(self, mask: int) -> _Parts:
        """Write a set that the planner proved to be empty: its relations as they are, and nothing of them."""
        items = tuple(self._item(number) for number in range(len(self._level.sources)) if mask >> number & 1)
        return _Parts(items=items, conditions=("false",), visible=mask)

    def _base(self, number: int) -> _Parts:
        scope = _Scope(self, frozenset())
        source = self._level.sources[number]
        clauses = [self._level.clauses[filter_] for filter_ in source.filters]
        for clause in clauses:
            self._met(clause.volatility)
        # The branches of a UNION ALL have its filters: above it they could name a column that is NULL, since nothing else needs it.
        conditions = () if source.branches else tuple(scope.resolved(clause.sql) for clause in clauses)
        return _Parts(items=(self._item(number),), conditions=conditions, visible=1 << number)

    def _item(self, number: int) -> _Item:
        source = self._level.sources[number]
        if source.why is not None:
            raise NoCount(source.why)
        self._met(source.volatility)
        name = quote_identifier(source.name)
        scope = _Scope(self, frozenset())
        if source.level is None and not source.columns:
            return _Item(f"{source.item} AS {name}", 1 << number)
        if source.branches:
            inner = f"({' UNION ALL '.join(self._branch(branch) for branch in source.branches)})"
        elif source.level is not None:
            inner = f"({scope.subquery(source.level)})"
        else:
            inner = scope.resolved(source.item)
        columns = ", ".join(f"c{column}" for column in range(1, source.columns + 1))
        lateral = "LATERAL " if source.lateral else ""
        return _Item(f"{lateral}{inner} AS {name}({columns})", 1 << number, source.lateral)

    def _branch(self, branch: Branch) -> str:
        scope = _Scope(self, frozenset())
        name = quote_identifier(branch.name)
        targets = ", ".join(map(scope.resolved, branch.targets))
        where = _where([scope.resolved(sql) for sql in branch.filters])
        if branch.level is None:
            return f"SELECT {targets} FROM {branch.item} AS {name}{where}"  # noqa: S608  # made from the planner's report
        columns = ", ".join(f"c{column}" for column in range(1, branch.columns + 1))
        source = f"({scope.subquery(branch.level)}) AS {name}({columns})"
        return f"SELECT {targets} FROM {source}{where}"  # noqa: S608  # made from the planner's report

    def _joined(self, pair: Pair) -> _Parts:
        outer, inner = self.parts(pair.outer), self.parts(pair.inner)
        write: Mapping[str, Callable[[Pair, _Parts, _Parts], _Parts]] = {
            "INNER": self._inner,
            "LEFT": self._left,
            "FULL": self._full,
            "SEMI": self._semi,
            "ANTI": self._anti,
            "UNIQUE": self._unique,
        }
        return self._with_placeholders(write[pair.kind](pair, outer, inner), pair.outer | pair.inner, (pair.outer, pair.inner))

    def _inner(self, pair: Pair, outer: _Parts, inner: _Parts) -> _Parts:
        both = outer.beside(inner)
        return replace(both, conditions=(*both.conditions, *self._clauses(pair.on, pair, both)))

    def _left(self, pair: Pair, outer: _Parts, inner: _Parts) -> _Parts:
        both = outer.beside(inner)
        on = " AND ".join((*inner.conditions, *self._clauses(pair.on, pair, both))) or "true"
        item = _united(f"({_tree(outer.items)} LEFT JOIN {_tree(inner.items)} ON {on})", both.items)
        return replace(both, items=(item,), conditions=(*outer.conditions, *self._clauses(pair.where, pair, both)))

    def _full(self, pair: Pair, outer: _Parts, inner: _Parts) -> _Parts:
        both = outer.beside(inner)
        on = " AND ".join(self._clauses(pair.on, pair, both)) or "true"
        sides = [_filtered(outer, pair.outer), _filtered(inner, pair.inner)]
        item = _united(f"({sides[0]} FULL JOIN {sides[1]} ON {on})", both.items)
        return replace(both, items=(item,), conditions=tuple(self._clauses(pair.where, pair, both)))

    def _semi(self, pair: Pair, outer: _Parts, inner: _Parts) -> _Parts:
        return self._tested("EXISTS", pair, outer, inner)

    def _anti(self, pair: Pair, outer: _Parts, inner: _Parts) -> _Parts:
        both = outer.beside(inner)
        if not self._nulls_visible:
            tested = self._tested("NOT EXISTS", pair, outer, inner)
            return replace(tested, conditions=(*tested.conditions, *self._clauses(pair.where, pair, tested)))
        found = quote_identifier(f"#m{pair.inner}")
        on = " AND ".join((*inner.conditions, *self._clauses(pair.on, pair, both))) or "true"
        right = f"({_tree(inner.items)} CROSS JOIN (SELECT true AS p) AS {found})"
        item = _united(f"({_tree(outer.items)} LEFT JOIN {right} ON {on})", both.items)
        where = self._clauses(pair.where, pair, both)
        return replace(both, items=(item,), conditions=(*outer.conditions, f"{found}.p IS NULL", *where))

    def _tested(self, word: str, pair: Pair, outer: _Parts, inner: _Parts) -> _Parts:
        conditions = (*inner.conditions, *self._clauses(pair.on, pair, outer.beside(inner)))
        needs = _needs(inner.items) & ~pair.inner
        if needs & ~outer.visible:
            raise NoCount("a semi join that needs the rows of other relations")
        test = f"{word} (SELECT FROM {', '.join(item.sql for item in _ordered(inner.items))}{_where(conditions)})"
        return replace(outer, conditions=(*outer.conditions, test))

    def _unique(self, pair: Pair, outer: _Parts, inner: _Parts) -> _Parts:
        scope = _Scope(self, inner.computed)
        name = quote_identifier(f"#u{pair.inner}")
        targets = ", ".join(f"{scope.resolved(sql)} AS c{number}" for number, sql in enumerate(pair.unique, start=1))
        select = f"SELECT DISTINCT {targets} FROM {_from(inner, pair.inner)}{_where(inner.conditions)}"  # noqa: S608  # made from the planner's report
        distinct = {sql: f"{name}.c{number}" for number, sql in enumerate(pair.unique, start=1)}
        side = _Parts(items=(_Item(f"({select}) AS {name}", pair.inner),), distinct=distinct)
        return self._inner(pair, outer, side)

    def _with_placeholders(self, parts: _Parts, mask: int, sides: Sequence[int]) -> _Parts:
        """Add the placeholders that are computed where this set is joined."""
        for number, placeholder in self._level.placeholders.items():
            within = [side for side in (mask, *sides) if not placeholder.at & ~side]
            if within != [mask] or number in parts.computed:
                continue
            if placeholder.at & ~parts.visible:
                raise NoCount(_HIDDEN)
            self._met(placeholder.volatility)
            value = _Scope(self, parts.computed).resolved(placeholder.sql)
            item = _Item(f'LATERAL (SELECT {value} AS v) AS "#h{number}"', 0, placeholder.at | placeholder.lateral)
            parts = replace(parts, items=(*parts.items, item), computed=parts.computed | {number})
        return parts

    def _clauses(self, numbers: Iterable[int], pair: Pair, parts: _Parts) -> list[str]:
        scope = _Scope(self, parts.computed)
        written = []
        for number in numbers:
            clause = self._level.clauses[number]
            self._met(clause.volatility)
            written.append(scope.resolved(self._visible(clause, pair, parts)))
        return list(dict.fromkeys(written))

    def _visible(self, clause: Clause, pair: Pair, parts: _Parts) -> str:
        """Return the SQL of a clause by columns that are visible."""
        if not clause.relations & ~parts.visible:
            return clause.sql
        if clause.left is None or clause.right is None:
            raise NoCount(_HIDDEN)
        start, end = f"({clause.left.sql}", f"{clause.right.sql})"
        if not (clause.sql.startswith(start) and clause.sql.endswith(end)):
            raise NoCount(_HIDDEN)
        operator = clause.sql[len(start) : -len(end)]
        sides = [self._stand_in(member, clause, pair, parts) for member in (clause.left, clause.right)]
        return f"({sides[0]}{operator}{sides[1]})"

    def _stand_in(self, member: Member, clause: Clause, pair: Pair, parts: _Parts) -> str:
        """Return a member of the class that is visible, of the same side and type."""
        side = pair.outer if not member.relations & ~pair.outer else pair.inner
        for other in (member, *clause.members):
            if other.type != member.type or other.relations & ~side:
                continue
            if not other.relations & ~parts.visible:
                return other.sql
            if other.sql in parts.distinct:
                return parts.distinct[other.sql]
        raise NoCount(_HIDDEN)


class _Scope:
    """Resolves the marks in expressions of a level at one place of its SQL, where some placeholders are computed already."""

    def __init__(self, writer: _Writer, computed: frozenset[int]) -> None:
        self._writer = writer
        self._computed = computed

    def resolved(self, sql: str, instead: Mapping[int, str] | None = None) -> str:
        """Return an expression without marks; `instead` has the SQL of some parameters."""
        if MARK not in sql:
            return sql
        return _MARK.sub(lambda found: self._mark(found[1], int(found[2]), instead or {}), sql)

    def subquery(self, number: int) -> str:
        """Return the SELECT of a level inside of this one."""
        reason: NoCount | None = None
        for nulls_visible in (False, True):
            inner = _Writer(self._writer._statement.level(number), self, nulls_visible)
            try:
                sql = inner.result()
            except NoCount as error:
                reason = reason or error
                continue
            self._writer._met(inner.worst)
            return sql
        raise reason or NoCount("")

    def _mark(self, kind: str, number: int, instead: Mapping[int, str]) -> str:
        if kind == "x":
            raise NoCount(_REASONS[number])
        if kind == "h":
            return self._placeholder(number)
        if kind == "s":
            return self._subplan(self._writer._statement.subqueries[number])
        return instead[number - 1] if number - 1 in instead else self._parameter(number - 1)

    def _placeholder(self, number: int) -> str:
        if number in self._computed:
            return f'"#h{number}".v'
        placeholder = self._writer._level.placeholders.get(number)
        if placeholder is None:
            raise NoCount("an expression that was removed")
        return f"({self.resolved(placeholder.sql)})"

    def _parameter(self, number: int) -> str:
        parameter = self._writer._statement.parameters.get(number)
        if parameter is None:
            raise NoCount("a value that is not known before the statement runs")
        if parameter.plan is None:
            scope: _Scope | None = self
            while scope is not None and scope._writer._level.id != parameter.level:
                scope = scope._writer._around
            if scope is None:
                raise NoCount("it depends on a row of the query around it")
            return scope.resolved(parameter.sql)
        subquery = self._writer._statement.subqueries[parameter.plan]
        if subquery.kind != "EXPR" or (parameter.column == 1 and self._width(subquery) == 1):
            return self._subplan(subquery)
        columns = ", ".join(f"c{column}" for column in range(1, self._width(subquery) + 1))
        return f'(SELECT "#s".c{parameter.column} FROM ({self.subquery(subquery.level)}) AS "#s"({columns}))'  # noqa: S608  # made from the planner's report

    def _width(self, subquery: Subquery) -> int:
        result = self._writer._statement.level(subquery.level).result
        while result is not None and result.operation is not None:  # all branches have as many columns
            operation = result.operation
            while not isinstance(operation, int):
                operation = operation[1]
            result = self._writer._statement.level(operation).result
        return len(result.targets) if result else 0

    def _subplan(self, subquery: Subquery) -> str:
        select = self.subquery(subquery.level)
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
        decided, found, otherwise = ("t", "true", "false") if subquery.kind == "ANY" else ("NOT t", "false", "true")
        rows = f'SELECT {test} AS t FROM ({select}) AS "#s"({columns})'  # noqa: S608  # made from the planner's report
        value = f"CASE WHEN bool_or({decided}) THEN {found} WHEN bool_or(t IS NULL) THEN NULL ELSE {otherwise} END"
        return f'(SELECT {value} FROM ({rows}) AS "#t")'  # noqa: S608  # made from the planner's report


def _from(parts: _Parts, mask: int) -> str:
    if _needs(parts.items) & ~mask:
        raise NoCount("it depends on a row of another relation")
    return ", ".join(item.sql for item in _ordered(parts.items))


def _where(conditions: Iterable[str]) -> str:
    distinct = dict.fromkeys(conditions)
    return f" WHERE {' AND '.join(distinct)}" if distinct else ""


def _needs(items: Iterable[_Item]) -> int:
    needs = 0
    for item in items:
        needs |= item.needs
    return needs


def _ordered(items: Sequence[_Item]) -> list[_Item]:
    """Put items behind those whose rows they need."""
    brought = 0
    for item in items:
        brought |= item.relations
    ordered: list[_Item] = []
    waiting = list(items)
    before = 0
    while waiting:
        ready = next((item for item in waiting if not item.needs & brought & ~before), waiting[0])
        waiting.remove(ready)
        ordered.append(ready)
        before |= ready.relations
    return ordered


def _tree(items: Sequence[_Item]) -> str:
    """Return items as one side of a join."""
    ordered = _ordered(items)
    return ordered[0].sql if len(ordered) == 1 else f"({' CROSS JOIN '.join(item.sql for item in ordered)})"


def _united(sql: str, items: Sequence[_Item]) -> _Item:
    relations = 0
    for item in items:
        relations |= item.relations
    return _Item(sql, relations, _needs(items))


def _filtered(parts: _Parts, mask: int) -> str:
    """Return a side of a FULL JOIN with its filters below the join: PostgreSQL plans the join with a row of no columns away."""
    if not parts.conditions:
        return _tree(parts.items)
    return f'({_tree(parts.items)} JOIN (SELECT) AS "#f{mask}" ON {" AND ".join(dict.fromkeys(parts.conditions))})'

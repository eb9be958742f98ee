"""
SQL that counts the rows of a set of relations, put together from the planner's report.

    base relation   an item of FROM, its filters in WHERE
    INNER           both sides in one FROM list, so that the server is free to order them
    LEFT            one item in parentheses; the filters of its right side go into ON
    FULL            likewise; the filters of both sides stay below it
    SEMI, ANTI      EXISTS and NOT EXISTS in WHERE: the inner relations are hidden from then on
    UNIQUE          the distinct values of the inner side: its other columns are hidden from then on
    placeholder     an item of FROM that computes the expression, so that outer joins above make it NULL

A clause of an equivalence class may name a hidden relation; any visible member of the class on the same side is equal to it. If a condition
uses values that an anti join made NULL, anti joins are written as LEFT JOIN ... WHERE ... IS NULL instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from pytest_pilotscope.queries.fromitems import (
    Item,
    Parts,
    filtered_side,
    from_list,
    join_side,
    joined_item,
    needed_by,
    ordered,
    where_clause,
)
from pytest_pilotscope.queries.marks import Scope
from pytest_pilotscope.queries.meaning import Branch, Clause, CountSql, Level, Member, NoCount, Operation, Pair, Result, Volatility
from pytest_pilotscope.queries.predicates import quote_identifier

_HIDDEN = "a value of a relation that a semi join hides"


def count_sql(level: Level, mask: int) -> CountSql:
    """Return a statement that counts a set of relations; raises `NoCount`."""

    def write(writer: Writer) -> str:
        parts = writer.parts(mask)
        return f"SELECT count(*) FROM {from_list(parts, mask)}{where_clause(parts.conditions)}"  # noqa: S608  # made from the planner's report

    return _written(level, None, write)


def _written(level: Level, around: Scope | None, write: Callable[[Writer], str]) -> CountSql:
    """Write anti joins as NOT EXISTS, or, where that is not possible, as outer joins; raise the `NoCount` of the first way."""
    try:
        return _attempted(Writer(level, around, nulls_visible=False), write)
    except NoCount:
        with suppress(NoCount):
            return _attempted(Writer(level, around, nulls_visible=True), write)
        raise


def _attempted(writer: Writer, write: Callable[[Writer], str]) -> CountSql:
    return CountSql(write(writer), writer.worst)


def _columns(count: int) -> str:
    """Return the names of the columns of a FROM item, in parentheses; "" for none."""
    return f"({', '.join(f'c{column}' for column in range(1, count + 1))})" if count else ""


class Writer:
    """Writes the sets of one level, inside the SQL of the level around it if there is one."""

    def __init__(self, level: Level, around: Scope | None, *, nulls_visible: bool) -> None:
        self.level = level
        self.around = around
        self._nulls_visible = nulls_visible
        self._known: dict[int, Parts | NoCount] = {}
        self.worst: Volatility = "i"  # the most volatile of what was written

    def parts(self, mask: int) -> Parts:
        """Return the parts of a set."""
        if mask not in self._known:
            try:
                self._known[mask] = self._joined_anew(mask)
            except NoCount as error:
                self._known[mask] = error
        known = self._known[mask]
        if isinstance(known, NoCount):
            raise known
        return known

    def result(self) -> str:
        """Return the SELECT of a whole subquery."""
        result = self.level.result
        if result is None or result.why is not None:
            raise NoCount(result.why or "" if result else "the statement itself inside of it")
        if result.operation is not None:
            return f"{self._operation(result.operation)}{self._chosen(result, Scope(self, frozenset()))}"
        everything = (1 << len(self.level.sources)) - 1
        parts = self.parts(everything) if everything else Parts(items=())
        if result.relations & ~parts.visible:
            raise NoCount(_HIDDEN)
        self._met(result.volatility)
        scope = Scope(self, parts.computed)
        targets = ", ".join(f"{scope.resolved(sql)} AS c{number}" for number, sql in enumerate(result.targets, start=1))
        source = f" FROM {from_list(parts, everything)}" if everything else ""
        conditions = [*parts.conditions, *map(scope.resolved, result.where)]
        keys = "()" if result.single else ", ".join(map(scope.resolved, result.group))  # its aggregates may be gone: nobody needs them
        group = f" GROUP BY {keys}" if keys else ""
        having = f" HAVING {' AND '.join(map(scope.resolved, result.having))}" if result.having else ""
        once = "DISTINCT " if result.distinct else ""
        if result.distinct_on:
            once = f"DISTINCT ON ({', '.join(map(scope.resolved, result.distinct_on))}) "
        return f"SELECT {once}{targets}{source}{where_clause(conditions)}{group}{having}{self._chosen(result, scope)}"

    def _chosen(self, result: Result, scope: Scope) -> str:
        """Return ORDER BY, OFFSET and LIMIT: which rows of a result are taken."""
        parts = [f" ORDER BY {', '.join(map(scope.resolved, result.order))}"] if result.order else []
        parts += [f" OFFSET ({scope.resolved(result.offset)})"] if result.offset is not None else []
        parts += [f" LIMIT ({scope.resolved(result.limit)})"] if result.limit is not None else []
        parts += [f" FETCH FIRST ({scope.resolved(result.ties)}) ROWS WITH TIES"] if result.ties is not None else []
        return "".join(parts)

    def subquery(self, number: int, scope: Scope) -> str:
        """Return the SELECT of a level inside of this one, at the place of `scope`."""
        sql, volatility = _written(self.level.statement.level(number), scope, Writer.result)
        self._met(volatility)
        return sql

    def _operation(self, operation: Operation) -> str:
        if isinstance(operation, int):
            return self.subquery(operation, Scope(self, frozenset()))
        word, left, right = operation
        return f"({self._operation(left)}) {word} ({self._operation(right)})"

    def _met(self, volatility: Volatility) -> None:
        self.worst = max(self.worst, volatility)

    def _joined_anew(self, mask: int) -> Parts:
        if mask in self.level.empty:
            return self._with_placeholders(self._empty(mask), mask, ())
        if mask.bit_count() == 1:
            return self._with_placeholders(self._base(mask.bit_length() - 1), mask, ())
        pairs = sorted(self.level.pairs.get(mask, ()), key=lambda pair: pair.kind == "UNIQUE")
        reason = NoCount("the planner reported no join that makes it")
        for number, pair in enumerate(pairs):
            try:
                return self._joined(pair)
            except NoCount as error:
                reason = error if number == 0 else reason
        raise reason

    def _empty(self, mask: int) -> Parts:
        """Write a set that the planner proved to be empty: its relations, and a condition that is false."""
        items = tuple(self._item(number) for number in range(len(self.level.sources)) if mask >> number & 1)
        return Parts(items=items, conditions=("false",), visible=mask)

    def _base(self, number: int) -> Parts:
        scope = Scope(self, frozenset())
        source = self.level.sources[number]
        clauses = [self.level.clauses[filter_] for filter_ in source.filters]
        for clause in clauses:
            self._met(clause.volatility)
        # The branches of a UNION ALL apply its filters: a column that only a filter needs is NULL in what they return.
        conditions = () if source.branches else tuple(scope.resolved(clause.sql) for clause in clauses)
        return Parts(items=(self._item(number),), conditions=conditions, visible=1 << number)

    def _item(self, number: int) -> Item:
        source = self.level.sources[number]
        if source.why is not None:
            raise NoCount(source.why)
        self._met(source.volatility)
        name = quote_identifier(source.name)
        scope = Scope(self, frozenset())
        if source.level is None and not source.columns:
            return Item(f"{source.item} AS {name}", 1 << number)
        if source.branches:
            inner = f"({' UNION ALL '.join(self._branch(branch) for branch in source.branches)})"
        elif source.level is not None:
            inner = f"({self.subquery(source.level, scope)})"
        else:
            inner = scope.resolved(source.item)
        lateral = "LATERAL " if source.lateral else ""
        return Item(f"{lateral}{inner} AS {name}{_columns(source.columns)}", 1 << number, source.lateral)

    def _branch(self, branch: Branch) -> str:
        scope = Scope(self, frozenset())
        name = quote_identifier(branch.name)
        targets = ", ".join(map(scope.resolved, branch.targets))
        where = where_clause([scope.resolved(sql) for sql in branch.filters])
        if branch.level is None:
            return f"SELECT {targets} FROM {branch.item} AS {name}{where}"  # noqa: S608  # made from the planner's report
        source = f"({self.subquery(branch.level, scope)}) AS {name}{_columns(branch.columns)}"
        return f"SELECT {targets} FROM {source}{where}"  # noqa: S608  # made from the planner's report

    def _joined(self, pair: Pair) -> Parts:
        outer, inner = self.parts(pair.outer), self.parts(pair.inner)
        write: Mapping[str, Callable[[Pair, Parts, Parts], Parts]] = {
            "INNER": self._inner,
            "LEFT": self._left,
            "FULL": self._full,
            "SEMI": self._semi,
            "ANTI": self._anti,
            "UNIQUE": self._unique,
        }
        return self._with_placeholders(write[pair.kind](pair, outer, inner), pair.outer | pair.inner, (pair.outer, pair.inner))

    def _inner(self, pair: Pair, outer: Parts, inner: Parts) -> Parts:
        both = outer.beside(inner)
        return replace(both, conditions=(*both.conditions, *self._clauses(pair.on, pair, both)))

    def _left(self, pair: Pair, outer: Parts, inner: Parts) -> Parts:
        return self._outer_joined(pair, outer, inner, join_side(inner.items))

    def _outer_joined(self, pair: Pair, outer: Parts, inner: Parts, right: str, *tests: str) -> Parts:
        """Join `right`, which is the SQL of the inner side, by LEFT JOIN; `tests` go into WHERE."""
        both = outer.beside(inner)
        on = " AND ".join((*inner.conditions, *self._clauses(pair.on, pair, both))) or "true"
        item = joined_item(f"({join_side(outer.items)} LEFT JOIN {right} ON {on})", both.items)
        return replace(both, items=(item,), conditions=(*outer.conditions, *tests, *self._clauses(pair.where, pair, both)))

    def _full(self, pair: Pair, outer: Parts, inner: Parts) -> Parts:
        both = outer.beside(inner)
        on = " AND ".join(self._clauses(pair.on, pair, both)) or "true"
        sides = [filtered_side(outer, pair.outer), filtered_side(inner, pair.inner)]
        item = joined_item(f"({sides[0]} FULL JOIN {sides[1]} ON {on})", both.items)
        return replace(both, items=(item,), conditions=tuple(self._clauses(pair.where, pair, both)))

    def _semi(self, pair: Pair, outer: Parts, inner: Parts) -> Parts:
        return self._tested("EXISTS", pair, outer, inner)

    def _anti(self, pair: Pair, outer: Parts, inner: Parts) -> Parts:
        if not self._nulls_visible:
            tested = self._tested("NOT EXISTS", pair, outer, inner)
            return replace(tested, conditions=(*tested.conditions, *self._clauses(pair.where, pair, tested)))
        found = quote_identifier(f"#m{pair.inner}")
        right = f"({join_side(inner.items)} CROSS JOIN (SELECT true AS p) AS {found})"
        return self._outer_joined(pair, outer, inner, right, f"{found}.p IS NULL")

    def _tested(self, word: str, pair: Pair, outer: Parts, inner: Parts) -> Parts:
        conditions = (*inner.conditions, *self._clauses(pair.on, pair, outer.beside(inner)))
        needs = needed_by(inner.items) & ~pair.inner
        if needs & ~outer.visible:
            raise NoCount("a semi join that needs the rows of other relations")
        test = f"{word} (SELECT FROM {', '.join(item.sql for item in ordered(inner.items))}{where_clause(conditions)})"
        return replace(outer, conditions=(*outer.conditions, test))

    def _unique(self, pair: Pair, outer: Parts, inner: Parts) -> Parts:
        scope = Scope(self, inner.computed)
        name = quote_identifier(f"#u{pair.inner}")
        targets = ", ".join(f"{scope.resolved(sql)} AS c{number}" for number, sql in enumerate(pair.unique, start=1))
        select = f"SELECT DISTINCT {targets} FROM {from_list(inner, pair.inner)}{where_clause(inner.conditions)}"  # noqa: S608  # made from the planner's report
        distinct = {sql: f"{name}.c{number}" for number, sql in enumerate(pair.unique, start=1)}
        side = Parts(items=(Item(f"({select}) AS {name}", pair.inner),), distinct=distinct)
        return self._inner(pair, outer, side)

    def _with_placeholders(self, parts: Parts, mask: int, sides: Sequence[int]) -> Parts:
        """Add the placeholders that are computed when this set is joined."""
        for number, placeholder in self.level.placeholders.items():
            within = [side for side in (mask, *sides) if not placeholder.at & ~side]
            if within != [mask] or number in parts.computed:
                continue
            if placeholder.at & ~parts.visible:
                raise NoCount(_HIDDEN)
            self._met(placeholder.volatility)
            value = Scope(self, parts.computed).resolved(placeholder.sql)
            item = Item(f'LATERAL (SELECT {value} AS v) AS "#h{number}"', 0, placeholder.at | placeholder.lateral)
            parts = replace(parts, items=(*parts.items, item), computed=parts.computed | {number})
        return parts

    def _clauses(self, numbers: Iterable[int], pair: Pair, parts: Parts) -> list[str]:
        scope = Scope(self, parts.computed)
        written = []
        for number in numbers:
            clause = self.level.clauses[number]
            self._met(clause.volatility)
            written.append(scope.resolved(self._visible(clause, pair, parts)))
        return list(dict.fromkeys(written))

    def _visible(self, clause: Clause, pair: Pair, parts: Parts) -> str:
        """Return the SQL of a clause by columns that are visible; a side may be in parentheses, before a cast."""
        if not clause.relations & ~parts.visible:
            return clause.sql
        if clause.left is None or clause.right is None:
            raise NoCount(_HIDDEN)
        left, right = re.escape(clause.left.sql), re.escape(clause.right.sql)
        found = re.fullmatch(rf"(\(\(?){left}((?:\)::| ).*?){right}((?:\)::[^()]*(?:\([^()]*\))?)?\))", clause.sql, re.DOTALL)
        if found is None:
            raise NoCount(_HIDDEN)
        sides = [self._stand_in(member, clause, pair, parts) for member in (clause.left, clause.right)]
        return f"{found[1]}{sides[0]}{found[2]}{sides[1]}{found[3]}"

    def _stand_in(self, member: Member, clause: Clause, pair: Pair, parts: Parts) -> str:
        """Return a member of the class that is visible, of the same side and type; only itself if it is of both sides."""
        side = pair.outer if not member.relations & ~pair.outer else pair.inner
        for other in (member, *clause.members):
            if other != member and (other.type != member.type or (member.relations | other.relations) & ~side):
                continue
            if not other.relations & ~parts.visible:
                return other.sql
            if other.sql in parts.distinct:
                return parts.distinct[other.sql]
        raise NoCount(_HIDDEN)

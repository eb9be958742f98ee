"""From any SQL text to a `JoinQuery`, by sqlglot; imported on demand because sqlglot is slow to import."""

from __future__ import annotations

from collections.abc import Iterator

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from pytest_pilotscope.core.assembly import Assembly
from pytest_pilotscope.core.conditions import Typer, conjuncts
from pytest_pilotscope.core.fromtree import Join, Placer, Region, aliases_of, reduce_outer_joins
from pytest_pilotscope.core.joins import ColumnRef, JoinQuery, Schema
from pytest_pilotscope.core.scopes import bind, column_of, derived, is_pulled_up, name_of
from pytest_pilotscope.errors import UnsupportedQuery

_JOINS = {
    **dict.fromkeys(("", "INNER", "CROSS"), "INNER"),
    **{f"{side}{outer}": side for side in ("LEFT", "RIGHT", "FULL") for outer in ("", " OUTER")},
}


def parse_query(sql: str, schema: Schema) -> JoinQuery:
    """Take one SELECT apart; raises `UnsupportedQuery`."""
    select = _select(sql)
    bind(select, schema, sql)
    return _Reader(Assembly(sql, schema)).read(select)


def _select(sql: str) -> exp.Select:
    try:
        statements = [statement for statement in sqlglot.parse(sql, read="postgres") if statement is not None]
    except SqlglotError as error:
        raise UnsupportedQuery(f"sqlglot cannot parse it ({str(error).splitlines()[0]})", sql) from error
    if len(statements) != 1:
        raise UnsupportedQuery(f"{len(statements)} statements instead of one", sql)
    statement = statements[0]
    if not isinstance(statement, exp.Select):
        raise UnsupportedQuery(f"a {statement.key.upper()} instead of a SELECT", sql)
    if statement.args.get("with_") or statement.args.get("with"):
        raise UnsupportedQuery("WITH", sql)
    return statement


class _Reader:
    """Reads the FROM clause into an assembly, and the conditions when all relations are known."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._typer = Typer(assembly)

    def read(self, select: exp.Select) -> JoinQuery:
        region = self._region(select)
        reduce_outer_joins(region, self._typer)
        placer = Placer(self._typer, self._add_conjunct, self._delay, self._equate)
        return self._assembly.finish(placer.place(region))

    def _region(self, select: exp.Select) -> Region:
        """Read FROM and WHERE of a query; EXISTS and IN over a subquery become semi and anti joins (`pull_up_sublinks`)."""
        region = self._from(select)
        where = select.args.get("where")
        written = [*region.conditions, *([where.this] if where is not None else [])]
        region.conditions = []
        for conjunct in (part for condition in written for part in conjuncts(condition)):
            join = self._sublink_join(conjunct, region)
            if join is None:
                region.conditions.append(conjunct)
            else:
                region = Region([join], region.conditions)
        return region

    def _sublink_join(self, conjunct: exp.Expression, region: Region) -> Join | None:
        """Return what `[NOT] EXISTS (...)` or `... IN (...)` is as a join with the region so far; None where it is not planned as one."""
        negated = isinstance(conjunct, exp.Not)
        test = conjunct.this.unnest() if negated else conjunct
        query = test.this if isinstance(test, exp.Exists) else _membership_query(test) if not negated else None
        select = query.unnest() if query is not None else None
        if not isinstance(select, exp.Select) or not is_pulled_up(select, exists=isinstance(test, exp.Exists)):
            return None
        inner = {name_of(table.args["alias"].this if table.args.get("alias") else table.this) for table in select.find_all(exp.Table)}
        outside = {name_of(column.args["table"]) for column in select.find_all(exp.Column) if column.args.get("table")} - inner
        if not outside <= aliases_of(region.items) or isinstance(test, exp.Exists) != bool(outside):
            return None
        pairs = [] if isinstance(test, exp.Exists) else _compared(test, select)
        if pairs is None:
            return None
        right = self._region(select)
        return Join("ANTI" if negated else "SEMI", Region(region.items), Region(right.items), [*right.conditions, *pairs])

    def _refuse(self, reason: str) -> UnsupportedQuery:
        return UnsupportedQuery(reason, self._assembly.sql)

    def _from(self, select: exp.Select) -> Region:
        source = select.args.get("from_") or select.args.get("from")
        if source is None:
            raise self._refuse("no FROM clause")
        if select.args.get("laterals"):
            raise self._refuse("LATERAL")
        region, tree = Region(), self._item(source.this)
        for join in select.args.get("joins") or ():
            if any((join.side, join.kind, join.method, join.args.get("on"), join.args.get("using"))):
                tree = self._joined(tree, join)
            else:  # a comma
                _take_over(region, tree)
                tree = self._item(join.this)
        _take_over(region, tree)
        return region

    def _item(self, item: exp.Expression) -> Region:
        if isinstance(item, exp.Paren | exp.Subquery) and isinstance(item.this, exp.Table) and not item.alias:
            item = item.this
        if not isinstance(item, exp.Table):
            return self._region(derived(item, self._assembly.sql))
        if item.args.get("sample") is not None:
            raise self._refuse("TABLESAMPLE")
        if not isinstance(item.this, exp.Identifier):
            raise self._refuse("a function in FROM")
        if item.args.get("only"):
            raise self._refuse("ONLY")
        if item.args.get("db") is not None and item.db != "public":
            raise self._refuse(f"a table with its schema ({item.sql('postgres')}): relations are known by the search path only")
        alias = item.args.get("alias")
        if alias is not None and alias.args.get("columns"):
            raise self._refuse("column aliases in FROM")
        name = name_of(alias.this if alias else item.this)
        self._assembly.add_relation(name_of(item.this), name)
        tree = Region([name])
        for join in item.args.get("joins") or ():
            tree = self._joined(tree, join)
        return tree

    def _joined(self, left: Region, join: exp.Join) -> Region:
        kind = " ".join(filter(None, (join.side, join.kind)))
        if kind not in _JOINS:
            raise self._refuse(f"{kind} JOIN")
        right = self._item(join.this)
        on = [join.args["on"]] if join.args.get("on") is not None else []
        columns = None if join.method == "NATURAL" else [name_of(column) for column in join.args.get("using") or ()]
        if columns is None or columns:
            kept = {"RIGHT": 1, "FULL": None}.get(_JOINS[kind], 0)
            sides = sorted(aliases_of(left.items)), sorted(aliases_of(right.items))
            on += [exp.EQ(this=column_of(*a), expression=column_of(*b)) for a, b in self._assembly.join_columns(*sides, columns, kept=kept)]
        if _JOINS[kind] == "INNER":
            return Region([*left.items, *right.items], [*left.conditions, *right.conditions, *on])
        if _JOINS[kind] == "RIGHT":
            left, right = right, left
        elif _JOINS[kind] == "LEFT":  # what LATERAL demands of the left side decides which rows match
            inside = aliases_of(right.items)
            parts = [part for condition in right.conditions for part in conjuncts(condition)]
            on += [part for part in parts if not {ref.alias for ref in self._typer.references(part)} <= inside]
            right.conditions = [part for part in parts if part not in on]
        return Region([Join("FULL" if _JOINS[kind] == "FULL" else "LEFT", left, right, on)])

    def _delay(self, needed: frozenset[str], conjunct: exp.Expression) -> None:
        self._assembly.add_residual(needed, self._typer.qualified_sql(conjunct))

    def _equate(self, conjunct: exp.Expression, inside: frozenset[str]) -> None:
        for left, right in self._column_pairs(conjunct):
            if (left.alias in inside) != (right.alias in inside):
                self._assembly.add_outer_equality(*((right, left) if left.alias in inside else (left, right)))

    def _add_conjunct(self, conjunct: exp.Expression) -> None:
        pairs = list(self._column_pairs(conjunct))
        if pairs:
            for left, right in pairs:
                self._assembly.add_equality(left, right)
            return
        aliases = frozenset(ref.alias for ref in self._typer.references(conjunct))
        if len(aliases) == 1:
            self._assembly.add_condition(next(iter(aliases)), self._typer.condition(conjunct))
        elif aliases:
            self._assembly.add_residual(aliases, self._typer.qualified_sql(conjunct))
        elif not self._typer.always_true(conjunct):
            raise self._refuse(f"a condition without columns: {conjunct.sql('postgres')}")

    def _column_pairs(self, conjunct: exp.Expression) -> Iterator[tuple[ColumnRef, ColumnRef]]:
        """Yield the pairs of `a.x = b.y` or `(a.x, a.y) = (b.x, b.y)`; nothing for any other condition."""
        if not isinstance(conjunct, exp.EQ):
            return
        left, right = conjunct.this.unnest(), conjunct.expression.unnest()
        lefts, rights = (side.expressions if isinstance(side, exp.Tuple) else [side] for side in (left, right))
        if len(lefts) != len(rights) or not all(isinstance(side, exp.Column) for side in [*lefts, *rights]):
            return
        pairs = [(self._typer.resolve(a), self._typer.resolve(b)) for a, b in zip(lefts, rights, strict=True)]
        if all(self._assembly.is_equality(a, b) for a, b in pairs):
            yield from pairs


def _take_over(region: Region, tree: Region) -> None:
    region.items += tree.items
    region.conditions += tree.conditions


def _compared(test: exp.Expression, select: exp.Select) -> list[exp.Expression] | None:
    """Return what `... IN (SELECT ...)` equates; None where that is not plain to see, or constant."""
    left = test.this.unnest()
    lefts = left.expressions if isinstance(left, exp.Tuple) else [left]
    rights = [expression.unalias() for expression in select.expressions]
    if len(lefts) != len(rights) or left.find(exp.Column) is None or any(value.find(exp.Star) is not None for value in rights):
        return None
    return [exp.EQ(this=a.copy(), expression=b.copy()) for a, b in zip(lefts, rights, strict=True)]


def _membership_query(test: exp.Expression) -> exp.Expression | None:
    """Return the subquery of `... IN (...)` or `... = ANY (...)`."""
    if isinstance(test, exp.In):
        found = test.args.get("query")
    else:
        found = test.expression.this if isinstance(test, exp.EQ) and isinstance(test.expression, exp.Any) else None
    return found if isinstance(found, exp.Expression) else None

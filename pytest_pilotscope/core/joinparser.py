"""From any SQL text to a `JoinQuery`, by sqlglot; imported on demand because sqlglot is slow to import."""

from __future__ import annotations

from collections.abc import Iterator

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from pytest_pilotscope.core.assembly import Assembly
from pytest_pilotscope.core.conditions import Typer, conjuncts, name_of
from pytest_pilotscope.core.joins import ColumnRef, JoinQuery, Schema
from pytest_pilotscope.errors import UnsupportedQuery


def parse_query(sql: str, schema: Schema) -> JoinQuery:
    """Take one SELECT apart; raises `UnsupportedQuery`."""
    return _Reader(Assembly(sql, schema)).read(_select(sql))


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
        self._conditions: list[exp.Expression] = []

    def read(self, select: exp.Select) -> JoinQuery:
        self._add_from(select)
        where = select.args.get("where")
        if where is not None:
            self._conditions.append(where.this)
        typer = Typer(self._assembly)
        for condition in self._conditions:
            for conjunct in conjuncts(condition):
                self._add_conjunct(conjunct, typer)
        return self._assembly.finish()

    def _refuse(self, reason: str) -> UnsupportedQuery:
        return UnsupportedQuery(reason, self._assembly.sql)

    def _add_from(self, select: exp.Select) -> None:
        source = select.args.get("from_") or select.args.get("from")
        if source is None:
            raise self._refuse("no FROM clause")
        if select.args.get("laterals"):
            raise self._refuse("LATERAL")
        self._add_item(source.this)
        for join in select.args.get("joins") or ():
            self._add_join(join)

    def _add_item(self, item: exp.Expression) -> None:
        if isinstance(item, exp.Paren | exp.Subquery) and isinstance(item.this, exp.Table) and not item.alias:
            item = item.this
        if not isinstance(item, exp.Table):
            raise self._refuse(f"{_kind(item)} in FROM")
        if item.args.get("sample") is not None:
            raise self._refuse("TABLESAMPLE")
        if not isinstance(item.this, exp.Identifier):
            raise self._refuse("a function in FROM")
        alias = item.args.get("alias")
        self._assembly.add_relation(name_of(item.this), name_of(alias.this if alias else item.this))
        for join in item.args.get("joins") or ():
            self._add_join(join)

    def _add_join(self, join: exp.Join) -> None:
        if join.side or join.kind not in ("", "INNER", "CROSS"):
            raise self._refuse(f"{' '.join(filter(None, (join.side, join.kind)))} JOIN")
        before = list(self._assembly.tables)
        self._add_item(join.this)
        after = [alias for alias in self._assembly.tables if alias not in before]
        if join.method == "NATURAL":
            self._assembly.join_columns(before, after, None)
        self._assembly.join_columns(before, after, [name_of(column) for column in join.args.get("using") or ()])
        if join.args.get("on") is not None:
            self._conditions.append(join.args["on"])

    def _add_conjunct(self, conjunct: exp.Expression, typer: Typer) -> None:
        pairs = list(self._column_pairs(conjunct, typer))
        if pairs:
            for left, right in pairs:
                self._assembly.add_equality(left, right)
            return
        aliases = frozenset(ref.alias for ref in typer.references(conjunct))
        if len(aliases) == 1:
            self._assembly.add_condition(next(iter(aliases)), typer.condition(conjunct))
        elif aliases:
            self._assembly.add_residual(aliases, typer.qualified_sql(conjunct))
        elif not typer.always_true(conjunct):
            raise self._refuse(f"a condition without columns: {conjunct.sql('postgres')}")

    def _column_pairs(self, conjunct: exp.Expression, typer: Typer) -> Iterator[tuple[ColumnRef, ColumnRef]]:
        """Yield the pairs of `a.x = b.y` or `(a.x, a.y) = (b.x, b.y)`; nothing for any other condition."""
        if not isinstance(conjunct, exp.EQ):
            return
        left, right = conjunct.this.unnest(), conjunct.expression.unnest()
        lefts, rights = (side.expressions if isinstance(side, exp.Tuple) else [side] for side in (left, right))
        if len(lefts) != len(rights) or not all(isinstance(side, exp.Column) for side in [*lefts, *rights]):
            return
        pairs = [(typer.resolve(a), typer.resolve(b)) for a, b in zip(lefts, rights, strict=True)]
        if all(self._assembly.is_equality(a, b) for a, b in pairs):
            yield from pairs


def _kind(item: exp.Expression) -> str:
    if isinstance(item, exp.Lateral):
        return "LATERAL"
    return "a subquery" if isinstance(item, exp.Subquery | exp.Select) else f"{item.key.upper()}"

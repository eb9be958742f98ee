"""From SQL text to a `JoinQuery`, by sqlglot; imported on demand because sqlglot is slow to import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from pytest_pilotscope.core.conditions import Typer, conjuncts
from pytest_pilotscope.core.equivalence import close, derive
from pytest_pilotscope.core.joins import ColumnRef, JoinQuery, Relation, Residual, Schema, key_family
from pytest_pilotscope.core.predicates import ColumnComparison, Predicate, predicate
from pytest_pilotscope.errors import UnsupportedQuery


def parse_query(sql: str, schema: Schema) -> JoinQuery:
    """Take one SELECT apart; raises `UnsupportedQuery`."""
    return _Reader(sql=sql, schema=schema).read(_select(sql))


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


@dataclass(kw_only=True)
class _Reader:
    """Collects relations first and conditions afterwards, because a condition needs all relations to be resolved."""

    sql: str
    schema: Schema
    tables: dict[str, str] = field(default_factory=dict)  # alias -> table
    conditions: list[exp.Expression] = field(default_factory=list)
    equalities: list[tuple[ColumnRef, ColumnRef]] = field(default_factory=list)
    merged: dict[str, ColumnRef] = field(default_factory=dict)  # columns of USING, named without a table
    predicates: dict[str, dict[str, Predicate]] = field(default_factory=dict)
    residuals: list[Residual] = field(default_factory=list)

    def read(self, select: exp.Select) -> JoinQuery:
        self.add_from(select)
        where = select.args.get("where")
        if where is not None:
            self.conditions.append(where.this)
        typer = Typer(resolve=self.resolve, type_of=self.type_of, sql=self.sql)
        for condition in self.conditions:
            for conjunct in conjuncts(condition):
                self.add_conjunct(conjunct, typer)
        return self.finish()

    def add_from(self, select: exp.Select) -> None:
        source = select.args.get("from_") or select.args.get("from")
        if source is None:
            raise UnsupportedQuery("no FROM clause", self.sql)
        if select.args.get("laterals"):
            raise UnsupportedQuery("LATERAL", self.sql)
        self.add_item(source.this)
        for join in select.args.get("joins") or ():
            self.add_join(join)

    def add_item(self, item: exp.Expression) -> None:
        if isinstance(item, exp.Paren | exp.Subquery) and isinstance(item.this, exp.Table) and not item.alias:
            item = item.this
        if not isinstance(item, exp.Table):
            raise UnsupportedQuery(f"{_kind(item)} in FROM", self.sql)
        if item.args.get("sample") is not None:
            raise UnsupportedQuery("TABLESAMPLE", self.sql)
        if not isinstance(item.this, exp.Identifier):
            raise UnsupportedQuery("a function in FROM", self.sql)
        table, alias = _name(item.this), _name(item.args["alias"].this if item.args.get("alias") else item.this)
        if table not in self.schema:
            raise UnsupportedQuery(f"table {table!r} is not in the schema", self.sql)
        if alias in self.tables:
            raise UnsupportedQuery(f"two relations are called {alias!r}", self.sql)
        self.tables[alias] = table
        for join in item.args.get("joins") or ():
            self.add_join(join)

    def add_join(self, join: exp.Join) -> None:
        if join.side or join.kind not in ("", "INNER", "CROSS"):
            raise UnsupportedQuery(f"{' '.join(filter(None, (join.side, join.kind)))} JOIN", self.sql)
        before = list(self.tables)
        self.add_item(join.this)
        after = [alias for alias in self.tables if alias not in before]
        columns = [_name(column) for column in join.args.get("using") or ()]
        if join.method == "NATURAL":
            columns = [c for alias in after for c in self.schema[self.tables[alias]] if self.owners(c, before)]
        for column in columns:
            self.merge(column, before, after)
        if join.args.get("on") is not None:
            self.conditions.append(join.args["on"])

    def merge(self, column: str, before: list[str], after: list[str]) -> None:
        left = self.merged.get(column) or self.only_owner(column, before)
        right = self.only_owner(column, after)
        self.merged[column] = left
        self.add_equality(left, right)

    def owners(self, column: str, aliases: list[str]) -> list[str]:
        return [alias for alias in aliases if column in self.schema[self.tables[alias]]]

    def only_owner(self, column: str, aliases: list[str]) -> ColumnRef:
        owners = self.owners(column, aliases)
        if len(owners) != 1:
            found = "no relation" if not owners else f"more than one relation ({', '.join(owners)})"
            raise UnsupportedQuery(f"column {column!r} belongs to {found}", self.sql)
        return ColumnRef(owners[0], column)

    def resolve(self, column: exp.Column) -> ColumnRef:
        name = _name(column.this)
        if not column.table:
            return self.merged.get(name) or self.only_owner(name, list(self.tables))
        alias = _name(column.args["table"])
        if alias not in self.tables:
            raise UnsupportedQuery(f"relation {alias!r} is not in FROM", self.sql)
        if name not in self.schema[self.tables[alias]]:
            raise UnsupportedQuery(f"table {self.tables[alias]!r} has no column {name!r}", self.sql)
        return ColumnRef(alias, name)

    def type_of(self, ref: ColumnRef) -> str:
        return self.schema[self.tables[ref.alias]][ref.column]

    def add_conjunct(self, conjunct: exp.Expression, typer: Typer) -> None:
        pairs = list(self.column_pairs(conjunct))
        if pairs:
            for left, right in pairs:
                self.add_equality(left, right)
            return
        aliases = frozenset(ref.alias for ref in typer.references(conjunct))
        if len(aliases) == 1:
            self.add_predicate(predicate(next(iter(aliases)), typer.condition(conjunct)))
        elif aliases:
            self.residuals.append(Residual(aliases=aliases, sql=typer.qualified_sql(conjunct)))
        elif not typer.always_true(conjunct):
            raise UnsupportedQuery(f"a condition without columns: {conjunct.sql('postgres')}", self.sql)

    def column_pairs(self, conjunct: exp.Expression) -> Iterator[tuple[ColumnRef, ColumnRef]]:
        """Yield the pairs of `a.x = b.y` or `(a.x, a.y) = (b.x, b.y)`; nothing for any other condition."""
        if not isinstance(conjunct, exp.EQ):
            return
        left, right = conjunct.this.unnest(), conjunct.expression.unnest()
        lefts, rights = (side.expressions if isinstance(side, exp.Tuple) else [side] for side in (left, right))
        if len(lefts) != len(rights) or not all(isinstance(side, exp.Column) for side in [*lefts, *rights]):
            return
        pairs = [(self.resolve(a), self.resolve(b)) for a, b in zip(lefts, rights, strict=True)]
        if all(self.is_equality(a, b) for a, b in pairs):
            yield from pairs

    def is_equality(self, left: ColumnRef, right: ColumnRef) -> bool:
        family = key_family(self.type_of(left))
        return left != right and family is not None and family == key_family(self.type_of(right))

    def add_equality(self, left: ColumnRef, right: ColumnRef) -> None:
        if not self.is_equality(left, right):
            types = f"{self.type_of(left)} and {self.type_of(right)}"
            raise UnsupportedQuery(f"USING or NATURAL over columns {left.column!r} of type {types}", self.sql)
        self.equalities.append((left, right))
        if left.alias == right.alias:
            first, second = sorted((left.column, right.column))
            self.add_predicate(predicate(left.alias, ColumnComparison(first, "=", second)))

    def add_predicate(self, found: Predicate) -> None:
        self.predicates.setdefault(found.alias, {}).setdefault(found.sql, found)

    def finish(self) -> JoinQuery:
        classes = close(self.equalities, list(self.tables))
        written: Mapping[str, tuple[Predicate, ...]] = {a: tuple(self.predicates.get(a, {}).values()) for a in self.tables}
        for found in derive(classes, written, self.type_of):
            self.add_predicate(found)
        relations = {
            alias: Relation(alias=alias, table=table, predicates=tuple(self.predicates.get(alias, {}).values()))
            for alias, table in self.tables.items()
        }
        return JoinQuery(
            sql=self.sql, relations=relations, equalities=tuple(self.equalities), residuals=tuple(self.residuals), classes=classes
        )


def _name(identifier: exp.Expression) -> str:
    """Return a name as the catalog has it: folded to lower case unless quoted."""
    return str(identifier.this) if identifier.args.get("quoted") else str(identifier.this).lower()


def _kind(item: exp.Expression) -> str:
    if isinstance(item, exp.Lateral):
        return "LATERAL"
    return "a subquery" if isinstance(item, exp.Subquery | exp.Select) else f"{item.key.upper()}"

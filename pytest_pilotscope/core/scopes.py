"""
Names across the subqueries of a query: each column says which relation it is of.

A column of a subquery in FROM becomes what it stands for. Afterwards the relations of a subquery that PostgreSQL pulls up
(`pull_up_subqueries` and `pull_up_sublinks`, prepjointree.c) can stand beside those of the query around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sqlglot import exp

from pytest_pilotscope.core.joins import Schema
from pytest_pilotscope.errors import UnsupportedQuery

_ON_ITS_OWN = ("with", "with_", "group", "having", "distinct", "limit", "offset", "windows", "locks", "order")
"""What makes PostgreSQL plan a subquery in FROM on its own (`is_simple_subquery`)."""


@dataclass(slots=True)
class Names:
    """What the columns of a query may be called: relation -> column -> expression, and the names of the query around it."""

    relations: dict[str, Mapping[str, exp.Expression]] = field(default_factory=dict)
    around: Names | None = None

    def find(self, column: exp.Column) -> exp.Expression | None:
        """Return what a column stands for; None for a name that is unknown or not unique: whoever resolves it says so."""
        name, table = name_of(column.this), column.args.get("table")
        wanted = [name_of(table)] if table else list(self.relations)
        found = [self.relations[relation][name] for relation in wanted if name in self.relations.get(relation, {})]
        if len(found) == 1:
            return found[0]
        return self.around.find(column) if not found and self.around is not None else None


def bind(select: exp.Select, schema: Schema, sql: str) -> None:
    """Give every column of a query and its subqueries its relation; `UnsupportedQuery` for a subquery in FROM that is not pulled up."""
    if any(node is not select for node in select.find_all(exp.Select)):
        _Binder(schema, sql, computed=not any(join.side for join in select.find_all(exp.Join))).bind(select, None)


@dataclass(frozen=True, slots=True)
class _Binder:
    """`computed` says whether a column of a subquery may be an expression: below an outer join that is not the same."""

    schema: Schema
    sql: str
    computed: bool

    def bind(self, select: exp.Select, around: Names | None) -> Names:
        names = Names(around=around)
        for item in _from_items(select):
            if isinstance(item, exp.Table):
                table = name_of(item.this) if isinstance(item.this, exp.Identifier) else ""
                alias = item.args.get("alias")
                own = name_of(alias.this) if alias else table
                names.relations[own] = {column: column_of(own, column) for column in self.schema.get(table, ())}
            else:
                self._bind_derived(item, names)
        for node in list(_own(select)):
            if isinstance(node, exp.Select):
                self.bind(node, names)
            elif isinstance(node, exp.Column):
                found = names.find(node)
                if found is None:
                    self._check_known(node, select)
                elif not _is_called(node, found):
                    node.replace(found.copy() if isinstance(found, exp.Column) else exp.Paren(this=found.copy()))
        return names

    def _check_known(self, column: exp.Column, select: exp.Select) -> None:
        """Refuse a column that only a subquery in FROM could have; who resolves the others knows about them."""
        table = column.args.get("table")
        items = (item for item in _from_items(select) if not isinstance(item, exp.Table))
        if table is not None and name_of(table) in {name_of(item.args["alias"].this) for item in items}:
            raise UnsupportedQuery(
                f"column {name_of(column.this)!r} of subquery {name_of(table)!r}: computed below an outer join, or unknown", self.sql
            )

    def _bind_derived(self, item: exp.Expression, names: Names) -> None:
        select = derived(item, self.sql)
        inner = self.bind(select, names if isinstance(item, exp.Lateral) else names.around)
        alias = item.args.get("alias")
        if alias is None or alias.this is None:
            raise UnsupportedQuery("a subquery in FROM without a name", self.sql)
        outputs = dict(self._outputs(select, inner))
        renamed = [name_of(column) for column in alias.args.get("columns") or ()]
        names.relations[name_of(alias.this)] = dict(zip([*renamed, *list(outputs)[len(renamed) :]], outputs.values(), strict=True))

    def _outputs(self, select: exp.Select, inner: Names) -> Iterator[tuple[str, exp.Expression]]:
        for expression in select.expressions:
            if isinstance(expression, exp.Star) or (isinstance(expression, exp.Column) and isinstance(expression.this, exp.Star)):
                wanted = [name_of(expression.args["table"])] if expression.args.get("table") else list(inner.relations)
                for relation in wanted:
                    yield from inner.relations.get(relation, {}).items()
                continue
            value = expression.this if isinstance(expression, exp.Alias) else expression
            if not isinstance(value, exp.Column) and not self.computed:
                continue  # who uses it is told that there is no such column
            if isinstance(expression, exp.Alias | exp.Column):
                yield name_of(expression.args["alias"] if isinstance(expression, exp.Alias) else expression.this), value


def derived(item: exp.Expression, sql: str) -> exp.Select:
    """Return the SELECT of a subquery in FROM or EXISTS that PostgreSQL pulls up; `UnsupportedQuery` for any other item."""
    inner = item.this.this if isinstance(item, exp.Lateral) and isinstance(item.this, exp.Subquery) else item.this
    if not isinstance(item, exp.Lateral | exp.Subquery) or not isinstance(inner, exp.Select):
        raise UnsupportedQuery(f"{'LATERAL' if isinstance(item, exp.Lateral) else item.key.upper()} in FROM", sql)
    if not is_pulled_up(inner):
        raise UnsupportedQuery("a subquery in FROM that is planned on its own (it aggregates, sorts, limits, or has no FROM)", sql)
    return inner


def is_pulled_up(select: exp.Select, *, exists: bool = False) -> bool:
    """Tell whether the relations of a subquery become those of the query around it; of EXISTS, order and LIMIT do not matter."""
    limit = select.args.get("limit")
    if exists and limit is not None and (not isinstance(limit.expression, exp.Literal) or limit.expression.this == "0"):
        return False
    kept = [name for name in _ON_ITS_OWN if not (exists and name in ("distinct", "limit", "order"))]
    if any(select.args.get(name) for name in kept) or not (select.args.get("from_") or select.args.get("from")):
        return False
    return not any(isinstance(node, exp.AggFunc | exp.Window) for part in select.expressions for node in part.walk())


def _from_items(select: exp.Select) -> Iterator[exp.Expression]:
    """Yield tables and subqueries of FROM, in order, those in parentheses included."""
    source = select.args.get("from_") or select.args.get("from")
    waiting = [*([source.this] if source is not None else []), *(join.this for join in select.args.get("joins") or ())]
    while waiting:
        item = waiting.pop(0)
        if isinstance(item, exp.Subquery | exp.Paren) and isinstance(item.this, exp.Table):
            item = item.this
        waiting = [*(join.this for join in item.args.get("joins") or ()), *waiting]
        if isinstance(item, exp.Table | exp.Subquery | exp.Lateral):
            yield item


def _own(node: exp.Expression) -> Iterator[exp.Expression]:
    """Yield the columns of a query, and the subqueries in its expressions; what is inside of those, and of those in FROM, is theirs."""
    for child in node.iter_expressions():
        if isinstance(child, exp.Column | exp.Select):
            if not (isinstance(child, exp.Column) and isinstance(child.this, exp.Star)):
                yield child
        elif not (isinstance(child, exp.Subquery | exp.Lateral) and isinstance(child.parent, exp.From | exp.Join)):
            yield from _own(child)


def _is_called(column: exp.Column, found: exp.Expression) -> bool:
    """Tell whether a column is written with its relation and stands for itself."""
    table = column.args.get("table")
    return isinstance(found, exp.Column) and table is not None and name_of(table) == name_of(found.args["table"])


def column_of(relation: str, name: str) -> exp.Column:
    """Write a column with its relation."""
    return exp.Column(this=exp.to_identifier(name, quoted=True), table=exp.to_identifier(relation, quoted=True))


def name_of(identifier: exp.Expression) -> str:
    """Return a name as the catalog has it: folded to lower case unless quoted."""
    return str(identifier.this) if identifier.args.get("quoted") else str(identifier.this).lower()

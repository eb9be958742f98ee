"""From sqlglot's expressions to typed conditions; what has no typed form keeps its SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import cast

from sqlglot import exp

from pytest_pilotscope.core.assembly import Assembly
from pytest_pilotscope.core.joins import ColumnRef
from pytest_pilotscope.core.predicates import (
    And,
    Between,
    ColumnComparison,
    Comparison,
    Condition,
    Constant,
    IsNull,
    Like,
    Not,
    Opaque,
    Operator,
    Or,
    TypedText,
    in_list,
    number,
    render,
)
from pytest_pilotscope.core.scopes import name_of
from pytest_pilotscope.errors import UnsupportedQuery

_OPERATORS: dict[type[exp.Expression], Operator] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_FLIPPED: dict[Operator, Operator] = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_TEXT_TYPES = ("DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIME", "TIMETZ", "UUID")  # their constants stay text with a type


def conjuncts(condition: exp.Expression) -> Iterator[exp.Expression]:
    """
    Yield the top-level conjuncts as PostgreSQL's `canonicalize_qual` (src/backend/optimizer/prep/prepqual.c) leaves them.

    NOT is pushed down, and what all arms of an OR have in common is taken out of it.
    """
    condition = _bare(condition)
    if isinstance(condition, exp.And):
        yield from conjuncts(condition.this)
        yield from conjuncts(condition.expression)
    elif isinstance(condition, exp.Not) and isinstance(condition.this.unnest(), exp.Or | exp.And | exp.Not):
        yield from _negated(condition.this.unnest())
    elif isinstance(condition, exp.Or):
        yield from _factored(condition)
    else:
        yield condition


def _negated(condition: exp.Expression) -> Iterator[exp.Expression]:
    if isinstance(condition, exp.Not):
        yield from conjuncts(condition.this)
    elif isinstance(condition, exp.Or):
        yield from conjuncts(exp.Not(this=condition.this))
        yield from conjuncts(exp.Not(this=condition.expression))
    else:
        yield from conjuncts(exp.Or(this=exp.Not(this=condition.this), expression=exp.Not(this=condition.expression)))


def _factored(condition: exp.Or) -> Iterator[exp.Expression]:
    arms = [list(conjuncts(arm)) for arm in _arms(condition)]
    common = [part for part in arms[0] if all(part in arm for arm in arms[1:])]
    if not common:
        yield condition
        return
    yield from common
    rests = [[part for part in arm if part not in common] for arm in arms]
    if all(rests):  # an arm without a rest makes the OR of the rests true
        yield cast(exp.Expression, exp.or_(*(exp.and_(*(part.copy() for part in rest)) for rest in rests)))


def _arms(condition: exp.Expression) -> Iterator[exp.Expression]:
    condition = _bare(condition)
    if isinstance(condition, exp.Or):
        yield from _arms(condition.this)
        yield from _arms(condition.expression)
    else:
        yield condition


@dataclass(frozen=True, slots=True)
class Typer:
    """Gives conditions their typed form; the assembly knows the relations and the types of their columns."""

    assembly: Assembly

    def resolve(self, column: exp.Column) -> ColumnRef:
        """Find the relation of a column."""
        table = column.args.get("table")
        return self.assembly.resolve(name_of(table) if table else None, name_of(column.this))

    def references(self, node: exp.Expression) -> list[ColumnRef]:
        """List the columns of the query's own relations in an expression; a constant subquery has none."""
        if isinstance(node, exp.Column):
            return [self.resolve(node)]
        references: list[ColumnRef] = []
        for child in node.iter_expressions():
            if isinstance(child, exp.Query):
                self._check_subquery(child)
            else:
                references += self.references(child)
        return references

    def _check_subquery(self, query: exp.Query) -> None:
        """Note a subquery that is planned on its own; refuse one that refers to the outer query: what it returns depends on its rows."""
        inner = {table.alias_or_name for table in query.find_all(exp.Table)}
        if any(not column.table or column.table not in inner for column in query.find_all(exp.Column)):
            raise UnsupportedQuery("a subquery with columns that may be those of the outer query", self.assembly.sql)
        self.assembly.subqueries[query.unnest().sql(dialect="postgres")] = None

    def condition(self, node: exp.Expression) -> Condition:
        """Return the typed form of a condition on one relation."""
        node = _bare(node)
        if isinstance(node, exp.Not):
            return Not(self.condition(node.this))
        if isinstance(node, exp.And | exp.Or):
            return self._connective(node)
        return self._leaf(node) or self._opaque(node)

    def _connective(self, node: exp.And | exp.Or) -> Condition:
        kind = And if isinstance(node, exp.And) else Or
        parts: dict[str, Condition] = {}
        for side in (node.this, node.expression):
            part = self.condition(side)
            parts.update({render(child): child for child in (part.children if isinstance(part, kind) else (part,))})
        children = tuple(parts[sql] for sql in sorted(parts))
        return children[0] if len(children) == 1 else kind(children)

    def _leaf(self, node: exp.Expression) -> Condition | None:
        if isinstance(node, exp.Column):
            return Comparison(self.resolve(node).column, "=", True)
        if type(node) in _OPERATORS:
            return self._comparison(node)
        if isinstance(node, exp.Like | exp.ILike):
            return self._like(node)
        column = node.this.unnest() if isinstance(node.this, exp.Expression) else None
        if not isinstance(column, exp.Column):
            return None
        return _negated_if(node, self._column_test(node, self.resolve(column)))

    def _column_test(self, node: exp.Expression, ref: ColumnRef) -> Condition | None:
        if isinstance(node, exp.Between):
            return self._between(node, ref)
        if isinstance(node, exp.In):
            return self._in_list(node, ref)
        if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
            return IsNull(ref.column)
        return None

    def _comparison(self, node: exp.Expression) -> Condition | None:
        left, right, operator = node.this.unnest(), node.args["expression"].unnest(), _OPERATORS[type(node)]
        if isinstance(right, exp.Column) and not isinstance(left, exp.Column):
            left, right, operator = right, left, _FLIPPED[operator]
        if not isinstance(left, exp.Column):
            return None
        ref = self.resolve(left)
        if isinstance(right, exp.Column):
            return ColumnComparison(ref.column, operator, self.resolve(right).column)
        value = self._constant(right, ref)
        return None if value is None else Comparison(ref.column, operator, value)

    def _like(self, node: exp.Like | exp.ILike) -> Condition | None:
        column, pattern = node.this.unnest(), node.expression.unnest()
        if not isinstance(column, exp.Column) or not isinstance(pattern, exp.Literal) or not pattern.is_string:
            return None
        return _negated_if(node, Like(self.resolve(column).column, str(pattern.this), case_sensitive=isinstance(node, exp.Like)))

    def _between(self, node: exp.Between, ref: ColumnRef) -> Condition | None:
        low, high = (self._constant(node.args[end], ref) for end in ("low", "high"))
        if node.args.get("symmetric") or low is None or high is None:
            return None
        return Between(ref.column, low, high)

    def _in_list(self, node: exp.In, ref: ColumnRef) -> Condition | None:
        values = [self._constant(value, ref) for value in node.expressions]
        constants = [value for value in values if value is not None]
        return in_list(ref.column, constants) if values and len(constants) == len(values) else None

    def _constant(self, node: exp.Expression, ref: ColumnRef) -> Constant | None:
        """Return a literal as it compares with a column."""
        return self.assembly.coerced(_literal(_bare(node)), ref)

    def _opaque(self, node: exp.Expression) -> Opaque:
        columns = tuple(dict.fromkeys(ref.column for ref in self.references(node)))
        return Opaque(columns, self._rewritten(node, lambda ref: (ref.column,)))

    def qualified_sql(self, node: exp.Expression) -> str:
        """Return the SQL of a condition with every column of the query's own relations qualified by its alias."""
        return self._rewritten(node, lambda ref: (ref.alias, ref.column))

    def _rewritten(self, node: exp.Expression, names: Callable[[ColumnRef], Sequence[str]]) -> str:
        def replace(part: exp.Expression) -> exp.Expression:
            if not isinstance(part, exp.Column) or part.find_ancestor(exp.Query) is not None:
                return part
            *table, column = (exp.to_identifier(name, quoted=True) for name in names(self.resolve(part)))
            return exp.Column(this=column, table=table[0] if table else None)

        if node.find(exp.ByteString) is not None:
            raise UnsupportedQuery("a string with escapes (E'...')", self.assembly.sql)
        if (changing := next(_changing(node), None)) is not None:
            raise UnsupportedQuery(f"{changing} has another value at another time", self.assembly.sql)
        return node.copy().transform(replace).sql(dialect="postgres")

    def always_true(self, node: exp.Expression) -> bool:
        """Tell whether a condition without columns is plainly true: TRUE, or a literal equal to itself."""
        if isinstance(node, exp.EQ):
            return isinstance(node.this, exp.Literal) and node.this == node.expression
        return isinstance(node, exp.Boolean) and bool(node.this)


_CHANGING = (exp.CurrentDate, exp.CurrentTime, exp.CurrentTimestamp, exp.Localtime, exp.Localtimestamp, exp.Rand, exp.Uuid)
_CHANGING_NAMES = frozenset(
    ("clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday", "random_normal", "nextval", "txid_current")
)


def _changing(node: exp.Expression) -> Iterator[str]:
    """Yield the functions of a condition that do not always give the same: what was counted with them is soon wrong."""
    for function in node.find_all(exp.Func):
        age_of_one = function.name.lower() == "age" and len(function.expressions) == 1
        if isinstance(function, _CHANGING) or age_of_one or function.name.lower() in _CHANGING_NAMES:
            yield function.sql(dialect="postgres")


def _negated_if(node: exp.Expression, found: Condition | None) -> Condition | None:
    """Apply sqlglot's `negate` flag: NOT LIKE and IS NOT NULL are one node each, NOT IN and NOT BETWEEN a node in a Not."""
    return Not(found) if found is not None and node.args.get("negate") else found


def _bare(node: exp.Expression) -> exp.Expression:
    """Take the parentheses off; sqlglot declares a wider type than it returns."""
    return cast(exp.Expression, node.unnest())


def _literal(node: exp.Expression) -> Constant | None:
    if isinstance(node, exp.Literal):
        return str(node.this) if node.is_string else number(str(node.this))
    if isinstance(node, exp.Boolean):
        return bool(node.this)
    if isinstance(node, exp.Neg):
        value = _literal(node.this.unnest())
        return -value if isinstance(value, int | Decimal) and not isinstance(value, bool) else None
    if isinstance(node, exp.Cast) and isinstance(node.this, exp.Literal) and node.this.is_string:
        return _typed(str(node.this.this), node.to)
    return None


def _typed(text: str, to: exp.DataType) -> TypedText | None:
    name = str(to.this.name)
    return TypedText(text, name.lower()) if name in _TEXT_TYPES and not to.expressions else None

"""Conditions drawn at random: on one relation, between several, and over subqueries."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tests.labels.typed_schema import Column, Scope, Visible

MakeSubquery = Callable[[Scope, Sequence[Column]], str]
"""Called with the relations that the subquery may refer to, and the columns that its own must be comparable with; returns its SQL."""

_Named: TypeAlias = tuple[str, Column]
_TEXT = Column(name="", type="text", values=("k1", "1", "2", "t"))


class Conditions:
    """Draws conditions; `subquery` makes the subqueries of EXISTS, IN, ANY and ALL."""

    def __init__(self, draw: random.Random, subquery: MakeSubquery) -> None:
        self._draw = draw
        self._subquery = subquery

    def any(self, scope: Scope, outer: Scope) -> str:
        """Return a condition without a subquery: a filter, an OR over several relations, a negation, a comparison between relations."""
        draw = self._draw
        kind = draw.random()
        if kind < 0.6:
            return self.filter(draw.choice(scope))
        if kind < 0.75:
            return self._disjunction(scope)
        if kind < 0.8:
            return f"NOT ({self.any(scope, outer)})"
        if kind < 0.85 and len(scope) > 1:
            one, two = draw.sample(scope, 2)
            return f"coalesce({one.alias}.{self._column(one).name}, NULL) IS NOT NULL OR {self.filter(two)}".join("()")
        others = scope[1:] or outer
        return self.link(scope[:1], others) if others else self.filter(scope[0])

    def filter(self, visible: Visible) -> str:
        """Return a condition on one relation."""
        draw = self._draw
        column = self._column(visible)
        name = f"{visible.alias}.{column.name}"
        if not column.comparison:
            return f"{name} IS {draw.choice(('', 'NOT '))}NULL"
        literal = column.literal(draw)
        if len(column.comparison) < 6:
            return f"{name} {draw.choice(column.comparison)} {literal}"
        if len(column.values) > 10 and draw.random() < 0.8:  # a key
            return f"{name} {draw.choice(('<', '<=', '<>', '>', '>='))} {literal}"
        if column.type == "boolean":
            return draw.choice((name, f"NOT {name}", f"{name} IS NOT TRUE", f"{name} IS FALSE", f"{name} = true", f"{name} IS UNKNOWN"))
        return draw.choice(
            (
                f"{name} = {literal}",
                f"{name} = {literal}",
                f"{name} <> {literal}",
                f"{name} >= {literal}",
                f"{name} {draw.choice(column.comparison)} {literal}",
                f"{name} IN ({literal}, {column.literal(draw)})",
                f"{name} IN ({literal})",
                f"{name} NOT IN ({literal}, {column.literal(draw)})",
                f"{name} BETWEEN {literal} AND {column.literal(draw)}",
                f"NOT ({name} <> {literal})",
                f"{name} IS NULL",
                f"{name} IS NOT NULL",
                f"{name} IS DISTINCT FROM {literal}",
                f"coalesce({name}, {literal}) = {column.literal(draw)}",
                f"nullif({name}, {literal}) IS NULL",
                f"CASE WHEN {name} = {literal} THEN {column.literal(draw)} ELSE {name} END = {literal}",
                f"({name}, {visible.alias}.{self._column(visible).name}) IS NOT NULL",
                *self._of_type(name, column),
            )
        )

    def _of_type(self, name: str, column: Column) -> Sequence[str]:
        arrays: tuple[str, ...]
        literals = f"{column.literal(self._draw)}, {column.literal(self._draw)}"
        if not column.type.endswith("[]"):
            arrays = (f"{name} = ANY (ARRAY[{literals}])", f"{name} <> ALL (ARRAY[{literals}])")
        else:
            arrays = (f"{name} || {name} = {column.literal(self._draw)}",)
        return (*arrays, *self._of_kind(name, column))

    @staticmethod
    def _of_kind(name: str, column: Column) -> Sequence[str]:
        if column.type in ("integer", "smallint", "bigint", "whole"):
            return (f"{name} = 1 + 1", f"{name} + 1 > 2", f"@ ({name} - 2) = 1", f"{name} % 2 = 0", f"{name} > 0.5")
        if column.type in ("text", "varchar(9)", "word"):
            return (f"{name} LIKE 'k%'", f"lower({name}) = 'k1'", f"{name} ~ '^[kK]'", f"{name} || 'x' = 'k1x'", f"length({name}) > 1")
        if column.type in ("date", "timestamp", "timestamptz"):
            return (f"{name} + interval '1 day ago' > '2020-01-10'", f"extract(day from {name}) = 11", f"{name} > 'yesterday'")
        return ()

    def _disjunction(self, scope: Scope) -> str:
        """Return an OR over relations; the planner may derive a filter for each of them."""
        draw = self._draw
        chosen = draw.sample(scope, min(len(scope), draw.choice((1, 2, 2, 3))))
        branches = []
        for _ in range(draw.choice((2, 2, 3))):
            kept = [one for one in chosen if draw.random() < 0.8] or chosen[:1]
            branches.append(" AND ".join(self.filter(one) for one in kept))
        return f"({' OR '.join(f'({branch})' for branch in branches)})"

    def link(self, left: Scope, right: Scope) -> str:
        """Return a condition between a relation of each side, most often an equality of keys."""
        draw = self._draw
        (one, first), (two, second) = self._pair(left, right)
        kind = draw.random()
        if kind < 0.8:
            return f"{one} = {two}"
        if kind < 0.82 and len(first.comparison) == len(second.comparison) == 6:
            other, column = draw.choice(self._comparable(left))
            return f"({one}, {other}) = ({two}, {column.literal(draw)})"
        if kind < 0.88:
            return f"{one} IS NOT DISTINCT FROM {two}"
        if kind < 0.91:
            return f"coalesce({two}, {second.literal(draw)}) = {one}"
        if kind < 0.94 and len(second.comparison) == 6:
            return f"{one} {draw.choice(second.comparison[1:])} {two}"
        if kind < 0.97:
            return f"({one} = {two} OR {two} IS NULL)"
        return f"{one} = {two} AND {two} = {second.literal(draw)}"

    def hashed_link(self, left: Scope, right: Scope) -> str:
        """Return an equality that a hash join can use, as FULL JOIN needs it."""
        for _ in range(20):
            (one, first), (two, second) = self._pair(left, right)
            if first.type == second.type and first.hashed:
                return f"{one} = {two}"
        return f"{self._draw.choice(self._named(left))[0]}::text = {self._draw.choice(self._named(right))[0]}::text"

    def over_subquery(self, scope: Scope) -> str:
        """Return EXISTS, IN, ANY, ALL or a comparison with a single value."""
        draw = self._draw
        name, column = draw.choice(self._comparable(scope))
        kind = draw.random()
        if kind < 0.3:
            return f"{draw.choice(('', '', 'NOT '))}EXISTS ({self._subquery(scope, ())})"
        inner = scope if draw.random() < 0.4 else ()
        if kind < 0.6:
            return f"{name} {draw.choice(('IN', 'IN', 'NOT IN'))} ({self._subquery(inner, (column,))})"
        if kind < 0.68:
            other, second = draw.choice(self._comparable(scope))
            return f"({name}, {other}) {draw.choice(('IN', 'NOT IN'))} ({self._subquery(inner, (column, second))})"
        if kind < 0.85:
            return f"{name} {draw.choice(column.comparison)} {draw.choice(('ANY', 'ANY', 'ALL'))} ({self._subquery(inner, (column,))})"
        if kind < 0.92:
            return f"({self.filter(draw.choice(scope))} OR {name} IN ({self._subquery(inner, (column,))}))"
        number = f"{draw.choice(scope).alias}"
        return f"(SELECT count(*) FROM ({self._subquery((), (column,))}) AS counted{number}) > {draw.randint(0, 3)}"

    def _pair(self, left: Scope, right: Scope) -> tuple[_Named, _Named]:
        """Return a column of each side, of the same type or of types that can be compared."""
        draw = self._draw
        for _ in range(50):
            one, two = draw.choice(left), draw.choice(right)
            first = self._key(one) if draw.random() < 0.5 else self._column(one)
            wanted = [
                other
                for other in two.columns
                if other.comparison and (other.type == first.type or (first.family and other.family == first.family))
            ]
            same = [other for other in wanted if other.name == first.name]
            if wanted and first.comparison:
                second = draw.choice(same) if same and draw.random() < 0.6 else draw.choice(wanted)
                return (f"{one.alias}.{first.name}", first), (f"{two.alias}.{second.name}", second)
        one, two = draw.choice(left), draw.choice(right)
        return (f"{one.alias}.{self._column(one).name}::text", _TEXT), (f"{two.alias}.{self._column(two).name}::text", _TEXT)

    def _comparable(self, scope: Scope) -> list[_Named]:
        return [pair for pair in self._named(scope) if len(pair[1].comparison) == 6]

    def _key(self, visible: Visible) -> Column:
        keys = [column for column in visible.columns if column.name in ("id", "uk", "fk")]
        return self._draw.choice(keys) if keys else self._column(visible)

    def _column(self, visible: Visible) -> Column:
        return self._draw.choice(visible.columns)

    @staticmethod
    def _named(scope: Scope) -> list[_Named]:
        return [(f"{visible.alias}.{column.name}", column) for visible in scope for column in visible.columns]

"""
Valid SELECT statements drawn at random over the tables of `typed_schema`, the same for the same seed.

Aliases (r0, r1, ...) occur once in a statement, so that a plan node tells which relations it joins.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.labels.random_conditions import Conditions
from tests.labels.typed_schema import COLUMNS, KEYS, READABLE, VIEW_COLUMNS, Column, Scope, Visible

_TABLE_COLUMNS = (*KEYS, *COLUMNS)
_VIEW_COLUMNS = tuple(column for column in _TABLE_COLUMNS if column.name in VIEW_COLUMNS)
_NUMBER = replace(KEYS[0], values=("0", "1", "2", "3"))
_MATERIALIZED = ("", "MATERIALIZED ", "NOT MATERIALIZED ")
_SET_OPERATIONS = ("UNION", "UNION ALL", "UNION ALL", "INTERSECT", "EXCEPT", "INTERSECT ALL")


def random_statement(seed: int) -> str:
    """Return the statement of a seed; two to eight relations, most often three or four."""
    draw = random.Random(seed)  # noqa: S311  # a choice of cases
    return _Maker(draw, relations=draw.choice((2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 6, 7, 8))).statement()


@dataclass(frozen=True, slots=True)
class _From:
    """A FROM list with what can be referred to."""

    sql: str
    scope: Scope


class _Maker:
    """Makes one statement; `left` is how many more relations it may have."""

    def __init__(self, draw: random.Random, *, relations: int) -> None:
        self._draw = draw
        self._left = relations
        self._aliases = 0
        self._with: list[tuple[str, str, Sequence[Column]]] = []
        self._conditions = Conditions(draw, self._subquery)

    def statement(self) -> str:
        """Make the whole statement."""
        draw = self._draw
        from_ = self._from_list(max(1, self._left - draw.choice((0, 0, 1, 1, 2))), ())
        where = self._where(from_.scope, ())
        names = [column for visible in from_.scope for column in visible.sortable()]
        head, tail = "count(*)", ""
        kind = draw.random()
        if kind < 0.1:
            key = draw.choice(names)
            head, tail = f"{key}, count(*)", f" GROUP BY {key}" + draw.choice(("", " HAVING count(*) > 1"))
        elif kind < 0.2:
            head, tail = f"DISTINCT {draw.choice(names)}", ""
        elif kind < 0.3:
            head = f"{draw.choice(names)}, {draw.choice(names)}"
            tail = draw.choice(("", f" ORDER BY {draw.choice(names)}"))
        text = f"SELECT {head} FROM {from_.sql}{where}{tail}"
        if not self._with:
            return text
        return f"WITH {', '.join(f'{name} AS {draw.choice(_MATERIALIZED)}({sql})' for name, sql, _ in self._with)} {text}"

    def _alias(self) -> str:
        self._aliases += 1
        return f"r{self._aliases - 1}"

    def _chance(self, probability: float) -> bool:
        return self._draw.random() < probability

    def _where(self, scope: Scope, outer: Scope) -> str:
        """Return the WHERE clause of a level, correlated with the levels around it if there are any."""
        draw = self._draw
        parts = [self._conditions.link((one,), scope[:position]) for position, one in enumerate(scope) if position and self._chance(0.15)]
        parts += [self._conditions.any(scope, outer) for _ in range(draw.choice((0, 0, 1, 1, 2) if not outer else (0, 0, 1)))]
        if outer and self._chance(0.9):
            parts += [self._conditions.link(scope, outer) for _ in range(draw.choice((1, 1, 1, 1, 2)))]
        while self._left > 0 and self._chance(0.25 if outer else 0.8):
            parts.append(self._conditions.over_subquery(scope))
        draw.shuffle(parts)
        return f" WHERE {' AND '.join(parts)}" if parts else ""

    def _from_list(self, count: int, outer: Scope) -> _From:
        """Join trees, separated by commas; what comes later may refer to what came earlier if it is LATERAL."""
        scope: Scope = ()
        trees = []
        while count > 0:
            size = count if self._chance(0.7) else self._draw.randint(1, count)
            tree = self._tree(size, scope)
            trees.append(tree.sql)
            scope += tree.scope
            count -= size
        return _From(", ".join(trees), scope)

    def _tree(self, count: int, before: Scope) -> _From:
        """Return a join of any shape; `before` can be referred to by LATERAL."""
        if count <= 1:
            return self._source(before)
        cut = count - 1 if self._chance(0.7) else self._draw.randint(1, count - 1)
        left = self._tree(cut, before)
        kind = self._draw.choices(("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN"), (40, 38, 8, 10, 4))[0]
        usable = left.scope if kind in ("JOIN", "LEFT JOIN", "CROSS JOIN") else ()
        right = self._tree(count - cut, usable)
        text = f"({right.sql})" if count - cut > 1 else right.sql
        scope = left.scope + right.scope
        if kind == "CROSS JOIN":
            return _From(f"{left.sql} CROSS JOIN {text}", scope)
        condition = self._on(kind, left.scope, right.scope)
        return _From(f"{left.sql} {kind} {text} ON {condition}", scope)

    def _on(self, kind: str, left: Scope, right: Scope) -> str:
        conditions = self._conditions
        if kind == "FULL JOIN":
            parts = [conditions.hashed_link(left, right) for _ in range(self._draw.choice((1, 1, 2)))]
            return " AND ".join(parts)
        parts = [conditions.link(left, right)]
        parts += [conditions.any(self._draw.choice((left, right, left + right)), ()) for _ in range(self._draw.choice((0, 0, 0, 1, 1, 2)))]
        if self._left > 0 and self._chance(0.06):
            parts.append(conditions.over_subquery(right))
        return " AND ".join(parts)

    def _source(self, before: Scope) -> _From:
        """One FROM item: a table, a view, a subquery, LATERAL or not, a function, VALUES or a WITH query."""
        kinds: dict[Callable[[Scope], _From], int] = {
            self._table: 78,
            self._derived: 8,
            self._common: 5,
            self._function: 4,
            self._values: 2,
            self._lateral: 8 if before else 0,
        }
        if self._left < 0:
            return self._table(before)
        return self._draw.choices(list(kinds), list(kinds.values()))[0](before)

    def _table(self, before: Scope) -> _From:
        self._left -= 1
        alias, table = self._alias(), self._draw.choice(READABLE)
        columns = _VIEW_COLUMNS if table in ("va", "vb") else _TABLE_COLUMNS
        return _From(f"{table} AS {alias}", (Visible(alias=alias, columns=columns),))

    def _derived(self, before: Scope) -> _From:
        sql, columns = self._query((), outputs=self._draw.choice((1, 2, 2, 3)))
        return self._named(f"({sql})", columns)

    def _lateral(self, before: Scope) -> _From:
        sql, columns = self._query(before, outputs=self._draw.choice((1, 2)))
        return self._named(f"LATERAL ({sql})", columns)

    def _common(self, before: Scope) -> _From:
        if not self._with or self._chance(0.4):
            sql, columns = self._query((), outputs=2)
            self._with.append((f"w{len(self._with)}", sql, columns))
        name, _, columns = self._draw.choice(self._with)
        return self._named(name, columns)

    def _function(self, before: Scope) -> _From:
        numbers = [f"{visible.alias}.{column.name}" for visible in before for column in visible.columns if column.name in ("i2", "dn")]
        last = self._draw.choice(numbers) if numbers and self._chance(0.6) else "3"
        call = self._draw.choice((f"generate_series(1, {last})", f"unnest(ARRAY[1, 2, {last}])", f"generate_series({last}, 2)"))
        return self._named(call, (replace(_NUMBER, name="c0"),))

    def _values(self, before: Scope) -> _From:
        return self._named(
            self._draw.choice(("(VALUES (1), (2), (3))", "(VALUES (2))", "(VALUES (1), (NULL))")), (replace(_NUMBER, name="c0"),)
        )

    def _named(self, sql: str, columns: Sequence[Column]) -> _From:
        alias = self._alias()
        names = ", ".join(column.name for column in columns)
        return _From(f"{sql} AS {alias} ({names})", (Visible(alias=alias, columns=tuple(columns)),))

    def _subquery(self, outer: Scope, like: Sequence[Column]) -> str:
        """Return a subquery for a condition; it has a column comparable with each of `like`, or none in particular."""
        return self._query(outer, outputs=len(like), like=like)[0]

    def _query(self, outer: Scope, *, outputs: int, like: Sequence[Column] = ()) -> tuple[str, Sequence[Column]]:
        """Return a subquery: simple, or distinct, grouped, limited or united."""
        draw = self._draw
        from_ = self._from_list(draw.choice((1, 1, 1, 2)), outer)
        chosen = self._outputs(from_.scope, outputs, like)
        if not chosen:
            return f"SELECT 1 FROM {from_.sql}{self._where(from_.scope, outer)}", ()
        names = [name for name, _ in chosen]
        columns = [replace(column, name=f"c{number}") for number, (_, column) in enumerate(chosen)]
        body = f"{', '.join(names)} FROM {from_.sql}{self._where(from_.scope, outer)}"
        order = ", ".join(str(number) for number in range(1, len(names) + 1))
        rest = f"FROM {from_.sql}{self._where(from_.scope, outer)}"
        firsts = ", ".join(f"percentile_disc(0) WITHIN GROUP (ORDER BY {name})" for name in names)  # one row, also where nobody needs it
        literals = ", ".join(column.literal(draw) for column in columns)
        forms = {
            f"SELECT {body}": 50,
            f"SELECT {firsts} {rest}": 6,
            f"SELECT {literals} {rest} HAVING {draw.choice(('true', 'count(*) > 1'))}": 4,
            f"SELECT DISTINCT {body}": 8,
            f"SELECT {body} GROUP BY {', '.join(names)}{draw.choice(('', ' HAVING count(*) > 1'))}": 10,
            f"SELECT {body} ORDER BY {order} LIMIT {draw.randint(1, 9)}": 7,
            f"SELECT {body} ORDER BY {order} OFFSET {draw.randint(1, 4)}": 2,
        }
        if self._chance(0.1):
            return f"SELECT {body} {draw.choice(_SET_OPERATIONS)} SELECT {self._other_branch(chosen)}", columns
        return draw.choices(list(forms), list(forms.values()))[0], columns

    def _outputs(self, scope: Scope, count: int, like: Sequence[Column]) -> list[tuple[str, Column]]:
        found = []
        for number in range(count):
            fitting = [
                (f"{visible.alias}.{column.name}", column)
                for visible in scope
                for column in visible.columns
                if len(column.comparison) == 6 and (not like or column.type == like[number].type)
            ]
            if not fitting:
                text = f"{like[number].literal(self._draw)}" if like else "1"
                fitting = [(text, like[number] if like else _NUMBER)]
            name, column = self._draw.choice(fitting)
            found.append((self._computed(name, column) if self._chance(0.3) else name, column))
        return found

    def _computed(self, name: str, column: Column) -> str:
        """Return an expression of the same type that need not be NULL where the column is: outer joins above have to make it so."""
        one, two = column.literal(self._draw), column.literal(self._draw)
        return self._draw.choice((f"coalesce({name}, {one})", f"CASE WHEN {name} = {one} THEN {two} ELSE {name} END", one))

    def _other_branch(self, chosen: Sequence[tuple[str, Column]]) -> str:
        """Return the second branch of a set operation, with the types of the first."""
        from_ = self._table(())
        outputs = self._outputs(from_.scope, len(chosen), [column for _, column in chosen])
        return f"{', '.join(name for name, _ in outputs)} FROM {from_.sql}{self._where(from_.scope, from_.scope[:0])}"

"""
Plain conjunctive queries, understood without planning, so that MSCN estimates them within a millisecond and without a database.

    SELECT ... FROM table [AS] alias, ... [JOIN table [AS] alias ON condition AND ...] WHERE condition AND condition ...

with conditions between two columns, or a column and constants of its type. The parser refuses any other word, character or order of them:
only PostgreSQL knows the meaning of such a query. The planner makes the same sets and predicates of most such texts, but not of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

from pytest_pilotscope.errors import UnsupportedQuery
from pytest_pilotscope.queries.connectivity import mask_of, merged, planner_subsets
from pytest_pilotscope.queries.joins import ColumnRef, JoinQuery, Relation, Schema
from pytest_pilotscope.queries.plainconstants import Slot, family_of, typed_constant
from pytest_pilotscope.queries.plaintokens import END, NUMBER, STRING, SYMBOL, Tokens
from pytest_pilotscope.queries.predicates import (
    ColumnComparison,
    Comparison,
    Condition,
    Constant,
    IsNull,
    Like,
    Not,
    Operator,
    Or,
    in_list,
    predicate,
)

_FLIPPED: dict[str, Operator] = {"=": "=", "<>": "<>", "!=": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


MOST_ENUMERATED = 11
"""Relations up to which PostgreSQL considers every subplan: its search is exhaustive below `geqo_threshold`, which is 12."""


@dataclass(frozen=True, kw_only=True)
class PlainQuery(JoinQuery):
    """
    A query that was read from its text; `equalities` are the joins as they are written.

    There are no `masks` for more than `MOST_ENUMERATED` relations: PostgreSQL considers some of the sets only, and a star of 40
    relations has 2**39 of them. Queries with the same `template` (of `plaintemplates`) differ in constants only.
    """

    equalities: tuple[tuple[ColumnRef, ColumnRef], ...]
    template: object = field(default=None, compare=False, repr=False)


def parse_plain(sql: str, schema: Schema) -> PlainQuery | None:
    """Take a plain query apart; None when it is not one."""
    try:
        return read_plain(sql, schema)
    except UnsupportedQuery:
        return None


def read_plain(sql: str, schema: Schema) -> PlainQuery:
    """Take a plain query apart; raises `UnsupportedQuery` with the part that is not plain."""
    return PlainReader(sql, schema).read()


class PlainReader:
    """Reads relations and conditions, and puts the query together; `slots` are its constants after FROM, in their order."""

    def __init__(self, sql: str, schema: Schema) -> None:
        self.slots: list[Slot] = []
        self._tokens = Tokens(sql)
        self._took = self._tokens.took
        self._schema = schema
        self._tables: dict[str, str] = {}  # alias -> table
        self._conditions: dict[str, list[Condition]] = {}
        self._equalities: list[tuple[ColumnRef, ColumnRef]] = []
        self._constants: dict[ColumnRef, list[Constant]] = {}

    def read(self) -> PlainQuery:
        """Return the query."""
        self._tokens.expect("select")
        self._tokens.skip_until("from", refused=("select", "into", ";"))
        self._read_from()
        if self._took("where"):
            self._read_conjunction()
        self._took(";")
        self._tokens.take(END)
        return self._finished()

    def _read_from(self) -> None:
        self._read_relation()
        while True:
            joined = self._took("join") or (self._took("inner") and self._took("join"))
            if not joined and not self._took(","):
                return
            self._read_relation()
            if joined:
                self._tokens.expect("on")
                self._read_conjunction()

    def _read_relation(self) -> None:
        table = alias = self._tokens.name()
        if self._took("as") or self._tokens.at_name:
            alias = self._tokens.name()
        if table not in self._schema:
            raise UnsupportedQuery(f"table {table!r} is not in the schema", self._tokens.sql)
        if alias in self._tables:
            raise UnsupportedQuery(f"two relations are called {alias!r}", self._tokens.sql)
        self._tables[alias] = table

    def _read_conjunction(self) -> None:
        """Read conditions joined by AND; parentheses around some of them change nothing."""
        depth = 0
        while True:
            while self._took("("):
                depth += 1
            self._read_condition()
            while depth and self._took(")"):
                depth -= 1
            if not self._took("and"):
                break
        if depth:
            self._tokens.refuse()

    def _read_condition(self) -> None:
        if self._tokens.kind in (NUMBER, STRING, SYMBOL):
            constant = self._tokens.constant()
            operator, ref = _FLIPPED[self._operator()], self._column()
            self._compare(ref, operator, self._typed(ref, *constant))
            return
        ref = self._column()
        if self._tokens.kind != SYMBOL:
            self._test(ref)
            return
        operator = self._operator()
        if self._tokens.at_name:
            self._compare_columns(ref, operator, self._column())
        else:
            self._compare(ref, operator, self._constant(ref))

    def _column(self) -> ColumnRef:
        name = self._tokens.name()
        alias, column = (name, self._tokens.name()) if self._took(".") else (None, name)
        owners = [owner for owner, table in self._tables.items() if alias in (None, owner) and column in self._schema[table]]
        if len(owners) != 1:
            found = f"more than one relation ({', '.join(owners)})" if owners else "no relation"
            raise UnsupportedQuery(f"column {name if alias is None else f'{alias}.{column}'} belongs to {found}", self._tokens.sql)
        return ColumnRef(owners[0], column)

    def _operator(self) -> Operator:
        found = next((text for text in _FLIPPED if self._took(text)), None) or self._tokens.refuse()
        return cast(Operator, "<>" if found == "!=" else found)

    def _compare(self, ref: ColumnRef, operator: Operator, value: Constant) -> None:
        if operator == "=":
            self._constants.setdefault(ref, []).append(value)
        self._add(ref.alias, Comparison(ref.column, operator, value))

    def _compare_columns(self, left: ColumnRef, operator: Operator, right: ColumnRef) -> None:
        if left == right or self._family(left) != self._family(right):
            self._tokens.refuse(f"the comparison of {left.alias}.{left.column} with {right.alias}.{right.column}")
        if operator == "=":
            self._equalities.append((left, right))
        elif left.alias == right.alias:
            self._add(left.alias, ColumnComparison(left.column, operator, right.column))
        else:
            self._tokens.refuse(f"the join by {operator}")

    def _test(self, ref: ColumnRef) -> None:
        """Read IS NULL, IN, BETWEEN or LIKE, in the form that PostgreSQL gives them."""
        if self._took("is"):
            negated = self._took("not")
            self._tokens.expect("null")
            self._add(ref.alias, Not(IsNull(ref.column)) if negated else IsNull(ref.column))
            return
        negated = self._took("not")
        if self._took("between"):
            low = self._constant(ref)
            self._tokens.expect("and")
            self._between(ref, low, self._constant(ref), negated=negated)
        elif self._took("in"):
            self._in(ref, negated=negated)
        else:
            case_sensitive = self._took("like")
            if not case_sensitive:
                self._tokens.expect("ilike")
            if self._family(ref) != "text":
                self._tokens.refuse()
            like = Like(ref.column, self._tokens.text(), case_sensitive=case_sensitive)
            self.slots.append(Slot("text", "", True, like.pattern))
            self._add(ref.alias, Not(like) if negated else like)

    def _between(self, ref: ColumnRef, low: Constant, high: Constant, *, negated: bool) -> None:
        if negated:
            self._add(ref.alias, Or((Comparison(ref.column, "<", low), Comparison(ref.column, ">", high))))
        else:
            self._compare(ref, ">=", low)
            self._compare(ref, "<=", high)

    def _in(self, ref: ColumnRef, *, negated: bool) -> None:
        self._tokens.expect("(")
        values = [self._constant(ref)]
        while self._took(","):
            values.append(self._constant(ref))
        self._tokens.expect(")")
        if len(values) == 1:
            self._compare(ref, "<>" if negated else "=", values[0])
        else:
            self._add(ref.alias, Not(in_list(ref.column, values)) if negated else in_list(ref.column, values))

    def _constant(self, ref: ColumnRef) -> Constant:
        text, quoted = self._tokens.constant()
        if quoted and self._took("::"):
            self._read_type(self._family(ref))
        return self._typed(ref, text, quoted)

    def _typed(self, ref: ColumnRef, text: str, quoted: bool) -> Constant:
        """Return a constant as it is compared with a column; refuse one of another type, or whose value only PostgreSQL knows."""
        family = self._family(ref)
        value = typed_constant(family, text, quoted=quoted)
        if value is None:
            self._tokens.refuse(f"the constant {text!r} beside a column of type {family}")
        self.slots.append(Slot(family, "" if quoted or text[0] != "-" else "-", quoted, value))
        return value

    def _read_type(self, family: str) -> None:
        first, *rest = family.split()
        self._tokens.expect(first)
        for word in rest[1:] if rest and self._took(rest[0]) else ():
            self._tokens.expect(word)

    def _family(self, ref: ColumnRef) -> str:
        """Return the family of a column's type."""
        return family_of(self._schema[self._tables[ref.alias]][ref.column])

    def _add(self, alias: str, condition: Condition) -> None:
        self._conditions.setdefault(alias, []).append(condition)

    def _finished(self) -> PlainQuery:
        """Close the equalities and add the conditions on single relations that follow (`generate_base_implied_equalities`)."""
        position = {alias: at for at, alias in enumerate(self._tables)}
        equalities = [*self._equalities, *((ref, ref) for ref in self._constants)]
        order = {ref: (position[ref.alias], ref.column) for pair in equalities for ref in pair}
        classes = sorted((sorted(members, key=order.__getitem__) for members in merged(equalities)), key=lambda members: order[members[0]])
        joining = tuple(tuple(members) for members in classes if self._joins(members))
        relations = {
            alias: Relation(alias=alias, table=table, predicates=tuple(map(predicate, dict.fromkeys(self._conditions.get(alias, ())))))
            for alias, table in self._tables.items()
        }
        groups = [{position[ref.alias] for ref in group} for group in (*joining, *_by_constant(self._constants))]
        masks = planner_subsets(_neighbours(groups, len(position))) if len(position) <= MOST_ENUMERATED else ()
        return PlainQuery(
            sql=self._tokens.sql, relations=relations, classes=joining, masks=tuple(masks), equalities=tuple(self._equalities)
        )

    def _joins(self, members: Sequence[ColumnRef]) -> bool:
        """Restrict single relations by the equalities of a class; tell whether the class joins several. One with a constant does not."""
        constants = list(dict.fromkeys(value for ref in members for value in self._constants.get(ref, ())))
        if len(constants) > 1:
            self._tokens.refuse(f"a column that is equal to {len(constants)} constants")
        if constants:
            for ref in members:
                self._compare(ref, "=", constants[0])
            return False
        for left, right in pairwise(members):
            if left.alias == right.alias:
                self._add(left.alias, ColumnComparison(left.column, "=", right.column))
        return len({ref.alias for ref in members}) > 1


def _by_constant(constants: Mapping[ColumnRef, Sequence[Constant]]) -> Iterator[list[ColumnRef]]:
    """Yield the columns that are equal to the same constant: `a.x = 2 AND b.y = 2` is one class for the planner, too."""
    groups: dict[Constant, list[ColumnRef]] = {}
    for ref, values in constants.items():
        groups.setdefault(values[0], []).append(ref)
    yield from groups.values()


def _neighbours(groups: Sequence[set[int]], relations: int) -> list[int]:
    """Return for each relation the mask of those that are in a group with it."""
    found = [0] * relations
    for group in groups:
        mask = mask_of(group)
        for at in group:
            found[at] |= mask & ~(1 << at)
    return found

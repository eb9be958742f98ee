"""
Plain queries that differ in constants only are parsed once.

A template is the text around the constants, together with the constants that are equal: two columns that are equal to the same constant
are joined, where two different constants join nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_pilotscope.errors import UnsupportedQuery
from pytest_pilotscope.queries.joins import Relation, Schema
from pytest_pilotscope.queries.plainconstants import Slot, typed_constant
from pytest_pilotscope.queries.plainparser import PlainQuery, PlainReader
from pytest_pilotscope.queries.predicates import Comparison, Condition, Constant, InList, Like, Not, Or, Predicate, in_list, render

# The constants as `plaintokens` reads them. Quoted names come first, because they may have digits and quotes in them.
_CONSTANT = re.compile(r"""("(?:[^"]|"")+"|'(?:[^'\\]|'')*'|(?<![\w.])\d+(?:\.\d+)?(?![\w.]))""", re.ASCII)
_KEPT = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Template:
    """The first query of a template, and its constants in the order of its text. It is equal to itself only."""

    first: PlainQuery
    values: tuple[Constant, ...]

    def query(self, sql: str, values: Sequence[Constant]) -> PlainQuery:
        """Return the query that has these constants."""
        new = dict(zip(self.values, values, strict=True))
        relations = {alias: self._relation(relation, new) for alias, relation in self.first.relations.items()}
        return PlainQuery(
            sql=sql,
            relations=relations,
            classes=self.first.classes,
            masks=self.first.masks,
            equalities=self.first.equalities,
            template=self,
        )

    @staticmethod
    def _relation(relation: Relation, new: Mapping[Constant, Constant]) -> Relation:
        if not relation.predicates:
            return relation
        predicates = tuple([_filter(one, new) for one in relation.predicates])
        return Relation(alias=relation.alias, table=relation.table, predicates=predicates)


@dataclass(frozen=True, kw_only=True)
class _Known:
    """The constants of a text, after the first `skipped`, and a template for each way in which some of them are equal."""

    skipped: int
    slots: tuple[Slot, ...]
    templates: dict[tuple[int, ...], Template] = field(default_factory=dict)

    def values(self, texts: Sequence[str]) -> list[Constant] | None:
        """Return the constants by their types; None if one has none."""
        found: list[Constant] = []
        for slot, text in zip(self.slots, texts[self.skipped :], strict=True):
            quoted = text[0] == "'"
            written = text[1:-1].replace("''", "'") if quoted else slot.sign + text
            value = typed_constant(slot.family, written, quoted=quoted) if quoted == slot.quoted else None
            if value is None:
                return None
            found.append(value)
        return found


class PlainParser:
    """Parses plain queries over one schema, each template once."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._known: dict[tuple[str, ...], _Known] = {}

    def parse(self, sql: str) -> PlainQuery | None:
        """Take a plain query apart; None when it is not one."""
        try:
            return self.read(sql)
        except UnsupportedQuery:
            return None

    def read(self, sql: str) -> PlainQuery:
        """Take a plain query apart; raises `UnsupportedQuery` with the part that is not plain."""
        parts = _CONSTANT.split(sql)
        texts = [text for text in parts[1::2] if text[0] != '"']
        around = tuple(part for at, part in enumerate(parts) if at % 2 == 0 or part[0] == '"')
        known = self._known.get(around)
        values = None if known is None or "--" in sql else known.values(texts)
        if known is None or values is None:
            return self._first(sql, around, texts)
        template = known.templates.get(_equal(values))
        return self._first(sql, around, texts) if template is None else template.query(sql, values)

    def _first(self, sql: str, around: tuple[str, ...], texts: Sequence[str]) -> PlainQuery:
        """Parse the whole text, and keep its template."""
        reader = PlainReader(sql, self._schema)
        template = Template(first=reader.read(), values=tuple(slot.value for slot in reader.slots))
        if len(self._known) >= _KEPT:
            self._known.clear()
        new = _Known(skipped=len(texts) - len(reader.slots), slots=tuple(reader.slots))
        self._known.setdefault(around, new).templates[_equal(template.values)] = template
        return template.query(sql, template.values)


def _equal(values: Sequence[Constant]) -> tuple[int, ...]:
    """Return for each value the position of the first that equals it."""
    return tuple(map(values.index, values))


def _filter(one: Predicate, new: Mapping[Constant, Constant]) -> Predicate:
    """Return a predicate with other constants."""
    condition = _replaced(one.condition, new)
    return one if condition is one.condition else Predicate(columns=one.columns, sql=render(condition), condition=condition)


def _replaced(condition: Condition, new: Mapping[Constant, Constant]) -> Condition:
    """Return a condition with other constants."""
    if isinstance(condition, Comparison):
        return Comparison(condition.column, condition.operator, new[condition.value])
    if isinstance(condition, InList):
        return in_list(condition.column, [new[value] for value in condition.values])
    if isinstance(condition, Like):
        return Like(condition.column, str(new[condition.pattern]), condition.case_sensitive)
    if isinstance(condition, Not):
        return Not(_replaced(condition.child, new))
    if isinstance(condition, Or):
        return Or(tuple(_replaced(child, new) for child in condition.children))
    return condition

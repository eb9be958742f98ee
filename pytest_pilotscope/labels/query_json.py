"""A `JoinQuery` with settled predicates as JSON, for the processes that count."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

from pytest_pilotscope.queries.joins import ColumnRef, JoinQuery, KeyType, Relation
from pytest_pilotscope.queries.predicates import (
    And,
    ColumnComparison,
    Comparison,
    Condition,
    InList,
    IsNull,
    Not,
    Opaque,
    Or,
    Predicate,
)

_KINDS: dict[str, Callable[..., object]] = {kind.__name__: kind for kind in (And, ColumnComparison, Comparison, InList, IsNull, Not, Or)}


def to_message(query: JoinQuery) -> dict[str, Any]:
    """Return the parts of a query that are needed to count it, without its masks."""
    relations = [
        [relation.alias, relation.table, relation.source, [[one.sql, _condition(one)] for one in relation.predicates]]
        for relation in query.relations.values()
    ]
    return {"relations": relations, "classes": query.classes, "keys": query.keys}


def from_message(message: dict[str, Any]) -> JoinQuery:
    """Return the query of a message."""
    relations = {
        alias: Relation(
            alias=alias,
            table=table,
            source=source,
            predicates=tuple(
                Predicate(columns=(), sql=sql, condition=Opaque((), sql) if tree is None else cast(Condition, _read(tree)))
                for sql, tree in predicates
            ),
        )
        for alias, table, source, predicates in message["relations"]
    }
    classes = tuple(tuple(ColumnRef(*ref) for ref in members) for members in message["classes"])
    return JoinQuery(sql="", relations=relations, classes=classes, masks=(), keys=tuple(KeyType(*key) for key in message["keys"]))


def _condition(predicate: Predicate) -> object:
    return None if isinstance(predicate.condition, Opaque) else _written(predicate.condition)


def _written(value: object) -> object:
    if isinstance(value, tuple):
        return [_written(element) for element in value]
    if not dataclasses.is_dataclass(value):
        return value
    return {type(value).__name__: [_written(getattr(value, field.name)) for field in dataclasses.fields(value)]}


def _read(value: Any) -> object:
    if isinstance(value, list):
        return tuple(_read(element) for element in value)
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    return _KINDS[kind](*map(_read, content))

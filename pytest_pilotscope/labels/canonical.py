"""Names of sets of relations: queries that contain the same set, under whatever aliases, give it the same name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_pilotscope.queries.joins import JoinQuery, Subplan
from pytest_pilotscope.queries.meaning import Level, NoCount, Statement

_HASH_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSet:
    """
    A set of relations with the planner's key of it (`subplan`) and its `name` in the cache.

    `sql` counts it; it is None for a set that is counted in memory. `lasting` tells that the count depends on the data only.
    """

    subplan: Subplan
    level: Level
    mask: int
    name: bytes
    sql: str | None = None
    lasting: bool = True


class Canonical:
    """
    Names of the sets of one query level that are joined by equalities only, made of filters and keys without aliases.

    Sets with the same name have the same cardinality on the same data. The same set always has the same name, except for self-joins of
    equally filtered relations: under other aliases they may have another name, and are counted again.
    """

    def __init__(self, query: JoinQuery, context: str) -> None:
        self._query = query
        self._context = context
        names = [_digest("\0".join(relation.filter_key)).hex() for relation in query.relations.values()]
        self._order = sorted((name, alias) for name, alias in zip(names, query.aliases, strict=True))
        self._bit = {alias: 1 << position for position, alias in enumerate(query.aliases)}

    def name(self, mask: int) -> bytes:
        """Return the 16-byte name of a set."""
        kept = [(name, alias) for name, alias in self._order if self._bit[alias] & mask]
        place = {alias: position for position, (_, alias) in enumerate(kept)}
        joins = []
        for members, key in zip(self._query.classes, self._query.keys, strict=True):
            found = sorted((place[ref.alias], ref.column) for ref in members if ref.alias in place)
            if len({position for position, _ in found}) > 1:
                joins.append((key.name, found))
        return _digest(repr((self._context, [name for name, _ in kept], sorted(joins))))


def named_sets(statement: Statement, context: str) -> Iterator[NamedSet | tuple[Subplan, str]]:
    """Name the sets of a statement; yield subplan and reason instead for a set that cannot be counted."""
    canonical = {level.id: Canonical(level.query, context) for level in statement.levels}
    for subplan, (level, mask) in statement.subplans().items():
        if level.in_memory(mask):
            yield NamedSet(subplan=subplan, level=level, mask=mask, name=canonical[level.id].name(mask))
            continue
        try:
            sql, volatility = level.count_sql(mask)
        except NoCount as error:
            yield subplan, str(error)
            continue
        if volatility == "v":
            yield subplan, "it calls a volatile function"
        else:
            name = _digest(f"{context}\0{sql}")
            yield NamedSet(subplan=subplan, level=level, mask=mask, name=name, sql=sql, lasting=volatility == "i")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:_HASH_BYTES]

"""A name for a subplan that does not depend on the query it was met in, nor on its aliases."""

from __future__ import annotations

import hashlib

from pytest_pilotscope.core.joins import JoinQuery

_HASH_BYTES = 16


class Canonical:
    """
    Names the subplans of one query.

    Subplans with the same name have the same cardinality on the same data. The reverse holds except for self-joins of
    equally filtered relations under other aliases, which may be counted again.
    """

    def __init__(self, query: JoinQuery) -> None:
        self._query = query
        names = [_digest("\0".join(relation.filter_key)).hex() for relation in query.relations.values()]
        self._order = sorted((name, alias) for name, alias in zip(names, query.aliases, strict=True))
        self._bit = {alias: 1 << position for position, alias in enumerate(query.aliases)}

    def name(self, mask: int) -> bytes:
        """Return the 16-byte name of a subplan."""
        if not self._query.equalities_only(mask):  # counted by PostgreSQL from its text, so named by it
            return _digest(self._query.count_sql(self._query.subplan(mask)))
        kept = [(name, alias) for name, alias in self._order if self._bit[alias] & mask]
        place = {alias: position for position, (_, alias) in enumerate(kept)}
        classes = [sorted((place[ref.alias], ref.column) for ref in members if ref.alias in place) for members in self._query.classes]
        joins = sorted(members for members in classes if len({position for position, _ in members}) > 1)
        return _digest(repr(([name for name, _ in kept], joins)))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:_HASH_BYTES]

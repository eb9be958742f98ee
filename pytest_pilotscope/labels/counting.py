"""
The exact number of rows of every subplan, by variable elimination in the semiring of counts.

A subplan is a product of factors, one per relation: how many of its rows have these join keys. Its cardinality is the sum
of the product over all keys (Abo Khamis, Ngo, Rudra, "FAQ: Questions Asked Frequently", PODS 2016). If only one relation
with several keys still has a key, a *message* sums this key out: for each of its rows the relation looks up the counts
that are known for the key, and adds them up by its other key. So a subplan costs as much as reading its relations, whatever
the size of the join. The name of a message or product says of which parts it is made. Equal names share their vector:
between the subplans of a query, which differ in one relation at a time, and between queries with the same filters.

Keys in a cycle (relations that share two keys, triangles) go to `cyclic`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pytest_pilotscope.labels.cyclic import Table, eliminate
from pytest_pilotscope.labels.exact import Counts, dot, gather, product, scatter, total
from pytest_pilotscope.labels.filtered import Bounded, Filters, KeyColumn
from pytest_pilotscope.queries.joins import JoinQuery, Relation

Node: TypeAlias = int
"""A vector of counts over a domain, by its position in `Vectors`."""


@dataclass(frozen=True, slots=True)
class Message:
    """Counts of a relation by one key, each row weighted with the vectors looked up by its other keys."""

    relation: Relation
    out: KeyColumn
    into: tuple[tuple[KeyColumn, Node], ...]


class Vectors:
    """Vectors by name. Equal names are equal vectors, so each is computed once, and again only if memory ran short meanwhile."""

    def __init__(self, filters: Filters, budget_bytes: int) -> None:
        self._filters = filters
        self._nodes: dict[object, Node] = {}
        self._made_of: list[tuple[Node, Node] | Message] = []
        self._values: Bounded[Counts] = Bounded(budget_bytes, lambda counts: counts.nbytes)

    def message(self, relation: Relation, out: KeyColumn, into: Iterable[tuple[KeyColumn, Node]] = ()) -> Node:
        """Name the counts of a relation by a key; without incoming vectors they are its histogram."""
        message = Message(relation, out, tuple(sorted(into)))
        return self._node((relation.filter_key, out, message.into), message)

    def product(self, nodes: Sequence[Node]) -> Node:
        """Name the product of vectors over one domain. Sorted, so that subsets share prefixes."""
        first, *rest = sorted(nodes)
        for node in rest:
            first = self._node((first, node), (first, node))
        return first

    def value(self, node: Node) -> Counts:
        """Return a vector, (D,)."""
        return self._values.get(node, lambda: self._compute(self._made_of[node]))

    def _node(self, name: object, made_of: tuple[Node, Node] | Message) -> Node:
        node = self._nodes.setdefault(name, len(self._made_of))
        if node == len(self._made_of):
            self._made_of.append(made_of)
        return node

    def _compute(self, made_of: tuple[Node, Node] | Message) -> Counts:
        if isinstance(made_of, tuple):
            return product(self.value(made_of[0]), self.value(made_of[1]))
        filtered = self._filters.of(made_of.relation)
        if not made_of.into:
            return filtered.histogram(made_of.out)
        codes, *incoming = filtered.codes((made_of.out, *(column for column, _ in made_of.into)))
        weights = gather(self.value(made_of.into[0][1]), incoming[0])
        for (_, node), keys in zip(made_of.into[1:], incoming[1:], strict=True):
            weights = product(weights, gather(self.value(node), keys))
        return scatter(weights, codes, filtered.size(made_of.out))


class QueryCounter:
    """Counts the subplans of one query. Ask for small subplans first: those that contain an empty one are not counted."""

    def __init__(self, query: JoinQuery, filters: Filters, vectors: Vectors) -> None:
        self._filters = filters
        self._vectors = vectors
        self._relations = list(query.relations.values())
        position = {alias: index for index, alias in enumerate(query.aliases)}
        self._keys: list[dict[int, KeyColumn]] = [{} for _ in self._relations]  # per relation: class -> the column that stands for it
        for number, (members, key) in enumerate(zip(query.classes, query.keys, strict=True)):
            for ref in members:
                self._keys[position[ref.alias]].setdefault(number, (ref.column, key))
        self._having = [sum(1 << index for index, keys in enumerate(self._keys) if key in keys) for key in range(len(query.classes))]
        self._depth = self._depths()
        self._empty: list[int] = []

    def note_empty(self, mask: int) -> None:
        """Note that a subplan has no rows; no subplan that contains it has any."""
        self._empty.append(mask)

    def count(self, mask: int) -> int:
        """Return the cardinality of a subplan; raises `TooLarge` for a cycle that does not fit into memory."""
        if any(mask & empty == empty for empty in self._empty):
            return 0
        rows = self._count(mask)
        if rows == 0:
            self.note_empty(mask)
        return rows

    def _count(self, mask: int) -> int:
        shared = {key for key, having in enumerate(self._having) if (having & mask).bit_count() > 1}
        rows = 1
        hanging: dict[int, list[Node]] = {}  # per key: vectors of the relations that were summed out
        joining: dict[int, set[int]] = {}  # relations with two keys or more
        for index, relation in enumerate(self._relations):
            if not mask >> index & 1:
                continue
            keys = shared & self._keys[index].keys()
            if not keys:
                rows *= self._filters.of(relation).count
            elif len(keys) == 1:
                [key] = keys
                hanging.setdefault(key, []).append(self._vectors.message(relation, self._keys[index][key]))
            else:
                joining[index] = keys
        if rows == 0:
            return 0
        self._fold(joining, hanging)
        if joining:
            rows *= self._cycles(joining, hanging)
        for nodes in hanging.values():
            rows *= self._sum(nodes)
        return rows

    def _fold(self, joining: dict[int, set[int]], hanging: dict[int, list[Node]]) -> None:
        """Turn relations at the ends of the join tree into messages towards its root, until none or only cycles are left."""
        while True:
            users: dict[int, int] = {}
            for keys in joining.values():
                for key in keys:
                    users[key] = users.get(key, 0) + 1
            ends = [(index, self._outlet(keys, users)) for index, keys in joining.items()]
            ready = [(self._depth[out], index, out) for index, out in ends if out is not None]
            if not ready:
                return
            _, index, out = max(ready)
            into = [(self._keys[index][key], self._vectors.product(hanging.pop(key))) for key in joining.pop(index) - {out}]
            hanging.setdefault(out, []).append(self._vectors.message(self._relations[index], self._keys[index][out], into))

    def _outlet(self, keys: set[int], users: dict[int, int]) -> int | None:
        """Return the key by which a relation can leave: the only one that other multi-key relations have."""
        tied = [key for key in keys if users[key] > 1]
        if len(tied) > 1:
            return None
        return tied[0] if tied else min(keys, key=lambda key: (self._depth[key], key))

    def _sum(self, nodes: list[Node]) -> int:
        *rest, last = sorted(nodes)
        value = self._vectors.value(last)
        return dot(self._vectors.value(self._vectors.product(rest)), value) if rest else total(value)

    def _cycles(self, joining: dict[int, set[int]], hanging: dict[int, list[Node]]) -> int:
        """Count the rest, in which every relation has two keys that others need, multiplied by the vectors of those keys."""
        tables = []
        for index, keys in joining.items():
            filtered = self._filters.of(self._relations[index])
            ordered = sorted(keys)
            codes = filtered.codes(tuple(self._keys[index][key] for key in ordered))
            table = Table.of_rows(dict(zip(ordered, codes, strict=True)), {key: filtered.size(self._keys[index][key]) for key in ordered})
            for key in ordered:
                if key in hanging:
                    table = table.weighted(key, self._vectors.value(self._vectors.product(hanging.pop(key))))
            tables.append(table)
        return eliminate(tables)

    def _depths(self) -> list[int]:
        """Return the distance of each key from the root, the key of most relations: messages of all subplans run the same way."""
        depth: dict[int, int] = {}
        for root in sorted(range(len(self._having)), key=lambda key: (-self._having[key].bit_count(), key)):
            frontier = [] if root in depth else [root]
            distance = 0
            while frontier:
                depth.update(dict.fromkeys(frontier, distance))
                reached = {key for found in frontier for keys in self._keys if found in keys for key in keys}
                frontier = sorted(reached - depth.keys())
                distance += 1
        return [depth[key] for key in range(len(self._having))]

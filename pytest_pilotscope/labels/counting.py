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
from itertools import chain
from typing import TypeAlias

import numpy as np

from pytest_pilotscope.labels.cyclic import BYTES_PER_COMBINATION, Table, eliminate, united
from pytest_pilotscope.labels.exact import ones, without_nulls
from pytest_pilotscope.labels.filtered import Filters, KeyColumn
from pytest_pilotscope.labels.memory import BLOCK_ROWS, Bounded, Memory
from pytest_pilotscope.labels.vectors import Vector, summed
from pytest_pilotscope.queries.joins import JoinQuery, Relation

_BYTES_PER_CODE = 32  # of the sums, of what is added to them, and of copies while they are made
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

    def __init__(self, filters: Filters, memory: Memory) -> None:
        self._filters = filters
        self._memory = memory
        self._nodes: dict[object, Node] = {}
        self._made_of: list[tuple[Node, Node] | Message] = []
        self._values: Bounded[Vector] = Bounded(memory.vectors_bytes, lambda vector: vector.nbytes)

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

    def value(self, node: Node) -> Vector:
        """Return a vector; raise `TooLarge` if it does not fit into memory."""
        found = self._values.get(node)
        if found is None:
            made_of = self._made_of[node]
            found = self._message(made_of) if isinstance(made_of, Message) else self._product(*made_of)
            self._values.put(node, found)
        return found

    def _node(self, name: object, made_of: tuple[Node, Node] | Message) -> Node:
        node = self._nodes.setdefault(name, len(self._made_of))
        if node == len(self._made_of):
            self._made_of.append(made_of)
        return node

    def _product(self, left: Node, right: Node) -> Vector:
        return self.value(left).times(self.value(right))

    def _message(self, message: Message) -> Vector:
        relation, size = message.relation, self._filters.size(message.relation, message.out)
        self._memory.check(_BYTES_PER_CODE * size)
        incoming = [self.value(node) for _, node in message.into]
        self._memory.check(_BYTES_PER_CODE * size + 8 * sum(vector.size for vector in incoming))
        blocks = self._filters.codes(relation, [message.out, *(column for column, _ in message.into)])
        return summed(blocks, [vector.all() for vector in incoming], size)


class QueryCounter:
    """Counts the subplans of one query. Ask for small subplans first: those that contain an empty one are not counted."""

    def __init__(self, query: JoinQuery, filters: Filters, vectors: Vectors, memory: Memory) -> None:
        self._memory = memory
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
                rows *= self._filters.count(relation)
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
        return self._vectors.value(self._vectors.product(rest)).dot(value) if rest else value.total()

    def _cycles(self, joining: dict[int, set[int]], hanging: dict[int, list[Node]]) -> int:
        """Count the rest, in which every relation has two keys that others need, multiplied by the vectors of those keys."""
        tables = []
        for index, keys in joining.items():
            table = self._table(index, sorted(keys))
            for key in sorted(keys & hanging.keys()):
                table = table.weighted(key, self._vectors.value(self._vectors.product(hanging.pop(key))).all())
            tables.append(table)
        return eliminate(tables, self._memory)

    def _table(self, index: int, keys: list[int]) -> Table:
        relation, columns = self._relations[index], [self._keys[index][key] for key in keys]
        sizes = {key: self._filters.size(relation, column) for key, column in zip(keys, columns, strict=True)}
        found = Table({key: np.zeros(0, dtype=np.intp) for key in keys}, sizes, ones(0))
        waiting: list[Table] = []
        for codes in chain(self._filters.codes(relation, columns), (None,)):
            if codes is not None:
                waiting.append(Table.of_rows(dict(zip(keys, without_nulls(codes), strict=True)), sizes))
            if waiting and (codes is None or sum(table.rows for table in waiting) > found.rows + BLOCK_ROWS):
                self._memory.check(BYTES_PER_COMBINATION * (found.rows + sum(table.rows for table in waiting)))
                found, waiting = united([found, *waiting]), []
        return found

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

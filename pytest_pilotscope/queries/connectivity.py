"""
Sets of relations as bit masks: bit i is the i-th relation of the query.

The join search is the one of PostgreSQL's `join_search_one_level` (src/backend/optimizer/path/joinrels.c) for inner joins.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

Member = TypeVar("Member", bound=Hashable)


def connected_subsets(neighbours: Sequence[int]) -> list[int]:
    """
    Enumerate every connected, non-empty subset of a graph, smaller ones first, then by mask.

    `neighbours[i]` is the mask of the nodes next to node i. Each subset is produced once (EnumerateCsg of Moerkotte and
    Neumann, VLDB 2006), so the cost is linear in the answer.
    """
    found: list[int] = []

    def grow(subset: int, around: int, excluded: int) -> None:
        fringe = around & ~excluded & ~subset
        part = fringe
        while part:
            larger = subset | part
            found.append(larger)
            grow(larger, around | _union(neighbours, part), excluded | fringe)
            part = (part - 1) & fringe

    for node in range(len(neighbours)):
        found.append(1 << node)
        grow(1 << node, neighbours[node], (1 << (node + 1)) - 1)
    return smaller_first(found)


def planner_subsets(neighbours: Sequence[int]) -> list[int]:
    """
    Enumerate the subsets PostgreSQL makes a join relation for, in the order of `connected_subsets`.

    In a connected graph these are the connected subsets. Otherwise a set without a join clause left is also joined with
    every other relation, one at a time, so that the Cartesian product can be reached.
    """
    everything = (1 << len(neighbours)) - 1
    levels: list[set[int]] = [set(), {1 << node for node in range(len(neighbours))}]
    if is_connected(everything, neighbours):
        return connected_subsets(neighbours)
    for size in range(2, len(neighbours) + 1):
        level = _linear_joins(levels[-1], neighbours, everything)
        for left_size in range(2, size // 2 + 1):
            level |= _bushy_joins(levels[left_size], levels[size - left_size], neighbours)
        levels.append(level)
    return smaller_first(mask for level in levels for mask in level)


def is_connected(subset: int, neighbours: Sequence[int]) -> bool:
    """Tell whether the nodes of a mask hang together; the empty set does."""
    reached = subset & -subset
    while True:
        larger = (reached | _union(neighbours, reached)) & subset
        if larger == reached:
            return reached == subset
        reached = larger


def smaller_first(masks: Iterable[int]) -> list[int]:
    """Sort subsets by their size, then by mask."""
    return sorted(sorted(masks), key=int.bit_count)


def mask_of(numbers: Iterable[int]) -> int:
    """Return the bit mask of some relations, which may be named twice."""
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask


def merged(groups: Iterable[Iterable[Member]]) -> list[frozenset[Member]]:
    """Unite the groups that share a member, such as columns that are equal to each other; return each united group once."""
    group_of: dict[Member, frozenset[Member]] = {}
    for members in groups:
        group = frozenset(members)
        united = group.union(*(group_of.get(member, ()) for member in group))
        group_of.update(dict.fromkeys(united, united))
    return list(dict.fromkeys(group_of.values()))


def _linear_joins(smaller: set[int], neighbours: Sequence[int], everything: int) -> set[int]:
    joined: set[int] = set()
    for subset in smaller:
        outside = everything & ~subset
        partners = (_union(neighbours, subset) & outside) or outside
        joined.update(subset | bit for bit in _bits(partners))
    return joined


def _bushy_joins(lefts: set[int], rights: set[int], neighbours: Sequence[int]) -> set[int]:
    return {left | right for left in lefts for right in rights if not left & right and _union(neighbours, left) & right}


def _union(neighbours: Sequence[int], subset: int) -> int:
    union = 0
    while subset:
        low = subset & -subset
        union |= neighbours[low.bit_length() - 1]
        subset ^= low
    return union


def _bits(mask: int) -> list[int]:
    bits = []
    while mask:
        bits.append(mask & -mask)
        mask &= mask - 1
    return bits

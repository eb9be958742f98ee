"""The memory that counting may take, and values that are kept as long as they fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

BLOCK_ROWS = 1 << 18
"""The rows that are read and computed at once; a multiple of 8, so that a block of a bitmap begins with a byte."""
DEFAULT_BYTES = 1 << 30
_UNDIVIDED_BYTES = 64 << 20

Value = TypeVar("Value")


class TooLarge(Exception):
    """A set of relations takes more memory or more steps than counting in memory may."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of one counting process: a part for filtered relations, one for vectors, the rest for the operation at work."""

    total_bytes: int = DEFAULT_BYTES

    @property
    def _divided_bytes(self) -> int:
        """All but what reading, blocks of rows and the allocator take."""
        return max(self.total_bytes - _UNDIVIDED_BYTES, self.total_bytes // 2)

    @property
    def filters_bytes(self) -> int:
        """Memory for the keys of filtered relations."""
        return self._divided_bytes // 4

    @property
    def vectors_bytes(self) -> int:
        """Memory for vectors."""
        return self._divided_bytes * 3 // 8

    @property
    def largest_bytes(self) -> int:
        """Memory for one operation."""
        return self._divided_bytes * 3 // 8

    def check(self, size_bytes: int) -> None:
        """Raise `TooLarge` if one operation would take so much memory."""
        if size_bytes > self.largest_bytes:
            raise TooLarge(f"{size_bytes} bytes for one operation")


class Bounded(Generic[Value]):
    """A dictionary that drops the values that were not used for longest while it holds more than `budget_bytes`."""

    def __init__(self, budget_bytes: int, size_bytes: Callable[[Value], int]) -> None:
        self.budget_bytes = budget_bytes
        self._size_bytes = size_bytes
        self._held_bytes = 0
        self._values: OrderedDict[Any, Value] = OrderedDict()

    def get(self, key: Any) -> Value | None:
        """Return the value of a key, None if it is missing or was dropped."""
        found = self._values.get(key)
        if found is not None:
            self._values.move_to_end(key)
        return found

    def put(self, key: Any, value: Value) -> None:
        """Hold a value, unless it alone is too large."""
        size_bytes = self._size_bytes(value)
        if size_bytes > self.budget_bytes:
            return
        self._values[key] = value
        self._held_bytes += size_bytes
        while self._held_bytes > self.budget_bytes:
            _, dropped = self._values.popitem(last=False)
            self._held_bytes -= self._size_bytes(dropped)


def blocks(rows: int) -> Iterator[slice]:
    """Divide rows into blocks."""
    return (slice(start, min(start + BLOCK_ROWS, rows)) for start in range(0, rows, BLOCK_ROWS))

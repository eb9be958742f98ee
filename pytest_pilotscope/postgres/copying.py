"""Byte strings as the files that psycopg2's COPY reads and writes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any


class Chunks(io.RawIOBase):
    """A sequence of byte strings of any size, read as a file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes; return their number, 0 at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class Sink:
    """An object with a `write`, as psycopg2's COPY TO wants."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write

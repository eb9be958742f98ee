"""Byte strings as the files that psycopg2's COPY reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Chunks:
    """Byte strings as the file that psycopg2's COPY reads: it takes pieces of any size, and an empty one for the end."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = filter(None, chunks)

    def read(self, _size: int) -> bytes:
        """Return the next piece."""
        return next(self._chunks, b"")


class Sink:
    """An object with a `write`, as psycopg2's COPY TO wants."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write

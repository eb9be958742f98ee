"""Tables of a generated dataset in PostgreSQL: each is created and filled in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as arrow
from pyarrow import csv

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

_CHUNK_ROWS = 65_536
_CHUNK_BYTES = 1 << 20


def create_filled(session: Session, table: str, definition: str, columns: Mapping[str, Any]) -> None:
    """Create a table and COPY its columns, which are arrays or lists of one length; None is NULL."""
    _create(session, table, definition, f"({', '.join(columns)}) FROM STDIN (FORMAT csv)", _csv(arrow.table(dict(columns))))


def create_from_file(session: Session, table: str, definition: str, path: Path) -> None:
    """Create a table and COPY a CSV file, whose first line has names."""
    _create(session, table, definition, "FROM STDIN (FORMAT csv, HEADER)", read_chunks(path))


def read_chunks(path: Path, done: Callable[[int], None] = lambda done_bytes: None) -> Iterator[bytes]:
    """Yield a file piece by piece; call `done` with the number of bytes so far."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            done(file.tell())
            yield chunk


def _create(session: Session, table: str, definition: str, source: str, chunks: Iterable[bytes]) -> None:
    session.execute("BEGIN")  # rows copied into a table of the same transaction need no WAL on a server of ours
    session.execute(f"CREATE TABLE {table} ({definition})")
    session.copy_from(f"COPY {table} {source}", chunks)
    session.execute("COMMIT")


def _csv(table: arrow.Table) -> Iterator[bytes]:
    """Yield the rows as CSV; texts are quoted, NULL is not."""
    for batch in table.to_batches(max_chunksize=_CHUNK_ROWS):
        text = BytesIO()
        csv.write_csv(batch, text, csv.WriteOptions(include_header=False))
        yield text.getvalue()

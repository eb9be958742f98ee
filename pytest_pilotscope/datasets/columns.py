"""Generated columns in PostgreSQL: a table is created and filled in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pyarrow as arrow
from pyarrow import csv

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

_CHUNK_ROWS = 65_536


def create_filled(session: Session, table: str, definition: str, columns: Mapping[str, Any]) -> None:
    """Create a table and COPY its columns, which are arrays or lists of one length; None is NULL."""
    session.execute("BEGIN")  # rows copied into a table of the same transaction need no WAL on a server of ours
    session.execute(f"CREATE TABLE {table} ({definition})")
    session.copy_from(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT csv)", _csv(arrow.table(dict(columns))))
    session.execute("COMMIT")


def _csv(table: arrow.Table) -> Iterator[bytes]:
    """Yield the rows as CSV; texts are quoted, NULL is not."""
    for batch in table.to_batches(max_chunksize=_CHUNK_ROWS):
        text = BytesIO()
        csv.write_csv(batch, text, csv.WriteOptions(include_header=False))
        yield text.getvalue()

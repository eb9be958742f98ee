"""
Generated tables in PostgreSQL's binary COPY format.

Format: https://www.postgresql.org/docs/current/sql-copy.html (a header, then per row a field count and length-prefixed
big-endian values; length -1 is NULL, with no value after it).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .schema import TABLES
from .tables import Table

_HEADER = b"PGCOPY\n\xff\r\n\0" + b"\0" * 8
_TRAILER = b"\xff\xff"
_CHUNK_ROWS = 32_768
_TYPES = {"integer": ">i4", "smallint": ">i2"}
_LENGTH = 4  # bytes of the length before every value


def copy_chunks(table: Table) -> Iterator[bytes]:
    """Yield the rows for `COPY table (columns in the order of the schema) FROM STDIN (FORMAT binary)`, a few MB at a time."""
    yield _HEADER
    for start in range(0, table.rows, _CHUNK_ROWS):
        yield _encoded(table, slice(start, min(start + _CHUNK_ROWS, table.rows)))
    yield _TRAILER


def _encoded(table: Table, rows: slice) -> bytes:
    """Lay all rows out at full width, then leave out the bytes of NULL values."""
    widths = {name: np.dtype(_TYPES[kind]) for name, kind in TABLES[table.name].items()}
    fields = [("fields", ">i2")]
    for name, kind in widths.items():
        fields += [(f"{name} length", ">i4"), (name, kind.str)]
    layout = np.dtype(fields)
    block = np.empty(rows.stop - rows.start, dtype=layout)
    block["fields"] = len(widths)
    keep: NDArray[np.bool_] | None = None
    for name, kind in widths.items():
        column = table[name]
        block[name] = column.values[rows]
        block[f"{name} length"] = kind.itemsize
        if column.nulls is not None:
            nulls = column.nulls[rows]
            block[f"{name} length"][nulls] = -1
            keep = np.ones((len(block), layout.itemsize), dtype=np.bool_) if keep is None else keep
            at = layout.fields[name][1] if layout.fields else 0
            keep[:, at : at + kind.itemsize] = ~nulls[:, np.newaxis]
    if keep is None:
        return block.tobytes()
    flat: NDArray[np.uint8] = block.view(np.uint8).reshape(len(block), layout.itemsize)
    return flat[keep].tobytes()

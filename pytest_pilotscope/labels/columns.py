"""
The columns that labels need, read once from the database and kept on disk.

    <folder>/<table>/rows.txt            number of rows, and a digest of all of them in their order
    <folder>/<table>/<column>.npy        (N,) int32 or int64, 0 where NULL      integer columns
    <folder>/<table>/<column>.null.npy   (N,) bool, only where there are NULLs
    <folder>/<table>/<column>.arrow      (N,) text                              other columns, for their equality only
    <folder>/<table>/where-<hash>.npy    (N / 8,) bits                          rows that satisfy a condition

Everything is in the physical order of the table. Files are written under another name first and are then complete, so a
process that is killed leaves nothing that is half a file, and processes that read the same data may share a folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pytest_pilotscope.core.joins import Schema, key_family
from pytest_pilotscope.core.predicates import quote_identifier
from pytest_pilotscope.errors import LabelError
from pytest_pilotscope.labels.filters import Integers, Mask
from pytest_pilotscope.labels.source import Expression, RowSource

_MASKS_PER_SCAN = 32
# Text that is equal exactly when the values are; text itself needs nothing.
_KEY_TEXT: Mapping[str, str] = {
    "character": "CAST({} AS text)",  # the cast drops the padding, which does not count in a comparison
    "numeric": "CAST(trim_scale({}) AS text)",
    "double": "CAST({} + 0 AS text)",  # -0 equals 0
    "real": "CAST({} + 0 AS text)",
}


@dataclass(frozen=True, slots=True)
class Needs:
    """Tables whose rows are counted, and their (table, column) and (table, condition SQL) pairs that must be read."""

    tables: set[str] = field(default_factory=set)
    columns: set[tuple[str, str]] = field(default_factory=set)
    conditions: set[tuple[str, str]] = field(default_factory=set)


class ColumnStore:
    """
    Columns and condition masks of one data set.

    With a `source` it reads what is missing (`fetch`); without one it serves what is there. A store is for one process;
    the files behind it may be shared.
    """

    def __init__(self, folder: Path, schema: Schema, source: RowSource | None = None) -> None:
        self._folder = folder
        self._schema = schema
        self._source = source
        self._integers: dict[tuple[str, str], Integers] = {}
        self._rows: dict[str, tuple[int, str]] = {}
        self._verified: set[str] = set()

    def is_integer(self, table: str, column: str) -> bool:
        """Tell whether a column is held as numbers."""
        return key_family(self._schema[table][column]) == "integer"

    def fetch(self, needed: Needs) -> None:
        """Read what is not there yet, one scan per table."""
        wanted: dict[str, list[tuple[Path, Expression]]] = {table: [] for table in sorted(needed.tables)}
        for table, column in sorted(needed.columns):
            wanted[table].append((self._column_path(table, column), self._expression(table, column)))
        for table, condition in sorted(needed.conditions):
            wanted[table].append((self._mask_path(table, condition), Expression(f"({condition}) IS TRUE", "boolean")))
        for table, all_of_it in wanted.items():
            self._read(table, [(path, expression) for path, expression in all_of_it if not path.exists()])

    def rows(self, table: str) -> int:
        """Return the number of rows of a table."""
        return self._known_rows(table)[0]

    def _known_rows(self, table: str) -> tuple[int, str]:
        if table not in self._rows:
            path = self._table_folder(table) / "rows.txt"
            with _readable(path):
                count, digest = path.read_text(encoding="ascii").split()
                self._rows[table] = int(count), digest
        return self._rows[table]

    def integers(self, table: str, column: str) -> Integers:
        """Return an integer column."""
        key = (table, column)
        if key not in self._integers:
            path = self._column_path(table, column)
            nulls = path.with_suffix(".null.npy")
            self._integers[key] = Integers(_load(path), _load(nulls) if nulls.exists() else None)
        return self._integers[key]

    def texts(self, table: str, column: str) -> pa.Array:
        """Return a column of another type as text that is equal exactly when the values are."""
        path = self._column_path(table, column)
        with _readable(path), pa.ipc.open_file(str(path)) as reader:
            return reader.read_all().column(0).combine_chunks()

    def mask(self, table: str, condition: str) -> Mask:
        """Return the rows that satisfy a condition, as PostgreSQL evaluated it."""
        bits = _load(self._mask_path(table, condition))
        return np.unpackbits(bits, count=self.rows(table)).view(np.bool_)

    def _expression(self, table: str, column: str) -> Expression:
        name = quote_identifier(column)
        family = key_family(self._schema[table][column])
        if family == "integer":
            return Expression(name, "integer")
        return Expression(_KEY_TEXT.get(family or "", name if family == "text" else "CAST({} AS text)").format(name), "text")

    def _read(self, table: str, missing: Sequence[tuple[Path, Expression]]) -> None:
        if not missing and (self._table_folder(table) / "rows.txt").exists():
            return
        source = self._source
        if source is None:
            raise LabelError(
                f"columns or conditions of table {table!r} are not in {self._folder}, and there is no database to read them from"
            )
        self._verify(table, source)
        for start in range(0, len(missing), _MASKS_PER_SCAN):
            part = missing[start : start + _MASKS_PER_SCAN]
            arrays = source.rows(table, [expression for _, expression in part])
            if len(arrays[0]) != self.rows(table):
                raise LabelError(
                    f"table {table!r} has {len(arrays[0])} rows, but {self.rows(table)} when its columns were read: "
                    f"remove {self._table_folder(table)}"
                )
            for (path, expression), array in zip(part, arrays, strict=True):
                _save(path, expression, array)

    def _verify(self, table: str, source: RowSource) -> None:
        """Before anything is added to a table from an earlier process: are its rows the same, in the same order?"""
        if table in self._verified:
            return
        path, found = self._table_folder(table) / "rows.txt", source.digest(table)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, " ".join(map(str, found)).encode("ascii"))
        elif self._known_rows(table) != found:
            raise LabelError(
                f"table {table!r} does not hold the rows in {self._folder} any more, or not in the same order; "
                "labels need data that does not change: remove that folder to read it again"
            )
        self._verified.add(table)

    def _table_folder(self, table: str) -> Path:
        return self._folder / _file_name(table)

    def _column_path(self, table: str, column: str) -> Path:
        return self._table_folder(table) / (_file_name(column) + (".npy" if self.is_integer(table, column) else ".arrow"))

    def _mask_path(self, table: str, condition: str) -> Path:
        return self._table_folder(table) / f"where-{hashlib.sha256(condition.encode()).hexdigest()[:24]}.npy"


def _save(path: Path, expression: Expression, array: pa.Array) -> None:
    if expression.kind == "boolean":
        _save_array(path, np.packbits(array.to_numpy(zero_copy_only=False).astype(np.bool_)))
    elif expression.kind == "integer":
        column = _integers(array)
        if column.nulls is not None:  # first, so that the values are never there without them
            _save_array(path.with_suffix(".null.npy"), column.nulls)
        _save_array(path, column.values)
    else:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, pa.schema([("text", pa.string())])) as writer:
            writer.write(pa.record_batch([array], names=["text"]))
        _write(path, sink.getvalue().to_pybytes())


def _integers(array: pa.Array) -> Integers:
    """Take an Arrow array of int64 apart by its buffers: Arrow's own conversions import pandas, which takes a second."""
    validity, content = array.buffers()
    stop = array.offset + len(array)
    values = np.frombuffer(content, dtype=np.int64, count=stop)[array.offset :] if len(array) else np.zeros(0, dtype=np.int64)
    nulls = None
    if array.null_count:
        valid = np.unpackbits(np.frombuffer(validity, dtype=np.uint8), count=stop, bitorder="little")[array.offset :]
        nulls = valid == 0
        values = np.where(nulls, 0, values)
    limits = np.iinfo(np.int32)
    fits = not values.size or (values.min() >= limits.min and values.max() <= limits.max)
    return Integers(values.astype(np.int32) if fits else values, nulls)


def _file_name(name: str) -> str:
    """Return a name for the file system: quoted, and different for names that differ in case only."""
    quoted = quote(name, safe=" ").replace("%", "=").replace(".", "=2E")
    return quoted if name == name.lower() else f"{quoted}={hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _load(path: Path) -> npt.NDArray[Any]:
    with _readable(path):
        loaded: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return loaded


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Name the file that turns out to be damaged."""
    try:
        yield
    except (ValueError, EOFError, pa.ArrowInvalid) as error:
        raise LabelError(f"{path} is damaged ({error}): remove {path.parent}, and the table is read again") from error


def _save_array(path: Path, array: npt.NDArray[Any]) -> None:
    with _replacing(path).open("wb") as file:
        np.save(file, array, allow_pickle=False)
    os.replace(_replacing(path), path)


def _write(path: Path, content: bytes) -> None:
    _replacing(path).write_bytes(content)
    os.replace(_replacing(path), path)


def _replacing(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.part")

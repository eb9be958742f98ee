"""
The columns that are needed to count labels, read once from the database and kept on disk.

    <folder>/<table>/rows.txt               number of rows, and a digest of all of them in their order
    <folder>/<table>/<column>.npy           (N,) int32 or int64, 0 where NULL      integers
    <folder>/<table>/<column>.null.npy      (N,) bool, only where there are NULLs
    <folder>/<table>/<column>-<hash>.arrow  (N,) text that is equal exactly when the values of a key's type are
    <folder>/<table>/where-<hash>.npy       (N / 8,) bits                          rows that satisfy a condition
    <folder>/equal-<hash>.arrow             texts of a type that are equal         (`equaltexts`)

Everything is in the physical order of the table. Processes that read the same data may share a folder. A damaged file is read again. If
`rows.txt` is damaged, all of its table is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from pytest_pilotscope.errors import LabelError, StatementFailed
from pytest_pilotscope.labels.arriving import TEXTS, Bits, Numbers, Texts
from pytest_pilotscope.labels.atomicfiles import (
    Stored,
    content_of,
    file_name,
    is_whole,
    readable,
    replacing,
    save,
    short_hash,
    write,
)
from pytest_pilotscope.labels.equaltexts import equal_texts, united
from pytest_pilotscope.labels.integers import Integers
from pytest_pilotscope.labels.source import Expression, RowSource
from pytest_pilotscope.places.cacheentries import remove, usable_folder
from pytest_pilotscope.queries.evaluation import Mask
from pytest_pilotscope.queries.joins import KeyType
from pytest_pilotscope.queries.predicates import quote_identifier

INTEGER = KeyType("integer", True)
_READ_PER_SCAN = 32
_OPEN_BITMAPS = 64
_BEFORE_STREAM_BYTES = 8
"""A file of Arrow is a stream behind these bytes, so that it can be read in parts from its beginning."""
_DIGEST = b" by-place"
"""Marks the digests of `rows.txt` that `RowSource.digest` makes today."""

logger = logging.getLogger(__name__)


class Column(NamedTuple):
    """A column of a table, by the SQL that reads the table, and the type that its values are compared in."""

    table: str
    column: str
    key: KeyType

    @property
    def is_integer(self) -> bool:
        """True if the values are held as numbers."""
        return self.key.name == INTEGER.name


class Bitmap(NamedTuple):
    """The rows of a table that satisfy a condition, as PostgreSQL evaluates it."""

    table: str
    condition: str


Need: TypeAlias = Column | Bitmap


@dataclass(frozen=True, slots=True)
class Needs:
    """Tables whose rows are counted, and the columns and bitmaps that must be read of them."""

    tables: set[str] = field(default_factory=set)
    read: set[Need] = field(default_factory=set)


class ColumnStore:
    """
    Columns and bitmaps of one data set.

    `fetch` reads missing ones from the `source`; a store without a source only serves files. `context` names the settings under which
    PostgreSQL read the SQL. A store is for one process; processes may share the files.
    """

    def __init__(self, folder: Path, context: str, source: RowSource | None = None) -> None:
        self.folder = folder
        self._context = context
        self._source = source
        self._integers: dict[tuple[str, str], tuple[Stored, Stored | None]] = {}
        self._bits = lru_cache(_OPEN_BITMAPS)(lambda table, condition: Stored(self._path(Bitmap(table, condition))))
        self._rows: dict[str, tuple[int, str]] = {}
        self._verified: set[str] = set()

    def fetch(self, needed: Needs) -> Needs:
        """Read the missing ones, one scan per table; return those that PostgreSQL cannot read, such as a condition that fails on a row."""
        failed = Needs()
        usable_folder(self.folder)
        for table in needed.tables:
            self._check_rows(table)
        wanted: dict[str, list[Need]] = {table: [] for table in sorted(needed.tables)}
        for one in sorted(needed.read, key=repr):
            if not self._is_whole(one):
                wanted[one.table].append(one)
        for table, missing in wanted.items():
            if not missing and (self._table_folder(table) / "rows.txt").exists():
                continue
            try:
                self._verify(table)
            except StatementFailed as error:
                _note(error, f"table {table}")
                failed.tables.add(table)
                continue
            for alike in ([one for one in missing if _is_text(one) is is_text] for is_text in (False, True)):
                for start in range(0, len(alike), _READ_PER_SCAN):
                    failed.read.update(self._read(table, alike[start : start + _READ_PER_SCAN]))
        return failed

    def rows(self, table: str) -> int:
        """Return the number of rows of a table."""
        return self._known_rows(table)[0]

    def integers(self, table: str, column: str, rows: slice) -> Integers:
        """Return some rows of an integer column."""
        values, nulls = self._stored(table, column)
        return Integers(values.part(rows), None if nulls is None else nulls.part(rows))

    def texts(self, column: Column) -> Iterator[pa.Array]:
        """Yield a column, in parts, as text that is equal exactly when the values are."""
        path = self._path(column)
        with readable(path), path.open("rb") as file:
            file.seek(_BEFORE_STREAM_BYTES)
            with pa.ipc.open_stream(file) as reader:
                for batch in reader:
                    yield batch.column(0)

    def mask(self, table: str, condition: str, rows: slice) -> Mask:
        """Return which of some rows, from a multiple of 8 on, satisfy a condition, as PostgreSQL evaluated it."""
        packed = self._bits(table, condition).part(slice(rows.start // 8, -(-rows.stop // 8)))
        return np.unpackbits(packed, count=rows.stop - rows.start).view(np.bool_)

    def _stored(self, table: str, column: str) -> tuple[Stored, Stored | None]:
        if (table, column) not in self._integers:
            path = self._path(Column(table, column, INTEGER))
            nulls = path.with_suffix(".null.npy")
            self._integers[table, column] = Stored(path), Stored(nulls) if nulls.exists() else None
        return self._integers[table, column]

    def _known_rows(self, table: str) -> tuple[int, str]:
        if table not in self._rows:
            path = self._table_folder(table) / "rows.txt"
            with readable(path):
                count, digest, _ = content_of(path).to_pybytes().decode("ascii").split()
                self._rows[table] = int(count), digest
        return self._rows[table]

    def _check_rows(self, table: str) -> None:
        """Remove all that was read of a table if the number of its rows is not known."""
        folder = self._table_folder(table)
        if not folder.exists():
            return
        path = usable_folder(folder) / "rows.txt"
        if not is_whole(path):
            if any(folder.iterdir()):
                logger.warning("%s is damaged: the table is read again", path)
            remove(folder)
        elif not content_of(path).to_pybytes().endswith(_DIGEST):  # of a version that made other digests
            remove(folder)

    def _is_whole(self, one: Need) -> bool:
        """Tell whether a column or bitmap is there; remove a damaged one, and all texts that were compared with damaged ones."""
        path, nulls = self._path(one), self._path(one).with_suffix(".null.npy")
        if isinstance(one, Column) and _is_text(one) and not one.key.bytewise:
            equal = equal_texts(self.folder, self._context, one.key.name)
            stale = list(self.folder.glob(f"*/*{equal.name.removeprefix('equal')}"))
            if (stale or equal.exists()) and not is_whole(equal):
                self._remove(equal, *stale)
        if not path.exists():
            return False
        if is_whole(path, _mark(nulls)) and (not nulls.exists() or is_whole(nulls)):
            return True
        self._remove(path)
        return False

    def _remove(self, path: Path, *others: Path) -> None:
        logger.warning("%s is damaged: it is read again", path)
        for one in (path, *others):
            remove(one)

    def _read(self, table: str, missing: Sequence[Need]) -> set[Need]:
        """Read with one scan, or one by one when that fails; return those that cannot be read."""
        with ExitStack() as stack:
            waiting = [stack.enter_context(closing(_arriving(one)(self.folder))) for one in missing]

            def take(arrays: list[pa.Array]) -> None:
                for one, array in zip(waiting, arrays, strict=True):
                    one.append(array)

            try:
                self._database().rows(table, [_expression(one) for one in missing], take)
                for need, one in zip(missing, waiting, strict=True):
                    self._check_size(table, one.size)
                    self._save(need, one)
            except StatementFailed as error:
                if len(missing) > 1:
                    return {failed for need in missing for failed in self._read(table, [need])}
                _note(error, f"{missing[0][1]} of table {table}")
                return set(missing)
        return set()

    def _check_size(self, table: str, found: int) -> None:
        if found != self.rows(table):
            raise LabelError(
                f"table {table} has {found} rows, but {self.rows(table)} when its columns were read: remove {self._table_folder(table)}"
            )

    def _verify(self, table: str) -> None:
        """Raise `LabelError` if the rows of a table, or their order, changed since its first column was read."""
        if table in self._verified:
            return
        path, found = self._table_folder(table) / "rows.txt", self._database().digest(table)
        if not path.exists():
            usable_folder(path.parent)
            write(path, b"%d %s" % (found[0], found[1].encode("ascii")) + _DIGEST)
        elif self._known_rows(table) != found:
            raise LabelError(
                f"table {table} does not hold the rows in {self.folder} any more, or not in the same order; "
                "labels need data that does not change: remove that folder to read it again"
            )
        self._verified.add(table)

    def _save(self, need: Need, waiting: Numbers | Bits | Texts) -> None:
        path = self._path(need)
        if isinstance(waiting, Bits):
            save(path, waiting.packed(), size=-(-waiting.size // 8), dtype=np.uint8)
        elif isinstance(waiting, Numbers):
            nulls = path.with_suffix(".null.npy")
            remove(nulls)
            if waiting.any_null:  # first, so that the values are never there without them
                save(nulls, waiting.nulls, size=waiting.size, dtype=np.bool_)
            save(path, waiting.values, size=waiting.size, dtype=waiting.dtype, mark=_mark(nulls))
        else:
            assert isinstance(need, Column)  # noqa: S101  # only columns wait as texts
            key = need.key
            with replacing(path) as file, pa.ipc.new_file(pa.PythonFile(file, mode="w"), TEXTS) as writer:
                for array in waiting:
                    one = array
                    if not key.bytewise:
                        one = united(array, type_name=key.name, folder=self.folder, context=self._context, source=self._database())
                    writer.write(pa.record_batch([one], schema=TEXTS))

    def _database(self) -> RowSource:
        if self._source is None:
            raise LabelError(f"columns or conditions are not in {self.folder}, and there is no database to read them from")
        return self._source

    def _table_folder(self, table: str) -> Path:
        return self.folder / file_name(table)

    def _path(self, one: Need) -> Path:
        folder = self._table_folder(one.table)
        if isinstance(one, Bitmap):
            return folder / f"where-{short_hash(self._context + one.condition)}.npy"
        name = file_name(one.column)
        return folder / (f"{name}.npy" if one.is_integer else f"{name}-{short_hash(self._context + one.key.name)}.arrow")


def _is_text(one: Need) -> bool:
    return isinstance(one, Column) and not one.is_integer


def _arriving(one: Need) -> type[Numbers | Bits | Texts]:
    return Bits if isinstance(one, Bitmap) else Texts if _is_text(one) else Numbers


def _mark(nulls: Path) -> str:
    """Return the mark of a column of integers, so that its checksum does not fit without its file of NULLs."""
    return "with NULLs" if nulls.exists() else ""


def _expression(one: Need) -> Expression:
    if isinstance(one, Bitmap):
        return Expression(f"({one.condition}) IS TRUE", "boolean")
    column = quote_identifier(one.column)
    if one.is_integer:
        return Expression(column, "integer")
    return Expression(column if one.key.name == "text" else f"(({column})::{one.key.name})::text", "text")


def _note(error: StatementFailed, what: str) -> None:
    """Log a column or condition that PostgreSQL cannot read, so that it counts the sets itself; raise again if the connection is lost."""
    if not error.sqlstate:
        raise error
    logger.warning("PostgreSQL cannot evaluate %s for all rows (%s): sets of relations with it are counted one by one", what, error.reason)

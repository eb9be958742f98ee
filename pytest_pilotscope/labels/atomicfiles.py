"""
Files of the label folder, with a checksum at their end.

They are written under another name first: a process that is killed leaves no half file under the right name.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pytest_pilotscope.errors import LabelError
from pytest_pilotscope.places.cacheentries import remove
from pytest_pilotscope.places.privatefiles import open_private

_LONGEST = 100  # a file system allows 255 bytes, and names get suffixes
_CHECKSUM_BYTES = hashlib.sha256().digest_size
_CHUNK_BYTES = 1 << 20


def short_hash(text: str) -> str:
    """Return 24 hex digits that name a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def file_name(name: str) -> str:
    """Quote a name for the file system; long names, and names that differ in case only, stay different."""
    quoted = quote(name, safe=" ").replace("%", "=").replace(".", "=2E")
    return quoted if name == name.lower() and len(quoted) <= _LONGEST else f"{quoted[:_LONGEST]}={short_hash(name)[:8]}"


class Stored:
    """
    A one-dimensional array in a file, of which parts are read.

    It is not mapped into memory, because mapped pages count as memory of the process. LabelError when the file is damaged. It stays open
    as long as the object lives.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        with readable(path), path.open("rb") as file:
            np.lib.format.read_magic(file)
            _, _, self._dtype = np.lib.format.read_array_header_1_0(file)
            self._start = file.tell()
            self._descriptor = os.dup(file.fileno())

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def part(self, rows: slice) -> npt.NDArray[Any]:
        """Read the elements from `rows.start` to `rows.stop`."""
        size = rows.stop - rows.start
        with readable(self._path):
            content = os.pread(self._descriptor, size * self._dtype.itemsize, self._start + rows.start * self._dtype.itemsize)
            return _elements(content, self._dtype, size)


class Spool:
    """Arrays that wait on disk, in a file without a name, until they are read again in their order."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by `close`
        self._parts: list[tuple[np.dtype[Any], int]] = []

    @property
    def size(self) -> int:
        """Number of elements."""
        return sum(size for _, size in self._parts)

    def append(self, array: npt.NDArray[Any]) -> None:
        """Write an array behind the others."""
        self._file.write(array.tobytes())
        self._parts.append((array.dtype, array.size))

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        self._file.seek(0)
        return (_read(self._file, dtype, size) for dtype, size in self._parts)

    def part(self, rows: slice) -> npt.NDArray[Any]:
        """Read the elements from `rows.start` to `rows.stop`; all arrays must be of one type."""
        dtype = self._parts[0][0]
        self._file.seek(rows.start * dtype.itemsize)
        return _read(self._file, dtype, rows.stop - rows.start)

    def close(self) -> None:
        """Free the disk."""
        self._file.close()


def _read(file: IO[bytes], dtype: np.dtype[Any], size: int) -> npt.NDArray[Any]:
    return _elements(file.read(size * dtype.itemsize), dtype, size)


def _elements(content: bytes, dtype: np.dtype[Any], size: int) -> npt.NDArray[Any]:
    if len(content) < size * dtype.itemsize:
        raise EOFError("it is cut off")
    return np.frombuffer(content, dtype=dtype)


def content_of(path: Path) -> pa.Buffer:
    """Map the bytes that `write` wrote into memory."""
    with readable(path), pa.memory_map(str(path)) as file:
        return file.read_buffer(file.size() - _CHECKSUM_BYTES)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise `LabelError` with the name of the file when the block finds it damaged."""
    try:
        yield
    except (ValueError, EOFError, OSError, pa.ArrowException) as error:
        raise LabelError(f"{path} was damaged meanwhile ({error}): the next run reads it again") from error


def is_whole(path: Path, mark: str = "") -> bool:
    """Tell whether a file is what was written under this name with this mark."""
    digest = _digest(path, mark)
    try:
        with path.open("rb") as file:
            left = os.fstat(file.fileno()).st_size - _CHECKSUM_BYTES
            while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
                digest.update(chunk)
                left -= len(chunk)
            return file.read() == digest.digest()
    except OSError:
        return False


def save(path: Path, parts: Iterable[npt.NDArray[Any]], *, size: int, dtype: npt.DTypeLike, mark: str = "") -> None:
    """Write an array that arrives in parts."""
    with replacing(path, mark) as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (size,)}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part.astype(dtype, copy=False).tobytes())


def write(path: Path, content: bytes) -> None:
    """Write bytes."""
    with replacing(path) as file:
        file.write(content)


class _Hashing(io.RawIOBase):
    """A file that is written to its end; `digest` is the hash of what it holds."""

    def __init__(self, file: IO[bytes], digest: hashlib._Hash) -> None:
        self._file = file
        self.digest = digest

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.digest.update(content)
        return self._file.write(content)


@contextmanager
def replacing(path: Path, mark: str = "") -> Iterator[_Hashing]:
    """Write a file under another name, then its checksum, and give it its name."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open_private(part, "wb") as file:
        hashing = _Hashing(file, _digest(path, mark))
        yield hashing
        file.write(hashing.digest.digest())
    if path.is_dir():
        remove(path)
    os.replace(part, path)


def _digest(path: Path, mark: str) -> hashlib._Hash:
    """Begin a checksum with the name of the file, so that one file is not taken for another."""
    return hashlib.sha256(f"{path.parent.name}/{path.name}/{mark}".encode())

"""
Files of the label folder, with a checksum at their end.

They are written under another name first: a process that is killed leaves no half file under the right name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
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


def load(path: Path) -> npt.NDArray[Any]:
    """Map an array into memory; LabelError when the file is damaged."""
    with readable(path):
        loaded: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return loaded


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


def save(path: Path, array: npt.NDArray[Any], mark: str = "") -> None:
    """Write an array."""
    with _replacing(path, mark) as file:
        np.save(file, array, allow_pickle=False)


def write(path: Path, content: bytes) -> None:
    """Write bytes."""
    with _replacing(path, "") as file:
        file.write(content)


class _Hashing:
    """A file that is written to its end; `digest` is the hash of what it holds."""

    def __init__(self, file: IO[bytes], digest: hashlib._Hash) -> None:
        self._file = file
        self.digest = digest

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self._file.write(content)


@contextmanager
def _replacing(path: Path, mark: str) -> Iterator[_Hashing]:
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

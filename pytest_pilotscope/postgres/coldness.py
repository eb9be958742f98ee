"""Drop what a server of ours has cached of a database: its shared buffers, and its files in the memory of the operating system."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.steering import has_extension

_FOLDER = "SELECT current_setting('data_directory') || '/base/' || oid FROM pg_database WHERE datname = current_database()"


def drop_caches(session: Session) -> None:
    """Take the database of the session out of shared buffers, and its files out of memory; the files of other databases stay."""
    files = _files(session)
    session.execute("SET pilotscope.drop_buffers = on")  # it writes changed pages first
    for path in files:
        _forget(path)


def warm_reason(session: Session) -> str | None:
    """Drop the caches of a server on this machine; return why that is impossible, or why they are still there."""
    if not hasattr(os, "posix_fadvise"):
        return "this operating system cannot be told to forget files (posix_fadvise)"
    if not has_extension(session):
        return "its shared buffers cannot be emptied without the pilotscope library"
    drop_caches(session)
    largest = max(_files(session), key=lambda path: path.stat().st_size)
    return f"the file system of {largest.parent} keeps files in memory" if _is_in_memory(largest) else None


def _files(session: Session) -> list[Path]:
    return [path for path in Path(session.scalar(_FOLDER)).iterdir() if path.is_file()]


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _forget(path: Path) -> None:
    with suppress(FileNotFoundError), _opened(path) as descriptor:  # a temporary file may be gone
        _write_out(path, os.stat(descriptor).st_mtime_ns)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


@cache
def _write_out(path: Path, _mtime_ns: int) -> None:
    """Wait until the disk has a file, once for every state of it: pages that the disk does not have stay in memory."""
    with _opened(path) as descriptor:
        os.fsync(descriptor)


def _is_in_memory(path: Path) -> bool:
    """Tell whether pages of a file are in memory, as mincore(2) says."""
    with _opened(path) as descriptor, mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY) as mapped:
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None, use_errno=True).mincore(ctypes.byref(start), ctypes.c_size_t(len(mapped)), pages)
        del start  # a mapping that is in use cannot be closed
        return bool(failed) or any(page & 1 for page in pages)

"""
The large files of a prepared data directory, which one server at a time uses where they are; all others copy them.

    <entry>/data                      the cluster without its large files, which every server copies
    <entry>/large/<database>/<file>   tables and indexes of at least 1 MiB, of databases with the same contents only once

The server that has the lock of `large` gets hard links to these files. PostgreSQL writes into files in place, so links are safe only for
files that nothing has a reason to write: a query does not, because the tables are frozen and have no hint bits left to be set. Catalogs,
settings, WAL and small tables are copied. New indexes and tables are new files. So all of them end with the server, however that ends. If a
run does write into a large file (it changes rows; it drops or rewrites a table or an index, whose file PostgreSQL empties first), the time
of the last modification tells, and the entry is made again.

Where the file system copies by sharing blocks, every server copies all files.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pytest_pilotscope.places.account import Account
from pytest_pilotscope.places.cacheentries import checksum, try_lock
from pytest_pilotscope.places.privatefiles import new_folder
from pytest_pilotscope.postgres.process import run_program

LARGE = "large"
MANIFEST = "manifest.json"
LEAST_BYTES = 1 << 20

_FILE = re.compile(r"(\d+)(_\w+)?(\.\d+)?")
_FIRST_OF_USERS = 16384
"""Files with smaller numbers are of catalogs (FirstNormalObjectId in PostgreSQL's access/transam.h)."""
_FICLONE = 0x40049409
"""The request of Linux's ioctl that lets a file share the blocks of another."""

Large = Mapping[str, tuple[int, int, str]]
"""Size in bytes, time of modification in ns, and checksum of each large file by its path in the folder."""

logger = logging.getLogger(__name__)


def set_apart(entry: Path, account: Account) -> None:
    """Move the large files out of the data directory of a new entry, write them to disk, and keep those of equal databases once."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((entry / "data" / "base").glob("*/*")) if sys.platform == "linux" else ():
        name = _FILE.fullmatch(path.name)
        if name and int(name[1]) >= _FIRST_OF_USERS and path.lstat().st_size >= LEAST_BYTES:
            found[path.parent.name].append(f"base/{path.parent.name}/{path.name}")
    if not found:
        return
    large = new_folder(entry / LARGE, uid=account.uid, gid=account.gid)
    run_program(["mkdir", "-m", "700", *found], account, large)
    for database, names in found.items():
        run_program(["mv", *names, large / database], account, entry / "data")
    known: dict[str, str] = {}
    for database in found:
        same = known.setdefault(checksum(large / database), database)
        if same != database:
            run_program(["rm", "-r", database], account, large)
            run_program(["cp", "-al", same, database], account, large)
    for path in large.glob("*/*"):
        _sync(path)


def large_files(entry: Path, known: Large) -> Large:
    """Describe the large files of an entry. A file with the size and time of the `known` one is not read."""
    read: dict[int, str] = {}

    def checksum_of(name: str, size_and_time: tuple[int, int]) -> str:
        if name in known and known[name][:2] == size_and_time:
            return known[name][2]
        path = entry / LARGE / name
        file = path.lstat().st_ino  # it may have several names
        return read[file] if file in read else read.setdefault(file, checksum(path))

    return {name: (*found, checksum_of(name, found)) for name, found in _sizes_and_times(entry).items()}


def known_large_files(manifest: object) -> Large:
    """Return the large files in a manifest; none if it is broken."""
    large = manifest.get(LARGE) if isinstance(manifest, Mapping) else None
    if not isinstance(large, Mapping):
        return {}
    return {name: (its[0], its[1], str(its[2])) for name, its in large.items() if isinstance(its, list) and len(its) == 3}


def changed_files(entry: Path) -> list[str]:
    """Return the names of the large files of an entry that were changed since it was made, or are gone; all if it has no manifest."""
    try:
        known = known_large_files(json.loads((entry / MANIFEST).read_bytes()))
    except (OSError, ValueError):
        known = {}
    found = _sizes_and_times(entry)
    return [name for name in sorted(known.keys() | found.keys()) if name not in known or known[name][:2] != found.get(name)]


@contextmanager
def lock_of(template: Path) -> Iterator[list[int]]:
    """
    Try to lock the large files of a prepared data directory, and give the descriptor of the lock, for the server to hold.

    Give none if there are no such files, if another server has the lock, or if copies share blocks.
    """
    large = template.with_name(LARGE)
    if not large.is_dir() or _copies_share_blocks(template.parent):
        yield []
        return
    descriptor = os.open(large, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        mine = try_lock(descriptor)
        if not mine:
            logger.info("another server uses the files of %s; they are copied", template)
        yield [descriptor] if mine else []
    finally:
        os.close(descriptor)


def _sizes_and_times(entry: Path) -> dict[str, tuple[int, int]]:
    found = ((path, path.lstat()) for path in (entry / LARGE).rglob("*") if path.is_symlink() or not path.is_dir())
    return {str(path.relative_to(entry / LARGE)): (status.st_size, status.st_mtime_ns) for path, status in found}


def _copies_share_blocks(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as one, tempfile.TemporaryFile(dir=folder) as other:
            one.write(bytes(1 << 16))
            one.flush()
            fcntl.ioctl(other.fileno(), _FICLONE, one.fileno())
    except OSError:
        return False
    return True


def _sync(path: Path) -> None:
    """Write a file to disk: after a power cut its size and time would be right, and its contents might not."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""
Entries of the cache: their checksums, their locks, and their removal.

A damaged entry (altered, cut off, closed, of the wrong kind) is removed and made again. One process makes it, and others wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_pilotscope.places.privatefiles import private_descriptor, private_folder, write_private

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_POLL_S = 0.1
_SAID_AFTER_POLLS = 5  # most locks are held for a moment


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, or of all names, links and contents below a folder; raise OSError. No link is followed."""
    digest = hashlib.sha256()
    if not path.is_dir():
        _add_file(digest, path)
        return digest.hexdigest()
    for folder, folders, names in os.walk(path, onerror=_raise):
        folders.sort()
        for name in sorted(folders + names):
            entry = Path(folder, name)
            digest.update(os.fsencode(entry.relative_to(path)) + b"\0")
            if entry.is_symlink():
                digest.update(os.fsencode(os.readlink(entry)) + b"\0")
            elif name in names:
                _add_file(digest, entry)
    return digest.hexdigest()


def seal(path: Path) -> None:
    """Write the checksum of a file or folder beside it."""
    write_private(_seal_of(path), checksum(path))


def is_whole(path: Path) -> bool:
    """Tell whether a file or folder is what `seal` saw."""
    try:
        return _seal_of(path).read_text(encoding="ascii") == checksum(path)
    except (OSError, ValueError):
        return False


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all below it, also if its owner may not enter it."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if os.geteuid() != 0:  # root may enter every folder, and must not change a mode through a link
        path.chmod(0o700)
        for folder, names, _ in os.walk(path):
            for name in names:
                if not os.path.islink(os.path.join(folder, name)):
                    os.chmod(os.path.join(folder, name), 0o700)
    shutil.rmtree(path)


def remove_sealed(path: Path) -> None:
    """Remove a file or folder, and its checksum."""
    remove(path)
    remove(_seal_of(path))


def usable_folder(folder: Path) -> Path:
    """Make a private folder, in place of a file of its name; open it again if its mode was changed. Return it."""
    if folder.exists() and not folder.is_dir():
        logger.warning("%s is damaged (it is no folder); it is made again", folder)
        remove(folder)
    if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        with suppress(OSError):
            folder.chmod(0o700)
    return private_folder(folder)


@contextmanager
def locked(path: Path, doing: str, log: logging.Logger, *, is_stuck: Callable[[], bool] = lambda: False) -> Iterator[int]:
    """
    Hold the lock of a file or folder, and yield its descriptor; a lock ends with its process, even a killed one.

    If another process has the lock, wait, and `log` a line with what it is `doing`. If it `is_stuck`, log that, and go on without the lock.
    """
    lock = os.open(path, os.O_RDONLY) if path.is_dir() else private_descriptor(str(path), os.O_CREAT | os.O_RDWR)
    try:
        polls = 0
        while not try_lock(lock):
            if polls == _SAID_AFTER_POLLS:
                log.warning("waiting for another process that %s", doing)
            if is_stuck():
                log.warning("the other process that %s makes no progress; no longer waiting for it", doing)
                break
            polls += 1
            time.sleep(_POLL_S)
        yield lock
    finally:
        os.close(lock)


def try_lock(lock: int) -> bool:
    """Lock an open file or folder, and tell whether that was possible without waiting."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _seal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _add_file(digest: hashlib._Hash, path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise IsADirectoryError(str(path))
        digest.update(status.st_size.to_bytes(8, "big"))
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            digest.update(chunk)
    finally:
        os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error

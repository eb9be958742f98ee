"""Files and folders that only one account can open, whatever the umask, and the check that a path is not in somebody else's hands."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import IO, Any

from pytest_pilotscope.errors import ServerError

_CHANGED_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def private_folder(folder: Path, mode: int = 0o700, *, gid: int = -1) -> Path:
    """Make a folder, and the parents that it lacks, with this mode and group; leave a folder that exists as it is. Return the folder."""
    if folder.is_dir():
        return folder
    if not folder.parent.exists():
        private_folder(folder.parent, mode)
    try:
        return new_folder(folder, mode, gid=gid)
    except FileExistsError:
        if folder.is_dir():  # another process was faster
            return folder
        raise


def new_folder(folder: Path, mode: int = 0o700, *, uid: int = -1, gid: int = -1) -> Path:
    """Make a folder with this mode and owner, set by descriptor: a link that was put there meanwhile is not followed. Return the folder."""
    folder.mkdir(0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
    return folder


def open_private(path: Path, mode: str, **options: Any) -> IO[Any]:
    """Open a file for writing, as `open` does, and close it to other accounts."""
    return open(path, mode, opener=private_descriptor, **options)


def write_private(path: Path, text: str) -> None:
    """Write a text in UTF-8 to a file that is closed to other accounts."""
    with open_private(path, "w", encoding="utf-8") as file:
        file.write(text)


def read_beginning(path: Path, size_bytes: int) -> bytes:
    """Return the first bytes of a file in a folder of somebody else; raise OSError for a link and anything else that is no file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        return os.read(descriptor, size_bytes)
    finally:
        os.close(descriptor)


def private_descriptor(path: str, flags: int) -> int:
    """Open a file as `os.open` does, close it to other accounts, whatever the umask, and return its descriptor."""
    descriptor = os.open(path, flags, 0o600)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        os.fchmod(descriptor, 0o600)
    return descriptor


def check_owned(path: Path, what: str) -> None:
    """
    Raise `ServerError` if somebody else owns a file or folder, or may change or replace it.

    Each parent must be closed to the writing of others, or sticky; the parents of root's files must belong to root.
    """
    problem = _problem(path)
    if problem:
        raise ServerError(f"the {what} {path} is not used: {problem}, or set PILOTSCOPE_CACHE to a folder of your own")


def is_owned(path: Path) -> bool:
    """Tell whether nobody else may change a path, or the nearest parent that exists."""
    while not path.exists():
        path = path.parent
    return not _problem(path)


def _problem(path: Path) -> str:
    status = path.stat()
    for owner in (path.lstat().st_uid, status.st_uid):  # of a link, too
        if owner != os.geteuid():
            return f"it belongs to {_name(owner)}, not to {_name(os.geteuid())}; delete it"
    if _others_may_change(status):
        return f"others may change it (mode {stat.S_IMODE(status.st_mode):04o}); run: chmod go-w {path}"
    for parent in dict.fromkeys((*path.absolute().parents, *path.resolve().parents)):
        status = parent.stat()
        if os.geteuid() == 0 and status.st_uid != 0:
            return f"its parent {parent} belongs to {_name(status.st_uid)}, not to root; run: chown root {parent}"
        if _others_may_change(status) and not status.st_mode & stat.S_ISVTX:
            return f"others may change its parent {parent} (mode {stat.S_IMODE(status.st_mode):04o}); run: chmod go-w {parent}"
    return ""


def _others_may_change(status: os.stat_result) -> bool:
    """Tell whether group or others may write; the group of an ordinary user that nobody else is in does not count."""
    writable = status.st_mode & _CHANGED_BY_OTHERS
    return bool(writable) and not (writable == stat.S_IWGRP and _is_own_group(status.st_gid))


def _is_own_group(gid: int) -> bool:
    """Tell whether a group is the private one that many systems, whose umask is 002, give to every user."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_uid != 0 and user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def _name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"

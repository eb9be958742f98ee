"""
The folders of prepared databases, copied binaries and running servers.

    <cache>/                     $PILOTSCOPE_CACHE, else $XDG_CACHE_HOME/pilotscope, else ~/.cache/pilotscope
        binaries/                PostgreSQL copied out of a folder that the server's account cannot enter (only as root)
        uid-<number>/templates/  loaded, analyzed and cleanly stopped data directories, one per key
        uid-<number>/servers/    data directories of running servers, removed with the server

Root runs its servers under another account, which cannot enter root's home. Then the cache is /var/cache/pilotscope.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.account import Account, server_account

SYSTEM_CACHE = Path("/var/cache/pilotscope")
"""The cache folder for root, because its servers cannot enter its home."""

SOCKET_PATH_LIMIT_BYTES = 103
"""Longest path of a unix socket, without the final zero, on every system: 107 on Linux, 103 on macOS and the BSDs."""


def cache_folder(account: Account | None = None) -> Path:
    """Return the root of the cache; make it if needed. Raise `ServerError` if it is not writable or servers cannot enter it."""
    account = account or server_account()
    chosen = os.environ.get("PILOTSCOPE_CACHE")
    if chosen:
        return _made(Path(chosen).expanduser().absolute(), account)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "pilotscope"
    return _made(folder if account.can_reach(folder) else SYSTEM_CACHE, account)


def server_folder(account: Account, kind: str) -> Path:
    """Return this account's folder of a `kind` ("templates" or "servers"); make it if needed."""
    own = cache_folder(account) / f"uid-{account.uid}"
    folder = own / kind
    for path in (own, folder):
        if not path.exists():
            path.mkdir(exist_ok=True)
            account.own(path)
    return folder


def socket_folder(account: Account) -> Path:
    """Make a private folder for a unix socket, with a short path and owned by `account`. The caller removes it."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    for base in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):  # noqa: S108 - a private folder is made in it
        if len(os.fsencode(base / f"pilotscope-{worker}-01234567/.s.PGSQL.5432")) > SOCKET_PATH_LIMIT_BYTES or not account.can_reach(base):
            continue
        folder = Path(tempfile.mkdtemp(prefix=f"pilotscope-{worker}-" if worker else "pilotscope-", dir=base))
        account.own(folder)
        return folder
    raise ServerError(
        f"no folder for a unix socket: {tempfile.gettempdir()} is too long or out of reach of uid {account.uid}; set TMPDIR to a short path"
    )


def _made(folder: Path, account: Account) -> Path:
    try:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            if account.dropped:
                folder.chmod(0o755)  # whatever root's umask says, its servers have to enter
    except OSError as error:
        raise ServerError(
            f"cannot make the cache folder {folder}: {error.strerror}; set PILOTSCOPE_CACHE to a folder that can be written"
        ) from error
    status = folder.stat()
    if status.st_uid != os.geteuid() and not status.st_mode & stat.S_ISVTX and status.st_mode & stat.S_IWOTH:
        raise ServerError(f"the cache folder {folder} can be changed by everybody; set PILOTSCOPE_CACHE to a folder of your own")
    if not account.can_reach(folder):
        raise ServerError(
            f"the cache folder {folder} is out of reach of uid {account.uid}, which PostgreSQL runs as; "
            "set PILOTSCOPE_CACHE to a folder whose parents everybody may enter"
        )
    return folder

"""
The folders of prepared databases, copied binaries and running servers.

    <cache>/                     $PILOTSCOPE_CACHE, else $XDG_CACHE_HOME/pilotscope, else ~/.cache/pilotscope
        binaries/                PostgreSQL copied out of a folder that the server's account cannot enter (only as root)
        uid-<number>/templates/  loaded, analyzed and cleanly stopped data directories, one per key
        uid-<number>/servers/    data directories of running servers, removed with the server

Root runs its servers under another account, which cannot enter root's home. Then the cache is /var/cache/pilotscope, and `uid-<number>` has
`-of-root` appended: all folders are root's, and the other account may enter them. It owns data directories and folders of sockets, and root
writes nothing into those.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.account import Account, server_account
from pytest_pilotscope.places.privatefiles import check_owned, is_owned, private_folder

SYSTEM_CACHE = Path("/var/cache/pilotscope")
"""The cache folder for root, because its servers cannot enter its home."""

SOCKET_PATH_LIMIT_BYTES = 103
"""Longest path of a unix socket, without the final zero, on every system: 107 on Linux, 103 on macOS and the BSDs."""


SOCKETS = "pilotscope-"
"""The names of folders of sockets begin with this."""


def cache_folder(account: Account | None = None) -> Path:
    """
    Return the root of the cache; make it if needed.

    Raise `ServerError` if it is not writable, if somebody else owns it or may change it, or if servers cannot enter it.
    """
    account = account or server_account()
    chosen = os.environ.get("PILOTSCOPE_CACHE")
    if chosen:
        return _made(Path(chosen).expanduser().absolute(), account)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "pilotscope"
    return _made(SYSTEM_CACHE if account.dropped and not (account.can_reach(folder) and is_owned(folder)) else folder, account)


def cache_subfolder(kind: str) -> Path:
    """Return the folder of the cache for one kind of entries, which may be missing. Raise `ServerError` as `cache_folder` does."""
    folder = cache_folder() / kind
    if folder.exists():
        check_owned(folder, "cache folder")
    return folder


def server_folder(account: Account, kind: str) -> Path:
    """Return the folder of a `kind` ("templates" or "servers") for servers of this account; make it if needed."""
    own = cache_folder(account) / f"uid-{account.uid}{'-of-root' if account.dropped else ''}"
    for folder in (own, own / kind):
        private_folder(folder, account.entered_mode, gid=account.gid)
        check_owned(folder, "cache folder")
    return own / kind


def socket_folder(account: Account) -> Path:
    """Return a short path for the private folder of a unix socket, which is yet to be made."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    name = SOCKETS + "-".join(part for part in (worker, secrets.token_hex(4)) if part)
    for base in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):  # noqa: S108 - a private folder is made in it
        if len(os.fsencode(base / name / ".s.PGSQL.5432")) <= SOCKET_PATH_LIMIT_BYTES and account.can_reach(base):
            return base / name
    raise ServerError(
        f"no folder for a unix socket: {tempfile.gettempdir()} is too long or out of reach of uid {account.uid}; set TMPDIR to a short path"
    )


def _made(folder: Path, account: Account) -> Path:
    try:
        private_folder(folder, 0o711 if account.dropped else 0o700)  # whatever root's umask says, its servers have to enter
    except OSError as error:
        raise ServerError(
            f"cannot make the cache folder {folder}: {error.strerror}; set PILOTSCOPE_CACHE to a folder that can be written"
        ) from error
    check_owned(folder, "cache folder")
    if not account.can_reach(folder):
        raise ServerError(
            f"the cache folder {folder} is out of reach of uid {account.uid}, which PostgreSQL runs as; "
            "set PILOTSCOPE_CACHE to a folder whose parents everybody may enter"
        )
    return folder

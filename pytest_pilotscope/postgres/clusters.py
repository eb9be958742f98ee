"""Make, copy and remove data directories on disk, always by the account that the server runs as."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.account import Account
from pytest_pilotscope.places.folders import SOCKETS, server_folder, socket_folder
from pytest_pilotscope.places.privatefiles import new_folder, read_beginning, write_private
from pytest_pilotscope.postgres.binaries import Binaries
from pytest_pilotscope.postgres.largefiles import LARGE
from pytest_pilotscope.postgres.process import Watchdog, run_program

logger = logging.getLogger(__name__)

SUPERUSER = "postgres"
"""Name of the superuser in every cluster made here."""


def make_cluster(binaries: Binaries, data_folder: Path, account: Account) -> None:
    """Make an empty cluster in UTF-8 with the locale C.UTF-8, or C where the system has no such locale."""
    _made(data_folder, account)
    common: list[str | Path] = [
        binaries.bindir / "initdb",
        "-D",
        data_folder,
        "-U",
        SUPERUSER,
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-sync",
        "--no-instructions",
    ]
    try:
        run_program([*common, "--locale=C.UTF-8"], account, data_folder.parent)
    except ServerError as error:
        if "invalid locale" not in str(error):
            raise
        run_program([*common, "--locale=C"], account, data_folder.parent)


def copy_cluster(source: Path, target: Path, account: Account, *, in_place: bool = False) -> None:
    """
    Copy a stopped cluster; the files share their blocks where the file system can do that.

    `in_place`, make hard links of its large files, for which the caller needs their lock; copy them if there cannot be links.
    """
    _made(target, account)
    _copy(source, target, account)
    large = source.with_name(LARGE)
    if large.is_dir() and not (in_place and _linked(large, target / "base", account)):
        _copy(large, target / "base", account)


def _linked(source: Path, target: Path, account: Account) -> bool:
    """Make hard links of all files in a folder, or say why there cannot be any, and return False."""
    try:
        run_program(["cp", "-al", f"{source}/.", target], account, target)
    except ServerError as error:
        logger.info("the files of %s are copied, because they cannot be used where they are: %s", source, error)
        return False
    return True


def _copy(source: Path, target: Path, account: Account) -> None:
    """Copy all in a folder to another; a file with two names becomes two files."""
    options = ["-cpR"] if sys.platform == "darwin" else ["-a", "--reflink=auto", "--no-preserve=links", "--remove-destination"]
    try:
        run_program(["cp", *options, f"{source}/.", target], account, target.parent)
    except ServerError:
        if sys.platform != "darwin" and shutil.which("cp") is None:
            raise
        run_program(["cp", "-pR", f"{source}/.", target], account, target.parent)  # a cp without those options


def _made(data_folder: Path, account: Account) -> Path:
    """Make an empty data directory, the only folder that the account owns: whatever it puts there, we write nothing through it."""
    return new_folder(data_folder, uid=account.uid, gid=account.gid)


def check_version(data_folder: Path, binaries: Binaries) -> None:
    """Raise ServerError when the cluster in `data_folder` was made by another major version, or when there is none."""
    try:
        found = read_beginning(data_folder / "PG_VERSION", 16).decode(errors="replace").strip()
    except OSError as error:
        raise ServerError(f"{data_folder} is not a PostgreSQL data directory: it has no PG_VERSION") from error
    if found != str(binaries.major):
        raise ServerError(
            f"the data directory {data_folder} is of PostgreSQL {found}, but the binaries in {binaries.bindir} are {binaries.version}; "
            f"delete it, or choose binaries of that version with --pg-version {found}"
        )


class ServerFolder:
    """
    The private folder of one running server, with a lock that is held as long as its watchdog lives.

    It holds `data/`, which the server's account owns, and `postgresql.conf`, `server.log`, `lib/`, `lock` and `sockets`, which we do; the
    last one names the folder of the socket. Folders whose lock nobody holds are leftovers, of runs whose watchdog was killed as well; each
    new server removes them. A lock on the parent folder lets one process at a time create or remove folders.
    """

    def __init__(self, account: Account, process: Watchdog) -> None:
        base = server_folder(account, "servers")
        with _locked(base):
            _remove_leftovers(base)
            folder = base / f"server-{secrets.token_hex(4)}"
            self.path = process.make(folder, mode=account.entered_mode, gid=account.gid, lock=True)
        self.sockets = socket_folder(account)
        write_private(self.path / "sockets", str(self.sockets))
        process.make(self.sockets, uid=account.uid, gid=account.gid)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.path / "data"

    @property
    def log(self) -> Path:
        """The server's standard error."""
        return self.path / "server.log"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_leftovers(base: Path) -> None:
    for folder in base.glob("server-*"):
        try:
            lock = os.open(folder / "lock", os.O_RDWR)
        except FileNotFoundError:  # killed before it had one, or being removed
            shutil.rmtree(folder, ignore_errors=True)
            continue
        except PermissionError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                sockets = Path((folder / "sockets").read_text())
                if sockets.name.startswith(SOCKETS):  # a power cut may have left half of the name
                    shutil.rmtree(sockets, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass  # somebody's running server
        finally:
            os.close(lock)

"""Make, copy and remove data directories on disk, always by the account that the server runs as."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.account import Account
from pytest_pilotscope.places.folders import server_folder
from pytest_pilotscope.postgres.binaries import Binaries
from pytest_pilotscope.postgres.process import clean_environment

SUPERUSER = "postgres"
"""Name of the superuser in every cluster made here."""


def run_program(arguments: list[str | Path], account: Account, folder: Path) -> None:
    """Run one program as `account` in `folder`; raise ServerError with its message when it fails, OSError ENOSPC when the disk is full."""
    try:
        answer = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            check=False,
            env=clean_environment(),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            **account.subprocess_options(),
        )
    except FileNotFoundError as error:
        if error.filename != str(arguments[0]):  # it is the folder that is not there
            raise
        program = str(arguments[0])
        raise ServerError(f"there is no program {program!r}, which is needed to make a cluster; install it, or add it to PATH") from error
    if answer.returncode != 0:
        if os.strerror(errno.ENOSPC) in answer.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        words = " ".join((answer.stderr or answer.stdout).split())
        raise ServerError(f"{Path(arguments[0]).name} failed with exit status {answer.returncode}: {words}")


def make_cluster(binaries: Binaries, data_folder: Path, account: Account) -> None:
    """Make an empty cluster in UTF-8 with the locale C.UTF-8, or C where the system has no such locale."""
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


def copy_cluster(source: Path, target: Path, account: Account) -> None:
    """Copy a stopped cluster; the files share their blocks where the file system can do that."""
    options = ["-cpR"] if sys.platform == "darwin" else ["-a", "--reflink=auto"]
    try:
        run_program(["cp", *options, source, target], account, target.parent)
    except ServerError:
        if sys.platform != "darwin" and shutil.which("cp") is None:
            raise
        shutil.rmtree(target, ignore_errors=True)
        run_program(["cp", "-pR", source, target], account, target.parent)  # a cp without those options


def check_version(data_folder: Path, binaries: Binaries) -> None:
    """Raise ServerError when the cluster in `data_folder` was made by another major version, or when there is none."""
    marker = data_folder / "PG_VERSION"
    if not marker.is_file():
        raise ServerError(f"{data_folder} is not a PostgreSQL data directory: it has no PG_VERSION")
    found = marker.read_text().strip()
    if found != str(binaries.major):
        raise ServerError(
            f"the data directory {data_folder} is of PostgreSQL {found}, but the binaries in {binaries.bindir} are {binaries.version}; "
            f"delete it, or choose binaries of that version with --pg-version {found}"
        )


class ServerFolder:
    """
    The private folder of one running server, with a lock that is held as long as its owner or its watchdog lives.

    It holds `data/`, `server.log`, `lib/` and `lock`. Folders whose lock nobody holds are leftovers of killed runs; each new server removes
    them. A lock on the parent folder lets one process at a time create or remove folders.
    """

    def __init__(self, account: Account) -> None:
        base = server_folder(account, "servers")
        with _locked(base):
            _remove_leftovers(base)
            self.path = Path(tempfile.mkdtemp(prefix="server-", dir=base))
            self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        account.own(self.path)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.path / "data"

    @property
    def log(self) -> Path:
        """The server's standard error."""
        return self.path / "server.log"

    def remove(self) -> None:
        """Delete the folder and release its lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


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
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass  # somebody's running server
        finally:
            os.close(lock)

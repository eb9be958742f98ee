"""Run PostgreSQL's programs under a watchdog, which ends them and deletes their folders when this process is killed."""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import CannotConnect, ServerError
from pytest_pilotscope.places.account import Account
from pytest_pilotscope.places.environment import clean_environment
from pytest_pilotscope.postgres import watchdog

if TYPE_CHECKING:
    from typing_extensions import Self

START_LIMIT_S = 60.0
"""Time limit for a server to answer; a cleanly stopped one needs about 0.1 s."""
STOP_LIMIT_S = 60.0
"""Time limit of a fast shutdown; an immediate one follows."""
_POLL_S = 0.01
_LOG_LINES = 20

logger = logging.getLogger(__name__)


def log_tail(log: Path) -> str:
    """Return the last lines of a server log, indented, for the end of an error message."""
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else []
    return "".join(f"\n    {line}" for line in lines) or " (the log is empty)"


class Watchdog:
    """
    A process that makes folders and runs one program at a time, and undoes both at the end of this process or of the block.

    `holding` are descriptors of locks that it and its programs keep as well. A program that runs as another account is started by `user`.
    """

    def __init__(self, holding: Sequence[int] = ()) -> None:
        self._folders: list[Path] = []
        self._holding = list(holding)
        self._received = b""
        self._number = self._started = 0
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean_environment(),
            cwd="/",
            pass_fds=holding,
            start_new_session=True,  # Ctrl-C on the terminal reaches only this process, which decides when the server stops
            bufsize=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """The process id of the watchdog."""
        return self._process.pid

    def make(self, folder: Path, *, mode: int = 0o700, uid: int = -1, gid: int = -1, lock: bool = False) -> Path:
        """Make a folder that is deleted at the end, with a locked file `lock` in it if asked for; return the folder."""
        self._ask({"make": str(folder), "mode": mode, "uid": uid, "gid": gid, "lock": lock})
        self._folders.append(folder)
        return folder

    def start(self, arguments: Sequence[str | Path], account: Account, folder: Path, log: Path | None = None) -> int:
        """Start a program as `account` in `folder`; return its process id. Raise OSError, with a file name, when that fails."""
        user = [account.uid, account.gid] if account.dropped else None
        request = {"run": list(map(str, arguments)), "user": user, "in": str(folder), "log": log and str(log), "holding": self._holding}
        reply = self._ask(request)
        self._started = self._number
        return int(reply["pid"])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program."""
        self._send({"signal": number.name})

    def ended(self, limit_s: float | None = None) -> dict[str, Any] | None:
        """Wait for the end of the program; return its `status` and `output`, or None when the time limit has passed."""
        return self._receive(self._started, limit_s)

    def end(self) -> None:
        """End the program, delete the folders and the process; twice is fine."""
        if self._process.poll() is None:
            self._send({"end": True})
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()
        for folder in self._folders:  # where somebody killed the watchdog
            shutil.rmtree(folder, ignore_errors=True)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._send(request)
        reply = self._receive(self._number, None) or {}
        if "error" in reply:
            number, path = reply["error"]
            raise OSError(number, os.strerror(number), path)
        return reply

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None  # noqa: S101  # it is a pipe
        self._number += 1
        try:
            self._process.stdin.write(json.dumps({"number": self._number, **request}).encode() + b"\n")
        except BrokenPipeError:
            self._process.wait()

    def _receive(self, number: int, limit_s: float | None) -> dict[str, Any] | None:
        """Return the next reply to a request, or None when the time limit has passed; drop those that an interrupt kept us from reading."""
        deadline_s = time.monotonic() + limit_s if limit_s is not None else None
        while True:
            line, newline, rest = self._received.partition(b"\n")
            if newline:
                self._received = rest
                reply: dict[str, Any] = json.loads(line)
                if reply["number"] == number:
                    return reply
            elif not self._read(deadline_s):
                return None

    def _read(self, deadline_s: float | None) -> bool:
        assert self._process.stdout is not None  # noqa: S101  # it is a pipe
        left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        if not select.select([self._process.stdout], [], [], left_s)[0]:
            return False
        piece = os.read(self._process.stdout.fileno(), 1 << 16)
        if not piece:
            raise ServerError("the watchdog process was killed, and with it what it watched; start again")
        self._received += piece
        return True


@contextmanager
def temporary_folder(parent: Path | None = None, prefix: str = "pilotscope-") -> Iterator[Path]:
    """Make a private folder, by default in the system's folder for such, and delete it at the end of the block or of this process."""
    with Watchdog() as process:
        yield process.make((parent or Path(tempfile.gettempdir())) / f"{prefix}{secrets.token_hex(4)}")


def run_program(arguments: Sequence[str | Path], account: Account, folder: Path) -> None:
    """
    Run one program as `account` in `folder`; it ends when this process does.

    Raise ServerError with its message when it fails, OSError ENOSPC when the disk is full.
    """
    with Watchdog() as process:
        try:
            process.start(arguments, account, folder)
        except OSError as error:
            program = str(arguments[0])
            if error.filename != program:  # it is the folder that is not there
                raise
            if isinstance(error, FileNotFoundError):
                reason = f"there is no program {program!r}, which is needed to make a cluster; install it, or add it to PATH"
            else:
                reason = f"the program {program!r} cannot be run ({error.strerror}); mend it, or choose another build with --pg-bindir"
            raise ServerError(reason) from error
        answer = process.ended() or {}
    if answer["status"] != 0:
        if os.strerror(errno.ENOSPC) in answer["output"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        raise ServerError(f"{Path(arguments[0]).name} failed with exit status {answer['status']}: {' '.join(answer['output'].split())}")


class Postmaster:
    """A `postgres` process under a watchdog."""

    def __init__(self, process: Watchdog, command: Sequence[str | Path], *, log: Path, account: Account) -> None:
        self._process = process
        self._log = log
        self._status: int | None = None
        self.pid = process.start(command, account, log.parent, log)

    @property
    def running(self) -> bool:
        """True while the process runs."""
        return not self._ended(0)

    def wait_until_ready(self, ask: Callable[[], None]) -> None:
        """
        Call `ask` until it raises no ServerError; a CannotConnect ends that at once.

        Raise ServerError with the end of the log when the server dies, refuses us, or does not answer in time.
        """
        deadline_s = time.monotonic() + START_LIMIT_S
        while self.running:
            try:
                return ask()
            except CannotConnect as error:
                raise self._given_up(f"runs, but cannot be used: {error}") from error
            except ServerError as error:
                if time.monotonic() > deadline_s:
                    raise self._given_up(f"did not answer within {START_LIMIT_S:.0f} s: {error}") from error
            time.sleep(_POLL_S)
        raise ServerError(f"PostgreSQL stopped while starting (exit status {self._status}); its log ends with:{log_tail(self._log)}")

    def _given_up(self, why: str) -> ServerError:
        self.stop(fast=False)
        return ServerError(f"PostgreSQL {why}; its log ends with:{log_tail(self._log)}")

    def stop(self, *, fast: bool = True) -> None:
        """Shut down fast (cleanly, clients are disconnected), or immediately when that takes too long or `fast` is false."""
        if fast and self.running:
            self._process.signal(signal.SIGINT)
            if not self._ended(STOP_LIMIT_S):
                logger.warning("PostgreSQL did not stop within %.0f s; stopping it at once", STOP_LIMIT_S)
        if self.running:
            self._process.signal(signal.SIGQUIT)
            self._ended(STOP_LIMIT_S)

    def _ended(self, limit_s: float) -> bool:
        if self._status is None and (end := self._process.ended(limit_s)) is not None:
            self._status = end["status"]
        return self._status is not None

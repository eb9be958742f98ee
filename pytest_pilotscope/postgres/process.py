"""Start `postgres` in the foreground under its watchdog, wait until it answers, and stop it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_pilotscope.errors import CannotConnect, ServerError
from pytest_pilotscope.places.account import Account
from pytest_pilotscope.postgres import watchdog

START_LIMIT_S = 60.0
"""Time limit for a server to answer; a cleanly stopped one needs about 0.1 s."""
STOP_LIMIT_S = 60.0
"""Time limit of a fast shutdown; an immediate one follows."""
_POLL_S = 0.01
_LOG_LINES = 20

logger = logging.getLogger(__name__)


def clean_environment() -> dict[str, str]:
    """Return the environment for PostgreSQL's programs: without PG* variables, which they would obey, and with messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}


def log_tail(log: Path) -> str:
    """Return the last lines of a server log, indented, for the end of an error message."""
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else []
    return "".join(f"\n    {line}" for line in lines) or " (the log is empty)"


class Postmaster:
    """A `postgres` process and its watchdog."""

    def __init__(self, *, program: Path, data_folder: Path, log: Path, account: Account, remove: Sequence[Path]) -> None:
        self._log = log
        specification = {
            "command": [str(program), "-D", str(data_folder)],
            "user": [account.uid, account.gid] if account.dropped else None,
            "remove": [str(folder) for folder in remove],
        }
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", watchdog.__file__, json.dumps(specification)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=clean_environment(),
                cwd=data_folder.parent,
                start_new_session=True,  # Ctrl-C on the terminal reaches only this process, which decides when the server stops
            )

    @property
    def running(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

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
        self.stop()
        raise ServerError(
            f"PostgreSQL stopped while starting (exit status {self._process.returncode}); its log ends with:{log_tail(self._log)}"
        )

    def _given_up(self, why: str) -> ServerError:
        self.stop(fast=False)
        return ServerError(f"PostgreSQL {why}; its log ends with:{log_tail(self._log)}")

    def stop(self, *, fast: bool = True) -> None:
        """Shut down fast (cleanly, clients are disconnected), or immediately when that takes too long or `fast` is false."""
        if fast and not self._ask(b"f"):
            logger.warning("PostgreSQL did not stop within %.0f s; stopping it at once", STOP_LIMIT_S)
        if self.running:
            self._ask(b"i")
        self._leave()

    def end(self) -> None:
        """Shut down immediately and for good: the watchdog deletes the folders, even when this process is killed meanwhile."""
        self._ask(b"e")
        self._leave()

    def _leave(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _ask(self, shutdown: bytes) -> bool:
        """Send one request to the watchdog; tell whether the server ended in time."""
        if self.running and self._process.stdin is not None:
            try:
                os.write(self._process.stdin.fileno(), shutdown)
                self._process.wait(STOP_LIMIT_S)
            except BrokenPipeError:
                self._process.wait()
            except subprocess.TimeoutExpired:
                return False
        return True

"""A measurement as a process of its own that stops where the test wants it to, and everything that it leaves."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pytest_pilotscope.record.record import Record, read_record
from tests.projects import BENCHMARK

REPOSITORY = Path(__file__).resolve().parents[2]
STOPS = Path(__file__).parent / "stops"
LIMIT_S = 100.0
"""No cell needs more than a few seconds; this is only for a machine that does much else."""
CONFTEST = "from tests.faults.algorithm import pytest_pilotscope_register\n"
HIDDEN = ("PG", "PYTEST", "MLFLOW", "PILOTSCOPE", "DOCKER", "PYTHON", "COV")
"""Beginnings of the variables that a program does not inherit from the tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The exit code of a program (minus the signal's number if one ended it) and all it wrote to its terminal."""

    code: int
    output: str

    @property
    def lines(self) -> list[str]:
        """The lines of the output without pytest's short summary, which repeats the reason of every failed test."""
        return [line for line in self.output.splitlines() if not line.startswith(("FAILED ", "ERROR test", "SUBFAILED"))]


class Project:
    """An empty project in `folder` with a tracking store, and folders of its own for temporary files and the cache."""

    def __init__(self, folder: Path, *, store: Path, cache: Path, temporary: Path) -> None:
        self.folder = folder
        self.cache = cache
        self.temporary = temporary
        (folder / "test_workload.py").write_text(BENCHMARK, encoding="utf-8")
        (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
        shutil.copy(store, folder / "mlflow.db")

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of its programs: nothing of ours, no variable of PostgreSQL, and folders of its own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
        places = {"PILOTSCOPE_CACHE": str(self.cache), "TMPDIR": str(self.temporary), "PYTHONPATH": f"{STOPS}{os.pathsep}{REPOSITORY}"}
        return {**kept, **places, **more}

    def records(self) -> list[Record]:
        """Return every record."""
        return [read_record(path) for path in sorted(self.folder.glob("*/*.jsonl"))]

    def statuses(self) -> list[str]:
        """Return the status of every run in the tracking store."""
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as store:
            return [status for (status,) in store.execute("SELECT status FROM runs ORDER BY start_time")]


class Program:
    """
    A running program; a context manager that kills it if the block raises.

    `at` waits for its next stop, `go_on` lets it continue there, `end` waits for its end.
    """

    def __init__(self, project: Project, command: Sequence[str], *, stops: Sequence[str] = (), environment: Mapping[str, str]) -> None:
        self.pid = 0
        self._stopped: socket.socket | None = None
        self._kept: socket.socket | None = None
        self._path = project.temporary.parent / "stop"
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self._path))
        self._socket.listen()
        told = {"PILOTSCOPE_TEST_STOPS": ",".join(stops), "PILOTSCOPE_TEST_SOCKET": str(self._path)}
        self._output = (project.folder / "output.txt").open("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=project.folder,
            env=project.environment({**told, **environment}),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for connection in (self._stopped, self._kept):
            if connection is not None:
                connection.close()
        self._output.close()

    def at(self, number: int) -> int:
        """Wait until a process is at the stop, and return its process id; let processes go on that are at another one."""
        for _ in range(int(LIMIT_S)):
            if not select.select([self._socket], [], [], 1.0)[0]:
                assert self.process.poll() is None, f"it ended before stop {number}:\n{self.text()}"
                continue
            connection, _address = self._socket.accept()
            found, pid = connection.recv(64).split()
            if int(found) == number:
                self._stopped, self.pid = connection, int(pid)
                return self.pid
            connection.close()
        raise AssertionError(f"stop {number} was not reached within {LIMIT_S:.0f} s:\n{self.text()}")

    def keep(self) -> None:
        """Leave the process at the stop for as long as it lives; `go_on` has no effect on it."""
        self._kept, self._stopped = self._stopped, None

    def fail(self) -> None:
        """Let the function raise that the process stopped before."""
        assert self._stopped is not None
        self._stopped.sendall(b"!")

    def go_on(self) -> None:
        """Let the process at the stop continue."""
        if self._stopped is not None:
            self._stopped.close()
            self._stopped = None

    def end(self, limit_s: float = LIMIT_S) -> Ended:
        """Wait for the end; fail with the output if it does not come."""
        self._socket.close()  # nobody waits at a stop any more
        self._path.unlink(missing_ok=True)
        try:
            code = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            raise AssertionError(f"it did not end within {limit_s:.0f} s:\n{self.text()}") from None
        return Ended(code=code, output=self.text())

    def text(self) -> str:
        """Return all that it wrote until now."""
        self._output.seek(0)
        return self._output.read()

"""
The process between its starter and PostgreSQL's programs: it never outlives its starter, and neither programs nor folders outlive it.

Run as a script with `python -I -S watchdog.py`, standard library only. Requests come on its standard input, replies go to its standard
output, each a line of JSON:

    {"make": folder, "mode": ..., "uid": ..., "gid": ..., "lock": true}   make a folder, to be deleted at the end -> {}
    {"run": [program, ...], "user": [uid, gid] or null, "in": folder, "log": file or null, "holding": [descriptor, ...]}
                                                                           start a program -> {"pid": ...}, later {"status", "output"}
    {"signal": "SIGINT"}                                                   send a signal to the program; no reply
    {"end": true}                                                          end the program, delete the folders, and leave

A program keeps the descriptors that it is "holding", those of locks: a process of PostgreSQL that outlives all others still has them.

Each request has a "number", which its replies repeat. One that fails has the reply {"error": [errno, path]}. The end of its input (every
copy of the other end is closed) or the death of the starting process (Linux, also while a forked child still holds the pipe) counts as
"end": the starter was killed. The watchdog makes the folders itself, so none is ever without it; a "lock" is a file in the folder that is
locked as long as this process lives.

The other direction is PR_SET_PDEATHSIG on Linux: the program is killed when the watchdog is. It is set here because it belongs to the
*thread* that forks, is cleared by a change of user, and this process has one thread only.

The watchdog sleeps in select(): it costs nothing while something is measured.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import IO, Any

_PR_SET_PDEATHSIG = 1
_DELETE_LIMIT_S = 20.0


class _Watchdog:
    """The program, if one runs, and the folders to delete."""

    def __init__(self) -> None:
        self._folders: list[str] = []
        self._number = 0
        self._program: subprocess.Popen[bytes] | None = None
        self._output: tuple[IO[bytes], ...] = ()  # standard error and standard output; none of a server, which has a log
        self._dies_with_us = _dies_with_watchdog()

    def serve(self) -> None:
        """Answer requests until the end."""
        ended, woken = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(ended, False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # whoever signals all processes of a job signals the starter, too: its death ends us
        signal.set_wakeup_fd(woken)
        watched = [ended, 0, *_death_of_parent()]
        requests = _lines(0)
        while True:
            ready = select.select(watched, [], [])[0]
            if ended in ready:
                with suppress(BlockingIOError):
                    os.read(ended, 1024)
                self._report_end()
            elif ready:
                request = next(requests, None) if 0 in ready else None
                if request is None or "end" in request:
                    return
                self._answer(request)

    def end(self) -> None:
        """End the program and delete the folders."""
        self._end_program()
        deadline_s = time.monotonic() + _DELETE_LIMIT_S
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
            while os.path.lexists(folder) and time.monotonic() < deadline_s:  # a program of another watchdog is about to be ended
                time.sleep(0.02)
                shutil.rmtree(folder, ignore_errors=True)

    def _end_program(self) -> None:
        if self._program is None:
            return
        with suppress(ProcessLookupError):
            if self._output:
                os.killpg(self._program.pid, signal.SIGKILL)
            else:  # a server; its immediate shutdown ends its children and frees its shared memory
                self._program.send_signal(signal.SIGQUIT)
        self._program.wait()
        self._program = None

    def _answer(self, request: dict[str, Any]) -> None:
        number = request["number"]
        try:
            if "make" in request:
                self._make(request)
                _say(number, {})
            elif "run" in request:
                self._end_program()  # of a request whose reply nobody waited for
                self._number = number
                _say(number, {"pid": self._run(request)})
            elif self._program is not None:
                self._program.send_signal(signal.Signals[request["signal"]])
        except OSError as error:
            _say(number, {"error": [error.errno, error.filename]})

    def _make(self, request: dict[str, Any]) -> None:
        folder = request["make"]
        os.mkdir(folder, 0o700)
        self._folders.append(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        if request["lock"]:
            lock = os.open("lock", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600, dir_fd=descriptor)
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.fchown(descriptor, request["uid"], request["gid"])
        os.fchmod(descriptor, request["mode"])
        os.close(descriptor)

    def _run(self, request: dict[str, Any]) -> int:
        user = request["user"]
        options = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
        with ExitStack() as stack:
            if request["log"]:
                log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
                stack.callback(os.close, log)
                self._output = ()
            else:
                log = None
                self._output = (tempfile.TemporaryFile(), tempfile.TemporaryFile())  # noqa: SIM115  # closed in _report_end
            errors, output = self._output or (log, log)
            self._program = subprocess.Popen(
                request["run"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=request["in"],
                preexec_fn=self._dies_with_us,  # one thread, so running Python between fork and exec is safe here
                start_new_session=True,
                pass_fds=request["holding"],
                **options,
            )
        return self._program.pid

    def _report_end(self) -> None:
        if self._program is None or self._program.poll() is None:
            return
        code, texts = self._program.returncode, []
        for file in self._output:
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        self._program = None
        _say(self._number, {"status": code if code >= 0 else 128 - code, "output": next(filter(None, texts), "")})


def _lines(descriptor: int) -> Iterator[dict[str, Any]]:
    """Yield the requests; read no further than the one that is asked for, so that select() sees the next."""
    while True:
        line = b""
        while not line.endswith(b"\n"):
            piece = os.read(descriptor, 1)
            if not piece:
                return
            line += piece
        yield json.loads(line)


def _say(number: int, reply: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):  # the starter was killed; its death ends us
        os.write(1, json.dumps({"number": number, **reply}).encode() + b"\n")


def _death_of_parent() -> list[int]:
    """Return a descriptor that becomes readable when the starting process is dead, where the system has one."""
    try:
        return [os.pidfd_open(os.getppid())]
    except (AttributeError, OSError):
        return []


def _dies_with_watchdog() -> Callable[[], None] | None:
    """Return a function for a program's process to call before it starts: it asks the kernel to kill the process with the watchdog."""
    if sys.platform != "linux":
        return None
    libc, watchdog = ctypes.CDLL(None), os.getpid()

    def ask() -> None:
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT) or os.getppid() != watchdog:
            os._exit(126)

    return ask


if __name__ == "__main__":
    started = _Watchdog()
    try:
        started.serve()
    finally:
        started.end()

"""
An end for code that does not stop: it does not return to the interpreter, so that no limit, Ctrl-C or SIGTERM has an effect, or it
swallows them.

The interpreter writes the number of an arriving signal to a pipe (`signal.set_wakeup_fd`) whatever the code does. Another process
(`hangwatch.py`) reads it. If the code is still at work some time later, that process says so on the terminal, and at last ends this one by
SIGQUIT, which here means `_exit(3)`. It sleeps as long as no signal arrives.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic

from pytest_pilotscope.places.environment import clean_environment

_NOTE_BYTES = 1000
_numbers = count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watch:
    """The pipe to the other process, and the file in which it reads what is at work."""

    pipe: int
    note: int


_watch: _Watch | None = None


@contextmanager
def hangs_end(terminal: int) -> Iterator[None]:
    """Let another process speak on a terminal, and end this one with exit code 3, when `at_work` does not stop within the block."""
    global _watch
    reader, pipe = os.pipe()
    os.set_blocking(pipe, False)
    script = str(Path(__file__).with_name("hangwatch.py"))
    with tempfile.TemporaryFile() as note:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", script, str(note.fileno())],
            stdin=reader,
            stdout=terminal,
            env=clean_environment(),
            pass_fds=[note.fileno()],
            start_new_session=True,
        )
        os.close(reader)
        _watch = _Watch(pipe=pipe, note=note.fileno())
        before = _quits_by(ctypes.cast(ctypes.CDLL(None)._exit, ctypes.c_void_p).value)
        try:
            yield
        finally:
            _watch = None
            _quits_by(before)
            os.close(pipe)
            process.terminate()  # a forked child may hold the pipe
            process.wait()


def _quits_by(handler: int | None) -> int | None:
    """Let SIGQUIT (3) call a function of C with its number, without the interpreter; return the function that it called before."""
    call = ctypes.CDLL(None).signal
    call.argtypes, call.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    before: int | None = call(signal.SIGQUIT, handler)
    return before


def begin(doing: str, limit_s: float) -> int | None:
    """Note what is at work, and let signals be told to the other process; return what `end` needs."""
    if _watch is None:
        return None
    told = json.dumps({"number": next(_numbers), "doing": doing[:200], "limit_s": limit_s, "until_s": monotonic() + limit_s})
    os.pwrite(_watch.note, told.encode().ljust(_NOTE_BYTES), 0)
    return signal.set_wakeup_fd(_watch.pipe, warn_on_full_buffer=False)


def alarm() -> None:
    """Tell the other process that a limit is over; it does not learn of signals that arrive during a statement (`interrupts`)."""
    if _watch is not None:
        with suppress(BlockingIOError):
            os.write(_watch.pipe, bytes([signal.SIGALRM]))


def end(previous: int | None) -> None:
    """Note that nothing is at work."""
    if previous is not None and _watch is not None:
        signal.set_wakeup_fd(previous)
        os.pwrite(_watch.note, b"null".ljust(_NOTE_BYTES), 0)

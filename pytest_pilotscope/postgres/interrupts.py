"""
Let Ctrl-C, the other signals that end a run, and a timer end a running statement.

The driver waits inside libpq, where Python's signal handlers do not run, so without help KeyboardInterrupt would be raised when the
statement has ended by itself, which for a bad plan is never. While a statement runs in the main thread, the interpreter writes the number
of an arriving signal to a socket (`signal.set_wakeup_fd`); a thread reads it and asks the server to cancel the statement. The statement
then ends with an error and Python raises KeyboardInterrupt as usual. Nothing global of the driver is touched (a wait callback would
forbid COPY everywhere).
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from pytest_pilotscope.postgres.signals import SIGNALS, interrupts_wait


class Cancellable(Protocol):
    """An object that another thread can tell to stop; psycopg2's connection is one."""

    def cancel(self) -> None:
        """Ask the server to end the running statement."""


class _Watcher:
    """One thread per process, asleep on a socket until a signal arrives."""

    def __init__(self) -> None:
        self.running: Cancellable | None = None
        self._reader, self.writer = socket.socketpair()
        self.writer.setblocking(False)
        threading.Thread(target=self._watch, name="pilotscope-interrupts", daemon=True).start()

    def _watch(self) -> None:
        while number := self._reader.recv(1):
            running = self.running
            if running is not None and (number[0] == signal.SIGALRM or (number[0] in SIGNALS and not interrupts_wait())):
                with suppress(Exception):  # the server is gone or does not answer: the next signal is as good as the first
                    running.cancel()


_watcher: _Watcher | None = None


@contextmanager
def cancelled_by_interrupt(connection: Cancellable) -> Iterator[None]:
    """Let an interrupt, and SIGALRM (`timelimit`), cancel the statement of `connection` within the block; do nothing in other threads."""
    global _watcher
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if _watcher is None:
        _watcher = _Watcher()
    _watcher.running = connection
    previous = signal.set_wakeup_fd(_watcher.writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        _watcher.running = None


def _forget_watcher() -> None:
    """Drop the watcher in a forked child, which has the object but not its thread; the child makes its own when it needs one."""
    global _watcher
    _watcher = None


os.register_at_fork(after_in_child=_forget_watcher)

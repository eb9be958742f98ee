"""Threads and processes that are left at the end of a pytest session: they are named, and nobody waits for them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pytest_pilotscope.errors import counted, named

PATIENCE_S = 2.0
"""The time that threads have to end after everything else has; a pool of idle threads needs a moment."""


@dataclass(frozen=True, slots=True)
class LeftOver:
    """Knows the threads and processes that were there before the first measurement."""

    _threads: frozenset[threading.Thread] = field(default_factory=lambda: frozenset(threading.enumerate()))
    _children: frozenset[int] = field(default_factory=lambda: frozenset(_children()))

    def processes(self) -> str | None:
        """Return a sentence about the child processes that are left; Linux only."""
        commands = {pid: _command(pid) for pid in sorted(set(_children()) - self._children)}
        left = [f"{pid} ({command})" for pid, command in commands.items() if command and "multiprocessing" not in command]
        return f"left running by an algorithm: {counted(len(left), 'process', 'processes')}: {named(left)}" if left else None

    def end_despite_threads(self, exit_code: int, say: Callable[[str], None]) -> None:
        """
        Let the process end with this code, and name the threads that do not end, when everything else has ended.

        The interpreter would wait for them without a word. They end in the middle of what they do; `atexit` functions are not called.
        """

        def end() -> None:
            threading.main_thread().join()
            threads = [thread for thread in threading.enumerate() if not thread.daemon and thread not in self._threads]
            for thread in threads:
                thread.join(PATIENCE_S)
            left = [f"{thread.name!r}" for thread in threads if thread.is_alive()]
            if left:
                say(f"{counted(len(left), 'thread')} of an algorithm did not end, so the process ends without: {named(left)}")
                for stream in (sys.stdout, sys.stderr):
                    with suppress(OSError, ValueError):
                        stream.flush()
                os._exit(exit_code)

        if any(not thread.daemon and thread not in self._threads for thread in threading.enumerate()):
            threading.Thread(target=end, name="pilotscope-end", daemon=True).start()


def _children() -> Iterator[int]:
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            yield from map(int, path.read_text().split())


def _command(pid: int) -> str:
    """Return the command of a process; nothing for one that has ended."""
    with suppress(OSError):
        return " ".join(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")).strip()[:80]
    return ""

"""
The process beside a measurement that speaks, and ends it, when code of an algorithm does not stop (`hangs`).

Run as a script with `python -I -S hangwatch.py NOTE`, standard library only. Each byte on its standard input is the number of a signal that
the measurement has received. The file descriptor NOTE has what is at work there, as JSON, or null. Its standard output is the terminal.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any

SHORTEST_S, LONGEST_S = 5.0, 60.0
"""After a limit, the line comes after the time of the limit again, and the end after the same time, each within these bounds."""

_INTERRUPTS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


class _Hang:
    """Code that is at work although a signal should have ended it."""

    def __init__(self, note: dict[str, Any], received: bytes) -> None:
        self.note = note
        interrupted = bool(_INTERRUPTS & set(received))
        grace_s = min(max(note["limit_s"], SHORTEST_S), LONGEST_S)
        self._why = "Ctrl-C or SIGTERM" if interrupted else f"its limit of {note['limit_s']:g} s"
        self._speaks_s = time.monotonic() + (SHORTEST_S if interrupted else grace_s)
        self._ends_s = self._speaks_s + (LONGEST_S if interrupted else grace_s)
        self._spoken = False

    def act(self) -> None:
        """Speak, or end the measurement, when it is time."""
        now_s = time.monotonic()
        if now_s >= self._ends_s:
            _say(
                f"{self.note['doing']} and cannot be stopped, so pytest ends now, with exit code 3; the record has everything that was "
                "measured, and `pilotscope sync` sends it"
            )
            _end(os.getppid())
        elif now_s >= self._speaks_s and not self._spoken:
            self._spoken = True
            _say(f"{self.note['doing']} and does not stop after {self._why}; pytest ends in {self._ends_s - now_s:.0f} s")


def watch(note: int) -> None:
    """Read signals until the measurement ends."""
    hang: _Hang | None = None
    parent = os.getppid()
    while os.getppid() == parent:
        ready = select.select([0], [], [], None if hang is None else 0.5)[0]
        received = os.read(0, 64) if ready else b""
        if ready and not received:
            return
        found = json.loads(os.pread(note, 1000, 0).strip() or b"null")
        if hang is not None and hang.note != found:
            hang = None
        if hang is None and found is not None and _concern(found, received):
            hang = _Hang(found, received)
        if hang is not None:
            hang.act()


def _concern(note: dict[str, Any], received: bytes) -> bool:
    """Tell whether one of these signals should end what is at work; an alarm may be of what was at work just before."""
    return bool(_INTERRUPTS & set(received)) or (signal.SIGALRM in received and time.monotonic() >= note["until_s"])


def _say(text: str) -> None:
    with suppress(OSError):
        os.write(1, f"\npilotscope: {text}\n".encode())


def _end(parent: int) -> None:
    """Let the measurement call `_exit(3)`; kill it if it does not."""
    for number in (signal.SIGQUIT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(parent, number)
        deadline_s = time.monotonic() + SHORTEST_S
        while os.getppid() == parent and time.monotonic() < deadline_s:
            time.sleep(0.05)
        if os.getppid() != parent:
            return


if __name__ == "__main__":
    watch(int(sys.argv[1]))

"""
The process between its starter and PostgreSQL: it never outlives its starter, and PostgreSQL never outlives it.

Run as a script with `python -I -S watchdog.py SPECIFICATION`, standard library only. The specification is JSON:

    command   the program and its arguments
    user      [uid, gid] to change to, or null
    remove    folders to delete at the end

Its standard input is a pipe from the process that started it. A byte `f` on it asks for PostgreSQL's fast shutdown, `i` for the immediate
one, `e` for that and the end: the folders are deleted. The end of the pipe (every copy of the other end is closed) or the death of the
starting process (Linux, also while a forked child still holds the pipe) counts as `e`: the starter was killed.

The other direction is PR_SET_PDEATHSIG on Linux: PostgreSQL is killed when the watchdog is. It is set here because it belongs to the
*thread* that forks, is cleared by a change of user, and this process has one thread only.

The watchdog sleeps in select(): it costs nothing while something is measured.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_END = b"e"
_SHUTDOWN = {b"f": signal.SIGINT, b"i": signal.SIGQUIT, _END: signal.SIGQUIT}  # PostgreSQL's fast and immediate shutdown


def main(specification: str) -> int:
    """Start the command, wait for its end or that of the starter, and return its exit status."""
    wanted = json.loads(specification)
    ended, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    parent = _death_of_parent()
    options = {"user": wanted["user"][0], "group": wanted["user"][1], "extra_groups": []} if wanted["user"] else {}
    # One thread, so running Python between fork and exec is safe here.
    child = subprocess.Popen(wanted["command"], stdin=subprocess.DEVNULL, preexec_fn=_dies_with_watchdog(), **options)
    for_good = False
    while child.poll() is None:
        ready = select.select([ended, 0, *parent], [], [])[0]
        if ended in ready:
            os.read(ended, 1024)
        elif ready:
            asked = (os.read(0, 1) if 0 in ready else b"") or _END
            child.send_signal(_SHUTDOWN[asked])
            for_good = asked == _END
            if for_good:
                child.wait()
    for folder in wanted["remove"] if for_good else ():
        shutil.rmtree(folder, ignore_errors=True)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _death_of_parent() -> list[int]:
    """Return a descriptor that becomes readable when the starting process is dead, where the system has one."""
    try:
        return [os.pidfd_open(os.getppid())]
    except (AttributeError, OSError):
        return []


def _dies_with_watchdog() -> Callable[[], None] | None:
    """Return a function for PostgreSQL's process to call before it starts: it asks the kernel to kill the process with the watchdog."""
    if sys.platform != "linux":
        return None
    libc, watchdog = ctypes.CDLL(None), os.getpid()

    def ask() -> None:
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT) or os.getppid() != watchdog:
            os._exit(126)

    return ask


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""
Ends that somebody asks for: Ctrl-C, SIGTERM (a cancelled job, `docker stop`) and SIGHUP (a closed terminal), all by KeyboardInterrupt.

What an interrupt makes undone, and what must be written whole, is not interrupted a second time.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from pytest_pilotscope.errors import interrupt_behind

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a run."""

_held = 0
_received: set[int] = set()
logger = logging.getLogger(__name__)


def interrupts_wait() -> bool:
    """Tell whether an interrupt would be put off now: in a block of `held`, and while the main thread ends because of another one."""
    current = sys._current_exceptions().get(threading.main_thread().ident or 0)
    error = current[1] if isinstance(current, tuple) else current  # a tuple before Python 3.12
    return _held > 0 or interrupt_behind(error) is not None


@contextmanager
def ends_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does; leave signals alone that are ignored or that somebody else handles."""
    ours = [number for number in SIGNALS if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)]
    with _handled(ours):
        yield


@contextmanager
def held() -> Iterator[None]:
    """Do the block whole: put an interrupt off until its end, and raise it there."""
    global _held
    ours = [number for number in SIGNALS if signal.getsignal(number) in (_interrupt, signal.default_int_handler)]
    with _handled(ours):
        _held += 1
        try:
            yield
        finally:
            _held -= 1
            if _received and not _held:
                _received.clear()
                raise KeyboardInterrupt


@contextmanager
def _handled(numbers: list[signal.Signals]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, unless that would break off what has to be done whole."""
    if not interrupts_wait():
        raise KeyboardInterrupt("" if number == signal.SIGINT else signal.Signals(number).name)
    if _held:
        _received.add(number)
    with suppress(RuntimeError):  # the signal came in the middle of a write to the same stream
        logger.warning("the run ends as soon as its record is sent and everything is put back; kill -9 stops it at once")

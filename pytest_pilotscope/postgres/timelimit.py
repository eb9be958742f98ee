"""
A limit for Python code that may hang: a timer whose signal raises an error in the main thread.

The error is raised again every second, for code that swallows it. The signal also cancels a statement that the code waits for
(`interrupts`). Two things cannot be interrupted: code in other threads than the main one, and C code that does not return to the
interpreter; the latter ends when it returns.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

from pytest_pilotscope.errors import AlgorithmError

logger = logging.getLogger(__name__)


AGAIN_S = 1.0
TRAINING_NOTICE_S = 300.0
"""Training that takes longer is said to go on."""


@contextmanager
def time_limit(seconds: float | None, error: Callable[[], Exception]) -> Iterator[None]:
    """
    Raise `error()` in the block after so many seconds. None is no limit, nor is there one outside the main thread.

    A timer of somebody else, such as that of pytest-timeout, goes on, and wins if it ends first.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    other_s, interval_s = signal.getitimer(signal.ITIMER_REAL)
    if 0 < other_s <= seconds:
        yield
        return

    def expired(number: int, frame: FrameType | None) -> None:
        raise error()

    started_s = monotonic()
    previous = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if other_s:
            signal.setitimer(signal.ITIMER_REAL, max(other_s - (monotonic() - started_s), 1e-3), interval_s)


@contextmanager
def training_limit(algorithm: str, seconds: float | None) -> Iterator[None]:
    """End training that takes too long with `AlgorithmError`; if it takes long, tell the user when it will end."""
    notice = threading.Timer(
        TRAINING_NOTICE_S,
        lambda: logger.warning(
            "waiting for %s, which has trained for %g s; its limit is %s s (--training-timeout-s)", algorithm, TRAINING_NOTICE_S, seconds
        ),
    )
    notice.daemon = True
    notice.start()
    try:
        with time_limit(
            seconds,
            lambda: AlgorithmError(f"{algorithm} has trained for {seconds:g} s; give it more time with --training-timeout-s, or less data"),
        ):
            yield
    finally:
        notice.cancel()

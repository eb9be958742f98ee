"""
A limit for Python code that may hang: a timer whose signal ends the block in the main thread.

The signal raises an error that is no `Exception`, so that code which tries again after errors ends, too; it is raised again every second
for code that swallows even this. It also cancels a statement that the code waits for (`interrupts`). Two things cannot be interrupted: code
in other threads than the main one, and C code that does not return to the interpreter; `hangs` ends the process for the latter.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from types import FrameType, TracebackType

from pytest_pilotscope.errors import AlgorithmError
from pytest_pilotscope.postgres import hangs

logger = logging.getLogger(__name__)


AGAIN_S = 1.0
TRAINING_NOTICE_S = 300.0
"""Training that takes longer is said to go on."""

_SOON_S = 1e-3
_NOT_HERE = frozenset({__file__, contextlib.__file__})
"""The files whose code enters and leaves blocks: an error raised there would leave the timer running, or skip somebody's cleanup."""


class _Expired(BaseException):
    """The time of a block is over."""


@dataclass(slots=True)
class time_limit:  # noqa: N801 - used like a function
    """
    A context manager that raises `error()` if its block takes more than so many seconds, whatever the block does with the error. None is no
    limit, nor is there one outside the main thread. `doing` is for `hangs`: "mscn decides", for instance. A `pausable` limit leaves out the
    time of blocks in `outside_limit`.

    A timer of somebody else, such as that of pytest-timeout, goes on, and wins if it ends first.
    """

    seconds: float | None
    error: Callable[[], Exception]
    doing: str = "an algorithm is at work"
    pausable: bool = False
    _active: bool = field(default=False, init=False)
    _left_s: float = field(default=0.0, init=False)
    _outer: time_limit | None = field(default=None, init=False)
    _failure: Exception | None = field(default=None, init=False)
    _started_s: float = field(default=0.0, init=False)
    _other: tuple[float, float] = field(default=(0.0, 0.0), init=False)
    _unwatched: int | None = field(default=None, init=False)
    _previous: signal.Handlers | int | Callable[[int, FrameType | None], object] | None = field(default=None, init=False)

    def __enter__(self) -> None:
        if self.seconds is not None and threading.current_thread() is threading.main_thread():
            self._arm(self.seconds)

    def _arm(self, seconds: float) -> None:
        """Start the timer, unless one of somebody else ends first."""
        global _innermost
        self._other = signal.getitimer(signal.ITIMER_REAL)
        if 0 < self._other[0] <= seconds:
            return
        self._started_s, self._left_s = monotonic(), seconds
        self._unwatched = hangs.begin(self.doing, seconds)
        self._previous = signal.signal(signal.SIGALRM, self._alarm)
        self._outer, _innermost = _innermost, self
        try:
            self._active = True
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6), AGAIN_S)  # 0 would be no timer
        except BaseException:  # Ctrl-C in the meantime
            self._disarm()
            raise

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        """End the block; try again soon if it is just being entered or left."""
        if not self._active:
            return
        if frame is not None and frame.f_code.co_filename in _NOT_HERE:
            signal.setitimer(signal.ITIMER_REAL, _SOON_S, AGAIN_S)
            return
        self._failure = self._failure or self.error()
        hangs.alarm()
        raise _Expired

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._active:
            return
        took_s = self._disarm()
        if error is None and self._failure is None and took_s > self._left_s:
            self._failure = self.error()
        if self._failure is not None and (error is None or isinstance(error, Exception | _Expired)):
            raise self._failure.with_traceback(trace) from (error if isinstance(error, Exception) else None)

    def _disarm(self) -> float:
        """Put the timer and its handler back; return the s that it ran."""
        global _innermost
        self._active = False  # from here on, an alarm does nothing
        _innermost = self._outer
        signal.setitimer(signal.ITIMER_REAL, 0)
        took_s = monotonic() - self._started_s
        signal.signal(signal.SIGALRM, self._previous)
        hangs.end(self._unwatched)
        if self._other[0]:
            signal.setitimer(signal.ITIMER_REAL, max(self._other[0] - took_s, _SOON_S), self._other[1])
        return took_s

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out."""
        left_s = self._left_s - self._disarm()
        try:
            yield
        finally:
            self._arm(max(left_s, _SOON_S))


_innermost: time_limit | None = None


def outside_limit() -> contextlib.AbstractContextManager[None]:
    """Leave the time of a block out of a pausable limit around it: the suite works there for the algorithm, under limits of its own."""
    if _innermost is None or not _innermost.pausable or threading.current_thread() is not threading.main_thread():
        return contextlib.nullcontext()
    return _innermost.paused()


@dataclass(slots=True)
class training_limit:  # noqa: N801 - used like a function
    """A context manager that ends training which takes too long with `AlgorithmError`; if it takes long, tell the user when it will end."""

    algorithm: str
    seconds: float | None
    _notice: threading.Timer = field(init=False)
    _limit: time_limit = field(init=False)

    def __post_init__(self) -> None:
        self._notice = threading.Timer(TRAINING_NOTICE_S, self._tell)
        self._notice.daemon = True
        self._limit = time_limit(self.seconds, self._error, f"{self.algorithm} trains")

    def _tell(self) -> None:
        logger.warning(
            "waiting for %s, which has trained for %g s; its limit is %s s (--training-timeout-s)",
            *(self.algorithm, TRAINING_NOTICE_S, self.seconds),
        )

    def _error(self) -> AlgorithmError:
        return AlgorithmError(
            f"{self.algorithm} has trained for {self.seconds:g} s; give it more time with --training-timeout-s, or less data"
        )

    def __enter__(self) -> None:
        self._notice.start()
        self._limit.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._limit.__exit__(kind, error, trace)
        finally:
            self._notice.cancel()

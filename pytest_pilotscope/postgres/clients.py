"""Several sessions at once, each in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Barrier, Event
from time import perf_counter_ns
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

_ASK_AGAIN_S = 0.1

T = TypeVar("T")


def at_once(clients: int, work: Callable[[int, Event], T], sessions: Sequence[Session]) -> tuple[list[T], float]:
    """
    Call `work(number, stop)` for each client, from 0, in a thread of its own; all begin together. Return the results, and the time in s
    until the last was ready.

    After an error of one client, and after an interrupt, set `stop`, which the others ask between two statements; an interrupt also ends
    the running statements of the `sessions`.
    """
    began_ns: list[int] = []
    start = Barrier(clients, action=lambda: began_ns.append(perf_counter_ns()))
    stop = Event()

    def client(number: int) -> tuple[T, int]:
        start.wait()
        return work(number, stop), perf_counter_ns()

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client, number) for number in range(clients)]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
            stop.set()
            wait(running)
        except BaseException:
            stop.set()
            while wait(running, timeout=_ASK_AGAIN_S).not_done:  # a client may be between two statements
                for session in sessions:
                    session.cancel()
            raise
    found = [one.result() for one in running]
    return [result for result, _ in found], (max(ended_ns for _, ended_ns in found) - began_ns[0]) / 1e9

"""
Limits of an algorithm: the time of its decisions, and what it may leave behind.

All sides of a run may share one session. An algorithm that leaves a setting, a transaction or a temporary table behind would steer the
baseline, too; one that replaces the clocks would time itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import AlgorithmError, UnsupportedQuery, counted
from pytest_pilotscope.measurement import answers, clocks
from pytest_pilotscope.postgres import steering
from pytest_pilotscope.postgres.fingerprint import Fingerprint, content_fingerprint, fingerprint, is_small, settings_fingerprint
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.sessionstate import (
    SessionState,
    end_idle_transactions,
    last_transaction,
    left_behind,
    state_of,
    stored_changes,
    stored_state,
)
from pytest_pilotscope.postgres.timelimit import time_limit

if TYPE_CHECKING:
    from pytest_pilotscope.queries.queries import Query

_INSTRUMENTS: tuple[tuple[Any, str, Any], ...] = tuple(
    (holder, name, getattr(holder, name))
    for holder, names in (
        (time, ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "process_time_ns")),
        (Session, ("execute", "scalar", "timed", "explain", "subplans", "stream", "unable_to_write", "statement_timeout")),
        (Session, ("cardinalities", "hints", "planner_settings")),
        (steering, ("timed", "timed_stream", "cardinalities", "hints", "exchanged", "subplans")),
        (clocks, ("clock_of", "explain_timed", "perf_counter_ns", "Stopwatch")),
        (clocks.Stopwatch, ("__enter__", "__exit__")),
        (answers.Answer, ("take",)),
    )
    for name in names
)


@dataclass(slots=True, kw_only=True)
class Supervision:
    """
    The checks of one run, in its `session`. `timeout_ms` limits a decision, `training_timeout_s` training again between
    two of them (None: no limit).

    `fingerprint` is that of the database at the start. Nobody else writes to an `exclusive` server, so a write is the algorithm's.
    Without a session only the instruments are checked: a side that is tried by itself.
    """

    timeout_ms: float | None = None
    training_timeout_s: float | None = None
    session: Session | None = None
    fingerprint: Fingerprint | None = None
    exclusive: bool = False
    _state: SessionState | None = field(default=None, init=False)
    _stored: dict[str, str] = field(default_factory=dict, init=False)
    _last_transaction: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.session is not None:
            self._state = state_of(self.session)
            self._stored = stored_state(self.session)
            self._last_transaction = last_transaction(self.session)
            if self.fingerprint is not None:  # a session that cannot write has other settings than one that can
                self.fingerprint = replace(self.fingerprint, settings=settings_fingerprint(self.session))

    @contextmanager
    def limited(self, algorithm: str, query: Query) -> Iterator[None]:
        """End a decision that takes too long with `AlgorithmError`, or with `LockHeld` if it waits for a lock of somebody else."""
        seconds = None if self.timeout_ms is None else self.timeout_ms / 1e3

        def error() -> Exception:
            waiting = None if self.session is None else self.session.waiting
            return waiting or AlgorithmError(
                f"{algorithm} has not decided on query {query.id!r} after {self.timeout_ms:g} ms; give it more time with "
                "--steer-timeout-ms, or make it faster"
            )

        with time_limit(seconds, error):
            yield

    @contextmanager
    def put_back_on_error(self) -> Iterator[None]:
        """Put back what an algorithm that fails in the block has left, so that the other sides may go on."""
        try:
            yield
        except UnsupportedQuery:
            raise  # no failure, so `check` follows
        except BaseException:
            self.put_back()
            raise

    def check(self, algorithm: str, after: str, *, training: bool = False) -> None:
        """
        Raise `AlgorithmError`, which names everything that an algorithm left behind or changed, and put back what can be put back.

        Those are settings of the session, open transactions, temporary objects, locks, roles and the like, the suite's own functions and
        Python's clocks, and the tables, indexes and statistics of the database (on a server of the suite's own, where nobody else writes;
        elsewhere only after training).
        """
        found = self.put_back()
        if self.session is not None and not self.session.closed and (training or self.exclusive):
            found += self._changes_of_data(self.session)
        if found:
            raise AlgorithmError(
                f"{algorithm} left {counted(len(found), 'change')} behind after {after}, so the sides would not be independent: "
                f"{'; '.join(found)}; settings and objects of the session were put back; undo what an algorithm sets before it returns"
            )

    def put_back(self) -> list[str]:
        """Put back instruments and the state of the session; name what was different."""
        found = _replaced_instruments()
        if self.session is None or self._state is None:
            return found
        if self.session.closed:
            return [*found, "the session was closed"]
        return found + left_behind(self.session, self._state)

    def _changes_of_data(self, session: Session) -> list[str]:
        """Compare the database with that at the start, if a transaction has written since the last check."""
        found = end_idle_transactions(session) if self.exclusive else []
        last = last_transaction(session)
        if last == self._last_transaction:
            return found
        self._last_transaction = last
        stored, self._stored = self._stored, stored_state(session)
        found += stored_changes(stored, self._stored)
        if self.fingerprint is not None:
            before = self.fingerprint.as_mapping()
            now = fingerprint(session)
            if is_small(session):  # a mark has the fingerprint of the rows as they were loaded
                now = replace(now, data=content_fingerprint(session))
            after = now.as_mapping()
            self.fingerprint = now
            found += [f"the {name} of database {session.database!r} changed" for name in before if after[name] != before[name]]
        return found


def _replaced_instruments() -> list[str]:
    """Name the functions that were replaced, and put them back."""
    replaced = [(holder, name, original) for holder, name, original in _INSTRUMENTS if getattr(holder, name) is not original]
    for holder, name, original in replaced:
        setattr(holder, name, original)
    return [f"{holder.__name__}.{name} was replaced" for holder, name, _ in replaced]

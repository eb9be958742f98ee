"""
Limits of an algorithm: the time of its decisions, and what it may leave behind.

All sides of a run may share one session. An algorithm that leaves a setting, a transaction or a temporary table behind would steer the
baseline, too; one that replaces the clocks would time itself.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import AlgorithmError, counted
from pytest_pilotscope.measurement import answers, clocks
from pytest_pilotscope.measurement.timelimit import time_limit
from pytest_pilotscope.postgres import steering
from pytest_pilotscope.postgres.fingerprint import Fingerprint, fingerprint
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.sessionstate import SessionState, left_behind, state_of

if TYPE_CHECKING:
    from pytest_pilotscope.queries.queries import Query

_INSTRUMENTS: tuple[tuple[Any, str, Any], ...] = tuple(
    (holder, name, getattr(holder, name))
    for holder, names in (
        (time, ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "time", "time_ns", "process_time_ns")),
        (Session, ("execute", "scalar", "timed", "explain", "subplans", "cardinalities", "statement_timeout")),
        (steering, ("timed", "cardinalities", "subplans")),
        (clocks, ("clock_of", "explain_timed")),
        (answers, ("answer_hash",)),
    )
    for name in names
)
_NEXT_TRANSACTION = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"


@dataclass(slots=True, kw_only=True)
class Supervision:
    """
    The checks of one run, in its `session`. `timeout_ms` limits a decision (None: no limit).

    `fingerprint` is that of the database at the start. Nobody else writes to an `exclusive` server, so a write is the algorithm's.
    Without a session only the instruments are checked: a side that is tried by itself.
    """

    timeout_ms: float | None = None
    session: Session | None = None
    fingerprint: Fingerprint | None = None
    exclusive: bool = False
    _state: SessionState | None = field(default=None, init=False)
    _next_transaction: str = field(default="", init=False)

    def __post_init__(self) -> None:
        if self.session is not None:
            self._state = state_of(self.session)
            self._next_transaction = self.session.scalar(_NEXT_TRANSACTION)

    def time_limit(self, algorithm: str, query: Query) -> AbstractContextManager[None]:
        """End a decision that takes too long with `AlgorithmError`."""
        seconds = None if self.timeout_ms is None else self.timeout_ms / 1e3
        return time_limit(
            seconds,
            lambda: AlgorithmError(
                f"{algorithm} has not decided on query {query.id!r} after {self.timeout_ms:g} ms; give it more time with "
                "--steer-timeout-ms, or make it faster"
            ),
        )

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
        if self.session is not None and self._state is not None and not self.session.closed:
            found += left_behind(self.session, self._state)
        return found

    def _changes_of_data(self, session: Session) -> list[str]:
        """Compare the database with that at the start, if a transaction has written since the last check."""
        following = session.scalar(_NEXT_TRANSACTION)
        if following == self._next_transaction:
            return []
        self._next_transaction = following
        known = {} if self.fingerprint is None else self.fingerprint.as_mapping()
        now = fingerprint(session).as_mapping()
        return [f"the {name} of database {session.database!r} changed" for name, value in known.items() if now[name] != value]


def _replaced_instruments() -> list[str]:
    """Name the functions that were replaced, and put them back."""
    replaced = [(holder, name, original) for holder, name, original in _INSTRUMENTS if getattr(holder, name) is not original]
    for holder, name, original in replaced:
        setattr(holder, name, original)
    return [f"{holder.__name__}.{name} was replaced" for holder, name, _ in replaced]

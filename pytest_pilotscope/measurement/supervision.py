"""
Limits of an algorithm: the time of its decisions, and what it may leave behind.

All sides of a run may share one session. An algorithm that leaves a setting, a transaction or a temporary table behind would steer the
baseline, too; one that replaces the clocks would time itself.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import AlgorithmError, UnsupportedQuery, counted
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
from pytest_pilotscope.postgres.signals import SIGNALS
from pytest_pilotscope.postgres.timelimit import time_limit

if TYPE_CHECKING:
    from pytest_pilotscope.queries.queries import Query

Instrument = tuple[Any, Any, str, object]
"""An object (a module or a class), its namespace, a name in it, and what that name stands for."""

_ROOMS = ("pytest_pilotscope.measurement.", "pytest_pilotscope.postgres.", "pytest_pilotscope.record.")
_CODE = (FunctionType, BuiltinFunctionType, type, property, staticmethod, classmethod, MemberDescriptorType)


def _instruments_of(module: ModuleType) -> Iterator[Instrument]:
    """Yield every function and class that a module has by any name, and what the module's own classes are made of."""
    namespace = vars(module)
    holders = [value for value in namespace.values() if isinstance(value, type) and value.__module__ == module.__name__]
    for holder in (module, *holders):
        yield from ((holder, vars(holder), name, value) for name, value in list(vars(holder).items()) if isinstance(value, _CODE))


def _measuring_modules() -> dict[str, ModuleType]:
    """Return the modules that measure, as far as they are loaded whole."""
    modules = {name: module for name, module in list(sys.modules.items()) if name.startswith(_ROOMS)}
    return {"time": time} | {name: module for name, module in modules.items() if not getattr(module.__spec__, "_initializing", False)}


_INSTRUMENTS: tuple[Instrument, ...] = tuple(part for module in _measuring_modules().values() for part in _instruments_of(module))
_LOADED_SINCE: dict[str, tuple[Instrument, ...]] = dict.fromkeys(_measuring_modules(), ())
_CODES: dict[FunctionType, CodeType] = {}


def note_instruments() -> None:
    """Note the modules that were loaded since the last call, as they are now."""
    for name, module in _measuring_modules().items():
        if name not in _LOADED_SINCE:
            _LOADED_SINCE[name] = tuple(_instruments_of(module))
    for _, _, _, part in chain(_INSTRUMENTS, *_LOADED_SINCE.values()):
        if isinstance(part, FunctionType):
            _CODES.setdefault(part, part.__code__)


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
    _handlers: dict[signal.Signals, Any] = field(
        default_factory=lambda: {number: signal.getsignal(number) for number in SIGNALS}, init=False
    )
    _folder: Path = field(default_factory=Path.cwd, init=False)
    _log_limit: int = field(default_factory=lambda: logging.root.manager.disable, init=False)

    def __post_init__(self) -> None:
        note_instruments()
        self.renew()
        if self.session is not None and self.fingerprint is not None:
            # a session that cannot write has other settings than one that can
            self.fingerprint = replace(self.fingerprint, settings=settings_fingerprint(self.session))

    def renew(self) -> None:
        """Take the present state as the one to keep: at the start, and after an algorithm has prepared the server on purpose."""
        if self.session is not None:
            self._state = state_of(self.session)
            self._stored = stored_state(self.session)
            self._last_transaction = last_transaction(self.session)

    def renew_data(self) -> None:
        """Take the present data as those to keep, after writes of the run itself."""
        self.renew()
        if self.session is not None and self.fingerprint is not None:
            self.fingerprint = _present(self.session)

    def limited(self, algorithm: str, query: Query) -> time_limit:
        """
        End a decision that takes too long with `AlgorithmError`, or with `LockHeld` if it waits for a lock of somebody else.

        The time in which the suite counts true rows for it (`Training.labels`) is left out.
        """

        def error() -> Exception:
            waiting = None if self.session is None else self.session.waiting
            return waiting or AlgorithmError(
                f"{algorithm} has not decided on query {query.id!r} after {self.timeout_ms:g} ms; give it more time with "
                "--steer-timeout-ms, or make it faster"
            )

        seconds = None if self.timeout_ms is None else self.timeout_ms / 1e3
        return time_limit(seconds, error, f"{algorithm} decides on query {query.id!r}", pausable=True)

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

    def check(self, algorithm: str, after: str, *, training: bool = False, measured: bool = False) -> None:
        """
        Raise `AlgorithmError`, which names everything that an algorithm left behind or changed, and put back what can be put back.

        Those are settings of the session, open transactions, temporary objects, locks, roles and the like, the suite's own functions and
        Python's clocks, and the tables, indexes and statistics of the database (on a server of the suite's own, where nobody else writes;
        elsewhere only after training). What else bears on plans (`stored_state`) is also compared when all was `measured`.
        """
        found = self.put_back()
        if self.session is not None and not self.session.closed and (training or measured or self.exclusive):
            found += self._changes(self.session, rows=training or self.exclusive)
        if found:
            raise AlgorithmError(
                f"{algorithm} left {counted(len(found), 'change')} behind after {after}, so the sides would not be independent: "
                f"{'; '.join(found)}; settings and objects of the session were put back; undo what an algorithm sets before it returns"
            )

    def put_back(self) -> list[str]:
        """Put back instruments and the state of the session; name what was different. A changed current folder harms no side."""
        if Path.cwd() != self._folder:
            os.chdir(self._folder)
        found = _replaced_instruments() + self._ends_replaced()
        if self.session is None or self._state is None:
            return found
        found += _replaced_methods(self.session)
        if self.session.closed:
            return [*found, "the session was closed"]
        return found + left_behind(self.session, self._state, exclusive=self.exclusive)

    def _ends_replaced(self) -> list[str]:
        """Name the handlers of Ctrl-C and the like, and the limit of the log, that were replaced, and put them back."""
        found = []
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
                    found.append(f"the handler of {number.name} was replaced")
        if logging.root.manager.disable != self._log_limit:
            logging.disable(self._log_limit)
            found.append("logging was disabled")
        return found

    def _changes(self, session: Session, *, rows: bool) -> list[str]:
        """Compare the database with that at the start, if a transaction has written since the last check."""
        found = end_idle_transactions(session) if self.exclusive else []
        last = last_transaction(session)
        if last == self._last_transaction:
            return found
        self._last_transaction = last
        stored, self._stored = self._stored, stored_state(session)
        found += stored_changes(stored, self._stored)
        if self.fingerprint is not None and rows:
            before = self.fingerprint.as_mapping()
            now = _present(session)
            after = now.as_mapping()
            self.fingerprint = now
            found += [f"the {name} of database {session.database!r} changed" for name in before if after[name] != before[name]]
        return found


def _present(session: Session) -> Fingerprint:
    """Return the fingerprint of a database as it is now: a mark has that of the rows as they were loaded."""
    now = fingerprint(session)
    return replace(now, data=content_fingerprint(session)) if is_small(session) else now


def _replaced_instruments() -> list[str]:
    """
    Name the functions, classes and parts of classes that were replaced, and put them back.

    Not seen is what an algorithm replaces and puts back within one decision, replaces before the run begins, or changes beyond the names of
    the suite's modules that measure and of `time`: other libraries, objects and the interpreter itself.
    """
    instruments = chain(_INSTRUMENTS, *_LOADED_SINCE.values())
    replaced = [(holder, name, original) for holder, there, name, original in instruments if there.get(name) is not original]
    for holder, name, original in replaced:
        setattr(holder, name, original)
    changed = [(function, code) for function, code in _CODES.items() if function.__code__ is not code]
    for function, code in changed:
        function.__code__ = code
    names = [f"{holder.__name__}.{name}" for holder, name, _ in replaced] + [
        f"the code of {function.__qualname__}" for function, _ in changed
    ]
    return [f"{name} was replaced" for name in names]


def _replaced_methods(session: Session) -> list[str]:
    """Name the methods of a session that were replaced in this object alone, and put them back."""
    replaced = [name for name in vars(session) if hasattr(type(session), name)]
    for name in replaced:
        delattr(session, name)
    return [f"{name} of the session was replaced" for name in replaced]

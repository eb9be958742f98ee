"""
The server on which settings are tried.

If we can start servers, it is a second one with the same data: settings that need a restart can be tried, and nobody touches the baseline's
server. On a server that was given to us we change only our own sessions and, if our role may use ALTER SYSTEM and the user has allowed it,
the settings that the server re-reads. We put those back on leaving; after a kill, the next opening of the server puts them back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_pilotscope.algorithms.knob.catalogue import CATALOGUE
from pytest_pilotscope.algorithms.knob.loaded import Load, LoadSessions, load_sessions
from pytest_pilotscope.algorithms.knob.machine import machine_behind, this_machine, within
from pytest_pilotscope.algorithms.knob.space import KnobSpace, Values, knob_space
from pytest_pilotscope.errors import AlgorithmError, CannotConnect, ServerError, UsageError, raise_interrupt_behind
from pytest_pilotscope.postgres.fingerprint import fingerprint
from pytest_pilotscope.postgres.knobs import (
    LEVELS,
    Level,
    SystemKnobs,
    read_knobs,
    set_session_knobs,
    system_knobs,
)
from pytest_pilotscope.postgres.server import Capability
from pytest_pilotscope.postgres.session import Session

if TYPE_CHECKING:
    from pytest_pilotscope.provision.database import Database


RECOVERY_LIMIT_S = 60.0
"""A lost server may take so long to come back; recovery after a crash takes seconds."""

_POLL_S = 0.2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """
    The levels of settings that can be changed, whether the server is our own, and the limits of its container.

    `limit` names the settings that cannot be tuned here and the reason; it is empty if all can. `question` is the text of an error if the
    user has neither allowed nor forbidden to change settings of the whole server.
    """

    levels: tuple[Level, ...]
    own: bool
    limit: str = ""
    question: str = ""
    memory_bytes: int | None = None
    cpus: float | None = None


def reach_of(database: Database) -> Reach:
    """Find the levels of settings that can be changed on the server of a database."""
    server, config = database.server, database.config
    if config is not None and Capability.RESTART in server.capabilities:
        return Reach(levels=LEVELS, own=True, memory_bytes=config.container_memory_bytes, cpus=config.container_cpus)
    if refusal := server.refusal(Capability.ALTER_SYSTEM):
        question = f"knob tuning would change settings of the whole server with ALTER SYSTEM, and put them back at its end: {refusal}"
        question += ", or --read-only to tune settings of sessions only"
        asks = server.needs_consent(Capability.ALTER_SYSTEM)
        return Reach(levels=LEVELS[:1], own=False, limit=f"only settings of sessions: {refusal}", question=question if asks else "")
    return Reach(levels=LEVELS[:2], own=False, limit="no setting that needs a restart: this server was not started here")


def space_of(session: Session, reach: Reach, names: tuple[str, ...] | None) -> KnobSpace:
    """
    Return the space of the knobs that can be changed; `AlgorithmError` if none is left.

    UsageError for a refused knob, and if the user has to say whether one may be changed.
    """
    rows = read_knobs(session, tuple(CATALOGUE))
    if reach.question and any(row.level == "reload" for name, row in rows.items() if names is None or name in names):
        raise UsageError(reach.question)
    machine = within(this_machine(), reach.memory_bytes, reach.cpus) if reach.own else machine_behind(rows)
    machine = replace(machine, data_bytes=int(session.scalar("SELECT pg_database_size(current_database())")))
    space = knob_space(rows, machine, reach.levels, names=names)
    if not len(space):
        raise AlgorithmError(f"there is no knob to tune: none of {', '.join(names or ('the catalogue',))} can be changed on this server")
    return space


class TrialServer:
    """
    A server with settings in force; made by `open_trial_server`. Measure in `session`, which is read-only.

    `cold` is True from a start of the server until somebody has run the queries.
    """

    def __init__(self, database: Database, space: KnobSpace, system: SystemKnobs | None, *, own: bool) -> None:
        self._database = database
        self._space = space
        self._system = system
        self._own = own
        self._base = dict(database.config.settings) if database.config is not None else {}
        self._level = {knob.name: knob.level for knob in space.knobs}
        self._current = space.defaults
        self.cold = True
        self.session = database.measuring_session()

    def clients(self, load: Load) -> AbstractContextManager[LoadSessions]:
        """Give the sessions of a load, with the settings in force."""
        knobs = {name: value for name, value in self._current.items() if self._level[name] == "session"}
        return load_sessions(self._database, load, knobs)

    def close(self) -> None:
        """End the session."""
        self.session.close()

    def apply(self, values: Values) -> Level | None:
        """
        Put a value for every knob in force, exactly as given; return the highest level that had to change, None for no change.

        StatementFailed or ServerError if PostgreSQL refuses the values; the old ones are then in force.
        """
        changed = {name for name, value in values.items() if value != self._current[name]}
        needed = [level for level in LEVELS if any(self._level[name] == level for name in changed)]
        try:
            self._put(values, needed)
        except Exception:
            self._put(self._current, needed)
            raise
        self._current = dict(values)
        return needed[-1] if needed else None

    def ready(self) -> None:
        """
        Wait until the server answers: with the settings in force, or, after a lost session, with the defaults in a new session.

        ServerError if the server does not come back.
        """
        deadline_s = time.monotonic() + RECOVERY_LIMIT_S
        while True:
            try:
                if self.session.closed:
                    self._start_over()
                check_values(self.session, self._current)
                return
            except ServerError as error:
                raise_interrupt_behind(error)
                stays = isinstance(error, CannotConnect)
                if stays or time.monotonic() > deadline_s:
                    within = "" if stays else f" within {RECOVERY_LIMIT_S:.0f} s"
                    raise ServerError(
                        f"the server on which settings are tried was lost and did not come back{within}; "
                        f"the trials so far are kept: start again to go on. Its last error: {error}"
                    ) from error
            time.sleep(_POLL_S)

    def _start_over(self) -> None:
        """Open a new session with the defaults: after a restart of our own server, or once somebody else's server is back."""
        if self._own:
            self._database.server.restart(self._base)
        self.cold = True
        self.session = self._database.measuring_session()
        self._current = self._space.defaults
        self._put(self._current, ["reload"])

    def _put(self, values: Values, levels: list[Level]) -> None:
        if "restart" in levels:
            self._restart(values)
        reloaded = {name: value for name, value in values.items() if self._level[name] == "reload"}
        if reloaded and {"reload", "restart"}.intersection(levels):  # a container forgets at a restart what ALTER SYSTEM has set
            system = self._system or SystemKnobs(reloaded)  # on a server of our own nothing has to be put back
            system.set(self.session, reloaded)
        set_session_knobs(self.session, {name: value for name, value in values.items() if self._level[name] == "session"})
        check_values(self.session, values)

    def _restart(self, values: Values) -> None:
        wanted = {name: value for name, value in values.items() if self._level[name] == "restart"}
        self.session.close()
        self.cold = True
        try:
            self._database.server.restart({**self._base, **wanted})
        finally:
            self.session = self._database.measuring_session()


def check_values(session: Session, values: Values) -> None:
    """Raise `AlgorithmError` if a setting in force in the session is not the requested one, digit by digit."""
    rows = session.execute("SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (list(values),))
    wrong = [f"{name} is {found}, not {values[name]}" for name, found in rows if found != values[name]]
    if wrong:
        raise AlgorithmError(f"PostgreSQL did not take the settings as they were given: {'; '.join(wrong)}")


@contextmanager
def open_trial_server(database: Database, space: KnobSpace, reach: Reach) -> Iterator[TrialServer]:
    """Open a second server like that of `database` for trials, or use the same server if there can be no second one."""
    with ExitStack() as stack:
        system = None
        if reach.own:
            database = stack.enter_context(database.twin())
        elif "reload" in reach.levels:
            names = [knob.name for knob in space.knobs if knob.level == "reload"]
            system = stack.enter_context(system_knobs(database.server, names))
        trial_server = TrialServer(database, space, system, own=reach.own)
        stack.callback(trial_server.close)
        yield trial_server


@contextmanager
def prepared_database(database: Database, values: Values) -> Iterator[Database]:
    """
    Give the database with settings in force, for the length of the block.

    Settings of sessions need only new sessions. Others need a second server or, on a server that was given to us, a reload after ALTER
    SYSTEM. `AlgorithmError` names the settings that cannot be changed on this server.
    """
    if not values:
        yield database
        return
    with ExitStack() as stack:
        session = stack.enter_context(database.session())
        level = {name: row.level for name, row in read_knobs(session, list(values)).items()}
        reach = reach_of(database)
        unreachable = sorted(name for name in values if level.get(name) not in reach.levels)
        if unreachable:
            raise AlgorithmError(f"{', '.join(unreachable)} cannot be changed here: {reach.limit or 'this server does not know them'}")
        whole = {name: value for name, value in values.items() if level[name] != "session"}
        if whole and reach.own:
            prepared = stack.enter_context(database.twin(values))
        else:
            if whole:
                stack.enter_context(system_knobs(database.server, list(whole))).set(session, whole)
                logger.warning("%s: in force for the whole server, so the baseline has them, too", ", ".join(sorted(whole)))
            own = {name: value for name, value in values.items() if name not in whole}
            prepared = replace(database, session_settings={**database.session_settings, **own})
        with prepared.session() as check:
            check_values(check, values)
            prepared = replace(prepared, fingerprint=fingerprint(check))
        yield prepared

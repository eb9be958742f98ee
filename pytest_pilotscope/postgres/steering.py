"""
Steer the planner of a server that has the pilotscope library: cardinalities, hints, hidden indexes, and clocks without instrumentation.

The library takes everything through settings (docs/steering.md). The functions here set them for the length of a block and put the old
values back. `Session` has them as methods.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import psycopg2

from pytest_pilotscope.errors import MissingExtension, StatementFailed, SteeringError, shortened
from pytest_pilotscope.postgres.adherence import Adherence, verify
from pytest_pilotscope.postgres.subplans import alias_text, key_text, parse_subplans
from pytest_pilotscope.queries.joins import LeveledSubplan
from pytest_pilotscope.queries.statements import single

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.postgres.streaming import Take

__all__ = [
    "Adherence",
    "LeveledSubplan",
    "TimedRun",
    "cardinalities",
    "has_extension",
    "hidden_indexes",
    "hints",
    "require_extension",
    "subplans",
    "timed",
    "timed_stream",
    "verify",
]

_JOIN_ORDER = "pilotscope.join_order"
_INVALID_VALUE = "22023"
_FAILED_TRANSACTION = "25P02"
_KNOWN_TO_HAVE_IT: WeakSet[Session] = WeakSet()

_UNKNOWN_INDEXES = """
    SELECT name FROM unnest(%s::text[]) AS name
    WHERE NOT EXISTS (
        SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('i', 'I') AND name IN (c.relname, n.nspname || '.' || c.relname))
    ORDER BY name
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRun:
    """The rows of a statement, or only their number, with the server's own clocks: no EXPLAIN ANALYZE, no client, no network in them."""

    planning_ms: float
    execution_ms: float
    row_count: int
    rows: list[tuple[Any, ...]] = field(default_factory=list)


def has_extension(session: Session) -> bool:
    """Tell whether the library is loaded in this session."""
    if session in _KNOWN_TO_HAVE_IT:
        return True
    # Before the library is loaded anybody can set a variable of this name, but not to a value like the library's.
    shown = session.scalar("SELECT current_setting('pilotscope.subplans', true)")
    if not str(shown or "").startswith("["):
        return False
    _KNOWN_TO_HAVE_IT.add(session)
    return True


def subplans(session: Session, sql: str) -> dict[frozenset[str], float]:
    """
    Return the planner's estimated rows of every subplan of `sql` that it considers, by the aliases of the subplan.

    A statement of one query level has plain sets as keys. With subqueries or CTEs that are planned on their own, every key is a
    `LeveledSubplan`, a set that also has a `level` (1, 2, ... inner queries first). Cardinalities injected at the moment are in the result.
    Raises `MissingExtension` without the library.
    """
    require_extension(session)
    # One message, hence one transaction: a failing statement takes the setting with it. SET plans nothing, so that the report stays.
    shown = session.scalar(
        f"SET pilotscope.enumerate = on; EXPLAIN (COSTS off) {single(sql)}\n; SET pilotscope.enumerate = off; SHOW pilotscope.subplans"
    )
    return parse_subplans(shown)


@contextmanager
def cardinalities(session: Session, rows: Mapping[frozenset[str], float]) -> Iterator[None]:
    """
    Make the planner use these numbers of rows in place of its own estimates within the block; of nested blocks the inner one holds.

    A `LeveledSubplan` is for its level only, any other set for every level that has relations of these aliases. PostgreSQL rounds rows and
    takes at least 1. Raises `SteeringError` for rows that are not a number from 0 to 1e100.
    """
    value = json.dumps({key_text(subplan): float(number) for subplan, number in rows.items()})
    require_extension(session)
    with exchanged(session, {"pilotscope.cardinalities": value}):
        yield


@contextmanager
def hints(
    session: Session, *, join_order: str | None = None, methods: Mapping[str, str] | Mapping[frozenset[str], str] | None = None
) -> Iterator[None]:
    """
    Make the planner keep to this join order and these methods within the block; it chooses everything else itself.

    `join_order` is a tree with the outer side first, such as "((a b) c)"; "2:(x y)" is for one query level, and there can be several
    trees. `methods` are by aliases, as text or set: nestloop, mergejoin and hashjoin for several relations, seqscan, indexscan,
    indexonlyscan, bitmapscan and tidscan for one. Raises `SteeringError` for a text that cannot be read; an impossible tree is a WARNING of
    the server.
    """
    settings = {}
    if join_order is not None:
        settings[_JOIN_ORDER] = join_order
    if methods is not None:
        texts = {key if isinstance(key, str) else key_text(key): method for key, method in methods.items()}
        settings["pilotscope.methods"] = json.dumps(texts)
    require_extension(session)
    with exchanged(session, settings):
        yield


@contextmanager
def hidden_indexes(session: Session, names: Iterable[str]) -> Iterator[None]:
    """
    Hide these indexes from the planner within the block; everything else goes on, also their upkeep by INSERT.

    A name may have its schema in front ("public.orders_pkey"). Raises `SteeringError` for names that no index has.
    """
    listed = sorted(set(names))
    unknown = session.execute(_UNKNOWN_INDEXES, (listed,)) if listed else []
    if unknown:
        raise SteeringError(f"there is no index to hide named {', '.join(repr(str(row[0])) for row in unknown)} in this database")
    require_extension(session)
    with exchanged(session, {"pilotscope.hidden_indexes": ", ".join(map(alias_text, listed))}):
        yield


def timed(session: Session, sql: str) -> TimedRun:
    """
    Run `sql` and return its rows, with the server's own planning and execution time in ms.

    Execution includes sending the rows. Raises `MissingExtension` without the library.
    """
    require_extension(session)
    rows = session.execute(single(sql))
    return _timing(session, len(rows), rows)


def timed_stream(session: Session, sql: str, take: Take | None) -> TimedRun:
    """
    Run `sql` like `timed`, hand its rows to `take` while they arrive, and return only their number.

    A slow `take` keeps the server waiting, which counts as execution. Without `take` the rows are dropped as fast as they arrive.
    """
    require_extension(session)
    return _timing(session, session.stream(single(sql), take))


def _timing(session: Session, row_count: int, rows: list[tuple[Any, ...]] | None = None) -> TimedRun:
    """Return the clocks of the last statement."""
    shown = json.loads(session.scalar("SHOW pilotscope.timing"))
    return TimedRun(
        planning_ms=shown.get("planning_ms") or 0.0, execution_ms=shown.get("execution_ms") or 0.0, row_count=row_count, rows=rows or []
    )


def require_extension(session: Session) -> None:
    """Raise `MissingExtension` where the library is not loaded."""
    if not has_extension(session):
        raise MissingExtension(
            f"{session.dsn} cannot be steered: the pilotscope library is not loaded; use the embedded server (--server embedded), "
            "or build the library on the server's machine and load it with session_preload_libraries (see docs/steering.md)"
        )


@contextmanager
def exchanged(session: Session, settings: Mapping[str, str]) -> Iterator[None]:
    """
    Set settings of any kind for the length of the block, then put the old values back; raise `SteeringError` for a refused value.

    All are set in one statement, so that one that is refused leaves none of the others behind, and none costs a message of its own.
    """
    before = _exchange(session, settings) if settings else {}
    try:
        yield
    finally:
        _put_back(session, before)


def _exchange(session: Session, settings: Mapping[str, str]) -> dict[str, str]:
    """Set settings and return their old values."""
    each = ", ".join(["current_setting(%s), set_config(%s, %s, false)"] * len(settings))
    values = [value for name, new in settings.items() for value in (name, name, new)]
    try:
        [row] = session.execute(f"SELECT {each}", values)
    except StatementFailed as error:
        if error.sqlstate != _INVALID_VALUE:
            raise
        name, value = _refused(settings, error)
        tree = f"; the join order is {shortened(value)!r}" if name == _JOIN_ORDER else ""
        raise SteeringError(f"PostgreSQL did not take {name}: {_detail(error)}{tree}") from error
    except ValueError as error:  # of psycopg2: NUL, or half a character
        raise SteeringError(f"PostgreSQL takes no such text for {' or '.join(settings)}: {error}") from error
    return dict(zip(settings, map(str, row[::2]), strict=True))


def _refused(settings: Mapping[str, str], error: StatementFailed) -> tuple[str, str]:
    """Return the setting that PostgreSQL's message names before its value, in whatever language."""
    message = error.reason.split(":")[0]
    named = [one for one in settings.items() if one[0] in message]
    return max(named or settings.items(), key=lambda one: len(one[0]))


def _put_back(session: Session, settings: Mapping[str, str]) -> None:
    """Set settings, except in a closed session and in a failed transaction, which undoes its settings by itself."""
    if session.closed or not settings:
        return
    each = ", ".join(["set_config(%s, %s, false)"] * len(settings))
    try:
        session.execute(f"SELECT {each}", [value for one in settings.items() for value in one])
    except StatementFailed as error:
        if error.sqlstate != _FAILED_TRANSACTION:
            raise


def _detail(error: StatementFailed) -> str:
    """Return the mistake that the library found; PostgreSQL's own message repeats the whole value."""
    cause = error.__cause__
    detail = cause.diag.message_detail if isinstance(cause, psycopg2.Error) else None
    return detail or str(error)

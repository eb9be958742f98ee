"""
The databases of `--drift`: the data before, the data after with the statistics as they were, and the same after ANALYZE.

The data before `time` are the past: what came later is set aside in the database that copies are made from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

from pytest_pilotscope.postgres.databases import mark_of, write_mark
from pytest_pilotscope.postgres.drift.arrivals import forget_aside
from pytest_pilotscope.postgres.drift.data import drift_data, go_back
from pytest_pilotscope.postgres.fingerprint import content_fingerprint, fingerprint

if TYPE_CHECKING:
    from pytest_pilotscope.options.drifts import Drift
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftedDatabases:
    """
    The data `before` a `drift`, and two copies with the data after it: `unanalyzed` has the statistics as they were, `analyzed` fresh ones.

    ANALYZE took `analyze_s`. `rows` has those of each table before and after.
    """

    drift: Drift
    before: Database
    unanalyzed: Database
    analyzed: Database
    analyze_s: float
    rows: Mapping[str, tuple[int, int]]


@contextmanager
def drifted_databases(database: Database, drift: Drift, seed: int) -> Iterator[DriftedDatabases]:
    """Copy a database, let the data drift, and give all three; drop the copies at the end. Raise DatasetError if none may be made here."""
    if not drift.changes_data:
        yield DriftedDatabases(drift=drift, before=database, unanalyzed=database, analyzed=database, analyze_s=0.0, rows={})
        return
    with database.copyable() as before, before.copy() as copy:
        with copy.session() as session:
            rows = drift_data(session, drift.kind, drift.amount, seed)
            _mark_anew(session)
            unanalyzed = _described(copy, session)
        with replace(unanalyzed, copy_source=None).copy() as second:
            with second.session() as session:
                began_s = perf_counter()
                session.execute("ANALYZE")
                analyze_s = perf_counter() - began_s
                analyzed = _described(second, session)
            yield DriftedDatabases(drift=drift, before=before, unanalyzed=unanalyzed, analyzed=analyzed, analyze_s=analyze_s, rows=rows)


@contextmanager
def past_database(database: Database, drift: Drift, say: Callable[[str], None]) -> Iterator[Database]:
    """
    Copy a database as it was at the time of the drift, and give the copy; its own copies have also what came later, set aside.

    Raise DatasetError if no column dates the rows, or none came later.
    """
    with database.copyable() as whole, whole.copy() as source:
        with source.session() as session:
            chosen = drift.column.split("+") if drift.column else ()
            say(go_back(session, drift.amount, known=getattr(database.dataset, "dates", {}), chosen=chosen))
        with replace(source, copy_source=None).copy() as past:
            with past.session() as session:
                forget_aside(session)
                _mark_anew(session)
                described = _described(past, session)
            yield replace(described, copy_source=source.name)


def _mark_anew(session: Session) -> None:
    """Write the fingerprint of the data as they are now."""
    mark = mark_of(session, session.database) or {}
    write_mark(session, session.database, {**mark, "data": content_fingerprint(session)})


def _described(database: Database, session: Session) -> Database:
    """Return a database with the fingerprint that it has now, and nothing that copies could be made from by its name."""
    found = fingerprint(session)
    report = replace(database.report, statistics=found.statistics)
    return replace(database, fingerprint=found, report=report, copy_source=None)

"""Find the changes that an algorithm has prepared, indexes and settings, by comparing its database with the baseline's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import StatementFailed
from pytest_pilotscope.postgres.databases import our_name
from pytest_pilotscope.postgres.indexes import ExistingIndex, existing_indexes
from pytest_pilotscope.postgres.knobs import read_knobs
from pytest_pilotscope.postgres.server import non_default_settings
from pytest_pilotscope.postgres.write_cost import WriteCost, write_cost
from pytest_pilotscope.record.results import BuiltIndex, ChangedSetting, Preparation

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database

logger = logging.getLogger(__name__)


def preparation_of(side: str, session: Session, prepared: Session, *, own: Database, database: Database) -> Preparation:
    """
    Compare the session of a side, `prepared`, in its database `own`, with that of the baseline in `database`.

    If the side has a copy for itself, measure there what each of its indexes adds to the cost of writing.
    """
    before = {(index.schema, index.definition) for index in existing_indexes(session)}
    after = {(index.schema, index.definition): index for index in existing_indexes(prepared)}
    built = [index for key, index in after.items() if key not in before]
    copied = own.name != database.name and own.name == our_name(own.name)
    return Preparation(
        side=side,
        indexes=tuple(_indexes(built, own if copied else None)),
        dropped=tuple(definition for schema, definition in sorted(before - after.keys())),
        settings=tuple(_settings(non_default_settings(session), prepared, database.report.settings)),
    )


def _indexes(built: list[ExistingIndex], copy: Database | None) -> Iterator[BuiltIndex]:
    for index in built:
        cost = _cost(index, copy) if copy is not None else None
        yield BuiltIndex(
            schema=index.schema,
            table=index.table,
            name=index.name,
            definition=index.definition,
            size_bytes=index.size_bytes,
            inserted_rows=cost.rows if cost else None,
            insert_ms=cost.without_ms if cost else (),
            insert_with_index_ms=cost.with_ms if cost else (),
            wal_bytes=cost.wal_bytes if cost else None,
        )


def _cost(index: ExistingIndex, copy: Database) -> WriteCost | None:
    """Measure a btree over columns; others, and those that PostgreSQL refuses to measure, have no cost in the record."""
    if index.index is None:
        return None
    try:
        with copy.session() as session:
            return write_cost(session, index.index)
    except StatementFailed as error:
        logger.warning("the cost of writing with the index %s is not measured: %s", index.name, error)
        return None


def _settings(baseline: Mapping[str, str], prepared: Session, before: Mapping[str, str]) -> Iterator[ChangedSetting]:
    """Yield the settings that the side has and the baseline has not, and those that the server has only since the run began."""
    after = non_default_settings(prepared)
    names = sorted(
        name for name in baseline.keys() | after.keys() | before.keys() if len({of.get(name) for of in (baseline, after, before)}) > 1
    )
    for name, knob in read_knobs(prepared, names).items():
        value = str(prepared.scalar("SELECT current_setting(%s)", (name,)))
        baseline_too = baseline.get(name) == after.get(name)
        if not baseline_too or knob.level == "reload":
            yield ChangedSetting(name=name, value=value, level=knob.level, before=before.get(name), baseline_too=baseline_too)

"""`pilotscope verify-labels`: compare labels with the counts of PostgreSQL, on the user's own queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pytest_pilotscope.commands.output import show_json
from pytest_pilotscope.commands.workload_queries import queries_of
from pytest_pilotscope.postgres.process import temporary_folder
from pytest_pilotscope.provision.database import open_database

if TYPE_CHECKING:
    from pytest_pilotscope.labels.verifying import Mismatch, Verification
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import PostgreSQLConfig
    from pytest_pilotscope.queries.queries import Query

_AT_ONCE = 100
"""The number of queries whose labels are computed together."""


def verify_labels(config: PostgreSQLConfig, queries: Path | None, *, limit: int | None, plans: int, timeout_ms: int) -> Verification:
    """Count the labels of a workload again and compare them. Without `queries`, use those of the dataset."""
    from pytest_pilotscope.labels.verifying import total

    with open_database(config) as database, database.measuring_session() as session:
        chosen = queries_of(database, queries)[:limit]
        parts = [chosen[start : start + _AT_ONCE] for start in range(0, len(chosen), _AT_ONCE)]
        found = []
        for number, part in enumerate(parts):
            first = number * _AT_ONCE
            click.echo(f"verifying queries {first + 1} to {first + len(part)} of {len(chosen)}", err=True)
            found.append(_verified(session, part, config.seed, plans, timeout_ms))
        return total(found)


def _verified(session: Session, queries: Sequence[Query], seed: int, plans: int, timeout_ms: int) -> Verification:
    from pytest_pilotscope.labels import cardinalities, read_schema
    from pytest_pilotscope.labels.verifying import verify

    with temporary_folder() as folder:
        labels = cardinalities(session, queries, schema=read_schema(session), fingerprint="", cache_dir=folder, timeout_ms=timeout_ms)
        rows = {query_id: {subplan: label.rows for subplan, label in found.items()} for query_id, found in labels.items()}
    return verify(session, queries, rows, plans=plans, seed=seed, timeout_ms=timeout_ms)


def show_verification(found: Verification, *, as_json: bool) -> None:
    """Show the numbers of comparisons, the reasons for sets without a count, and every difference in full."""
    if as_json:
        show_json(found)
        return
    for line in _described(found):
        click.echo(line)


def _described(found: Verification) -> Iterator[str]:
    without = sum(found.without_sql.values())
    yield f"{found.statements} statements, {found.sets} sets of relations"
    yield f"  {found.counted} counted by their SQL, {found.labelled} compared with their label"
    yield f"  {found.executed} compared with an executed plan node, {found.joins} of them joins"
    yield f"  {found.wholes} whole statements compared with their own COUNT(*)"
    yield f"  {without} without SQL ({without / max(found.sets, 1):.1%})"
    yield from (f"    {count}: {reason}" for reason, count in sorted(found.without_sql.items(), key=lambda item: -item[1]))
    yield from (f"  {count} not counted: {reason}" for reason, count in found.uncounted.items())
    yield from (f"  {query_id} not planned: {reason}" for query_id, reason in found.refused.items())
    for mismatch in found.mismatches:
        yield from _difference(mismatch)
    yield f"{len(found.mismatches)} sets differ" if found.mismatches else "no set differs"


def _difference(mismatch: Mismatch) -> Iterator[str]:
    yield f"DIFFERENT {mismatch.query_id}: {{{', '.join(sorted(mismatch.subplan))}}}"
    yield f"  label {_shown(mismatch.label)}, by SQL {_shown(mismatch.counted)}"
    yield from (f"  {one.rows} rows in {one.node}" for one in mismatch.executed)
    yield from (f"  {text}" for text in (mismatch.reason, mismatch.count_sql, mismatch.sql) if text)


def _shown(rows: int | None) -> str:
    return "none" if rows is None else f"{rows} rows"

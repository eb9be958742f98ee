"""`pilotscope subplans`: write every subplan of a workload, for programs that estimate them elsewhere."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.commands.workload_queries import queries_of
from pytest_pilotscope.errors import StatementFailed, UsageError
from pytest_pilotscope.places.privatefiles import open_private, write_private
from pytest_pilotscope.postgres.process import temporary_folder
from pytest_pilotscope.postgres.subplans import alias_text
from pytest_pilotscope.provision.database import open_database
from pytest_pilotscope.queries.joins import LeveledSubplan
from pytest_pilotscope.queries.meaning import NoCount

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import PostgreSQLConfig
    from pytest_pilotscope.queries.joins import Subplan
    from pytest_pilotscope.queries.queries import Query

logger = logging.getLogger(__name__)

Line = Mapping[str, Any]


def write_subplans(config: PostgreSQLConfig, queries: Path | None, output: Path, *, limit: int | None, true_rows: bool) -> int:
    """
    Write a line for each set of relations that the planner considers for the test queries; return their number.

    The name of `output` tells the format: .jsonl, .csv or .parquet. With `true_rows` each line has the true rows of its set.
    """
    if output.suffix not in WRITERS:
        raise UsageError(f"{output}: unknown kind of file {output.suffix!r}; let its name end in {', '.join(WRITERS)}")
    with open_database(config) as database, database.measuring_session() as session:
        chosen = queries_of(database, queries, ("test",))[:limit]
        known = _counted(session, chosen) if true_rows else {}
        lines = [line for query in chosen for line in _lines(session, query, known.get(query.id, {}), true_rows=true_rows)]
    WRITERS[output.suffix](output, lines)
    return len(lines)


def _counted(session: Session, queries: Sequence[Query]) -> dict[str, dict[Subplan, int]]:
    from pytest_pilotscope.labels import cardinalities, read_schema

    with temporary_folder() as folder:
        labels = cardinalities(session, queries, schema=read_schema(session), fingerprint="", cache_dir=folder)
        return {query.id: labels.rows(query.id) for query in queries}


def _lines(session: Session, query: Query, known: Mapping[Subplan, int], *, true_rows: bool) -> Iterator[Line]:
    from pytest_pilotscope.postgres.meaning import read_meaning

    try:
        statement = read_meaning(session, query.sql)
    except StatementFailed as error:
        logger.warning("query %s has no subplans: %s", query.id, error.reason)
        return
    for number, (subplan, (level, mask)) in enumerate(statement.subplans().items(), 1):
        sql, reason = None, None
        try:
            sql = level.count_sql(mask).sql
        except NoCount as error:
            reason = str(error)
        yield {
            "id": f"{query.id}/{number}",
            "query": query.id,
            "level": subplan.level if isinstance(subplan, LeveledSubplan) else None,
            "aliases": sorted(subplan),
            "sql": sql,
            "no_sql": reason,
            "postgresql_rows": level.rows[mask],
            **({"rows": known.get(subplan)} if true_rows else {}),
        }


def _write_json_lines(path: Path, lines: Sequence[Line]) -> None:
    write_private(path, "".join(f"{json.dumps(line)}\n" for line in lines))


def _write_csv(path: Path, lines: Sequence[Line]) -> None:
    with open_private(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]) if lines else ["query", "aliases"])
        writer.writeheader()
        writer.writerows({**line, "aliases": " ".join(map(alias_text, line["aliases"]))} for line in lines)


def _write_parquet(path: Path, lines: Sequence[Line]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(list(lines)), path)


WRITERS: Mapping[str, Callable[[Path, Sequence[Line]], None]] = {
    ".jsonl": _write_json_lines,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
"""By the ending of the file."""

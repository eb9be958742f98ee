"""Loading the CSV files of a published dataset, into the tables of a schema file or into ours."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.datasets.columns import read_chunks
from pytest_pilotscope.errors import DatasetError, StatementFailed
from pytest_pilotscope.options.progress import Advance, silent
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.queries.predicates import quote_identifier

from .byte_progress import in_per_cent
from .dump import restore
from .source import Source

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session


def load_csv(session: Session, source: Source, files: Mapping[str, Path], schema: Path | None, advance: Advance) -> None:
    """
    Create the tables that have files, and load their rows; call `advance` for each per cent.

    Raise DatasetError, which names the file, for rows that do not fit.
    """
    if schema is None:
        for table in files:
            listed = ", ".join(f"{quote_identifier(name)} {kind}" for name, kind in source.tables[table].items())
            session.execute(f"CREATE TABLE {quote_identifier(table)} ({listed})")
    else:
        with silent("", 0) as nothing:
            restore(session, schema, nothing)
        for table in source.tables.keys() - files.keys():
            session.execute(f"DROP TABLE IF EXISTS {quote_identifier(table)} CASCADE")  # empty, it would give wrong answers
    known = read_schema(session)
    missing = [table for table in sorted(files) if table not in known]
    if missing:
        raise DatasetError(f"{schema} creates no table {missing[0]!r}; remove it, and the published tables are created")
    show = in_per_cent(sum(path.stat().st_size for path in files.values()), advance)
    before = 0
    for table, path in sorted(files.items()):
        _load(session, source, table, path, list(known[table]), before, show)
        before += path.stat().st_size


def _load(session: Session, source: Source, table: str, path: Path, columns: list[str], before: int, show: Callable[[int], None]) -> None:
    named = _header(path, table, columns) if source.header else columns
    listed = ", ".join(map(quote_identifier, named))
    options = source.csv + (", HEADER true" if source.header else "")
    try:
        chunks = read_chunks(path, lambda done_bytes: show(before + done_bytes))
        session.copy_from(f"COPY {quote_identifier(table)} ({listed}) FROM STDIN WITH ({options})", chunks)
    except StatementFailed as error:
        raise DatasetError(f"{path} does not fit table {table!r} ({', '.join(named)}): {error}") from error


def _header(path: Path, table: str, columns: list[str]) -> list[str]:
    """Return the columns in the order of the file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            named = [name.strip().lower() for name in next(csv.reader(file), [])]
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: byte {error.object[error.start]:#04x} is not UTF-8; save the file as UTF-8") from error
    if sorted(named) != sorted(columns):
        raise DatasetError(f"the first line of {path} names {', '.join(named) or 'nothing'}; table {table!r} has {', '.join(columns)}")
    return named

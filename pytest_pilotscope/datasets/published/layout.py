"""Recognising the layout of a dataset's files: a dump of PostgreSQL, a CSV file for each table, or an archive of these."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_pilotscope.errors import DatasetError

from .dump_text import dump_files, is_dump, is_in_own_format
from .source import Source
from .unpack import is_archive

logger = logging.getLogger(__name__)

SCHEMAS = ("schema.sql", "schematext.sql", "stats.sql")
"""Names under which a schema lies beside CSV files."""

_QUERY_FILES = ("train.sql", "validation.sql", "test.sql")
_DEPTH = 2
"""Levels of folders that are searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The files to load: an `archive` of one of the others, a `dump`, or `csv` files by table with or without a `schema`."""

    archive: Path | None = None
    dump: Path | None = None
    csv: Mapping[str, Path] | None = None
    schema: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that decides what is loaded, in a fixed order."""
        found = [path for path in (self.archive, self.schema) if path is not None]
        if self.dump is not None:
            found += dump_files(self.dump)
        return (*found, *(path for _, path in sorted((self.csv or {}).items())))


def layout_of(source: Source, path: Path) -> Layout:
    """Return the layout of a file or a folder; raise DatasetError, with what was expected, if it has none or several."""
    if path.is_file():
        return _of_file(source, path)
    if is_dump(path):
        return Layout(dump=path)
    files = sorted(_files(path))
    csv = _csv_files(source, files)
    schemas = [file for file in files if csv and file.name in SCHEMAS]
    dumps = [file for file in files if file not in schemas and _may_be_dump(file) and is_dump(file)]
    archives = [file for file in files if file.name.endswith((".tar.gz", ".tgz", ".tar")) and file not in dumps and is_archive(file)]
    found = [*dumps, *archives] + ([path] if csv else [])
    if len(found) > 1:
        named = ", ".join(str(one) for one in found)
        raise DatasetError(
            f"dataset {source.name!r}: {path} holds more than one copy of the data; name one of these with --data-dir: {named}"
        )
    if csv:
        return Layout(csv=csv, schema=schemas[0] if schemas else None)
    if dumps:
        return Layout(dump=dumps[0])
    if archives:
        return Layout(archive=archives[0])
    raise DatasetError(
        f"dataset {source.name!r}: nothing to load in {path}; it may hold {source.archive}, a dump of PostgreSQL (.sql, .sql.gz, .dump), "
        f"or the files {', '.join(f'{table}.csv' for table in list(source.tables)[:2])}, ... of all {len(source.tables)} tables"
    )


def _of_file(source: Source, path: Path) -> Layout:
    if is_archive(path) and not is_in_own_format(path):
        return Layout(archive=path)
    if is_dump(path):
        return Layout(dump=path)
    raise DatasetError(
        f"dataset {source.name!r}: {path} is neither a dump of PostgreSQL nor a tar archive with one or with CSV files in it"
    )


def _files(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_file():
            yield path
        elif path.is_dir() and depth:
            yield from _files(path, depth - 1)


def _may_be_dump(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith((".sql", ".sql.gz", ".dump", ".pgdump", ".backup", ".tar")) and name not in _QUERY_FILES


def _csv_files(source: Source, files: list[Path]) -> dict[str, Path] | None:
    """Return the CSV files by table, None if there are none; name the tables without one. Raise DatasetError for two of one table."""
    by_name: dict[str, Path] = {}
    for path in files:
        if path.suffix.lower() == ".csv" and path.stem.lower() in source.tables:
            if path.stem.lower() in by_name:
                both = f"{by_name[path.stem.lower()]} and {path}"
                raise DatasetError(f"dataset {source.name!r}: two files for table {path.stem.lower()!r}: {both}; remove one")
            by_name[path.stem.lower()] = path
    missing = [table for table in source.tables if table not in by_name]
    if by_name and missing:
        logger.warning(
            "dataset %r: %d of %d CSV files found in %s; these tables are not there, and a query that needs one is refused: %s",
            *(source.name, len(by_name), len(source.tables), files[0].parent, ", ".join(missing)),
        )
    return by_name or None

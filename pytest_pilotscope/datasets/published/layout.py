"""Which of the known layouts some files have: a dump of PostgreSQL, or a CSV file for each table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_pilotscope.errors import DatasetError

from .dump import is_dump
from .source import Source
from .unpack import is_archive

SCHEMAS = ("schema.sql", "schematext.sql", "stats.sql")
"""Names under which a schema lies beside CSV files."""

_QUERY_FILES = ("train.sql", "validation.sql", "test.sql")
_DEPTH = 2
"""How many folders deep files are looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is to be loaded: an `archive` with one of the others in it, a `dump`, or `csv` files by table with or without a `schema`."""

    archive: Path | None = None
    dump: Path | None = None
    csv: Mapping[str, Path] | None = None
    schema: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that decides what is loaded, in a fixed order."""
        found = [path for path in (self.archive, self.schema) if path is not None]
        if self.dump is not None:
            found += sorted(self.dump.iterdir()) if self.dump.is_dir() else [self.dump]
        return (*found, *(path for _, path in sorted((self.csv or {}).items())))


def layout_of(source: Source, place: Path) -> Layout:
    """Recognise what lies at `place`, a file or a folder; DatasetError says what was looked for and what was found instead."""
    if place.is_file():
        return _of_file(source, place)
    if is_dump(place):
        return Layout(dump=place)
    files = sorted(_files(place))
    csv = _csv_files(source, files)
    schemas = [path for path in files if csv and path.name in SCHEMAS]
    dumps = [path for path in files if path not in schemas and _may_be_dump(path) and is_dump(path)]
    archives = [path for path in files if path.name.endswith((".tar.gz", ".tgz", ".tar")) and is_archive(path)]
    found = [*dumps, *archives] + ([place] if csv else [])
    if len(found) > 1:
        named = ", ".join(str(path) for path in found)
        raise DatasetError(
            f"dataset {source.name!r}: {place} holds more than one copy of the data; name one of these with --data-dir: {named}"
        )
    if csv:
        return Layout(csv=csv, schema=schemas[0] if schemas else None)
    if dumps:
        return Layout(dump=dumps[0])
    if archives:
        return Layout(archive=archives[0])
    raise DatasetError(
        f"dataset {source.name!r}: nothing to load in {place}; it may hold {source.archive}, a dump of PostgreSQL (.sql, .sql.gz, .dump), "
        f"or the files {', '.join(f'{table}.csv' for table in list(source.tables)[:2])}, ... of all {len(source.tables)} tables"
    )


def _of_file(source: Source, path: Path) -> Layout:
    if is_archive(path):
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
    return name.endswith((".sql", ".sql.gz", ".dump", ".pgdump", ".backup")) and name not in _QUERY_FILES


def _csv_files(source: Source, files: list[Path]) -> dict[str, Path] | None:
    """The CSV files by table; None when there are none, DatasetError when some are missing."""
    by_name: dict[str, Path] = {}
    for path in files:
        if path.suffix.lower() == ".csv" and path.stem.lower() in source.tables:
            if path.stem.lower() in by_name:
                both = f"{by_name[path.stem.lower()]} and {path}"
                raise DatasetError(f"dataset {source.name!r}: two files for table {path.stem.lower()!r}: {both}; remove one")
            by_name[path.stem.lower()] = path
    missing = [table for table in source.tables if table not in by_name]
    if by_name and missing:
        raise DatasetError(
            f"dataset {source.name!r}: {len(by_name)} of {len(source.tables)} CSV files found in {files[0].parent}; "
            f"missing: {', '.join(f'{table}.csv' for table in missing)}"
        )
    return by_name or None

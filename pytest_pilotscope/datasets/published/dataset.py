"""A published dataset: finding or fetching its files, loading and indexing them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.datasets.files import find_workload
from pytest_pilotscope.errors import DatasetError, MissingWorkload, UsageError
from pytest_pilotscope.options.progress import ShowProgress, silent
from pytest_pilotscope.places.folders import cache_folder, cache_subfolder
from pytest_pilotscope.postgres.catalog import indexed_columns, read_schema
from pytest_pilotscope.postgres.process import temporary_folder
from pytest_pilotscope.postgres.unprivileged import unprivileged
from pytest_pilotscope.queries.predicates import quote_identifier
from pytest_pilotscope.queries.queries import Workload
from pytest_pilotscope.queries.splitting import without_test_queries

from . import imdb, stats
from .byte_progress import WHOLE
from .csvfiles import load_csv
from .download import fetch, sha256_of
from .dump import restore
from .layout import Layout, layout_of
from .source import Source
from .unpack import unpack

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

SOURCES: Mapping[str, Source] = {source.name: source for source in (stats.SOURCE, imdb.SOURCE)}

MIRROR = "PILOTSCOPE_MIRROR"
"""Environment variable: the address of a folder to fetch the archives from instead."""

VERSION = 1
"""Part of the key: raise it when the same files would be loaded differently."""


class PublishedDataset:
    """
    STATS-CEB (`stats`) or the data of the Join Order Benchmark (`imdb`).

    `data_dir` is a file or a folder with a copy of the data, in any layout that was published; without it the public archive is
    fetched once into the cache. The data has one size, so `scale` must be None; `seed` has no effect.
    """

    def __init__(self, *, name: str, scale: float | None = None, seed: int = 0, data_dir: Path | None = None) -> None:
        if scale is not None:
            raise UsageError(f"dataset {name!r} has one size, so it takes no --scale; stats_synthetic and tpch can be made in any size")
        if data_dir is not None and not data_dir.exists():
            raise DatasetError(f"dataset {name!r}: there is no {data_dir}; --data-dir names a file or a folder with the data")
        self.name = name
        self.source = SOURCES[name]
        self.show_progress: ShowProgress = silent
        self._data_dir = data_dir

    @property
    def database(self) -> str:
        """The name of the dataset, so that it is recognised in psql."""
        return self.name

    @cached_property
    def key(self) -> str:
        """The checksum of the loaded files."""
        if self._data_dir is None:
            return f"{self.name}-v{VERSION}-{self.source.sha256}"
        digest = hashlib.sha256()
        for path in self._layout.files:
            digest.update(f"{path.name}\0{sha256_of(path)}\0".encode())
        return f"{self.name}-v{VERSION}-{digest.hexdigest()}"

    @property
    def references(self) -> Mapping[tuple[str, str], str]:
        """The foreign keys, which the published database does not declare: (table, column) -> table, whose key is `id`."""
        return self.source.references

    def load(self, session: Session) -> None:
        """Load the tables and index every key that has no index, without a superuser's rights: rows make PostgreSQL check conditions."""
        layout = self._layout if self._data_dir is not None else self._fetched()
        with unprivileged(session) as loading:
            with self._unpacked(layout) as unpacked, self.show_progress(f"loading {self.name}, in %", WHOLE) as advance:
                if unpacked.csv is not None:
                    load_csv(loading, self.source, unpacked.csv, unpacked.schema, advance)
                elif unpacked.dump is not None:
                    restore(loading, unpacked.dump, advance)
            self._index(loading, self.source.tables if unpacked.csv is None else unpacked.csv)

    def workload(self) -> Workload:
        """Return the queries in the data folder; if there are none, raise `MissingWorkload`, which says where to get them."""
        found = find_workload(self._data_dir, self.name) if self._data_dir is not None and self._data_dir.is_dir() else None
        if found is None:
            raise MissingWorkload(f"dataset {self.name!r} comes without queries: name yours with --queries-dir; {self.source.queries}")
        return without_test_queries(found)

    @cached_property
    def _layout(self) -> Layout:
        assert self._data_dir is not None  # noqa: S101  # both callers look first
        layout = layout_of(self.source, self._data_dir)
        if layout.archive is not None and layout.archive.name == self.source.archive:
            found = sha256_of(layout.archive)
            if found != self.source.sha256:
                raise DatasetError(
                    f"{layout.archive} is not the published archive: its SHA-256 is {found}, expected {self.source.sha256}; fetch it again "
                    f"from {self.source.url}, or give it another name if it is meant to be different"
                )
        return layout

    def _fetched(self) -> Layout:
        """Fetch the public archive if the cache does not have it, and return its layout."""
        path = cache_subfolder("downloads") / self.source.archive
        mirror = os.environ.get(MIRROR)
        url = f"{mirror.rstrip('/')}/{self.source.archive}" if mirror else self.source.url
        try:
            fetch(url, self.source.sha256, path, show_progress=self.show_progress, limit_bytes=self.source.limit_bytes)
        except DatasetError as error:
            raise DatasetError(
                f"dataset {self.name!r} is missing: {error}. Fetch {self.source.url} where there is a network (SHA-256 "
                f"{self.source.sha256}) and put it to {path}, or name a copy of the data with --data-dir"
            ) from error
        return Layout(archive=path)

    @contextmanager
    def _unpacked(self, layout: Layout) -> Iterator[Layout]:
        """Unpack an archive into a temporary folder for the length of the block."""
        if layout.archive is None:
            yield layout
            return
        with temporary_folder(cache_folder(), f"{self.name}-") as folder:
            unpack(layout.archive, folder, limit_bytes=self.source.limit_bytes)
            inside = layout_of(self.source, folder)
            if inside.archive is not None:
                raise DatasetError(
                    f"{layout.archive} holds another archive, {inside.archive.name}; unpack it and name that with --data-dir"
                )
            yield inside

    def _index(self, session: Session, tables: Collection[str]) -> None:
        """Add a primary key `id` and an index on every reference to these tables, if the files did not."""
        schema = read_schema(session)
        missing = [table for table in tables if table not in schema]
        if missing:
            raise DatasetError(f"dataset {self.name!r}: the loaded files have no table {missing[0]!r}; name other ones with --data-dir")
        indexed = indexed_columns(session)
        for table in tables:
            if (table, "id") not in indexed:
                session.execute(f"ALTER TABLE {quote_identifier(table)} ADD PRIMARY KEY (id)")
        for table, column in self.source.references:
            if (table, column) not in indexed and column in schema.get(table, ()):
                session.execute(f"CREATE INDEX ON {quote_identifier(table)} ({quote_identifier(column)})")

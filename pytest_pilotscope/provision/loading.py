"""Load, index, vacuum, analyze and mark datasets; cache them as data directories for servers started here."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_pilotscope.datasets.base import Dataset
from pytest_pilotscope.errors import DatasetError, PilotscopeError, ServerError, StatementFailed
from pytest_pilotscope.places.account import server_account
from pytest_pilotscope.postgres.binaries import Binaries
from pytest_pilotscope.postgres.clustercache import ClusterCache, cluster_key
from pytest_pilotscope.postgres.databases import (
    create_database,
    drop_database,
    drop_leftovers,
    hold,
    locked,
    make_copy,
    mark_of,
    our_name,
    rename_database,
    require_databases,
    unique_name,
    write_mark,
)
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.fingerprint import content_fingerprint
from pytest_pilotscope.postgres.server import Server
from pytest_pilotscope.postgres.session import Session

LAYOUT_VERSION = 3
"""Part of every key: raise it when the steps here after loading change."""

STATISTICS_TARGET = 10_000
"""
The largest value: ANALYZE reads 300 times as many rows, hence every row of a table of up to 3 million, and finds the same every time.

It is set on one column of each table, a unique one where there is one; partitioned tables have statistics of their own, over the rows of
all partitions. That decides the number of rows read for all columns, while the others keep PostgreSQL's usual 100 most common values: with
10000 of them on both sides of a join the planner compares 10^8 pairs for every join that it considers, and plans far longer than real
servers do.
"""

_WIDEST_COLUMN = """
    SELECT DISTINCT ON (c.oid)
        format('ALTER TABLE ONLY %%I.%%I ALTER COLUMN %%I SET STATISTICS %%s', n.nspname, c.relname, a.attname, %s::int)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisunique AND i.indnatts = 1 AND i.indkey[0] = a.attnum AND i.indpred IS NULL
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    ORDER BY c.oid, i.indexrelid IS NULL, a.attnum
"""

_DISK_FULL = "53100"
_NEARLY_FULL_BYTES = 32 << 20  # two WAL files: PostgreSQL deletes the one it could not fill, and stops

logger = logging.getLogger(__name__)


def loaded_name(dataset: Dataset) -> str:
    """
    Return the name of the database that holds a dataset as it was loaded.

    Nobody works in it: it is the source of copies, and PostgreSQL copies a database only while nobody is connected to it.
    """
    return our_name(dataset.database, f"_{content_key(dataset)[:8]}")


def content_key(dataset: Dataset) -> str:
    """Return a hash of the dataset's key and `LAYOUT_VERSION`, as hex digits."""
    return hashlib.sha256(f"{dataset.key}\0{LAYOUT_VERSION}".encode()).hexdigest()[:16]


def prepared_cluster(dataset: Dataset, binaries: Binaries) -> Path:
    """
    Return the cached data directory that holds `dataset` in the database `loaded_name(dataset)`, and in a copy of it to work in,
    `our_name(dataset.database)`; make it when it is not there yet.

    Raise DatasetError when the disk is full, with path and size. After any failure nothing half-made is left.
    """
    clusters, key = ClusterCache(server_account()), cluster_key(dataset.database, content_key(dataset), binaries)
    with clusters.missing(key, binaries) as data_folder:
        if data_folder is not None:
            logger.info("preparing dataset %r for %s", dataset.name, binaries)
            with _naming_a_full_disk(dataset, data_folder.parent), EmbeddedServer(binaries) as server:
                with _noticing_a_full_disk(server):
                    load_database(server, dataset)
                    with server.connect() as keeper:
                        make_copy(server, keeper, loaded_name(dataset), our_name(dataset.database))
                server.stop(keep_data=data_folder)
    return clusters.data_folder(key)


def load_database(server: Server, dataset: Dataset) -> None:
    """
    Load `dataset` into its database on `server`, unless it is there. Of two processes at once, one loads and the other waits.

    The database gets its name when it is complete. Raise DatasetError when databases may not be made there, or when somebody else made a
    database of that name.
    """
    name = loaded_name(dataset)
    with server.connect() as administrator, locked(administrator, name):
        mark = mark_of(administrator, name)
        if mark is not None and mark.get("state") == "complete":
            return
        if mark is not None:
            raise DatasetError(
                f"database {name!r} on the server was not made by pilotscope; drop or rename it, dataset {dataset.name!r} wants the name"
            )
        require_databases(server, f"loading dataset {dataset.name!r}", name)
        drop_leftovers(administrator)  # half-loaded by a process that was killed
        _load(server, administrator, dataset)


def _load(server: Server, administrator: Session, dataset: Dataset) -> None:
    unfinished = unique_name(loaded_name(dataset))
    hold(administrator, unfinished)
    identity = {"dataset": dataset.name, "key": content_key(dataset)}
    create_database(administrator, unfinished, {**identity, "state": "loading"})
    try:
        with server.connect(unfinished) as session:
            data = _fill(session, dataset)
        write_mark(administrator, unfinished, {**identity, "state": "complete", "data": data})
        rename_database(administrator, unfinished, loaded_name(dataset))
    except BaseException:
        with suppress(ServerError):  # the server may be broken; its next user knows the leftover by its name
            drop_database(administrator, unfinished)
        raise


def _fill(session: Session, dataset: Dataset) -> str:
    """Load, vacuum and analyze; return the fingerprint of the rows."""
    dataset.load(session)
    if session.scalar("SHOW autovacuum") == "on":  # a given server: keep autovacuum from these tables, and them only
        for (statement,) in session.execute(
            "SELECT format('ALTER TABLE %I.%I SET (autovacuum_enabled = off)', schemaname, tablename) FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ):
            session.execute(statement)
    vacuum_analyze(session)
    return content_fingerprint(session)


def vacuum_analyze(session: Session) -> None:
    """Vacuum and analyze the session's database from every row, so that two servers with the same data have the same statistics."""
    for (statement,) in session.execute(_WIDEST_COLUMN, (STATISTICS_TARGET,)):
        session.execute(statement)
    session.execute("VACUUM (FREEZE, ANALYZE)")


@contextmanager
def _noticing_a_full_disk(server: EmbeddedServer) -> Iterator[None]:
    """Raise OSError ENOSPC for a failure that comes from a full disk; check while the files that fill it are still there."""
    no_space = os.strerror(errno.ENOSPC)
    try:
        yield
    except PilotscopeError as error:
        refused = isinstance(error, StatementFailed) and error.sqlstate == _DISK_FULL
        nearly_full = shutil.disk_usage(server.data_folder).free < _NEARLY_FULL_BYTES
        if refused or nearly_full or no_space in server.log.read_text(errors="replace"):
            raise OSError(errno.ENOSPC, no_space, str(server.data_folder)) from error
        raise


@contextmanager
def _naming_a_full_disk(dataset: Dataset, folder: Path) -> Iterator[None]:
    free_bytes = shutil.disk_usage(folder).free
    try:
        yield
    except (OSError, PilotscopeError) as error:
        if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT) and os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise DatasetError(
            f"cannot prepare dataset {dataset.name!r} in {folder.parent}: the disk is full; "
            f"{free_bytes} bytes were free and it needs more; make room, or set PILOTSCOPE_CACHE to a folder on a larger disk"
        ) from error

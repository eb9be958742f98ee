"""
Short hashes of everything that has to be equal for two measurements to be comparable.

Equal content has equal hashes on any two servers of the same byte order: they do not depend on file names, row order or the clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from psycopg2 import sql

from pytest_pilotscope.postgres.catalog import unreadable_relations
from pytest_pilotscope.postgres.databases import mark_of
from pytest_pilotscope.postgres.server import non_default_settings
from pytest_pilotscope.postgres.session import Session

LENGTH = 12
"""Hex digits of a fingerprint."""

EXACT_LIMIT_BYTES = 64 << 20
"""Up to this size the rows of a database that pilotscope did not load are hashed; above it, only the row counts of its statistics."""

_USER_SCHEMAS = "nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"

_TABLES = f"""
    SELECT n.nspname, c.relname, c.reltuples::bigint,
           (SELECT string_agg(format('%s %s', attname, format_type(atttypid, atttypmod)), ',' ORDER BY attnum)
            FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND {_USER_SCHEMAS} ORDER BY 1, 2
"""  # noqa: S608 - constants only
_PAGES = f"""
    SELECT n.nspname, c.relname, c.relpages, c.reltuples FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm', 'i') AND {_USER_SCHEMAS}
"""  # noqa: S608 - constants only
_COLUMN_STATISTICS = """
    SELECT md5(concat_ws('|', schemaname, tablename, attname, inherited, null_frac, avg_width, n_distinct, most_common_vals::text,
        most_common_freqs::text, histogram_bounds::text, correlation, most_common_elems::text, most_common_elem_freqs::text))
    FROM pg_stats WHERE schemaname NOT LIKE 'pg\\_%' AND schemaname <> 'information_schema'
"""
_EXTENDED_STATISTICS = """
    SELECT md5(s::text) FROM (SELECT statistics_schemaname, statistics_name, attnames, kinds, n_distinct, dependencies, most_common_vals,
        most_common_freqs FROM pg_stats_ext) s
"""
_INDEXES = f"""
    SELECT pg_get_indexdef(i.indexrelid), i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm', 'p') AND {_USER_SCHEMAS}
"""  # noqa: S608 - constants only
_BUILD = "SELECT version(), current_setting('debug_assertions'), current_setting('block_size'), current_setting('data_checksums')"


Contents = dict[tuple[str, str], tuple[Any, ...]]
"""Columns, number of rows and their hash by schema and table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """
    Five hashes, hex.

    `data`: columns, number and content of all rows (with `~` in front: too many rows to read, so columns and estimated row counts only).
    `statistics`: ANALYZE's results, extended statistics, and the sizes the planner uses. `settings`: all that differ from
    PostgreSQL's defaults and bear on plans or speed. `indexes`: their definitions. `build`: version, compiler, assertions, block size,
    checksums.
    """

    data: str
    statistics: str
    settings: str
    indexes: str
    build: str

    def as_mapping(self) -> Mapping[str, str]:
        """Return the five hashes by name."""
        return asdict(self)


def fingerprint(session: Session) -> Fingerprint:
    """Return the fingerprint of the session's database, settings and server. This reads the statistics; about 0.1 s for `stats_tiny`."""
    return Fingerprint(
        data=data_fingerprint(session),
        statistics=statistics_fingerprint(session),
        settings=settings_fingerprint(session),
        indexes=_digest(sorted(session.execute(_INDEXES))),
        build=_digest(session.execute(_BUILD)),
    )


def settings_fingerprint(session: Session) -> str:
    """Hash the settings of the session that differ from PostgreSQL's defaults and bear on plans or speed."""
    return _digest(sorted(non_default_settings(session).items()))


def statistics_fingerprint(session: Session) -> str:
    """Hash everything the planner knows about the data: pg_stats, extended statistics, pages and rows of tables and indexes."""
    rows = [session.execute(query) for query in (_COLUMN_STATISTICS, _EXTENDED_STATISTICS, _PAGES)]
    return _digest([sorted(part) for part in rows])


def data_fingerprint(session: Session) -> str:
    """Return the data fingerprint in the mark of a database loaded by pilotscope; compute that of any other as far as its size allows."""
    mark = mark_of(session, session.database) or {}
    if "data" in mark:
        return mark["data"]
    return content_fingerprint(session) if is_small(session) else f"~{_digest(session.execute(_TABLES))}"


def is_small(session: Session) -> bool:
    """Tell whether all rows of the database can be read for a fingerprint."""
    return bool(session.scalar("SELECT pg_database_size(current_database())") <= EXACT_LIMIT_BYTES)


def content_fingerprint(session: Session) -> str:
    """Hash every row of every table that the role may read; the order of rows and tables does not matter."""
    return _digest([(*name, *content) for name, content in table_contents(session).items()])


def table_contents(session: Session, *, rows: bool = True) -> Contents:
    """Return the columns of each table, by schema and name; if the role may read it, also its number of rows, and with `rows` a hash."""
    # r.* is the row even where a column is called r
    hashed = sql.SQL("coalesce(sum(hashtextextended((r.*)::text, 0)::numeric), 0)::text" if rows else "'0'")
    found: Contents = {}
    unreadable = unreadable_relations(session)
    for schema, table, _, columns in session.execute(_TABLES):
        if (schema, table) in unreadable:
            found[schema, table] = (columns,)
            continue
        statement = sql.SQL("SELECT count(*), {} FROM ONLY {} r").format(hashed, sql.Identifier(schema, table))
        found[schema, table] = (columns, session.execute(statement)[0])
    return found


def _digest(value: Iterable[Any]) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:LENGTH]

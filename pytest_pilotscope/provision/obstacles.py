"""The things that a server or a role cannot do, in words: the doctor and a run say the same, before anything is generated or trained."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import MissingExtension, named

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.server import Server
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database


def no_library(server: Server, database: str | None, who: str) -> str | None:
    """Return why `who` cannot steer the planner in a database of a server, and what to do about it; None if it can."""
    from pytest_pilotscope.postgres.container_server import ContainerServer
    from pytest_pilotscope.postgres.embedded import EmbeddedServer
    from pytest_pilotscope.postgres.given import GivenServer
    from pytest_pilotscope.postgres.steering import has_extension

    with server.connect(database) as session:
        if has_extension(session):
            return None
    if isinstance(server, GivenServer):
        where = f"database {database!r} on {server.dsn}" if database not in (None, server.database) else str(server.dsn)
        address, name = quote(str(server.dsn)), quote(server.database)
        return (
            f"{where} has no pilotscope library, so {who} cannot steer it; load it there: pilotscope install-library {address}, "
            f"or clone the database and measure the clone: pilotscope clone {address} -o {name}"
        )
    if isinstance(server, ContainerServer):
        return (
            f"image {server.image} has no pilotscope library, so {who} cannot steer it; build one that has it from "
            "docker/postgres/Dockerfile and name it in PILOTSCOPE_IMAGE (docs/servers.md)"
        )
    if isinstance(server, EmbeddedServer):
        from pytest_pilotscope.postgres.extension.build import build_library

        try:
            build_library(server.binaries.bindir)
        except MissingExtension as error:
            return f"{who} cannot steer this server: {error}"
    return f"this server was started without the pilotscope library, so {who} cannot steer it; start it again"


def unusable_relations(session: Session) -> Iterator[str]:
    """Yield a sentence for the tables that the role may not read, and one for the materialized views that are not populated."""
    from pytest_pilotscope.postgres.catalog import unpopulated_views, unreadable_relations

    parts = unreadable_relations(session).items()
    if unreadable := sorted(f"{schema}.{name}{f' ({part})' if part else ''}" for (schema, name), part in parts):
        role = session.scalar("SELECT current_user::text")
        usage = ", and USAGE of the schema," if any(part.startswith("schema ") for _, part in parts) else ""
        yield (
            f"role {role!r} may not read {named(unreadable)}; grant it SELECT{usage} where a query needs them, other queries go on without "
            "them"
        )
    if unpopulated := sorted(f"{schema}.{name}" for schema, name in unpopulated_views(session)):
        yield (
            f"not populated, so no query can read it: materialized view {named(unpopulated)}; run REFRESH MATERIALIZED VIEW where a query "
            "needs it, other queries go on without it"
        )


_OUTSIDE = """
    SELECT n.nspname::text, pg_catalog.quote_ident(n.nspname), pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS usable
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm', 'f', 'v') AND n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema'
        AND NOT pg_catalog.pg_table_is_visible(c.oid) AND (%(name)s IS NULL OR c.relname = %(name)s)
    GROUP BY n.oid, n.nspname ORDER BY n.nspname
"""
_PATH = "SELECT pg_catalog.quote_ident(s) FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) AS s"


def outside_search_path(database: Database, session: Session, name: str | None = None) -> str | None:
    """Return the schemas that have tables (of this name) and are not in the search path, and how to reach them; None without one."""
    from pytest_pilotscope.postgres.given import GivenServer

    server = database.server
    if not isinstance(server, GivenServer) or not (found := session.execute(_OUTSIDE, {"name": name})):
        return None
    usable = {schema: quoted for schema, quoted, may_use in found if may_use}
    if not usable:
        return f"schema {found[0][0]}, which role {server.role!r} may not use: grant it USAGE of the schema, and SELECT"
    path = ",".join([*usable.values(), *(schema for (schema,) in session.execute(_PATH))])
    noun = "schema" if len(usable) == 1 else "schemas"
    return f"{noun} {named(usable)}, outside of the search path: measure with {server.dsn.with_search_path(path)}"

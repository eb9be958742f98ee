"""
Sessions for SQL that somebody else wrote: it may change the database that it is in, and nothing else.

A superuser who runs `SET ROLE` first could be brought back by `set_config` in any expression, so the SQL runs in a session that has logged
in as another role. What that role makes stays its own: PostgreSQL evaluates the expressions of an index as the owner of the table, so a
superuser's ANALYZE runs them without a superuser's rights.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg2 import sql

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.secret import Secret
from pytest_pilotscope.postgres.connecting import as_role
from pytest_pilotscope.postgres.databases import RESTORER, locked
from pytest_pilotscope.postgres.session import Session

_POWERS = """
    SELECT rolname FROM pg_catalog.pg_roles
    WHERE pg_catalog.pg_has_role(session_user, oid, 'MEMBER')
    AND (rolsuper OR rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'))
    ORDER BY rolname
"""
_HAS_RIGHTS = """
    SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
        OR EXISTS (SELECT FROM pg_catalog.pg_auth_members WHERE member = r.oid)
    FROM pg_catalog.pg_roles AS r WHERE rolname = %s
"""
_NUMBERS_AND_TIMES = (
    "nextval", "currval", "lastval", "clock_timestamp", "timeofday", "random", "random_normal", "gen_random_uuid", "gen_random_bytes",
    "uuidv4", "uuidv7", "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4",
)  # fmt: skip
"""The volatile functions that defaults of tables have, and that do nothing but return a value."""

# Defaults and constraints run with the rights of whoever writes, which may be a superuser. The functions that they call are in the text of
# their parse trees only; those that reach files, settings or other sessions are volatile.
_CODE = """
    SELECT 'function ' || oid::regprocedure AS name FROM pg_proc AS p WHERE oid >= 16384 AND NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype IN ('i', 'e'))
    UNION ALL SELECT 'operator ' || oid::regoperator FROM pg_operator AS o WHERE oid >= 16384 AND NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_operator'::regclass AND objid = o.oid AND deptype = 'e')
    UNION ALL SELECT 'cast to ' || format_type(casttarget, NULL) FROM pg_cast AS c WHERE oid >= 16384 AND NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_cast'::regclass AND objid = c.oid AND deptype IN ('i', 'e'))
    UNION ALL SELECT 'trigger ' || quote_ident(tgname) FROM pg_trigger WHERE oid >= 16384 AND NOT tgisinternal
    UNION ALL SELECT 'view or rule on ' || ev_class::regclass FROM pg_rewrite AS r WHERE oid >= 16384 AND NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = r.ev_class AND deptype = 'e')
    UNION ALL SELECT 'policy ' || quote_ident(polname) FROM pg_policy WHERE oid >= 16384
    UNION ALL SELECT place || ', which calls ' || proname FROM (
        SELECT 'domain ' || contypid::regtype, conbin, true FROM pg_constraint WHERE contypid <> 0
        UNION ALL SELECT 'default of type ' || oid::regtype, typdefaultbin, false FROM pg_type
        UNION ALL SELECT 'constraint ' || quote_ident(conname) || ' of ' || conrelid::regclass, conbin, false
        FROM pg_constraint WHERE conrelid <> 0
        UNION ALL SELECT 'default of ' || adrelid::regclass || '.' || quote_ident(attname), adbin, false
        FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
    ) AS stored (place, tree, when_read), regexp_matches(tree::text, ':(?:op)?funcid (\\d+)', 'g') AS found (match), pg_proc AS called
    WHERE called.oid = match[1]::oid AND provolatile = 'v' AND (when_read OR proname <> ALL (%s))
    ORDER BY name LIMIT 1
"""


@contextmanager
def unprivileged(session: Session) -> Iterator[Session]:
    """
    Give a session in the same database whose role may neither read files, run programs nor act as a superuser; `session` if it is one.

    For a superuser's session that is one of the role `pilotscope_restorer`, which can log in for this moment only. Raise ServerError if
    that is not possible.
    """
    powers = [name for (name,) in session.execute(_POWERS)]
    if not powers:
        yield session
        return
    role = session.scalar("SELECT session_user::text")
    if not session.scalar("SELECT rolsuper FROM pg_roles WHERE rolname = session_user"):
        raise ServerError(f"SQL of others is not run as role {role!r}, which may act as {', '.join(powers)}; name another role in the DSN")
    with locked(session, RESTORER):
        password = Secret(secrets.token_urlsafe(24))
        _allow_login(session, password)
        try:
            restorer = as_role(session, RESTORER, password)
        except ServerError as error:
            raise ServerError(
                f"SQL of others is run as role {RESTORER!r}, because {role!r} is a superuser, and that cannot log in ({error}); "
                "let it in pg_hba.conf, or name a role in the DSN that is no superuser"
            ) from None
        finally:
            session.execute(sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(sql.Identifier(RESTORER)))
    with restorer:
        yield restorer


def _allow_login(session: Session, password: Secret) -> None:
    """Make the role if it is missing, and give it a password; it may make schemas and tables in the database of the session."""
    role = sql.Identifier(RESTORER)
    known = session.execute(_HAS_RIGHTS, (RESTORER,))
    if not known:
        session.execute(sql.SQL("CREATE ROLE {}").format(role))
    elif known[0][0]:
        raise ServerError(f"role {RESTORER!r} on the server has rights that it must not have; revoke them, or drop it")
    session.execute(sql.SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}").format(role))
    session.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(sql.Identifier(session.database), role))
    session.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(password.reveal())))


def code_in(session: Session) -> str | None:
    """
    Return the name of an object in this database that would run code of its maker when somebody uses the tables; None if there is none.

    The session must be in a transaction; names that the maker gave to other objects do not hide the catalog until its end.
    Code is also what runs when somebody writes to them: a default or a constraint that does more than return a value.
    """
    session.execute("SET LOCAL search_path = pg_catalog, pg_temp")
    found = session.execute(_CODE, (list(_NUMBERS_AND_TIMES),))
    return str(found[0][0]) if found else None

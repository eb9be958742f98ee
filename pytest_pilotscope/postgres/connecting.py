"""Open sessions: connection strings, the identity of servers that were started here, and what may heal by waiting."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import psycopg2
import psycopg2.extensions

from pytest_pilotscope.errors import CannotConnect, ServerError
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.places.secret import Secret
from pytest_pilotscope.postgres.environment import hidden_variables
from pytest_pilotscope.postgres.session import APPLICATION_NAME, Session

IDENTITY = "pilotscope_server.token"
"""The setting by which a server that was started here is known: each has another value, in its data directory."""

_MAY_HEAL = re.compile(
    "Is the server running|Connection (refused|reset|timed out)|closed the connection|timeout expired|No route to host|unreachable|"
    "temporarily unavailable|could not translate host name|starting up|shutting down|not yet accepting|in recovery mode|too many clients|"
    "slots are reserved"
)
# A server of ours has no password file, TLS or Kerberos. The file must not exist: libpq warns about any other kind than a plain file.
_OWN = {"passfile": "/dev/null/none", "sslmode": "disable", "gssencmode": "disable"}
# Who waits for an answer notices within 90 s that the network or the other machine is gone; by default after two hours.
_ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 6, "tcp_user_timeout": 90_000}
_SET_BY_CONNECT = ("application_name", "client_encoding")


def dsn_of(**keywords: str | int) -> Dsn:
    """Return a connection string of libpq's keywords, quoted as needed."""
    return Dsn(psycopg2.extensions.make_dsn(None, **keywords))


def connect(dsn: Dsn, *, token: str | None = None, **overrides: Any) -> Session:
    """
    Open a session; `overrides` are libpq's keywords, such as `dbname`, and win over the DSN.

    A server that was started here has a `token`. Then no environment variable, service or password file has a say, and another server that
    answers is refused. For other servers, the variables that set something in a session have none, and a network that is gone is noticed
    after a minute and a half, unless the DSN says how (`keepalives_idle` and the like).
    Raise ServerError when nothing answers, or only not yet, and CannotConnect for all else; the text names the DSN without the password.
    """
    given = _checked(dsn)
    own = {name: value for name, value in _ALIVE.items() if name not in given} if token is None else _OWN
    keywords = {"application_name": APPLICATION_NAME, "client_encoding": "utf8", **own, **overrides}
    connection = None
    try:
        with hidden_variables(everything=token is not None):  # psycopg2.connect would have the password among its variables
            connection = psycopg2.extensions.connection(psycopg2.extensions.make_dsn(dsn.reveal(), **keywords))
    except (psycopg2.Error, UnicodeError) as error:
        reason = " ".join(dsn.scrub(str(error)).split())
    if connection is None:
        kind = ServerError if _MAY_HEAL.search(reason) else CannotConnect
        raise kind(f"cannot connect to {dsn}: {reason}")  # not within `except`: the driver's error would show its variables
    try:
        session = Session(connection)
        if token is not None and session.scalar("SELECT current_setting(%s, true)", (IDENTITY,)) != token:
            raise CannotConnect(f"another server than the one that was started here answers at {dsn}: it does not have the token of ours")
        return session
    except BaseException:
        connection.close()
        raise


def as_role(session: Session, role: str, password: Secret) -> Session:
    """Open another session on the same server, in the same database, as another role."""
    token = session.scalar("SELECT current_setting(%s, true)", (IDENTITY,))  # that of a server of ours
    parameters = {name: value for name, value in session.parameters.items() if name not in _SET_BY_CONNECT}
    return connect(dsn_of(**parameters | {"user": role, "password": password.reveal()}), token=token)


def _checked(dsn: Dsn) -> Collection[str]:
    """Return the keywords of a DSN; raise ServerError if libpq would misread it: its own message would quote a piece of the password."""
    try:
        given = frozenset(psycopg2.extensions.parse_dsn(dsn.reveal()))
    except psycopg2.Error:
        readable = False
    else:
        readable = not dsn.ambiguous
    if not readable:
        raise ServerError(
            f"cannot read the connection string {dsn}: expected postgresql://user:password@host:port/database or key=value pairs; "
            "in a URL, write special characters of the password percent-encoded (@ is %40, / is %2F, : is %3A, % is %25)"
        )
    return given

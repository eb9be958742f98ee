"""
A server that the user named by its connection string. Only sessions are opened and marked databases made there; nothing else is touched.
"""

from __future__ import annotations

from collections.abc import Mapping

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.postgres.server import Capability, Provider, Server
from pytest_pilotscope.postgres.session import Session, connect

CONNECT_LIMIT_S = 10
"""Time limit for a server to answer."""

_RIGHTS = "SELECT rolsuper, rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user"


class GivenServer(Server):
    """
    The server behind a DSN. Connecting finds out the rights of the role.

    `read_only` promises that nothing is written at all: sessions are read-only, no database is made and no setting is changed.
    Raises ServerError when nothing answers, with the DSN (its password hidden) and what to do.
    """

    provider: Provider = "given"

    def __init__(self, dsn: Dsn, *, why: str = "--server", read_only: bool = False) -> None:
        self.dsn = dsn
        self.read_only = read_only
        self.why = why
        with self._first_session() as session:
            self.database = session.database
            self.version_num = session.server_version
            superuser, may_create = session.execute(_RIGHTS)[0]
        granted = {
            Capability.SUPERUSER: superuser and not read_only,
            Capability.LOAD_LIBRARY: superuser,
            Capability.CREATE_DATABASE: may_create and not read_only,
        }
        self.capabilities = frozenset(capability for capability, has in granted.items() if has)

    def __repr__(self) -> str:
        return f"GivenServer({str(self.dsn)!r})"

    def connect(self, database: str | None = None) -> Session:
        """Open a session in `database`, or in the one that the DSN names."""
        session = connect(self.dsn, **({} if database is None else {"dbname": database}), connect_timeout=CONNECT_LIMIT_S)
        if self.read_only:
            session.forbid_writing()
        return session

    def restart(self, settings: Mapping[str, str]) -> None:
        """Raise ServerError: other people may be working there."""
        raise ServerError(
            f"the server {self.dsn} is not ours, so it is not restarted with {', '.join(sorted(settings)) or 'other settings'}; "
            "use --server embedded or --server container"
        )

    def stop(self) -> None:
        """Do nothing: the server was running before and stays."""

    def _first_session(self) -> Session:
        try:
            return self.connect()
        except ServerError as error:
            raise ServerError(f"{error}; check host, port, user and password, and that the server is running") from None

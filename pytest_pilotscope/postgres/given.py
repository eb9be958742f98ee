"""A server that the user named by its connection string. Only sessions are opened there, unless the user has allowed a kind of change."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.postgres.connecting import connect
from pytest_pilotscope.postgres.environment import SESSION_VARIABLES
from pytest_pilotscope.postgres.server import Capability, Provider, Server
from pytest_pilotscope.postgres.session import Session

CONNECT_LIMIT_S = 10
"""Time limit for a server to answer."""

_CHANGES = {Capability.CREATE_DATABASE: "databases", Capability.ALTER_SYSTEM: "settings"}
"""The capabilities that change something outside of a session, by the name that `--allow-changes` has for them."""

_RIGHTS = """
    SELECT current_user, rolsuper, rolsuper OR rolcreatedb, rolsuper AND coalesce(current_setting('allow_alter_system', true), 'on') = 'on'
    FROM pg_roles WHERE rolname = current_user
"""

logger = logging.getLogger(__name__)


class GivenServer(Server):
    """
    The server behind a DSN. Connecting finds out the rights of the role.

    `allow_changes` are the kinds of changes that the user allows, `databases` and `settings`. `read_only` promises that nothing is written
    at all: sessions are read-only, and `allow_changes` counts for nothing.
    Raises ServerError when nothing answers, with the DSN (its password hidden) and what to do.
    """

    provider: Provider = "given"

    def __init__(self, dsn: Dsn, *, why: str = "--server", read_only: bool = False, allow_changes: Collection[str] = ()) -> None:
        self.dsn = dsn
        self.read_only = read_only
        self.why = why
        with self._first_session() as session:
            self.database = session.database
            self.version_num = session.server_version
            self.role, superuser, may_create, may_alter = session.execute(_RIGHTS)[0]
        rights = {
            Capability.SUPERUSER: superuser and not read_only,
            Capability.LOAD_LIBRARY: superuser,
            Capability.CREATE_DATABASE: may_create,
            Capability.ALTER_SYSTEM: may_alter,
        }
        self.rights = frozenset(capability for capability, has in rights.items() if has)
        self._withheld = {capability for capability, change in _CHANGES.items() if read_only or change not in allow_changes}
        self.capabilities = self.rights - self._withheld
        if ignored := sorted(os.environ.keys() & set(SESSION_VARIABLES)):
            logger.warning(
                "not passed on to the server, because it would change what is measured: %s; if you want it, write it into the DSN as "
                "options='-c name=value'",
                ", ".join(ignored),
            )

    def __repr__(self) -> str:
        return f"GivenServer({str(self.dsn)!r})"

    def refusal(self, capability: Capability) -> str:
        """Return why this server lacks a capability and what to do about it: the role's right, and the user's consent."""
        reasons = []
        if capability not in self.rights:
            remedy = f": have a superuser run ALTER ROLE {self.role} CREATEDB" if capability is Capability.CREATE_DATABASE else ""
            reasons.append(f"role {self.role!r} may not {capability.value} there{remedy}")
        if capability in self._withheld:
            reasons.append(
                "--read-only forbids it" if self.read_only else f"nobody has allowed that: add --allow-changes {_CHANGES[capability]}"
            )
        return ", and ".join(reasons)

    def needs_consent(self, capability: Capability) -> bool:
        """Tell whether the role has the right, and the user has said neither --allow-changes nor --read-only."""
        return not self.read_only and capability in self.rights - self.capabilities

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

"""The interface of a PostgreSQL server, whoever provides it, and its report."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal, Protocol

from pytest_pilotscope.errors import StatementFailed
from pytest_pilotscope.postgres.session import Session

if TYPE_CHECKING:
    from typing_extensions import Self

Provider = Literal["embedded", "container", "given"]


class Capability(enum.Enum):
    """A right or ability on a server; tests that need a missing one are skipped with that as the reason."""

    RESTART = "restart the server with other settings"
    CREATE_DATABASE = "create databases"
    LOAD_LIBRARY = "load a library from the server's disk"
    ALTER_SYSTEM = "change settings of the whole server"
    SUPERUSER = "act as superuser"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """
    The description of a server in a record.

    `why` tells how this server was chosen, `configure` the build's configure flags (empty where the role may not read them), `settings` all
    settings that differ from PostgreSQL's defaults and bear on plans or speed, `statistics` the fingerprint of the database's statistics
    or None.
    """

    provider: Provider
    why: str
    version: str
    version_num: int
    debug_assertions: bool
    optimized: bool | None
    configure: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    statistics: str | None = None

    @property
    def flags(self) -> str:
        """The build in words; assertions or a build without optimization make it 3-4 times slower."""
        assertions = "ASSERTIONS ON" if self.debug_assertions else "no assertions"
        optimized = {True: "optimized", False: "NOT OPTIMIZED", None: "optimization unknown"}[self.optimized]
        return f"{assertions}, {optimized}"

    @property
    def gateable(self) -> bool:
        """True when times of this build can be judged: not with assertions, nor without optimization."""
        return not self.debug_assertions and self.optimized is not False

    def header(self) -> str:
        """Return one line for pytest's header and the top of a report."""
        statistics = f"; statistics {self.statistics}" if self.statistics else ""
        return f"{self.provider} PostgreSQL {self.version} ({self.why}); {self.flags}{statistics}"


class Server(Protocol):
    """
    A running PostgreSQL; `connect` opens sessions, `stop` ends it if it was started here and does not touch it otherwise.

    `why` tells how it was chosen; `version_num` is PostgreSQL's version as one number, 160014 for 16.14.
    """

    provider: Provider
    capabilities: frozenset[Capability]
    why: str
    version_num: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def connect(self, database: str | None = None) -> Session:
        """Open a session in `database`, else in a database for administration; raise ServerError when the server does not answer."""

    def refusal(self, capability: Capability) -> str:
        """Return why this server lacks a capability and what to do about it; empty if it has it."""
        return "" if capability in self.capabilities else f"this server cannot {capability.value}"

    def needs_consent(self, capability: Capability) -> bool:
        """Tell whether nothing but the user's word is missing for a capability."""
        return False

    def changed_data(self) -> str:
        """Return why the loaded data are not as they were loaded any more; empty if they are."""
        return ""

    def restart(self, settings: Mapping[str, str]) -> None:
        """
        Restart with `settings` in place of those of the last restart; sessions break, and settings of ALTER SYSTEM may be gone.

        When PostgreSQL does not start with them, put the old ones back and raise ServerError.
        """

    def stop(self) -> None:
        """End the server and delete its files, if it was started here; stopping twice is fine."""

    def report(self) -> ServerReport:
        """Report the server's version, build and settings."""
        with self.connect() as session:
            return describe(session, provider=self.provider, why=self.why)


# File locations, access, logging and the display of values have no influence on a plan or its speed.
_IRRELEVANT_CATEGORIES = (
    "File Locations%",
    "Connections and Authentication / A%",
    "Connections and Authentication / S%",
    "Reporting and Logging%",
    "Process Title%",
    "Client Connection Defaults / Locale and Formatting%",
    "Preset Options%",
    "Customized Options%",
)
_IRRELEVANT = (
    "application_name",
    "client_connection_check_interval",
    "client_min_messages",
    "listen_addresses",
    "lock_timeout",
    "max_stack_depth",
    "port",
    "statement_timeout",
    "transaction_isolation",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
)
_SETTINGS = """
    SELECT name, current_setting(name) FROM pg_settings
    WHERE setting IS DISTINCT FROM boot_val AND source NOT IN ('default', 'override')
    AND name <> ALL (%s) AND NOT category LIKE ANY (%s)
    ORDER BY name COLLATE "C"
"""


def non_default_settings(session: Session) -> dict[str, str]:
    """Return the session's settings that differ from PostgreSQL's defaults and bear on plans or speed; libraries by file name only."""
    rows = session.execute(_SETTINGS, (list(_IRRELEVANT), list(_IRRELEVANT_CATEGORIES)))
    return {name: _file_names(value) if name.endswith("_preload_libraries") else value for name, value in rows}


def describe(session: Session, *, provider: Provider, why: str) -> ServerReport:
    """Report version, build and settings of the server behind `session`."""
    version, version_num, assertions = session.execute(
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int, current_setting('debug_assertions')::bool"
    )[0]
    build = _build(session)
    return ServerReport(
        provider=provider,
        why=why,
        version=version.split()[0],
        version_num=version_num,
        debug_assertions=assertions,
        optimized=_optimized(build["CFLAGS"]) if "CFLAGS" in build else None,
        configure=build.get("CONFIGURE", ""),
        settings=non_default_settings(session),
    )


def _build(session: Session) -> dict[str, str]:
    """Return `pg_config` of the server, or nothing where this role may not read it."""
    try:
        with session.rolled_back():
            return dict(session.execute("SELECT name, setting FROM pg_config"))
    except StatementFailed as error:
        if error.sqlstate != "42501":  # insufficient_privilege
            raise
        return {}


def _optimized(cflags: str) -> bool:
    """Tell whether the last -O of the compiler flags asks for optimization."""
    levels = re.findall(r"(?<!\S)-O(\S*)", cflags)
    return bool(levels) and levels[-1] != "0"


def _file_names(libraries: str) -> str:
    """Return file names without folders; of the pilotscope library only its name, because it does nothing until it is asked to."""
    names = [PurePath(part.strip().strip('"')).name for part in libraries.split(",") if part.strip()]
    return ", ".join("pilotscope" if name.startswith("pilotscope") else name for name in names)

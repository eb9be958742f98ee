"""Open the databases of `--variant`: the measured one with other settings of its sessions, or the same data on another server."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pytest_pilotscope.errors import DatasetError, ServerError, StatementFailed, UsageError
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.options.variants import Variant
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.postgres.coldness import warm_reason
from pytest_pilotscope.postgres.knobs import Level, set_session_knobs, setting_levels
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.provision.samedata import other_data

logger = logging.getLogger(__name__)

_OWN = frozenset(
    ("application_name", "client_encoding", "client_min_messages", "default_transaction_read_only", "lock_timeout", "statement_timeout")
)
"""Settings that every measured session has its own values of."""


@contextmanager
def under_conditions(database: Database, settings: Settings) -> Iterator[Database]:
    """
    Give the database together with those of its variants.

    Raise UsageError for a variant that cannot be measured beside it, and for a condition (`--parallel`, `--jit`, `--cold`) that one of them
    does not allow.
    """
    with ExitStack() as stack:
        variants = {one.name: stack.enter_context(_opened(database, one)) for one in settings.variants}
        servers = {other.server: other for other in (database, *variants.values())}
        for other in servers.values():
            _check_conditions(other, settings)
        yield replace(database, variants=variants)


def _check_conditions(database: Database, settings: Settings) -> None:
    with database.server.connect(database.name) as session:
        for name, value in settings.session_settings.items():
            check_setting(session, "--jit" if name == "jit" else f"--parallel {value}", name, value)
        if settings.parallel is not None:
            _check_workers(session, settings.parallel)
        if settings.cold and (reason := _warm_reason(database, session)):
            raise UsageError(f"--cold: the caches of {database.server.provider} PostgreSQL cannot be dropped: {reason}; leave it out")


def _check_workers(session: Session, wanted: int) -> None:
    for name in ("max_worker_processes", "max_parallel_workers"):
        if (there := int(session.scalar("SELECT current_setting(%s)", (name,)))) < wanted:
            raise UsageError(
                f"--parallel {wanted}: the server has {name} = {there}; ask for at most {there}, or raise it on a server of yours"
            )


def _warm_reason(database: Database, session: Session) -> str | None:
    reasons = {"given": "other people may use them", "container": "its files are not on this machine"}
    return reasons.get(database.server.provider) or warm_reason(session)


def difference_of(database: Database, name: str) -> str:
    """Return in words how a variant differs from the database: its settings, or the version and the fingerprints of its server."""
    other = database.variants[name]
    if other.server is database.server:
        return ",".join(
            f"{setting}={value}" for setting, value in other.session_settings.items() if database.session_settings.get(setting) != value
        )
    parts = ", ".join(f"{part} {value}" for part, value in other.fingerprint.as_mapping().items() if part != "data")
    return f"PostgreSQL {other.report.version} ({other.report.provider}; {parts})"


def differences(database: Database, sides: Iterable[str]) -> dict[str, str]:
    """Return how the variants differ that are sides, and those that an algorithm of a side is joined with, by the names of the sides."""
    found = {side: [name for name in side.split("+") if name in database.variants] for side in sides}
    return {side: ",".join(difference_of(database, name) for name in names) for side, names in found.items() if names}


def introductions(database: Database) -> Iterator[str]:
    """Yield a line about the server of each variant that is not on that of the database."""
    ours = database.fingerprint.as_mapping()
    for name, other in database.variants.items():
        if other.server is not database.server:
            differing = [part for part, value in other.fingerprint.as_mapping().items() if value != ours[part] and part != "build"]
            also = f"; its {' and '.join(differing)} differ, too" if differing else ""
            yield f"variant {name} on {other.report.header()}: the same data on another server{also}"


@contextmanager
def _opened(database: Database, variant: Variant) -> Iterator[Database]:
    option = f"--variant {variant.name}"
    if variant.settings:
        with database.session() as session:
            for name, value in variant.settings.items():
                if not check_setting(session, option, name, value):
                    logger.warning("%s: %s=%s changes nothing, because every session has this value", option, name, value)
        yield replace(database, session_settings={**database.session_settings, **variant.settings})
        return
    with ExitStack() as stack:
        try:
            other = stack.enter_context(_of_build(database, variant.bindir) if variant.bindir else _behind(database, variant.dsn))
        except (DatasetError, ServerError, UsageError) as error:
            raise UsageError(f"{option}: {error}") from error
        if reason := other_data(database, other):
            raise UsageError(f"{option}: {reason}; pairs need the same data on both servers")
        yield other


@contextmanager
def _of_build(database: Database, bindir: Path) -> Iterator[Database]:
    """Start the PostgreSQL of a folder, or of a major version, with the dataset."""
    if database.dataset is None or database.config is None:
        raise UsageError(
            "only the server of --server has the data, so that no other build can be started with it; name a server that has it"
        )
    chosen: dict[str, Any] = {"pg_version": int(bindir.name)} if str(bindir).isdecimal() else {"pg_bindir": bindir}
    config = replace(_config_for(database.config), server="embedded", settings=database.config.settings, **chosen)
    with open_database(config, database.dataset) as other:
        yield other


@contextmanager
def _behind(database: Database, dsn: Dsn | None) -> Iterator[Database]:
    """Give the database that a DSN names if it has the data; else load the dataset there, if that is allowed, or give what is there."""
    config = replace(_config_for(database.config or PostgreSQLConfig()), db=None, dsn=dsn)
    with ExitStack() as stack:
        other = stack.enter_context(open_database(config))
        if database.dataset is not None and other.fingerprint.data != database.fingerprint.data:
            name = database.config.db if database.config else None
            other = stack.enter_context(open_database(replace(config, db=name), database.dataset))
        yield other


def _config_for(config: PostgreSQLConfig) -> PostgreSQLConfig:
    """Return a configuration for the same data without the choice of a server."""
    unchosen: dict[str, Any] = dict.fromkeys(("dsn", "pg_bindir", "pg_version", "container_memory_bytes", "container_cpus"))
    return replace(config, server="auto", settings={}, read_only=config.read_only and config.dsn is not None, **unchosen)


def check_setting(session: Session, option: str, name: str, value: str) -> bool:
    """
    Set a setting of a session, and tell whether this changes it; warn of JIT where there is none.

    Raise UsageError, which names the option, if PostgreSQL does not have the setting, or if no session can have this value.
    """
    if reason := _refusal(name, setting_levels(session)):
        raise UsageError(f"{option}: {reason}")
    before = session.scalar("SELECT current_setting(%s)", (name,))
    try:
        set_session_knobs(session, {name: value})
    except StatementFailed as error:
        raise UsageError(f"{option}: PostgreSQL refuses {name}={value}: {error.reason}") from error
    changed: bool = session.scalar("SELECT current_setting(%s)", (name,)) != before
    if changed and name == "jit" and not session.scalar("SELECT pg_jit_available()"):
        logger.warning("%s: jit=%s changes nothing, because this PostgreSQL has no JIT (pg_jit_available() is false)", option, value)
    return changed


def _refusal(name: str, levels: Mapping[str, Level | None]) -> str | None:
    """Return why a session of a measurement cannot have a setting, and what to do."""
    if name not in levels:
        near = " or ".join(map(repr, get_close_matches(name, levels, n=3)))
        remedy = f"did you mean {near}?" if near else "pg_settings lists all"
        return f"PostgreSQL has no setting {name!r}; {remedy}"
    if name in _OWN or name.startswith("pilotscope."):
        return f"every measured session has its own value of {name}, so that it cannot be measured; leave it out"
    if levels[name] is None:
        return f"{name} cannot be changed: it is part of how PostgreSQL was built or its data directory was made; leave it out"
    if levels[name] != "session":
        when = "when a server starts" if levels[name] == "restart" else "for all sessions of a server"
        return (
            f"{name} is set {when}, so that two sessions of one server cannot differ in it; measure a second server that has it, as "
            "NAME@DSN"
        )
    return None

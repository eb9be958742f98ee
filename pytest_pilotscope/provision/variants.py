"""Open the databases of `--variant`: the measured one with other settings of its sessions, or the same data on another server."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from difflib import get_close_matches

from pytest_pilotscope.errors import StatementFailed, UsageError
from pytest_pilotscope.options.variants import Variant
from pytest_pilotscope.postgres.knobs import Level, set_session_knobs, setting_levels
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database

logger = logging.getLogger(__name__)

_OWN = frozenset(
    ("application_name", "client_encoding", "client_min_messages", "default_transaction_read_only", "lock_timeout", "statement_timeout")
)
"""Settings that every measured session has its own values of."""


@contextmanager
def with_variants(database: Database, variants: Sequence[Variant]) -> Iterator[Database]:
    """Give the database together with those of its variants; raise UsageError for a variant that cannot be measured beside it."""
    with ExitStack() as stack:
        yield replace(database, variants={one.name: stack.enter_context(_opened(database, one)) for one in variants})


def difference_of(database: Database, name: str) -> str:
    """Return in words how a variant differs from the database: its settings."""
    own = database.variants[name].session_settings
    return ",".join(f"{setting}={value}" for setting, value in own.items() if database.session_settings.get(setting) != value)


@contextmanager
def _opened(database: Database, variant: Variant) -> Iterator[Database]:
    with database.session() as session:
        check_settings(session, f"--variant {variant.name}", variant.settings)
    yield replace(database, session_settings={**database.session_settings, **variant.settings})


def check_settings(session: Session, option: str, settings: Mapping[str, str]) -> None:
    """
    Raise UsageError, which names the option, for settings that PostgreSQL does not have, and for values that no session can have.

    Warn of settings that change nothing.
    """
    levels = setting_levels(session)
    for name, value in settings.items():
        if reason := _refusal(name, levels):
            raise UsageError(f"{option}: {reason}")
        before = session.scalar("SELECT current_setting(%s)", (name,))
        try:
            set_session_knobs(session, {name: value})
        except StatementFailed as error:
            raise UsageError(f"{option}: PostgreSQL refuses {name}={value}: {error.reason}") from error
        if session.scalar("SELECT current_setting(%s)", (name,)) == before:
            logger.warning("%s: %s is %s without it, too, so that it changes nothing", option, name, before)
        elif name == "jit" and not session.scalar("SELECT pg_jit_available()"):
            logger.warning(
                "%s: jit=%s changes nothing, because this PostgreSQL has no JIT compiler (pg_jit_available() is false)", option, value
            )


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

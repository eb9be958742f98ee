"""Temporary copies of databases. On a server that is not ours, those that a killed process left behind are found and dropped."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_pilotscope.errors import DatasetError, ServerError
from pytest_pilotscope.postgres.databases import copy_database, drop_database, drop_leftovers, hold, mark_of, unique_name
from pytest_pilotscope.postgres.server import Capability, Server
from pytest_pilotscope.postgres.session import Session

logger = logging.getLogger(__name__)


@contextmanager
def temporary_copy(server: Server, source: str) -> Iterator[str]:
    """
    Copy the idle database `source`, give the name of the copy, and drop it on leaving, with whoever is connected to it.

    DatasetError when our role may not create databases, or while somebody is connected to `source`.
    """
    name = unique_name(source)
    with server.connect() as keeper:
        make_copy(server, keeper, source, name)
        try:
            yield name
        except BaseException:
            _drop_if_possible(server, name)
            raise
        with server.connect() as administrator:  # the keeper is gone when the server was restarted meanwhile
            drop_database(administrator, name)


def make_copy(server: Server, keeper: Session, source: str, name: str) -> None:
    """Copy `source` to `name`, to stay; as long as `keeper` lives it says that the copy is in use."""
    if Capability.CREATE_DATABASE not in server.capabilities:
        why = "--read-only forbids it" if getattr(server, "read_only", False) else "our role may not create databases on this server"
        raise DatasetError(f"database {source!r} cannot be copied: {why}")
    if server.provider == "given":  # nobody else makes databases on a server that is ours
        drop_leftovers(keeper)
    hold(keeper, name)
    mark = mark_of(keeper, source) or {}
    copy_database(keeper, source, name, {**mark, "state": "copy", "of": source}, by_file=server.provider != "given")


def _drop_if_possible(server: Server, name: str) -> None:
    """Clean up behind an error without hiding it: the server may be the reason."""
    try:
        with server.connect() as administrator:
            drop_database(administrator, name)
    except ServerError as error:
        logger.warning("the database %s could not be dropped: %s", name, error)

"""The server that a command gets as its argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.options import values
from pytest_pilotscope.places.dsn import Dsn, is_dsn

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.given import GivenServer


def given_server(address: str) -> GivenServer:
    """Reach the server of a connection string, to write nothing there. Raise `UsageError` for any other text."""
    from pytest_pilotscope.postgres.given import GivenServer

    if not is_dsn(address):
        raise UsageError(f"expected a connection string such as postgresql://user@host:port/database, got {values.shown(address)}")
    return GivenServer(Dsn(address), read_only=True)

"""Compare the data of two servers, between which pairs are measured."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pilotscope.errors import named
from pytest_pilotscope.postgres.fingerprint import Contents, is_small, table_contents
from pytest_pilotscope.provision.database import Database

_ENCODING = "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()"


def other_data(database: Database, other: Database) -> str | None:
    """
    Return how the data of two databases differs, with the tables; None if it does not.

    Of databases that are too large to be read, and that this suite has not loaded, compare columns and exact numbers of rows.
    """
    with database.session() as ours, other.session() as theirs:
        here, there = (session.scalar(_ENCODING) for session in (ours, theirs))
        if here != there:
            return f"its database has the encoding {there}, that of the baseline {here}"
        found = database.fingerprint.data, other.fingerprint.data
        small = is_small(ours)
        if not small and found[0] == found[1] and not found[0].startswith("~"):
            return None  # loaded by this suite, which has noted the fingerprint of all rows
        contents = [table_contents(session, rows=small) for session in (ours, theirs)]
        if contents[0] == contents[1]:
            return None
        return f"its data differs from the baseline's in {named(_differences(*contents))}"


def _differences(ours: Contents, theirs: Contents) -> Iterator[str]:
    for schema, table in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get((schema, table)), theirs.get((schema, table))
        if here is None or there is None:
            yield f"{schema}.{table} (not {'here' if here is None else 'there'})"
        elif here[0] != there[0]:
            yield f"{schema}.{table} (other columns)"
        elif len(here) != len(there):
            yield f"{schema}.{table} (not readable on one of the servers)"
        elif here != there:
            yield f"{schema}.{table} ({there[1][0]} rows, {here[1][0]} here)" if here[1][0] != there[1][0] else f"{schema}.{table}"

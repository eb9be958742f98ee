"""
The settings of servers that are started here, and the file they are written to.

Every pinned value has one of three reasons: only this project may reach the server, only the query may take time during a measurement, and
the same data has to give the same plans on every machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pytest_pilotscope.errors import ServerError

LAYOUT_VERSION = 1
"""Part of the key of every cached data directory: raise it when a change here or in how data is loaded makes the old ones wrong."""

_SMALL_MACHINE_BYTES = 4 << 30
_NAME = re.compile(r"^[A-Za-z_][\w$]*(\.[A-Za-z_][\w$]*)?$")

PINNED: Mapping[str, str] = {
    "listen_addresses": "",  # only the private unix socket; trust authentication is safe there
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "jit": "off",  # pip packages have none, so providers agree
    "autovacuum": "off",  # VACUUM ANALYZE is done once after loading; later it would only be noise
    "max_parallel_workers_per_gather": "0",  # serial plans: comparable between machines, as in the published cardinality benchmarks
    "fsync": "off",  # the server is a throw-away copy: data destroyed by a power cut is copied again
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",  # COPY into a table made in the same transaction needs no WAL
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "min_wal_size": "32MB",  # little to copy with the data directory
    "checkpoint_timeout": "1d",  # none in the middle of a measurement
    "timezone": "UTC",
    "log_timezone": "UTC",
    "datestyle": "iso, ymd",
    "lc_messages": "C",  # the messages that tests compare
}


def shared_buffers(limit_bytes: int | None = None) -> str:
    """
    Return 512MB, which holds every bundled dataset; 128MB on a machine, or in a container, with less than 4 GB; below 512 MB a quarter.
    """
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory_bytes = min(machine_bytes, limit_bytes or machine_bytes)
    if memory_bytes >= _SMALL_MACHINE_BYTES:
        return "512MB"
    return f"{min(128, memory_bytes >> 22)}MB"


def base_settings(socket_folder: Path) -> dict[str, str]:
    """Return the settings of an embedded server when nobody asks for others."""
    return {**PINNED, "shared_buffers": shared_buffers(), "unix_socket_directories": quoted_list([socket_folder])}


def quoted_list(paths: list[Path]) -> str:
    """Return paths as one value of a list setting; quoted, because they may hold blanks and commas."""
    return ", ".join('"' + str(path).replace('"', '""') + '"' for path in paths)


def configuration(settings: Mapping[str, str]) -> str:
    """Return the text of a postgresql.conf; raise ServerError for a text that cannot be the name of a setting."""
    return "".join(f"{_checked(name)} = '{_escaped(value)}'\n" for name, value in settings.items())


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise ServerError(f"{name!r} is not the name of a PostgreSQL setting")
    return name


def _escaped(value: str) -> str:
    if "\n" in value or "\0" in value:
        raise ServerError(f"a PostgreSQL setting cannot hold {value!r}: it has a line break or a zero byte in it")
    return value.replace("\\", "\\\\").replace("'", "''")

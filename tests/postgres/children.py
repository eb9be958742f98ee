"""Python programs run in processes of their own, so that they can be killed or run as another user."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

START_SERVER = """
import json, os, sys
from pytest_pilotscope.postgres.binaries import find_binaries
from pytest_pilotscope.postgres.embedded import EmbeddedServer
server = EmbeddedServer(find_binaries(), why="for a test")
print(json.dumps([server.pid, server._watchdog.pid, str(server.data_folder.parent), str(server._sockets)]), flush=True)
"""
"""Starts a server and prints, as JSON, the process ids of PostgreSQL and its watchdog, and the two private folders."""


def start_child(
    program: str, *, python: str = sys.executable, environment: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Run `program`, with its standard streams as pipes."""
    return subprocess.Popen(
        [python, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(environment or {})},
        **options,
    )


def wait_for_end(pid: int, *, limit_s: float = 20.0) -> bool:
    """Tell whether process `pid`, which need not be a child, has ended within the limit."""
    if not hasattr(os, "pidfd_open"):
        pytest.skip("waiting for a process that is not a child needs pidfd_open (Linux)")
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], limit_s)[0])
    finally:
        os.close(descriptor)

"""Start MLflow's own UI on the local store."""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import NoReturn

import click

from pytest_pilotscope.commands.output import show_json
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.places.secret import StoreUri
from pytest_pilotscope.tracking.store import is_server, resolve_uri, sqlite_path

HOST = "127.0.0.1"
"""Only this machine may connect: the UI asks for no password and lets everybody delete runs."""

TRAINING_VIEW = "#/experiments?workflowType=machine_learning"
"""MLflow's UI begins with agents otherwise, and shows no runs there."""


def check_ui(port: int, tracking_uri: str | StoreUri | None) -> StoreUri:
    """Return the store to show. Raise `UsageError` if it has a UI of its own, if it is missing, or if the port is taken."""
    uri = resolve_uri(tracking_uri)
    if is_server(uri):
        raise UsageError(f"the store {uri} is a server with a UI of its own; open it in a browser")
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise UsageError(f"there is nothing to show: {path} does not exist; run a benchmark first, or name the store with --tracking-uri")
    if not _is_free(port):
        raise UsageError(f"port {port} of {HOST} is taken; choose another, for instance: pilotscope ui --port {_free_port(port)}")
    return StoreUri(f"sqlite:///{path}") if path is not None else uri


def announce(uri: StoreUri, port: int, *, as_json: bool) -> None:
    """Show the address of the UI, and that of the page to begin with."""
    address = f"http://{HOST}:{port}"
    url = f"{address}/{TRAINING_VIEW}"
    if as_json:
        show_json({"url": url, "tracking_uri": str(uri)})
    else:
        click.echo(f"{uri} on {address}; Ctrl-C ends it\nits runs: {url}")
    sys.stdout.flush()


def run_ui(uri: StoreUri, port: int) -> NoReturn:
    """Replace this process by MLflow's server; Ctrl-C ends it."""
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri.reveal(),  # no argument: all users see the arguments of a process, and it may hold a password
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes, for jobs that this suite never starts
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore"),
    }
    arguments = ["--host", HOST, "--port", str(port), "--workers", "1"]
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", "server", *arguments], environment)  # noqa: S606 - there is no shell


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _free_port(taken: int) -> int:
    """Return the next free port; 0 (any port) if there is none."""
    return next((port for port in range(taken + 1, 65536) if _is_free(port)), 0)

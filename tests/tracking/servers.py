"""A real MLflow tracking server, and a connection to it that a test can cut."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

START_LIMIT_S = 300.0
"""It takes 8 s on an idle machine, and all its processors."""

_AUTH = """[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/auth.db
admin_username = admin
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


@contextmanager
def tracking_server(folder: Path, backend: str, *, password: str | None = None) -> Iterator[int]:
    """
    Start an `mlflow server` on a backend store, which also serves artifacts, give its port, and stop it with all its processes.

    With a password, the server requires it and the user `admin`.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1", "--serve-artifacts"),
        *(f"--backend-store-uri={backend}", f"--artifacts-destination={folder / 'artifacts'}"),
        *(["--app-name=basic-auth"] if password else []),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # it would start a process that no test needs
    if password:
        (folder / "auth.ini").write_text(_AUTH.format(folder=folder, password=password))
        environment |= {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "for a test"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True)
    try:
        _wait(process, port, folder / "server.log")
        yield port
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the group is its own: the server and its worker
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline_s = time.monotonic() + START_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return
        time.sleep(0.1)
    raise RuntimeError(f"the MLflow server does not start: {log.read_text(errors='replace')[-2000:]}")


class Line:
    """A port that forwards to another one; after `cut` it refuses connections, like a server that is down."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._ends: list[socket.socket] = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.join()

    @property
    def url(self) -> str:
        """The address of the tracking server through this port."""
        return f"http://127.0.0.1:{self.port}"

    def join(self) -> None:
        """Accept connections from now on."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._serve, args=(self._listener,), daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        while self._ends:
            end = self._ends.pop()
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._ends += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


class _Empty(BaseHTTPRequestHandler):
    """The API of a store without experiments."""

    def do_GET(self) -> None:
        """There is no such experiment; everything else is empty."""
        there = "get-by-name" not in self.path
        content = b"{}" if there else b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}'
        self.send_response(200 if there else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815 - http.server's names

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def tls_server(folder: Path) -> Iterator[tuple[str, Path]]:
    """Start a store without experiments behind a self-signed certificate, and give its address and the certificate."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Empty) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}", certificate
        finally:
            server.shutdown()
            thread.join()

"""A web server on this machine with faults on demand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """
    A web server of `content` under every path but /none; `asked` has the range of each request ("" for all).

    `cuts` says after how many bytes each answer in turn ends early, `resumes` whether ranges are understood, `piece` how much is sent at
    once.
    """

    content: bytes
    cuts: list[int] = field(default_factory=list)
    resumes: bool = True
    piece: int = 1 << 20
    asked: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(web: Web) -> Iterator[Web]:
    """Serve for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            web.asked.append(wanted)
            if self.path == "/none":
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and web.resumes else 0
            if start >= len(web.content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            rest = web.content[start:]
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if web.cuts:
                rest = rest[: web.cuts.pop(0)]
            for position in range(0, len(rest), web.piece):
                self.wfile.write(rest[position : position + web.piece])
                self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

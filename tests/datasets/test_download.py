"""A file from the web is complete or not there, whatever the server does."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_pilotscope.datasets.published import download
from pytest_pilotscope.datasets.published.download import fetch
from pytest_pilotscope.errors import DatasetError
from pytest_pilotscope.options.progress import Advance, silent
from tests.datasets.web import Web, serving

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LIMIT = 1 << 30


@pytest.fixture
def web() -> Iterator[Web]:
    """Start a server with the content, without any fault yet."""
    with serving(Web(CONTENT)) as served:
        yield served


def fetched(web: Web, path: Path, name: str = "data.tar.gz", limit: int = LIMIT, sha256: str = SHA256) -> bytes:
    """Fetch, and return the content of the path."""
    fetch(f"{web.url}/{name}", sha256, path, show_progress=silent, limit_bytes=limit)
    return path.read_bytes()


def fails(web: Web, path: Path, message: str, name: str = "data.tar.gz", limit: int = LIMIT, sha256: str = SHA256) -> None:
    """Check that fetching raises exactly this, in which {url} stands for the file's address; nothing is at the path."""
    with pytest.raises(DatasetError, match=f"^{re.escape(message.format(url=f'{web.url}/{name}'))}$"):
        fetched(web, path, name, limit, sha256)
    assert not path.exists()


def test_a_file_is_fetched_once(web: Web, tmp_path: Path) -> None:
    """A file with the right checksum is not fetched again."""
    assert fetched(web, tmp_path / "f") == CONTENT
    assert fetched(web, tmp_path / "f") == CONTENT
    assert web.asked == [""]


def test_progress_reaches_the_end(web: Web, tmp_path: Path) -> None:
    """The steps that are shown add up to 100 %, also over small pieces."""
    shown: list[int] = []

    @contextmanager
    def show(description: str, total: int) -> Iterator[Advance]:
        assert (description, total) == ("fetching f, in %", 100)
        yield shown.append

    web.piece = 10_000
    fetch(f"{web.url}/f", SHA256, tmp_path / "f", show_progress=show, limit_bytes=LIMIT)
    assert sum(shown) == 100


def test_a_cut_off_transfer_goes_on(web: Web, tmp_path: Path) -> None:
    """Each new transfer asks for the bytes that are still missing."""
    web.cuts = [300_000, 400_000]
    assert fetched(web, tmp_path / "f") == CONTENT
    assert web.asked == ["", "bytes=300000-", "bytes=700000-"]


def test_a_later_call_goes_on(web: Web, tmp_path: Path) -> None:
    """The bytes of a transfer that broke down are kept for the next one."""
    web.cuts = [300_000, 0]
    missing = len(CONTENT) - 300_000
    fails(
        web,
        tmp_path / "f",
        f"{{url}} cannot be fetched: the connection ended {missing} bytes too early; the 300000 bytes that came are kept and are not "
        "fetched again",
    )
    assert fetched(web, tmp_path / "f") == CONTENT
    assert web.asked[-1] == "bytes=300000-"


def test_a_server_that_cannot_resume(web: Web, tmp_path: Path) -> None:
    """A server that sends everything again is taken at its word: the beginning is not there twice."""
    web.cuts, web.resumes = [300_000], False
    assert fetched(web, tmp_path / "f") == CONTENT


def test_a_whole_part_is_enough(web: Web, tmp_path: Path) -> None:
    """A process that was killed before it renamed the file costs one question, or the transfer where the server has no answer to it."""
    (tmp_path / "f.part").write_bytes(CONTENT)
    assert fetched(web, tmp_path / "f") == CONTENT
    assert web.asked == [f"bytes={len(CONTENT)}-", ""]


def test_another_content(web: Web, tmp_path: Path) -> None:
    """The error for a wrong checksum has both checksums, and the file is deleted."""
    wrong = "0" * 64
    message = f"{{url}} is not what was published: its SHA-256 is {SHA256}, expected {wrong}; it was deleted"
    fails(web, tmp_path / "f", message, sha256=wrong)
    assert not (tmp_path / "f.part").exists()


def test_not_found(web: Web, tmp_path: Path) -> None:
    """A status of failure is named and not tried again."""
    fails(web, tmp_path / "f", "{url} cannot be fetched: HTTP 404 Not Found", name="none")
    assert web.asked == [""]


def test_too_large(web: Web, tmp_path: Path) -> None:
    """A file beyond the limit is not fetched."""
    fails(
        web,
        tmp_path / "f",
        f"{{url}} has {len(CONTENT)} bytes, more than the 1000 that this dataset may have; it was not fetched",
        limit=1000,
    )
    assert not (tmp_path / "f.part").exists()


def test_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and says nothing is given up."""
    monkeypatch.setattr(download, "SILENCE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silence:
        web = Web(b"", url=f"http://127.0.0.1:{silence.getsockname()[1]}")
        fails(web, tmp_path / "f", "{url} cannot be fetched: no answer in time")


def test_nobody_there(tmp_path: Path) -> None:
    """A refused connection is told in the system's words."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    fails(Web(b"", url=f"http://127.0.0.1:{port}"), tmp_path / "f", "{url} cannot be fetched: [Errno 111] Connection refused")


def test_only_the_web(tmp_path: Path) -> None:
    """Another scheme, such as file:, is not followed."""
    fails(Web(b"", url="file:///etc"), tmp_path / "f", "{url} is no web address")

"""Fetching one large file from the web: resumed if the transfer breaks, and used only after its checksum was verified."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock

from pytest_pilotscope.errors import DatasetError
from pytest_pilotscope.options.progress import ShowProgress
from pytest_pilotscope.places.privatefiles import open_private, private_folder

from .byte_progress import WHOLE, in_per_cent

ATTEMPTS = 5
"""Transfers at most; another one begins only if the last one brought some bytes."""

SILENCE_S = 30.0
"""Seconds without a byte from the server that end a transfer."""

_CHUNK_BYTES = 1 << 20
_RANGE_NOT_SATISFIABLE = 416

logger = logging.getLogger(__name__)


def fetch(url: str, sha256: str, path: Path, *, show_progress: ShowProgress, limit_bytes: int) -> None:
    """
    Fetch the file of `url` to `path`, unless it is there with the right checksum. Of two processes at once one fetches, the other waits.

    A broken transfer leaves its bytes in `<path>.part`, and the next one goes on from there. Raise DatasetError with the reason.
    """
    private_folder(path.parent)
    with FileLock(f"{path}.lock"):
        if path.exists() and sha256_of(path) == sha256:
            return
        part = path.with_name(f"{path.name}.part")
        _complete(url, part, show_progress, limit_bytes)
        found = sha256_of(part)
        if found != sha256:
            part.unlink()
            raise DatasetError(f"{url} is not what was published: its SHA-256 is {found}, expected {sha256}; it was deleted")
        os.replace(part, path)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, as hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _complete(url: str, part: Path, show_progress: ShowProgress, limit_bytes: int) -> None:
    """Fetch `part` to its full length; begin another transfer as long as each brings some bytes."""
    for attempt in range(1, ATTEMPTS + 1):
        before = _size(part)
        try:
            return _transfer(url, part, show_progress, limit_bytes)
        except urllib.error.HTTPError as error:
            raise DatasetError(f"{url} cannot be fetched: HTTP {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            if not isinstance(error, urllib.error.URLError | TimeoutError | ConnectionError | http.client.HTTPException):
                raise DatasetError(f"{part} cannot be written: {error}; make room, or set PILOTSCOPE_CACHE to another folder") from error
            size = _size(part)
            if attempt == ATTEMPTS or size == before:
                kept = f"; the {size} bytes that came are kept and are not fetched again" if size else ""
                raise DatasetError(f"{url} cannot be fetched: {_reason(error)}{kept}") from error
            logger.warning("the transfer of %s broke after %d bytes (%s); it is resumed", url, size, _reason(error))
    raise AssertionError("every attempt returns or raises")


def _transfer(url: str, part: Path, show_progress: ShowProgress, limit_bytes: int) -> None:
    """Fetch the rest of `part`; raise if the connection ends early."""
    have = _size(part)
    with _response(url, have) as response:
        if have and response.status != http.client.PARTIAL_CONTENT:  # it sends everything: the beginning is not needed
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        if max(total or 0, have) > limit_bytes:
            raise DatasetError(f"{url} has {total} bytes, more than the {limit_bytes} that this dataset may have; it was not fetched")
        with open_private(part, "ab" if have else "wb") as file:
            _copy(response, file, part.name.removesuffix(".part"), have, total, show_progress, limit_bytes)
        if total is not None and _size(part) < total:
            raise http.client.IncompleteRead(b"", total - _size(part))


@contextmanager
def _response(url: str, have: int) -> Iterator[http.client.HTTPResponse]:
    if not url.startswith(("http://", "https://")):
        raise DatasetError(f"{url} is no web address")
    headers = {"User-Agent": "pytest-pilotscope", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SILENCE_S)  # noqa: S310 - checked above
    except urllib.error.HTTPError as error:
        if error.code != _RANGE_NOT_SATISFIABLE or not have:
            raise
        response = urllib.request.urlopen(urllib.request.Request(url), timeout=SILENCE_S)  # noqa: S310 - nothing is left to send: anew
    with response:
        yield response


def _copy(
    response: http.client.HTTPResponse,
    file: IO[bytes],
    name: str,
    done: int,
    total: int | None,
    show_progress: ShowProgress,
    limit_bytes: int,
) -> None:
    with show_progress(f"fetching {name}, in %", WHOLE) as advance:
        show = in_per_cent(total or 0, advance)
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            done += len(chunk)
            if done > limit_bytes:
                raise DatasetError(f"{name} has more than the {limit_bytes} bytes that this dataset may have; it was not fetched")
            show(done)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection ended {error.expected} bytes too early" if error.expected else "the connection ended too early"
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return "no answer in time" if isinstance(error, TimeoutError) or isinstance(reason, TimeoutError) else str(reason)


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder."""
    return shutil.disk_usage(folder).free

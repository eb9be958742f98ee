"""A dump of pg_dump as lines of SQL: plain text, maybe gzipped, or one of PostgreSQL's own formats, which `pg_restore` converts."""

from __future__ import annotations

import gzip
import re
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, cast

from pytest_pilotscope.errors import DatasetError, MissingServer
from pytest_pilotscope.places.environment import clean_environment
from pytest_pilotscope.postgres.binaries import find_program

from .byte_progress import in_per_cent

if TYPE_CHECKING:
    from pytest_pilotscope.options.progress import Advance

_GZIP = b"\x1f\x8b"
_OWN_FORMATS = (b"PGDMP", b"toc.dat\0")
"""The first bytes of the custom format and of the tar format, whose first file is the table of contents."""
_CLUSTER = re.compile(rb"\A(--[^\n]*\n|\s)*?-- PostgreSQL database cluster dump")
_TEXT = re.compile(rb"-- PostgreSQL database (cluster )?dump|^\s*CREATE TABLE ", re.MULTILINE | re.IGNORECASE)


def is_dump(path: Path) -> bool:
    """Tell by its beginning whether a file, or a folder of pg_dump's directory format, is a dump."""
    if path.is_dir():
        return (path / "toc.dat").is_file()
    try:
        head = _head(path)
    except (OSError, EOFError, zlib.error):
        return False
    return is_in_own_format(path) or (not head.startswith(_OWN_FORMATS) and _TEXT.search(head) is not None)


def is_of_cluster(path: Path) -> bool:
    """Tell whether a dump is one of pg_dumpall, which holds all databases of a server."""
    return path.is_file() and _CLUSTER.match(_head(path)) is not None


def _head(path: Path) -> bytes:
    with path.open("rb") as raw, _gunzipped(raw) as file:
        return file.read(65_536)


def is_in_own_format(path: Path) -> bool:
    """Tell whether a file or folder is a dump in a format of PostgreSQL's own: directory, custom or tar."""
    if path.is_dir():
        return (path / "toc.dat").is_file()
    with path.open("rb") as file:
        return file.read(8).startswith(_OWN_FORMATS)


def dump_files(path: Path) -> list[Path]:
    """Return the files of a dump, in a fixed order."""
    return sorted(path.iterdir()) if path.is_dir() else [path]


@contextmanager
def open_dump(path: Path, advance: Advance) -> Iterator[tuple[Iterator[bytes], Callable[[], None]]]:
    """
    Open a dump as lines of SQL, with a function that shows how far they have been read.

    How far pg_restore has read is known on Linux; elsewhere a dump in a format of PostgreSQL's own is shown as read when it is.
    """
    total_bytes = sum(file.stat().st_size for file in dump_files(path))
    show = in_per_cent(total_bytes, advance)
    if is_in_own_format(path):
        with _converted(path) as (lines, process):
            yield lines, lambda: show(min(_bytes_read(process.pid), total_bytes))
        show(total_bytes)
        return
    with path.open("rb") as raw, _gunzipped(raw) as file:
        try:
            yield iter(file), lambda: show(raw.tell())
            show(total_bytes)
        except (EOFError, gzip.BadGzipFile) as error:
            raise DatasetError(f"{path} is broken: {error}; fetch it again") from error


@contextmanager
def _gunzipped(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    magic = raw.read(len(_GZIP))
    raw.seek(0)
    if magic != _GZIP:
        yield raw
        return
    with gzip.GzipFile(fileobj=raw) as file:
        yield cast(IO[bytes], file)


@contextmanager
def _converted(path: Path) -> Iterator[tuple[Iterator[bytes], subprocess.Popen[bytes]]]:
    """Convert a dump in a format of PostgreSQL's own with pg_restore; raise DatasetError with its message if it fails."""
    try:
        program = find_program("pg_restore")
    except MissingServer as error:
        raise DatasetError(f"{path} is in a format of PostgreSQL's own: {error}; or make a dump in SQL (pg_dump -Fp)") from error
    command = [str(program), "--no-owner", "--no-privileges", "--file=-", str(path)]
    with (
        TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=clean_environment()) as process,
    ):
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        reading: BaseException | None = None
        try:
            yield iter(process.stdout), process
        except BaseException as error:
            if process.stdout.read(1):  # it has not come to its end
                process.kill()
                raise
            reading = error
        if process.wait() != 0:
            errors.seek(0)
            told = " ".join(errors.read().decode(errors="replace").split())
            raise DatasetError(f"{program} cannot read {path}: {told}; a dump is read by a pg_restore as new as its pg_dump") from reading
        if reading is not None:
            raise reading


def _bytes_read(pid: int) -> int:
    """Return the bytes that a process has read from its files, as Linux counts them; 0 if that is not known."""
    try:
        counters = Path(f"/proc/{pid}/io").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(counters.partition("rchar:")[2].split()[0])

"""
Restoring a dump of pg_dump through a session, without psql and without a superuser's rights: nothing in it starts a program or touches a
file.

A dump in SQL is read as it is, or gunzipped on the way. `pg_restore` turns PostgreSQL's own formats (custom, directory) into the same SQL,
without a server.
"""

from __future__ import annotations

import gzip
import re
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, cast

from pytest_pilotscope.errors import DatasetError, StatementFailed
from pytest_pilotscope.places.environment import clean_environment
from pytest_pilotscope.postgres.binaries import find_binaries
from pytest_pilotscope.postgres.unprivileged import code_in, unprivileged
from pytest_pilotscope.queries.statements import NeverEnds, split_statements

from .percent import in_per_cent

if TYPE_CHECKING:
    from pytest_pilotscope.options.progress import Advance
    from pytest_pilotscope.postgres.session import Session

_GZIP, _CUSTOM = b"\x1f\x8b", b"PGDMP"
_TEXT = re.compile(rb"-- PostgreSQL database dump|^\s*CREATE TABLE ", re.MULTILINE | re.IGNORECASE)
_COPY = re.compile(r"COPY .* FROM stdin\b", re.IGNORECASE | re.DOTALL)
_RUN = re.compile(
    r"CREATE (UNLOGGED )?TABLE |CREATE (UNIQUE )?INDEX |CREATE SEQUENCE |CREATE TYPE |CREATE DOMAIN |CREATE STATISTICS |INSERT INTO "
    r"|ALTER (TABLE|INDEX)(?!.* OWNER TO )|ALTER SEQUENCE (?!.* OWNER TO )|SELECT pg_catalog\.setval|COMMENT ON (TABLE|COLUMN)",
    re.IGNORECASE | re.DOTALL,
)
_SKIPPED = re.compile(
    r"SET |SELECT pg_catalog\.set_config|ALTER .* OWNER TO |GRANT |REVOKE |COMMENT |CREATE SCHEMA |ALTER DEFAULT PRIVILEGES |ANALYZE\b"
    r"|BEGIN$|START TRANSACTION|COMMIT$",
    re.IGNORECASE | re.DOTALL,
)
_ENCODING = re.compile(r"SET client_encoding\b\D*?'?(\w+)'?$", re.IGNORECASE)
_READABLE = ("utf8", "unicode", "sql_ascii")
_DENIED = "42501"  # insufficient_privilege
_LINES_AT_ONCE = 20_000
_ENDS = (b"\\.\n", b"\\.\r\n")


def is_dump(path: Path) -> bool:
    """Tell by its beginning whether a file, or a folder of pg_dump's directory format, is a dump."""
    if path.is_dir():
        return (path / "toc.dat").is_file()
    try:
        with path.open("rb") as raw, _gunzipped(raw) as file:
            head = file.read(65_536)
    except (OSError, EOFError, zlib.error):
        return False
    return head.startswith(_CUSTOM) or _TEXT.search(head) is not None


def restore(session: Session, path: Path, advance: Advance) -> None:
    """
    Restore a dump in one transaction; call `advance` for each per cent of it.

    Tables, their rows, sequences, constraints and indexes are restored; owners, privileges and settings are skipped. The statements run as
    a role without rights outside the database, which owns what they make. Raise DatasetError, with file and line, for any other statement,
    for text that is not UTF-8, and if PostgreSQL refuses a statement; and for code that would run when somebody reads the tables.
    """
    with _text(path, advance) as (lines, show), unprivileged(session) as restoring:
        restoring.execute("BEGIN")  # rows copied into a table of the same transaction need no WAL on a server of ours
        _Restorer(restoring, path, lines, show).run()
        restoring.execute("COMMIT")


class _Restorer:
    """A reader of a dump's SQL, line by line, that runs its statements and calls `show` now and then to show its progress."""

    def __init__(self, session: Session, path: Path, lines: Iterator[bytes], show: Callable[[], None]) -> None:
        self._session = session
        self._path = path
        self._lines = lines
        self._show = show
        self._line = 0
        self._ended = False

    def run(self) -> None:
        """Run all statements."""
        pending: list[str] = []
        for raw in iter(lambda: next(self._lines, b""), b""):
            self._line += 1
            line = self._decoded(raw)
            if not pending and (not line.strip() or line.startswith("--")):
                continue
            if not pending and line.lstrip().startswith("\\"):
                if not line.lstrip().startswith(("\\restrict", "\\unrestrict")):
                    raise self._error(f"{line.strip()!r} is a command of psql; leave it out")
                continue
            pending.append(line)
            if line.rstrip().endswith(";") and (statements := _complete("".join(pending))) is not None:
                pending.clear()
                for statement in statements:
                    self._statement(statement)
        if "".join(pending).strip():
            raise self._error("the file ends within a statement; it is cut off, fetch it again")
        if (code := code_in(self._session)) is not None:
            raise self._error(f"the dump makes {code}: that is not allowed in a dump of tables; leave it out")

    def _statement(self, statement: str) -> None:
        encoding = _ENCODING.match(statement)
        if encoding and encoding.group(1).lower().replace("-", "") not in _READABLE:
            raise self._error(f"the dump is in {encoding.group(1)}; make it with pg_dump --encoding=UTF8")
        try:
            if _COPY.match(statement):
                self._session.copy_from(statement, self._rows())
                if not self._ended:
                    raise self._error("the file ends within the rows of a table; it is cut off, fetch it again")
            elif _RUN.match(statement):
                self._session.execute(statement)
            elif not _SKIPPED.match(statement):
                raise self._error(f"{' '.join(statement.split()[:3])!r} is not allowed in a dump of tables; leave it out")
        except StatementFailed as error:
            denied = "; a dump is restored by a role that may only make tables, and has no rights on files, programs and settings"
            raise self._error(f"{error}{denied if error.sqlstate == _DENIED else ''}") from error

    def _rows(self) -> Iterator[bytes]:
        r"""Yield everything up to the line `\.`, many lines at a time; `_ended` tells whether that line was there."""
        self._ended = False
        while lines := list(islice(self._lines, _LINES_AT_ONCE)):
            self._show()
            end = next((lines.index(mark) for mark in _ENDS if mark in lines), None)
            self._line += len(lines) if end is None else end + 1
            yield b"".join(lines[:end])
            if end is not None:
                self._lines = chain(lines[end + 1 :], self._lines)
                self._ended = True
                return

    def _decoded(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self._error("this is not UTF-8; make the dump with pg_dump --encoding=UTF8") from error

    def _error(self, problem: str) -> DatasetError:
        return DatasetError(f"{self._path}:{self._line}: {problem}")


def _complete(text: str) -> list[str] | None:
    """Return the statements of a text, or None if a quote is still open."""
    try:
        return [statement.sql for statement in split_statements(text)]
    except NeverEnds:
        return None


@contextmanager
def _text(path: Path, advance: Advance) -> Iterator[tuple[Iterator[bytes], Callable[[], None]]]:
    """Open a dump as lines of SQL, with a function that shows how far they have been read."""
    if path.is_dir() or _is_custom(path):
        with _converted(path) as lines:
            yield lines, lambda: None
        return
    show = in_per_cent(path.stat().st_size, advance)
    with path.open("rb") as raw, _gunzipped(raw) as file:
        try:
            yield iter(file), lambda: show(raw.tell())
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


def _is_custom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_CUSTOM)) == _CUSTOM


@contextmanager
def _converted(path: Path) -> Iterator[Iterator[bytes]]:
    """Convert a dump in a format of PostgreSQL's own with pg_restore; raise DatasetError with its message if it fails."""
    program = find_binaries().bindir / "pg_restore"
    if not program.is_file():
        raise DatasetError(f"{path} needs pg_restore, which is not in {program.parent}; make a dump in SQL (pg_dump -Fp)")
    command = [str(program), "--no-owner", "--no-privileges", "--file=-", str(path)]
    with (
        TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=clean_environment()) as process,
    ):
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        try:
            yield iter(process.stdout)
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            errors.seek(0)
            raise DatasetError(f"pg_restore cannot read {path}: {errors.read().decode(errors='replace').strip()}")

"""
Restoring a dump of pg_dump through a session, without psql and without a superuser's rights: nothing in it starts a program or touches a
file.

A dump of somebody else is refused if it holds more than tables. From a dump of the user's own database, views, functions, triggers and the
like are left out, each by its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import DatasetError, StatementFailed, named
from pytest_pilotscope.postgres.unprivileged import code_in, unprivileged
from pytest_pilotscope.queries.statements import NeverEnds, split_statements

from .dump_text import open_dump

if TYPE_CHECKING:
    from pytest_pilotscope.options.progress import Advance
    from pytest_pilotscope.postgres.session import Session

_COPY = re.compile(r"COPY .* FROM stdin\b", re.IGNORECASE | re.DOTALL)
_NAME = r'(?:"(?:[^"]|"")*"|[\w$])+'
_RUN = re.compile(
    r"CREATE (UNLOGGED )?TABLE |CREATE (UNIQUE )?INDEX |CREATE SEQUENCE |CREATE TYPE |CREATE DOMAIN |CREATE STATISTICS |INSERT INTO "
    r"|ALTER (TABLE|INDEX)(?!.* OWNER TO )|ALTER SEQUENCE (?!.* OWNER TO )|SELECT pg_catalog\.setval",
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

_OWN_RUN = re.compile(rf"CREATE SCHEMA {_NAME}$|SET search_path\b", re.IGNORECASE)
_OWN_TRIED = re.compile(
    r"CREATE EXTENSION |CREATE (UNIQUE )?INDEX |CREATE STATISTICS |ALTER (TABLE|INDEX|SEQUENCE) |SELECT pg_catalog\.setval", re.IGNORECASE
)
"""Statements that may need something that was left out; without them the tables and their rows are complete."""
_OWN_LEFT_OUT = re.compile(
    r"CREATE (?:OR REPLACE |RECURSIVE |TRUSTED |PROCEDURAL |CONSTRAINT |UNIQUE |DEFAULT )*(?P<kind>FUNCTION|PROCEDURE|AGGREGATE"
    r"|(?:MATERIALIZED )?VIEW|(?:EVENT )?TRIGGER|RULE|OPERATOR(?: CLASS| FAMILY)?|CAST|POLICY|PUBLICATION|SUBSCRIPTION|SERVER"
    r"|FOREIGN (?:DATA WRAPPER|TABLE)|USER MAPPING|COLLATION|CONVERSION|TEXT SEARCH \w+|LANGUAGE|TRANSFORM|ACCESS METHOD|EXTENSION"
    r"|INDEX|STATISTICS) (?:IF NOT EXISTS )?(?P<name>(?:\"(?:[^\"]|\"\")*\"|[^\s(\"])*)",
    re.IGNORECASE,
)
_CONSTRAINT = re.compile(rf"ADD (?P<kind>CONSTRAINT) (?P<name>{_NAME})", re.IGNORECASE)
_OWN_SKIPPED = re.compile(
    r"CREATE (DATABASE|ROLE|USER|TABLESPACE)\b|(DROP|ALTER|REFRESH|SECURITY LABEL) "
    r"|SELECT (\*\s+FROM )?pg_catalog\.(pg_restore_\w+_stats|lo_\w+|lowrite)\b",
    re.IGNORECASE,
)
_NOT_THERE = ("42P01", "42704", "42883", "3F000", "23503")
"""The SQLSTATEs of a table, another object, a function, a schema, and a row of a foreign key that does not exist."""

_OPTION = rf"(?:{_NAME}\.)?{_NAME}(?:\s*=\s*(?:'(?:[^']|'')*'|[^\s,()']+))?"
_OPTIONS = re.compile(rf"\s(?P<word>WITH|SET)\s*\((?P<options>\s*{_OPTION}(?:\s*,\s*{_OPTION})*)\s*\)", re.IGNORECASE)
"""Options of a table, an index or a column, such as `WITH (fillfactor='70')`."""
_WRONG_OPTION = "22023"  # invalid_parameter_value


def restore(session: Session, path: Path, advance: Advance, left_out: list[str] | None = None) -> None:
    """
    Restore a dump in one transaction; call `advance` for each per cent of it.

    Tables, their rows, sequences, constraints and indexes are restored; owners, privileges and settings are skipped. The statements run as
    a role without rights outside the database, which owns what they make. Raise DatasetError, with file and line, for any other statement,
    for text that is not UTF-8, and if PostgreSQL refuses a statement; and for code that would run when somebody reads the tables.

    From a dump of the user's own, leave out what is no table, and options of tables, indexes and columns that the server does not know; add
    the names to `left_out`, and restore schemas and trusted extensions, too.
    """
    with open_dump(path, advance) as (lines, show), unprivileged(session) as restoring:
        # rows copied into a table of the same transaction need no WAL on a server of ours
        restoring.execute("BEGIN; SET LOCAL standard_conforming_strings = on")
        _Restorer(restoring, path, lines, show, left_out).run()
        restoring.execute("COMMIT")


class _Restorer:
    """A reader of a dump's SQL, line by line, that runs its statements and calls `show` now and then to show its progress."""

    def __init__(self, session: Session, path: Path, lines: Iterator[bytes], show: Callable[[], None], left_out: list[str] | None) -> None:
        self._session = session
        self._path = path
        self._lines = lines
        self._show = show
        self._left_out = left_out
        self._line = 0
        self._ended = self._connected = False

    def run(self) -> None:
        """Run all statements."""
        pending: list[str] = []
        for raw in iter(lambda: next(self._lines, b""), b""):
            self._line += 1
            if self._line % _LINES_AT_ONCE == 0:
                self._show()
            line = self._decoded(raw)
            if not pending and (not line.strip() or line.startswith("--")):
                continue
            if not pending and line.lstrip().startswith("\\"):
                self._check_command(line)
                continue
            pending.append(line)
            if line.rstrip().endswith(";") and (statements := _complete("".join(pending))) is not None:
                pending.clear()
                for statement in statements:
                    self._statement(statement)
        if "".join(pending).strip():
            raise self._error("the file ends within a statement; it is cut off, fetch it again")
        if not self._session.transaction_open:
            raise self._error("a statement of the dump has ended the transaction that it is restored in; leave out COMMIT and ROLLBACK")
        if (code := code_in(self._session)) is not None:
            raise self._error(f"the dump makes {code}: that is not allowed in a dump of tables; leave it out")

    def _statement(self, statement: str) -> None:
        encoding = _ENCODING.match(statement)
        if encoding and encoding.group(1).lower().replace("-", "") not in _READABLE:
            raise self._error(f"the dump is in {encoding.group(1)}; make it with pg_dump --encoding=UTF8")
        try:
            if self._left_out is None or not self._own(statement, self._left_out):
                self._of_tables(statement)
        except StatementFailed as error:
            denied = "; a dump is restored by a role that may only make tables, and has no rights on files, programs and settings"
            missing = f"; left out of the dump: {named(self._left_out)}" if self._left_out else ""
            raise self._error(f"{error}{denied if error.sqlstate == _DENIED else missing}") from error
        if not self._session.literals_are_standard:  # so that the next statement ends where PostgreSQL thinks it does
            raise self._error("a statement of the dump has switched standard_conforming_strings off; leave it out")

    def _of_tables(self, statement: str) -> None:
        if _COPY.match(statement):
            self._session.copy_from(statement, self._rows())
            if not self._ended:
                raise self._error("the file ends within the rows of a table; it is cut off, fetch it again")
        elif _RUN.match(statement):
            self._session.execute(statement)
        elif not _SKIPPED.match(statement):
            raise self._error(f"{' '.join(statement.split()[:3])!r} is not allowed in a dump of tables; leave it out")

    def _own(self, statement: str, left_out: list[str]) -> bool:
        """Treat a statement that only the user's own dump may have; return False for any other one."""
        if statement.upper().endswith(" ROW LEVEL SECURITY"):  # its policies are left out, and without any it would hide all rows
            return True
        if _OWN_RUN.match(statement):
            self._session.execute(re.sub(r"(?i)^CREATE SCHEMA", "CREATE SCHEMA IF NOT EXISTS", statement))
        elif _SKIPPED.match(statement):
            return False
        elif _OWN_TRIED.match(statement) or (_RUN.match(statement) and _OPTIONS.search(statement)):
            self._try(statement, left_out)
        elif _RUN.match(statement):
            return False
        elif _OWN_LEFT_OUT.match(statement):
            left_out.append(_name_in(statement))
        else:
            return _OWN_SKIPPED.match(statement) is not None
        return True

    def _try(self, statement: str, left_out: list[str]) -> None:
        """Run a statement; leave out options that the server does not know, or all of it if the tables are complete without it."""
        self._session.execute("SAVEPOINT tried")
        try:
            self._session.execute(statement)
        except StatementFailed as error:
            without, unknown = _without_options(statement, error)
            optional = error.sqlstate in _NOT_THERE or statement.upper().startswith("CREATE EXTENSION ")
            if not unknown and not (optional and _OWN_TRIED.match(statement)):
                raise
            self._session.execute("ROLLBACK TO SAVEPOINT tried")
            left_out.extend(name for name in unknown or [_name_in(statement)] if name not in left_out)
            if unknown and without:
                self._try(without, left_out)
        self._session.execute("RELEASE SAVEPOINT tried")

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

    def _check_command(self, line: str) -> None:
        if line.lstrip().startswith("\\connect ") and self._left_out is not None:
            if self._connected:
                raise self._error("the dump is of several databases; make one of a single database with pg_dump")
            self._connected = True
        elif not line.lstrip().startswith(("\\restrict", "\\unrestrict")):
            raise self._error(f"{line.strip()!r} is a command of psql; leave it out")

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


def _without_options(statement: str, error: StatementFailed) -> tuple[str, list[str]]:
    """Return a statement without the options that PostgreSQL's refusal names, empty if nothing remains to do, and their names."""
    unknown: list[str] = []

    def remaining(found: re.Match[str]) -> str:
        kept = []
        for option in re.findall(_OPTION, found["options"]):
            name = option.partition("=")[0].strip()
            refused = any(re.search(rf"(?<!\w){re.escape(part)}(?!\w)", error.reason) for part in re.split(r"[.\"]+", name) if part)
            unknown.append(f"option {name}") if refused else kept.append(option)
        return f" {found['word']} ({', '.join(kept)})" if kept else ""

    if error.sqlstate != _WRONG_OPTION:
        return statement, []
    without = _OPTIONS.sub(remaining, statement)
    nothing_set = statement.upper().startswith("ALTER ") and not re.search(r"\b(SET|ADD|RESET)\b", without, re.IGNORECASE)
    return "" if nothing_set else without, unknown


def _name_in(statement: str) -> str:
    """Return kind and name of what a statement of the user's own dump would have made; its beginning if it would have changed something."""
    found = _CONSTRAINT.search(statement) or _OWN_LEFT_OUT.match(statement)
    return f"{found['kind'].lower()} {found['name']}".rstrip() if found else " ".join(statement.split()[:5])

"""Reads a plain pg_dump into a session: statements and COPY blocks, nothing of psql's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pytest_pilotscope.postgres.session import Session

_COPY = re.compile(r"COPY public\.(\w+) \((.*)\) FROM stdin;")
_WANTED = ("CREATE TABLE", "ALTER TABLE ONLY", "CREATE INDEX")


def load_dump(session: Session, path: Path) -> None:
    """Create the tables of a dump with their rows, keys and indexes; owners, sequences and settings are left out."""
    lines = iter(path.read_text(encoding="utf-8").splitlines())
    for line in lines:
        copy = _COPY.fullmatch(line)
        if copy:
            session.copy_in(copy[1], [name.strip(' "') for name in copy[2].split(",")], _block(lines))
        elif line.startswith(_WANTED):
            statement = _statement(line, lines)
            if "nextval" not in statement:
                session.execute(statement)


def _block(lines: Iterator[str]) -> Iterator[bytes]:
    for line in lines:
        if line == "\\.":
            return
        yield line.encode() + b"\n"


def _statement(first: str, lines: Iterator[str]) -> str:
    parts = [first]
    while not parts[-1].rstrip().endswith(";"):
        parts.append(next(lines))
    return "\n".join(parts)

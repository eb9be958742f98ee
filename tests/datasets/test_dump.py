"""Dumps of pg_dump are restored without psql, and statements that could do harm are refused."""

from __future__ import annotations

import gzip
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pilotscope.datasets.published.dump import is_dump, restore
from pytest_pilotscope.errors import DatasetError
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session

ROWS = [(1, "a;b"), (2, "it's\tone\nof two \\"), (3, None)]
HEAD = "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\nSELECT pg_catalog.set_config('search_path', '', false);\n"
TABLE = "CREATE TABLE public.t (\n    id integer,\n    name text\n);\n"


@pytest.fixture(scope="module")
def dumped(newest_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Dump one table in every format that can be restored."""
    folder = tmp_path_factory.mktemp("dumps")
    with newest_server.connect() as administrator:
        administrator.execute("CREATE DATABASE dumped")
        with newest_server.connect("dumped") as session:
            session.execute("CREATE TABLE t (id serial PRIMARY KEY, name text)")
            for row in ROWS:
                session.execute("INSERT INTO t VALUES (%s, %s)", row)
            session.execute("CREATE INDEX t_name ON t (name)")
        program = newest_server.binaries.bindir / "pg_dump"
        paths = {"plain": folder / "t.sql", "custom": folder / "t.dump", "directory": folder / "t", "inserts": folder / "inserts.sql"}
        options = {"plain": ["-Fp"], "custom": ["-Fc"], "directory": ["-Fd"], "inserts": ["-Fp", "--inserts"]}
        for name, path in paths.items():
            command = [str(program), *options[name], f"--file={path}", f"{newest_server.dsn.reveal()} dbname=dumped"]
            subprocess.run(command, check=True, capture_output=True)
        administrator.execute("DROP DATABASE dumped WITH (FORCE)")
    paths["gzip"] = folder / "t.sql.gz"
    paths["gzip"].write_bytes(gzip.compress(paths["plain"].read_bytes()))
    return paths


@pytest.mark.parametrize("kind", ["plain", "gzip", "custom", "directory", "inserts"])
def test_every_format(dumped: dict[str, Path], kind: str, newest_scratch: Session) -> None:
    """Rows with every special character, the sequence and both indexes are as they were; progress reaches the end of a text."""
    steps: list[int] = []
    assert is_dump(dumped[kind])
    restore(newest_scratch, dumped[kind], steps.append)
    assert newest_scratch.execute("SELECT * FROM t ORDER BY id") == ROWS
    assert newest_scratch.execute("SELECT indexname FROM pg_indexes WHERE tablename = 't' ORDER BY 1") == [("t_name",), ("t_pkey",)]
    assert newest_scratch.scalar("SELECT last_value FROM t_id_seq") == 1
    assert sum(steps) <= 100


@pytest.fixture(scope="module")
def _one_session(newest_server: EmbeddedServer) -> Iterator[Session]:
    with newest_server.connect() as session:
        yield session


@pytest.fixture
def session(_one_session: Session) -> Iterator[Session]:
    """Open a session whose open transaction is rolled back: a restore that fails commits nothing."""
    yield _one_session
    _one_session.execute("ROLLBACK")


def written(folder: Path, text: str) -> Path:
    """Write a dump with this text behind its head."""
    path = folder / "dump.sql"
    path.write_text(HEAD + text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\\! touch /tmp/harm\n", "{path}:7: '\\\\! touch /tmp/harm' is a command of psql; leave it out"),
        ("\\connect other\n", "{path}:7: '\\\\connect other' is a command of psql; leave it out"),
        ("DO $$BEGIN; END$$;\n", "{path}:7: 'DO $$BEGIN; END$$' is not allowed in a dump of tables; leave it out"),
        ("CREATE FUNCTION f() RETURNS int;\n", "{path}:7: 'CREATE FUNCTION f()' is not allowed in a dump of tables; leave it out"),
        ("COPY (SELECT 1) TO PROGRAM 'x';\n", "{path}:7: 'COPY (SELECT 1)' is not allowed in a dump of tables; leave it out"),
        ("COPY t FROM PROGRAM 'x';\n", "{path}:7: 'COPY t FROM' is not allowed in a dump of tables; leave it out"),
        ("SET client_encoding = 'LATIN1';\n", "{path}:7: the dump is in LATIN1; make it with pg_dump --encoding=UTF8"),
        ("CREATE TABLE t (id", "{path}:7: the file ends within a statement; it is cut off, fetch it again"),
        (
            TABLE + "COPY public.t (id, name) FROM stdin;\n1\ta\n",
            "{path}:12: the file ends within the rows of a table; it is cut off, fetch it again",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, session: Session, text: str, message: str) -> None:
    """A statement that could start a program or touch a file, and an incomplete dump, are refused with their line."""
    path = written(tmp_path, text)
    with pytest.raises(DatasetError, match=f"^{re.escape(message.format(path=path))}$"):
        restore(session, path, lambda steps: None)


def test_rows_that_do_not_fit(tmp_path: Path, session: Session) -> None:
    """PostgreSQL's message about a row comes with file and line."""
    path = written(tmp_path, TABLE + "COPY public.t (id, name) FROM stdin;\nx\ta\n\\.\n")
    wanted = f'{path}:13: statement failed: invalid input syntax for type integer: "x" [22P02]: COPY public.t (id, name) FROM stdin'
    with pytest.raises(DatasetError, match=f"^{re.escape(wanted)}$"):
        restore(session, path, lambda steps: None)


def test_owners_and_rights_are_left_out(tmp_path: Path, newest_scratch: Session) -> None:
    """A dump of another server's roles restores: what belongs to them is not taken over."""
    text = TABLE + "ALTER TABLE public.t OWNER TO nobody_here;\nGRANT ALL ON TABLE public.t TO nobody_here;\n\\unrestrict x\n"
    restore(newest_scratch, written(tmp_path, text), lambda steps: None)
    assert newest_scratch.scalar("SELECT count(*) FROM t") == 0


@pytest.mark.parametrize("content", [b"SELECT 1;\n", b"", b"\x1f\x8bnot gzip", b"id,name\n1,2\n"])
def test_what_is_no_dump(tmp_path: Path, content: bytes) -> None:
    """Queries, nothing, and broken files are not taken for dumps."""
    path = tmp_path / "x.sql"
    path.write_bytes(content)
    assert not is_dump(path)

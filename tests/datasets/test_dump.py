"""Dumps of pg_dump are restored without psql, and statements that could do harm are refused."""

from __future__ import annotations

import gzip
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pilotscope.datasets.published import dump
from pytest_pilotscope.datasets.published.dump import restore
from pytest_pilotscope.datasets.published.dump_text import is_dump
from pytest_pilotscope.errors import DatasetError, ServerError
from pytest_pilotscope.postgres.connecting import connect
from pytest_pilotscope.postgres.databases import create_database, drop_database
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.loading import vacuum_analyze

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
    """Rows with every special character, the sequence and both indexes are as they were; progress reaches the end."""
    steps: list[int] = []
    assert is_dump(dumped[kind])
    restore(newest_scratch, dumped[kind], steps.append)
    assert newest_scratch.execute("SELECT * FROM t ORDER BY id") == ROWS
    assert newest_scratch.execute("SELECT indexname FROM pg_indexes WHERE tablename = 't' ORDER BY 1") == [("t_name",), ("t_pkey",)]
    assert newest_scratch.scalar("SELECT last_value FROM t_id_seq") == 1
    assert sum(steps) == 100


@pytest.mark.parametrize("options", [["-Fc"], ["-Fd"], ["-Fp", "--inserts"]])
def test_progress_shows_while_a_dump_is_loaded(
    options: list[str], newest_server: EmbeddedServer, newest_scratch: Session, tmp_path: Path
) -> None:
    """The bar moves while rows are loaded, also from formats that pg_restore reads and from INSERTs, and does not jump from 0 to 100."""
    newest_scratch.execute("CREATE TABLE t AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 60000) AS g")
    path = tmp_path / "dump"
    program, dsn = newest_server.binaries.bindir / "pg_dump", newest_server.dsn.reveal()
    command = [str(program), *options, f"--file={path}", f"{dsn} dbname={newest_scratch.database}"]
    subprocess.run(command, check=True, capture_output=True)
    newest_scratch.execute("DROP TABLE t")
    steps: list[int] = []
    restore(newest_scratch, path, steps.append)
    assert sum(steps) == 100
    assert len(steps) > 2


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


DENIED = "; a dump is restored by a role that may only make tables, and has no rights on files, programs and settings"
CODE = ": that is not allowed in a dump of tables; leave it out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("INSERT INTO t (name) SELECT pg_read_file('/etc/passwd');\n", "permission denied for function pg_read_file"),
        ("INSERT INTO t (name) SELECT pg_ls_dir('/');\n", "permission denied for function pg_ls_dir"),
        ("INSERT INTO t (id) SELECT lo_export(lo_create(0), '/tmp/harm');\n", "permission denied for function lo_export"),
        ("INSERT INTO t (id) SELECT lo_import('/etc/passwd');\n", "permission denied for function lo_import"),
        ("ALTER TABLE t ALTER name SET DEFAULT pg_read_file('/etc/passwd');\nINSERT INTO t (id) VALUES (1);\n", "pg_read_file"),
        ("COPY t FROM PROGRAM 'touch /tmp/harm' /* FROM stdin */;\n\\.\n", "permission denied to COPY to or from an external program"),
        ("COPY t FROM '/etc/passwd' /* FROM stdin */;\n\\.\n", "permission denied to COPY from a file"),
        ("INSERT INTO t (name) SELECT set_config('role', 'postgres', false);\n", 'permission denied to set role "postgres"'),
        (
            "INSERT INTO t (name) SELECT set_config('session_authorization', 'postgres', false);\n",
            'permission denied to set session authorization "postgres"',
        ),
        ("INSERT INTO t (name) SELECT set_config('session_preload_libraries', 'x', false);\n", "permission denied to set parameter"),
        ("INSERT INTO t (name) SELECT pg_reload_conf();\n", "permission denied for function pg_reload_conf"),
        (
            "INSERT INTO t (name) SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE pid <> pg_backend_pid();\n",
            "permission denied to terminate process",
        ),
        ("INSERT INTO t (name) SELECT query_to_xml('ALTER SYSTEM SET work_mem = 1', true, true, '')::text;\n", "ALTER SYSTEM"),
        ("SELECT pg_catalog.setval('x', 1), pg_read_file('/etc/passwd');\n", "permission denied for function pg_read_file"),
        ("INSERT INTO t (name) SELECT rolpassword FROM pg_authid;\n", "permission denied for table pg_authid"),
        ("CREATE TABLE pg_catalog.evil (i int);\n", "permission denied"),
    ],
)
def test_the_rights_of_a_dump(tmp_path: Path, newest_scratch: Session, text: str, message: str) -> None:
    """The statements run without a superuser's rights: no file is read or written, no program and no setting is reached."""
    path = written(tmp_path, TABLE.replace("public.t", "t") + "CREATE SEQUENCE x;\n" + text)
    with pytest.raises(DatasetError, match=re.escape(message)) as failure:
        restore(newest_scratch, path, lambda steps: None)
    assert str(failure.value).endswith(DENIED) or "ALTER SYSTEM" in text
    assert not Path("/tmp/harm").exists()  # noqa: S108  # this is where it would be
    assert newest_scratch.scalar("SELECT to_regclass('t')") is None
    assert newest_scratch.scalar("SELECT current_user || session_user::text") == "postgrespostgres"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE FUNCTION f() RETURNS int LANGUAGE C AS '/x', 'y';",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpython3u AS 'x';",
        "CREATE PROCEDURE f() LANGUAGE sql AS 'x';",
        "CREATE LANGUAGE plpython3u;",
        "CREATE EXTENSION file_fdw;",
        "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f();",
        "CREATE TRIGGER e AFTER INSERT ON t EXECUTE FUNCTION f();",
        "CREATE RULE r AS ON SELECT TO t DO INSTEAD SELECT 1;",
        "CREATE VIEW v AS SELECT pg_read_file('/etc/passwd');",
        "CREATE MATERIALIZED VIEW v AS SELECT 1;",
        "CREATE OPERATOR = (LEFTARG = int, RIGHTARG = int, FUNCTION = f);",
        "CREATE CAST (text AS int) WITH INOUT;",
        "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p;",
        "CREATE ROLE evil SUPERUSER;",
        "CREATE DATABASE evil;",
        "CREATE TABLESPACE evil LOCATION '/';",
        "ALTER SYSTEM SET work_mem = '1GB';",
        "ALTER ROLE postgres PASSWORD 'x';",
        "ALTER DATABASE postgres SET work_mem = '1GB';",
        "ALTER EXTENSION plpgsql ADD TABLE t;",
        "SECURITY LABEL ON TABLE t IS 'x';",
        "LOAD '/tmp/evil.so';",
        "CALL f();",
        "TRUNCATE t;",
        "DROP TABLE t;",
        "VACUUM;",
        "COPY t TO '/tmp/harm';",
        "COPY (SELECT 1) TO PROGRAM 'x';",
    ],
)
def test_statements_that_no_dump_of_tables_has(tmp_path: Path, session: Session, statement: str) -> None:
    """A statement that makes code, roles, files or settings is refused before it reaches the server."""
    path = written(tmp_path, f"{TABLE}{statement}\n")
    wanted = f"{path}:11: {' '.join(statement.rstrip(';').split()[:3])!r} is not allowed in a dump of tables; leave it out"
    with pytest.raises(DatasetError, match=f"^{re.escape(wanted)}$"):
        restore(session, path, lambda steps: None)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (
            "CREATE DOMAIN d AS text CHECK (pg_read_file(VALUE) <> '');\nCREATE INDEX ON public.t ((name::d));\n",
            "domain public.d, which calls pg_read_file",
        ),
        ("CREATE DOMAIN d AS int CHECK (VALUE > random());\n", "domain public.d, which calls random"),
    ],
)
def test_domains_that_call_functions(tmp_path: Path, newest_scratch: Session, text: str, made: str) -> None:
    """A domain is checked by whoever converts a value to it, so its conditions may not do anything but compare."""
    path = written(tmp_path, TABLE + text)
    with pytest.raises(DatasetError, match=re.escape(f"the dump makes {made}{CODE}")):
        restore(newest_scratch, path, lambda steps: None)
    assert newest_scratch.scalar("SELECT to_regclass('public.t')") is None


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("ALTER TABLE t ALTER name SET DEFAULT pg_read_file('PG_VERSION');\n", "default of public.t.name, which calls pg_read_file"),
        ("ALTER TABLE t ADD CHECK (lo_export(1, '/tmp/harm') = 1) NOT VALID;\n", "constraint t_check of public.t, which calls lo_export"),
        (
            "ALTER TABLE t ADD CHECK (query_to_xml(name, true, true, '') IS NULL);\n",
            "constraint t_name_check of public.t, which calls query_to_xml",
        ),
        ("CREATE DOMAIN d AS text DEFAULT set_config('jit', 'on', false);\n", "default of type public.d, which calls set_config"),
    ],
)
def test_what_runs_when_somebody_writes(tmp_path: Path, newest_scratch: Session, text: str, made: str) -> None:
    """A superuser may insert rows later (a drift, a stream, a measured INSERT), and would run defaults and constraints as a superuser."""
    path = written(tmp_path, TABLE + text.replace(" t ", " public.t ").replace(" d ", " public.d "))
    with pytest.raises(DatasetError, match=f"^{re.escape(f'{path}:11: the dump makes {made}{CODE}')}$"):
        restore(newest_scratch, path, lambda steps: None)
    assert newest_scratch.scalar("SELECT to_regclass('public.t')") is None


OTHER_END = "INSERT INTO public.t VALUES (1, '\\''); COMMIT; CREATE VIEW public.v AS SELECT 1; --');\n"
"""One statement if a backslash is an ordinary character, and three if not."""


def test_literals_end_where_the_reader_thinks(tmp_path: Path, newest_scratch: Session) -> None:
    """No statement may change where the next one ends; a role's own setting does not."""
    switch = "SELECT pg_catalog.setval('public.s', 1, set_config('standard_conforming_strings', 'off', false) = 'off');\n"
    path = written(tmp_path, f"{TABLE}CREATE SEQUENCE public.s;\n{switch}{OTHER_END}")
    wanted = f"{path}:12: a statement of the dump has switched standard_conforming_strings off; leave it out"
    with pytest.raises(DatasetError, match=f"^{re.escape(wanted)}$"):
        restore(newest_scratch, path, lambda steps: None)
    assert newest_scratch.execute("SELECT to_regclass('public.t'), to_regclass('public.v')") == [(None, None)]
    newest_scratch.execute(f"ALTER DATABASE {newest_scratch.database} SET standard_conforming_strings = off")
    restore(newest_scratch, written(tmp_path, TABLE + OTHER_END), lambda steps: None)
    assert newest_scratch.execute("SELECT name, to_regclass('public.v') FROM public.t") == [
        ("\\'); COMMIT; CREATE VIEW public.v AS SELECT 1; --", None)
    ]


def test_the_end_of_its_transaction(tmp_path: Path, newest_scratch: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a transaction the look at the catalog would believe the names of the dump's maker, so there has to be one."""
    monkeypatch.setattr(dump, "_RUN", re.compile("CREATE |COMMIT"))
    path = written(tmp_path, f"{TABLE}COMMIT;\n")
    wanted = f"{path}:11: a statement of the dump has ended the transaction that it is restored in; leave out COMMIT and ROLLBACK"
    with pytest.raises(DatasetError, match=f"^{re.escape(wanted)}$"):
        restore(newest_scratch, path, lambda steps: None)


SMUGGLED = {
    "function public.f()": "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1",
    "operator public.===(integer,integer)": "CREATE OPERATOR public.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
    "cast to public.m": "CREATE TYPE m AS ENUM ('x'); CREATE CAST (text AS m) WITH INOUT",
    "view or rule on public.v": "CREATE VIEW v AS SELECT 1",
    "trigger e": "CREATE TRIGGER e BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "policy p": "CREATE POLICY p ON t USING (true)",
}


@pytest.mark.parametrize("made", SMUGGLED)
def test_code_that_got_past_the_reader(tmp_path: Path, newest_scratch: Session, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog is looked at as well: should the reader let such a statement through, the dump is refused all the same."""
    monkeypatch.setattr(dump, "_RUN", re.compile("CREATE "))
    path = written(tmp_path, f"{TABLE}{SMUGGLED[made]};\n")
    with pytest.raises(DatasetError, match=re.escape(f"the dump makes {made}{CODE}")):
        restore(newest_scratch, path, lambda steps: None)


def test_what_a_dump_of_tables_may_have(tmp_path: Path, scratch: Session) -> None:
    """Types with functions and casts of their own, domains, identity, generated and serial columns are no code of the dump's maker."""
    text = """
CREATE TYPE public.mood AS ENUM ('sad', 'happy');
CREATE TYPE public.pair AS (a integer, b text);
CREATE TYPE public.span AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE DOMAIN public.positive AS integer CHECK ((VALUE > 0));
CREATE DOMAIN public.past AS date CHECK ((VALUE <= CURRENT_DATE));
CREATE TABLE public.all_kinds (
    id integer NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m public.mood, p public.pair, s public.span, n public.positive,
    twice integer GENERATED ALWAYS AS ((n * 2)) STORED, at timestamp DEFAULT now(), u uuid DEFAULT gen_random_uuid(),
    r float8 DEFAULT random(), old serial, since timestamp DEFAULT clock_timestamp() CHECK (since <= clock_timestamp())
);
INSERT INTO public.all_kinds (m, p, s, n) VALUES ('sad', '(1,x)', '[1,2]', 7);
CREATE INDEX ON public.all_kinds ((n + 1)) WHERE n > 3;
CREATE STATISTICS public.st ON m, n FROM public.all_kinds;
"""
    restore(scratch, written(tmp_path, text), lambda steps: None)
    assert scratch.execute("SELECT m, twice FROM all_kinds") == [("sad", 14)]
    vacuum_analyze(scratch)
    scratch.execute("CREATE INDEX ON all_kinds (n)")


def test_the_tables_of_a_dump_do_not_belong_to_a_superuser(tmp_path: Path, newest_scratch: Session) -> None:
    """A superuser's ANALYZE evaluates expressions as the owner: a role that cannot log in and is in no other role."""
    restore(newest_scratch, written(tmp_path, TABLE), lambda steps: None)
    owner = "SELECT rolname::text, rolsuper, rolcanlogin, rolpassword IS NULL FROM pg_class AS c JOIN pg_authid AS r ON r.oid = relowner"
    assert newest_scratch.execute(f"{owner} WHERE relname = 't'") == [("pilotscope_restorer", False, False, True)]


@pytest.mark.slow
def test_the_role_goes_with_its_last_database(tmp_path: Path, newest_server: EmbeddedServer) -> None:
    """Nothing of ours stays on a server of which everything that we made was dropped."""
    roles = "SELECT count(*) FROM pg_roles WHERE rolname = 'pilotscope_restorer'"
    with EmbeddedServer(newest_server.binaries) as server, server.connect() as administrator:
        for name in ("pilotscope_one", "pilotscope_two"):
            create_database(administrator, name, {"state": "complete"})
            with server.connect(name) as session:
                restore(session, written(tmp_path, TABLE), lambda steps: None)
        drop_database(administrator, "pilotscope_one")
        assert administrator.scalar(roles) == 1
        drop_database(administrator, "pilotscope_two")
        assert administrator.scalar(roles) == 0


def test_a_role_with_rights_is_not_taken(tmp_path: Path, newest_server: EmbeddedServer) -> None:
    """Somebody else's role of that name is refused, unchanged."""
    with EmbeddedServer(newest_server.binaries) as server, server.connect() as session:
        session.execute("CREATE ROLE pilotscope_restorer CREATEDB")
        wanted = "role 'pilotscope_restorer' on the server has rights that it must not have; revoke them, or drop it"
        with pytest.raises(ServerError, match=f"^{wanted}$"):
            restore(session, written(tmp_path, TABLE), lambda steps: None)


@pytest.mark.parametrize("power", [None, "pg_read_server_files", "pg_execute_server_program", "postgres"])
def test_a_role_of_the_users(power: str | None, tmp_path: Path, newest_server: EmbeddedServer) -> None:
    """A role without such rights restores by itself and owns the tables; one that could take them is refused."""
    with EmbeddedServer(newest_server.binaries) as server, server.connect() as administrator:
        administrator.execute("CREATE ROLE visitor LOGIN NOINHERIT")
        administrator.execute("CREATE DATABASE hers OWNER visitor")
        if power:
            administrator.execute(f"GRANT {power} TO visitor")
        with connect(server.dsn, user="visitor", dbname="hers") as session:
            if power:
                wanted = f"SQL of others is not run as role 'visitor', which may act as {power}; name another role in the DSN"
                with pytest.raises(ServerError, match=f"^{wanted}$"):
                    restore(session, written(tmp_path, TABLE), lambda steps: None)
            else:
                restore(session, written(tmp_path, TABLE), lambda steps: None)
                assert session.scalar("SELECT tableowner::text FROM pg_tables WHERE tablename = 't'") == "visitor"


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

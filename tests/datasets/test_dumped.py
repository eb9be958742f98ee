"""A dump of the user's own database becomes a dataset, in every format of pg_dump."""

from __future__ import annotations

import gzip
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_pilotscope.datasets.dumped import DumpedDataset
from pytest_pilotscope.datasets.files import load_workload_files
from pytest_pilotscope.errors import DatasetError, MissingServer, MissingWorkload, UsageError, WorkloadError
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.postgres.databases import copy_database, create_database, drop_database
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.chosen_queries import completed
from pytest_pilotscope.provision.database import PostgreSQLConfig, dataset_of, open_database
from tests.conftest import ServerOf
from tests.datasets.test_dump import HEAD, TABLE
from tests.projects import BENCHMARK, record_lines

SHOP = """
CREATE SCHEMA sales;
CREATE TYPE sales.state AS ENUM ('open', 'paid');
CREATE FUNCTION public.twice(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN 2 * x; END; $$;
CREATE FUNCTION sales.touched() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END; $$;
CREATE TABLE public.users (id serial PRIMARY KEY, name text, boss int REFERENCES public.users);
CREATE TABLE sales.orders (id int PRIMARY KEY, buyer int REFERENCES public.users, state sales.state, total int);
CREATE TABLE sales.parts (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE sales.parts_1 PARTITION OF sales.parts FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE VIEW public.rich AS SELECT * FROM sales.orders WHERE total > 10;
COMMENT ON COLUMN public.rich.id IS 'the id';
CREATE MATERIALIZED VIEW public.sums AS SELECT buyer, sum(total) FROM sales.orders GROUP BY 1;
CREATE INDEX sums_buyer ON public.sums (buyer);
CREATE INDEX orders_buyer ON sales.orders (buyer);
CREATE INDEX orders_twice ON sales.orders (public.twice(total));
CREATE TRIGGER touch BEFORE INSERT ON sales.orders FOR EACH ROW EXECUTE FUNCTION sales.touched();
CREATE RULE quiet AS ON DELETE TO sales.orders DO INSTEAD NOTHING;
CREATE POLICY mine ON sales.orders USING (true);
ALTER TABLE sales.orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE sales.orders FORCE ROW LEVEL SECURITY;
INSERT INTO public.users (name, boss) VALUES ('ann; -- "', NULL), (E'b\\tob', 1);
INSERT INTO sales.orders VALUES (1, 1, 'open', 5), (2, 2, 'paid', 50);
INSERT INTO sales.parts VALUES (1, '2020-05-05');
REFRESH MATERIALIZED VIEW public.sums;
"""
"""A database like real ones: schemas, types, partitions, and code."""

LEFT_OUT = (
    "only tables are restored, with the indexes and constraints that hold for them alone; left out: "
    "function public.twice, function sales.touched, view public.rich, materialized view public.sums, index sums_buyer and 4 more"
)

FORMATS = {
    "plain": ["-Fp"],
    "inserts": ["-Fp", "--inserts"],
    "created": ["-Fp", "--create", "--clean", "--if-exists"],
    "custom": ["-Fc"],
    "directory": ["-Fd"],
    "tar": ["-Ft"],
}


@pytest.fixture(scope="module")
def dumps(newest_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Dump the shop in every format."""
    folder = tmp_path_factory.mktemp("dumps")
    with newest_server.connect() as administrator:
        administrator.execute("CREATE DATABASE shop")
        with newest_server.connect("shop") as session:
            session.execute(SHOP)
        for name, options in {**FORMATS, "schema": ["--schema=sales"]}.items():
            command = [str(newest_server.binaries.bindir / "pg_dump"), *options, f"--file={folder / name}"]
            subprocess.run([*command, f"{newest_server.dsn.reveal()} dbname=shop"], check=True, capture_output=True)
        administrator.execute("DROP DATABASE shop WITH (FORCE)")
    return {name: folder / name for name in (*FORMATS, "schema")}


@pytest.fixture
def marked(newest_server: EmbeddedServer) -> Iterator[Session]:
    """Give an empty database with our mark."""
    with newest_server.connect() as administrator:
        create_database(administrator, "pilotscope_shop", {"state": "loading"})
        with newest_server.connect("pilotscope_shop") as session:
            yield session
        drop_database(administrator, "pilotscope_shop")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format(dumps: dict[str, Path], kind: str, marked: Session, caplog: pytest.LogCaptureFixture) -> None:
    """Tables, rows, keys, indexes and partitions of every schema are restored; code is left out, and named."""
    with caplog.at_level(logging.WARNING):
        DumpedDataset(name="shop", path=dumps[kind]).load(marked)
    assert marked.execute("SELECT id, name, boss FROM public.users ORDER BY id") == [(1, 'ann; -- "', None), (2, "b\tob", 1)]
    assert marked.execute("SELECT buyer, state, total FROM sales.orders ORDER BY id") == [(1, "open", 5), (2, "paid", 50)]
    assert marked.scalar("SELECT count(*) FROM sales.parts_1") == 1
    keys = "SELECT conname::text FROM pg_constraint WHERE contype IN ('p', 'f') AND conrelid > 16384 ORDER BY 1"
    assert marked.execute(keys) == [("orders_buyer_fkey",), ("orders_pkey",), ("users_boss_fkey",), ("users_pkey",)]
    indexes = "SELECT indexname::text FROM pg_indexes WHERE schemaname IN ('public', 'sales') ORDER BY 1"
    assert marked.execute(indexes) == [("orders_buyer",), ("orders_pkey",), ("users_pkey",)]
    assert [record.getMessage() for record in caplog.records] == [f"{dumps[kind]}: {LEFT_OUT}"]
    assert marked.scalar("SELECT count(*) FROM pg_proc WHERE oid > 16384") == 0
    assert marked.scalar("SELECT count(*) FROM pg_class WHERE relrowsecurity OR relforcerowsecurity") == 0


def test_options_that_the_server_does_not_know(tmp_path: Path, marked: Session, caplog: pytest.LogCaptureFixture) -> None:
    """Options of forks, on tables, columns, indexes and constraints, are left out, each named once; the others are kept."""
    path = tmp_path / "shop.sql"
    path.write_text(
        f"{HEAD}CREATE TABLE public.t (\n    \"Id\" int,\n    b int\n)\nWITH (fillfactor='70', fork_mode='a, (b)');\n"
        "CREATE TABLE public.u (id int) WITH (fork_mode=on);\n"
        'ALTER TABLE ONLY public.t ALTER COLUMN "Id" SET (pg_attver=3);\n'
        "ALTER TABLE ONLY public.t ALTER COLUMN b SET (n_distinct=5, pg_attver='3', fork_other=1);\n"
        "ALTER TABLE public.t SET (other_space.x=1);\n"
        'COPY public.t ("Id", b) FROM stdin;\n1\t2\n\\.\n'
        "CREATE INDEX t_b ON public.t USING btree (b) WITH (fork_mode='1', fillfactor='80') WHERE (b > 0);\n"
        "ALTER TABLE ONLY public.t ADD CONSTRAINT t_pkey PRIMARY KEY (\"Id\") WITH (fork_mode='1');\n"
    )
    DumpedDataset(name="shop", path=path).load(marked)
    assert marked.execute('SELECT "Id", b FROM t') == [(1, 2)]
    options = "SELECT relname::text, reloptions FROM pg_class WHERE relname IN ('t', 'u', 't_b', 't_pkey') ORDER BY 1"
    assert marked.execute(options) == [("t", ["fillfactor=70"]), ("t_b", ["fillfactor=80"]), ("t_pkey", None), ("u", None)]
    assert marked.scalar("SELECT attoptions FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'b'") == ["n_distinct=5"]
    assert caplog.messages == [
        f"{path}: only tables are restored, with the indexes and constraints that hold for them alone; left out: "
        "option fork_mode, option pg_attver, option fork_other, option other_space.x"
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_a_dump_of_a_whole_server(tmp_path: Path, newest_server: EmbeddedServer, packed: bool) -> None:
    """It is refused before a server is started, with the program to use instead."""
    command = [str(newest_server.binaries.bindir / "pg_dumpall"), "--schema-only", f"--dbname={newest_server.dsn.reveal()}"]
    written = subprocess.run(command, check=True, capture_output=True).stdout
    path = tmp_path / "all.sql"
    path.write_bytes(gzip.compress(written) if packed else written)
    message = f"{path} is of pg_dumpall, with all databases of a server; make a dump of a single database with pg_dump"
    with pytest.raises(DatasetError, match=f"^{re.escape(message)}$"):
        DumpedDataset(name="shop", path=path)


def test_other_wrong_values_are_refused(tmp_path: Path, marked: Session) -> None:
    """A statement that fails for another reason is not left out."""
    path = tmp_path / "shop.sql"
    path.write_text(f"{HEAD}CREATE TABLE public.t (a missing) WITH (fillfactor='70');\n")
    message = (
        f'{path}:{HEAD.count(chr(10)) + 1}: statement failed: type "missing" does not exist [42704]: '
        "CREATE TABLE public.t (a missing) WITH (fillfactor='70')"
    )
    with pytest.raises(DatasetError, match=f"^{re.escape(message)}$"):
        DumpedDataset(name="shop", path=path).load(marked)


def test_a_dump_of_one_schema(dumps: dict[str, Path], marked: Session, caplog: pytest.LogCaptureFixture) -> None:
    """A foreign key to a table of another schema is left out, by name; queries need not name the schema."""
    DumpedDataset(name="sales", path=dumps["schema"]).load(marked)
    assert "constraint orders_buyer_fkey" in caplog.messages[0]
    assert marked.scalar("SELECT count(*) FROM sales.orders") == 2
    path = "SELECT setconfig FROM pg_db_role_setting JOIN pg_database ON oid = setdatabase WHERE datname = current_database()"
    assert marked.scalar(path) == ["search_path=public, sales"]


LEFT_OUT_REMEDY = "a dump is restored without its views and functions: write what it stands for in its place, or mend this query"


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELECT count(*) FROM public.rich", f'relation "public.rich" does not exist; {LEFT_OUT_REMEDY}'),
        ("SELECT public.twice(id) FROM users", f"function public.twice(integer) does not exist; {LEFT_OUT_REMEDY}"),
        ("SELECT id = 'x'::text FROM users", "operator does not exist: integer = text; mend this query"),
        ("SELECT salary FROM users", 'column "salary" does not exist; mend this query'),
    ],
)
def test_a_query_of_what_was_left_out(dumps: dict[str, Path], marked: Session, tmp_path: Path, sql: str, problem: str) -> None:
    """It is refused before anything is measured, and the message says that views and functions of a dump are not there."""
    dataset = DumpedDataset(name="shop", path=dumps["custom"])
    dataset.load(marked)
    path = tmp_path / "mine.sql"
    path.write_text(sql)
    database: Any = SimpleNamespace(dataset=dataset, measuring_session=lambda: nullcontext(marked))
    workload = load_workload_files(path, "shop", None)
    with pytest.raises(WorkloadError, match=f"^{re.escape(f'{path}:1: {problem}: {sql}')}$"):
        completed(workload, database, Settings(), learns=False, show_progress=silent)


@pytest.mark.slow
def test_the_whole_way(dumps: dict[str, Path], cache: Path) -> None:
    """The embedded server has the tables; names without a schema are found in all schemas, also by copies; key and name are stable."""
    config = PostgreSQLConfig("My Shop!", dump=dumps["custom"], server="embedded")
    dataset = dataset_of(config)
    assert (dataset.name, dataset.database) == ("My Shop!", "my_shop_")
    assert dataset.key == DumpedDataset(name="other", path=dumps["custom"]).key != DumpedDataset(name="other", path=dumps["tar"]).key
    with open_database(config) as database, database.session() as session:
        assert session.scalar("SELECT count(*) FROM users JOIN orders ON buyer = users.id") == 2
        assert session.scalar("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'orders'") == "pilotscope_restorer"
        with database.copy() as copy, copy.session() as other:
            assert other.scalar("SELECT count(*) FROM orders") == 2
        expected = f"the dump {dumps['custom']} has no queries; name yours with --queries-dir"
        with pytest.raises(MissingWorkload, match=f"^{re.escape(expected)}$"):
            dataset.workload()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"db": "stats_tiny"}, "'stats_tiny' is a dataset with data of its own; give the data of the dump {path} another name with --db"),
        ({"scale": 2.0}, "--scale has no effect on the dump {path}; leave one of the two out"),
        ({"data_dir": Path("x")}, "--data-dir has no effect on the dump {path}; leave one of the two out"),
        ({"db": None, "server": "postgresql://db.example/x"}, "the data of the dump {path} needs a name; give it one with --db"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    """A dump has one name, which no other dataset has, and one size."""
    path = tmp_path / "shop.sql"
    path.write_text(HEAD + TABLE)
    with pytest.raises(UsageError, match=f"^{re.escape(message.format(path=path))}$"):
        dataset_of(PostgreSQLConfig(**{"db": "shop", "dump": path, **arguments}))  # type: ignore[arg-type]


def test_what_is_no_dump(tmp_path: Path) -> None:
    """A missing file, and a file of queries, are refused before anything is started."""
    expected = f"there is no dump {tmp_path}/x; make it with pg_dump or pilotscope clone, and name it with --dump"
    with pytest.raises(DatasetError, match=f"^{re.escape(expected)}$"):
        DumpedDataset(name="shop", path=tmp_path / "x")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "queries.sql", tmp_path / "pipe"):
        path.touch() if not path.exists() else None
        expected = f"{path} is no dump of PostgreSQL; --dump names a file or folder that pg_dump or pilotscope clone has made"
        with pytest.raises(DatasetError, match=f"^{re.escape(expected)}$"):
            DumpedDataset(name="shop", path=path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("DO $$BEGIN; END$$;\n", "'DO $$BEGIN; END$$' is not allowed in a dump of tables; leave it out"),
        ("ALTER TABLE t ADD CHECK (id > 0);\nTRUNCATE t;\n", "'TRUNCATE t' is not allowed in a dump of tables; leave it out"),
        ("COPY t TO PROGRAM 'x';\n", "'COPY t TO' is not allowed in a dump of tables; leave it out"),
        ("CREATE SCHEMA s CREATE VIEW v AS SELECT 1;\nSELECT pg_reload_conf();\n", "'SELECT pg_reload_conf()' is not allowed"),
        ("\\! touch /tmp/harm\n", "'\\\\! touch /tmp/harm' is a command of psql; leave it out"),
        ("\\connect a\n\\connect b\n", "the dump is of several databases; make one of a single database with pg_dump"),
        (
            "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1';\nCREATE TABLE public.d (i int DEFAULT public.f());\n",
            "statement failed: function public.f() does not exist [42883]: CREATE TABLE public.d (i int DEFAULT public.f()); "
            "left out of the dump: function public.f",
        ),
        ("INSERT INTO t (name) SELECT pg_read_file('/etc/passwd');\n", "permission denied for function pg_read_file"),
        ("CREATE DOMAIN d AS int CHECK (VALUE > random());\n", "the dump makes domain public.d, which calls random: that is not allowed"),
        ("CREATE UNIQUE INDEX u ON t (id);\nINSERT INTO t VALUES (1), (1);\n", "duplicate key value violates unique constraint"),
    ],
)
def test_what_is_refused(tmp_path: Path, marked: Session, text: str, message: str) -> None:
    """Leaving out is for what makes no table; nothing else is run, and no table is lost."""
    path = tmp_path / "shop.sql"
    path.write_text(HEAD + TABLE.replace("public.t", "t") + text)
    with pytest.raises(DatasetError, match=rf"^{re.escape(str(path))}:\d+: .*{re.escape(message)}"):
        DumpedDataset(name="shop", path=path).load(marked)
    assert marked.scalar("SELECT to_regclass('t')") is None


def test_a_foreign_key_that_does_not_hold(tmp_path: Path, marked: Session, caplog: pytest.LogCaptureFixture) -> None:
    """The rows are as they were, and the constraint is left out, by name."""
    path = tmp_path / "shop.sql"
    child = "CREATE TABLE public.u (t integer);\nINSERT INTO public.u VALUES (7);\nALTER TABLE public.t ADD PRIMARY KEY (id);\n"
    key = "ALTER TABLE ONLY public.u ADD CONSTRAINT u_t_fkey FOREIGN KEY (t) REFERENCES public.t(id);\n"
    path.write_text(HEAD + TABLE + child + key)
    DumpedDataset(name="shop", path=path).load(marked)
    assert marked.execute("SELECT t FROM u") == [(7,)]
    assert caplog.messages == [
        f"{path}: only tables are restored, with the indexes and constraints that hold for them alone; left out: constraint u_t_fkey"
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER SYSTEM SET work_mem = '1GB';",
        "ALTER ROLE postgres PASSWORD 'x';",
        "ALTER DATABASE postgres SET work_mem = '1GB';",
        "CREATE ROLE evil SUPERUSER;",
        "CREATE DATABASE evil;",
        "CREATE TABLESPACE evil LOCATION '/';",
        "SELECT pg_catalog.lo_export(1, '/tmp/harm');",
        "SELECT * FROM pg_catalog.pg_restore_relation_stats('version', '180000'::integer);",
        "DROP TABLE t;",
        "CREATE EXTENSION IF NOT EXISTS nowhere WITH SCHEMA public;",
        "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p;",
        "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);",
        "CREATE CAST (text AS int) WITH INOUT;",
    ],
)
def test_what_is_left_out_is_not_run(tmp_path: Path, marked: Session, statement: str) -> None:
    """The table is restored, and the statement beside it has not happened."""
    path = tmp_path / "shop.sql"
    path.write_text(f"{HEAD}{TABLE}{statement}\n")
    DumpedDataset(name="shop", path=path).load(marked)
    made = "(SELECT count(*) FROM {} WHERE oid >= 16384 AND {} = 'evil')"
    assert marked.scalar("SELECT count(*) FROM public.t") == 0
    assert marked.scalar(f"SELECT {made.format('pg_roles', 'rolname')} + {made.format('pg_database', 'datname')}") == 0
    assert marked.scalar("SELECT count(*) FROM pg_operator WHERE oid >= 16384") == 0
    assert not Path("/tmp/harm").exists()  # noqa: S108  # this is where it would be
    with marked.rolled_back():
        assert marked.scalar("SHOW work_mem") == "4MB"


def test_a_trusted_extension_is_there(server_of: ServerOf, tmp_path: Path) -> None:
    """Columns of a type of an extension are restored, where the server has it and its author says that it is harmless."""
    path = tmp_path / "shop.sql"
    path.write_text(
        f"{HEAD}CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public;\nCREATE EXTENSION IF NOT EXISTS file_fdw WITH SCHEMA public;\n"
        "CREATE TABLE public.t (name public.citext);\nCOPY public.t (name) FROM stdin;\nAnn\n\\.\n"
        "CREATE INDEX upper_names ON public.t USING btree (name);\n"
    )
    server = server_of(15)
    with server.connect() as administrator:
        if not administrator.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'citext'"):
            pytest.skip("the extension citext is not on this server")
        create_database(administrator, "pilotscope_extended", {"state": "loading"})
        with server.connect("pilotscope_extended") as session:
            DumpedDataset(name="shop", path=path).load(session)
            assert session.scalar("SELECT count(*) FROM t WHERE name = 'ANN'") == 1
            assert session.execute("SELECT extname::text FROM pg_extension ORDER BY 1") == [("citext",), ("plpgsql",)]
        drop_database(administrator, "pilotscope_extended")


def test_pg_restore_that_cannot_read(tmp_path: Path, dumps: dict[str, Path], marked: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program, its message, and what to do."""
    path = tmp_path / "shop.dump"
    path.write_bytes(dumps["custom"].read_bytes()[:300])
    with pytest.raises(
        DatasetError, match=rf"^/.*/pg_restore cannot read {path}: pg_restore: error: .*; a dump is read by a pg_restore as "
    ):
        DumpedDataset(name="shop", path=path).load(marked)
    monkeypatch.setattr("pytest_pilotscope.postgres.binaries.available_binaries", lambda: iter(()))
    monkeypatch.setenv("PATH", str(tmp_path))
    expected = (
        f"{path} is in a format of PostgreSQL's own: pg_restore is needed; found: none; install it, on Debian and Ubuntu with: "
        "apt-get install postgresql-client; or make a dump in SQL (pg_dump -Fp)"
    )
    with pytest.raises(DatasetError, match=f"^{re.escape(expected)}$") as caught:
        DumpedDataset(name="shop", path=path).load(marked)
    assert isinstance(caught.value.__cause__, MissingServer)


def test_a_copy_keeps_the_settings_of_its_database(newest_server: EmbeddedServer) -> None:
    """A search path and a library to load belong to a database; PostgreSQL itself does not copy them."""
    with newest_server.connect() as session:
        create_database(session, "pilotscope_one", {"state": "complete"})
        session.execute("ALTER DATABASE pilotscope_one SET search_path TO \"$user\", 'a b', public")
        session.execute("ALTER DATABASE pilotscope_one SET pilotscope_test.x TO 'it''s'")
        copy_database(session, "pilotscope_one", "pilotscope_two", {"state": "copy"}, by_file=True)
        with newest_server.connect("pilotscope_one") as one, newest_server.connect("pilotscope_two") as two:
            for name in ("search_path", "pilotscope_test.x"):
                assert one.scalar(f"SHOW {name}") == two.scalar(f"SHOW {name}")
        for name in ("pilotscope_one", "pilotscope_two"):
            drop_database(session, name)


def test_settings_know_the_dump() -> None:
    """The command line's choice reaches the configuration."""
    settings = Settings(datasets=("shop",), dump=Path("shop.dump"), server="embedded")
    assert PostgreSQLConfig.from_settings(settings, db="shop") == PostgreSQLConfig("shop", dump=Path("shop.dump"), server="embedded")


@pytest.mark.slow
def test_a_run_on_a_dump(dumps: dict[str, Path], pytester: pytest.Pytester, cache: Path) -> None:
    """One command measures an estimator on the data of a dump: training queries are generated from its foreign keys."""
    pytester.makefile(".sql", mine="SELECT count(*) FROM users u JOIN orders o ON o.buyer = u.id WHERE o.total > 1;")
    arguments = ["--algo", "oracle", "--dump", str(dumps["custom"]), "--db", "shop", "--queries-dir", "mine.sql", "--no-mlflow"]
    pytester.makepyfile(test_workload=BENCHMARK)
    result = pytester.runpytest_subprocess("test_workload.py", "--rounds", "2", *arguments)
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(
        [f"pilotscope: warning: {dumps['custom']}: only tables are restored, *", "pilotscope: shop on embedded PostgreSQL *"]
    )
    (query,) = [line for line in record_lines(pytester.path) if line["kind"] == "query_report" and line["side"] == "oracle"]
    assert query["steered_ratio"] == 1.0

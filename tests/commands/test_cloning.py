"""`pilotscope clone`: a dump of a database that one may only read; a sample in it loses no reference."""

from __future__ import annotations

import gzip
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_pilotscope.commands.cloning import Sample, clone
from pytest_pilotscope.datasets.dumped import DumpedDataset
from pytest_pilotscope.errors import DatasetError, ServerError
from pytest_pilotscope.postgres.connecting import dsn_of
from pytest_pilotscope.postgres.databases import create_database, drop_database
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from tests.commands.conftest import Command
from tests.datasets.test_dumped import SHOP

_names = itertools.count()


def dsn(server: EmbeddedServer, database: str, role: str = "clone_reader") -> str:
    """Return the connection string of a role that may only read."""
    return dsn_of(host=str(server._sockets), port=5432, user=role, password="hunter2", dbname=database).reveal()  # noqa: S106


@dataclass(frozen=True)
class Source:
    """A database to clone, and its server."""

    server: EmbeddedServer
    session: Session

    @property
    def dsn(self) -> str:
        """The reader's connection string."""
        return dsn(self.server, self.session.database)

    def allow(self) -> None:
        """Let the reader read every table."""
        for (schema,) in self.session.execute("SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_|information'"):
            self.session.execute(
                f'GRANT USAGE ON SCHEMA "{schema}" TO clone_reader; GRANT SELECT ON ALL TABLES IN SCHEMA "{schema}" TO clone_reader'
            )


def _sources(server: EmbeddedServer) -> Iterator[Source]:
    name = f"cloned_{next(_names)}"
    with server.connect() as administrator:
        if not administrator.execute("SELECT 1 FROM pg_roles WHERE rolname = 'clone_reader'"):
            administrator.execute("CREATE ROLE clone_reader LOGIN")
        administrator.execute(f"CREATE DATABASE {name}")
        with server.connect(name) as session:
            yield Source(server, session)
        administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def source(server: EmbeddedServer) -> Iterator[Source]:
    """Give an empty database of every PostgreSQL version that there is, and a role without rights."""
    yield from _sources(server)


@pytest.fixture(scope="module")
def shared_source(newest_server: EmbeddedServer) -> Iterator[Source]:
    """Give one database for all examples."""
    yield from _sources(newest_server)


class Restored:
    """A clone that is restored in a database of its own."""

    def __init__(self, server: EmbeddedServer, path: Path) -> None:
        self.server = server
        self.path = path
        self.name = f"pilotscope_restored_{next(_names)}"

    def __enter__(self) -> Session:
        with self.server.connect() as administrator:
            create_database(administrator, self.name, {"state": "loading"})
        self.session = self.server.connect(self.name)
        DumpedDataset(name="clone", path=self.path).load(self.session)
        return self.session

    def __exit__(self, *_: object) -> None:
        self.session.close()
        with self.server.connect() as administrator:
            drop_database(administrator, self.name)


def test_a_whole_database(source: Source, pilotscope: Command, workplace: Path) -> None:
    """A role that may only read clones every table of every schema; the clone is restored with its keys and indexes."""
    source.session.execute(SHOP)
    source.session.execute("CREATE TABLE sales.made (a int, b int GENERATED ALWAYS AS (a + 1) STORED, c int GENERATED ALWAYS AS IDENTITY)")
    source.session.execute("INSERT INTO sales.made (a) VALUES (1), (NULL); CREATE TABLE nothing ()")
    source.session.execute('CREATE TABLE "Odd ""name" ("a%s" float8, "B" timestamptz, c bytea, d interval)')
    source.session.execute("""INSERT INTO "Odd ""name" VALUES (0.1, '2020-03-04 05:06:07.890123+00', '\\x00ff', '1 day -2 hours')""")
    role = f"ALTER ROLE clone_reader IN DATABASE {source.session.database} SET"
    source.session.execute(f"{role} datestyle = 'SQL, DMY'; {role} intervalstyle = 'sql_standard'; {role} statement_timeout = 1000")
    source.session.execute("ALTER TABLE sales.orders DISABLE ROW LEVEL SECURITY")
    source.allow()
    written = "SELECT txid_snapshot_xmax(txid_current_snapshot())"
    before = source.session.scalar(written)
    result = pilotscope("clone", source.dsn, "-o", "shop")
    assert source.session.scalar(written) == before
    assert result.exit_code == 0, result.stderr
    assert result.stdout == (
        "shop: 8 rows of 6 tables\nmeasure it with: pytest benchmarks --db shop --dump shop --queries-dir my_queries\n"
    )
    assert "hunter2" not in result.stderr + (workplace / "shop").read_text(encoding="utf-8")
    assert (workplace / "shop").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in workplace.iterdir()] == ["shop"]
    with Restored(source.server, workplace / "shop") as session:
        for table in ("public.users", "sales.orders", "sales.parts", "sales.made", '"Odd ""name"'):
            assert session.execute(f"SELECT t::text FROM {table} AS t") == source.session.execute(f"SELECT t::text FROM {table} AS t"), (
                table
            )
        assert session.scalar("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == 2
        assert session.scalar("SELECT count(*) FROM pg_indexes WHERE indexname = 'orders_buyer'") == 1
    assert source.session.scalar("SELECT count(*) FROM pg_stat_activity WHERE usename = 'clone_reader'") == 0


def test_tables_that_may_not_be_read(source: Source, pilotscope: Command, workplace: Path) -> None:
    """They are left out and named, with the foreign keys that refer to them; row-level security hides nothing unnoticed."""
    source.session.execute("CREATE TABLE boss (id int PRIMARY KEY); CREATE TABLE salary (id int PRIMARY KEY, boss int REFERENCES boss)")
    source.session.execute("CREATE TABLE person (id int PRIMARY KEY, salary int REFERENCES salary, boss int REFERENCES boss)")
    source.session.execute("CREATE SCHEMA hidden; CREATE TABLE hidden.t (i int); GRANT SELECT ON hidden.t TO clone_reader")
    source.session.execute("CREATE TABLE mine (i int); ALTER TABLE mine ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON mine USING (i > 1)")
    source.session.execute("INSERT INTO boss VALUES (1); INSERT INTO salary VALUES (1, 1); INSERT INTO person VALUES (1, 1, 1)")
    source.session.execute("GRANT SELECT ON boss, person, mine TO clone_reader; GRANT SELECT (id) ON salary TO clone_reader")
    for sample in ([], ["--sample", "100%"]):
        result = pilotscope("clone", source.dsn, "-o", f"shop{len(sample)}.sql.gz", *sample)
        assert result.exit_code == 0, result.stderr
        assert result.stdout.splitlines()[:4] == [
            f"shop{len(sample)}.sql.gz: 2 rows of 2 tables",
            "left out: hidden.t, because of role 'clone_reader': it may not read schema hidden",
            "left out: public.mine, because of role 'clone_reader': row-level security shows it some rows only",
            "left out: public.salary, because of role 'clone_reader': it may not read column boss, and a clone has whole tables",
        ]
        assert b"salary (" not in gzip.decompress((workplace / f"shop{len(sample)}.sql.gz").read_bytes()).replace(b"(salary)", b"")
        with Restored(source.server, workplace / f"shop{len(sample)}.sql.gz") as session:
            assert session.execute("SELECT conname::text FROM pg_constraint WHERE contype = 'f'") == [("person_boss_fkey",)]


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (
            'CREATE SCHEMA "Sales 1"; CREATE TABLE "Sales 1".t (i int); CREATE SCHEMA hr; CREATE TABLE hr.t (i int, j int); '
            "GRANT USAGE ON SCHEMA hr TO clone_reader; GRANT SELECT (i) ON hr.t TO clone_reader",
            "role 'clone_reader' may read no whole table of database '{database}' (Sales 1.t: it may not read schema Sales 1, hr.t: it may "
            'not read column j, and a clone has whole tables); have the owner run GRANT USAGE ON SCHEMA "Sales 1", "hr" TO "clone_reader"; '
            'GRANT SELECT ON ALL TABLES IN SCHEMA "Sales 1", "hr" TO "clone_reader", or name another database in the connection string',
        ),
        (
            "CREATE TABLE t (i int, j int); GRANT SELECT (i, j) ON t TO clone_reader",
            "role 'clone_reader' may read no whole table of database '{database}' (public.t: it has rights on columns only, not on the "
            'table); have the owner run GRANT USAGE ON SCHEMA "public" TO "clone_reader"; GRANT SELECT ON ALL TABLES IN SCHEMA "public" TO '
            '"clone_reader", or name another database in the connection string',
        ),
        (
            "CREATE TABLE t (i int); GRANT SELECT ON t TO clone_reader; ALTER TABLE t ENABLE ROW LEVEL SECURITY",
            "role 'clone_reader' may read no whole table of database '{database}' (public.t: row-level security shows it some rows "
            "only); use a role that has BYPASSRLS, or name another database in the connection string",
        ),
        ("SELECT 1", "database '{database}' has no tables; name another database in the connection string"),
    ],
)
def test_a_role_that_may_read_nothing(statements: str, expected: str, source: Source, tmp_path: Path) -> None:
    """Role, database, each table with the reason, and statements that help, with the schemas that matter."""
    source.session.execute(statements)
    expected = expected.format(database=source.session.database)
    with pytest.raises(DatasetError, match=f"^{re.escape(expected)}$"):
        clone(source.dsn, tmp_path / "shop", sample=None, seed=0, say=print)
    assert list(tmp_path.iterdir()) == []


CIRCLE = """
CREATE TABLE team (id int PRIMARY KEY, lead_a int, lead_b int);
CREATE TABLE person (a int, b int, team int REFERENCES team, boss_a int, boss_b int, PRIMARY KEY (b, a),
    FOREIGN KEY (boss_a, boss_b) REFERENCES person (a, b));
""".replace("FOREIGN KEY (boss_a, boss_b) REFERENCES person (a, b)", "FOREIGN KEY (boss_b, boss_a) REFERENCES person")
FILLED = """
ALTER TABLE team ADD FOREIGN KEY (lead_b, lead_a) REFERENCES person;
SET session_replication_role = replica;
INSERT INTO team SELECT i, i, i % 7 FROM generate_series(1, 200) i;
INSERT INTO person SELECT i, i % 7, i % 200 + 1, nullif(i / 2, 0), nullif(i / 2, 0) % 7 FROM generate_series(1, 2000) i;
SET session_replication_role = origin;
CREATE TABLE note (person_a int, person_b int, at date, FOREIGN KEY (person_b, person_a) REFERENCES person) PARTITION BY RANGE (at);
CREATE TABLE note_1 PARTITION OF note FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE note_2 PARTITION OF note FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
INSERT INTO note SELECT i % 2000 + 1, (i % 2000 + 1) % 7, '2020-01-01'::date + i % 700 FROM generate_series(1, 5000) i;
"""


def test_a_sample_with_circles(source: Source, tmp_path: Path) -> None:
    """Composite keys, a table that refers to itself, a circle of two tables and partitions: every reference is there, by seed."""
    source.session.execute(CIRCLE + FILLED)
    source.allow()
    made = [
        clone(source.dsn, tmp_path / f"{n}", sample=Sample(share=0.05), seed=seed, say=lambda text: None)
        for n, seed in enumerate((1, 1, 2))
    ]
    texts = [re.sub(rb"\\(un)?restrict .*", b"", one.path.read_bytes()) for one in made]
    assert texts[0] == texts[1] != texts[2]
    rows = made[0].rows
    assert 150 < rows["public.note_1"] + rows["public.note_2"] < 350
    assert 100 < rows["public.person"] < 2000
    with Restored(source.server, made[0].path) as session:
        assert session.scalar("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated AND conparentid = 0") == 4
        joined = session.scalar("SELECT count(*) FROM note JOIN person ON (person_a, person_b) = (a, b) JOIN team ON team.id = team")
        assert joined == session.scalar("SELECT count(*) FROM note")


@pytest.mark.parametrize("sample", [None, Sample(share=1.0)])
def test_all_is_of_one_moment(source: Source, tmp_path: Path, sample: Sample | None) -> None:
    """Somebody who writes meanwhile changes nothing in the clone: neither rows nor tables."""
    source.session.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (a int REFERENCES a); INSERT INTO a VALUES (1)")
    source.session.execute("INSERT INTO b VALUES (1), (1)")
    source.allow()

    def write(text: str) -> None:
        if text.startswith("public.a"):
            source.session.execute("INSERT INTO a VALUES (2); INSERT INTO b VALUES (2); CREATE TABLE c (i int); CREATE INDEX made ON b (a)")

    made = clone(source.dsn, tmp_path / "shop", sample=sample, seed=0, say=write)
    assert made.rows == {"public.a": 1, "public.b": 2}
    with Restored(source.server, made.path) as session:
        assert session.scalar("SELECT count(*) FROM a JOIN b ON b.a = a.id") == 2
        assert session.scalar("SELECT count(*) FROM pg_indexes WHERE indexname = 'made'") == 0


def test_a_number_of_rows(source: Source, tmp_path: Path) -> None:
    """A limit counts the rows of each table, before those that they refer to."""
    source.session.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (a int REFERENCES a)")
    source.session.execute("INSERT INTO a SELECT generate_series(1, 1000); INSERT INTO b SELECT i FROM generate_series(1, 1000) i")
    source.allow()
    made = clone(source.dsn, tmp_path / "shop", sample=Sample.read("50"), seed=0, say=lambda text: None)
    assert made.rows["public.b"] == 50
    assert 50 <= made.rows["public.a"] <= 100


@dataclass(frozen=True)
class Schema:
    """Tables of one to three key columns, and references (child, parent), also to itself and in circles."""

    widths: Sequence[int]
    references: Sequence[tuple[int, int]]
    rows: Sequence[int]

    def statements(self) -> Iterator[str]:
        """Yield the SQL that makes and fills the tables; every reference is to a row that is there, or NULL."""
        keys = [[f"k{column}" for column in range(width)] for width in self.widths]
        columns = {number: [*names] for number, names in enumerate(keys)}
        for place, (child, parent) in enumerate(self.references):
            columns[child] += [f"r{place}_{name}" for name in keys[parent]]
        for number, names in columns.items():
            yield f"CREATE TABLE t{number} ({', '.join(f'{name} int' for name in names)}, PRIMARY KEY ({', '.join(keys[number])}))"
            values = [f"CASE WHEN {position} = 0 THEN i ELSE i % {position + 2} END" for position in range(self.widths[number])]
            for place, (child, parent) in enumerate(self.references):
                if child == number:
                    target = f"nullif((i * {7 + place}) % {self.rows[parent] + 1}, 0)"
                    values += [target if position == 0 else f"{target} % {position + 2}" for position in range(self.widths[parent])]
            yield f"INSERT INTO t{number} SELECT {', '.join(values)} FROM generate_series(1, {self.rows[number]}) AS i"
        for place, (child, parent) in enumerate(self.references):
            named = ", ".join(f"r{place}_{name}" for name in keys[parent])
            yield f"ALTER TABLE t{child} ADD FOREIGN KEY ({named}) REFERENCES t{parent}"


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """Draw a schema with rows."""
    count = draw(st.integers(1, 4))
    numbers = st.integers(0, count - 1)
    return Schema(
        widths=draw(st.lists(st.integers(1, 3), min_size=count, max_size=count)),
        references=draw(st.lists(st.tuples(numbers, numbers), max_size=6)),
        rows=draw(st.lists(st.integers(0, 60), min_size=count, max_size=count)),
    )


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(schema=schemas(), share=st.sampled_from([0.02, 0.3]), seed=st.integers(0, 3))
def test_no_reference_is_lost(
    shared_source: Source, tmp_path_factory: pytest.TempPathFactory, schema: Schema, share: float, seed: int
) -> None:
    """Whatever the references, PostgreSQL accepts every foreign key on the sample, which is a part of the rows."""
    session = shared_source.session
    session.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    for statement in schema.statements():
        session.execute(statement)
    shared_source.allow()
    path = tmp_path_factory.mktemp("sample") / "sample.sql"
    clone(shared_source.dsn, path, sample=Sample(share=share), seed=seed, say=lambda text: None)
    with Restored(shared_source.server, path) as restored:
        assert restored.scalar("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated") == len(schema.references)
        for number in range(len(schema.rows)):
            statement = f"SELECT t::text FROM t{number} AS t"
            assert set(restored.execute(statement)) <= set(session.execute(statement))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shop", "-o", "x"], "expected a connection string such as postgresql://user@host:port/database, got 'shop'"),
        (["postgresql://db.example/shop", "-o", "there"], "there is there already; name another file with -o"),
        *(
            (
                ["postgresql://db.example/shop", "-o", "x", "--sample", sample],
                f"expected a share of the rows such as 10%, or a number of rows, got {sample!r}",
            )
            for sample in ("110%", "0%", "0", "few", "1.5", "nan%")
        ),
    ],
)
def test_wrong_usage(pilotscope: Command, workplace: Path, arguments: list[str], message: str) -> None:
    """Exit code 2, and nothing was connected to."""
    (workplace / "there").touch()
    result = pilotscope("clone", *arguments)
    assert (result.exit_code, result.stderr.splitlines()[-1].endswith(message)) == (2, True), result.stderr


def test_where_nothing_can_be_written(source: Source, pilotscope: Command) -> None:
    """The file, the reason, and what to do; JSON says the same numbers."""
    source.session.execute("CREATE TABLE t (i int); GRANT SELECT ON t TO clone_reader; INSERT INTO t VALUES (1)")
    result = pilotscope("clone", source.dsn, "-o", "nowhere/shop")
    expected = "Error: nowhere/shop cannot be written: No such file or directory; name another file with -o"
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, expected)
    told = json.loads(pilotscope("clone", source.dsn, "-o", "shop", "--json").stdout)
    assert told == {"path": "shop", "role": "clone_reader", "rows": {"public.t": 1}, "left_out": {}}


def test_a_pg_dump_that_is_too_old(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wanted version, those that were found, and the package."""
    source.session.execute("CREATE TABLE t (i int); GRANT SELECT ON t TO clone_reader")
    (tmp_path / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.3'\n")
    (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setattr("pytest_pilotscope.postgres.binaries.available_binaries", lambda: iter(()))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    major = source.server.binaries.major
    expected = (
        f"pg_dump {major} or newer is needed; found: {tmp_path}/pg_dump (12.3); install it, on Debian and Ubuntu with: "
        f"apt-get install postgresql-client-{major}"
    )
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        clone(source.dsn, tmp_path / "shop", sample=None, seed=0, say=print)


def test_the_password_is_on_no_command_line(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump gets it as a variable; variables that would set something in its session are not passed on, and its message is scrubbed."""
    source.session.execute("CREATE TABLE t (i int); GRANT SELECT ON t TO clone_reader")
    told = tmp_path / "told"
    script = f"""#!/bin/sh
        [ "$1" = --version ] && echo 'pg_dump (PostgreSQL) 99.1' && exit
        echo "$PGPASSWORD $PGOPTIONS $PGAPPNAME $SECRET_TOKEN|$*" > {told}
        echo "boom $PGPASSWORD" >&2; exit 1
    """
    (tmp_path / "pg_dump").write_text(script)
    (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setattr("pytest_pilotscope.postgres.binaries.available_binaries", lambda: iter(()))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name, value in {"PGOPTIONS": "-c geqo=off", "PGAPPNAME": "mine", "SECRET_TOKEN": "abc"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ServerError, match=rf"^{tmp_path}/pg_dump cannot read the schema of .*password=\*\*\*.*: boom \*\*\*$"):
        clone(source.dsn, tmp_path / "shop", sample=None, seed=0, say=print)
    variables, _, arguments = told.read_text().partition("|")
    assert variables.split() == ["hunter2", "mine"]
    assert "hunter2" not in arguments
    assert not (tmp_path / "shop").exists()

"""Labels against PostgreSQL's own COUNT(*), on generated and on real data, and its rules that counting in memory must not miss."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from pytest_pilotscope.datasets.stats.dataset import StatsDataset
from pytest_pilotscope.labels import cardinalities, read_schema
from pytest_pilotscope.labels.source import Expression, SessionSource
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.meaning import read_meaning
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.joins import Schema, Subplan
from pytest_pilotscope.queries.queries import Query
from tests.conftest import LibraryOf
from tests.labels.dumps import load_dump

DATA = Path(__file__).parents[3] / "shared" / "data"
MakeDatabase = Callable[[str, Callable[[Session], None]], Session]


@pytest.fixture(scope="module")
def loaded(newest_server: EmbeddedServer, library_of: LibraryOf) -> Iterator[MakeDatabase]:
    """Return a function that makes a database of a name and fills it, once."""
    sessions: dict[str, Session] = {}

    def make(name: str, fill: Callable[[Session], None]) -> Session:
        if name not in sessions:
            with newest_server.connect() as administrator:
                administrator.execute(f"CREATE DATABASE {name}")
            sessions[name] = newest_server.connect(name)
            sessions[name].execute(f"LOAD '{library_of(newest_server)}'")
            fill(sessions[name])
            sessions[name].execute("VACUUM ANALYZE")
            sessions[name].execute("RESET search_path")
        return sessions[name]

    yield make
    for name, session in sessions.items():
        session.close()
        with newest_server.connect() as administrator:
            administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")


def real(loaded: MakeDatabase, name: str) -> Session:
    """Return a database of the real data beside the checkout."""
    dump = DATA / name / f"{name}.sql"
    if not dump.exists():
        pytest.skip(f"no {dump}")
    return loaded(f"labels_{name}", lambda session: load_dump(session, dump))


def generated(loaded: MakeDatabase) -> tuple[Session, list[Query]]:
    """Return generated data so small that PostgreSQL counts its joins, with 200 of its queries."""
    dataset = StatsDataset(name="stats_tiny", scale=0.01)
    workload = dataset.workload()
    queries = [*workload.test, *workload.validation, *workload.train]
    return loaded("labels_generated", dataset.load), queries[:200]


def labelled(session: Session, queries: Sequence[Query], folder: Path, schema: Schema) -> dict[str, Mapping[Subplan, int | None]]:
    """Return the counts of the labels; everything must have been counted in memory."""
    labels = cardinalities(session, queries, schema=schema, fingerprint="f", cache_dir=folder)
    assert dict(labels.unsupported) == {}
    assert {label.source for found in labels.values() for label in found.values()} == {"memory"}
    return {name: {subplan: label.rows for subplan, label in found.items()} for name, found in labels.items()}


def differences(session: Session, queries: Sequence[Query], folder: Path, *, most_rows: int, seconds: float) -> tuple[int, int, list[str]]:
    """
    Compare with the planner's SQL of each set, in random order until the time is over: sets compared, all sets, and what differs.

    Sets of more than `most_rows` rows are left out, because PostgreSQL would take hours for them.
    """
    labels = labelled(session, queries, folder, read_schema(session))
    todo = [
        (level, mask, labels[query.id][subplan], query.sql)
        for query in queries
        for subplan, (level, mask) in read_meaning(session, query.sql).subplans().items()
    ]
    random.Random(0).shuffle(todo)  # noqa: S311  # an order, not a secret
    compared, found = 0, []
    ends_s = time.monotonic() + seconds
    counted: dict[str, int] = {}
    for level, mask, rows, text in todo:
        if rows is None or rows > most_rows:
            continue
        if time.monotonic() > ends_s:
            break
        sql = level.count_sql(mask).sql
        if sql not in counted:
            counted[sql] = session.scalar(sql)
        compared += 1
        if counted[sql] != rows:
            found.append(f"{sorted(level.query.subplan(mask))}: {rows} instead of {counted[sql]} in {text}")
    return compared, len(todo), found


@pytest.mark.slow
def test_every_subplan_of_two_hundred_generated_queries(loaded: MakeDatabase, tmp_path: Path) -> None:
    """Labels equal COUNT(*) on all subplans of 200 queries that PostgreSQL can count (up to 3 million rows each)."""
    session, queries = generated(loaded)
    compared, total, found = differences(session, queries, tmp_path, most_rows=3_000_000, seconds=300)
    assert len(queries) == 200
    assert found == []
    assert compared > 0.95 * total


@pytest.mark.parametrize("file", ["test.sql", pytest.param("train.sql", marks=pytest.mark.slow)])
def test_real_queries_on_real_data(loaded: MakeDatabase, tmp_path: Path, file: str) -> None:
    """Labels equal COUNT(*) on every subplan of the STATS queries, of 300 of the 1000 training queries."""
    session = real(loaded, "stats_tiny")
    texts = (DATA / "stats_tiny" / file).read_text(encoding="utf-8").splitlines()
    queries = [Query(id=f"{number}", sql=text) for number, text in enumerate(texts) if text.strip()]
    compared, total, found = differences(session, queries[:300], tmp_path, most_rows=10**9, seconds=300)
    assert found == []
    assert compared == total


@pytest.mark.slow
def test_job_queries_with_up_to_seventeen_relations(loaded: MakeDatabase, tmp_path: Path) -> None:
    """Labels equal COUNT(*) on every subplan of the JOB queries, with LIKE, IN, OR, BETWEEN, IS NULL and self-joins."""
    session = real(loaded, "imdb_tiny")
    files = sorted((DATA / "imdb_tiny" / "queries").glob("*.sql"))
    queries = [Query(id=file.stem, sql=file.read_text(encoding="utf-8")) for file in files]
    compared, total, found = differences(session, queries, tmp_path, most_rows=10**9, seconds=300)
    assert found == []
    assert compared == total


TYPES = """
    CREATE TABLE t (
        id bigint, i2 smallint, i8 bigint, n numeric(10, 3), f double precision, r real, s text, v varchar(9), c char(5),
        b boolean, d date, ts timestamp, tz timestamptz, u uuid, "Mixed Case" integer, j json
    );
    INSERT INTO t SELECT i, i % 5, 5000000000 + i % 7, nullif(i % 4, 3) / 2.0,
        CASE i % 5 WHEN 0 THEN float8 'NaN' WHEN 1 THEN float8 '-0' ELSE i % 5 - 2 END, i % 3 / 10.0,
        (ARRAY['a', 'B', 'ä', E'x\\ty', '', NULL, E'b\\\\n', '%_'])[1 + i % 8], (ARRAY['a', 'B', 'ab', 'x'])[1 + i % 4],
        (ARRAY['a', 'a  ', 'B'])[1 + i % 3], nullif(i % 3, 2) = 1, date '2010-01-30' + i % 40,
        timestamp '2010-01-01 00:00' + i % 50 * interval '11 hours', timestamptz '2010-03-28 00:30+00' + i % 4 * interval '30 minutes',
        md5((i % 6)::text)::uuid, i % 3, '{}'
    FROM generate_series(1, 240) AS i;
    CREATE TABLE empty (LIKE t);
    CREATE VIEW seen AS SELECT * FROM t;
"""

CONDITIONS = [
    "i2 > 2.5",
    "i2 = 2.0",
    "i2 <> 2.5",
    "i8 >= 5000000003",
    "i2 = 5000000003",
    "i2 > -1",
    "NOT (i2 = 1 OR i8 IS NULL)",
    "i2 IN (1, 7, -3)",
    "n = 0.5",
    "n > 0.25",
    "n IS NULL",
    "f > 0",
    "f = 'NaN'",
    "r = 0.1",
    "f BETWEEN -1 AND 1",
    "s LIKE 'b%'",
    "s LIKE '%\\%%'",
    "s ILIKE 'B%'",
    "s NOT LIKE 'a'",
    "s < 'b'",
    "s >= 'B' AND s <= 'a'",
    "s = ''",
    "s IN ('a', 'ä')",
    "s IS NOT NULL",
    "v = 'a' OR s = 'B'",
    "c = 'a'",
    "c = 'a  '",
    "b",
    "NOT b",
    "b IS NOT TRUE",
    "d >= '2010-02-01'",
    "d < date '2010-01-31' + interval '1 month'",
    "d = '2010-02-03'::date",
    "ts BETWEEN '2010-01-03' AND '2010-01-05'::timestamp",
    "extract(month from ts) = 1",
    "tz > '2010-03-28 01:00+00'",
    "i2 + 1 = i8 - 5000000000",
    "i2 < i8",
    "length(s) > 1",
    "lower(s) = 'b'",
    "u = md5('3')::uuid",
    '"Mixed Case" = 1',
    "coalesce(s, 'none') = 'none'",
    "i2 IS DISTINCT FROM 3",
    "s SIMILAR TO '(a|B)'",
    "s ~ '^[aB]'",
    "i2 = ANY (ARRAY[1, 2])",
    "s::text = 'a'",
    "CASE WHEN i2 = 1 THEN s END = 'a'",
    "i2 NOT BETWEEN 1 AND 3",
    "s NOT IN ('a', 'B')",
    "(i2, i8) = (1, 5000000001)",
    "i2 % 2 = 0",
]

JOINS = [
    f"x.{left} = y.{right}"
    for left, right in (
        *((name, name) for name in ("i2", "i8", "n", "f", "r", "s", "v", "c", "b", "d", "ts", "tz", "u", '"Mixed Case"')),
        *(("i2", "i8"), ("s", "v"), ("i2", '"Mixed Case"')),
    )
]


@pytest.fixture(scope="module")
def typed(loaded: MakeDatabase) -> Session:
    """Return a table with a column of every common type, an empty one and a view."""

    def fill(session: Session) -> None:
        session.execute(TYPES)

    return loaded("labels_types", fill)


def test_conditions_mean_what_postgresql_says(typed: Session, tmp_path: Path) -> None:
    """Every kind of condition selects the rows that PostgreSQL selects by the original text, NULLs and collations included."""
    queries = [Query(id=condition, sql=f"SELECT count(*) FROM t WHERE {condition}") for condition in CONDITIONS]
    labels = labelled(typed, queries, tmp_path, read_schema(typed))
    assert {name: rows[frozenset("t")] for name, rows in labels.items()} == {query.id: typed.scalar(query.sql) for query in queries}


@pytest.mark.parametrize(("zone", "order"), [("Europe/Berlin", "ISO, DMY"), ("America/New_York", "ISO, MDY")])
def test_constants_are_read_as_the_session_reads_them(typed: Session, tmp_path: Path, zone: str, order: str) -> None:
    """A time without a zone is one of the session's, and 3/4 a day in March or in April; labels of other rules are kept apart."""
    conditions = ["tz >= '2010-03-28 02:00'", "d > '1/2/2010'", "tz < timestamptz '2010-03-28 03:15'"]
    queries = [Query(id=condition, sql=f"SELECT count(*) FROM t WHERE {condition}") for condition in conditions]
    try:
        typed.execute(f"SET TimeZone = '{zone}'")
        typed.execute(f"SET DateStyle = '{order}'")
        labels = labelled(typed, queries, tmp_path, read_schema(typed))
        assert {name: rows[frozenset("t")] for name, rows in labels.items()} == {query.id: typed.scalar(query.sql) for query in queries}
    finally:
        typed.execute("RESET TimeZone")
        typed.execute("RESET DateStyle")


def test_joins_compare_values_not_their_text(typed: Session, tmp_path: Path) -> None:
    """Keys of every type join as in PostgreSQL: -0 equals 0, NaN equals NaN, char(n) ignores padding, 1.0 equals 1.00."""
    queries = [Query(id=join, sql=f"SELECT count(*) FROM t AS x, t AS y WHERE {join} AND x.id <= 100") for join in JOINS]
    typed.execute("SET TimeZone = 'Europe/Berlin'")
    labels = labelled(typed, queries, tmp_path, read_schema(typed))
    assert {name: rows[frozenset("xy")] for name, rows in labels.items()} == {query.id: typed.scalar(query.sql) for query in queries}


def test_an_empty_table_has_empty_joins(typed: Session, tmp_path: Path) -> None:
    """No rows, no columns to speak of, and no failure."""
    sql = "SELECT 1 FROM t, empty AS e WHERE t.i2 = e.i2 AND t.s = e.s AND e.i8 > 1 AND e.s LIKE 'a%'"
    labels = labelled(typed, [Query(id="q", sql=sql)], tmp_path, read_schema(typed))
    assert labels["q"] == {frozenset("t"): 240, frozenset("e"): 0, frozenset("te"): 0}


@pytest.mark.parametrize("join", ["x.i2 = y.n", "x.d < y.d", "x.c = y.s", "lower(x.s) = lower(y.s)", "x.i2 + 1 = y.i2"])
def test_joins_by_expressions_are_counted_by_postgresql(typed: Session, tmp_path: Path, join: str) -> None:
    """An equality that casts a column, one of expressions, and an inequality are not for keys."""
    query = Query(id="q", sql=f"SELECT count(*) FROM t AS x, t AS y WHERE {join}")
    label = cardinalities(typed, [query], schema=read_schema(typed), fingerprint="f", cache_dir=tmp_path)["q"][frozenset("xy")]
    assert (label.rows, label.source) == (typed.scalar(query.sql), "postgres")


def test_subqueries_have_labels_of_their_own_level(typed: Session, tmp_path: Path) -> None:
    """Their sets are called as the planner calls them, and those that depend on the outer row have a reason."""
    sql = "SELECT count(*) FROM t WHERE i2 > (SELECT avg(u.i2) FROM t AS u) AND n >= (SELECT min(v.n) FROM t AS v WHERE v.i8 = t.i8)"
    labels = cardinalities(typed, [Query(id="q", sql=sql)], schema=read_schema(typed), fingerprint="f", cache_dir=tmp_path)
    assert labels["q"].keys() | labels.reasons["q"].keys() == typed.subplans(sql).keys()
    assert [label.rows for subplan, label in labels["q"].items() if "u" in subplan] == [240]
    assert [label.rows for subplan, label in labels["q"].items() if "t" in subplan] == [typed.scalar(sql)]
    assert [sorted(subplan) for subplan in labels.reasons["q"]] == [["v"]]


@pytest.mark.parametrize(
    ("sql", "together"),
    [
        ("SELECT count(*) FROM t AS x FULL JOIN t AS y ON x.i2 = y.id AND x.i8 = y.i8", "xy"),
        ("SELECT count(*) FROM (t AS x JOIN t AS y ON x.id = y.id) FULL JOIN t AS z ON z.id = y.i8 WHERE x.s IS NULL", "xyz"),
        ("SELECT count(*) FROM t AS x, t AS z WHERE x.id = z.id AND EXISTS (SELECT 1 FROM t AS y WHERE y.id = x.i2 AND y.n > 0)", "xyz"),
        ("SELECT count(*) FROM t AS x WHERE NOT EXISTS (SELECT 1 FROM t AS y WHERE y.i2 < x.id - 200)", "xy"),
        ("SELECT count(*) FROM t AS x WHERE (id, i8) IN (SELECT y.id, z.i8 FROM t AS y, t AS z WHERE y.i2 = z.i2 AND z.id < 9)", "xyz"),
        ("SELECT count(*) FROM t AS x, LATERAL (SELECT * FROM t AS y WHERE y.id = x.i2 + 0 AND b) AS l WHERE l.d IS NOT NULL", "xy"),
        ("SELECT count(*) FROM t AS x LEFT JOIN LATERAL (SELECT n AS m FROM t AS y WHERE y.id < x.i2) AS l ON l.m > 0", "xy"),
        ("SELECT count(*) FROM t AS x JOIN (SELECT y.id + 1 AS next FROM t AS y WHERE y.b) AS q ON q.next > x.id", "xy"),
    ],
)
def test_outer_semi_and_lateral_joins_are_counted_by_postgresql(typed: Session, tmp_path: Path, sql: str, together: str) -> None:
    """The label of the whole is what PostgreSQL itself returns for the query, and every relation alone has one, too."""
    labels = cardinalities(typed, [Query(id="q", sql=sql)], schema=read_schema(typed), fingerprint="f", cache_dir=tmp_path)
    assert dict(labels.unsupported) == {}
    assert labels["q"][frozenset(together)].rows == typed.scalar(sql)
    assert labels["q"][frozenset(together)].source == "postgres"
    assert {frozenset(alias) for alias in together} <= labels["q"].keys()


@pytest.mark.parametrize("join", ["x.id = y.id", "x.id < y.id"], ids=["in memory", "by PostgreSQL"])
def test_a_filter_that_fails_on_a_row(typed: Session, tmp_path: Path, join: str, caplog: pytest.LogCaptureFixture) -> None:
    """The sets with it have a reason, the others of its query are counted, and other queries have all of theirs."""
    shared = f"SELECT count(*) FROM t AS x, t AS y WHERE {join} AND y.i2 > 3"
    queries = [Query(id="fails", sql=f"{shared} AND 1 / x.i2 > 0"), Query(id="shares", sql=shared)]
    labels = cardinalities(typed, queries, schema=read_schema(typed), fingerprint="f", cache_dir=tmp_path)
    assert dict(labels.unsupported) == {}
    assert dict(labels.reasons) == {"fails": dict.fromkeys((frozenset("x"), frozenset("xy")), "division by zero")}
    assert caplog.messages == [
        "PostgreSQL cannot evaluate ((1 / i2) > 0) of table public.t for all rows (division by zero): "
        "sets of relations with it are counted one by one",
        "query fails: 2 of 3 subplans have no label; {x}: division by zero",
    ]
    assert labels["fails"].keys() == {frozenset("y")}
    assert labels["shares"][frozenset("xy")].rows == typed.scalar(shared)


def test_a_statement_that_is_not_planned(typed: Session, tmp_path: Path) -> None:
    """It is named with PostgreSQL's reason, and the others have their labels."""
    queries = [Query(id="bad", sql="SELECT nothing FROM t"), Query(id="good", sql="SELECT 1 FROM t"), Query(id="none", sql="SELECT 1")]
    labels = cardinalities(typed, queries, schema=read_schema(typed), fingerprint="f", cache_dir=tmp_path)
    assert dict(labels.unsupported) == {"bad": 'column "nothing" does not exist', "none": "it has no relations"}
    assert labels["good"][frozenset("t")].rows == 240


@pytest.mark.parametrize("condition", ["d < current_date", "tz < now()"])
def test_what_is_not_immutable_is_counted_each_time(typed: Session, tmp_path: Path, condition: str) -> None:
    """PostgreSQL says what depends on the clock; its count is not kept."""
    query = Query(id="q", sql=f"SELECT count(*) FROM t WHERE {condition}")
    label = cardinalities(typed, [query], schema=read_schema(typed), fingerprint="f", cache_dir=tmp_path)["q"][frozenset("t")]
    assert (label.rows, label.source) == (typed.scalar(query.sql), "postgres")
    known = cardinalities(typed, [query], schema=read_schema(typed), fingerprint="f", cache_dir=tmp_path, known_only=True)
    assert dict(known) == {}


def test_a_set_of_many_relations_is_planned_as_a_whole(typed: Session) -> None:
    """PostgreSQL may reorder the joins of a set's SQL; afterwards the session is as it was."""
    limits = "SELECT current_setting('join_collapse_limit')::int + current_setting('from_collapse_limit')::int"
    assert SessionSource(typed).count(limits, 1000) == 200
    assert typed.scalar(limits) == 16


def test_statistics_do_not_change_what_a_set_means(loaded: MakeDatabase) -> None:
    """Without them the planner considers the same sets, with the same SQL, and takes other numbers of rows."""
    session, queries = generated(loaded)
    different = 0
    for query in queries[:40]:
        meant, quickly = (read_meaning(session, query.sql, statistics=statistics).subplans() for statistics in (True, False))
        assert {subplan: level.count_sql(mask) for subplan, (level, mask) in meant.items()} == {
            subplan: level.count_sql(mask) for subplan, (level, mask) in quickly.items()
        }
        different += any(level.rows != quickly[subplan][0].rows for subplan, (level, _) in meant.items())
    assert different > 20


def test_sets_chosen_by_chance_are_those_of_the_measured_plan(loaded: MakeDatabase, tmp_path: Path) -> None:
    """Under GEQO the sets depend on the statistics, so that labels are planned with them."""
    session, queries = generated(loaded)
    several = [query for query in queries if query.sql.count(" AS ") >= 6][:20]
    chance = {"geqo_threshold": 4, "geqo_pool_size": 4, "geqo_generations": 4}
    for name, value in chance.items():
        session.execute(f"SET {name} = {value}")
    try:
        labels = cardinalities(session, several, schema=read_schema(session), fingerprint="f", cache_dir=tmp_path)
        assert {query.id: set(labels[query.id]) for query in several} == {query.id: set(session.subplans(query.sql)) for query in several}
    finally:
        for name in chance:
            session.execute(f"RESET {name}")


def test_a_count_that_takes_too_long_is_marked(typed: Session, tmp_path: Path) -> None:
    """The statement timeout ends it, the label says so, and the session is as it was."""
    relations = [f"t AS r{number}" for number in range(6)]
    joins = [f"r{number}.i2 < r{number + 1}.i2 + 9" for number in range(5)]
    query = Query(id="q", sql=f"SELECT 1 FROM {', '.join(relations)} WHERE {' AND '.join(joins)}")
    labels = cardinalities(typed, [query], schema=read_schema(typed), fingerprint="f", cache_dir=tmp_path, timeout_ms=20)
    assert not labels["q"][frozenset(f"r{number}" for number in range(6))].finished
    assert labels["q"][frozenset(["r0"])].rows == 240
    assert typed.scalar("SHOW statement_timeout") == "0"


def test_what_costs_as_much_as_an_unfinished_count_is_not_tried(typed: Session, tmp_path: Path) -> None:
    """After one set that contains a product, the cheaper ones are tried, until one more does not finish."""
    tried: list[str] = []

    class Watched(SessionSource):
        def count(self, sql: str, timeout_ms: int) -> int | None:
            tried.append(sql)
            return super().count(sql, timeout_ms)

    typed.execute("CREATE TEMP TABLE wide AS SELECT g AS k FROM generate_series(1, 20000) AS g; ANALYZE wide")
    kept = [f"wide AS k{number}" for number in range(4)]
    joins = [f"b.k = k{number}.k" for number in range(4)]
    sql = f"SELECT 1 FROM wide AS a, wide AS b, {', '.join(kept)} WHERE a.k % 7 <> b.k % 11 AND {' AND '.join(joins)}"
    labels = cardinalities(
        Watched(typed), [Query(id="q", sql=sql)], schema=read_schema(typed), fingerprint="f", cache_dir=tmp_path, timeout_ms=50
    )
    product = frozenset("ab")
    unfinished = {subplan for subplan, label in labels["q"].items() if not label.finished}
    assert unfinished == {subplan for subplan in labels["q"] if product <= subplan}
    assert len(unfinished) == 16
    assert len(tried) == 2
    assert set(labels.unknown("q").values()) == {
        "counting it takes more than 50 ms, measured or by PostgreSQL's estimate, or all sets of the query take more than 500 ms"
    }


def test_rows_come_in_the_same_order_every_time(loaded: MakeDatabase) -> None:
    """Neither indexes nor synchronised scans change the order of the rows between two reads, so columns fit together."""
    session, _ = generated(loaded)
    source = SessionSource(session)
    schema = read_schema(session)
    for table in schema:
        read: list[list[pa.Array]] = []
        for kind, sql in (("integer", '"id"'), ("integer", '"id"'), ("text", "ctid::text"), ("text", "ctid::text")):
            blocks: list[list[pa.Array]] = []
            source.rows(f'"{table}"', [Expression(sql, kind)], blocks.append)  # type: ignore[arg-type]  # one of the two
            read.append([block[0] for block in blocks])
        assert read[0] == read[1] != []
        assert read[2] == read[3] != []


def test_the_schema_is_what_a_query_sees(typed: Session) -> None:
    """Tables with their columns in order and types as PostgreSQL spells them; views are left out."""
    schema = read_schema(typed)
    assert list(schema) == ["empty", "t"]
    assert list(schema["t"]) == ["id", "i2", "i8", "n", "f", "r", "s", "v", "c", "b", "d", "ts", "tz", "u", "Mixed Case", "j"]
    assert [schema["t"][column] for column in ("i2", "n", "v", "c")] == [
        "smallint",
        "numeric(10,3)",
        "character varying(9)",
        "character(5)",
    ]


def test_a_digest_changes_with_the_order_of_the_rows_and_no_row_is_sent(loaded: MakeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server sums hashes of rows with their places, also of columns called as the places and hashes are."""

    def fill(session: Session) -> None:
        for table, order in (("up", ""), ("same", ""), ("down", "DESC")):
            session.execute(
                f"CREATE TABLE {table} AS SELECT i AS place, i %% 3 AS hash FROM generate_series(1, 1000) i ORDER BY i {order}", ()
            )
        session.execute("CREATE TABLE nothing (place int)")

    session = loaded("labels_digest", fill)
    monkeypatch.setattr(session, "copy_out", None)
    up, same, down, nothing = (SessionSource(session).digest(f"ONLY {table}") for table in ("up", "same", "down", "nothing"))
    assert up == same
    assert (up[0], down[0]) == (1000, 1000)
    assert up[1] != down[1]
    assert nothing == (0, "0")

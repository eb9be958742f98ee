"""Samples and their bitmaps: what is evaluated here is what PostgreSQL says, and PostgreSQL is asked about the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pilotscope.algorithms.mscn.vocabulary import read_ranges
from pytest_pilotscope.algorithms.table_samples import SAMPLE_ROWS, Samples, TableSample, draw
from pytest_pilotscope.algorithms.three_valued import matcher, truth
from pytest_pilotscope.algorithms.typed_columns import Mask, column, comparable, kind_of
from pytest_pilotscope.errors import AlgorithmError, StatementFailed, UnsupportedQuery
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.meaning import read_meaning
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.joins import Relation, Schema
from pytest_pilotscope.queries.predicates import Predicate, TypedText
from tests.conftest import LibraryOf

ROWS = """
    INSERT INTO kinds SELECT i,
        CASE WHEN i % 5 > 0 THEN i % 7 - 3 END,
        CASE WHEN i % 6 > 0 THEN 9007199254740990 + i END,
        CASE WHEN i % 4 > 0 THEN (i % 9 - 4) / 4.0 END,
        CASE WHEN i % 4 > 1 THEN (i % 11 - 5) / 10.0 END,
        CASE WHEN i % 3 > 0 THEN (i % 11 - 5) / 10.0 END,
        CASE WHEN i % 3 > 0 THEN i % 2 = 0 END,
        CASE WHEN i % 5 > 1 THEN DATE '2020-02-27' + i % 4 END,
        CASE WHEN i % 5 > 1 THEN TIMESTAMP '2020-02-28 23:59:59.5' + i % 4 * INTERVAL '0.25 s' END,
        CASE WHEN i % 5 > 1 THEN TIMESTAMPTZ '2020-02-28 23:59:59+02' + i % 4 * INTERVAL '1 hour' END,
        CASE WHEN i % 7 > 0 THEN (ARRAY['', 'a', 'A', 'ab', 'a%b', 'a_b', E'a\\nb', 'ä', 'a\\b', 'it''s', 'a '])[1 + i % 11] END,
        CASE WHEN i % 7 > 0 THEN (ARRAY['ab', 'b', 'B'])[1 + i % 3] END,
        CASE WHEN i % 7 > 0 THEN (ARRAY['ab', 'b', 'B'])[1 + i % 3] END
    FROM generate_series(1, 60) AS i
"""
KINDS = """
    CREATE TABLE kinds (
        id integer, small smallint, big bigint, exact numeric(8, 3), approximate real, double double precision, yes boolean, day date,
        moment timestamp, instant timestamptz, word text, short varchar(5), fixed char(4)
    )
"""
HERE = (  # evaluated without PostgreSQL
    "small = 1",
    "small <> -1",
    "small BETWEEN -1 AND 1",
    "small NOT BETWEEN -1 AND 1",
    "small IN (1, 2, -3)",
    "small NOT IN (1, 2)",
    "NOT (small IN (1, 2) AND exact > 0)",
    "small IS NULL",
    "small IS NOT NULL",
    "small = '2'",
    "big > 9007199254740993",
    "big = 9007199254740995",
    "exact = 0.25",
    "exact < '0.5'",
    "exact >= -1",
    "approximate = 0.1",
    "approximate >= 0.5",
    "double = 0.1",
    "double < 0.3",
    "yes",
    "NOT yes",
    "yes = false",
    "day = '2020-02-29'",
    "day > DATE '2020-02-27'",
    "day >= '2020-02-28 12:00:00'::timestamp",
    "moment < '2020-02-29'",
    "moment >= '2020-02-29 00:00:00'::timestamp",
    "moment = '2020-02-29T00:00:00'",
    "moment <= '2020-02-28 23:59:59.75'",
    "moment > DATE '2020-02-28'",
    "instant = '2020-02-28 22:59:59Z'",
    "instant > '2020-02-28 23:59:59+01:00'::timestamptz",
    "word = 'a'",
    "word <> 'a'",
    "word = ''",
    "word IN ('a', 'it''s')",
    "word LIKE 'a%'",
    "word LIKE 'a_b'",
    "word NOT LIKE '%a'",
    "word LIKE 'a\\%b'",
    "word LIKE '%\\_%'",
    "word LIKE ''",
    "word LIKE '%%'",
    "short = 'ab'",
    "short LIKE '%b'",
    "word = short",
    "small < id OR word = 'a'",
    "word = 'a' OR small = 2 OR exact IS NULL",
    "small = id",
    "approximate = '0.1'",
    "instant > '2020-02-28 23:59:59'",
    "day = '2020-02-29 12:00'",
    "moment = 'yesterday'",
)
ASKED = (  # only PostgreSQL knows
    "small < 1.5",
    "small >= 1.5",
    "small = 1.5",
    "small <> 1.5",
    "small <= 2.0",
    "small = 99999999999999999999",
    "small < 99999999999999999999",
    "big < 9007199254740993.5",
    "word < 'ab'",
    "word > short",
    "word ILIKE 'A%'",
    "fixed = 'b'",
    "fixed LIKE 'b%'",
    "small + 1 = 2",
    "lower(word) = 'ab'",
    "word < 'ab' OR small = 2",
    "NOT (word < 'ab' AND small = 2)",
    "word || '%' = 'a%'",
    "instant > moment",
    "moment > '2020-02-28 23:59:59.5'::timestamptz",
    "exact = double",
)


@pytest.fixture(scope="module")
def session(newest_server: EmbeddedServer, library_of: LibraryOf) -> Iterator[Session]:
    """A session in a database with a column of every kind."""
    with newest_server.connect() as administrator:
        administrator.execute("CREATE DATABASE mscn_samples")
        with newest_server.connect("mscn_samples") as session:
            session.execute(f"LOAD '{library_of(newest_server)}'")
            session.execute(KINDS)
            session.execute(ROWS)
            session.execute('CREATE TABLE "Odd % name" ("a %s" integer, "Größe" text)')
            session.execute("""INSERT INTO "Odd % name" SELECT i, i::text FROM generate_series(1, 2500) AS i""")
            session.execute("CREATE TABLE nothing (id integer, word text)")
            yield session
        administrator.execute("DROP DATABASE mscn_samples WITH (FORCE)")


@pytest.fixture(scope="module")
def schema(session: Session) -> Schema:
    """The schema of that database."""
    return read_schema(session)


@pytest.fixture(scope="module")
def sampled(session: Session, schema: Schema) -> dict[str, TableSample]:
    """A sample that holds all rows of `kinds`."""
    return draw(session, schema)


def relation(session: Session, condition: str, table: str = "kinds") -> Relation:
    """A table with the predicates that the planner makes of a condition."""
    level = read_meaning(session, f"SELECT * FROM {table} WHERE {condition}").outermost
    assert level is not None
    return level.query.relations[table]


def only(session: Session, condition: str) -> Predicate:
    """The predicate of a condition on `kinds`."""
    [found] = relation(session, condition).predicates
    return found


def passing(sample: TableSample, mask: Mask) -> list[str]:
    """The ids of the sample rows in a mask."""
    return sorted(text or "" for text, set_ in zip(sample.texts["id"], mask, strict=True) if set_)


@pytest.mark.parametrize("condition", HERE)
def test_evaluates_like_postgres(session: Session, sampled: dict[str, TableSample], condition: str) -> None:
    """Three-valued logic, exact numbers, times, and LIKE, without asking anybody."""
    bits = Samples(sampled).bitmap(relation(session, condition))
    wanted = session.execute(f"SELECT id::text FROM kinds WHERE {condition}")
    assert passing(sampled["kinds"], bits[:60]) == sorted(text for (text,) in wanted)


@pytest.mark.parametrize("condition", ASKED)
def test_asks_postgres_about_the_rest(session: Session, sampled: dict[str, TableSample], condition: str) -> None:
    """PostgreSQL evaluates predicates with collations, time zones, casts or functions on the sample's own values."""
    predicate = only(session, condition)
    assert truth(predicate.condition, sampled["kinds"].column) is None
    mask = Samples(sampled, session=session).mask(sampled["kinds"], predicate)
    wanted = session.execute(f"SELECT id::text FROM kinds WHERE {condition}")
    assert passing(sampled["kinds"], mask) == sorted(text for (text,) in wanted)


def test_without_a_session_the_predicate_is_named(session: Session, sampled: dict[str, TableSample]) -> None:
    """Nothing is guessed where only PostgreSQL can answer."""
    message = (
        "only PostgreSQL can evaluate (word < 'ab'::text) on the sample of table 'kinds'; "
        "give the model a session, or use one without samples"
    )
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}$"):
        Samples(sampled).mask(sampled["kinds"], only(session, "word < 'ab'"))


def test_a_condition_that_fails_on_a_sample_row(session: Session, sampled: dict[str, TableSample]) -> None:
    """It has no bitmap: its query is one that mscn leaves alone, and says why."""
    predicate = only(session, "1 / (id - id) = 1")
    message = f"{predicate.sql} fails on a row of table 'kinds': division by zero"
    with pytest.raises(UnsupportedQuery, match=re.escape(message)) as refused:
        Samples(sampled, session=session).mask(sampled["kinds"], predicate)
    assert refused.value.reason == message


def test_a_column_is_compared_by_its_own_collation(scratch: Session, server: EmbeddedServer, library_of: LibraryOf) -> None:
    """Texts of a sample have the collation of their column: the order of texts, and which of them are equal, depend on it."""
    try:
        scratch.execute("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        scratch.execute("CREATE COLLATION alphabet (provider = icu, locale = 'und')")
    except StatementFailed as error:
        pytest.skip(f"no collations of ICU: {error.reason}")
    scratch.execute(f"LOAD '{library_of(server)}'")
    scratch.execute('CREATE TABLE t (l text COLLATE loose, a text COLLATE alphabet, c text COLLATE "C", d text)')
    scratch.execute(
        "INSERT INTO t SELECT x, x, x, x FROM (SELECT (ARRAY['a', 'A', 'b', 'B'])[1 + g % 4] FROM generate_series(1, 99) AS g) AS g (x)"
    )
    samples = Samples(draw(scratch, read_schema(scratch)), session=scratch)
    for condition in ("l = 'A'", "l IN ('a', 'c')", "l <> 'b'", "l < 'B'", "a < 'B'", "a > 'a'", "c < 'a'", "c < 'B'", "d < 'a'"):
        [level] = read_meaning(scratch, f"SELECT * FROM t WHERE {condition}").levels
        assert samples.bitmap(level.query.relations["t"]).sum() == scratch.scalar(f"SELECT count(*) FROM t WHERE {condition}"), condition


def test_each_predicate_is_asked_once(session: Session, sampled: dict[str, TableSample]) -> None:
    """The second time costs no round trip."""
    found = Samples(sampled, session=session)
    first = found.mask(sampled["kinds"], only(session, "word < 'ab'"))
    found.session = None
    assert found.mask(sampled["kinds"], only(session, "word < 'ab'")) is first


def test_bitmap_is_the_conjunction_and_leaves_missing_rows_out(session: Session, sampled: dict[str, TableSample]) -> None:
    """All predicates of a relation; the 60 rows of the table are the first 60 bits of 1000."""
    found = relation(session, "small > 0 AND yes AND id < big")
    bits = Samples(sampled).bitmap(found)
    assert bits.shape == (SAMPLE_ROWS,)
    sample = sampled["kinds"]
    single = [Samples(sampled).mask(sample, predicate) for predicate in found.predicates]
    assert bits[:60].tolist() == np.logical_and.reduce(single).tolist()
    assert not bits[60:].any()
    everything = Relation(alias="k", table="kinds", predicates=())
    assert Samples(sampled).bitmap(everything).sum() == 60


def test_empty_relation_has_an_empty_bitmap(session: Session, sampled: dict[str, TableSample]) -> None:
    """A table without rows: no bit is ever set, with predicates evaluated here or by PostgreSQL."""
    for condition in ("nothing.id = 1", "nothing.word < 'a'"):
        found = relation(session, condition, "nothing")
        assert not Samples(sampled, session=session).bitmap(found).any()


def test_sample_is_uniform_repeatable_and_bounded(session: Session, schema: Schema) -> None:
    """The same seed draws the same 1000 distinct rows of a larger table, another seed others; odd names are no trouble."""
    first, again, other = (draw(session, schema, seed=seed)["Odd % name"].texts for seed in (0, 0, 1))
    drawn = set(first["a %s"])
    assert first == again != other
    assert len(drawn) == SAMPLE_ROWS
    assert 1000 < np.mean([int(text or 0) for text in drawn]) < 1500


def test_ranges_are_those_of_the_table(session: Session, schema: Schema) -> None:
    """Smallest and largest value of numbers and times; text and empty tables have none."""
    ranges = read_ranges(session, schema)
    assert ranges["kinds"]["small"] == (-3.0, 3.0)
    assert ranges["kinds"]["exact"] == (-1.0, 1.0)
    assert ranges["kinds"]["day"][1] - ranges["kinds"]["day"][0] == 3 * 86_400 * 1e6
    assert {"word", "yes", "fixed"}.isdisjoint(ranges["kinds"])
    assert ranges["Odd % name"] == {"a %s": (1.0, 2500.0)}
    assert ranges["nothing"] == {}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.text(alphabet="ab%_\\\n", max_size=6), st.text(alphabet="ab%_\\\n", max_size=8)), min_size=1, max_size=20))
def test_like_is_the_one_of_postgres(session: Session, pairs: list[tuple[str, str]]) -> None:
    """Any pattern that PostgreSQL takes matches the same texts; a backslash at the end is PostgreSQL's business."""
    usable = [(pattern, text) for pattern, text in pairs if matcher(pattern) is not None]
    patterns, texts = [pattern for pattern, _ in usable], [text for _, text in usable]
    wanted = session.execute(
        "SELECT t LIKE p FROM unnest(CAST(%s AS text[]), CAST(%s AS text[])) WITH ORDINALITY AS pairs (p, t, n) ORDER BY n",
        (patterns, texts),
    )
    found = [matches(text) for pattern, text in usable if (matches := matcher(pattern)) is not None]
    assert found == [value for (value,) in wanted]


def test_pattern_that_ends_with_an_escape_is_left_to_postgres() -> None:
    """PostgreSQL refuses it when a row gets that far, so there is no answer here."""
    assert matcher("a\\") is None
    assert matcher("a\\\\") is not None


@pytest.mark.parametrize(
    ("texts", "column_type"),
    [(["NaN"], "double precision"), (["infinity"], "timestamp without time zone"), (["NaN"], "numeric"), (["0044-03-15 BC"], "date")],
)
def test_values_beyond_our_reach_leave_the_column_to_postgres(texts: list[str], column_type: str) -> None:
    """NaN, infinite times and years before Christ are compared by PostgreSQL."""
    assert column(texts, column_type) is None


@pytest.mark.parametrize("column_type", ["json", "character(3)", "integer[]", "inet"])
def test_types_without_an_order_of_ours(column_type: str) -> None:
    """They have no typed column and no range."""
    assert kind_of(column_type) is None


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1970-01-01", 0),
        ("1970-01-02 00:00:00.000001", 86_400_000_001),
        ("1969-12-31 23:59:59", -1_000_000),
        ("1970-01-01 24:00:00", None),
        ("1970-02-30", None),
        ("1970-01-01 00:00:00+01", None),
        ("epoch", None),
    ],
)
def test_times_are_microseconds(text: str, microseconds: int | None) -> None:
    """ISO 8601 without an offset; anything else is PostgreSQL's."""
    assert comparable(TypedText(text, "timestamp without time zone"), "time") == microseconds

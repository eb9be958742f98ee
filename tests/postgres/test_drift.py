"""Drift of data: rows go, come and concentrate, and every key, reference and NOT NULL still holds."""

from __future__ import annotations

import re

import pytest

from pytest_pilotscope.errors import DatasetError, StatementFailed
from pytest_pilotscope.options.drifts import MOST_POWER
from pytest_pilotscope.postgres.drift.arrivals import dated_columns
from pytest_pilotscope.postgres.drift.data import drift_data, go_back
from pytest_pilotscope.postgres.fingerprint import content_fingerprint
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.tables import read_tables

SHOP = """
    CREATE TABLE customer (id integer PRIMARY KEY, email varchar(20) NOT NULL UNIQUE, boss integer REFERENCES customer, city text,
        big text GENERATED ALWAYS AS (upper(city)) STORED);
    CREATE TABLE product (code char(8) PRIMARY KEY, price numeric(8, 2), made date UNIQUE, about json);
    CREATE TABLE purchase (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer integer NOT NULL REFERENCES customer, at timestamp,
        UNIQUE (customer, at)) ;
    CREATE TABLE item (purchase bigint REFERENCES purchase, product char(8) REFERENCES product, pieces smallint NOT NULL,
        PRIMARY KEY (purchase, product));
    CREATE TABLE note (purchase bigint, product char(8), said text, FOREIGN KEY (purchase, product) REFERENCES item);
    CREATE TABLE profile (customer integer PRIMARY KEY REFERENCES customer, token uuid UNIQUE);
    CREATE TABLE visit (day integer NOT NULL, customer integer REFERENCES customer) PARTITION BY RANGE (day);
    CREATE TABLE visit_1 PARTITION OF visit FOR VALUES FROM (0) TO (50);
    CREATE TABLE visit_2 PARTITION OF visit FOR VALUES FROM (50) TO (100);
    CREATE TABLE egg (id integer PRIMARY KEY, hen integer);
    CREATE TABLE hen (id integer PRIMARY KEY, egg integer REFERENCES egg);
    INSERT INTO customer
        SELECT i, 'c' || i || '@shop.example', nullif(i / 10, 0), 'city ' || (i * i) % 17 FROM generate_series(1, 200) AS i;
    INSERT INTO product SELECT 'p' || i, i % 7, date '2020-01-01' + i, '{}' FROM generate_series(1, 50) AS i;
    INSERT INTO purchase (customer, at)
        SELECT 1 + (i * i) % 200, timestamp '2024-01-01' + i * interval '1 hour' FROM generate_series(1, 600) AS i;
    INSERT INTO item SELECT 1 + i % 600, 'p' || 1 + (i / 7) % 50, i % 5 FROM generate_series(1, 1500) AS i ON CONFLICT DO NOTHING;
    INSERT INTO note SELECT purchase, product, 'n' FROM item WHERE purchase % 3 = 0;
    INSERT INTO profile SELECT id, md5(id::text)::uuid FROM customer WHERE id % 2 = 0;
    INSERT INTO visit SELECT (i * i) % 100, 1 + (i * i * i) % 200 FROM generate_series(1, 400) AS i;
    INSERT INTO egg SELECT i, i FROM generate_series(1, 40) AS i;
    INSERT INTO hen SELECT i, i FROM generate_series(1, 40) AS i;
    ALTER TABLE egg ADD FOREIGN KEY (hen) REFERENCES hen;
"""
"""Keys of integers, texts, dates and pairs; references to oneself, in a circle, of a pair and in a key; partitions."""

FREE = ("public.customer", "public.product", "public.purchase", "public.egg", "public.hen", "public.visit")
"""Tables whose copies can all have new keys."""

CONSTRAINTS = "SELECT conrelid::regclass::text, conname::text, convalidated, pg_get_constraintdef(oid) FROM pg_constraint ORDER BY 1, 2"


def rows(session: Session, table: str) -> set[str]:
    """Return the rows of a table as texts."""
    return {text for (text,) in session.execute(f"SELECT t::text FROM {table} AS t")}


@pytest.mark.parametrize(("kind", "amount"), [("insert", 0.3), ("delete", 0.2), ("skew", 2.0)])
def test_constraints_hold_and_the_same_seed_gives_the_same_rows(scratch: Session, kind: str, amount: float) -> None:
    """PostgreSQL has checked every constraint anew; another seed gives other rows."""
    found = []
    for seed in (0, 0, 1):
        scratch.execute(f"DROP SCHEMA public CASCADE; CREATE SCHEMA public; {SHOP}")
        constraints = scratch.execute(CONSTRAINTS)
        drift_data(scratch, kind, amount, seed)
        assert scratch.execute(CONSTRAINTS) == constraints
        found.append(content_fingerprint(scratch))
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize(("kind", "amount"), [("insert", 0.0), ("delete", 0.0), ("skew", 1.0)])
def test_no_drift_changes_nothing(newest_scratch: Session, kind: str, amount: float) -> None:
    """A drift of nothing leaves every row as it was, for an A/A run."""
    newest_scratch.execute(SHOP)
    before = content_fingerprint(newest_scratch)
    drift_data(newest_scratch, kind, amount, 0)
    assert content_fingerprint(newest_scratch) == before


def test_inserted_rows_are_new_ones_beside_the_old(newest_scratch: Session) -> None:
    """
    Every table with free keys grows by the share, all old rows stay, and copies refer to copies.

    A pair of references, or a key that is a reference, is new where what it refers to has a copy.
    """
    newest_scratch.execute(SHOP)
    before = {table: rows(newest_scratch, table) for table in ("customer", "purchase", "item", "profile", "note")}
    counts = drift_data(newest_scratch, "insert", 0.3, 0)
    assert {table: (old + round(0.3 * old)) for table, (old, _) in counts.items() if table in FREE} == {
        table: new for table, (_, new) in counts.items() if table in FREE
    }
    assert all(old <= rows(newest_scratch, table) for table, old in before.items())
    assert newest_scratch.scalar("SELECT count(*) FROM purchase WHERE customer > 200") > 0
    assert newest_scratch.scalar("SELECT count(*) FROM item WHERE purchase > 600") > 0
    assert newest_scratch.scalar("SELECT count(*) FROM profile WHERE customer > 200") > 0
    assert newest_scratch.scalar("SELECT count(*) FROM note WHERE purchase > 600") > 0
    assert newest_scratch.scalar("SELECT max(length(email)) FROM customer") <= 20


def test_deleted_rows_take_along_what_refers_to_them(newest_scratch: Session) -> None:
    """A table that refers to nothing, or to one table, loses the share; all others at least the share, and nothing new appears."""
    newest_scratch.execute(SHOP)
    before = {table: rows(newest_scratch, table) for table in ("product", "purchase", "item")}
    counts = drift_data(newest_scratch, "delete", 0.2, 0)
    assert counts["public.product"] == (50, 40)
    assert all(new <= old - round(0.2 * old) for old, new in counts.values())
    assert all(new > 0 for _, new in counts.values())
    assert all(rows(newest_scratch, table) < old for table, old in before.items())


def test_skew_makes_popular_values_more_popular(newest_scratch: Session) -> None:
    """The most popular value gains rows, no value is new, keys and NULLs stay, and the order of popularity is kept."""
    newest_scratch.execute(SHOP)
    popular = "SELECT city, count(*) FROM customer GROUP BY 1 ORDER BY 2 DESC, 1"
    before: dict[str, int] = dict(newest_scratch.execute(popular))
    keys = newest_scratch.execute("SELECT id, email FROM customer ORDER BY 1")
    bosses = newest_scratch.scalar("SELECT count(*) FROM customer WHERE boss IS NULL")
    drift_data(newest_scratch, "skew", 2.0, 0)
    after: dict[str, int] = dict(newest_scratch.execute(popular))
    assert after.keys() <= before.keys()
    assert max(after.values()) > max(before.values())
    assert sum(after.values()) == sum(before.values())
    assert newest_scratch.execute("SELECT id, email FROM customer ORDER BY 1") == keys
    assert newest_scratch.scalar("SELECT count(*) FROM customer WHERE boss IS NULL") == bosses
    expected = sum(rows_**2 for rows_ in before.values())
    assert max(after.values()) == pytest.approx(200 * max(before.values()) ** 2 / expected, abs=1)


def test_the_largest_power_leaves_the_most_popular_value(newest_scratch: Session) -> None:
    """Powers of counts leave the range of numbers, 5,000 rows as well as a share of a few: all rows get one value."""
    newest_scratch.execute("CREATE TABLE t AS SELECT CASE WHEN i % 5 = 0 THEN i ELSE 1 END AS x FROM generate_series(1, 6000) AS i")
    drift_data(newest_scratch, "skew", MOST_POWER, 0)
    assert newest_scratch.execute("SELECT x, count(*) FROM t GROUP BY 1") == [(1, 6000)]


def test_a_constraint_that_cannot_hold_leaves_the_data_as_they_are(newest_scratch: Session) -> None:
    """A CHECK that refuses new keys ends in PostgreSQL's message, and nothing has changed."""
    newest_scratch.execute("CREATE TABLE t (id integer PRIMARY KEY CHECK (id < 11)); INSERT INTO t SELECT generate_series(1, 10)")
    before = content_fingerprint(newest_scratch)
    with pytest.raises(StatementFailed, match='new row for relation "t" violates check constraint "t_id_check"'):
        drift_data(newest_scratch, "insert", 0.5, 0)
    assert content_fingerprint(newest_scratch) == before


def _gone_back(session: Session, share: float, chosen: tuple[str, ...] = ()) -> str:
    return go_back(session, share, known={}, chosen=chosen)


@pytest.mark.parametrize("share", [0.7, 1.0])
def test_the_past_has_no_later_row_and_time_brings_all_back(scratch: Session, share: float) -> None:
    """
    Rows that came after the cut go with all rows that refer to them, and come back with the keys that they had.

    Every constraint holds before and after, and at 100 % nothing is later, which is an A/A.
    """
    scratch.execute(SHOP)
    constraints, whole = scratch.execute(CONSTRAINTS), content_fingerprint(scratch)
    sentence = _gone_back(scratch, share)
    cut = scratch.scalar(f"SELECT '{sentence.partition(' up to ')[2].partition(', by ')[0]}'::timestamp")
    assert sentence.endswith(", by public.product.made, public.purchase.at")
    assert scratch.execute("SELECT (SELECT max(made) FROM product) <= %s, (SELECT max(at) FROM purchase) <= %s", (cut, cut)) == [
        (True, True)
    ]
    kept = scratch.scalar("SELECT count(*) FROM item")
    assert (kept == 1500) == (share == 1.0)
    assert scratch.execute(CONSTRAINTS) == constraints
    assert scratch.scalar("SELECT reltuples FROM pg_class WHERE relname = 'item'") == kept  # statistics are those of the past
    counts = drift_data(scratch, "time", share, 0)
    assert counts["public.item"] == (kept, 1500)
    assert content_fingerprint(scratch) == whole
    assert scratch.execute(CONSTRAINTS) == constraints
    assert scratch.scalar("SELECT count(*) FROM pg_namespace WHERE nspname = 'pilotscope_later'") == 0


def test_the_user_or_the_dataset_names_the_dates(newest_scratch: Session) -> None:
    """A name of the user's comes before one of the dataset's, and that before the first date; a named number is a date, too."""
    newest_scratch.execute("CREATE TABLE sale (id integer PRIMARY KEY, day integer, changed date, paid date)")
    newest_scratch.execute("INSERT INTO sale SELECT i, i, date '2020-01-01' + i, date '2020-01-01' - i FROM generate_series(1, 10) AS i")
    tables = read_tables(newest_scratch)
    for known, chosen, found in (
        ({}, (), "changed"),
        ({"sale": "day"}, (), "day"),
        ({"sale": "day"}, ("paid",), "paid"),
        ({}, ("public.sale.day",), "day"),
    ):
        assert list(dated_columns(newest_scratch, tables, known, chosen).values()) == [found]
    assert _gone_back(newest_scratch, 0.5, ("sale.day",)) == "5 of 10 rows came up to 5, by public.sale.day"


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ((), "no column of database {} is a date or a timestamp; name the one that dates its rows: --drift time:70%:COLUMN"),
        (("day", "days"), "no column of database {} is called 'days'; name the one that dates its rows: --drift time:70%:COLUMN"),
        (
            ("name",),
            "these columns do not date rows in one way: public.sale.name (neither); name dates only, or numbers only: "
            "--drift time:70%:COLUMN",
        ),
        (("day",), "the rows of database {} cannot be cut in time by public.sale.day: none came after 7; name another column"),
        (("never",), "the rows of database {} cannot be cut in time by public.sale.never: none has a date; name another column"),
    ],
)
def test_rows_without_dates_have_no_past(newest_scratch: Session, chosen: tuple[str, ...], reason: str) -> None:
    """The message says which column was looked for, and what to do."""
    newest_scratch.execute("CREATE TABLE sale (id integer PRIMARY KEY, day integer, name text, never integer)")
    newest_scratch.execute("INSERT INTO sale SELECT i, 7, 'x' FROM generate_series(1, 10) AS i")
    with pytest.raises(DatasetError) as found:
        _gone_back(newest_scratch, 0.7, chosen)
    assert str(found.value) == reason.format(repr(newest_scratch.database))


def test_rows_on_another_server_stay_as_they_are(scratch: Session) -> None:
    """A partition on another server is there for a copy of the database, too: a row that is added to the copy would be added there."""
    scratch.execute(f"{SHOP}; CREATE FOREIGN DATA WRAPPER far; CREATE SERVER far FOREIGN DATA WRAPPER far")
    scratch.execute("CREATE TABLE sale (day date) PARTITION BY RANGE (day); CREATE TABLE sale_1 PARTITION OF sale DEFAULT")
    scratch.execute("CREATE FOREIGN TABLE sale_2 PARTITION OF sale FOR VALUES FROM ('2020-01-01') TO ('2021-01-01') SERVER far")
    wanted = (
        "the rows of table public.sale cannot drift: its partition sale_2 is a foreign table, whose rows are on another server and would "
        "change there; detach it in the database that is measured"
    )
    for change in (lambda: drift_data(scratch, "insert", 0.5, 0), lambda: go_back(scratch, 0.5, known={}, chosen=())):
        with pytest.raises(DatasetError, match=f"^{re.escape(wanted)}$"):
            change()

"""Labels of a workload: cached, shared, resumed, in several processes, and by the database where memory cannot."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from pytest_pilotscope.errors import LabelError, QueryTimeout, StatementFailed, UnsupportedQuery
from pytest_pilotscope.labels import Labels, cardinalities, collect, compiled, equaltexts, workers
from pytest_pilotscope.labels.atomicfiles import write
from pytest_pilotscope.labels.source import Expression, Take
from pytest_pilotscope.places.cacheentries import locked
from pytest_pilotscope.queries.joins import Schema
from pytest_pilotscope.queries.meaning import Statement
from pytest_pilotscope.queries.queries import Query
from tests.labels.sqlite_rows import Rows, SqliteSource
from tests.labels.statements import BuiltStatement, built
from tests.labels.test_labelcache import DAMAGES, spoil

SCHEMA: Schema = {"a": {"x": "integer", "y": "integer", "s": "text"}, "b": {"x": "integer", "z": "integer"}, "c": {"z": "integer"}}
ROWS: Rows = {
    "a": [(i % 7, i % 3, "kl"[i % 2]) for i in range(50)],
    "b": [(i % 5, i % 11 if i % 4 else None) for i in range(40)],
    "c": [(i,) for i in range(9)],
}
QUERIES = [
    Query(id=f"q{number}", sql=f"SELECT count(*) FROM a, b, c WHERE a.x = b.x AND b.z = c.z AND a.y <= {number % 5} AND c.z > {number}")
    for number in range(12)
]


@pytest.fixture
def source() -> Iterator[SqliteSource]:
    """Three small tables."""
    made = SqliteSource(SCHEMA, ROWS)
    yield made
    made.close()


def labelled(source: SqliteSource, folder: Path, queries: list[Query] = QUERIES, **options: object) -> Labels:
    """Return the labels of the workload."""
    return cardinalities(source, queries, schema=SCHEMA, fingerprint="f", cache_dir=folder, **options)  # type: ignore[arg-type]


def exact(source: SqliteSource, queries: list[Query] = QUERIES) -> dict[str, dict[frozenset[str], int]]:
    """Return the counts by joining."""
    return {
        query.id: {
            subplan: source.exact(level.count_sql(mask).sql) for subplan, (level, mask) in built(query.sql, SCHEMA).subplans().items()
        }
        for query in queries
    }


def rows(labels: Labels) -> dict[str, dict[frozenset[str], int | None]]:
    """Return the counts of labels."""
    return {name: {subplan: label.rows for subplan, label in found.items()} for name, found in labels.items()}


def test_the_second_time_nothing_is_read(source: SqliteSource, tmp_path: Path) -> None:
    """Labels come from the cache: no scan, no count, the same answer."""
    first = labelled(source, tmp_path)
    scans = source.scans
    assert rows(labelled(source, tmp_path)) == rows(first) == exact(source)
    assert source.scans == scans == 6  # of each table the order of its rows, and what is needed of them


def test_new_queries_add_to_the_cache(source: SqliteSource, tmp_path: Path) -> None:
    """Old labels stay, and of the columns only what was missing is read, after a look whether the rows are the same."""
    labelled(source, tmp_path)
    more = [*QUERIES, Query(id="new", sql="SELECT 1 FROM a WHERE a.s LIKE 'k%'"), Query(id="all", sql="SELECT 1 FROM b")]
    source.scans = 0
    assert rows(labelled(source, tmp_path, more)) == exact(source, more)
    assert source.scans == 2


def test_what_is_known_can_be_had_without_counting(source: SqliteSource, tmp_path: Path) -> None:
    """`known_only` gives the queries that are wholly in the cache, leaves the others out, and reads no table."""
    first = labelled(source, tmp_path, QUERIES[:3])
    scans = source.scans
    known = labelled(source, tmp_path, QUERIES, known_only=True)
    assert rows(known) == rows(first)
    assert source.scans == scans


def test_aliases_and_ids_do_not_matter(source: SqliteSource, tmp_path: Path) -> None:
    """The same subplans under other names, in another order, are not counted again."""
    labelled(source, tmp_path)
    renamed = [Query(id="other", sql="SELECT 1 FROM c AS cc, b AS x, a AS b WHERE b.x = x.x AND x.z = cc.z AND cc.z > 0 AND b.y <= 0")]
    source.close()  # so that any question would fail
    assert (
        rows(labelled(source, tmp_path, renamed))["other"][frozenset({"cc", "x", "b"})]
        == rows(labelled(source, tmp_path))["q0"][frozenset("abc")]
    )


def test_progress_is_reported(source: SqliteSource, tmp_path: Path) -> None:
    """It counts distinct subplans from what the cache holds up to all, and the time left goes to zero."""
    reports: list[tuple[int, int, float | None]] = []
    labelled(source, tmp_path, QUERIES[:6])
    labelled(source, tmp_path, QUERIES, progress=lambda done, total, left_s: reports.append((done, total, left_s)))
    done, totals, left_s = zip(*reports, strict=True)
    assert list(done) == sorted(done)
    assert 0 < done[0] < done[-1] == totals[0] == totals[-1]
    assert left_s[0] is None
    assert left_s[-1] == 0
    assert len(reports) == 7


def test_several_processes_give_the_same_labels(source: SqliteSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes read the columns from disk and count what one process would."""
    monkeypatch.setattr(collect, "_WORTH_A_PROCESS", 1)
    assert rows(labelled(source, tmp_path, workers=2)) == exact(source)


def test_worker_processes_use_the_chosen_cache(source: SqliteSource, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep the compiled function where this process would."""
    monkeypatch.setattr(collect, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(compiled, "function", lambda: None)  # of this process only
    labelled(source, tmp_path, workers=2)
    assert [path.parent for path in cache.rglob("labels-*.so")] == [cache / "extension"]


def test_a_dying_worker_is_an_error(source: SqliteSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a worker that ends has its status and the last line that it wrote; nobody waits for it."""
    monkeypatch.setattr(collect, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(workers, "WORKER", ["-c", "import sys; sys.exit('no memory')"])
    with pytest.raises(LabelError, match=r"^a labelling process ended with status 1: no memory$"):
        labelled(source, tmp_path, workers=2)


def test_labels_of_other_data_are_refused(source: SqliteSource, tmp_path: Path) -> None:
    """A cache folder belongs to one fingerprint."""
    labelled(source, tmp_path)
    expected = (
        f"the label cache {tmp_path / 'labels.sqlite'} belongs to other data: it was made for fingerprint f, and the data at hand has g; "
        "use another folder or remove this one"
    )
    with pytest.raises(LabelError, match=f"^{re.escape(expected)}$"):
        cardinalities(source, QUERIES, schema=SCHEMA, fingerprint="g", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            "UPDATE a SET x = x + 1",
            "table \"a\" does not hold the rows in {folder} any more, or not in the same order; "
            "labels need data that does not change: remove that folder to read it again",
        ),
        ("DELETE FROM a WHERE rowid = 7", "table \"a\" does not hold the rows in {folder} any more, or not in the same order; "
            "labels need data that does not change: remove that folder to read it again"),
    ],
)  # fmt: skip
def test_changed_rows_are_noticed(source: SqliteSource, tmp_path: Path, changed: str, message: str) -> None:
    """Columns of two states of a table are never mixed."""
    labelled(source, tmp_path)
    source.connection.execute(changed)
    with pytest.raises(LabelError, match=f"^{re.escape(message.format(folder=tmp_path / 'columns'))}$"):
        labelled(source, tmp_path, [Query(id="new", sql="SELECT 1 FROM a WHERE a.s LIKE 'k%'")])


def test_another_order_of_rows_is_noticed(tmp_path: Path) -> None:
    """Also where nothing but texts and conditions was read: a column of one order and a condition of another would give wrong counts."""
    schema = {"t": {"k": "text", "s": "text"}}
    rows = [("a", "x"), ("b", "y"), ("b", "x")]

    def count(rows: list[tuple[str, str]], condition: str) -> None:
        sql = f"SELECT 1 FROM t AS l, t AS r WHERE l.k = r.k{condition}"
        cardinalities(SqliteSource(schema, {"t": rows}), [Query(id="q", sql=sql)], schema=schema, fingerprint="f", cache_dir=tmp_path)

    count(rows, "")
    message = (
        f'table "t" does not hold the rows in {tmp_path / "columns"} any more, or not in the same order; '
        "labels need data that does not change: remove that folder to read it again"
    )
    with pytest.raises(LabelError, match=f"^{re.escape(message)}$"):
        count(rows[::-1], " AND l.s LIKE 'x%'")


@pytest.mark.parametrize("damage", [*DAMAGES, "missing"])
@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("=22a=22/x.npy", "=22a=22/x.npy"),
        ("=22a=22/rows.txt", "=22a=22/rows.txt"),
        ("=22b=22/z.null.npy", "=22b=22/z.npy"),
        ("=22b=22", "=22b=22"),
        ("", ""),
    ],
)
def test_a_damaged_column_is_read_again(
    source: SqliteSource, tmp_path: Path, file: str, named: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its labels are right, and a line names it."""
    columns = tmp_path / "columns"
    labelled(source, tmp_path)
    if damage == "missing" or (columns / file).is_dir():
        (columns / file).rename(tmp_path / "moved")
    if (tmp_path / "moved").is_dir() and damage != "missing":  # a file has the name of a folder
        (columns / file).touch()
    elif damage != "missing":
        spoil(columns / file, damage)
    (tmp_path / "labels.sqlite").unlink()
    assert rows(labelled(source, tmp_path)) == exact(source)
    said = [message for message in caplog.messages if message.startswith(f"{columns / named} is damaged")]
    silent = (damage == "missing" and (tmp_path / "moved").is_dir()) or (damage == "missing" and file == "=22a=22/x.npy")
    assert len(said) == (0 if silent else 1)


def test_columns_with_the_digest_of_an_older_version_are_read_again(source: SqliteSource, tmp_path: Path) -> None:
    """Digests that were made in another way are not compared, so nobody is told that the rows have changed."""
    labelled(source, tmp_path)
    write(tmp_path / "columns" / "=22a=22" / "rows.txt", b"50 0123456789abcdef01234567")
    (tmp_path / "labels.sqlite").unlink()
    assert rows(labelled(source, tmp_path)) == exact(source)


def test_a_column_under_another_name_is_read_again(source: SqliteSource, tmp_path: Path) -> None:
    """A file that was whole under its own name does not pass for another one."""
    labelled(source, tmp_path)
    folder = tmp_path / "columns" / "=22a=22"
    (folder / "x.npy").write_bytes((folder / "y.npy").read_bytes())
    (tmp_path / "labels.sqlite").unlink()
    assert rows(labelled(source, tmp_path)) == exact(source)


HOLDING = """
import logging
import sys
from pathlib import Path
from pytest_pilotscope.places.cacheentries import locked
with locked(Path(sys.argv[1]), "counts", logging.getLogger()):
    print(flush=True)
    sys.stdin.readline()
"""


class Waiting(logging.Handler):
    """Sets `said` as soon as somebody says that it waits, or that it waits no longer."""

    def __init__(self) -> None:
        super().__init__()
        self.said = threading.Event()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note a message."""
        self.messages.append(record.getMessage())
        self.said.set()


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    """Listen to what is said about locks."""
    handler, logger = Waiting(), logging.getLogger(collect.__name__)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def labelled_elsewhere(folder: Path) -> tuple[dict[str, dict[frozenset[str], int | None]], int]:
    """Label with a database of one's own; return the counts and the number of scans."""
    own = SqliteSource(SCHEMA, ROWS)
    counts = rows(labelled(own, folder))
    own.close()
    return counts, own.scans


@pytest.mark.parametrize("end", ["killed", "finished"])
def test_two_that_count_the_same_wait_for_each_other(source: SqliteSource, tmp_path: Path, waiting: Waiting, end: str) -> None:
    """The second waits with a line, and counts as soon as the first has ended, also if that was killed."""
    lock = tmp_path / "counting.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(labelled_elsewhere, tmp_path)
            assert waiting.said.wait(60)
            assert not second.done()
            if end == "killed":
                child.kill()
            else:
                child.stdin.close()
            assert second.result(60)[0] == exact(source)
    assert waiting.messages == [f"waiting for another process that counts labels in {tmp_path}"]


def test_what_two_want_is_counted_once(source: SqliteSource, tmp_path: Path) -> None:
    """Of two that start at once on a new machine, one reads the tables."""
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(labelled_elsewhere, tmp_path) for _ in range(2)]
    assert [future.result()[0] for future in both] == [exact(source)] * 2
    assert sorted(future.result()[1] for future in both) == [0, 6]


def test_one_that_makes_no_progress_is_not_waited_for(
    source: SqliteSource, tmp_path: Path, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the first holds the lock and writes nothing for long, the second says so, and counts."""
    monkeypatch.setattr(collect, "_PATIENCE_S", 0.0)
    with locked(tmp_path / "counting.lock", "counts", logging.getLogger()):
        assert rows(labelled(source, tmp_path, timeout_ms=1)) == exact(source)
    assert waiting.messages == [f"the other process that counts labels in {tmp_path} makes no progress; no longer waiting for it"]


def test_known_labels_are_not_waited_for(source: SqliteSource, tmp_path: Path) -> None:
    """Who only reads the cache does not wait for who counts."""
    first = labelled(source, tmp_path)
    with locked(tmp_path / "counting.lock", "counts", logging.getLogger()):
        assert rows(labelled(source, tmp_path, known_only=True)) == rows(first)


class Refusing(SqliteSource):
    """A database that fails on some statements."""

    error: Exception

    def statement(self, sql: str, timeout_ms: int) -> Statement:
        """Plan all but one."""
        if "unplanned" in sql:
            raise self.error
        return BuiltStatement(sql=sql, levels=(), parameters={}, subqueries={}) if "FROM" not in sql else super().statement(sql, timeout_ms)

    def count(self, sql: str, timeout_ms: int) -> int | None:
        """Count all but one."""
        if "b.x" in sql:
            raise self.error
        return super().count(sql, timeout_ms)

    def rows(self, table: str, expressions: Sequence[Expression], take: Take) -> None:
        """Evaluate all but one."""
        if any("bad" in expression.sql for expression in expressions):
            raise self.error
        super().rows(table, expressions, take)


ZERO = StatementFailed("SELECT", reason="division by zero", sqlstate="22012")


@pytest.fixture
def refusing() -> Iterator[Refusing]:
    """Three small tables, and a division by zero."""
    made = Refusing(SCHEMA, ROWS)
    made.error = ZERO
    yield made
    made.close()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ZERO, "division by zero"),
        (QueryTimeout("SELECT", timeout_ms=60_000), "planning it takes more than 60000 ms"),
        (UnsupportedQuery("it is two statements", "SELECT"), "it is two statements"),
    ],
)
def test_queries_without_subplans_are_listed(
    refusing: Refusing, tmp_path: Path, error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Queries that PostgreSQL does not plan have a reason; the others have their labels."""
    refusing.error = error
    labels = labelled(refusing, tmp_path, [*QUERIES, Query(id="bad", sql="SELECT unplanned"), Query(id="one", sql="SELECT 1")])
    assert rows(labels) == exact(refusing)
    assert dict(labels.unsupported) == {"bad": reason, "one": "it has no relations"}
    assert dict(labels.reasons) == {}
    assert caplog.messages == [f"query bad has no labels: {reason}", "query one has no labels: it has no relations"]


def test_a_lost_connection_is_an_error(refusing: Refusing, tmp_path: Path) -> None:
    """A lost connection is an error, and no reason of a query."""
    refusing.error = StatementFailed("SELECT", reason="the connection to the server is closed")
    for sql in ("SELECT unplanned", RESIDUAL[0].sql, "SELECT 1 FROM a WHERE a.bad LIKE 'x'"):
        with pytest.raises(StatementFailed, match=r"^statement failed: the connection to the server is closed: SELECT$"):
            labelled(refusing, tmp_path, [Query(id="q", sql=sql)])


def test_a_set_that_cannot_be_counted_has_a_reason(refusing: Refusing, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The other sets of its query, and the other queries, have their labels; the next time it is tried again."""
    labels = labelled(refusing, tmp_path, [*QUERIES, *RESIDUAL])
    assert rows(labels) == exact(refusing) | {
        "r": {subplan: count for subplan, count in exact(refusing, RESIDUAL)["r"].items() if not {"a", "b"} <= subplan}
    }
    assert {name: dict(found) for name, found in labels.reasons.items()} == {
        "r": {frozenset("ab"): "division by zero", frozenset("abc"): "division by zero"}
    }
    assert caplog.messages == ["query r: 2 of 6 subplans have no label; {a b}: division by zero"]
    assert "r" not in labelled(refusing, tmp_path, RESIDUAL, known_only=True)
    refusing.error = AssertionError("asked again")
    with pytest.raises(AssertionError, match=r"^asked again$"):
        labelled(refusing, tmp_path, RESIDUAL)


def test_a_set_without_sql_has_a_reason(source: SqliteSource, tmp_path: Path) -> None:
    """A query with a set that no SQL counts is known when its other sets have labels."""
    queries = [Query(id="q", sql="SELECT 1 FROM a, b, c WHERE no_sql(a.x, b.x) AND b.z = c.z")]
    for known_only in (False, True):
        labels = labelled(source, tmp_path, queries, known_only=known_only)
        assert dict(labels.reasons) == {"q": {frozenset("ab"): "it has no SQL", frozenset("abc"): "it has no SQL"}}
        assert labels["q"].keys() == {frozenset("a"), frozenset("b"), frozenset("c"), frozenset("bc")}
    assert source.counted == []


def test_a_condition_that_fails_is_left_to_sets_of_their_own(refusing: Refusing, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The sets without that relation are counted in memory, also of the same query."""
    queries = [Query(id="q", sql="SELECT 1 FROM a, b, c WHERE a.y = c.z AND b.z = c.z AND 'bad' LIKE a.s"), *QUERIES]
    labels = labelled(refusing, tmp_path, queries)
    assert rows(labels) == exact(refusing, queries)
    assert {subplan for subplan, label in labels["q"].items() if label.source == "postgres"} == {s for s in labels["q"] if "a" in s}
    assert caplog.messages == [
        "PostgreSQL cannot evaluate 'bad' LIKE s of table \"a\" for all rows (division by zero): "
        "sets of relations with it are counted one by one"
    ]


def test_a_volatile_condition_has_no_label(source: SqliteSource, tmp_path: Path) -> None:
    """One count would be one draw, and no truth."""
    queries = [Query(id="q", sql="SELECT 1 FROM a, b WHERE a.x + 0 * random() < b.x")]
    labels = labelled(source, tmp_path, queries)
    assert dict(labels.reasons["q"]) == {frozenset("ab"): "it calls a volatile function"}
    assert source.counted == []


def test_labels_of_other_settings_are_kept_apart(source: SqliteSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same text can mean something else under another version or search path."""
    labelled(source, tmp_path)
    monkeypatch.setattr(source, "settings", lambda: {"search_path": "other"})
    assert len(labelled(source, tmp_path, known_only=True)) == 0


def test_equal_texts_of_a_type_stay_equal(source: SqliteSource, tmp_path: Path) -> None:
    """Columns that are read one after the other are compared with each other by the database, each text once."""

    def read(*texts: str | None) -> list[str | None]:
        united = equaltexts.united(pa.array(texts), type_name="numeric", folder=tmp_path, context="", source=source)
        return list(united.to_pylist())

    assert read("1.0", None, "2", "1") == ["1.0", None, "2", "1.0"]
    assert read("1.00", "3", "2.0", "1") == ["1.0", "3", "2", "1.0"]
    assert read("3", "1.00", None) == ["3", "1.0", None]
    assert source.compared == [["1.0", "2", "1"], ["1.0", "2", "1.00", "3", "2.0"]]


def test_two_queries_of_one_name_are_refused(source: SqliteSource, tmp_path: Path) -> None:
    """Labels are found by the id of their query."""
    with pytest.raises(
        LabelError, match=r"^two queries have the id 'q0': their labels could not be told apart; give one of them another id$"
    ):
        labelled(source, tmp_path, [QUERIES[0], QUERIES[0]])


RESIDUAL = [Query(id="r", sql="SELECT 1 FROM a, b, c WHERE a.x < b.x AND b.z = c.z")]


def test_other_joins_are_counted_by_the_database(source: SqliteSource, tmp_path: Path) -> None:
    """PostgreSQL counts only the subplans with a condition that is no equality, and they are exact as well."""
    labels = labelled(source, tmp_path, RESIDUAL)
    assert rows(labels) == exact(source, RESIDUAL)
    by_database = {subplan for subplan, label in labels["r"].items() if label.source == "postgres"}
    assert by_database == {frozenset("ab"), frozenset("abc")}


def test_what_does_not_finish_is_marked_and_tried_again_with_more_time(tmp_path: Path) -> None:
    """An unfinished subplan has no rows; it is counted again with a larger limit only."""
    slow = SqliteSource(SCHEMA, ROWS, finishes=False)
    labels = labelled(slow, tmp_path, RESIDUAL, timeout_ms=10)
    label = labels["r"][frozenset("ab")]
    assert (label.rows, label.finished, label.timeout_ms, labels.unfinished) == (None, False, 10, 2)
    labelled(slow, tmp_path, RESIDUAL, timeout_ms=10)
    assert len(slow.counted) == 2
    slow.finishes = True
    assert labelled(slow, tmp_path, RESIDUAL, timeout_ms=20).unfinished == 0
    slow.close()


def test_the_sets_of_a_query_have_a_limit_together(tmp_path: Path) -> None:
    """When they took as long as one set may, the cheapest are next; when they took ten times as long, the others are not tried."""

    class Slow(SqliteSource):
        def count(self, sql: str, timeout_ms: int) -> int | None:
            time.sleep(timeout_ms / 1e3)
            self.counted.append(sql)
            return 1

    relations = [f"a AS a{number}" for number in range(6)]
    joins = [f"a0.x < a{number}.x" for number in range(1, 6)]
    query = Query(id="q", sql=f"SELECT 1 FROM {', '.join(relations)} WHERE {' AND '.join(joins)}")
    slow = Slow(SCHEMA, ROWS)
    labels = labelled(slow, tmp_path, [query], timeout_ms=20)
    joined = [subplan for subplan, label in labels["q"].items() if label.source == "postgres"]
    assert 2 <= len(slow.counted) <= 11 < len(joined) == 31
    assert len(slow.counted) + labels.unfinished == 31
    cheapest_first = sorted(slow.counted[1:], key=len, reverse=True)
    assert [len(sql) for sql in slow.counted[1:]] == [len(sql) for sql in cheapest_first]
    slow.close()


def test_what_contains_nothing_is_not_read(tmp_path: Path) -> None:
    """A set that is joined by equalities and contains an empty one is empty; of others PostgreSQL is asked, they could be outer joins."""
    source = SqliteSource(SCHEMA, {**ROWS, "a": []})
    assert labelled(source, tmp_path, [*QUERIES, *RESIDUAL])["r"][frozenset("abc")].rows == 0
    assert len(source.counted) == 2
    source.close()


_ENDLESS = """
import sys
from pathlib import Path
from pytest_pilotscope.labels import cardinalities
from tests.labels.sqlite_rows import SqliteSource
from tests.labels.test_collect import QUERIES, ROWS, SCHEMA

def stop_midway(done, total, left_s):
    if done > total // 2:
        print("midway", flush=True)
        sys.stdin.read()  # until killed

import pytest_pilotscope.labels.worklist as worklist
worklist._WRITE_EVERY_S = 0.0
cardinalities(SqliteSource(SCHEMA, ROWS), QUERIES, schema=SCHEMA, fingerprint="f", cache_dir=Path(sys.argv[1]), progress=stop_midway)
"""


def test_a_killed_labelling_goes_on_where_it_was(source: SqliteSource, tmp_path: Path) -> None:
    """After kill -9 in the middle, the next call finds half of the labels and computes the rest."""
    here = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", _ENDLESS, str(tmp_path)],
        cwd=here,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(here)},
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"midway\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    reports: list[tuple[int, int]] = []
    labels = labelled(source, tmp_path, progress=lambda done, total, left_s: reports.append((done, total)))
    assert reports[0][0] > reports[0][1] // 2
    assert rows(labels) == exact(source)

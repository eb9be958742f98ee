"""Labels of a workload: cached, shared, resumed, in several processes, and by the database where memory cannot."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pilotscope.core.joins import Schema, parse
from pytest_pilotscope.core.queries import Query
from pytest_pilotscope.errors import LabelError
from pytest_pilotscope.labels import Labels, cardinalities, collect, workers
from tests.labels.sqlite_rows import Rows, SqliteSource

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
    """The labels of the workload."""
    return cardinalities(source, queries, schema=SCHEMA, fingerprint="f", cache_dir=folder, **options)  # type: ignore[arg-type]


def exact(source: SqliteSource, queries: list[Query] = QUERIES) -> dict[str, dict[frozenset[str], int]]:
    """The counts by joining."""
    parsed = {query.id: parse(query.sql, SCHEMA) for query in queries}
    return {name: {s: source.exact(query.count_sql(s)) for s in query.subplans()} for name, query in parsed.items()}


def rows(labels: Labels) -> dict[str, dict[frozenset[str], int | None]]:
    """The counts of labels."""
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
    more = [*QUERIES, Query(id="new", sql="SELECT 1 FROM a WHERE s LIKE 'k%'"), Query(id="all", sql="SELECT 1 FROM b")]
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


def test_a_dying_worker_is_an_error(source: SqliteSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that ends is reported with its status and last words, and is not waited for."""
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
            "table 'a' does not hold the rows in {folder} any more, or not in the same order; "
            "labels need data that does not change: remove that folder to read it again",
        ),
        ("DELETE FROM a WHERE rowid = 7", "table 'a' does not hold the rows in {folder} any more, or not in the same order; "
            "labels need data that does not change: remove that folder to read it again"),
    ],
)  # fmt: skip
def test_changed_rows_are_noticed(source: SqliteSource, tmp_path: Path, changed: str, message: str) -> None:
    """Columns of two states of a table are never mixed."""
    labelled(source, tmp_path)
    source.connection.execute(changed)
    with pytest.raises(LabelError, match=f"^{re.escape(message.format(folder=tmp_path / 'columns'))}$"):
        labelled(source, tmp_path, [Query(id="new", sql="SELECT 1 FROM a WHERE s LIKE 'k%'")])


def test_another_order_of_rows_is_noticed(tmp_path: Path) -> None:
    """Also where nothing but texts and conditions was read: a column of one order and a condition of another would give wrong counts."""
    schema = {"t": {"k": "text", "s": "text"}}
    rows = [("a", "x"), ("b", "y"), ("b", "x")]

    def count(rows: list[tuple[str, str]], condition: str) -> None:
        sql = f"SELECT 1 FROM t AS l, t AS r WHERE l.k = r.k{condition}"
        cardinalities(SqliteSource(schema, {"t": rows}), [Query(id="q", sql=sql)], schema=schema, fingerprint="f", cache_dir=tmp_path)

    count(rows, "")
    message = (
        f"table 't' does not hold the rows in {tmp_path / 'columns'} any more, or not in the same order; "
        "labels need data that does not change: remove that folder to read it again"
    )
    with pytest.raises(LabelError, match=f"^{re.escape(message)}$"):
        count(rows[::-1], " AND l.s LIKE 'x%'")


@pytest.mark.parametrize("content", [b"", b"not an array"])
@pytest.mark.parametrize("file", ["a/x.npy", "a/rows.txt", "b/z.null.npy"])
def test_a_damaged_column_is_named(source: SqliteSource, tmp_path: Path, file: str, content: bytes) -> None:
    """A file of 0 bytes or of something else is an error that says which one and what to do."""
    labelled(source, tmp_path)
    damaged = tmp_path / "columns" / file
    damaged.write_bytes(content)
    (tmp_path / "labels.sqlite").unlink()
    start, end = f"{damaged} is damaged (", f"): remove {damaged.parent}, and the table is read again"
    with pytest.raises(LabelError, match=f"^{re.escape(start)}.*{re.escape(end)}$"):
        labelled(source, tmp_path)


def test_queries_without_subplans_are_listed(source: SqliteSource, tmp_path: Path) -> None:
    """They have no labels, but a reason, and do not keep the others from theirs."""
    labels = labelled(source, tmp_path, [*QUERIES, Query(id="with", sql="WITH q AS (SELECT 1) SELECT 1 FROM a")])
    assert len(labels) == len(QUERIES)
    assert dict(labels.unsupported) == {"with": "WITH"}


def test_two_queries_of_one_name_are_refused(source: SqliteSource, tmp_path: Path) -> None:
    """Labels are found by the id of their query."""
    with pytest.raises(LabelError, match=r"^two queries are called 'q0': their labels could not be told apart$"):
        labelled(source, tmp_path, [QUERIES[0], QUERIES[0]])


RESIDUAL = [Query(id="r", sql="SELECT 1 FROM a, b, c WHERE a.x < b.x AND b.z = c.z")]


def test_other_joins_are_counted_by_the_database(source: SqliteSource, tmp_path: Path) -> None:
    """Only the subplans with a condition that is no equality go there, and they are exact as well."""
    labels = labelled(source, tmp_path, RESIDUAL)
    assert rows(labels) == exact(source, RESIDUAL)
    by_database = {subplan for subplan, label in labels["r"].items() if label.source == "postgres"}
    assert by_database == {frozenset("ab"), frozenset("abc")}


def test_outer_joins_are_counted_by_the_database(source: SqliteSource, tmp_path: Path) -> None:
    """Their sides alone are counted in memory, and together exactly."""
    queries = [Query(id="left", sql="SELECT 1 FROM a LEFT JOIN (b JOIN c ON b.z = c.z) ON a.x = b.x AND b.z > 3 WHERE a.y = 1")]
    labels = labelled(source, tmp_path, queries)
    assert rows(labels) == exact(source, queries)
    assert {subplan for subplan, label in labels["left"].items() if label.source == "postgres"} == {frozenset("abc")}
    whole = labels["left"][frozenset("abc")].rows
    assert whole == source.exact("SELECT count(*) FROM a LEFT JOIN (b JOIN c ON b.z = c.z) ON a.x = b.x AND b.z > 3 WHERE a.y = 1")


@pytest.mark.parametrize(
    ("sql", "together"),
    [
        ("SELECT count(*) FROM a FULL JOIN b ON a.x = b.x AND b.z > 3", "ab"),
        ("SELECT count(*) FROM a, c WHERE a.y = c.z AND EXISTS (SELECT 1 FROM b WHERE b.x = a.x AND b.z > 3)", "abc"),
        ("SELECT count(*) FROM a, c WHERE a.y = c.z AND NOT EXISTS (SELECT 1 FROM b WHERE b.x = a.x AND b.z > 3)", "abc"),
        ("SELECT count(*) FROM a WHERE a.x IN (SELECT b.x FROM b, c WHERE b.z = c.z)", "abc"),
    ],
)
def test_special_joins_are_counted_by_the_database(source: SqliteSource, tmp_path: Path, sql: str, together: str) -> None:
    """The whole is what the database returns; each relation alone, and inner joins, are counted in memory."""
    labels = labelled(source, tmp_path, [Query(id="q", sql=sql)])
    assert labels["q"][frozenset(together)].rows == source.exact(sql)
    assert labels["q"][frozenset(together)].source == "postgres"
    assert {labels["q"][frozenset(alias)].source for alias in together} == {"memory"}


def test_an_empty_side_does_not_empty_an_outer_join(tmp_path: Path) -> None:
    """Rows that match nothing stay; in a semi join they go, and nobody is asked."""
    source = SqliteSource(SCHEMA, {**ROWS, "b": []})
    outer = [Query(id=kind, sql=f"SELECT 1 FROM a {kind} JOIN b ON a.x = b.x") for kind in ("LEFT", "FULL")]
    tests = [Query(id=test, sql=f"SELECT 1 FROM a WHERE {test}EXISTS (SELECT 1 FROM b WHERE b.x = a.x)") for test in ("NOT ", "")]
    labels = labelled(source, tmp_path, [*outer, *tests])
    together = frozenset("ab")
    assert [labels[query.id][together].rows for query in (*outer, *tests)] == [len(ROWS["a"])] * 3 + [0]
    assert len(source.counted) == 3
    source.close()


def test_what_does_not_finish_is_marked_and_tried_again_with_more_time(tmp_path: Path) -> None:
    """An unfinished subplan has no rows; the same limit does not ask again, a larger one does."""
    slow = SqliteSource(SCHEMA, ROWS, finishes=False)
    labels = labelled(slow, tmp_path, RESIDUAL, timeout_ms=10)
    label = labels["r"][frozenset("ab")]
    assert (label.rows, label.finished, label.timeout_ms, labels.unfinished) == (None, False, 10, 2)
    labelled(slow, tmp_path, RESIDUAL, timeout_ms=10)
    assert len(slow.counted) == 2
    slow.finishes = True
    assert labelled(slow, tmp_path, RESIDUAL, timeout_ms=20).unfinished == 0
    slow.close()


def test_what_contains_nothing_is_not_asked(tmp_path: Path) -> None:
    """A subplan that contains an empty one is empty; the database is not asked for it."""
    source = SqliteSource(SCHEMA, {**ROWS, "a": []})
    assert labelled(source, tmp_path, RESIDUAL)["r"][frozenset("abc")].rows == 0
    assert source.counted == []
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

import pytest_pilotscope.labels.book as book
book._WRITE_EVERY_S = 0.0
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

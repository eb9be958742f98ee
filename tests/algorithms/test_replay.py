"""`replay`: rows from files, what a file does not cover, and the files of the CardEst benchmark."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow
import pytest
from pyarrow import parquet

from pytest_pilotscope.algorithms.oracle import Oracle
from pytest_pilotscope.algorithms.replay.estimates import read_estimates
from pytest_pilotscope.algorithms.replay.estimator import NOT_COVERED, Replay
from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.commands.subplans import WRITERS
from pytest_pilotscope.errors import UnsupportedQuery, UsageError
from pytest_pilotscope.learning.algorithm import PartialCardinalities
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database
from pytest_pilotscope.queries.joins import LeveledSubplan
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import TrainingReport
from tests.commands.conftest import Command, pilotscope, workplace  # noqa: F401  # fixtures

SCHEMA = {
    "users": {"id": "integer", "upvotes": "integer"},
    "comments": {"userid": "integer", "score": "integer"},
    "badges": {"userid": "integer", "date": "integer"},
}
QUERY = Query(id="q002", sql="SELECT COUNT(*) FROM comments c, users u, badges b WHERE c.userid = u.id AND b.userid = u.id AND c.score = 0")
LINES: list[dict[str, Any]] = [
    {"query": "q002", "aliases": ["c"], "rows": 10},
    {"query": "q002", "aliases": ["c", "u"], "rows": 20.5},
    {"query": "other", "aliases": ["x"], "rows": None},
    {"query": "q003", "level": 2, "aliases": ["x"], "rows": 3},
]


def replay(*paths: Path, subplans: tuple[Path, ...] = ()) -> Replay:
    """An algorithm with these files."""
    made = Replay()
    options = {"estimates": paths, "subplans": subplans}
    made.train(cast(Training, SimpleNamespace(options=options, schema=SCHEMA, report=lambda **_: TrainingReport)))
    return made


def written(folder: Path, kind: str) -> Path:
    """The lines in a file of this kind."""
    path = folder / f"estimates.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, LINES)) + "\n\n")
    elif kind == "csv":
        cells = [[line["query"], line.get("level", ""), " ".join(line["aliases"]), line["rows"] or ""] for line in LINES]
        path.write_text("query,level,aliases,rows\n" + "".join(",".join(map(str, line)) + "\n" for line in cells))
    else:
        parquet.write_table(pyarrow.Table.from_pylist([{"level": None, **line} for line in LINES]), path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_every_kind_of_file_has_the_same_estimates(tmp_path: Path, kind: str) -> None:
    """JSON Lines, CSV and Parquet; a line without rows is no estimate, a level makes a leveled subplan."""
    assert read_estimates(written(tmp_path, kind)) == {
        "q002": {frozenset("c"): 10, frozenset("cu"): 20.5},
        "other": {},
        "q003": {LeveledSubplan(2, ["x"]): 3},
    }


def test_what_other_programs_write_is_read(tmp_path: Path) -> None:
    """A mark of the encoding, lines that end as on Windows, characters that end a line in Python only, and SQL of any length."""
    long = "x" * 200_000
    contents = {
        "csv": f"\ufeffquery,aliases,rows,sql\r\nq002,c,10,{long}\r\n",
        "jsonl": '\ufeff{"query": "q002", "aliases": ["c"], "rows": 10, "sql": "\u2028 \u0085"}\r\n\r\n',
    }
    for kind, content in contents.items():
        path = tmp_path / f"estimates.{kind}"
        path.write_text(content, encoding="utf-8", newline="")
        assert read_estimates(path) == {"q002": {frozenset("c"): 10}}
    made = replay(benchmark(tmp_path, "\ufeff1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\r\n8\r\n\r\n"))
    assert made.steer(QUERY, {frozenset("c"): 1.0, frozenset("cu"): 1.0}) == {frozenset("cu"): 3}


def test_a_statement_that_is_two_queries_has_the_rows_of_each(tmp_path: Path) -> None:
    """Rows are by the id of a query: another one of the same text does not get those of the first."""
    path = tmp_path / "estimates.csv"
    path.write_text("query,aliases,rows\nq1,a,1\nq2,a,2\n")
    made, asked = replay(path), {frozenset("a"): 5.0}
    first, second, third = (Query(id=name, sql="SELECT 1 FROM a") for name in ("q1", "q2", "q3"))
    for query, rows in ((first, 1), (second, 2)):
        assert made.steer_by_text(query) is None
        assert made.steer(query, asked) == made.steer_by_text(query) == {frozenset("a"): rows}
    with pytest.raises(UnsupportedQuery, match=NOT_COVERED):
        made.steer(third, asked)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_what_subplans_writes_is_read_again(tmp_path: Path, kind: str) -> None:
    """Names with blanks and characters of the notation, too."""
    path = tmp_path / f"subplans.{kind}"
    names = (["a b", "c"], ['"', 'x"y'], ["2:x", "(", "|,"], ["ä", "b"])
    line = {"query": "q1", "level": None, "sql": "SELECT 1"}
    WRITERS[f".{kind}"](path, [{**line, "aliases": aliases, "rows": number} for number, aliases in enumerate(names)])
    assert read_estimates(path) == {"q1": {frozenset(aliases): number for number, aliases in enumerate(names)}}


def test_what_a_file_does_not_cover_is_left_to_postgresql(tmp_path: Path) -> None:
    """Sets without an estimate have the reason, a query without any is refused, and the second time nothing is looked up."""
    made = replay(written(tmp_path, "csv"))
    assert made.steer_by_text(QUERY) is None
    asked = dict.fromkeys((frozenset("c"), frozenset("u"), frozenset("cu")), 1.0)
    found = made.steer(QUERY, asked)
    assert isinstance(found, PartialCardinalities)
    assert found == {frozenset("c"): 10, frozenset("cu"): 20.5}
    assert found.unknown == {frozenset("u"): NOT_COVERED}
    assert made.steer_by_text(QUERY) is found
    with pytest.raises(UnsupportedQuery, match=NOT_COVERED):
        made.steer(Query(id="q009", sql="SELECT 1"), asked)


SUBPLANS = """\
SELECT COUNT(*) FROM users as u, badges as b WHERE b.UserId= u.Id AND u.UpVotes>=0;||0
SELECT COUNT(*) FROM badges as b, comments as c, users as u WHERE c.UserId = u.Id AND b.UserId = u.Id AND c.Score=0;||1
SELECT COUNT(*) FROM users as u, comments as c WHERE c.UserId = u.Id AND c.Score=0;||1
SELECT COUNT(*) FROM users as u, badges as b WHERE b.UserId = u.Id;||1
SELECT COUNT(*) FROM users as u, badges as b, comments as c WHERE c.UserId = u.Id AND b.UserId = u.Id AND c.Score=0;||1
SELECT COUNT(*) FROM badges as b, comments as c, users as u WHERE c.UserId = u.Id AND b.UserId = u.Id AND c.Score=0;||2
SELECT COUNT(*) FROM badges as b, comments as c, users as u WHERE c.UserId = u.Id AND b.UserId = u.Id AND u.UpVotes=1 AND c.Score=0;||3
SELECT COUNT(*) FROM badges as b, comments as c, users as u WHERE c.UserId = u.Id AND b.UserId = u.Id AND c.Score=0;||3
"""


def benchmark(folder: Path, numbers: str) -> Path:
    """The files of the CardEst benchmark in their folders."""
    estimates = folder / "sub_plan_queries" / "estimates"
    estimates.mkdir(parents=True)
    (folder / "sub_plan_queries" / "stats_CEB_sub_queries.sql").write_text(SUBPLANS)
    (folder / "sub_plan_queries" / "stats_CEB_single_table_sub_query.sql").write_text("SELECT COUNT(*) FROM users as u;||0\n")
    path = estimates / "stats_CEB_sub_queries_x.txt"
    path.write_text(numbers)
    return path


def test_one_number_for_each_sub_plan_query(tmp_path: Path) -> None:
    """
    The query's place in the workload finds its lines, and a table that only connects others is not in the set.

    A text that stands twice counts {b, c} and {b, c, u}: without filters on users both have the same rows.
    """
    made = replay(benchmark(tmp_path, "1\n2.5\n3\n4\n5\n6\n7\n8\n"))

    def found(query: Query, *subplans: str) -> dict[str, float]:
        answer = made.steer(query, {frozenset(subplan): 1.0 for subplan in subplans})
        return {"".join(sorted(subplan)): rows for subplan, rows in answer.items()}

    assert found(QUERY, "c", "bc", "bu", "cu", "bcu") == {"bc": 5, "cu": 3, "bu": 4, "bcu": 2.5}
    two = Query(id="q003", sql="SELECT COUNT(*) FROM comments c, badges b WHERE c.userid = b.userid AND c.score = 0")
    assert found(two, "b", "c", "bc") == {"bc": 6}
    filtered = Query(id="q004", sql=f"{QUERY.sql} AND u.upvotes = 1")
    assert found(filtered, "bc", "bcu") == {"bc": 8, "bcu": 7}


def test_lines_of_another_workload_are_refused(tmp_path: Path) -> None:
    """A query whose tables the lines do not have is another one than that of the file."""
    made = replay(benchmark(tmp_path, "1\n2\n3\n4\n5\n6\n7\n8\n"))
    message = (
        f"{tmp_path}/sub_plan_queries/stats_CEB_sub_queries.sql has other tables for query 'q001' (position 0, from 0); "
        "measure the workload that the file was made for, in its order"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        made.steer(Query(id="q001", sql=QUERY.sql), {frozenset("c"): 1.0})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "", "{path}: unknown kind of file '.json'; give a file that ends in .jsonl, .csv, .parquet or .txt"),
        ("a.jsonl", "{\n", "{path}:1: this is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "
         "write one JSON object on each line"),
        ("a.jsonl", "[1]\n", "{path}:1: this is a JSON list; write one JSON object on each line"),
        ("a.jsonl", '{"query": "q1"}\n', "{path}:1: it has no aliases; every line needs query, aliases, rows"),
        ("a.jsonl", '{"query": "q1", "aliases": ["a"], "rows": -1}\n', "{path}:1: rows is -1; it must be a number from 0 to 1e100"),
        ("a.jsonl", '{"query": "q1", "aliases": ["a"], "rows": "many"}\n', "{path}:1: rows is 'many'; it must be a number from 0 to 1e100"),
        ("a.jsonl", '{"query": "q1", "aliases": ["a"], "rows": NaN}\n', "{path}:1: rows is nan; it must be a number from 0 to 1e100"),
        ("a.jsonl", '{"query": "q1", "aliases": ["a"]}\n', "{path} has no estimate: no line has a number in rows; fill them in, or let "
         "`pilotscope subplans --true-rows` count them"),
        ("a.jsonl", '{"query": "q1", "aliases": ["a"], "rows": 1e200}\n', "{path}:1: rows is 1e+200; it must be a number from 0 to 1e100"),
        ("a.jsonl", '{"query": "q1", "aliases": ["a"], "rows": true}\n', "{path}:1: rows is True; it must be a number from 0 to 1e100"),
        ("a.jsonl", f'{{"query": "q1", "aliases": ["a"], "rows": 1{"0" * 310}}}\n', "{path}:1: rows is 1000"),
        ("a.jsonl", '{"query": true, "aliases": ["a"], "rows": 1}\n', "{path}:1: query is True; it must be the id of a query"),
        ("a.jsonl", '{"query": "q1", "aliases": 5, "rows": 1}\n', "{path}:1: aliases is 5; it must be a list of names, or a text with "
         "blanks between them"),
        ("a.jsonl", '{"query": "q1", "aliases": [["a", "b"]], "rows": 1}\n', "{path}:1: aliases is [['a', 'b']]; it must be a list of"),
        ("a.jsonl", '{"query": "q1", "aliases": [], "rows": 1}\n', "{path}:1: aliases is []; it must be a list of names"),
        ("a.jsonl", '{"query": "q1", "aliases": ["a"], "level": 1.5, "rows": 1}\n', "{path}:1: level is 1.5; it must be a whole number of "
         "at least 1"),
        ("a.csv", 'query,aliases,rows\nq1,"a,1\nq2,b,2\n', "{path} cannot be read: unexpected end of data"),
        ("a.csv", "query,aliases,rows\nq1,a b,1\nq1,b a,2\n",
         "{path}:3: {{a, b}} of query 'q1' has an estimate on an earlier line; keep one"),
        ("a.csv", "query,rows\nq1,1\n", "{path}:1: the first line has no column aliases; it must name query, aliases, rows"),
        ("a.parquet", "PAR", "{path} is not a Parquet file: "),
        ("a.txt", "1\nx\n", "{path}:2: 'x' is not a number; a .txt file has one estimate on each line"),
        ("a.txt", "1\ninf\n", "{path}:2: 'inf' is no number of rows; it must be from 0 to 1e100"),
        ("a.txt", "1\n", "{path} has 1 estimates, and beside it and one folder above 0 .sql files have as many lines (none); "
         "name its file of sub-plan queries with --replay-subplans"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    """The file, the line, what was found and what to do."""
    path = tmp_path / "folder" / name
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(UsageError, match=f"^{re.escape(message.format(path=path))}"):
        replay(path)


def test_no_file_is_a_usage_error(tmp_path: Path) -> None:
    """The error says how to name one; a file of sub-plan queries with another number of lines is named, too."""
    with pytest.raises(UsageError, match=r"^replay needs estimates: name a file with --replay-estimates FILE"):
        replay()
    (tmp_path / "some.sql").write_text("SELECT COUNT(*) FROM users;||0\n")
    (tmp_path / "x.txt").write_text("1\n2\n")
    message = f"{tmp_path / 'some.sql'} has 1 sub-plan queries for 2 estimates; name the file that they belong to"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        replay(tmp_path / "x.txt", subplans=(tmp_path / "some.sql",))
    (tmp_path / "folder.sql").mkdir()
    message = f"{tmp_path / 'folder.sql'} cannot be read: [Errno 21] Is a directory: '{tmp_path / 'folder.sql'}'"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        replay(tmp_path / "x.txt", subplans=(tmp_path / "folder.sql",))
    (tmp_path / "some.sql").write_text("SELECT COUNT(*) FROM users;||0\nSELECT random();||0\n")
    message = f"{tmp_path / 'some.sql'}:2: no sub-plan query: 'SELECT random();||0'; write a plain SELECT;||POSITION on each line"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        replay(tmp_path / "x.txt", subplans=(tmp_path / "some.sql",))


@pytest.mark.slow
def test_true_rows_that_were_written_make_the_plans_of_the_oracle(
    pilotscope: Command,  # noqa: F811
    workplace: Path,  # noqa: F811
) -> None:
    """Replaying exported true cardinalities injects the same rows as the oracle, so PostgreSQL chooses the same plans."""
    written = pilotscope("subplans", "--db", "stats_tiny", "--scale", "0.01", "--true-rows", "-o", "true.csv")
    assert written.exit_code == 0, written.output
    with open_database(PostgreSQLConfig("stats_tiny", scale=0.01)) as database, database.session() as session:
        assert database.dataset is not None
        workload = database.dataset.workload()
        given = {
            name: Training.of(
                workload,
                algorithm=name,
                database=database,
                session=session,
                settings=Settings(),
                options=builtin_registry().options(name, {"replay": {"estimates": (Path("true.csv"),)}}),
                folder=workplace / name,
                progress=silent,
            )
            for name in ("oracle", "replay")
        }
        oracle, replayed = Oracle(), Replay()
        oracle.train(given["oracle"])
        replayed.train(given["replay"])
        for query in workload.test:
            subplans = session.subplans(query.sql)
            rows = [made.steer(query, subplans) for made in (oracle, replayed)]
            assert rows[0] == rows[1], query.id
        with session.cardinalities(rows[0]):
            first = session.explain(query.sql)
        with session.cardinalities(rows[1]):
            assert session.explain(query.sql) == first

"""Query files are read in all their formats, and errors name file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pilotscope.datasets.files import load_queries, load_workload_files, named_workload
from pytest_pilotscope.datasets.statements import split_statements
from pytest_pilotscope.errors import UnknownName, WorkloadError
from pytest_pilotscope.queries.queries import Query, Unmeasured

TRICKY = [
    "SELECT 'a;b', 'it''s; fine'",
    'SELECT "x;y" FROM "t;""u"',
    "SELECT $$a;b$$, $tag$ ; $$ ; $tag$",
    r"SELECT E'it\'s;', 1",
    "SELECT 1 /* ; /* ; */ ; */ + 1",
    "SELECT 1 -- ; not the end\n + 1",
    "SELECT a$b$c FROM t",
]


def written(folder: Path, text: str, name: str = "queries.sql") -> Path:
    """Return the path of a new file with this text."""
    path = folder / name
    path.write_bytes(text.encode())
    return path


def fails(path: Path, message: str) -> None:
    """Check that loading `path` raises exactly `message`, in which {path} stands for the path."""
    with pytest.raises(WorkloadError, match=f"^{re.escape(message.format(path=path))}$"):
        load_queries(path)


@pytest.mark.parametrize("end", [";\n", " ; ", ";"])
def test_semicolons_inside_quotes_and_comments_cut_nothing(tmp_path: Path, end: str) -> None:
    """A `;` in a literal, quoted name, comment or dollar quote is text; only the others separate statements."""
    assert [query.sql for query in load_queries(written(tmp_path, end.join(TRICKY)))] == TRICKY


def test_statements_are_numbered_in_order(tmp_path: Path) -> None:
    """Statements without ids become q001, q002, ...; empty ones and comments between them do not count."""
    path = written(tmp_path, "-- first\nSELECT 1;\n\n;; /* second */\nSELECT\n  2;\n-- the end\n")
    assert load_queries(path) == (Query(id="q001", sql="SELECT 1"), Query(id="q002", sql="SELECT\n  2"))


def test_ids_before_five_hashes(tmp_path: Path) -> None:
    """`id#####sql` lines keep their ids; windows line ends, a byte order mark and comment lines do no harm."""
    path = written(tmp_path, "\ufeff-- JOB\r\n1a#####SELECT 'x#####y';\r\n\r\n1b#####SELECT 2\r\n")
    assert load_queries(path) == (Query(id="1a", sql="SELECT 'x#####y'"), Query(id="1b", sql="SELECT 2"))


def test_ids_before_a_tab(tmp_path: Path) -> None:
    """`id<TAB>sql` lines keep their ids, and a tab inside the statement stays."""
    assert load_queries(written(tmp_path, "a\tSELECT\t1\nb\tSELECT 2;\n")) == (
        Query(id="a", sql="SELECT\t1"),
        Query(id="b", sql="SELECT 2"),
    )


def test_rows_before_two_bars(tmp_path: Path) -> None:
    """STATS-CEB was published as `rows||sql` lines: the statements are numbered, the rows are left alone."""
    path = written(tmp_path, "79851||SELECT COUNT(*) FROM a;\n200||SELECT 'x' || 'y';\n")
    assert load_queries(path) == (Query(id="q001", sql="SELECT COUNT(*) FROM a"), Query(id="q002", sql="SELECT 'x' || 'y'"))


def test_plain_lines(tmp_path: Path) -> None:
    """Without any semicolon each line that begins like a query is one."""
    found = load_queries(written(tmp_path, "SELECT 1\nwith x as (select 2) select * from x\n"))
    assert [query.id for query in found] == ["q001", "q002"]


def test_one_statement_over_several_lines(tmp_path: Path) -> None:
    """A single statement may need several lines and no semicolon."""
    assert load_queries(written(tmp_path, "SELECT 1\nFROM t\nWHERE a = 2\n")) == (Query(id="q001", sql="SELECT 1\nFROM t\nWHERE a = 2"),)


def test_folder(tmp_path: Path) -> None:
    """A folder's ids are the names of its .sql files, ordered with numbers by value; other files are left alone."""
    for name in ("10a", "2b", "2a", "fkindexes"):
        written(tmp_path, f"SELECT '{name}';\n", f"{name}.sql")
    written(tmp_path, "not SQL", "README.md")
    assert [query.id for query in load_queries(tmp_path)] == ["2a", "2b", "10a", "fkindexes"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT 1;\nSELECT 'a;\n", "{path}:2: a literal is opened here and never closed; close it"),
        ('SELECT 1;\nSELECT "a;\n', "{path}:2: a quoted name is opened here and never closed; close it"),
        ("SELECT 1;\nSELECT $x$ a;\n", "{path}:2: a dollar quote is opened here and never closed; close it"),
        ("SELECT 1;\nSELECT 1 /* /* */;\n", "{path}:2: a comment is opened here and never closed; close it"),
        ("-- nothing\n\n", "{path}:1: no statement found; write at least one query"),
        (
            "a#####SELECT 1\nb#####SELECT 2\na#####SELECT 3\n",
            "{path}:3: id 'a' was already used in {path}:1; give every query an id of its own",
        ),
        ("a\tSELECT 1\nSELECT 2\n", "{path}:2: this is not id<TAB>statement, as in the lines above; write it like them"),
        ("a#####SELECT 1\nSELECT 2\n", "{path}:2: this is not id#####statement, as in the lines above; write it like them"),
        ("12||SELECT 1;\nSELECT 2;\n", "{path}:2: this is not rows||statement, as in the lines above; write it like them"),
        ("a\tSELECT 1\nb\tSELECT 2; SELECT 3\n", "{path}:2: 2 statements found; write one on each line"),
        ("a\tSELECT 1\nb\tSELECT 'x\n", "{path}:2: a literal is opened here and never closed; close it"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    """An error has file and line, what was found and what to do."""
    fails(written(tmp_path, text), message)


def test_what_is_no_query_is_listed(tmp_path: Path) -> None:
    """It is neither run nor dropped: the workload says what it is. What only PostgreSQL can parse is a query."""
    found = load_workload_files(written(tmp_path, "a\tSELECT 1\nb\tDROP TABLE t\nc\tselect a b c\n"), "mine", None)
    assert [query.id for query in found.test] == ["a", "c"]
    assert found.unmeasured == (Unmeasured(id="b", sql="DROP TABLE t", reason="DROP where a query begins"),)


def test_a_schema_beside_the_queries(tmp_path: Path) -> None:
    """A clone of JOB's repository is a workload: the files that make tables and indexes are listed and not run."""
    written(tmp_path, "SELECT 1;", "1a.sql")
    written(tmp_path, "CREATE TABLE a (id int);\nCREATE TABLE b (id int);\n", "schema.sql")
    found = load_workload_files(tmp_path, "imdb", None)
    assert [query.id for query in found.test] == ["1a"]
    assert [(one.id, one.reason) for one in found.unmeasured] == [("schema", "CREATE where a query begins")]


def test_nothing_but_other_statements(tmp_path: Path) -> None:
    """A file without any query is no workload."""
    path = written(tmp_path, "INSERT INTO t VALUES (1);\nDROP TABLE t;\nDROP TABLE u;\n")
    message = (
        f"{path}: there is no query to measure in it, only q001 (INSERT where a query begins), q002 (DROP where a query begins); "
        "write at least one SELECT"
    )
    with pytest.raises(WorkloadError, match=f"^{re.escape(message)}$"):
        load_workload_files(path, "mine", None)


def test_one_of_several_workloads(tmp_path: Path) -> None:
    """A name stands for a folder or a file in the folder; an unknown one is answered with those that there are."""
    (tmp_path / "job").mkdir()
    written(tmp_path / "job", "SELECT 1", "1a.sql")
    written(tmp_path, "SELECT 2", "light.sql")
    assert named_workload(tmp_path, "job") == tmp_path / "job"
    assert named_workload(tmp_path, "light") == tmp_path / "light.sql"
    with pytest.raises(UnknownName, match=r"^unknown workload 'jobs'; did you mean 'job'\? known: job, light$"):
        named_workload(tmp_path, "jobs")
    message = f"{tmp_path / 'light.sql'}: no folder, so it holds no workload 'x'; leave --workload out to read the file"
    with pytest.raises(WorkloadError, match=f"^{re.escape(message)}$"):
        named_workload(tmp_path / "light.sql", "x")


def test_not_utf8(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are refused with their line."""
    path = tmp_path / "latin.sql"
    path.write_bytes(b"SELECT 1;\nSELECT '\xe9';\n")
    fails(path, "{path}:2: byte 0xe9 is not UTF-8; save the file as UTF-8")


def test_missing_file(tmp_path: Path) -> None:
    """A path that is not there is named."""
    fails(tmp_path / "none.sql", "{path}: cannot be read (No such file or directory); give a file or a folder of .sql files")


def test_empty_folder(tmp_path: Path) -> None:
    """A folder without .sql files is a mistake."""
    fails(tmp_path, "{path}: no .sql file in this folder; put one query into each, or give a file")


@pytest.mark.parametrize("text", ["SELECT 1;\nSELECT 2;\n", "12||SELECT 1;\n13||SELECT 2;\n"])
def test_folder_with_two_statements_in_a_file(text: str, tmp_path: Path) -> None:
    """A file of a folder is one query, because its name is the id."""
    path = written(tmp_path, text)
    message = f"{path}:2: 2 statements found; a file of a folder holds exactly one, so name this file to have all of them"
    with pytest.raises(WorkloadError, match=f"^{re.escape(message)}$"):
        load_queries(tmp_path)
    written(tmp_path, "-- nothing\n")
    message = f"{path}:1: no statement found; a file of a folder holds exactly one"
    with pytest.raises(WorkloadError, match=f"^{re.escape(message)}$"):
        load_queries(tmp_path)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["';'", '";"', "$$;$$", "$a$;$$;$a$", "/*;/*;*/;*/", "--;\n", "x", "1", " ", "\n", "E'\\';'"]), min_size=1))
def test_any_sequence_of_pieces_is_one_statement(pieces: list[str]) -> None:
    """Whatever the order of quoted pieces, none of their semicolons cuts."""
    assert len(split_statements("SELECT " + " ".join(pieces) + " ;")) == 1


def test_reference_workload(shared_data: Path) -> None:
    """Every statement of the reference workload is read."""
    assert len(load_queries(shared_data / "stats_tiny" / "test.sql")) == 146


def test_reference_folder(shared_data: Path) -> None:
    """A folder of JOB queries is read, and its ids are the names that everybody uses."""
    found = load_queries(shared_data / "imdb_tiny" / "queries")
    assert {"1a", "2b", "16d"} <= {query.id for query in found}

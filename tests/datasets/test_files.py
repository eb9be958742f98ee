"""Query files are read in all their formats, and errors name file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pilotscope import load_test_sql, load_workload
from pytest_pilotscope.datasets.files import load_queries, load_workload_files, named_workload
from pytest_pilotscope.errors import UnknownName, WorkloadError
from pytest_pilotscope.queries.queries import SPLITS, Query, Unmeasured
from pytest_pilotscope.queries.statements import split_statements

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
        ("/* nothing */\n;;\n;\n", "{path}:1: no statement found; write at least one query"),
        (
            "a#####SELECT 1\nb#####SELECT 2\na#####SELECT 3\n",
            "{path}:3: id 'a' was already used in {path}:1; give every query an id of its own",
        ),
        ("a\tSELECT 1\nSELECT 2\n", "{path}:2: this is not id<TAB>statement, as in the lines above; write it like them"),
        ("a#####SELECT 1\nSELECT 2\n", "{path}:2: this is not id#####statement, as in the lines above; write it like them"),
        ("t##t.a,=#3\n", "{path}:1: a predicate has three parts, found 2; write column,operator,value for each"),
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


@pytest.mark.parametrize(
    ("text", "sql", "line", "beside"),
    [
        ("\\timing on\nSELECT 1 FROM a;\n", "SELECT 1 FROM a", 2, [("b-line1", "\\timing is a command of psql")]),
        ("-- c\nselect 1 from a;\n\\q\n", "select 1 from a", 2, [("b-line3", "\\q is a command of psql")]),
        ("SELECT '\n\\d'\n  \\g\n", "SELECT '\n\\d'", 1, [("b-line3", "\\g is a command of psql")]),
        ("SELECT 1;||12345\n", "SELECT 1", 1, []),
        ("SELECT 1\nFROM a; || 12\n", "SELECT 1\nFROM a", 1, []),
        ("12||SELECT 1\n FROM a;\n", "SELECT 1\n FROM a", 1, []),
        ("\\timing\n1a#####SELECT 1;\n", "SELECT 1", 2, [("b-line1", "\\timing is a command of psql")]),
        ("SET search_path=x;\nSELECT 1;\n", "SELECT 1", 2, [("b-line1", "SET where a query begins")]),
    ],
)
def test_a_query_in_a_folder_is_found_among_commands_and_numbers(
    tmp_path: Path, text: str, sql: str, line: int, beside: list[tuple[str, str]]
) -> None:
    """Commands of psql and other statements are listed under the file's name; a number of rows is no statement."""
    path = written(tmp_path, text, "b.sql")
    found = load_workload_files(tmp_path, "mine", None)
    assert [(query.id, query.sql, query.place) for query in found.test] == [("b", sql, f"{path}:{line}")]
    assert [(one.id, one.reason) for one in found.unmeasured] == beside


def test_commands_after_statements(tmp_path: Path) -> None:
    r"""On the line of a statement, too, a command is none of it; `\\g` ends a statement; in comments and quotes there are none."""
    path = written(
        tmp_path,
        "SELECT 1; \\timing off\nSELECT 2 \\g out.txt\nSELECT '; \\q'\n\\gx\nSELECT E'; \\\\q' -- see; \\d\n;\\q\n/* \n\\d */ SELECT 5;\n",
    )
    found = load_workload_files(path, "mine", None)
    assert [(query.id, query.sql) for query in found.test] == [
        ("q001", "SELECT 1"),
        ("q002", "SELECT 2"),
        ("q003", "SELECT '; \\q'"),
        ("q004", "SELECT E'; \\\\q' -- see; \\d"),
        ("q005", "SELECT 5"),
    ]
    assert [(one.id, one.sql) for one in found.unmeasured] == [
        ("line1", "\\timing off"),
        ("line2", "\\g out.txt"),
        ("line4", "\\gx"),
        ("line6", "\\q"),
    ]


@pytest.mark.parametrize(
    ("text", "queries", "commands"),
    [
        ("SELECT 1\\gx\nSELECT 2;\n", ["SELECT 1", "SELECT 2"], ["\\gx"]),
        ("SELECT 1\\g out.txt\nSELECT 2\\gset pre_\n", ["SELECT 1", "SELECT 2"], ["\\g out.txt", "\\gset pre_"]),
        ("SELECT 1 FROM a\\watch 2", ["SELECT 1 FROM a"], ["\\watch 2"]),
        ("SELECT 1;\\echo it's\nSELECT 'a\\gx';\n", ["SELECT 1", "SELECT 'a\\gx'"], ["\\echo it's"]),
        ("SELECT $$\\g$$, E'\\\\g', \"\\g\" -- \\g\n", ["SELECT $$\\g$$, E'\\\\g', \"\\g\" -- \\g"], []),
        ("SELECT 1\\;SELECT 2;\n", ["SELECT 1", "SELECT 2"], []),
        ("SELECT a\\:\\:int FROM t;\n", ["SELECT a::int FROM t"], []),
    ],
)
def test_commands_that_touch_a_statement(text: str, queries: list[str], commands: list[str], tmp_path: Path) -> None:
    r"""A backslash outside of quotes and comments is psql's, whatever is before it; `\;` and `\:` are the characters themselves."""
    found = load_workload_files(written(tmp_path, text), "mine", None)
    assert [query.sql for query in found.test] == queries
    assert [one.sql for one in found.unmeasured] == commands


def test_queries_of_ones_own_in_python(tmp_path: Path) -> None:
    """`load_workload` and `load_test_sql` read what `--queries-dir` takes, under any name, with the splits that are there."""
    written(tmp_path, "SELECT 1;\nSELECT 2;\n", "test.sql")
    written(tmp_path, "SELECT 3;\n", "train.sql")
    workload = load_workload("shop", queries_dir=str(tmp_path))
    assert (workload.dataset, [query.id for query in workload.test], [query.id for query in workload.train]) == (
        "shop",
        ["q001", "q002"],
        ["train001"],
    )
    assert load_test_sql("shop", queries_dir=tmp_path / "test.sql") == ["SELECT 1", "SELECT 2"]
    assert load_test_sql("ssb") == [query.sql for query in load_workload("ssb").test]


def test_commands_before_lines_with_ids(tmp_path: Path) -> None:
    """A command does not hide the format of the lines after it."""
    found = load_workload_files(written(tmp_path, "\\timing on\n1a#####SELECT 1\n1b#####SELECT 2\n"), "mine", None)
    assert [query.id for query in found.test] == ["1a", "1b"]
    assert [one.id for one in found.unmeasured] == ["line1"]


def test_rows_after_statements_of_several_lines(tmp_path: Path) -> None:
    """The number after a statement is no part of the next one, nor does it move its line."""
    path = written(tmp_path, "SELECT 1\nFROM a;||12\n-- next\nSELECT 2\nFROM b;||0\n")
    assert [(query.sql, query.place) for query in load_queries(path)] == [
        ("SELECT 1\nFROM a", f"{path}:1"),
        ("SELECT 2\nFROM b", f"{path}:4"),
    ]


def test_a_schema_with_tabs_and_commands(tmp_path: Path) -> None:
    """`CREATE<TAB>TABLE` is no id before a query, and a file of commands alone is listed."""
    written(tmp_path, "SELECT 1", "1.sql")
    written(tmp_path, "CREATE\tTABLE a (id int);\n", "schema.sql")
    written(tmp_path, "\\set x 1\n", "set.sql")
    found = load_workload_files(tmp_path, "mine", None)
    assert [query.id for query in found.test] == ["1"]
    assert [(one.id, one.reason) for one in found.unmeasured] == [
        ("schema", "CREATE where a query begins"),
        ("set-line1", "\\set is a command of psql"),
    ]


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


def test_a_number_after_the_statement(tmp_path: Path) -> None:
    """`statement;||number` lines, as sub-plan queries are published, are numbered; bars inside a statement are SQL."""
    path = written(tmp_path, "SELECT COUNT(*) FROM a;||0\nSELECT 'x' || 'y';||12\n")
    assert load_queries(path) == (Query(id="q001", sql="SELECT COUNT(*) FROM a"), Query(id="q002", sql="SELECT 'x' || 'y'"))
    assert load_queries(written(tmp_path, "SELECT a||1\nSELECT b||2\n")) == (
        Query(id="q001", sql="SELECT a||1"),
        Query(id="q002", sql="SELECT b||2"),
    )


@pytest.mark.parametrize("number", ["||0", "|| 12.0", "||1e+06", "||-1", "||12||3", "\t12", "#12", ",12", " , 1.5"])
def test_any_number_after_the_statement(tmp_path: Path, number: str) -> None:
    """The rows behind a semicolon are no part of the next statement, whatever separates and however one writes them."""
    path = written(tmp_path, f"SELECT COUNT(*) FROM a;{number}\nSELECT COUNT(*) FROM b;{number}\n")
    assert [query.sql for query in load_queries(path)] == ["SELECT COUNT(*) FROM a", "SELECT COUNT(*) FROM b"]


@pytest.mark.parametrize("number", ["12||", "12 || ", "12.0||", "-1||", "1e6||"])
def test_any_number_before_the_statement(tmp_path: Path, number: str) -> None:
    """Rows may be estimates."""
    path = written(tmp_path, f"{number}SELECT COUNT(*) FROM a;\n{number}SELECT COUNT(*) FROM b;\n")
    assert [query.sql for query in load_queries(path)] == ["SELECT COUNT(*) FROM a", "SELECT COUNT(*) FROM b"]


def test_blanks_before_five_hashes(tmp_path: Path) -> None:
    """They are no part of the id; five hashes within SQL are an operator."""
    assert load_queries(written(tmp_path, "1a ##### SELECT 1\n")) == (Query(id="1a", sql="SELECT 1"),)
    assert load_queries(written(tmp_path, "SELECT a#####b FROM t\n")) == (Query(id="q001", sql="SELECT a#####b FROM t"),)


@pytest.mark.parametrize(
    "sql", ["SELECT a FROM t UNION ALL\nSELECT b FROM t", "SELECT 1 IN\n(SELECT 2)", "SELECT a,\n(SELECT 2)", "SELECT 1 =\n(SELECT 2)"]
)
def test_a_line_that_goes_on(tmp_path: Path, sql: str) -> None:
    """A statement without a semicolon whose lines all begin like queries is one, if its lines do not end like one."""
    assert load_queries(written(tmp_path, sql)) == (Query(id="q001", sql=sql),)


def test_a_tab_after_the_first_word_is_no_id(tmp_path: Path) -> None:
    """SELECT, WITH and the like are words of SQL, whatever stands after them."""
    assert load_queries(written(tmp_path, "SELECT\t1\nFROM t\n")) == (Query(id="q001", sql="SELECT\t1\nFROM t"),)
    assert load_queries(written(tmp_path, "SELECT\t1;\nWITH\tx AS (SELECT 2) SELECT 3;\n"))[1].sql == "WITH\tx AS (SELECT 2) SELECT 3"


def test_the_csv_of_mscn(tmp_path: Path) -> None:
    """Tables, joins and predicates between hash signs become a query; a line may have no join and no predicate."""
    path = written(
        tmp_path,
        "title t,movie_companies mc#t.id=mc.movie_id#mc.company_type_id,=,2,t.production_year,>,2010#1234\n"
        "title t##t.kind_id,<,-3#5\ntitle t###9\n",
        "job-light.csv",
    )
    assert [query.sql for query in load_queries(path)] == [
        "SELECT COUNT(*) FROM title t,movie_companies mc WHERE t.id=mc.movie_id AND mc.company_type_id = 2 AND t.production_year > 2010",
        "SELECT COUNT(*) FROM title t WHERE t.kind_id < -3",
        "SELECT COUNT(*) FROM title t",
    ]


def test_a_line_that_ends_with_a_comment_ends_its_statement(tmp_path: Path) -> None:
    """The slash of a comment is no operator."""
    path = written(tmp_path, "SELECT 1 /* first */\nSELECT 2 /* second */\n")
    assert [query.sql for query in load_queries(path)] == ["SELECT 1 /* first */", "SELECT 2 /* second */"]


def test_values_in_quotes_in_the_csv_of_mscn(tmp_path: Path) -> None:
    """A comma and a hash within quotes separate nothing."""
    path = written(tmp_path, "t##t.name,=,'a,b',t.id,<,3#5\nt##t.name,=,'it''s #1'#2\n")
    assert [query.sql for query in load_queries(path)] == [
        "SELECT COUNT(*) FROM t WHERE t.name = 'a,b' AND t.id < 3",
        "SELECT COUNT(*) FROM t WHERE t.name = 'it''s #1'",
    ]


def test_folders_in_folders(tmp_path: Path) -> None:
    """CEB has a folder for each template; a name that two folders have is told apart by the folder."""
    for name in ("2b/2b1", "1a/1a2", "1a/1a1", "1a/same", "2b/same"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        written(tmp_path / Path(name).parent, f"SELECT '{name}';\n", f"{Path(name).name}.sql")
    assert [query.id for query in load_queries(tmp_path)] == ["1a1", "1a2", "2b1", "1a-same", "2b-same"]


def test_commands_of_psql_are_listed(tmp_path: Path) -> None:
    """They are not run, and take no number; a backslash inside a literal begins none."""
    path = written(tmp_path, "\\timing on\n  \\c mydb\nSELECT 1;\nSELECT '\n\\d';\n\\q\n")
    found = load_workload_files(path, "mine", None)
    assert [(query.id, query.sql, query.place) for query in found.test] == [
        ("q001", "SELECT 1", f"{path}:3"),
        ("q002", "SELECT '\n\\d'", f"{path}:4"),
    ]
    assert found.unmeasured == (
        Unmeasured(id="line1", sql="\\timing on", reason="\\timing is a command of psql"),
        Unmeasured(id="line2", sql="\\c mydb", reason="\\c is a command of psql"),
        Unmeasured(id="line6", sql="\\q", reason="\\q is a command of psql"),
    )


def test_leading_hints_are_kept(tmp_path: Path) -> None:
    """A hint belongs to the statement after it, which stays a query; another comment is left out."""
    path = written(tmp_path, "/*+ HashJoin(p q) */ SELECT 1;\n/* no hint */ /*+ Leading((q p)) */\nSELECT 2;\n-- none\nSELECT 3;\n")
    found = load_workload_files(path, "mine", None)
    assert [query.sql for query in found.test] == ["/*+ HashJoin(p q) */ SELECT 1", "/*+ Leading((q p)) */\nSELECT 2", "SELECT 3"]
    assert found.unmeasured == ()


def test_splits_of_plain_statements(tmp_path: Path) -> None:
    """The statements of test.sql, train.sql and validation.sql have no ids: those of each split get their own."""
    for split, count in (("test", 1), ("train", 2), ("validation", 1)):
        written(tmp_path, "".join(f"SELECT '{split}', {number};\n" for number in range(count)), f"{split}.sql")
    found = load_workload_files(tmp_path, "mine", None)
    assert {split: [query.id for query in found.of(split)] for split in SPLITS} == {
        "test": ["q001"],
        "train": ["train001", "train002"],
        "validation": ["validation001"],
    }


def test_published_formats(shared_cases: Path) -> None:
    """Workload files as people publish them, beside the checkout."""
    formats = shared_cases / "formats"
    found = {path.name: load_workload_files(path, "mine", None) for path in sorted(formats.iterdir())}
    assert {name: (len(one.test), len(one.train), len(one.validation), len(one.unmeasured)) for name, one in found.items()} == {
        "leading_hints_are_kept.sql": (2, 0, 0, 0),
        "nested": (1, 0, 0, 0),
        "psql_meta_commands.sql": (2, 0, 0, 2),
        "splits": (1, 4, 1, 0),
        "statement_then_rows.sql": (3, 0, 0, 0),
        "tab_after_select.sql": (1, 0, 0, 0),
    }

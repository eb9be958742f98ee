"""
Query files: a folder of `.sql` files, or one file in any of the formats in which benchmarks are published.

- a folder, maybe with folders within it (CEB): one query in each `.sql` file, whose id is the file's name without `.sql`; other statements
  beside it are listed as not run, and a file without any query, such as the schema in JOB's folder, counts as one statement;
- `id#####statement` or `id<TAB>statement`, one on each line;
- `rows||statement` (STATS-CEB) or `statement;||number` (sub-plan queries; also with `#`, a comma or a tab for the bars), one on each line,
  numbered q001, q002, ...;
- `tables#joins#predicates#rows`, MSCN's CSV, one on each line, numbered likewise;
- statements separated by `;`, over as many lines as they need, numbered likewise;
- one statement on each line without any `;`, numbered likewise.

Empty lines and lines that begin with `--` are skipped. Commands of psql, from a backslash to the end of the line, are listed as not run. A
hint, `/*+ ... */`, is a part of the statement after it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_pilotscope.errors import UnknownName, WorkloadError
from pytest_pilotscope.places.givenfiles import read_given
from pytest_pilotscope.queries.queries import SPLITS, Query, Split, Unmeasured, Workload
from pytest_pilotscope.queries.statements import QUERY, NeverEnds, Statement, command_of_psql, line_of, split_statements

_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_LINES = {
    "id#####statement": re.compile(r"(?P<id>[^\s#]+)[ \t]*#####(?P<sql>.*)"),
    "id<TAB>statement": re.compile(rf"(?!{QUERY.pattern})(?P<id>[^\s']+)\t(?P<sql>(?!table\b).*)", re.IGNORECASE),
    "rows||statement": re.compile(rf"{_NUMBER}\s*\|\|(?P<sql>.*)"),
    "statement;||number": re.compile(rf"(?P<sql>.*);(?:\s*(?:\|\||[#,])\s*|\t){_NUMBER}\s*"),
    "tables#joins#predicates#rows": re.compile(r"(?P<tables>\w[\w ,.\"]*)#(?P<joins>[^#]*)#(?P<predicates>(?:[^#']|'[^']*')*)#\d+\s*"),
}
_OUTSIDE_QUOTES = re.compile(r",(?=(?:[^']*'[^']*')*[^']*$)")
_GOES_ON = re.compile(
    r"(?:\b(?:union|all|distinct|intersect|except|in|exists|any|some|as|and|or|not|from|where)|[(,=<>+\-*|]|(?<!\*)/)\s*$", re.IGNORECASE
)
"""The end of a line that is not the end of a statement."""
_SENDS = re.compile(r"\\(g(x|set|exec|desc)?|crosstabview|watch)(?!\w)")
"""A command of psql that ends the statement before it."""
_ESCAPED = re.compile(r"\\([;:])")
"""A semicolon or colon that psql sends as it is."""
_ROWS = re.compile(rf"\|\|\s*{_NUMBER}(\s+|$)|{_NUMBER}\s*\|\|")
"""A number of rows after the statement before, or before a statement: no statement begins like this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A statement and where it begins."""

    path: Path
    line: int
    id: str
    sql: str

    def error(self, problem: str, line: int | None = None) -> WorkloadError:
        return _error(self.path, self.line if line is None else line, problem)


def load_queries(path: Path) -> tuple[Query, ...]:
    """
    Read the statements of a folder or a file, in order (a folder: by name, numbers in names by value).

    Raise WorkloadError, beginning with `file:line`, for an id that occurs twice, for a quote that is not closed and if there is no query.
    """
    found = _from_folder(path) if path.is_dir() else _from_file(path)
    first: dict[str, _Found] = {}
    for statement in found:
        if statement.id in first:
            other = first[statement.id]
            raise statement.error(f"id {statement.id!r} was already used in {other.path}:{other.line}; give every query an id of its own")
        first[statement.id] = statement
    return tuple(Query(id=statement.id, sql=statement.sql, place=f"{statement.path}:{statement.line}") for statement in found)


def load_workload_files(path: Path, dataset: str, learning: Workload | None) -> Workload:
    """
    Read a workload from the user's files: a folder with `test.sql` or `test/`, and `train` and `validation` likewise, or only test queries.

    If the files have no training queries, use the dataset's own training and validation queries (`learning`), if there are any. Statements
    that are no queries are listed as `unmeasured`. Raise `WorkloadError` if there is no query to measure.
    """
    parts = {split: _part(path, split) for split in SPLITS} if path.is_dir() else {}
    loaded: dict[Split, Sequence[Query]] = {split: _of_split(part, split) if part else () for split, part in parts.items()}
    if parts.get("test") is None:
        train, validation = (learning.train, learning.validation) if learning else ((), ())
        loaded = {"train": train, "validation": validation, "test": load_queries(path)}
    unmeasured = tuple(found for queries in loaded.values() for found in _unmeasured(queries))
    measured = {split: [query for query in queries if QUERY.match(query.sql)] for split, queries in loaded.items()}
    if not measured["test"]:
        named = ", ".join(f"{one.id} ({one.reason})" for one in unmeasured[:2])
        raise WorkloadError(f"{path}: there is no query to measure in it, only {named}; write at least one SELECT")
    return Workload(dataset=dataset, unmeasured=unmeasured).with_splits(measured)


def _of_split(path: Path, split: Split) -> Sequence[Query]:
    """Read the queries of a split; those without an id of their own are numbered q001 for test, and train001 and validation001."""
    queries = load_queries(path)
    if split == "test" or path.is_dir():
        return queries
    return [replace(query, id=re.sub(r"^q(?=\d+$)", split, query.id)) for query in queries]


def find_workload(folder: Path, dataset: str) -> Workload | None:
    """Return the workload of a data folder: `test.sql` or `test/` (with `train` and `validation`), or `queries/`; None if there is none."""
    queries = folder / "queries"
    if _part(folder, "test") is not None:
        return load_workload_files(folder, dataset, None)
    return load_workload_files(queries, dataset, None) if queries.is_dir() else None


def named_workload(folder: Path, name: str) -> Path:
    """Return the path of one workload in a folder of several; raise `UnknownName`, which lists them."""
    if not folder.is_dir():
        raise WorkloadError(f"{folder}: no folder, so it holds no workload {name!r}; leave --workload out to read the file")
    known = {
        path.stem: path for path in sorted(folder.iterdir()) if path.suffix == ".sql" or (path.is_dir() and any(path.glob("**/*.sql")))
    }
    if name not in known:
        raise UnknownName("workload", name, known)
    return known[name]


def _unmeasured(queries: Sequence[Query]) -> Iterable[Unmeasured]:
    for query in queries:
        if not QUERY.match(query.sql):
            word = query.sql.split(None, 1)[0]
            reason = f"{word} is a command of psql" if word.startswith("\\") else f"{word.upper()} where a query begins"
            yield Unmeasured(id=query.id, sql=query.sql, reason=reason)


def _part(folder: Path, split: str) -> Path | None:
    return next((part for part in (folder / f"{split}.sql", folder / split) if part.exists()), None)


def _from_folder(path: Path) -> list[_Found]:
    files = sorted(path.rglob("*.sql"), key=lambda file: (_by_value(file.stem), _by_value(str(file.relative_to(path).parent))))
    if not files:
        raise WorkloadError(f"{path}: no .sql file in this folder; put one query into each, or give a file")
    alike = Counter(file.stem for file in files)
    found = []
    for file in files:
        found += _from_member(file, _id_in(path, file, alike))
    return found


def _from_member(file: Path, id: str) -> list[_Found]:
    """Return the query of a file of a folder, under this id, and its commands and other statements, under the id and their line."""
    text, commands = _without_commands(file, _text(file))
    lines = _written_lines(text)
    form = _form_of(lines[0][1]) if lines else None
    if form is not None and all(_LINES[form].match(line) for _, line in lines):
        statements = [_on_line(file, number, line, form) for number, line in lines]
    else:
        statements = _split(file, text)
    if not statements and not commands:
        raise _error(file, 1, "no statement found; a file of a folder holds exactly one")
    queries = [one for one in statements if QUERY.match(one.sql)]
    if len(queries) > 1:
        problem = f"{len(queries)} statements found; a file of a folder holds exactly one, so name this file to have all of them"
        raise _error(file, queries[1].line, problem)
    beside = [one for one in statements if one not in queries] if queries else []
    beside = sorted([*beside, *commands], key=lambda one: one.line)
    return [*(replace(one, id=id) for one in queries or statements[:1]), *(replace(one, id=f"{id}-line{one.line}") for one in beside)]


def _id_in(folder: Path, file: Path, alike: Mapping[str, int]) -> str:
    """Return the name of a file without `.sql`, after its folders if several files have that name."""
    return file.relative_to(folder).with_suffix("").as_posix().replace("/", "-") if alike[file.stem] > 1 else file.stem


def _by_value(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts names with their numbers by value."""
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _from_file(path: Path) -> list[_Found]:
    text, commands = _without_commands(path, _text(path))
    lines = _written_lines(text)
    form = _form_of(lines[0][1]) if lines else None
    if form is not None:
        found = [_on_line(path, number, line, form) for number, line in lines]
        return [*(found if "id" in _LINES[form].groupindex else _numbered(found)), *commands]
    found = _split(path, text)
    begin = all(QUERY.match(line.lstrip()) for _, line in lines)
    if len(found) == 1 and len(lines) > 1 and begin and not any(_GOES_ON.search(line) for _, line in lines[:-1]):
        found = [_Found(path=path, line=number, id="", sql=line.strip()) for number, line in lines]
    if not found and not commands:
        raise _error(path, 1, "no statement found; write at least one query")
    return [*_numbered(found), *commands]


def _written_lines(text: str) -> list[tuple[int, str]]:
    """Return the lines that are neither empty nor comments, with their numbers."""
    lines = enumerate(text.split("\n"), 1)
    return [(number, line) for number, line in lines if line.strip() and not line.lstrip().startswith("--")]


def _without_commands(path: Path, text: str) -> tuple[str, list[_Found]]:
    r"""Take the commands of psql out of a text, each to the end of its line, also those that touch a statement: `SELECT 1\gx`."""
    commands, start = [], 0
    while (begin := command_of_psql(text, start)) is not None:
        end = begin + len(text[begin:].partition("\n")[0])
        if (written := _ESCAPED.match(text, begin)) is not None:
            replaced, end = written[1], written.end()
        else:
            line = line_of(text, begin)
            commands.append(_Found(path=path, line=line, id=f"line{line}", sql=text[begin:end].strip()))
            replaced = ";" if _SENDS.match(text, begin) else ""
        text = f"{text[:begin]}{replaced}{text[end:]}"
        start = begin + len(replaced)
    return text, commands


def _numbered(found: Sequence[_Found]) -> list[_Found]:
    digits = max(3, len(str(len(found))))
    return [_Found(path=one.path, line=one.line, id=f"q{number:0{digits}}", sql=one.sql) for number, one in enumerate(found, 1)]


def _form_of(line: str) -> str | None:
    """Return the key of the pattern in `_LINES` that a line matches."""
    return next((form for form, pattern in _LINES.items() if pattern.match(line)), None)


def _on_line(path: Path, number: int, line: str, form: str) -> _Found:
    match = _LINES[form].match(line)
    if match is None:
        raise _error(path, number, f"this is not {form}, as in the lines above; write it like them")
    try:
        sql = match["sql"] if "sql" in match.groupdict() else _of_csv(**match.groupdict())
    except ValueError as error:
        raise _error(path, number, str(error)) from error
    statements = _split(path, sql, number)
    if len(statements) != 1:
        raise _error(path, number, f"{len(statements)} statements found; write one on each line")
    return _Found(path=path, line=number, id=match.groupdict().get("id", ""), sql=statements[0].sql)


def _of_csv(tables: str, joins: str, predicates: str) -> str:
    """Return the query of a line of MSCN's CSV; predicates are `column,operator,value,...`, a value maybe in quotes."""
    parts = [part.strip() for part in _OUTSIDE_QUOTES.split(predicates)] if predicates.strip() else []
    if len(parts) % 3:
        raise ValueError(f"a predicate has three parts, found {len(parts)}; write column,operator,value for each")
    filters = [" ".join(parts[start : start + 3]) for start in range(0, len(parts), 3)]
    conditions = [*(join.strip() for join in joins.split(",") if join.strip()), *filters]
    return f"SELECT COUNT(*) FROM {tables}{' WHERE ' if conditions else ''}{' AND '.join(conditions)}"  # noqa: S608  # the user's own


def _split(path: Path, text: str, first_line: int = 1) -> list[_Found]:
    try:
        found = split_statements(text)
    except NeverEnds as error:
        raise _error(path, first_line + error.line - 1, f"{error}; close it") from error
    return [
        _Found(path=path, line=first_line + one.line - 1, id="", sql=one.sql) for statement in found for one in _without_rows(statement)
    ]


def _without_rows(statement: Statement) -> list[Statement]:
    """Return a statement without the number of rows that it begins with; nothing if that is all of it."""
    rows = _ROWS.match(statement.sql)
    if rows is None:
        return [statement]
    before = statement.line - 1 + rows.group().count("\n")
    return [replace(one, line=before + one.line) for one in split_statements(statement.sql[rows.end() :])]


def _text(path: Path) -> str:
    try:
        return read_given(path).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _error(path, line, f"byte {error.object[error.start]:#04x} is not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be read ({error.strerror}); give a file or a folder of .sql files") from error


def _error(path: Path, line: int, problem: str) -> WorkloadError:
    return WorkloadError(f"{path}:{line}: {problem}")

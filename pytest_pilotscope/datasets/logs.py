"""
Workloads from a server's log in csvlog or jsonlog format, or from a CSV export of pg_stat_statements.

Only queries are taken, with the constants they ran with. pg_stat_statements drops the constants, so its statements cannot be run; they
are reported, and no constant is guessed.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_pilotscope.errors import WorkloadError
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.queries.statements import QUERY
from pytest_pilotscope.queries.templates import normalized, template_of

CSV_MESSAGE, CSV_DETAIL, CSV_DATABASE, CSV_COLUMNS = 13, 14, 2, (23, 24, 25, 26)
"""Positions of message, detail and database in a csvlog, and its numbers of columns (runtime-config-logging in PostgreSQL's manual)."""

_STATEMENT = re.compile(r"(?:duration: [\d.]+ ms  )?(?:statement|execute [^:]*): (?P<sql>.+)", re.DOTALL)
_PARAMETER = re.compile(r"\$(\d+) = (NULL|'(?:[^']|'')*')")
_PLACEHOLDER = re.compile(r"('(?:[^']|'')*')|\$(\d+)")
_OWN = re.compile(
    r"\bpg_catalog\.|\binformation_schema\.|\bpg_(class|stat|type|settings|database|namespace|attribute|advisory)\w*"
    r"|\b(set_config|current_setting)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """
    The result of reading a log: the `workload`, all in its test split, with one query for each statement text.

    `read` is the number of logged statements, `templates` maps each template to its number of executions, `left_out` maps each reason for
    leaving statements out to their number.
    """

    workload: Workload
    read: int
    templates: Counter[str]
    left_out: Counter[str]


def extract(path: Path, *, database: str | None = None, per_template: int = 20) -> Extracted:
    """
    Read a log; keep the statements of one `database`, and at most `per_template` different queries of a template.

    Raise `WorkloadError`, with file and line, for a file that is no such log, and if the log has no query.
    """
    left_out: Counter[str] = Counter()
    templates: Counter[str] = Counter()
    kept: dict[str, str] = {}
    of_template: Counter[str] = Counter()
    read = 0
    for sql in _statements(path, database):
        read += 1
        reason = _unusable(sql)
        if reason is not None:
            left_out[reason] += 1
            continue
        text, template = normalized(sql), template_of(sql)
        templates[template] += 1
        if text in kept:
            left_out["the same query again"] += 1
        elif of_template[template] >= per_template:
            left_out[f"more than {per_template} of one template"] += 1
        else:
            kept[text] = sql.strip().rstrip(";")
            of_template[template] += 1
    if not kept:
        none = f"none of database {database!r}: is it called so?" if database else "it holds no statements: log_statement was off?"
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common()) or none
        raise WorkloadError(f"{path}: no query to run in {read} logged statements ({why})")
    digits = max(3, len(str(len(kept))))
    queries = tuple(Query(id=f"q{number:0{digits}}", sql=sql) for number, sql in enumerate(kept.values(), 1))
    return Extracted(workload=Workload(dataset=path.stem, test=queries), read=read, templates=templates, left_out=left_out)


def _unusable(sql: str) -> str | None:
    if not QUERY.match(sql.lstrip()):
        return "no queries"
    if _PLACEHOLDER.sub(lambda match: "$" if match[2] else "", sql).count("$"):
        return "without the constants that they ran with"
    return "about the server itself" if _OWN.search(sql) else None


def _statements(path: Path, database: str | None) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", errors="strict", newline="") as file:
            first = file.read(1)
            file.seek(0)
            yield from _json_log(path, file, database) if first == "{" else _csv_log(path, file, database)
    except UnicodeDecodeError as error:
        raise WorkloadError(f"{path}: byte {error.object[error.start]:#04x} is not UTF-8; convert the file") from error
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be read ({error.strerror})") from error


def _json_log(path: Path, lines: Iterable[str], database: str | None) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            message, detail, name = entry.get("message", ""), entry.get("detail", ""), entry.get("dbname")
        except (ValueError, AttributeError, RecursionError) as error:
            raise WorkloadError(f"{path}:{number}: no line of a jsonlog; give the file that log_destination = 'jsonlog' writes") from error
        if database in (None, name):
            yield from _logged(message, detail)


def _csv_log(path: Path, lines: Iterable[str], database: str | None) -> Iterator[str]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(lines)
    header: list[str] | None = None
    for row in reader:
        if header is None and "query" in row:  # an export of pg_stat_statements
            header = row
        elif header is not None:
            if database is None or "datname" not in header or row[header.index("datname")] == database:
                yield row[header.index("query")]
        elif len(row) not in CSV_COLUMNS:
            raise WorkloadError(
                f"{path}:{reader.line_num}: {len(row)} columns; a csvlog has {CSV_COLUMNS[0]} to {CSV_COLUMNS[-1]}, and an export of "
                "pg_stat_statements begins with the names of its columns, query among them"
            )
        elif database in (None, row[CSV_DATABASE]):
            yield from _logged(row[CSV_MESSAGE], row[CSV_DETAIL])


def _logged(message: str, detail: str) -> Iterator[str]:
    """Yield the statement of a log entry; the parameters of a prepared statement replace its placeholders."""
    found = _STATEMENT.fullmatch(message)
    if found is None:
        return
    values = dict(_PARAMETER.findall(detail))
    yield _PLACEHOLDER.sub(lambda match: match[1] or values.get(match[2], match[0]), found["sql"])

"""
The record of a run: a JSON Lines file that every other output is made from.

Each line is an object with a `kind`; the first is the header, which carries the `format`. Lines are flushed one by one, so a killed process
loses at most the line it was writing. A record without an end is one of an interrupted run.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from pytest_pilotscope.errors import RecordError
from pytest_pilotscope.record.format1 import with_tree
from pytest_pilotscope.record.plain import from_plain, to_line
from pytest_pilotscope.record.results import QueryDecision, QueryReport, QueryRun, RunEnd, RunHeader, Status, TrainingReport

FORMAT = 2
"""The version of the format that is written. It changes whenever a field is added, renamed or removed."""

READABLE = (1, FORMAT)
"""The formats that are read. In format 1 (0.1.0) a plan is text."""

Entry = QueryRun | QueryReport | QueryDecision | TrainingReport | RunEnd
"""What may follow the header."""

ENTRIES: Mapping[str, type[Entry]] = {
    "query_run": QueryRun,
    "query_report": QueryReport,
    "query_decision": QueryDecision,
    "training": TrainingReport,
    "end": RunEnd,
}
"""The entries by the `kind` of their lines."""

_KIND_OF = {cls: kind for kind, cls in ENTRIES.items()}

E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """
    Everything read back from one file, in the order of writing.

    `truncated` says that the last line was cut off and left out. `ignored` counts the lines of unknown kinds.
    """

    header: RunHeader
    runs: tuple[QueryRun, ...] = ()
    reports: tuple[QueryReport, ...] = ()
    decisions: tuple[QueryDecision, ...] = ()
    training: tuple[TrainingReport, ...] = ()
    end: RunEnd | None = None
    truncated: bool = False
    ignored: Mapping[str, int] = field(default_factory=dict)

    @property
    def status(self) -> Status | Literal["INTERRUPTED"]:
        """How the run ended; INTERRUPTED when its record has no end."""
        return self.end.status if self.end else "INTERRUPTED"

    def measured(self, side: str) -> tuple[QueryRun, ...]:
        """The runs of one side without its warm-ups."""
        return tuple(run for run in self.runs if run.side == side and not run.warm_up)

    def joins(self) -> dict[str, int]:
        """The number of joins of each query whose true cardinalities are known."""
        return {report.query_id: max(one.joins for one in report.estimates) for report in self.reports if report.estimates}

    def query_ids(self) -> tuple[str, ...]:
        """The queries that were to be measured, then any others that were, each once."""
        return tuple(dict.fromkeys([*self.header.queries, *(run.query_id for run in self.runs)]))


class RecordWriter:
    """
    Writes one record; a context manager.

    Every line is flushed to the operating system, so it survives the death of this process. Only the header and the end are synced to the
    disk: syncing every line would keep it busy in the middle of a measurement, and a power cut voids a measurement anyway. The file is
    locked (flock) while it is written, so that others can tell a run that is going on from one that was killed.

    Raises RecordError if the file exists, OSError if it cannot be written, ValueError for a NaN, for an entry of a side that the header
    does not name, and for an entry after the end. A refused entry leaves no trace in the file.
    """

    def __init__(self, path: Path, header: RunHeader) -> None:
        self.path = path
        self.header = header
        self._ended = False
        line = to_line("header", header, format=FORMAT)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = path.open("x", encoding="utf-8", errors="backslashreplace", newline="\n")
        except FileExistsError:
            raise RecordError(f"{path}: there is a record of this name already; move it away or wait a second for another name") from None
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._put(line, sync=True)

    def write(self, entry: Entry) -> None:
        """Append one entry."""
        if self._ended:
            raise ValueError(f"{self.path}: the record has its end, nothing can follow")
        _check_side(entry, self.header)
        line = to_line(_KIND_OF[type(entry)], entry)
        self._ended = isinstance(entry, RunEnd)
        self._put(line, sync=self._ended)

    def close(self) -> None:
        """Close the file; a record that was not ended counts as interrupted."""
        self._file.close()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _put(self, line: str, *, sync: bool) -> None:
        self._file.write(line + "\n")
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())


def read_record(path: Path) -> Record:
    """
    Read a record back.

    A last line that was cut off is left out and reported in `truncated`, lines of unknown kinds are counted in `ignored`.

    Raises RecordError, whose message starts with `file:line`, for anything else that does not belong there, and OSError.
    """
    return record_of_lines(path.read_bytes().split(b"\n"), path)


def record_of_lines(lines: Sequence[bytes], origin: Path) -> Record:
    """
    Read a record from its lines, the last of which is what follows the last line end; `origin` is the file in the messages.

    Raises RecordError as `read_record` does.
    """
    reader = _Reader(origin)
    complete, rest = lines[:-1], lines[-1]
    for line in complete:
        reader.take(line)
    if rest:
        reader.take(rest, last=True)
    return reader.record()


def _check_side(entry: Entry, header: RunHeader) -> None:
    if not isinstance(entry, RunEnd) and entry.side not in header.sides:
        raise ValueError(f"side {entry.side!r} is not one of the record's sides {list(header.sides)}")


class _Reader:
    """Takes lines one by one and knows where it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0
        self._format = FORMAT
        self._header: RunHeader | None = None
        self._entries: list[Entry] = []
        self._ignored: Counter[str] = Counter()
        self._truncated = False

    def take(self, line: bytes, *, last: bool = False) -> None:
        """Read one line; one that is cut off is accepted in the `last` place only, and never as the header."""
        self._number += 1
        try:
            plain = json.loads(line)
        except ValueError as error:  # JSON and UTF-8 errors alike
            if last and self._header is not None:
                self._truncated = True
                return
            raise self._error(f"not a line of JSON ({error})") from None
        if not isinstance(plain, dict) or not isinstance(plain.get("kind"), str):
            raise self._error("a line must be an object with a 'kind'")
        try:
            self._accept(plain.pop("kind"), plain)
        except ValueError as error:
            raise self._error(str(error)) from None

    def record(self) -> Record:
        """What was read."""
        if self._header is None:
            raise RecordError(f"{self._path}:1: the record is empty; the run died before it wrote its header")
        return Record(
            header=self._header,
            runs=tuple(_only(QueryRun, self._entries)),
            reports=tuple(_only(QueryReport, self._entries)),
            decisions=tuple(_only(QueryDecision, self._entries)),
            training=tuple(_only(TrainingReport, self._entries)),
            end=next(_only(RunEnd, self._entries), None),
            truncated=self._truncated,
            ignored=dict(self._ignored),
        )

    def _accept(self, kind: str, plain: dict[str, Any]) -> None:
        if self._header is None:
            self._format = _format(kind, plain)
            self._header = from_plain(RunHeader, plain)
        elif kind == "header":
            raise ValueError("a second header; a file holds one record")
        elif kind not in ENTRIES:
            self._ignored[kind] += 1
        elif self._entries and isinstance(self._entries[-1], RunEnd):
            raise ValueError(f"a {kind} after the end of the record")
        else:
            entry = from_plain(ENTRIES[kind], with_tree(plain) if self._format == 1 else plain)
            _check_side(entry, self._header)
            self._entries.append(entry)

    def _error(self, what: str) -> RecordError:
        return RecordError(f"{self._path}:{self._number}: {what}")


def _format(kind: str, plain: dict[str, Any]) -> int:
    """Take the format out of a header; ValueError for another line, and for a format that cannot be read."""
    if kind != "header":
        raise ValueError(f"a record starts with its header, found a {kind}")
    version = plain.pop("format", None)
    if version not in READABLE:
        raise ValueError(
            f"format {version}, but this version of pytest-pilotscope reads the formats {', '.join(map(str, READABLE))}; "
            "read it with the version that wrote it"
        )
    return int(version)


def _only(cls: type[E], entries: Iterable[Entry]) -> Iterator[E]:
    return (entry for entry in entries if isinstance(entry, cls))

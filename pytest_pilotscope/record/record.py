"""
The record of a run: a JSON Lines file from which every other output is made.

Each line is an object with a `kind`. The first line is the header, which has the `format`. The writer flushes each line, so a killed
process loses at most the line that it was writing. A record without an end belongs to an interrupted run.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from pytest_pilotscope.errors import RecordError, RecordExists
from pytest_pilotscope.places.givenfiles import read_given
from pytest_pilotscope.places.privatefiles import open_private, private_folder
from pytest_pilotscope.record.format1 import with_tree
from pytest_pilotscope.record.json_values import from_json, to_line
from pytest_pilotscope.record.results import (
    Preparation,
    QueryDecision,
    QueryReport,
    QueryRun,
    RunEnd,
    RunHeader,
    Status,
    StreamStep,
    TimeSlice,
    TrainingReport,
    WriteRun,
)

FORMAT = 3
"""The format that the writer writes. It changes whenever a field is added, renamed or removed."""

READABLE = (1, 2, FORMAT)
"""The formats that the reader reads. In format 1 (0.1.0) a plan is text; format 2 (0.2.0) lacks fields that have defaults."""

Entry = QueryRun | TimeSlice | WriteRun | QueryReport | QueryDecision | StreamStep | TrainingReport | Preparation | RunEnd
"""A line after the header."""

ENTRIES: Mapping[str, type[Entry]] = {
    "query_run": QueryRun,
    "time_slice": TimeSlice,
    "write_run": WriteRun,
    "query_report": QueryReport,
    "query_decision": QueryDecision,
    "stream_step": StreamStep,
    "training": TrainingReport,
    "preparation": Preparation,
    "end": RunEnd,
}
"""The entries by the `kind` of their lines."""

_KIND_OF = {cls: kind for kind, cls in ENTRIES.items()}

E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """
    The contents of one file, in the order of writing.

    `truncated` is set if the last line was cut off and left out. `ignored` counts the lines of unknown kinds.
    """

    header: RunHeader
    runs: tuple[QueryRun, ...] = ()
    slices: tuple[TimeSlice, ...] = ()
    writes: tuple[WriteRun, ...] = ()
    reports: tuple[QueryReport, ...] = ()
    decisions: tuple[QueryDecision, ...] = ()
    steps: tuple[StreamStep, ...] = ()
    training: tuple[TrainingReport, ...] = ()
    preparations: tuple[Preparation, ...] = ()
    end: RunEnd | None = None
    truncated: bool = False
    ignored: Mapping[str, int] = field(default_factory=dict)

    @property
    def status(self) -> Status | Literal["INTERRUPTED"]:
        """The status at the end of the run; INTERRUPTED if its record has no end."""
        return self.end.status if self.end else "INTERRUPTED"

    def measured(self, side: str) -> tuple[QueryRun, ...]:
        """Return the runs of one side without its warm-ups."""
        return tuple(run for run in self.runs if run.side == side and not run.warm_up)

    def joins(self) -> dict[str, int]:
        """Return the number of joins of each query whose true cardinalities are known."""
        return {report.query_id: max(one.joins for one in report.estimates) for report in self.reports if report.estimates}

    def query_ids(self) -> tuple[str, ...]:
        """Return the planned queries, then any others that were measured, each once."""
        return tuple(dict.fromkeys([*self.header.queries, *(run.query_id for run in self.runs)]))


class RecordWriter:
    """
    An open record file; a context manager.

    The writer flushes every line to the operating system, so lines survive if this process dies. It syncs only the header and the end to
    the disk: syncing every line would keep the disk busy during a measurement, and a power cut voids a measurement anyway. It locks the
    file (flock), so that others can tell a run that is going on from one that was killed.

    Raises RecordExists if the file exists, RecordError if it cannot be written to, OSError if it cannot be made, and ValueError for a NaN,
    for an entry of a side that the header does not name, and for an entry after the end. Nothing of a rejected entry is written.
    """

    def __init__(self, path: Path, header: RunHeader) -> None:
        self.path = path
        self.header = header
        self._ended = False
        line = to_line("header", header, format=FORMAT)
        private_folder(path.parent)
        try:
            self._file = open_private(path, "x", encoding="utf-8", errors="backslashreplace", newline="\n")
        except FileExistsError:
            raise RecordExists(f"{path}: the record exists already; move it away, or wait a second to get another name") from None
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._put(line, sync=True)

    def write(self, entry: Entry) -> None:
        """Append one entry."""
        if self._ended:
            raise ValueError(f"{self.path}: the record has ended; no entry can follow")
        _check_side(entry, self.header)
        line = to_line(_KIND_OF[type(entry)], entry)
        self._ended = isinstance(entry, RunEnd)
        self._put(line, sync=self._ended)

    def close(self) -> None:
        """Close the file; without an end the record counts as interrupted."""
        with suppress(OSError):  # a full disk again: the error was raised when the line was written
            self._file.close()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _put(self, line: str, *, sync: bool) -> None:
        try:
            self._file.write(line + "\n")
            self._file.flush()
            if sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise RecordError(
                f"{self.path}: the record cannot be written: {error.strerror}; the lines before are whole; make room, or name another "
                "folder with --results, and measure again"
            ) from error


def read_record(path: Path) -> Record:
    """
    Return the record in a file.

    Leave out a last line that was cut off, and set `truncated`. Count lines of unknown kinds in `ignored`.

    Raise RecordError, whose message starts with `file:line`, for any other wrong line, and OSError.
    """
    return record_of_lines(read_given(path).split(b"\n"), path)


def record_of_lines(lines: Sequence[bytes], origin: Path) -> Record:
    """
    Return the record in these lines; the last one is the text after the last line end, and messages name the file `origin`.

    Raise RecordError as `read_record` does.
    """
    reader = _Reader(origin)
    complete, rest = lines[:-1], lines[-1]
    with nothing_collected():
        for line in complete:
            reader.take(line)
        if rest:
            reader.take(rest, last=True)
        return reader.record()


@contextmanager
def nothing_collected() -> Iterator[None]:
    """
    Make no search for garbage within the block: a record has hundreds of thousands of values, all in use, and each search visits all.

    Searches among young values that follow do not visit them either, because they are old at once.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # unless somebody else has frozen values
                gc.freeze()
                gc.unfreeze()  # into the oldest generation
            gc.enable()


def _check_side(entry: Entry, header: RunHeader) -> None:
    if not isinstance(entry, RunEnd) and entry.side not in header.sides:
        raise ValueError(f"side {entry.side!r} is not one of the record's sides {list(header.sides)}")


class _Reader:
    """The lines read so far, and the number of the current one for messages."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0
        self._format = FORMAT
        self._header: RunHeader | None = None
        self._entries: list[Entry] = []
        self._measured: set[tuple[str, str, int, int]] = set()
        self._ignored: Counter[str] = Counter()
        self._truncated = False

    def take(self, line: bytes, *, last: bool = False) -> None:
        """Read one line; accept a line that is cut off only if it is the `last`, and never as the header."""
        self._number += 1
        try:
            values = json.loads(line, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors alike
            if last and self._header is not None:
                self._truncated = True
                return
            raise self._error(f"not a line of JSON ({error})") from None
        if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
            raise self._error("a line must be an object with a 'kind'")
        try:
            self._accept(values.pop("kind"), values)
        except (ValueError, RecursionError) as error:
            raise self._error(str(error)) from None

    def record(self) -> Record:
        """Return the record; raise RecordError if there was no line."""
        if self._header is None:
            raise RecordError(f"{self._path}:1: the record is empty; the run died before it wrote its header")
        runs = self._entries_of(QueryRun)
        return Record(
            header=replace(self._header, rounds=_whole_rounds(self._header, runs)),
            runs=runs,
            slices=self._entries_of(TimeSlice),
            writes=self._entries_of(WriteRun),
            reports=self._entries_of(QueryReport),
            decisions=self._entries_of(QueryDecision),
            steps=self._entries_of(StreamStep),
            training=self._entries_of(TrainingReport),
            preparations=self._entries_of(Preparation),
            end=next(iter(self._entries_of(RunEnd)), None),
            truncated=self._truncated,
            ignored=dict(self._ignored),
        )

    def _entries_of(self, cls: type[E]) -> tuple[E, ...]:
        return tuple(entry for entry in self._entries if isinstance(entry, cls))

    def _accept(self, kind: str, values: dict[str, Any]) -> None:
        if self._header is None:
            self._format = _format(kind, values)
            self._header = from_json(RunHeader, values)
        elif kind == "header":
            raise ValueError("a second header; a file holds one record")
        elif kind not in ENTRIES:
            self._ignored[kind] += 1
        elif self._entries and isinstance(self._entries[-1], RunEnd):
            raise ValueError(f"a {kind} after the end of the record")
        else:
            entry = from_json(ENTRIES[kind], with_tree(values) if self._format == 1 else values)
            _check_side(entry, self._header)
            if isinstance(entry, QueryRun) and not entry.warm_up:
                self._check_new(entry)
            self._entries.append(entry)

    def _check_new(self, run: QueryRun) -> None:
        """Raise ValueError for a run that is there already: two times of one execution would be taken for a mean of clients."""
        key = (run.query_id, run.side, run.repetition, run.client)
        if key in self._measured:
            client = f" by client {run.client}" if run.client else ""
            raise ValueError(f"a second run of query {run.query_id!r} on side {run.side!r} in round {run.repetition}{client}")
        self._measured.add(key)

    def _error(self, problem: str) -> RecordError:
        return RecordError(f"{self._path}:{self._number}: {problem}")


def _no_number(constant: str) -> None:
    """Raise ValueError for what JSON has no number for: no comparison with a NaN holds, so nothing would ever be worse than one."""
    raise ValueError(f"{constant} is no number of JSON")


def _whole_rounds(header: RunHeader, runs: Sequence[QueryRun]) -> int:
    """Return the number of rounds of every query: those of the header, or the more that `--rounds auto` completed."""
    if header.parameters.get("rounds") != "auto":
        return header.rounds
    counts = Counter(run.query_id for run in runs if run.side == header.baseline_side and not run.warm_up)
    return min((count for count in counts.values() if count >= header.rounds), default=header.rounds)


def _format(kind: str, values: dict[str, Any]) -> int:
    """Take the format out of a header; raise ValueError for a line of another kind and for an unknown format."""
    if kind != "header":
        raise ValueError(f"a record starts with its header, found a {kind}")
    version = values.pop("format", None)
    if version not in READABLE:
        raise ValueError(
            f"format {version}, but this version of pytest-pilotscope reads the formats {', '.join(map(str, READABLE))}; "
            "read it with the version that wrote it"
        )
    return int(version)

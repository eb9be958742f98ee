"""The open records of one measurement: of one run, or of several runs that take turns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_pilotscope.record.projection import end_of
from pytest_pilotscope.record.record import Entry, RecordWriter
from pytest_pilotscope.record.results import RunEnd, RunHeader
from pytest_pilotscope.runs.header import open_record


@dataclass(frozen=True, slots=True)
class Records:
    """The writers of the records. Each gets the lines of its own sides, so those of a shared baseline are in all of them."""

    writers: tuple[RecordWriter, ...]

    @property
    def headers(self) -> tuple[RunHeader, ...]:
        """The headers, with the names that the files have."""
        return tuple(writer.header for writer in self.writers)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(writer.path for writer in self.writers)

    def header_of(self, side: str) -> RunHeader:
        """Return the header of the first record that has a side."""
        return next(header for header in self.headers if side in header.sides)

    def write(self, entry: Entry) -> None:
        """Append an entry to every record that has its side, and the end to all, without the failures of the other sides."""
        if isinstance(entry, RunEnd):
            for writer in self.writers:
                writer.write(end_of(entry, writer.header.sides))
            return
        having = [writer for writer in self.writers if entry.side in writer.header.sides]
        for writer in having or self.writers[:1]:  # it raises the error for a side that no record has
            writer.write(entry)


@contextmanager
def open_records(headers: Iterable[RunHeader], results: Path) -> Iterator[Records]:
    """Open a record for each header, and close them at the end."""
    with ExitStack() as stack:
        yield Records(tuple(stack.enter_context(open_record(header, results)) for header in headers))

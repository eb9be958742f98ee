"""Find the records for a report: in files, in the folder of results, or in the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from pytest_pilotscope.commands.output import show_json
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.places.secret import StoreUri
from pytest_pilotscope.record.record import Record

RECORD = ".jsonl"


def records_of(references: Sequence[str], *, results: Path, tracking_uri: str | StoreUri | None = None) -> tuple[Record, ...]:
    """
    Return the records of runs, each once.

    A reference is a file, the name of a record in `results`, a folder of records (the newest last), or a run of the store.

    Raise `UsageError` for any other reference and for an unreadable file, `TrackingError` for a store that does not answer.
    """
    found = [record for reference in references for record in _found(reference, results, tracking_uri)]
    return tuple({record.header.tags.get("record_id", record.header.run_name): record for record in found}.values())


def show_report(path: Path, records: Sequence[Record], *, as_json: bool) -> None:
    """Show the path of the page and its runs."""
    names = [record.header.run_name for record in records]
    if as_json:
        show_json({"report": path, "runs": names})
    else:
        click.echo(f"{path}: {', '.join(names)}")


def _found(reference: str, results: Path, tracking_uri: str | StoreUri | None) -> Iterator[Record]:
    path = Path(reference)
    named = results / f"{reference}{RECORD}"
    if path.suffix in (RECORD, ".json") or path.is_file():
        yield from _read(path)
    elif named.is_file():
        yield from _read(named)
    elif path.is_dir():
        yield from sorted(
            (record for file in sorted(path.glob(f"*{RECORD}")) for record in _read(file)), key=lambda found: found.header.started_at
        )
    else:
        from pytest_pilotscope.tracking.find import find_run
        from pytest_pilotscope.tracking.record_artifacts import record_of_run

        elsewhere = f"; it is no file, no folder and no record in {results} either"
        run = find_run(reference, tracking_uri=tracking_uri, elsewhere=elsewhere)
        yield record_of_run(run, tracking_uri=tracking_uri)


def _read(path: Path) -> Sequence[Record]:
    from pytest_pilotscope.gate.judging import read_references

    if not path.is_file():
        raise UsageError(f"{path}: there is no such file; name a record (.jsonl), a pytest-benchmark JSON, or a run of the store")
    return read_references(path)

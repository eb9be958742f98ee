"""Find the two runs that `pilotscope compare` compares: in the store, in two records, or the newest of two algorithms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pytest_pilotscope.commands.differences import FINGERPRINT, Result
from pytest_pilotscope.errors import RecordError, UnknownName, UsageError
from pytest_pilotscope.places.givenfiles import read_given
from pytest_pilotscope.places.secret import StoreUri
from pytest_pilotscope.record.projection import is_comparison, runs_of
from pytest_pilotscope.record.record import Record, read_record, record_of_lines
from pytest_pilotscope.statistics.summary import metrics, summarize

_STAMP = re.compile(r"_(\d{8}_\d{6})(?:_(\d+))?$")
"""The end of a run's name: its start, and a number if several runs started in the same second."""


class _Ended(NamedTuple):
    """A run that has ended, and the path of its record."""

    path: Path
    algorithm: str
    database: str


def two_results(
    references: Sequence[str],
    *,
    files: tuple[Path, Path] | None = None,
    latest: tuple[str, str] | None = None,
    database: str | None = None,
    results: Path = Path("results"),
    tracking_uri: str | StoreUri | None = None,
) -> tuple[Result, Result]:
    """
    Return two results: of two runs in the store, of two records, or of the newest runs of two algorithms.

    Raise `UsageError` unless exactly one of these is named, and if one of the two cannot be found.
    """
    if sum((bool(references), files is not None, latest is not None)) != 1 or len(references) not in (0, 2):
        raise UsageError("name two runs, or two records with --files A.jsonl B.jsonl, or two algorithms with --latest ALGO ALGO")
    if database is not None and latest is None:
        raise UsageError("--db chooses between records; it goes with --latest ALGO ALGO only")
    if files is not None:
        return _of_file(files[0]), _of_file(files[1])
    if latest is not None:
        return latest_pair(results, latest, database)
    from pytest_pilotscope.tracking.find import find_run

    first, second = (result_of_run(find_run(reference, tracking_uri=tracking_uri)) for reference in references)
    return first, second


def result_of_run(run: Mapping[str, Any]) -> Result:
    """Return the result of a run from `MLflowTracker.list_runs`."""
    tags = below(run, "tags.")
    return Result(
        reference=run["run_id"],
        name=run["run_name"],
        status=run["status"],
        metrics=below(run, "metrics."),
        parameters=below(run, "params."),
        fingerprints=below(tags, FINGERPRINT),
    )


def latest_pair(results: Path, algorithms: tuple[str, str], database: str | None) -> tuple[Result, Result]:
    """
    Return the newest run of each of two algorithms on one database; of a single algorithm its two newest, the older one first.

    Without `database`, both must have runs on exactly one common database. Raise `UsageError`, which lists the runs, if there is no pair.
    """
    found = list(_ended(results))
    if not found:
        raise UsageError(f"no records of ended runs in {results}; run a benchmark first, or name the folder with --results")
    for algorithm in algorithms:
        if algorithm not in {run.algorithm for run in found}:
            raise UnknownName(f"algorithm in {results}", algorithm, {run.algorithm for run in found})
    chosen = database if database is not None else _common_database(found, algorithms)
    of_each = [[run for run in found if (run.algorithm, run.database) == (algorithm, chosen)] for algorithm in algorithms]
    for algorithm, runs in zip(algorithms, of_each, strict=True):
        if not runs:
            raise UsageError(f"no record of {algorithm!r} on {chosen!r} in {results}; there are: {_listed(found)}")
    first, second = of_each
    if algorithms[0] == algorithms[1]:
        if len(first) == 1:
            raise UsageError(f"only one record of {algorithms[0]!r} on {chosen!r} in {results}: nothing to compare it with")
        first = first[:-1]
    return _of_ended(first[-1]), _of_ended(second[-1])


def names(results: Path) -> tuple[str, ...]:
    """Return the names of all runs with a record in a folder, the newest first."""
    records = [path.stem for path in results.glob("*.jsonl")]
    return tuple(sorted(records, key=_stamp, reverse=True))


def experiment_names(results: Path) -> tuple[str, ...]:
    """Return the experiments of the records in a folder: the names of the runs without their start."""
    return tuple(sorted({_STAMP.sub("", name) for name in names(results)}))


def _of_file(path: Path) -> Result:
    from pytest_pilotscope.gate.judging import read_references

    runs = [run for record in read_references(path) for run in runs_of(record)]
    if len(runs) != 1:
        raise UsageError(f"{path}: it holds {len(runs)} runs, and one is compared; `pilotscope report {path}` shows all of them")
    return _of_record(runs[0], path)


def _of_ended(run: _Ended) -> Result:
    (record,) = (one for one in runs_of(read_record(run.path)) if one.header.algorithm == run.algorithm)
    return _of_record(record, run.path)


def _of_record(record: Record, path: Path) -> Result:
    header = record.header
    return Result(
        reference=str(path),
        name=header.run_name,
        status=record.status,
        metrics=metrics(summarize(record), header.algorithm),
        parameters=header.parameters,
        fingerprints=header.fingerprints,
    )


def _ended(results: Path) -> Iterator[_Ended]:
    """Yield the ended runs in a folder, the oldest first; skip files that are no record."""
    for name in reversed(names(results)):
        path = results / f"{name}.jsonl"
        lines = read_given(path).splitlines()
        try:
            ends = record_of_lines([*lines[:1], *lines[1:][-1:], b""], path)
        except RecordError:
            continue
        if ends.end is not None:
            header = ends.header
            for algorithm in header.sides if is_comparison(header) else (header.algorithm,):
                yield _Ended(path, algorithm, header.dataset)


def _common_database(found: list[_Ended], algorithms: tuple[str, str]) -> str:
    databases = [{run.database for run in found if run.algorithm == algorithm} for algorithm in algorithms]
    common = sorted(databases[0] & databases[1])
    if len(common) == 1:
        return common[0]
    if common:
        raise UsageError(f"{algorithms[0]!r} and {algorithms[1]!r} were both run on {', '.join(common)}; choose one with --db")
    raise UsageError(f"{algorithms[0]!r} and {algorithms[1]!r} were never run on the same database; there are: {_listed(found)}")


def _listed(found: list[_Ended]) -> str:
    return ", ".join(sorted({f"{run.algorithm} on {run.database}" for run in found}))


def _stamp(name: str) -> tuple[str, int]:
    match = _STAMP.search(name)
    return (match[1], int(match[2] or 1)) if match else ("", 0)


def below(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the values whose names begin with a prefix, by the rest of their names."""
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}

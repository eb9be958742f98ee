"""The summaries beside the records: `results/<algo>_<db>_<YYYYmmdd_HHMMSS>.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_pilotscope.commands.comparison import Result
from pytest_pilotscope.errors import UnknownName, UsageError

_STAMP = re.compile(r"_(\d{8}_\d{6})(?:_(\d+))?$")
"""The end of a run's name: when it started, and a number when several started in the same second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One summary file; `stamp` orders those of an algorithm by time."""

    path: Path
    algorithm: str
    database: str
    stamp: tuple[str, int]
    result: Result


def read_summary(path: Path) -> Result:
    """Read a summary; `UsageError` that starts with the file when it is not one."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error}); a summary is the .json file beside a record") from error
    if not isinstance(content, dict) or not isinstance(content.get("metrics"), dict) or "algorithm" not in content:
        raise UsageError(f"{path}: not a summary: it has no 'algorithm' and 'metrics'; a summary is the .json file beside a record")
    return _result(path, content)


def latest_pair(results: Path, algorithms: tuple[str, str], database: str | None) -> tuple[Result, Result]:
    """
    The newest summary of each of two algorithms on one database; if both are the same algorithm, its two newest, the older one first.

    Without `database` it must be clear which one is meant. `UsageError` says what there is when there is no such pair.
    """
    found = sorted(_summaries(results), key=lambda summary: summary.stamp)
    if not found:
        raise UsageError(f"no summaries in {results}; run a benchmark first, or name the folder with --results")
    for algorithm in algorithms:
        if algorithm not in {summary.algorithm for summary in found}:
            raise UnknownName(f"algorithm in {results}", algorithm, {summary.algorithm for summary in found})
    chosen = database if database is not None else _common_database(found, algorithms)
    of_each = [[s for s in found if s.algorithm == algorithm and s.database == chosen] for algorithm in algorithms]
    for algorithm, summaries in zip(algorithms, of_each, strict=True):
        if not summaries:
            raise UsageError(f"no summary of {algorithm!r} on {chosen!r} in {results}; there are: {_listed(found)}")
    if algorithms[0] != algorithms[1]:
        return of_each[0][-1].result, of_each[1][-1].result
    if len(of_each[0]) == 1:
        raise UsageError(f"only one summary of {algorithms[0]!r} on {chosen!r} in {results}: nothing to compare it with")
    return of_each[0][-2].result, of_each[0][-1].result


def names(results: Path) -> tuple[str, ...]:
    """The names of all runs with a record in a folder, newest first."""
    records = [path.stem for path in results.glob("*.jsonl")]
    return tuple(sorted(records, key=_stamp, reverse=True))


def experiment_names(results: Path) -> tuple[str, ...]:
    """The experiments that the records in a folder belong to: their names without the moment."""
    return tuple(sorted({_STAMP.sub("", name) for name in names(results)}))


def _common_database(found: list[Summary], algorithms: tuple[str, str]) -> str:
    databases = [{summary.database for summary in found if summary.algorithm == algorithm} for algorithm in algorithms]
    common = sorted(databases[0] & databases[1])
    if len(common) == 1:
        return common[0]
    if common:
        raise UsageError(f"{algorithms[0]!r} and {algorithms[1]!r} were both run on {', '.join(common)}; choose one with --db")
    raise UsageError(f"{algorithms[0]!r} and {algorithms[1]!r} were never run on the same database; there are: {_listed(found)}")


def _listed(found: list[Summary]) -> str:
    return ", ".join(sorted({f"{summary.algorithm} on {summary.database}" for summary in found}))


def _summaries(results: Path) -> Iterator[Summary]:
    """Every summary of a folder; other JSON files that lie there are passed over."""
    for path in sorted(results.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and isinstance(content.get("metrics"), dict) and {"algorithm", "database"} <= content.keys():
            yield Summary(
                path=path,
                algorithm=str(content["algorithm"]),
                database=str(content["database"]),
                stamp=_stamp(path.stem),
                result=_result(path, content),
            )


def _stamp(name: str) -> tuple[str, int]:
    match = _STAMP.search(name)
    return (match[1], int(match[2] or 1)) if match else ("", 0)


def _result(path: Path, content: Mapping[str, Any]) -> Result:
    extra = content.get("extra_info")
    details: Mapping[str, Any] = extra if isinstance(extra, dict) else {}
    parameters, fingerprints = details.get("parameters"), details.get("fingerprints")
    return Result(
        reference=str(path),
        name=str(details.get("run_name") or path.stem),
        status=str(details["status"]) if "status" in details else None,
        metrics={name: float(value) for name, value in content["metrics"].items() if isinstance(value, (int, float))},
        parameters=parameters if isinstance(parameters, dict) else {},
        fingerprints=fingerprints if isinstance(fingerprints, dict) else {},
    )

"""
Files of calibrations, written by `--calibrate` and read by the gate.

A calibration belongs to a machine and a workload: the same queries on the same data, planned by the same build. The gate uses it for runs
with at least as many rounds.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.gate.simulation import QUERY_DELTAS, SESSIONS, Calibration, calibrate
from pytest_pilotscope.places.privatefiles import private_folder, write_private
from pytest_pilotscope.record.json_values import from_json, to_json
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import BASELINE_AGAIN
from pytest_pilotscope.statistics.intervals import workload_ratios
from pytest_pilotscope.statistics.pairs import pairs_of

KEY_PARTS = ("build", "data")
"""The fingerprints of the runs that share a calibration."""


def calibrate_with(record: Record, folder: Path, *, sessions: int = SESSIONS) -> tuple[str, ...]:
    """
    Simulate gates in `sessions` on the noise of an A/A run, write the calibration to `folder`, and describe it in lines.

    Raise `UsageError` for a run that does not permit a calibration.
    """
    try:
        found = calibrate(record, sessions=sessions, seed=record.header.seed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    path = calibration_path(record, folder)
    private_folder(path.parent)
    write_private(path, json.dumps(to_json(found, "calibration"), indent=2) + "\n")
    return _described(found, record, path)


def calibrated(record: Record, folder: Path) -> Calibration | None:
    """Return this machine's calibration for such a run, or None if there is none; raise `UsageError` for a broken file."""
    path = calibration_path(record, folder)
    if not path.is_file():
        return None
    try:
        content: Mapping[str, object] = json.loads(path.read_bytes())
        found = from_json(Calibration, content)
    except (ValueError, AttributeError, RecursionError, OSError) as error:
        raise UsageError(f"{path}: not a calibration ({error}); remove it, or run --calibrate again") from error
    return found if record.header.rounds >= found.rounds else None


def calibration_folder() -> Path:
    """Return the folder of this user's calibrations."""
    from pytest_pilotscope.places.folders import cache_subfolder

    return cache_subfolder("calibrations")


def calibration_path(record: Record, folder: Path) -> Path:
    """Return the file for this machine and such runs."""
    header = record.header
    belongs = [{part: header.fingerprints.get(part) for part in KEY_PARTS}, sorted(header.queries.items())]
    belongs += [dict(header.conditions)] if header.conditions else []
    key = hashlib.sha256(json.dumps(belongs, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{_file_name(platform.node())}-{_file_name(header.dataset)}-{key}.json"


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name) or "unnamed"


def _described(found: Calibration, record: Record, path: Path) -> tuple[str, ...]:
    query = f"{found.query_delta:.0%}" if found.query_delta is not None else f"more than {QUERY_DELTAS[-1]:.0%}"
    observed = workload_ratios(pairs_of(record, BASELINE_AGAIN), seed=record.header.seed).total
    return (
        f"calibration on {record.header.dataset}: {found.queries} queries, {found.rounds} rounds, {found.sessions} simulated gates",
        f"  PostgreSQL against itself: total {observed.estimate:.3f} ({observed.low:.3f} to {observed.high:.3f})",
        f"  smallest deltas with {found.false_alarms:.0%} false alarms: workload {found.delta:.1%}, single query {query}",
        f"  the gate allows {found.gate_delta:.1%} and {found.gate_query_delta:.0%} for these queries with {found.rounds} rounds or more",
        f"  with these limits, the gate catches a workload that is slower by {found.gate_detectable:.1%} in 19 of 20 runs",
        f"  written to {path}",
    )

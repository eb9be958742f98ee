"""
What difference this machine can see, kept where the gate finds it.

A calibration belongs to a machine and to a workload: the same queries on the same data, planned by the same build. It is used for runs with
at least as many rounds as it was made with.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.gate.decision import Policy
from pytest_pilotscope.gate.simulation import QUERY_DELTAS, SESSIONS, calibrate
from pytest_pilotscope.record.json_values import from_json, to_json
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.statistics.ratios import Interval

FLOOR = 0.01
"""The gate allows at least this much, however quiet the calibration was: one session does not show what differs between sessions."""

KEY_PARTS = ("build", "data")
"""The fingerprints that a calibration belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """
    What was found: the smallest deltas that trip in at most `false_alarms` of the simulated gates over unchanged programs.

    `query_delta` is None where no limit that was tried holds; `detectable` is the slow-down of the workload that is caught in 95 %.
    """

    run_name: str
    machine: str
    delta: float
    query_delta: float | None
    detectable: float
    false_alarms: float
    sessions: int
    queries: int
    rounds: int

    @property
    def gate_delta(self) -> float:
        """What the gate allows the workload."""
        return max(self.delta, FLOOR)

    @property
    def gate_detectable(self) -> float:
        """The slow-down of the workload that the gate catches in 95 %."""
        return (1 + self.detectable) * (1 + self.gate_delta) / (1 + self.delta) - 1

    @property
    def gate_query_delta(self) -> float:
        """What the gate allows a query: the default, or more where the machine is too noisy for it."""
        return max(QUERY_DELTAS[-1] if self.query_delta is None else self.query_delta, Policy().query_delta)


def calibrate_with(record: Record, folder: Path, *, sessions: int = SESSIONS) -> tuple[str, ...]:
    """
    Simulate gates in `sessions` on the noise of an A/A run, keep what was found in `folder`, and say it in lines.

    Raises `UsageError` for a run that cannot be calibrated with.
    """
    try:
        found = calibrate(record, sessions=sessions, seed=record.header.seed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    kept = Calibrated(
        run_name=record.header.run_name,
        machine=platform.node(),
        **{name: getattr(found, name) for name in ("delta", "query_delta", "detectable", "false_alarms", "sessions", "queries", "rounds")},
    )
    path = calibration_path(record, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(kept, "calibration"), indent=2) + "\n", encoding="utf-8")
    return _described(kept, found.observed.total, record.header.dataset, path)


def calibrated(record: Record, folder: Path) -> Calibrated | None:
    """The calibration of this machine for such a run, if there is one; `UsageError` for a file that is no calibration."""
    path = calibration_path(record, folder)
    if not path.is_file():
        return None
    try:
        content: Mapping[str, object] = json.loads(path.read_bytes())
        found = from_json(Calibrated, content)
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{path}: not a calibration ({error}); remove it, or run --calibrate again") from error
    return found if record.header.rounds >= found.rounds else None


def calibration_folder() -> Path:
    """Where this user's calibrations are kept."""
    from pytest_pilotscope.places.account import server_account
    from pytest_pilotscope.places.folders import cache_folder

    return cache_folder(server_account()) / "calibrations"


def calibration_path(record: Record, folder: Path) -> Path:
    """The file of this machine and such runs."""
    header = record.header
    belongs = [{part: header.fingerprints.get(part) for part in KEY_PARTS}, sorted(header.queries.items())]
    key = hashlib.sha256(json.dumps(belongs, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{_plain(platform.node())}-{_plain(header.dataset)}-{key}.json"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name) or "unnamed"


def _described(found: Calibrated, observed: Interval, dataset: str, path: Path) -> tuple[str, ...]:
    query = f"{found.query_delta:.0%}" if found.query_delta is not None else f"more than {QUERY_DELTAS[-1]:.0%}"
    return (
        f"calibration on {dataset}: {found.queries} queries, {found.rounds} rounds, {found.sessions} simulated gates",
        f"  PostgreSQL against itself: total {observed.estimate:.3f} ({observed.low:.3f} to {observed.high:.3f})",
        f"  smallest deltas with {found.false_alarms:.0%} false alarms: workload {found.delta:.1%}, single query {query}",
        f"  the gate allows {found.gate_delta:.1%} and {found.gate_query_delta:.0%} for these queries with {found.rounds} rounds or more",
        f"  with that, a workload that is slower by {found.gate_detectable:.1%} is caught 19 times in 20",
        f"  kept in {path}",
    )

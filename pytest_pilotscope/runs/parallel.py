"""The records of pytest-xdist's workers: each worker writes those of its own runs, and one process sends them all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pytest_pilotscope.errors import TrackingError
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.runs.bench import Conclusion


@dataclass(slots=True, kw_only=True)
class WorkerRecords:
    """
    The records that workers write, for the process that started them.

    Only this process writes to MLflow, so a killed worker leaves no half-finished run there: its incomplete record is sent as KILLED.
    """

    settings: Settings
    _before: frozenset[Path] = field(init=False)

    def __post_init__(self) -> None:
        self._before = frozenset(self._records())

    def conclude(self) -> Conclusion:
        """Send the new records."""
        made = sorted(self._records() - self._before)
        lines = [f"record: {path}" for path in made]
        if made and self.settings.mlflow:
            from pytest_pilotscope.tracking.sync import sync

            try:
                sent = list(sync(self.settings.results, tracking_uri=self.settings.tracking_uri, but=self._before))
                counts = Counter(one.status or one.state for one in sent)
                lines.append(f"MLflow: {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}")
                lines += [f"{one.path.name}: {one.reason}" for one in sent if one.reason]
            except TrackingError as error:
                lines.append(f"MLflow: not sent ({error}); the records are complete, `pilotscope sync` sends them later")
        return Conclusion(lines=tuple(lines))

    def _records(self) -> set[Path]:
        return set(self.settings.results.glob("*.jsonl"))

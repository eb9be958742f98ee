"""What is left to do where pytest-xdist's workers have trained: each wrote the records of its runs, and one process sends them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pytest_pilotscope.errors import TrackingError
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.runs.bench import Conclusion


@dataclass(slots=True, kw_only=True)
class Foreman:
    """
    The process that started the workers. Nothing else writes to MLflow, so a worker that is killed leaves nothing half done there.

    Its record, as far as it got, is sent as a KILLED run.
    """

    settings: Settings
    _before: frozenset[Path] = field(init=False)

    def __post_init__(self) -> None:
        self._before = frozenset(self._records())

    def conclude(self) -> Conclusion:
        """Send the records that are new."""
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

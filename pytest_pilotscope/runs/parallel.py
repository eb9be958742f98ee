"""The records of pytest-xdist's workers: each worker writes those of its own runs, and the process that started them sends them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from pytest_pilotscope.errors import TrackingError
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.runs.bench import Conclusion


def recorded(settings: Settings) -> frozenset[Path]:
    """Return the records in the folder of results."""
    return frozenset(settings.results.glob("*.jsonl"))


def send_new(settings: Settings, before: Collection[Path]) -> Conclusion:
    """
    Send the records that did not exist `before`.

    Only this process writes to MLflow, so a killed worker leaves no half-finished run there: its incomplete record is sent as KILLED.
    """
    made = sorted(recorded(settings).difference(before))
    lines = [f"record: {path}" for path in made]
    if made and settings.mlflow:
        from pytest_pilotscope.tracking.sync import sync

        try:
            sent = list(sync(settings.results, tracking_uri=settings.tracking_uri, but=before))
            counts = Counter(one.status or one.state for one in sent)
            lines.append(f"MLflow: {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}")
            lines += [f"{one.path.name}: {one.reason}" for one in sent if one.reason]
        except TrackingError as error:
            lines.append(f"MLflow: not sent ({error}); the records are complete, `pilotscope sync` sends them later")
    return Conclusion(lines=tuple(lines))

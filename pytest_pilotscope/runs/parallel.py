"""The records of pytest-xdist's workers: each worker writes those of its own runs, and the process that started them sends them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from pytest_pilotscope.errors import reason_of
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.postgres.signals import held
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
    interrupted = False
    if made and settings.mlflow:
        from pytest_pilotscope.tracking.sync import Sent, sync

        sent: list[Sent] = []
        try:
            with held():
                sent += sync(settings.results, tracking_uri=settings.tracking_uri, but=before)
        except KeyboardInterrupt:
            interrupted = True
        except Exception as error:
            lines.append(f"MLflow: not sent ({reason_of(error)}); the records are complete, `pilotscope sync` sends them later")
        counts = Counter(one.status or one.state for one in sent)
        lines += [f"MLflow: {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}"] if sent else []
        lines += [f"{one.path.name}: {one.reason}" for one in sent if one.reason]
    return Conclusion(lines=tuple(lines), interrupted=interrupted)

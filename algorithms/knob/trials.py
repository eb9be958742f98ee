"""The trials of a search, and the file they are written to one by one, so that a search that was killed goes on where it was."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pytest_pilotscope.algorithms.knob.space import Values
from pytest_pilotscope.postgres.knobs import Level

Status = Literal["ok", "capped", "failed"]

logger = logging.getLogger(__name__)


class Proposal(NamedTuple):
    """Settings to try, and the point of the searched space that they are; the point is what JSON can hold."""

    values: Values
    point: dict[str, str | int | float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """
    One setting that was tried.

    `cost` (s) is what the search was told: measured where the status is ok, extrapolated for a trial that was cut off, a bounded penalty
    for one that failed, with the reason in `message`. `applied` is what it took to put the settings in force, `apply_s` how long that took,
    `search_s` how long the search thought, `elapsed_s` all of it. `point` is where the settings are in the searched space.
    """

    number: int
    values: Values
    status: Status
    cost: float
    applied: Level | None
    apply_s: float
    search_s: float
    elapsed_s: float
    point: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The cheapest one that ran to its end, the first one where there are several or none."""
    return min((trial for trial in trials if trial.status == "ok"), key=lambda trial: (trial.cost, trial.number), default=trials[0])


class TrialLog:
    """A JSON Lines file: first what the search is about, then what its trials have in common, then a line per trial, flushed."""

    def __init__(self, path: Path, common: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        self.path = path
        self.common = common
        self.trials = list(trials)

    def begin(self, key: str, common: Mapping[str, Any]) -> None:
        """Start a new file."""
        self.common = common
        self.path.write_text(json.dumps({"key": key, "common": dict(common)}) + "\n")

    def append(self, trial: Trial) -> None:
        """Write one trial; it is on disk when this returns."""
        self.trials.append(trial)
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(trial)) + "\n")


def search_key(about: Mapping[str, Any]) -> str:
    """A name for everything that makes two searches different."""
    return hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def open_log(folder: Path, key: str) -> Iterator[TrialLog]:
    """
    The log of an unfinished search of this key, or a new one; the file is kept until somebody moves or deletes it.

    A file that another process is writing to is left to it, and so is one that cannot be read: then the log is a new file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        path = folder / f"knob_{key}{f'_{number}' if number else ''}.jsonl"
        with path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                number += 1
                continue
            try:
                yield _read(path, key)
            finally:
                path.with_suffix(".lock").unlink(missing_ok=True)
            return


def _read(path: Path, key: str) -> TrialLog:
    if not path.exists():
        return TrialLog(path, {}, [])
    lines = path.read_text().splitlines()
    try:
        head = json.loads(lines[0])
        if head["key"] != key:
            raise ValueError("it belongs to another search")
        contents = [content for content in map(_line, lines[1:]) if content is not None]
        trials = [Trial(**content) for content in contents]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        logger.warning("%s cannot be read (%s: %s); the search starts anew", path, type(error).__name__, error)
        return TrialLog(path, {}, [])
    path.write_text("".join(f"{json.dumps(content)}\n" for content in (head, *contents)))  # without a line that was cut off
    logger.info("%d trials of an earlier run are taken from %s", len(trials), path)
    return TrialLog(path, head["common"], trials)


def _line(text: str) -> dict[str, Any] | None:
    """One trial; None for a line that was cut off when the process was killed."""
    try:
        content: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return content

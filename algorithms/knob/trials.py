"""The trials of a search, and the log that keeps them one by one, so that a killed search can resume."""

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
from pytest_pilotscope.places.privatefiles import open_private, private_folder, write_private
from pytest_pilotscope.postgres.knobs import Level

Status = Literal["ok", "capped", "failed"]

logger = logging.getLogger(__name__)


class Proposal(NamedTuple):
    """Settings to try, and their point in the searched space, as JSON values."""

    values: Values
    point: dict[str, str | int | float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """
    One setting that was tried.

    The search learned `cost` (s): measured for the status ok, extrapolated for a trial that was cut off, a bounded penalty for one that
    failed, with the reason in `message`. `applied` is the level of the settings that changed, `apply_s` the time to change them, `search_s`
    the time of the proposal, `elapsed_s` all of it. `point` is the settings' point in the searched space.
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
    """Return the cheapest trial that ran to its end; of equal ones the first, and the first of all if none ran to its end."""
    return min((trial for trial in trials if trial.status == "ok"), key=lambda trial: (trial.cost, trial.number), default=trials[0])


class TrialLog:
    """A JSON Lines file: one line with the key of the search and the values common to its trials, then a line per trial, flushed."""

    def __init__(self, path: Path, common: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        self.path = path
        self.common = common
        self.trials = list(trials)

    def begin(self, key: str, common: Mapping[str, Any]) -> None:
        """Start a new file."""
        self.common = common
        write_private(self.path, json.dumps({"key": key, "common": dict(common)}) + "\n")

    def append(self, trial: Trial) -> None:
        """Write one trial; it is on disk when this returns."""
        self.trials.append(trial)
        with open_private(self.path, "a") as file:
            file.write(json.dumps(asdict(trial)) + "\n")


def search_key(about: Mapping[str, Any]) -> str:
    """Return a hash of everything that distinguishes two searches."""
    return hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def open_log(folder: Path, key: str) -> Iterator[TrialLog]:
    """
    Open the log of an unfinished search with this key, or a new one; the file stays until somebody moves or deletes it.

    If another process writes to the file, the log is a new file. A file that cannot be read is replaced.
    """
    private_folder(folder)
    number = 0
    while True:
        path = folder / f"knob_{key}{f'_{number}' if number else ''}.jsonl"
        with open_private(path.with_suffix(".lock"), "w") as lock:
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
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        logger.warning("%s cannot be read (%s: %s); the search starts anew", path, type(error).__name__, error)
        return TrialLog(path, {}, [])
    write_private(path, "".join(f"{json.dumps(content)}\n" for content in (head, *contents)))  # without a line that was cut off
    logger.info("%d trials of an earlier run are taken from %s", len(trials), path)
    return TrialLog(path, head["common"], trials)


def _line(text: str) -> dict[str, Any] | None:
    """Read one trial; return None for a line that was cut off when the process was killed."""
    try:
        content: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content

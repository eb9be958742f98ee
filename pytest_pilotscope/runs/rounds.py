"""`--rounds auto`: how many more rounds a run measures, decided by the noise of those before and never by their result."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic

from pytest_pilotscope.errors import named
from pytest_pilotscope.gate.calibrations import calibration_folder
from pytest_pilotscope.gate.judging import deltas
from pytest_pilotscope.gate.power import sees_enough
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.record.record import read_record
from pytest_pilotscope.statistics.pairs import pairs_of

logger = logging.getLogger(__name__)

FEWEST = 2
"""Fewer rounds at once are not worth the warm-up before them."""


def further_rounds(settings: Settings, record_paths: Sequence[Path], began_s: float) -> Iterator[int]:
    """Yield how many rounds to add to every query, until a gate would see enough of every record or `--rounds-limit-s` are over."""
    rounds = settings.fewest_rounds
    executions = rounds + 1  # the warm-up
    while not all(_shows_enough(path, settings) for path in record_paths):
        spent_s = monotonic() - began_s
        affordable = int((settings.rounds_limit_s - spent_s) / (spent_s / executions)) - 1
        more = min(next_rounds(rounds), affordable)
        if more < FEWEST:
            logger.warning(
                "%s: --rounds auto ends after %d rounds, because more would take longer than %g s, and a gate would still be blind to a "
                "slow-down of twice the allowed size; give it more time with --rounds-limit-s, or measure on a quieter machine",
                named(path.stem for path in record_paths),
                rounds,
                settings.rounds_limit_s,
            )
            return
        yield more
        rounds += more
        executions += more + 1


def next_rounds(rounds: int) -> int:
    """Return half of the rounds so far: a run that decides seldom has few chances to end on noise that only seems low."""
    return max(FEWEST, rounds // 2)


def _shows_enough(record_path: Path, settings: Settings) -> bool:
    record = read_record(record_path)
    (delta, query_delta), _ = deltas(settings, record, calibration_folder())
    opponents = (side for side in record.header.sides if side != record.header.baseline_side)
    return all(sees_enough(pairs_of(record, side), delta, query_delta) for side in opponents)

"""The gate's comparison of the scripts of `--writes`: one figure for each side, their mean time, paired slice by slice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from pytest_pilotscope.gate.comparable import State
from pytest_pilotscope.gate.exact_figures import Regression
from pytest_pilotscope.gate.noise import slow_down
from pytest_pilotscope.gate.power import BETWEEN_SESSIONS, CAUGHT
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.statistics.intervals import Interval, MeanRatios, exponentiated, mean_log_ratios
from pytest_pilotscope.statistics.load import write_slow_downs

SCRIPTS = "mean time of the scripts of --writes"
"""The name of the figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedWrites:
    """The slow-down of a side's scripts with its interval, and the one that the run would have caught 19 times in 20; infinite if none."""

    side: str
    ratio: Interval
    caught: float


def judged_writes(
    candidate: Record, reference: Record | None, side: str, delta: float, confidence: float
) -> Iterator[State | Regression | ComparedWrites]:
    """Yield the decision about the scripts of a side, if the run has any: their ratio to the baseline, over that of a reference."""
    if candidate.header.parameters.get("writes") is None:
        return
    records = [record for record in (candidate, reference) if record is not None]
    logs = [np.array([write_slow_downs(record, side)]) for record in records]
    if not all(row.size for row in logs):
        yield State(kind="empty", text=f"no script of --writes ran on {side} and the baseline in the same round; their time was not gated")
        return
    ratios = mean_log_ratios(*logs)
    compared = exponentiated(float(ratios.mean[0]), float(ratios.margin(confidence)[0]))
    yield ComparedWrites(side=side, ratio=compared, caught=_caught(ratios, len(records), delta, confidence))
    if compared.low > 1 + delta:
        yield Regression(side=side, figure=SCRIPTS, ratio=compared, allowed=1 + delta)


def _caught(ratios: MeanRatios, sessions: int, delta: float, confidence: float) -> float:
    freedom, error = int(ratios.freedom[0]), math.hypot(float(ratios.error[0]), BETWEEN_SESSIONS * math.sqrt(sessions))
    if freedom == 0:
        return math.inf
    quantiles = float(stdtrit(freedom, (1 + confidence) / 2)) + float(stdtrit(freedom, CAUGHT))
    return slow_down(math.log1p(delta) + quantiles * error)

"""The sides of a run after a drift, and the names of its dataset before and after."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_pilotscope.record.results import BASELINE, BASELINE_AGAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSides:
    """
    The names of the sides, besides the baseline.

    `old` is the algorithm that learned before the drift, with the statistics as they were; `old_analyzed` is the same after ANALYZE, and
    `retrained` has learned again. `baseline_analyzed` is PostgreSQL after ANALYZE.
    If the data are the same, nothing is analyzed: these two sides are the others.
    """

    old: str
    baseline_analyzed: str
    old_analyzed: str
    retrained: str

    def of(self, algorithm: str) -> tuple[str, ...]:
        """Return the sides besides the baseline; the baseline by itself has nothing to learn, and is paired with itself."""
        learning = (self.old, self.old_analyzed, self.retrained) if algorithm != BASELINE else ()
        others = dict.fromkeys(side for side in (self.baseline_analyzed, *learning) if side != BASELINE)
        return tuple(others) or (BASELINE_AGAIN,)


def drift_sides(algorithm: str, *, changes_data: bool) -> DriftSides:
    """Return the names of the sides of a run of an algorithm."""
    if not changes_data:
        old = BASELINE_AGAIN if algorithm == BASELINE else algorithm
        return DriftSides(old=old, baseline_analyzed=BASELINE, old_analyzed=old, retrained=f"{algorithm}-retrained")
    return DriftSides(
        old=algorithm,
        baseline_analyzed=f"{BASELINE}-analyzed",
        old_analyzed=f"{algorithm}-analyzed",
        retrained=f"{algorithm}-retrained",
    )


def drift_title(algorithm: str) -> str:
    """Return the algorithm in the header of a run after a drift; no side has this name."""
    return f"drift-{algorithm}"


def drifted_dataset(dataset: str, drift: object) -> str:
    """Return the name of a dataset after a drift: its runs have an experiment of their own."""
    return f"{dataset}+{drift}"


def past_dataset(dataset: str, drift: object) -> str:
    """Return the name of a dataset before a drift that measures a part of it: its past, or the queries of some templates."""
    return f"{dataset}+before-{drift}"

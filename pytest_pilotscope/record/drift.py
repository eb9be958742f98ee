"""The sides of a run after a drift of data."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_pilotscope.record.results import BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSides:
    """
    The names of the sides, besides the baseline.

    `old` is the algorithm that learned before the drift, with the statistics as they were; `old_analyzed` is the same after ANALYZE, and
    `retrained` has learned again. `baseline_analyzed` is PostgreSQL after ANALYZE.
    """

    old: str
    baseline_analyzed: str
    old_analyzed: str
    retrained: str

    def of(self, algorithm: str) -> tuple[str, ...]:
        """Return the sides besides the baseline; the baseline by itself has nothing to learn."""
        learning = (self.old, self.old_analyzed, self.retrained) if algorithm != BASELINE else ()
        return (self.baseline_analyzed, *learning)


def drift_sides(algorithm: str) -> DriftSides:
    """Return the names of the sides of a run of an algorithm."""
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

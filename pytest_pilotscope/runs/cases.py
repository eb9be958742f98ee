"""The cases of one invocation: which algorithms are measured on which dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_pilotscope.options.drifts import Drift
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.record.drift import drift_title, drifted_dataset
from pytest_pilotscope.record.projection import COMPARISON
from pytest_pilotscope.record.results import BASELINE, RunHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The algorithms that one run measures on a dataset: one, also after a `drift` of the data, or several that take turns."""

    algorithms: tuple[str, ...]
    dataset: str
    together: bool = False
    drift: Drift | None = None

    @property
    def name(self) -> str:
        """`mscn-stats_tiny`, or `compare-stats_tiny`."""
        return f"{COMPARISON if self.together else drift_title(self.algorithms[0]) if self.drift else self.algorithms[0]}-{self.dataset}"

    def is_of(self, header: RunHeader) -> bool:
        """Tell whether this case made a record with this header."""
        if self.drift is not None:
            return (header.algorithm, header.dataset) == (drift_title(self.algorithms[0]), drifted_dataset(self.dataset, self.drift))
        return (header.algorithm, header.dataset) == (self.title, self.dataset)

    @property
    def title(self) -> str:
        """The algorithm in the header of its record."""
        return COMPARISON if self.compares else self.algorithms[0]

    @property
    def compares(self) -> bool:
        """True if several algorithms take turns; a baseline by itself is an ordinary run."""
        return self.together and bool(self.opponents)

    @property
    def measured(self) -> tuple[str, ...]:
        """The algorithms that the run trains."""
        return self.opponents if self.compares else self.algorithms[:1]

    @property
    def opponents(self) -> tuple[str, ...]:
        """The algorithms besides the baseline, which takes part in every run."""
        return tuple(name for name in self.algorithms if name != BASELINE)


def shares(case: Case, other: Case, settings: Settings) -> bool:
    """
    Tell whether two cases are measured in turns against one baseline: those of one dataset are.

    Not so with a drift, because the runs before and after it are pairs, and without measurement.
    """
    return settings.measure and settings.drift is None and case.dataset == other.dataset


def runs_to_judge(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield pairs of algorithm and dataset to compare with the baseline; the baseline, if nothing else is there, with itself."""
    opponents = dict.fromkeys((name, case.dataset) for case in cases_of(settings) for name in case.opponents)
    yield from opponents or dict.fromkeys((BASELINE, case.dataset) for case in cases_of(settings))


def cases_of(settings: Settings) -> tuple[Case, ...]:
    """
    Return a case for each algorithm and dataset, with a drift one before and one after it, and one for all variants.

    With `compare` there is one for each dataset; to calibrate, the baseline by itself. Variants are measured beside the baseline, so that
    it needs no run of its own.
    """
    if settings.calibrate:
        return tuple(Case(algorithms=(BASELINE,), dataset=dataset) for dataset in settings.datasets)
    variants = tuple(variant.name for variant in settings.variants)
    if settings.compare:
        return tuple(Case(algorithms=(*settings.algorithms, *variants), dataset=dataset, together=True) for dataset in settings.datasets)
    single = settings.algorithms if not variants or settings.algorithms != (BASELINE,) else ()
    groups = [*((name,) for name in single), *((variants,) if variants else ())]
    return tuple(
        Case(algorithms=group, dataset=dataset, together=len(group) > 1, drift=drift)
        for dataset in settings.datasets
        for group in groups
        for drift in dict.fromkeys((None, settings.drift))
    )

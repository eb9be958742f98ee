"""The cases of one invocation: which algorithms are measured on which dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_pilotscope.options.drifts import Drift
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.record.drift import drift_title, drifted_dataset, past_dataset
from pytest_pilotscope.record.projection import COMPARISON
from pytest_pilotscope.record.results import BASELINE, RunHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    The algorithms that one run measures on a dataset: one, or several that take turns.

    The run is `after` a drift, or `before` it: each algorithm has both. Or it has the queries of a `stream`, by its name.
    """

    algorithms: tuple[str, ...]
    dataset: str
    together: bool = False
    before: Drift | None = None
    after: Drift | None = None
    stream: str | None = None

    @property
    def name(self) -> str:
        """`mscn-stats_tiny`, or `compare-stats_tiny`."""
        return f"{COMPARISON if self.together else drift_title(self.algorithms[0]) if self.after else self.algorithms[0]}-{self.dataset}"

    def is_of(self, header: RunHeader) -> bool:
        """Tell whether this case made a record with this header."""
        return (header.algorithm, header.dataset) == (self.title, self.measured_dataset)

    @property
    def title(self) -> str:
        """The algorithm in the header of its record."""
        return drift_title(self.algorithms[0]) if self.after else COMPARISON if self.compares else self.algorithms[0]

    @property
    def measured_dataset(self) -> str:
        """The name of the dataset in the header: a drift and a stream have experiments of their own."""
        if self.stream is not None:
            return f"{self.dataset}+stream:{self.stream}"
        if self.after is not None:
            return drifted_dataset(self.dataset, self.after)
        return past_dataset(self.dataset, self.before) if self.before is not None and self.before.has_other_past else self.dataset

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

    Not so with a drift, because the runs before and after it are pairs, nor in a stream, which has an order, nor without measurement.
    """
    return settings.measure and settings.drift is None and settings.stream is None and case.dataset == other.dataset


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
    stream = settings.stream.stem if settings.stream is not None else None
    if settings.compare:
        together = (*settings.algorithms, *variants)
        return tuple(Case(algorithms=together, dataset=dataset, together=True, stream=stream) for dataset in settings.datasets)
    single = settings.algorithms if not variants or settings.algorithms != (BASELINE,) else ()
    groups = [*((name,) for name in single), *((variants,) if variants else ())]
    return tuple(
        Case(algorithms=group, dataset=dataset, together=len(group) > 1, before=before, after=after, stream=stream)
        for dataset in settings.datasets
        for group in groups
        for before, after in dict.fromkeys(((settings.drift, None), (None, settings.drift)))
    )

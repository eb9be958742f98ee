"""What one invocation measures, one case after the other."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.record.projection import COMPARISON
from pytest_pilotscope.record.results import BASELINE, RunHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Algorithms to be measured on a dataset in one run: one of them, or several that take turns."""

    algorithms: tuple[str, ...]
    dataset: str
    together: bool = False

    @property
    def name(self) -> str:
        """`mscn-stats_tiny`, or `compare-stats_tiny`."""
        return f"{COMPARISON if self.together else self.algorithms[0]}-{self.dataset}"

    def is_of(self, header: RunHeader) -> bool:
        """Whether a record with this header was made by this case."""
        algorithm = COMPARISON if self.together and self.opponents else self.algorithms[0]
        return (header.algorithm, header.dataset) == (algorithm, self.dataset)

    @property
    def opponents(self) -> tuple[str, ...]:
        """The algorithms besides the baseline, which takes part in every run."""
        return tuple(name for name in self.algorithms if name != BASELINE)

    @property
    def runs(self) -> tuple[tuple[str, str], ...]:
        """Algorithm and dataset of everything that is compared with the baseline; the baseline by itself is compared with itself."""
        return tuple((name, self.dataset) for name in self.opponents or (BASELINE,))


def cases_of(settings: Settings) -> tuple[Case, ...]:
    """Algorithm by dataset; with `compare` one case for each dataset; a calibration is a baseline by itself."""
    if settings.calibrate:
        return tuple(Case(algorithms=(BASELINE,), dataset=dataset) for dataset in settings.datasets)
    if settings.compare:
        return tuple(Case(algorithms=settings.algorithms, dataset=dataset, together=True) for dataset in settings.datasets)
    return tuple(Case(algorithms=(name,), dataset=dataset) for dataset in settings.datasets for name in settings.algorithms)

"""What an algorithm is given to learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING

from pytest_pilotscope.core.queries import Query
from pytest_pilotscope.core.results import Scalar, TrainingReport
from pytest_pilotscope.core.settings import Settings

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision import Database

Advance = Callable[[int], None]
"""Call it with how many more steps are done."""


@dataclass(slots=True, kw_only=True)
class Training:
    """
    The training and validation queries, the database they can be run on, and the user's settings.

    `folder` is for artifacts; what is written there and named in the report is kept. Test queries are not here, on purpose.
    `progress(description, total)` is a context manager that gives a function to call with each step done.
    """

    algorithm: str
    queries: Sequence[Query]
    validation: Sequence[Query]
    database: Database
    session: Session
    settings: Settings
    folder: Path
    progress: Callable[[str, int], AbstractContextManager[Advance]]
    _started_ns: int = field(default_factory=perf_counter_ns, init=False)

    def report(
        self,
        *,
        metrics: Mapping[str, Sequence[float]] | None = None,
        parameters: Mapping[str, Scalar] | None = None,
        scalars: Mapping[str, int | float] | None = None,
        artifacts: Sequence[Path] = (),
    ) -> TrainingReport:
        """
        Make the report that `train` returns: series per epoch or trial, hyper-parameters, final figures, and paths below `folder`.

        Its duration is the time since training began.
        """
        return TrainingReport(
            side=self.algorithm,
            duration_s=(perf_counter_ns() - self._started_ns) / 1e9,
            metrics={name: tuple(values) for name, values in (metrics or {}).items()},
            parameters=dict(parameters or {}),
            scalars=dict(scalars or {}),
            artifacts=tuple(str(path) for path in artifacts),
        )

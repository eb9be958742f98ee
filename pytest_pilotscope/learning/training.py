"""The data that an algorithm learns from: queries, a database, labels and settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import counted
from pytest_pilotscope.options.progress import Advance, ShowProgress
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.postgres.timelimit import outside_limit
from pytest_pilotscope.queries.joins import Schema
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.record.results import Scalar, TrainingReport

if TYPE_CHECKING:
    from pytest_pilotscope.labels import Labels
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database
    from pytest_pilotscope.provision.pool import WorkerPool
    from pytest_pilotscope.queries.scripts import Writes

LABEL_STEPS = 100
"""Labels show their progress in per cent, because the number of subplans is unknown at the start."""


@dataclass(slots=True, kw_only=True)
class Training:
    """
    The training and validation queries, the scripts that will run among the test queries, the database, and the user's settings.

    `options` has a value for each option that the algorithm declared with `registry.add_option`. `folder` is for artifacts; the run keeps
    the files there that the report names. Test queries are left out on purpose. Labels are in the cache, or in the folder `labels_cache`.
    `progress(description, total)` is a context manager; call the function that it gives with the number of steps done.
    """

    algorithm: str
    dataset: str
    queries: Sequence[Query]
    validation: Sequence[Query]
    database: Database
    session: Session
    settings: Settings
    options: Mapping[str, Any]
    folder: Path
    progress: ShowProgress
    writes: Writes | None = None
    labels_cache: Path | None = None
    _started_ns: int = field(default_factory=perf_counter_ns, init=False)
    _schema: Schema | None = field(default=None, init=False)
    _pool: WorkerPool | None = field(default=None, init=False)
    _stack: ExitStack = field(default_factory=ExitStack, init=False)

    @classmethod
    def of(cls, workload: Workload, *, settings: Settings, **given: Any) -> Training:
        """Select the training queries that the settings allow, and all validation queries; `given` are the other fields."""
        sizes = [size for size in (settings.training_size, settings.collection_size) if size is not None]
        queries = workload.train[: min(sizes, default=None)]
        return cls(
            dataset=workload.dataset,
            queries=queries,
            validation=workload.validation,
            writes=workload.writes,
            settings=settings,
            **given,
        )

    @property
    def data_fingerprint(self) -> str:
        """The identity of the data that models and labels belong to."""
        return self.database.fingerprint.data

    @property
    def schema(self) -> Schema:
        """Tables, columns and types; read from the catalog once."""
        if self._schema is None:
            from pytest_pilotscope.postgres.catalog import read_schema

            self._schema = read_schema(self.session)
        return self._schema

    def labels(self, queries: Sequence[Query], *, known_only: bool = False) -> Labels:
        """
        Return the true cardinality of every subplan of these queries. Count those that are not in the cache, and show the progress.

        With `known_only` (or `--no-collection`) count nothing, and leave out queries with missing labels. Called in a decision, this takes
        nothing of its time limit.
        """
        with outside_limit():
            return self._labels(queries, known_only=known_only)

    def _labels(self, queries: Sequence[Query], *, known_only: bool) -> Labels:
        from pytest_pilotscope.labels import SessionSource, cardinalities

        count = partial(
            cardinalities,
            SessionSource(self.session),  # shared by both calls, so that every query is planned once
            queries,
            schema=self.schema,
            fingerprint=self.data_fingerprint,
            cache_dir=self.labels_cache or labels_folder(self.data_fingerprint),
        )
        known = count(known_only=True)
        if known_only or not self.settings.collection or len(known) + len(known.unsupported) == len(queries):
            return known
        with self.progress(f"labels for {counted(len(queries), 'query', 'queries')}, in %", LABEL_STEPS) as advance:
            memory_bytes = self.settings.label_memory_bytes
            return count(workers=os.cpu_count() or 1, memory_bytes=memory_bytes, progress=_in_steps(advance), pool=self.pool)

    @contextmanager
    def pool(self) -> Iterator[WorkerPool | None]:
        """Give the workers of `--dask`, each with a server that has the same data, until `close`; None without that option."""
        if self.settings.dask is not None and self._pool is None:
            from pytest_pilotscope.provision.pool import open_pool

            self._pool = self._stack.enter_context(open_pool(self.settings.dask, self.database))
        yield self._pool

    def close(self) -> None:
        """Stop the workers, so that nothing runs during a measurement. The next `labels` starts them again."""
        self._pool = None
        self._stack.close()

    def report(
        self,
        *,
        metrics: Mapping[str, Sequence[float]] | None = None,
        parameters: Mapping[str, Scalar] | None = None,
        scalars: Mapping[str, int | float] | None = None,
        artifacts: Sequence[Path] = (),
    ) -> TrainingReport:
        """
        Make the report that `train` returns.

        `metrics` are series per epoch or trial, `parameters` hyper-parameters, `scalars` final figures, `artifacts` paths below `folder`.
        The duration is the time since training began.
        """
        return TrainingReport(
            side=self.algorithm,
            duration_s=(perf_counter_ns() - self._started_ns) / 1e9,
            metrics=_series(metrics) if isinstance(metrics, Mapping) else {} if metrics is None else metrics,
            parameters={} if parameters is None else parameters,
            scalars={} if scalars is None else scalars,
            artifacts=tuple(str(path) for path in artifacts),
        )


def _series(metrics: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    """Return the values of each series; leave one that is none as it is, for the check that names it."""
    return {name: tuple(values) if isinstance(values, Iterable) else values for name, values in metrics.items()}


def labels_folder(data_fingerprint: str) -> Path:
    """Return the cache folder of the labels of some data; each format of labels has its own, for several versions of this suite."""
    from pytest_pilotscope.labels.labelcache import FORMAT
    from pytest_pilotscope.places.folders import cache_subfolder

    return cache_subfolder("labels") / f"{data_fingerprint.replace('~', 'estimated-')}-{FORMAT}"


def _in_steps(advance: Advance) -> Callable[[int, int, float | None], None]:
    shown = 0

    def report(done: int, total: int, _left_s: float | None) -> None:
        nonlocal shown
        steps = LABEL_STEPS * done // total if total else LABEL_STEPS
        if steps > shown:
            advance(steps - shown)
            shown = steps

    return report

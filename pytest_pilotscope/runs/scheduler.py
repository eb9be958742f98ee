"""Run SQL with an algorithm, without pytest: `execute` returns rows and times."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.builtins import builtin_registry, load_workload
from pytest_pilotscope.errors import UsageError, shortened
from pytest_pilotscope.learning.algorithm import Algorithm, DatabasePreparer
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings, checked
from pytest_pilotscope.options.variants import Variant
from pytest_pilotscope.options.variants import variants as read_variants
from pytest_pilotscope.postgres.process import temporary_folder
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.queries.statements import statement_count
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.runs.learn import copyable, learn
from pytest_pilotscope.runs.variants import register_variants
from pytest_pilotscope.runs.wanted_model import wanted_model

if TYPE_CHECKING:
    from pytest_pilotscope.measurement.sides import Side
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database, PostgreSQLConfig
    from pytest_pilotscope.tracking.tracker import MLflowTracker


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """
    The rows of one statement, and its times.

    The server measures `planning_ms` and `execution_ms`. `inference_ms` is client wall clock: asking the algorithm and steering. Training
    between two statements is in none of them.
    """

    rows: list[tuple[Any, ...]]
    planning_ms: float
    execution_ms: float
    inference_ms: float


@dataclass(slots=True, kw_only=True)
class Scheduler:
    """
    Runs statements as an algorithm decides: as a context manager, or from the first `execute` to the end of the program.

    Entering provisions the database and trains the algorithm, or loads its model; leaving undoes every change. With a tracker, the MLflow
    run gets the training report, the totals of all statements, and the files that the algorithm wrote to its folder.

    The registry has the options that the algorithm declares; `settings.options` has their values.
    """

    config: PostgreSQLConfig
    algorithm: Algorithm
    settings: Settings
    tracker: MLflowTracker | None = None
    registry: Registry = field(default_factory=builtin_registry)
    _stack: ExitStack = field(default_factory=ExitStack, init=False)
    _side: Side | None = field(default=None, init=False)
    _executed: list[Execution] = field(default_factory=list, init=False)
    _closed: bool = field(default=False, init=False)

    def __enter__(self) -> Scheduler:
        self._opened()
        return self

    def _opened(self) -> Side:
        """Open the database, learn, and return the side that runs the statements."""
        from pytest_pilotscope.measurement.sides import side_of
        from pytest_pilotscope.measurement.supervision import Supervision
        from pytest_pilotscope.provision.database import dataset_of, open_database
        from pytest_pilotscope.provision.variants import under_conditions

        if self.settings.clients_at_once is not None:
            which = "writes" if self.settings.writes else "clients"
            raise UsageError(f"a scheduler runs one statement at a time, so that it cannot have {which}=...; leave it out")
        dataset = dataset_of(self.config) if self.config.db is not None else None  # an unknown name leaves no run in MLflow
        with ExitStack() as stack:
            if self.tracker is not None:
                stack.enter_context(self.tracker)
                stack.callback(self._log_totals)
            config = replace(self.config, session_settings={**self.config.session_settings, **self.settings.session_settings})
            opened = stack.enter_context(open_database(config, dataset))
            opened = stack.enter_context(under_conditions(opened, self.settings))
            database = stack.enter_context(copyable(opened, [self.algorithm]))
            session = stack.enter_context(database.session())
            self._learn(stack, database, session)
            if isinstance(self.algorithm, DatabasePreparer):
                database = stack.enter_context(self.algorithm.prepare(database))
                session = stack.enter_context(database.session())
            side = self._side = side_of(
                self.algorithm.name,
                self.algorithm,
                session,
                Supervision(timeout_ms=self.settings.steer_timeout_ms, training_timeout_s=self.settings.training_timeout_s),
            )
            self._stack, self._closed = stack.pop_all(), False
            atexit.register(self.close)
        return side

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._side, self._closed = None, True
        atexit.unregister(self.close)
        self._stack.__exit__(kind, error, trace)

    def close(self) -> None:
        """Undo every change, and end the MLflow run; closing twice is fine."""
        self.__exit__(None, None, None)

    def __repr__(self) -> str:
        """Return one line."""
        state = "open" if self._side else "closed" if self._closed else "not open yet"
        return f"<Scheduler of {self.algorithm.name} on {self.config.db or self.config.dsn}: {state}>"

    def execute(self, sql: str) -> Execution:
        """
        Run one statement. Raise `StatementFailed`, and whatever the algorithm raises.

        Outside of a `with` block the first call opens the scheduler, and the end of the program closes it. Raise `UsageError` after that;
        for an argument that is no text; and for several statements at once, because asking for the plan would run all but the first.
        """
        from pytest_pilotscope.measurement.clocks import timed_with_rows
        from pytest_pilotscope.postgres.coldness import drop_caches

        if self._closed:
            raise UsageError("the scheduler is closed; make another one")
        if not isinstance(sql, str):
            raise UsageError(f"scheduler.execute runs an SQL text, got {sql!r}")
        if (count := statement_count(sql)) > 1:
            raise UsageError(f"scheduler.execute runs one statement, and these are {count}: {shortened(sql)}; execute one after the other")
        side = self._side or self._opened()
        with side.steered(Query(id=f"s{len(self._executed) + 1}", sql=sql)) as steering:
            if self.settings.cold:
                drop_caches(side.session)
            timed = timed_with_rows(side.session, sql)
        executed = Execution(
            rows=timed.rows, planning_ms=timed.planning_ms, execution_ms=timed.execution_ms, inference_ms=steering.inference_ms
        )
        self._executed.append(replace(executed, rows=[]))  # only the times are needed later
        return executed

    def _learn(self, stack: ExitStack, database: Database, session: Session) -> None:
        folder = stack.enter_context(temporary_folder())
        training = Training.of(
            _workload(self.config),
            algorithm=self.algorithm.name,
            database=database,
            session=session,
            settings=self.settings,
            options=self.registry.options(self.algorithm.name, self.settings.options),
            folder=folder,
            progress=silent,
        )
        given = self.tracker.params if self.tracker is not None else {}
        report = learn(self.algorithm, training, given=given, model=wanted_model(self.algorithm, training))
        if self.tracker is not None:
            from pytest_pilotscope.tracking.publish import log_training

            self.tracker.set_tags({"fingerprint.data": training.data_fingerprint})  # `--load-model best` searches for it
            log_training(self.tracker, report, at=datetime.now(timezone.utc))
            stack.callback(self._log_later_files, folder, _files(folder))

    def _log_later_files(self, folder: Path, before: Mapping[Path, tuple[int, int]]) -> None:
        """Send the files that are new or have changed since training."""
        for path, state in sorted(_files(folder).items()):
            if self.tracker is not None and before.get(path) != state:
                below = path.parent.relative_to(folder).as_posix()
                self.tracker.log_artifact(path, None if below == "." else below)

    def _log_totals(self) -> None:
        if self.tracker is None or not self._executed:
            return
        server_ms = sum(run.planning_ms + run.execution_ms for run in self._executed)
        inference_ms = sum(run.inference_ms for run in self._executed)
        self.tracker.log_metrics(
            {
                "executed_query_count": len(self._executed),
                "executed_total_time": (server_ms + inference_ms) / 1e3,
                "executed_db_execution_time": server_ms / 1e3,
                "executed_overhead_time": inference_ms / 1e3,
            }
        )


def preset_scheduler(
    algorithm: str | None,
    config: PostgreSQLConfig,
    *,
    variant: str | Variant | None = None,
    enable_collection: bool = False,
    enable_training: bool = True,
    num_collection: int | None = None,
    num_training: int | None = None,
    num_epoch: int = 1,
    update_every: int = 200,
    load_model_id: str | None = None,
    use_mlflow: bool = True,
    options: Mapping[str, Any] | None = None,
) -> tuple[Scheduler, MLflowTracker | None]:
    """
    Return the scheduler of a built-in algorithm, and its tracker (None without MLflow). Nothing starts before `with scheduler`.

    Without training it loads `load_model_id` (as in `--load-model`), by default the best model of the experiment `<algo>_<db>`. The
    algorithm declares the `options`; a `variant` takes its place. Raise `UsageError` for values that the command line would reject, and
    for unknown options.
    """
    registry = builtin_registry()
    variants = read_variants(() if variant is None else (variant,))
    register_variants(registry, variants)
    algorithm = algorithm or variants[0].name
    settings = Settings(
        variants=variants,
        seed=config.seed,
        collection=enable_collection,
        training=enable_training,
        collection_size=checked("collection_size", num_collection, argument="num_collection"),
        training_size=checked("training_size", num_training, argument="num_training"),
        epochs=checked("epochs", num_epoch, argument="num_epoch"),
        update_every=checked("update_every", update_every),
        load_model=load_model_id if load_model_id is not None or enable_training else "best",
        mlflow=use_mlflow,
        options={algorithm: registry.options(algorithm, {algorithm: options or {}})},
    )
    made: Algorithm = registry.algorithm(algorithm).resolve()()
    tracker = _tracker(algorithm, config, settings) if use_mlflow else None
    return Scheduler(config=config, algorithm=made, settings=settings, tracker=tracker, registry=registry), tracker


def _tracker(algorithm: str, config: PostgreSQLConfig, settings: Settings) -> MLflowTracker:
    from pytest_pilotscope.tracking.tracker import MLflowTracker

    params = {
        "algorithm": algorithm,
        "dataset": config.db,
        "enable_collection": settings.collection,
        "enable_training": settings.training,
        "num_epoch": settings.epochs,
        "num_collection": settings.collection_size,
        "seed": settings.seed,
    }
    now = datetime.now(timezone.utc)
    return MLflowTracker(
        f"{algorithm}_{config.db}",
        f"{algorithm}_{config.db}_{now:%Y%m%d_%H%M%S}",
        params=params,
        tags={"stage": "scheduler", "started_at": now.isoformat()},
    )


def _files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return all files below a folder, each with its time of change and its size."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


def _workload(config: PostgreSQLConfig) -> Workload:
    """Return the queries to learn from; a database that is none of our datasets has none."""
    if config.db is None or config.dump is not None:
        return Workload(dataset=config.db or "", train=(), validation=(), test=())
    return load_workload(config.db, scale=config.scale, seed=config.seed)

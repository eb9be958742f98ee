"""The algorithm `knob`: tunes the server's settings on the training queries and prepares a database that runs with them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytest_pilotscope.algorithms.knob.loaded import Load, compare_loaded, load_of, load_sessions
from pytest_pilotscope.algorithms.knob.measuring import Selected, compare, select_queries
from pytest_pilotscope.algorithms.knob.objective import Objective, Target
from pytest_pilotscope.algorithms.knob.saved_settings import check_known, load_values, save_values
from pytest_pilotscope.algorithms.knob.space import KnobSpace
from pytest_pilotscope.algorithms.knob.trial_server import TrialServer, open_trial_server, prepared_database, reach_of, space_of
from pytest_pilotscope.algorithms.knob.trials import Trial, TrialLog, best_trial, open_log, search_key
from pytest_pilotscope.algorithms.knob.tuner import Tuner
from pytest_pilotscope.algorithms.knob.tuning_report import Found, report_of
from pytest_pilotscope.algorithms.model_files import Metadata, new_metadata
from pytest_pilotscope.errors import AlgorithmError, UsageError
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import Scalar, TrainingReport
from pytest_pilotscope.statistics.intervals import Interval

if TYPE_CHECKING:
    from pytest_pilotscope.algorithms.knob.geometry import Projection
    from pytest_pilotscope.algorithms.knob.search import Search
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.provision.database import Database

UNFINISHED = "unfinished"
"""Folder below that of the records, for interrupted searches that can be resumed."""

Strategy = Literal["smac", "random"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobOptions:
    """
    The options that `algorithms/plugin.py` declares, the seed, and four that only Python can choose.

    A trial ends early at `cap` times the incumbent's cost. The incumbent is measured against the default in `rounds` rounds. `names`
    restricts the knobs; None is the whole catalogue. The `strategy` random exists for comparison.
    """

    trials: int
    target: Target
    projection: Projection
    trial_s: float
    seed: int
    cap: float = 1.5
    rounds: int = 3
    names: tuple[str, ...] | None = None
    strategy: Strategy = "smac"

    @property
    def parameters(self) -> dict[str, Scalar]:
        """The options as the record has them."""
        return {
            "knob_trials": self.trials,
            "target_metric": self.target,
            "knob_projection": self.projection,
            "knob_trial_s": self.trial_s,
            "knob_cap": self.cap,
            "knob_rounds": self.rounds,
            "knob_strategy": self.strategy,
            "knob_seed": self.seed,
        }


class KnobTuning:
    """
    Knob tuning: SMAC on the times of training queries, confirmed against the default on validation queries.

    `values` are the settings that differ from the default, as text in their own units; empty if the search found nothing better.
    """

    name = "knob"
    selection = ("knob_validation_speedup", False)

    def __init__(self, options: KnobOptions | None = None) -> None:
        self._options = options
        self.model_id = ""
        self.values: dict[str, str] | None = None
        self._metadata: Metadata | None = None

    @staticmethod
    def restriction(database: Database) -> str:
        """
        Return the settings that cannot be tuned on a server and the reason, for the header; empty if all can.

        Raises `UsageError` if the user has to say whether settings of the whole server may be changed.
        """
        reach = reach_of(database)
        if reach.question:
            raise UsageError(reach.question)
        return reach.limit

    def train(self, training: Training) -> TrainingReport:
        """
        Search, or resume a search that was killed, then measure the best settings against the default in turns.

        Raises `AlgorithmError` if there are no training queries, none that is short enough, or no knob to tune.
        """
        options = self._options or KnobOptions(**training.options, seed=training.settings.seed)
        if not training.queries:
            raise AlgorithmError("knob tuning has no training queries; raise --training-size or give a workload that has some")
        load = load_of(training)
        if load is not None and training.settings.dask is not None:
            raise UsageError("--dask: knob tries settings under the load of --clients and --writes on one server only; leave --dask out")
        with training.database.session() as session:
            reach = reach_of(training.database)
            space = space_of(session, reach, options.names)
        search = _search(space, options)
        key = search_key(_about(training, space, options, load))
        with (
            open_log(training.settings.results / UNFINISHED, key) as log,
            open_trial_server(training.database, space, reach) as trial_server,
        ):
            selected = _selected(log, key, trial_server, training, options)
            objective = _objective(options, selected, load)
            tuner = Tuner(
                space=space,
                trial_server=trial_server,
                search=search,
                log=log,
                objective=objective,
                selected=selected,
                cap=options.cap,
                load=load,
            )
            with training.pool() as pool, training.progress("tuning knobs", options.trials) as advance:
                if pool is None:
                    tuner.run(options.trials, advance)
                else:
                    tuner.run_on(pool, reach, options.trials, advance)
            trials = log.trials[: options.trials]
            confirmed = _confirm(training, trial_server, trials, options, load)
            values = space.changed(_result(trials, confirmed).values)
            self.values, self._metadata = values, new_metadata("knob", training, options.parameters)
            self.model_id = self._metadata.model_id
            found = Found(
                space=space, reach=reach, trials=trials, objective=objective, selected=selected, confirmed=confirmed, values=values
            )
            return report_of(
                training,
                found,
                {**options.parameters, **(load.parameters if load is not None else {})},
                log.path,
                seed=options.seed,
                model=(self.model_id, *save_values(training.folder, *self._found())),
            )

    @contextmanager
    def prepare(self, database: Database) -> Iterator[Database]:
        """
        Give a database with the settings found: the same one if sessions can set them, else one on a second server.

        On a server that is not ours, settings of the whole server hold for the baseline, too; leaving puts them back.
        """
        if self.values is None:
            raise AlgorithmError("knob tuning has no settings to prepare: train it or load a model first")
        with prepared_database(database, self.values) as prepared:
            yield prepared

    @staticmethod
    def decider(folder: Path) -> Callable[[str], Mapping[str, Any]]:
        """Return a function from SQL to the settings in a folder, which are the same for every statement."""
        values, _ = load_values(folder)
        return lambda sql: {"settings": values}

    def save(self, folder: Path) -> None:
        """Write the settings that differ from the default: `model/<model_id>/` and `metadata/<model_id>.json` below `folder`."""
        save_values(folder, *self._found())

    def load(self, folder: Path, training: Training) -> None:
        """
        Read saved settings; `ModelError` for a broken file, for another schema or other data, and for settings that this server does not
        have.
        """
        values, metadata = load_values(folder)
        metadata.check(data_fingerprint=training.data_fingerprint, schema=training.schema)
        check_known(values, metadata, training.session)
        self.values, self.model_id, self._metadata = values, metadata.model_id, metadata

    def _found(self) -> tuple[dict[str, str], Metadata]:
        if self.values is None or self._metadata is None:
            raise AlgorithmError("knob tuning has nothing to save: train it or load a model first")
        return self.values, self._metadata


def _objective(options: KnobOptions, selected: Selected, load: Load | None) -> Objective:
    count = len(selected.queries)
    objective = Objective(target=options.target, count=count)
    return objective if load is None else load.objective(objective, count)


def _about(training: Training, space: KnobSpace, options: KnobOptions, load: Load | None) -> Mapping[str, Any]:
    """Return everything that the trials depend on: a search that differs in one of them cannot use earlier trials."""
    queries = hashlib.sha256("".join(f"{query.id}\0{query.sql}\0" for query in training.queries).encode()).hexdigest()
    fingerprint = training.database.fingerprint
    parameters = {name: value for name, value in options.parameters.items() if name not in ("knob_trials", "knob_rounds")}
    return {
        "queries": queries,
        "data": fingerprint.data,
        "indexes": fingerprint.indexes,
        "build": fingerprint.build,
        "space": space.description,
        **parameters,
        **(load.parameters if load is not None else {}),
    }


def _search(space: KnobSpace, options: KnobOptions) -> Search:
    try:
        from pytest_pilotscope.algorithms.knob.search import RandomSearch, SmacSearch
    except ImportError as error:
        raise UsageError(f"knob tuning needs SMAC ({error}); install it with: pip install 'pytest-pilotscope[knob]'") from error
    if options.strategy == "random":
        return RandomSearch(space, seed=options.seed)
    return SmacSearch(space, trials=options.trials, seed=options.seed, projection=options.projection)


def _selected(log: TrialLog, key: str, trial_server: TrialServer, training: Training, options: KnobOptions) -> Selected:
    """Return the queries of every trial: those of the log, or new ones, which go to the log."""
    if log.common:
        by_id = {query.id: query for query in training.queries}
        queries = tuple(by_id[query_id] for query_id in log.common["queries"])
        return Selected(queries=queries, default_s=tuple(log.common["default_s"]), too_long=log.common["too_long"])
    selected = select_queries(trial_server.session, training.queries, trial_s=options.trial_s, seed=options.seed)
    ids = [query.id for query in selected.queries]
    log.begin(key, {"queries": ids, "default_s": selected.default_s, "too_long": selected.too_long})
    return selected


def _confirm(
    training: Training, trial_server: TrialServer, trials: list[Trial], options: KnobOptions, load: Load | None
) -> Interval | None:
    """
    Measure the best trial against the default, in turns, on the validation queries (the training ones where there are none).

    Return None if no trial was better than the default.
    """
    best = best_trial(trials)
    if best.number == 0:
        return None
    queries: list[Query] = list(training.validation or training.queries)
    with training.database.measuring_session() as default:
        selected = select_queries(default, queries, trial_s=options.trial_s, seed=options.seed)
        trial_server.apply(best.values)
        if load is not None:
            candidate, original = partial(trial_server.clients, load), partial(load_sessions, training.database, load, {})
            return compare_loaded(original, candidate, selected, _objective(options, selected, load), load)
        return compare(default, trial_server.session, selected, target=options.target, rounds=options.rounds, seed=options.seed)


def _result(trials: list[Trial], confirmed: Interval | None) -> Trial:
    """Return the best trial if the second measurement confirms it (interval below 1), else the default."""
    if confirmed is not None and confirmed.high < 1:
        return best_trial(trials)
    if confirmed is not None:
        logger.warning(
            "the best settings of the search are not better than the default when measured in turns (%.3f times as long, 95 %% interval "
            "%.3f to %.3f); the default stays",
            confirmed.estimate,
            confirmed.low,
            confirmed.high,
        )
    return trials[0]

"""The algorithm `knob`: tunes the server's settings on the training queries and prepares a database that runs with them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.algorithms.knob.measuring import Selected, compare, select_queries
from pytest_pilotscope.algorithms.knob.objective import Objective
from pytest_pilotscope.algorithms.knob.options import KnobOptions
from pytest_pilotscope.algorithms.knob.records import Found, report_of
from pytest_pilotscope.algorithms.knob.space import KnobSpace
from pytest_pilotscope.algorithms.knob.stage import Stage, open_stage, prepared_database, reach_of, space_of
from pytest_pilotscope.algorithms.knob.storage import check_known, load_values, save_values
from pytest_pilotscope.algorithms.knob.trials import Trial, TrialLog, best_trial, open_log, search_key
from pytest_pilotscope.algorithms.knob.tuner import Tuner
from pytest_pilotscope.algorithms.storage import Metadata, schema_fingerprint
from pytest_pilotscope.errors import AlgorithmError, UsageError
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import TrainingReport
from pytest_pilotscope.statistics.ratios import Interval

if TYPE_CHECKING:
    from pytest_pilotscope.algorithms.knob.search import Search
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.provision.database import Database

UNFINISHED = "unfinished"
"""Folder below that of the records where searches that were interrupted wait to be resumed."""

logger = logging.getLogger(__name__)


class KnobTuning:
    """
    Takes over the settings: SMAC on the times of training queries, confirmed against the default on validation queries.

    `values` are the settings that differ from the default, as text in their own units; none of them when nothing was found that is better.
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
        """What cannot be tuned on a server, and why, for the header; empty when everything can."""
        with database.session() as session:
            return reach_of(database, session).limit

    def train(self, training: Training) -> TrainingReport:
        """
        Search, or go on with a search that was killed, then measure what was found against the default in turns.

        Raises `AlgorithmError` when there are no training queries, none that is short enough, or no knob to tune.
        """
        options = self._options or KnobOptions(**training.options, seed=training.settings.seed)
        if not training.queries:
            raise AlgorithmError("knob tuning has no training queries; raise --training-size or give a workload that has some")
        with training.database.session() as session:
            reach = reach_of(training.database, session)
            space = space_of(session, reach, options.names)
        search = _search(space, options)
        key = search_key(_about(training, space, options))
        with (
            open_log(training.settings.results / UNFINISHED, key) as log,
            open_stage(training.database, space, reach) as stage,
        ):
            selected = _selected(log, key, stage, training, options)
            objective = Objective(target=options.target, count=len(selected.queries))
            tuner = Tuner(space=space, stage=stage, search=search, log=log, objective=objective, selected=selected, cap=options.cap)
            with training.pool() as pool, training.progress("tuning knobs", options.trials) as advance:
                if pool is None:
                    tuner.run(options.trials, advance)
                else:
                    tuner.run_on(pool, reach, options.trials, advance)
            trials = log.trials[: options.trials]
            confirmed = _confirm(training, stage, trials, options)
            values = space.changed(_result(trials, confirmed).values)
            self._take(values, training, options)
            found = Found(
                space=space, reach=reach, trials=trials, objective=objective, selected=selected, confirmed=confirmed, values=values
            )
            return report_of(training, found, options, log.path, model=(self.model_id, *save_values(training.folder, *self._found())))

    @contextmanager
    def prepare(self, database: Database) -> Iterator[Database]:
        """
        Give a database that runs with the settings found: the same one where sessions can set them, else one on a second server.

        On a server that is not ours, settings of the whole server hold for the baseline, too, and are put back on leaving.
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
        Read what `save` wrote; `ModelError` for a broken file, for one of another schema or other data, and for settings that this server
        does not have.
        """
        values, metadata = load_values(folder)
        metadata.check(data_fingerprint=training.data_fingerprint, schema=training.schema)
        check_known(values, metadata, training.session)
        self.values, self.model_id, self._metadata = values, metadata.model_id, metadata

    def _take(self, values: dict[str, str], training: Training, options: KnobOptions) -> None:
        self.values = values
        self.model_id = f"knob_{datetime.now().astimezone():%Y%m%d_%H%M%S}"
        self._metadata = Metadata(
            model_id=self.model_id,
            data_fingerprint=training.data_fingerprint,
            schema_fingerprint=schema_fingerprint(training.schema),
            training=options.parameters,
        )

    def _found(self) -> tuple[dict[str, str], Metadata]:
        if self.values is None or self._metadata is None:
            raise AlgorithmError("knob tuning has nothing to save: train it or load a model first")
        return self.values, self._metadata


def _about(training: Training, space: KnobSpace, options: KnobOptions) -> Mapping[str, Any]:
    """What makes this search this one: with anything else, earlier trials mean nothing."""
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
    }


def _search(space: KnobSpace, options: KnobOptions) -> Search:
    try:
        from pytest_pilotscope.algorithms.knob.search import RandomSearch, SmacSearch
    except ImportError as error:
        raise UsageError(f"knob tuning needs SMAC ({error}); install it with: pip install 'pytest-pilotscope[knob]'") from error
    if options.strategy == "random":
        return RandomSearch(space, seed=options.seed)
    return SmacSearch(space, trials=options.trials, seed=options.seed, projection=options.projection)


def _selected(log: TrialLog, key: str, stage: Stage, training: Training, options: KnobOptions) -> Selected:
    """The queries of every trial: those of the log, or drawn now and written to it."""
    if log.common:
        by_id = {query.id: query for query in training.queries}
        queries = tuple(by_id[query_id] for query_id in log.common["queries"])
        return Selected(queries=queries, default_s=tuple(log.common["default_s"]), too_long=log.common["too_long"])
    selected = select_queries(stage.session, training.queries, trial_s=options.trial_s, seed=options.seed)
    ids = [query.id for query in selected.queries]
    log.begin(key, {"queries": ids, "default_s": selected.default_s, "too_long": selected.too_long})
    return selected


def _confirm(training: Training, stage: Stage, trials: list[Trial], options: KnobOptions) -> Interval | None:
    """
    Measure the best trial against the default, in turns, on the validation queries (the training ones where there are none).

    None when no trial was better than the default.
    """
    best = best_trial(trials)
    if best.number == 0:
        return None
    queries: list[Query] = list(training.validation or training.queries)
    with training.database.measuring_session() as default:
        selected = select_queries(default, queries, trial_s=options.trial_s, seed=options.seed)
        stage.apply(best.values)
        return compare(default, stage.session, selected, target=options.target, rounds=options.rounds, seed=options.seed)


def _result(trials: list[Trial], confirmed: Interval | None) -> Trial:
    """The best trial if the second measurement leaves no doubt that it is better, else the default."""
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

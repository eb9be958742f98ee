"""The algorithm `mscn`: it learns from the true rows of the training queries' subplans, and replaces PostgreSQL's estimates by its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pytest_pilotscope.algorithms.devices import device
from pytest_pilotscope.algorithms.model_files import Metadata, new_metadata
from pytest_pilotscope.algorithms.mscn.estimation import TrainedModel
from pytest_pilotscope.algorithms.mscn.featurize import Featurizer
from pytest_pilotscope.algorithms.mscn.meaning import text_says, to_learn, to_steer
from pytest_pilotscope.algorithms.mscn.ragged import LabelledSubplans, labelled
from pytest_pilotscope.algorithms.mscn.saved_network import metadata_of, read_model, write_model
from pytest_pilotscope.algorithms.mscn.vocabulary import Vocabulary, read_ranges
from pytest_pilotscope.algorithms.table_samples import Samples, draw
from pytest_pilotscope.errors import AlgorithmError, ModelError, UnsupportedQuery
from pytest_pilotscope.queries.joins import JoinQuery
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import TrainingReport

if TYPE_CHECKING:
    from pytest_pilotscope.algorithms.mscn.learning import HyperParameters, Learned
    from pytest_pilotscope.labels import Labels
    from pytest_pilotscope.learning.algorithm import Cardinalities
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.meaning import Statement

logger = logging.getLogger(__name__)

_CACHED_QUERIES = 1000


class Mscn:
    """
    Multi-set convolutional network (Kipf et al., Learned Cardinalities, CIDR 2019).

    `model` works without a database; it is None before `train` or `load`.
    """

    name = "mscn"
    selection = ("best_validation_loss", True)

    def __init__(self) -> None:
        self.model_id = ""
        self.model: TrainedModel | None = None
        self._metadata: Metadata | None = None
        self._session: Session | None = None
        self._planned: dict[str, JoinQuery | UnsupportedQuery] = {}  # by text
        self._alike: WeakKeyDictionary[object, bool] = WeakKeyDictionary()  # by template: the text alone gives the planner's sets

    @property
    def inference(self) -> str | None:
        """The way in which the model computes."""
        return None if self.model is None else self.model.path

    def train(self, training: Training) -> TrainingReport:
        """Count, draw samples, learn, save; AlgorithmError if there is nothing to learn from."""
        from pytest_pilotscope.algorithms.mscn.learning import learn

        settings = training.settings
        where = device(settings.device)
        queries = list(training.queries)[: settings.training_size]
        labels = training.labels([*queries, *training.validation])
        if queries and not settings.collection and not any(query.id in labels for query in queries):
            raise AlgorithmError(
                "mscn has nothing to learn from: --no-collection was given, and the cache has no labels of "
                f"{len(queries)} training queries for this data; run once without --no-collection"
            )
        featurizer = _featurizer(training)
        samples, validation = (_samples(featurizer, part, labels) for part in (queries, training.validation))
        parameters = _hyper_parameters(training, len(samples))
        started_s = perf_counter()
        with training.progress("mscn epochs", parameters.epochs) as advance:
            learned = learn(samples, validation, widths=featurizer.widths, parameters=parameters, device=where, advance=advance)
        elapsed_s = perf_counter() - started_s
        self._take(featurizer, learned, training, parameters)
        return training.report(
            metrics=_metrics(learned),
            parameters={"model_id": self.model_id, "device": where.type, **_parameters(featurizer, parameters)},
            scalars={
                "training_time_seconds": elapsed_s,
                "batch_size": parameters.batch_size,
                **_scalars(samples, validation, labels, learned),
            },
            artifacts=write_model(training.folder, *self._trained()),
        )

    def steer_by_text(self, query: Query) -> Cardinalities | None:
        """Estimate all subplans of a plain query by its text, if `steer` has checked its template against the planner's report."""
        model, _ = self._trained()
        parsed = model.plain(query.sql)
        return None if parsed is None or not self._alike.get(parsed.template) else model.estimate_all(parsed)

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """
        Estimate the rows of the given subplans in one batch, from the planner's report of relations and joins, without its estimates.

        The first query of a template decides whether the text of the others is enough. Raises `UnsupportedQuery` for several query levels
        and for joins other than inner ones by equality, which have no features.
        """
        model, _ = self._trained()
        planned = self._meaning(query.sql, model.featurizer)
        known = [subplan for subplan in subplans if subplan <= planned.relations.keys()]
        parsed = model.plain(query.sql)
        if parsed is not None and parsed.template not in self._alike:
            self._alike[parsed.template] = text_says(planned, parsed, subplans, model.featurizer)
        rows = model.rows(planned, [planned.mask(subplan) for subplan in known])
        return dict(zip(known, rows.tolist(), strict=True))

    def _meaning(self, sql: str, featurizer: Featurizer) -> JoinQuery:
        """Return the planner's report of a query, read once for each text."""
        from pytest_pilotscope.postgres.meaning import read_meaning

        if self._session is None:
            raise ModelError("mscn has no session to ask PostgreSQL about a query; train it, or load a model")
        if sql not in self._planned:
            if len(self._planned) >= _CACHED_QUERIES:
                self._planned.clear()
            self._planned[sql] = _planned(read_meaning(self._session, sql), featurizer)
        found = self._planned[sql]
        if isinstance(found, UnsupportedQuery):
            raise UnsupportedQuery(found.reason, sql)
        return found

    @staticmethod
    def decider(folder: Path) -> Callable[[str], Cardinalities]:
        """Return a function from SQL to estimated rows by subplan, of the model in a folder, without a database."""
        return TrainedModel.load(folder).estimate

    def save(self, folder: Path) -> None:
        """Write the model below `folder`: `model/<model_id>/` and `metadata/<model_id>.json`."""
        write_model(folder, *self._trained())

    def load(self, folder: Path, training: Training) -> None:
        """Read a saved model for the database of `training`; ModelError if it is broken or belongs to another schema or other data."""
        metadata = metadata_of(folder)
        metadata.check(data_fingerprint=training.data_fingerprint, schema=training.schema)
        self.model, self._session = read_model(folder, session=training.session), training.session
        self.model_id, self._metadata = metadata.model_id, metadata

    def _take(self, featurizer: Featurizer, learned: Learned, training: Training, parameters: HyperParameters) -> None:
        from pytest_pilotscope.algorithms.mscn.model import MscnNetwork

        network = MscnNetwork(featurizer.widths, hidden=parameters.hidden_units)
        network.load_state_dict(learned.weights)
        self.model = TrainedModel(vocabulary=featurizer.vocabulary, samples=featurizer.samples, network=network)
        self._session = training.session
        about = {**asdict(parameters), "best_epoch": learned.best_epoch, "validation_loss": learned.validation_loss}
        self._metadata = new_metadata("mscn", training, about)
        self.model_id = self._metadata.model_id

    def _trained(self) -> tuple[TrainedModel, Metadata]:
        if self.model is None or self._metadata is None:
            raise ModelError("mscn has no model yet; train it, or load one")
        return self.model, self._metadata


def _hyper_parameters(training: Training, subplans: int) -> HyperParameters:
    from pytest_pilotscope.algorithms.mscn.learning import HyperParameters, batch_size_for

    options = dict(training.options)
    if options["batch_size"] == "auto":
        options["batch_size"] = batch_size_for(subplans)
    return HyperParameters(epochs=training.settings.epochs, seed=training.settings.seed, **options)


def _featurizer(training: Training) -> Featurizer:
    session, schema, seed = training.session, training.schema, training.settings.seed
    vocabulary = Vocabulary(schema=schema, ranges=read_ranges(session, schema))
    samples = Samples(draw(session, schema, seed=seed), session=session) if training.settings.sample_bitmaps else None
    return Featurizer(vocabulary, samples)


def _samples(featurizer: Featurizer, queries: Sequence[Query], labels: Labels) -> LabelledSubplans:
    """Make samples of the counted inner joins by equality; log a warning for a query that has none."""
    learnt = []
    for query in queries:
        if query.id not in labels:
            continue
        try:
            learnt.append(to_learn(labels.statements[query.id], labels[query.id], featurizer))
        except UnsupportedQuery as error:
            logger.warning("mscn does not learn from query %s: %s", query.id, error.reason)
    return labelled(featurizer, learnt)


def _planned(statement: Statement, featurizer: Featurizer) -> JoinQuery | UnsupportedQuery:
    try:
        return to_steer(statement, featurizer)
    except UnsupportedQuery as error:
        return error


def _metrics(learned: Learned) -> dict[str, list[float]]:
    return {
        "train_loss": learned.train_loss,
        "validation_loss": learned.validation_loss,
        "validation_qerror_p50": learned.validation_qerror_p50,
        "validation_qerror_p95": learned.validation_qerror_p95,
    }


def _parameters(featurizer: Featurizer, parameters: HyperParameters) -> dict[str, Any]:
    chosen = {name: value for name, value in asdict(parameters).items() if name != "epochs"}
    samples = featurizer.samples
    return {**chosen, "sample_bitmaps": samples is not None, "sample_rows": 0 if samples is None else samples.rows}


def _scalars(samples: LabelledSubplans, validation: LabelledSubplans, labels: Labels, learned: Learned) -> dict[str, int | float]:
    return {
        "num_training_queries": samples.labelled_queries,
        "num_training_samples": len(samples),
        "num_validation_samples": len(validation),
        "num_unfinished_labels": labels.unfinished,
        "num_unsupported_queries": len(labels.unsupported),
        "num_epochs_trained": len(learned.train_loss),
        "best_epoch": learned.best_epoch,
        **({"best_validation_loss": min(learned.validation_loss)} if learned.validation_loss else {}),
    }

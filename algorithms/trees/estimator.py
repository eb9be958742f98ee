"""The algorithm `trees`: boosted regression trees that learn by how much the textbook's estimate of a set of relations is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from pytest_pilotscope.algorithms.model_files import Metadata, new_metadata
from pytest_pilotscope.algorithms.planned import PlannedEstimator, Rows, counted_sets
from pytest_pilotscope.algorithms.textbook import read_textbook
from pytest_pilotscope.algorithms.trees.features import Featurizer
from pytest_pilotscope.algorithms.trees.forest import Features, Floats, HyperParameters, grow
from pytest_pilotscope.algorithms.trees.saved_forest import TrainedForest, metadata_of, read_model, write_model
from pytest_pilotscope.errors import AlgorithmError, ModelError
from pytest_pilotscope.queries.joins import JoinQuery
from pytest_pilotscope.record.results import TrainingReport

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training


class Trees(PlannedEstimator):
    """
    Gradient-boosted regression trees (Dutt et al., PVLDB 12(9), 2019), trained on the labels that `mscn` learns from.

    They tell whether a neural network is needed at all. `model` is None before `train` or `load`.
    """

    name = "trees"
    selection = ("best_validation_loss", True)

    def __init__(self) -> None:
        super().__init__()
        self.model_id = ""
        self.model: TrainedForest | None = None
        self._metadata: Metadata | None = None

    def train(self, training: Training) -> TrainingReport:
        """Count, draw samples, learn, save; AlgorithmError if there is nothing to learn from."""
        parameters = HyperParameters(seed=training.settings.seed, **training.options)
        labels = training.labels([*training.queries, *training.validation])
        learnt, checked = (counted_sets(queries, labels) for queries in (training.queries, training.validation))
        if not learnt:
            raise AlgorithmError(
                f"trees has nothing to learn from: none of {len(training.queries)} training queries has a "
                "counted inner join by equality; give other training queries, or run once without --no-collection"
            )
        textbook = read_textbook(training.session, training.schema, seed=training.settings.seed)
        featurizer = Featurizer(schema=training.schema, textbook=textbook)
        samples, validation = _samples(featurizer, learnt), _samples(featurizer, checked)
        started_s = perf_counter()
        with training.progress("regression trees", parameters.count) as advance:
            grown = grow(*samples, *validation, parameters=parameters, advance=advance)
        self.open(training)
        self.model = TrainedForest(featurizer=featurizer, forest=grown.forest)
        self._metadata = new_metadata("trees", training, asdict(parameters))
        self.model_id = self._metadata.model_id
        return training.report(
            metrics={"train_loss": grown.train_loss, "validation_loss": grown.validation_loss},
            parameters={"model_id": self.model_id, **{name: value for name, value in asdict(parameters).items() if name != "seed"}},
            scalars={
                "training_time_seconds": perf_counter() - started_s,
                "num_training_queries": len(learnt),
                "num_training_samples": len(samples[1]),
                "num_validation_samples": len(validation[1]),
                "num_trees": len(grown.forest.values),
                **({"best_validation_loss": min(grown.validation_loss)} if grown.validation_loss else {}),
            },
            artifacts=write_model(training.folder, *self._trained()),
        )

    def rows(self, query: JoinQuery, masks: Sequence[int]) -> Rows:
        """Estimate the (S,) rows of sets of relations."""
        return self._trained()[0].rows(query, masks)

    def save(self, folder: Path) -> None:
        """Write the model below `folder`: `model/<model_id>/` and `metadata/<model_id>.json`."""
        write_model(folder, *self._trained())

    def load(self, folder: Path, training: Training) -> None:
        """Read a saved model for the database of `training`; ModelError if it is broken or belongs to another schema or other data."""
        metadata = metadata_of(folder)
        metadata.check(data_fingerprint=training.data_fingerprint, schema=training.schema)
        self.open(training)
        self.model, self._metadata, self.model_id = read_model(folder, training.session), metadata, metadata.model_id

    def _trained(self) -> tuple[TrainedForest, Metadata]:
        if self.model is None or self._metadata is None:
            raise ModelError("trees has no model yet; train it, or load one")
        return self.model, self._metadata


def _samples(featurizer: Featurizer, counted: Sequence[tuple[JoinQuery, dict[int, int]]]) -> tuple[Features, Floats]:
    """Return (S, F) features of counted sets, and the (S,) logarithms of true rows over the textbook's estimate."""
    features = [featurizer.features(query, list(rows)) for query, rows in counted]
    found = np.vstack(features) if features else np.zeros((0, featurizer.width), dtype=np.float32)
    true = np.log(np.maximum(np.array([each for _, rows in counted for each in rows.values()], dtype=np.float64), 1.0))
    return found, true - found[:, 0]

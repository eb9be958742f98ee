"""Train an algorithm, or load the model that the user named."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_pilotscope.errors import AlgorithmError
from pytest_pilotscope.learning.algorithm import Algorithm, CardinalityEstimator, Persistent, PlanChooser
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.postgres.timelimit import training_limit
from pytest_pilotscope.record.results import Scalar, TrainingReport


def learn(algorithm: Algorithm, training: Training, *, given: Mapping[str, Scalar]) -> TrainingReport:
    """
    Train an algorithm, or load the model that the user named. An algorithm without models is always trained.

    `given` are the parameters in the run's header. Raise `AlgorithmError` if training reports another value for one of them, because a
    tracking store accepts only one; also if the object is not an algorithm, or reports nothing. Raise `ModelError` for a model that is
    missing, broken, or made for another schema or other data. Raise `MissingExtension` before training, if the server could not be steered
    afterwards.
    """
    check_algorithm(algorithm)
    if training.settings.measure and isinstance(algorithm, CardinalityEstimator | PlanChooser):
        from pytest_pilotscope.postgres.steering import require_extension

        require_extension(training.session)
    reference = training.settings.load_model
    try:
        with training_limit(algorithm.name, training.settings.training_timeout_s):
            if reference is None or not isinstance(algorithm, Persistent):
                report = _checked(algorithm.train(training), algorithm)
            else:
                report = _load(algorithm, training, reference)
    finally:
        training.close()
    for name in report.parameters.keys() & given.keys():
        if report.parameters[name] != given[name]:
            raise AlgorithmError(
                f"{algorithm.name} reports the parameter {name!r} as {report.parameters[name]!r}, but its run has it as {given[name]!r}; "
                "give it a name of its own"
            )
    return report


def check_algorithm(algorithm: object) -> None:
    """Raise `AlgorithmError` for an object without what every algorithm has."""
    has = {"name": isinstance(getattr(algorithm, "name", None), str), "train": callable(getattr(algorithm, "train", None))}
    if not all(has.values()):
        raise AlgorithmError(
            f"{type(algorithm).__qualname__} is no algorithm: it has no {' and no '.join(name for name in has if not has[name])}; "
            "it needs a name (a text) and a method train(training) that returns training.report()"
        )


def _checked(report: object, algorithm: Algorithm) -> TrainingReport:
    if not isinstance(report, TrainingReport):
        raise AlgorithmError(f"{algorithm.name}.train returned {report!r}; it must return training.report()")
    return report


def _load(algorithm: Persistent, training: Training, reference: str) -> TrainingReport:
    from pytest_pilotscope.tracking.models import fetch_model

    folder = fetch_model(
        reference,
        training.folder / "loaded",
        experiment=f"{training.algorithm}_{training.dataset}",
        selection=getattr(algorithm, "selection", None),
        data_fingerprint=training.data_fingerprint,
        tracking_uri=training.settings.tracking_uri,
    )
    algorithm.load(folder, training)
    left = sorted(path for path in training.folder.glob("*") if path.is_file())  # notes that `load` has written
    return training.report(parameters={"model_id": algorithm.model_id, "load_model": reference}, artifacts=left)

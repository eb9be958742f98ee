"""Train an algorithm, or load the model that the user named, on a database that it may copy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import AlgorithmError, MissingExtension, errors_of
from pytest_pilotscope.learning.algorithm import (
    A_SCALAR,
    Algorithm,
    CardinalityEstimator,
    DatabasePreparer,
    Decider,
    Persistent,
    is_finite,
    is_scalar,
    needs_library,
)
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.postgres.timelimit import training_limit
from pytest_pilotscope.record.results import Scalar, TrainingReport

if TYPE_CHECKING:
    from pytest_pilotscope.provision.database import Database

_COUNT = re.compile(r"^num_|_(calls|count)$")
"""Names of scalars that count."""


def made(name: str, makers: Iterable[Callable[[], Algorithm]]) -> list[Algorithm]:
    """Make the algorithms that are the side `name`."""
    with errors_of(name, "when it was made"):
        return [make() for make in makers]


def learn(algorithm: Algorithm, training: Training, *, given: Mapping[str, Scalar], model: Path | None = None) -> TrainingReport:
    """
    Train an algorithm, or let it load the model in a folder. An algorithm without models is always trained.

    `given` are the parameters in the run's header. Raise `AlgorithmError` if training reports another value for one of them, because a
    tracking store accepts only one; also if the object is not an algorithm, or reports nothing. Raise `ModelError` for a model that is
    missing, broken, or made for another schema or other data. Raise `MissingExtension` before training, if the server could not be steered
    afterwards.

    The report has `num_training`: the queries that were learned from, by the algorithm's own figure `num_training_queries` if it has one.
    """
    check_algorithm(algorithm)
    if training.settings.measure and needs_library(algorithm):
        from pytest_pilotscope.provision.obstacles import no_library

        if problem := no_library(training.database.server, training.database.name, algorithm.name):
            raise MissingExtension(problem)
    try:
        with errors_of(algorithm.name, "in training"), training_limit(algorithm.name, training.settings.training_timeout_s):
            if model is None or not isinstance(algorithm, Persistent):
                report = _checked(algorithm.train(training), algorithm)
            else:
                report = _load(algorithm, training, model)
    finally:
        training.close()
    learned = getattr(algorithm, "learns", True) and "load_model" not in report.parameters
    count = report.scalars.get("num_training_queries", len(training.queries)) if learned else 0
    inference = getattr(algorithm, "inference", None)
    if isinstance(inference, str):  # a third party's may be anything
        report = replace(report, parameters={**report.parameters, "inference": inference})
    report = replace(report, num_training=int(count))
    for name in report.parameters.keys() & given.keys():
        if report.parameters[name] != given[name]:
            raise AlgorithmError(
                f"{algorithm.name} reports the parameter {name!r} as {report.parameters[name]!r}, but its run has it as {given[name]!r}; "
                "give it a name of its own"
            )
    return report


@contextmanager
def copyable(database: Database, algorithms: Iterable[object], *, always: bool = False) -> Iterator[Database]:
    """Give the database; if one of these algorithms `copies` it, or `always`, give one that can be copied while our sessions are open."""
    if always or any(getattr(algorithm, "copies", False) for algorithm in algorithms):
        with database.copyable() as source:
            yield source
    else:
        yield database


def check_algorithm(algorithm: object) -> None:
    """Raise `AlgorithmError` for an object without what every algorithm has."""
    has = {"name": isinstance(getattr(algorithm, "name", None), str), "train": callable(getattr(algorithm, "train", None))}
    if not all(has.values()):
        raise AlgorithmError(
            f"{type(algorithm).__qualname__} is no algorithm: it has no {' and no '.join(name for name in has if not has[name])}; "
            "it needs a name (a text) and a method train(training) that returns training.report()"
        )
    if hasattr(algorithm, "choose") and not isinstance(algorithm, CardinalityEstimator | Decider | DatabasePreparer):
        raise AlgorithmError(
            f"{type(algorithm).__qualname__} has a method choose, which nothing calls; name it decide(query, session), and let it return "
            "Decision(rows=...) (from pytest_pilotscope import Decision)"
        )


def _checked(report: object, algorithm: Algorithm) -> TrainingReport:
    """Return a report that the record can hold; raise `AlgorithmError` for any other, with the name of the value."""
    if not isinstance(report, TrainingReport):
        raise AlgorithmError(f"{algorithm.name}.train returned {report!r}; it must return training.report()")
    for kind in ("metrics", "parameters", "scalars"):
        values = getattr(report, kind)
        if not isinstance(values, Mapping):
            raise AlgorithmError(f"{algorithm.name}.train reported the {kind} {values!r}; they must be a mapping from names to values")
        for name, value in values.items():
            if wanted := _wanted(kind, name, value):
                raise AlgorithmError(f"{algorithm.name}.train reported {value!r} in its {kind} as {name!r}; {wanted}")
    return report


def _wanted(kind: str, name: object, value: object) -> str | None:
    """Return the rule that a reported value breaks; None for a good one."""
    if not isinstance(name, str) or "\0" in name:
        return "a name must be a text without NUL"
    if kind == "metrics":
        finite = isinstance(value, Sequence) and not isinstance(value, str) and all(map(is_finite, value))
        return None if finite else "a metric must be a list of finite numbers"
    if kind == "parameters":
        return None if is_scalar(value) else f"a parameter must be {A_SCALAR}"
    if not is_finite(value):
        return "a scalar must be a finite number"
    return "a number of something cannot be negative" if _COUNT.search(name) and float(value) < 0 else None


def _load(algorithm: Persistent, training: Training, model: Path) -> TrainingReport:
    algorithm.load(model, training)
    left = sorted(path for path in training.folder.glob("*") if path.is_file())  # notes that `load` has written
    return training.report(parameters={"model_id": algorithm.model_id, "load_model": training.settings.load_model}, artifacts=left)

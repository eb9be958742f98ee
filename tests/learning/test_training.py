"""`learn` rejects broken algorithms, before and after training."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from pytest_pilotscope.errors import AlgorithmError
from pytest_pilotscope.labels import Labels
from pytest_pilotscope.learning.algorithm import Algorithm
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.measurement.supervision import Supervision
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.record.record import RecordWriter, read_record
from pytest_pilotscope.record.results import BASELINE, RunHeader, TrainingReport
from pytest_pilotscope.runs.learn import learn
from pytest_pilotscope.testing import AlgorithmContract


class Nothing:
    """A class without name and `train`."""


class Named:
    """A class without `train`."""

    name = "named"


class Silent(Named):
    """An algorithm whose `train` returns no report."""

    def train(self, training: Training) -> None:
        """Learn nothing and return no report."""


NEEDED = "it needs a name (a text) and a method train(training) that returns training.report()"
MADE_BY = "it must be the class of the algorithm, or a function without arguments that makes one"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Nothing, f"Nothing is no algorithm: it has no name and no train; {NEEDED}"),
        (Named, f"Named is no algorithm: it has no train; {NEEDED}"),
        (Silent, "named.train returned None; it must return training.report()"),
    ],
)
def test_what_is_no_algorithm(kind: type[Any], message: str, tmp_path: Path) -> None:
    """The message names what the object lacks, instead of an error of Python's."""
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}$"):
        learn(cast(Algorithm, kind()), training_of(tmp_path), given={})


def training_of(folder: Path, **limits: int) -> Training:
    """Return ten training queries and no database."""
    return Training.of(
        Workload(dataset="", train=tuple(Query(id=f"q{i}", sql="SELECT 1") for i in range(10)), validation=(), test=()),
        algorithm="mine",
        database=cast(Any, None),
        session=cast(Any, None),
        settings=Settings(**limits),  # type: ignore[arg-type]  # whole numbers only
        options={},
        folder=folder,
        progress=silent,
    )


class Reporting(Named):
    """An algorithm that reports what it is told to."""

    def __init__(self, **report: Any) -> None:
        self.told = report

    def train(self, training: Training) -> TrainingReport:
        """Report it."""
        return training.report(**self.told)


@pytest.mark.parametrize(
    ("report", "problem"),
    [
        ({"metrics": {"loss": [0.5, float("nan")]}}, "(0.5, nan) in its metrics as 'loss'; a metric must be a list of finite numbers"),
        ({"metrics": {"loss": True}}, "True in its metrics as 'loss'; a metric must be a list of finite numbers"),
        ({"metrics": {"loss": [True]}}, "(True,) in its metrics as 'loss'; a metric must be a list of finite numbers"),
        ({"metrics": {1: [0.5]}}, "(0.5,) in its metrics as 1; a name must be a text without NUL"),
        ({"metrics": True}, "the metrics True; they must be a mapping from names to values"),
        ({"scalars": {"best": 10**400}}, f"1{'0' * 400} in its scalars as 'best'; a scalar must be a finite number"),
        ({"scalars": {"best": float("inf")}}, "inf in its scalars as 'best'; a scalar must be a finite number"),
        ({"scalars": {"best": True}}, "True in its scalars as 'best'; a scalar must be a finite number"),
        ({"scalars": {"best": "7"}}, "'7' in its scalars as 'best'; a scalar must be a finite number"),
        ({"scalars": {"whatif_calls": -1}}, "-1 in its scalars as 'whatif_calls'; a number of something cannot be negative"),
        ({"scalars": {"num_trees": -1}}, "-1 in its scalars as 'num_trees'; a number of something cannot be negative"),
        (
            {"parameters": {"layers": [3]}},
            "[3] in its parameters as 'layers'; a parameter must be a text without NUL, a finite number, true, false or none",
        ),
        ({"parameters": {None: 3}}, "3 in its parameters as None; a name must be a text without NUL"),
    ],
)
def test_a_report_that_the_record_could_not_hold(report: dict[str, Any], problem: str, tmp_path: Path) -> None:
    """The message names the algorithm, the value and the rule."""
    with pytest.raises(AlgorithmError, match=f"^{re.escape(f'named.train reported {problem}')}$"):
        learn(cast(Algorithm, Reporting(**report)), training_of(tmp_path), given={})


def test_numbers_of_numpy_can_be_read_again(tmp_path: Path) -> None:
    """They are written as JSON's numbers."""
    told = {"metrics": {"loss": np.array([0.5, 0.25])}, "scalars": {"steps": np.int64(3)}, "parameters": {"rate": np.float32(0.5)}}
    report = learn(cast(Algorithm, Reporting(**told)), training_of(tmp_path), given={})
    header = RunHeader(
        run_name="r", algorithm="mine", dataset="d", started_at="2026-01-01", sides=(BASELINE, "mine"), rounds=1, seed=0, suite_version="0"
    )
    with RecordWriter(tmp_path / "r.jsonl", header) as writer:
        writer.write(report)
    (read,) = read_record(tmp_path / "r.jsonl").training
    assert (read.metrics, read.scalars, read.num_training, read.parameters) == ({"loss": (0.5, 0.25)}, {"steps": 3}, 10, {"rate": 0.5})


@pytest.mark.parametrize(
    ("learns", "report", "limits", "expected"),
    [
        (True, {}, {}, 10),
        (True, {}, {"training_size": 7, "collection_size": 4}, 4),
        (True, {"scalars": {"num_training_queries": 3}}, {}, 3),
        (False, {}, {}, 0),
    ],
)
def test_the_number_of_queries_that_were_learned_from(
    learns: bool, report: dict[str, Any], limits: dict[str, int], expected: int, tmp_path: Path
) -> None:
    """It is the algorithm's own figure, else all queries that it got; none if it does not learn."""
    algorithm = Reporting(**report)
    algorithm.learns = learns  # type: ignore[attr-defined]
    assert learn(cast(Algorithm, algorithm), training_of(tmp_path, **limits), given={}).num_training == expected


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        ("doubler", f"Contract.algorithm is 'doubler'; {MADE_BY}"),
        (None, f"Contract.algorithm is None; {MADE_BY}"),
        (Named, f"Named is no algorithm: it has no train; {NEEDED}"),
    ],
)
def test_the_contract_says_what_it_tests(algorithm: Any, message: str) -> None:
    """The contract rejects an `algorithm` that is not callable or does not make an algorithm."""

    class Contract(AlgorithmContract):
        pass

    Contract.algorithm = algorithm
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}$"):
        Contract.made()


@pytest.mark.parametrize(("inference", "expected"), [("compiled", {"inference": "compiled"}), (None, {}), (len, {})])
def test_the_way_of_inference_is_a_parameter(inference: object, expected: dict[str, str], tmp_path: Path) -> None:
    """An algorithm may name it in a text; anything else of that name is its own affair."""
    algorithm = Reporting()
    algorithm.inference = inference  # type: ignore[attr-defined]
    assert learn(cast(Algorithm, algorithm), training_of(tmp_path), given={}).parameters == expected


def test_counting_takes_nothing_of_a_decisions_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An algorithm may ask for true rows while it decides, however long they take: the suite counts them, under limits of its own."""
    counted = Labels({"q1": {}}, {})

    def count(*_: object, **__: object) -> Labels:
        time.sleep(0.3)
        return counted

    monkeypatch.setattr("pytest_pilotscope.labels.cardinalities", count)
    for fact in ("schema", "data_fingerprint"):
        monkeypatch.setattr(Training, fact, property(lambda _: None))
    training = replace(training_of(tmp_path), labels_cache=tmp_path)
    with Supervision(timeout_ms=200.0).limited("mine", Query(id="q1", sql="SELECT 1")):
        assert training.labels([Query(id="q1", sql="SELECT 1")]) == counted

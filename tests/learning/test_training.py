"""`learn` rejects broken algorithms, before and after training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_pilotscope.errors import AlgorithmError
from pytest_pilotscope.learning.algorithm import Algorithm
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.queries.queries import Workload
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
    training = Training.of(
        Workload(dataset="", train=(), validation=(), test=()),
        algorithm="mine",
        database=cast(Any, None),
        session=cast(Any, None),
        settings=Settings(),
        options={},
        folder=tmp_path,
        progress=silent,
    )
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}$"):
        learn(cast(Algorithm, kind()), training, given={})


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

"""The built-in algorithms keep the contract that third parties are given (pytest_pilotscope.testing), and a broken one does not."""

from __future__ import annotations

import json
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import FunctionType

import pytest

from pytest_pilotscope.algorithms.baseline import Baseline
from pytest_pilotscope.algorithms.bound.estimator import Bound
from pytest_pilotscope.algorithms.hintset.chooser import Hintset
from pytest_pilotscope.algorithms.index.selection import IndexSelection
from pytest_pilotscope.algorithms.knob.tuning import KnobTuning
from pytest_pilotscope.algorithms.lero.chooser import Lero
from pytest_pilotscope.algorithms.mscn.estimator import Mscn
from pytest_pilotscope.algorithms.oracle import Oracle
from pytest_pilotscope.algorithms.replay.estimator import Replay
from pytest_pilotscope.algorithms.sample import Sample
from pytest_pilotscope.algorithms.trees.estimator import Trees
from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import AlgorithmError
from pytest_pilotscope.learning.algorithm import (
    CardinalityEstimator,
    DatabasePreparer,
    Decider,
    Explaining,
    LearningOn,
    Observing,
    Persistent,
    TextSteering,
)
from pytest_pilotscope.provision.database import Database
from pytest_pilotscope.queries.queries import Workload
from pytest_pilotscope.runs.learn import check_algorithm
from pytest_pilotscope.testing import AlgorithmContract


class TestBaseline(AlgorithmContract):
    """Plain PostgreSQL."""

    algorithm = Baseline


class TestOracle(AlgorithmContract):
    """True cardinalities."""

    algorithm = Oracle


class TestSample(AlgorithmContract):
    """The textbook's estimates."""

    algorithm = Sample


class TestBound(AlgorithmContract):
    """Upper bounds."""

    algorithm = Bound


class TestTrees(AlgorithmContract):
    """A learned estimator without a network."""

    algorithm = Trees


class TestReplay(AlgorithmContract):
    """Estimates from a file: here PostgreSQL's own of the first test queries, and not all of them."""

    algorithm = Replay

    @pytest.fixture(scope="class")
    @classmethod
    def workload(cls, database: Database, tmp_path_factory: pytest.TempPathFactory) -> Workload:
        """Give the queries of the dataset, and write the file of estimates."""
        assert database.dataset is not None
        workload, path = database.dataset.workload(), tmp_path_factory.mktemp("replay") / "estimates.jsonl"
        with database.session() as session, path.open("w") as file:
            for query in workload.test[: cls.test_queries]:
                for subplan, rows in list(session.subplans(query.sql).items())[1:]:
                    print(json.dumps({"query": query.id, "aliases": sorted(subplan), "rows": rows}), file=file)
        cls.settings = replace(AlgorithmContract.settings, options={"replay": {"estimates": (path,)}})
        return workload


class TestMscn(AlgorithmContract):
    """A cardinality estimator."""

    algorithm = Mscn


class TestLero(AlgorithmContract):
    """A decider."""

    algorithm = Lero


class TestHintset(AlgorithmContract):
    """A chooser of planner settings."""

    algorithm = Hintset


class TestHintsetOffline(AlgorithmContract):
    """The same, with a completed matrix that says what to run."""

    algorithm = Hintset
    settings = replace(AlgorithmContract.settings, options={"hintset": {"offline": True, "arms": "all", "networks": 1}})


class TestIndex(AlgorithmContract):
    """Indexes in a copy of the database."""

    algorithm = IndexSelection
    settings = replace(AlgorithmContract.settings, options={"index": {"width": 1}})


class TestKnob(AlgorithmContract):
    """Settings of a server of its own."""

    algorithm = KnobTuning
    settings = replace(AlgorithmContract.settings, options={"knob": {"trials": 2, "trial_s": 0.5}})


PROTOCOLS = (CardinalityEstimator, TextSteering, Decider, LearningOn, Observing, Explaining, DatabasePreparer, Persistent)
KEPT: dict[str, set[type]] = {
    "baseline": set(),
    "oracle": {CardinalityEstimator, TextSteering},
    "replay": {CardinalityEstimator, TextSteering},
    "sample": {CardinalityEstimator, TextSteering},
    "bound": {CardinalityEstimator, TextSteering},
    "trees": {CardinalityEstimator, TextSteering, Persistent},
    "mscn": {CardinalityEstimator, TextSteering, Persistent},
    "lero": {Decider, LearningOn, Observing, Explaining, Persistent},
    "hintset": {Decider, Observing, Explaining, Persistent},
    "index": {DatabasePreparer, Persistent},
    "knob": {DatabasePreparer, Persistent},
}


def methods(kind: type) -> dict[str, tuple[str, ...]]:
    """Return the public methods of a class, with the names of their parameters."""
    found = {name: value for base in reversed(kind.__mro__) for name, value in vars(base).items() if not name.startswith("_")}
    return {name: tuple(signature(value).parameters) for name, value in found.items() if isinstance(value, FunctionType)}


@pytest.mark.parametrize("name", [entry.name for entry in builtin_registry().algorithms])
def test_the_protocols_of_an_algorithm(name: str) -> None:
    """It has the methods of exactly these protocols, and they take what a run gives them."""
    made = builtin_registry().algorithm(name).resolve()()
    has = methods(type(made))
    assert {protocol for protocol in PROTOCOLS if methods(protocol).items() <= has.items()} == KEPT[name]
    assert {protocol for protocol in PROTOCOLS if methods(protocol).keys() & has.keys()} == KEPT[name]
    assert isinstance(made, Persistent) is (Persistent in KEPT[name])


README = Path(__file__).resolve().parents[2] / "README.md"

BROKEN = """
    from pathlib import Path

    from pytest_pilotscope import Decision
    from pytest_pilotscope.testing import AlgorithmContract


    class Broken:
        name = "broken"
        calls = 0

        def train(self, training):
            training.session.execute("CREATE INDEX left_behind ON users (reputation)")
            Path("elsewhere.txt").touch()
            return training.report(artifacts=[Path("elsewhere.txt")])

        def steer(self, query, subplans):
            Broken.calls += 1
            return {subplan: rows + Broken.calls for subplan, rows in subplans.items()}

        def decide(self, query, session):
            return Decision()


    class TestBroken(AlgorithmContract):
        algorithm = Broken
"""


@pytest.mark.slow
def test_a_broken_algorithm_fails(pytester: pytest.Pytester) -> None:
    """Two decisions, an artifact elsewhere, an index left behind, and another answer every time: each is a failure."""
    pytester.makepyfile(BROKEN)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rA")
    result.stdout.fnmatch_lines_random(
        [
            f"FAILED *::{name}*"
            for name in (
                "test_it_takes_over_one_decision_at_most",
                "test_what_training_reports",
                "test_training_leaves_the_server_as_it_was",
                "test_it_decides_the_same_again",
            )
        ]
    )


DECIDERS = """
    import pytest

    from pytest_pilotscope import Decision
    from pytest_pilotscope.testing import AlgorithmContract


    def decider(decide):
        class Deciding:
            name = "deciding"

            def train(self, training):
                return training.report()

            def decide(self, query, session):
                largest = max(session.subplans(query.sql), key=len)
                return decide(largest, sorted(largest))

        return Deciding


    class TestRows(AlgorithmContract):
        algorithm = decider(lambda largest, aliases: Decision(rows={largest: 7.0}))

    class TestOrder(AlgorithmContract):
        algorithm = decider(lambda largest, aliases: Decision(join_order=f"({' '.join(aliases)})", methods={largest: "hashjoin"}))

    class TestSettings(AlgorithmContract):
        algorithm = decider(lambda largest, aliases: Decision(settings={"enable_nestloop": "off", "enable_sort": "on"}))

    class TestNothing(AlgorithmContract):
        algorithm = decider(lambda largest, aliases: Decision())

    class TestWrongRows(AlgorithmContract):
        algorithm = decider(lambda largest, aliases: Decision(rows={frozenset({"nobody"}): 7.0}))

    class TestWrongOrder(AlgorithmContract):
        algorithm = decider(lambda largest, aliases: Decision(join_order=f"({aliases[0]} nobody)"))

    class TestWrongMethod(AlgorithmContract):
        algorithm = decider(lambda largest, aliases: Decision(methods={aliases[0]: "tidscan"}))

    class TestWrongSetting(AlgorithmContract):
        algorithm = decider(lambda largest, aliases: Decision(settings={"search_path": "public"}))
"""


@pytest.mark.slow
def test_a_decision_of_each_kind_keeps_it(pytester: pytest.Pytester) -> None:
    """A decision that PostgreSQL can follow passes; one that fits no query, or may not be set, fails where decisions are made only."""
    pytester.makepyfile(DECIDERS)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rA")
    failed = {line.split("::", 1)[1].split(" ")[0] for line in result.outlines if line.startswith("FAILED ")}
    wrong = ("TestWrongRows", "TestWrongOrder", "TestWrongMethod", "TestWrongSetting")
    assert failed == {
        f"{name}::{test}"
        for name in wrong
        for test in ("test_it_decides_legally_and_leaves_the_server_as_it_was", "test_it_decides_the_same_again")
    }


def test_the_old_name_of_decide_is_refused() -> None:
    """An algorithm whose only method is `choose` would be measured as PostgreSQL left alone; the message says what to write."""

    class Old:
        name = "old"

        def train(self, training: object) -> None:
            """Learn nothing."""

        def choose(self, query: object, session: object) -> dict[frozenset[str], float]:
            """Return nothing."""
            return {}

    message = (
        r"^test_the_old_name_of_decide_is_refused\.<locals>\.Old has a method choose, which nothing calls; name it "
        r"decide\(query, session\), and let it return Decision\(rows=\.\.\.\) \(from pytest_pilotscope import Decision\)$"
    )
    with pytest.raises(AlgorithmError, match=message):
        check_algorithm(Old())


def test_the_algorithm_of_the_readme_keeps_it(pytester: pytest.Pytester) -> None:
    """As the README says, in two lines."""
    example = README.read_text(encoding="utf-8").split("```python\n")[-1].split("```")[0]
    inherit = "from pytest_pilotscope.testing import AlgorithmContract\n\nclass TestDoubler(AlgorithmContract):\n    algorithm = Doubler\n"
    pytester.makepyfile(f"{example}\n{inherit}")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=5, skipped=3)

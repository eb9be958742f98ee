"""Which queries are run: from files, from the dataset, divided, generated, and listed where they cannot be steered."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_pilotscope.errors import MissingWorkload, UsageError, WorkloadError
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.provision.chosen_queries import described, given_workload, too_few
from pytest_pilotscope.queries.queries import Unmeasured, Workload
from tests.projects import measure, record_lines
from tests.toy import Toy

LEARNER = """
    from tests.toy import Toy
    from dataclasses import replace
    from pytest_pilotscope.queries.queries import Query

    class Untrained(Toy):
        def __init__(self, **_):
            super().__init__(name="untrained", database="untrained")

        def workload(self):
            given = super().workload()
            levels = Query(id="level", sql="WITH c AS MATERIALIZED (SELECT * FROM a) SELECT count(*) FROM c")
            return replace(given, train=(), validation=(), test=(*given.test, levels))

    class Learner:
        name = "learner"

        def train(self, training):
            assert (len(training.queries), len(training.validation)) == (12, 1)
            return training.report()

    def pytest_pilotscope_register(registry):
        registry.add_dataset("untrained", Untrained, origin=__name__)
        registry.add_algorithm("learner", Learner, origin=__name__)
"""


@pytest.mark.slow
def test_training_queries_are_generated_and_said(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Header and record tell of generated queries."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    result = measure(
        pytester, "--algo", "learner,oracle", "--db", "untrained", "--generate-training", "12", "--no-mlflow", "--compare", conftest=LEARNER
    )
    text = result.stdout.str()
    assert result.ret == 0, text
    assert re.search(r"untrained: 12 generated training, 1 validation and 2 test queries; \d+% of the test templates are trained on", text)
    header = record_lines(pytester.path)[0]
    assert header["tags"]["dataset.training"] == "12 generated training"


def test_a_named_workload(tmp_path: Path) -> None:
    """--workload is looked for in the folder of queries, else in that of the data; without either it cannot be meant."""
    (tmp_path / "light.sql").write_text("SELECT 1;\nINSERT INTO t VALUES (1);")
    workload = given_workload("toy", Toy(), Settings(queries_dir=tmp_path, workload="light"))
    assert [query.sql for query in workload.test] == ["SELECT 1"]
    assert given_workload("toy", Toy(), Settings(data_dir=tmp_path, workload="light")).test == workload.test
    assert next(iter(described(workload))).startswith("1 training, 1 validation and 1 test query; ")
    assert list(described(workload))[-1] == "1 is no query, so not run: q002 (INSERT where a query begins)"
    message = "--workload light is looked for in the folder of --queries-dir or --data-dir; name one of them"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        given_workload("toy", Toy(), Settings(workload="light"))


def test_no_queries() -> None:
    """A database that is no dataset brings none."""
    message = "database 'mine' is no dataset of the suite and has no queries of its own; name them with --queries-dir"
    with pytest.raises(MissingWorkload, match=f"^{re.escape(message)}$"):
        given_workload("mine", None, Settings())


def test_splits(tmp_path: Path) -> None:
    """Queries of one file are divided on request; the same query in training and test is refused."""
    (tmp_path / "all.sql").write_text("".join(f"SELECT {n};\n" for n in range(20)))
    divided = given_workload("mine", None, Settings(queries_dir=tmp_path / "all.sql", split="random"))
    assert [len(divided.train), len(divided.validation), len(divided.test)] == [14, 2, 4]
    (tmp_path / "test.sql").write_text("SELECT 7;")
    (tmp_path / "train.sql").write_text("SELECT 8; SELECT  7;")
    message = (
        "mine: query 'q001' of test is the same as 'train002' of train; remove one of them, or have the queries divided anew with "
        "--split random"
    )
    with pytest.raises(WorkloadError, match=f"^{re.escape(message)}$"):
        given_workload("mine", None, Settings(queries_dir=tmp_path))


def test_how_much_is_listed() -> None:
    """At most five are named."""
    statements = tuple(Unmeasured(id=f"q{n}", sql="DELETE FROM t", reason="DELETE") for n in range(7))
    workload = Workload(dataset="w", unmeasured=statements)
    assert list(described(workload)) == [
        "0 training, 0 validation and 0 test queries",
        "7 are no queries, so not run: q0 (DELETE), q1 (DELETE), q2 (DELETE), q3 (DELETE), q4 (DELETE) and 2 more",
    ]


def test_more_training_queries_than_there_are() -> None:
    """It is said how many there are; as many as there are is fine."""
    assert list(too_few(Toy().workload(), Settings(training_size=1, collection_size=5))) == [
        "--collection-size 5 asks for more training queries than there are: 1"
    ]

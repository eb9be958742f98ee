"""Several algorithms on one dataset take turns against one baseline; each has its own record, test and verdict."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import ServerError, TooManyLeft, UnsupportedQuery
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.record import Record, RecordWriter, read_record
from pytest_pilotscope.record.results import BASELINE, TrainingReport
from pytest_pilotscope.runs import slices
from pytest_pilotscope.runs.bench import Bench
from pytest_pilotscope.runs.cases import cases_of
from pytest_pilotscope.runs.rounds import further_rounds
from tests.projects import measure
from tests.record.building import record_of
from tests.toy import Toy


class Fair:
    """Repeats PostgreSQL's estimates."""

    name = "fair"

    def train(self, training: Training) -> TrainingReport:
        """Write a file."""
        path = training.folder / "notes.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.name)
        return training.report(parameters={"own": self.name}, artifacts=[path])

    def steer(self, query: Query, subplans: Mapping[frozenset[str], float]) -> Mapping[frozenset[str], float]:
        """Return them."""
        return subplans


class Dropout(Fair):
    """Breaks at the second query."""

    name = "dropout"

    def steer(self, query: Query, subplans: Mapping[frozenset[str], float]) -> Mapping[frozenset[str], float]:
        """Return them for the first query only."""
        if query.id != "q2":
            raise KeyError("lost")
        return subplans


class Dunce(Fair):
    """Cannot learn."""

    name = "dunce"

    def train(self, training: Training) -> TrainingReport:
        """Fail."""
        raise ValueError("cannot learn")


class Shy(Fair):
    """Leaves everything to PostgreSQL."""

    name = "shy"

    def steer(self, query: Query, subplans: Mapping[frozenset[str], float]) -> Mapping[frozenset[str], float]:
        """Return nothing."""
        raise UnsupportedQuery("no courage", query.sql)


class AlsoFair(Fair):
    """Another one."""

    name = "also-fair"


class Stopped(Fair):
    """Is told to end by the user."""

    name = "stopped"

    def steer(self, query: Query, subplans: Mapping[frozenset[str], float]) -> Mapping[frozenset[str], float]:
        """End."""
        raise KeyboardInterrupt


ALGORITHMS = (Fair, AlsoFair, Dropout, Dunce, Shy, Stopped)


def bench_of(results: Path, *names: str, **chosen: Any) -> Bench:
    """Return a bench on the toy's three queries."""
    registry = builtin_registry()
    registry.add_dataset("toy", lambda **_: Toy(test_queries=3), origin=__name__)
    for kind in ALGORITHMS:
        registry.add_algorithm(kind.name, kind, origin=__name__)
    options: dict[str, Any] = {"rounds": 2, "mlflow": False, "server": "embedded", **chosen}
    settings = Settings(algorithms=names, datasets=("toy",), results=results, **options)
    cases = cases_of(settings)
    silent: dict[str, Any] = {"say": lambda text: None, "progress": lambda text, total: nullcontext(lambda steps: None)}
    return Bench(settings=settings, registry=registry, cases=cases, to_open=Counter(cases), **silent)


def outcomes(bench: Bench) -> Iterator[tuple[str, list[str], list[str], BaseException | None]]:
    """Open every case, and yield its name, its queries, its problems and what was raised."""
    for case in bench.cases:
        queries, told, error = [], [], None
        try:
            with bench.open_run(case) as run:
                for query, problems in run.measure_all():
                    queries.append(query.id)
                    told += problems
        except (Exception, KeyboardInterrupt) as problem:
            error = problem
        yield case.name, queries, told, error


def records_in(folder: Path) -> dict[str, Record]:
    """Return the records in a folder by algorithm."""
    return {record.header.algorithm: record for record in map(read_record, folder.glob("*.jsonl"))}


def test_one_baseline_for_all(tmp_path: Path) -> None:
    """Each record has the same executions of the baseline, measured once, and says so; the rest is its algorithm's own."""
    with closing(bench_of(tmp_path, "baseline", "fair", "dropout")) as bench:
        assert [name for name, *_ in outcomes(bench)] == ["baseline-toy", "fair-toy", "dropout-toy"]
        assert [run.record.header.algorithm for run in bench.finished] == ["baseline", "fair", "dropout"]
    records = records_in(tmp_path)
    assert {name: record.header.sides for name, record in records.items()} == {
        "baseline": ("baseline",),
        "fair": ("baseline", "fair"),
        "dropout": ("baseline", "dropout"),
    }
    (shared,) = {record.header.shared_baseline for record in records.values()}
    assert shared is not None
    assert shared.startswith("fair, dropout on toy, ")
    (measured,) = {record.measured(BASELINE) for record in records.values()}
    assert Counter(run.query_id for run in measured) == {"q2": 2, "q3": 2, "q4": 2}
    assert len({record.header.tags["record_id"] for record in records.values()}) == 3
    assert records["fair"].header.parameters["algorithm"] == "fair"
    (training,) = records["fair"].training
    assert [Path(path).parent.name for path in training.artifacts] == [records["fair"].header.run_name]


def test_one_that_breaks_ends_its_own_run(tmp_path: Path) -> None:
    """The error of an algorithm is raised, as it is, by its own test; the others are measured to the end, and their runs are FINISHED."""
    with closing(bench_of(tmp_path, "baseline", "dunce", "dropout", "fair")) as bench:
        found = {name: (queries, told, error) for name, queries, told, error in outcomes(bench)}
    every = ["q2", "q3", "q4"]
    assert found["baseline-toy"] == (every, [], None)
    assert found["fair-toy"] == (every, [], None)
    queries, told, error = found["dropout-toy"]
    assert (queries, told, repr(error)) == (["q2"], [], "KeyError('lost')")
    assert [part if isinstance(part, list) else repr(part) for part in found["dunce-toy"]] == [[], [], "ValueError('cannot learn')"]
    records = records_in(tmp_path)
    assert {name: record.status for name, record in records.items()} == {
        "baseline": "FINISHED",
        "fair": "FINISHED",
        "dropout": "FAILED",
        "dunce": "FAILED",
    }
    (end,) = [record.end for name, record in records.items() if name == "dunce"]
    assert end is not None
    assert end.failures == {"dunce": "ValueError: cannot learn"}


@pytest.mark.parametrize("breaking", ["dunce", "dropout"])
def test_the_baseline_is_measured_when_no_other_side_is_left(tmp_path: Path, breaking: str) -> None:
    """Its run is its own: it has all queries, and a record that is FINISHED was measured."""
    with closing(bench_of(tmp_path, "baseline", breaking)) as bench:
        found = {name: (queries, told, error) for name, queries, told, error in outcomes(bench)}
    assert found["baseline-toy"] == (["q2", "q3", "q4"], [], None)
    records = records_in(tmp_path)
    assert {name: record.status for name, record in records.items()} == {"baseline": "FINISHED", breaking: "FAILED"}
    assert Counter(run.query_id for run in records["baseline"].measured(BASELINE)) == {"q2": 2, "q3": 2, "q4": 2}


@pytest.mark.slow
def test_one_that_leaves_too_much_fails_alone(tmp_path: Path) -> None:
    """`--max-unsteered` is checked for each run by itself."""
    with closing(bench_of(tmp_path, "shy", "fair")) as bench:
        found = {name: error for name, _, _, error in outcomes(bench)}
    assert isinstance(found["shy-toy"], TooManyLeft)
    assert str(found["shy-toy"]).startswith("shy left 3 of 3 queries (100.0%) to PostgreSQL, and --max-unsteered allows ")
    assert found["fair-toy"] is None
    assert {name: record.status for name, record in records_in(tmp_path).items()} == {"shy": "FAILED", "fair": "FINISHED"}


@pytest.mark.slow
def test_an_interrupt_ends_all(tmp_path: Path) -> None:
    """After Ctrl-C every record is KILLED, and all of them are there for the summary, also those that no test has opened."""
    with closing(bench_of(tmp_path, "fair", "stopped")) as bench:
        _, _, _, error = next(outcomes(bench))
        assert isinstance(error, KeyboardInterrupt)
        bench.conclude()
        assert {run.record.header.algorithm: run.record.status for run in bench.finished} == {"fair": "KILLED", "stopped": "KILLED"}


@pytest.mark.slow
def test_what_ends_the_measurement_ends_every_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is nobody's own, such as a lost server, is raised by the test of each algorithm."""
    from pytest_pilotscope.runs import single

    monkeypatch.setattr(single.BenchmarkRun, "_check_sessions", raises)
    with closing(bench_of(tmp_path, "baseline", "fair")) as bench:
        found = {name: repr(error) for name, _, _, error in outcomes(bench)}
    assert found == dict.fromkeys(("baseline-toy", "fair-toy"), "ServerError('the server is gone')")
    assert {record.status for record in records_in(tmp_path).values()} == {"FAILED"}


def raises(run: object, query: Query) -> None:
    """Stand for a lost server."""
    raise ServerError("the server is gone")


@pytest.mark.slow
def test_a_case_alone_is_measured_as_before(tmp_path: Path) -> None:
    """One that is opened alone, or again, has a baseline of its own; the baseline by itself is paired with itself."""
    with closing(bench_of(tmp_path / "alone", "baseline", "fair")) as bench:
        bench.to_open = Counter(bench.cases[:1])
        _, queries, _, error = next(outcomes(bench))
        assert (queries, error) == (["q2", "q3", "q4"], None)
        (record,) = records_in(tmp_path / "alone").values()
        assert record.header.sides == ("baseline", "baseline-again")
        assert record.header.shared_baseline is None
    with closing(bench_of(tmp_path / "again", "dropout", "fair")) as bench:
        list(outcomes(bench))
        ((name, *_, error), _) = outcomes(bench)
        assert (name, repr(error)) == ("dropout-toy", "KeyError('lost')")
        assert [run.record.header.shared_baseline is None for run in bench.finished] == [False, False, True, True]


@pytest.mark.slow
def test_not_opened_is_not_measured(tmp_path: Path) -> None:
    """Cases that are deselected take no turns; those with a drift, or without a measurement, have runs of their own."""
    with closing(bench_of(tmp_path, "dunce", "fair", "dropout")) as bench:
        bench.to_open = Counter(case for case in bench.cases if case.algorithms != ("dunce",))
        bench.cases = tuple(bench.to_open)
        list(outcomes(bench))
        assert set(records_in(tmp_path)) == {"fair", "dropout"}
    with closing(bench_of(tmp_path / "trained", "fair", "dropout", measure=False)) as bench:
        list(outcomes(bench))
        assert [record.header.shared_baseline for record in records_in(tmp_path / "trained").values()] == [None, None]


@pytest.mark.slow
def test_clients_take_turns_if_the_server_has_connections_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it has too few for all sides at once, each algorithm has a run by itself, as it would have alone."""
    monkeypatch.setattr(slices, "allowed_connections", lambda database: 3 * (2 + 1) + slices.RESERVED)
    for names, shared in ((("baseline", "fair", "also-fair"), True), (("fair", "also-fair", "dropout"), False)):
        with closing(bench_of(tmp_path / names[0], *names, clients=2)) as bench:
            (_, queries, *_), *_ = outcomes(bench)
            assert queries == ["q2", "q3", "q4"]
            assert {run.record.header.shared_baseline is not None for run in bench.finished} == {shared}


def test_rounds_are_added_until_every_record_is_settled(tmp_path: Path) -> None:
    """A quiet pair does not end the rounds of a noisy one that takes turns with it."""
    quiet = record_of({"baseline": {f"q{i}": [100.0, 100.1] for i in range(9)}, "a": {f"q{i}": [50.0, 50.1] for i in range(9)}})
    noisy = record_of({"baseline": {f"q{i}": [1.0, 900.0] for i in range(9)}, "b": {f"q{i}": [900.0, 1.0] for i in range(9)}})
    paths = [written(tmp_path / f"{number}.jsonl", record) for number, record in enumerate((quiet, noisy))]
    settings = Settings(rounds="auto", rounds_limit_s=1e9)
    assert list(further_rounds(settings, paths[:1], 0.0)) == []
    assert next(further_rounds(settings, paths, 0.0)) >= 2


def written(path: Path, record: Record) -> Path:
    """Write a record, and return its path."""
    with RecordWriter(path, record.header) as writer:
        for run in record.runs:
            writer.write(run)
    return path


CONFTEST = """
    class Own:
        name = "own"

        def train(self, training):
            return training.report()

        def steer(self, query, subplans):
            if query.id == "q002":
                raise KeyError("lost")
            return subplans

    class Fair(Own):
        name = "fair"

        def steer(self, query, subplans):
            return subplans

    def pytest_pilotscope_register(registry):
        registry.add_algorithm("own", Own, origin=__name__)
        registry.add_algorithm("fair", Fair, origin=__name__)
"""


@pytest.mark.slow
def test_tests_verdicts_and_clients(pytester: pytest.Pytester) -> None:
    """Each algorithm is a test with a verdict of its own; `--last-failed` measures what failed; variants and clients take turns, too."""
    chosen = ("--algo", "baseline,own,fair", "--limit", "2", "--no-mlflow")
    generous = ("--gate", "baseline", "--gate-delta", "5000%", "--gate-query-delta", "5000%")
    result = measure(pytester, *chosen, *generous, "-v", conftest=CONFTEST)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    tests = {name: f"test_workload[{name}-stats_tiny]" for name in ("baseline", "own", "fair")}
    failed = [line for line in result.outlines if line.startswith("FAILED test_workload")]
    assert [tests["own"] in line for line in failed] == [True]
    verdicts = [line.partition(":")[0] for line in result.outlines if " on stats_tiny: " in line and "gate" in line]
    assert verdicts == ["own on stats_tiny", "fair on stats_tiny", "baseline on stats_tiny"]
    again = measure(pytester, *chosen, "--last-failed", "--results", "again", conftest=CONFTEST)
    again.assert_outcomes(failed=1, deselected=2)
    assert [path.name.partition("_")[0] for path in (pytester.path / "again").glob("*.jsonl")] == ["own"]
    loaded = measure(
        pytester, "--algo", "fair", "--variant", "a:jit=on", "--clients", "2", "--no-mlflow", "--results", "loaded", conftest=CONFTEST
    )
    loaded.assert_outcomes(passed=2)
    lines = [[json.loads(line) for line in path.read_text().splitlines()] for path in (pytester.path / "loaded").glob("*.jsonl")]
    assert sorted(of[0]["sides"] for of in lines) == [["baseline", "a"], ["baseline", "fair"]]
    slices = [
        {(one["repetition"], one["duration_s"]) for one in of if one["kind"] == "time_slice" and one["side"] == BASELINE} for of in lines
    ]
    assert slices[0] == slices[1] != set()

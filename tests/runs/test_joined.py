"""Algorithms that `+` joins into one side: each learns on the database that those before it have prepared."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pytest_pilotscope import Decision
from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import AlgorithmError, UnknownName, UsageError
from pytest_pilotscope.gate.comparable import states_between
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.options.variants import variant
from pytest_pilotscope.postgres.fingerprint import fingerprint
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.provision.variants import under_conditions
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.projection import runs_of
from pytest_pilotscope.record.record import read_record
from pytest_pilotscope.record.results import TrainingReport
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.runs.bench import Bench
from pytest_pilotscope.runs.header import run_header
from pytest_pilotscope.runs.opening import benchmark_run
from pytest_pilotscope.runs.variants import register_variants
from pytest_pilotscope.tracking.publish import begin, complete
from pytest_pilotscope.tracking.tracker import MLflowTracker
from tests.projects import measure
from tests.record.building import record_of
from tests.toy import Toy

INDEXES = "SELECT array_agg(relname::text ORDER BY relname) FROM pg_class WHERE relname LIKE 'made\\_by\\_%'"


class Noting:
    """Notes the indexes and the settings that it found in training."""

    name = "noting"
    found: ClassVar[dict[str, list[object]]] = {}

    def train(self, training: Training) -> TrainingReport:
        """Look, and report a figure."""
        type(self).found[training.algorithm] = [training.session.scalar(INDEXES), training.session.scalar("SHOW work_mem")]
        path = training.folder / "notes.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(training.algorithm)
        return training.report(
            parameters={"model_id": training.algorithm}, scalars={"num_notes": 1}, metrics={"loss": [2.0, 1.0]}, artifacts=[path]
        )


class Builder(Noting):
    """Builds an index in a copy."""

    name = "builder"
    column = "v"
    copies = True

    @contextmanager
    def prepare(self, database: Database) -> Iterator[Database]:
        """Build it."""
        with database.copy() as copy:
            with copy.session() as session:
                session.execute(f"CREATE INDEX made_by_{self.name} ON a ({self.column}); ANALYZE a")
                prepared = replace(copy, fingerprint=fingerprint(session))
            yield prepared


class Second(Builder):
    """Builds another one."""

    name = "second"
    column = "t"


class Setter(Noting):
    """Sets the memory of sessions."""

    name = "setter"

    @contextmanager
    def prepare(self, database: Database) -> Iterator[Database]:
        """Change nothing but new sessions."""
        yield replace(database, session_settings={**database.session_settings, "work_mem": "7MB"})


class Other(Noting):
    """Measures on another server."""

    name = "other"

    @contextmanager
    def prepare(self, database: Database) -> Iterator[Database]:
        """Start it."""
        with database.twin({"random_page_cost": "1.5"}) as twin:
            yield twin


class Decider(Noting):
    """Decides that indexes are used; it leaves a setting behind if it is told to."""

    name = "decider"
    leaves: ClassVar[bool] = False

    def decide(self, query: Query, session: Session) -> Decision:
        """Look at its session, too."""
        type(self).found["deciding"] = [session.scalar(INDEXES), session.scalar("SHOW random_page_cost")]
        if self.leaves:
            session.execute("SET enable_sort = off")
        return Decision(settings={"enable_seqscan": "off"})


class Estimator(Noting):
    """Repeats PostgreSQL's estimates."""

    name = "estimator"

    def steer(self, query: Query, subplans: Mapping[frozenset[str], float]) -> Mapping[frozenset[str], float]:
        """Return them."""
        return subplans


KINDS: tuple[type[Noting], ...] = (Noting, Builder, Second, Setter, Other, Decider, Estimator)


@pytest.fixture(autouse=True)
def _nothing_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noting, "found", {})


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Give the toy dataset on an embedded server."""
    with open_database(PostgreSQLConfig("toy", server="embedded"), Toy()) as opened:
        yield opened


@pytest.fixture
def registry() -> Registry:
    """Return a registry of these algorithms."""
    registry = Registry()
    for kind in KINDS:
        registry.add_algorithm(kind.name, kind, origin=__name__)
    return registry


@pytest.fixture
def given(database: Database, registry: Registry, tmp_path: Path) -> dict[str, Any]:
    """Return the arguments of a run."""
    return {
        "database": database,
        "workload": Toy().workload(),
        "settings": Settings(results=tmp_path, rounds=1),
        "registry": registry,
        "progress": lambda text, steps: nullcontext(lambda done: None),
    }


def measured(given: dict[str, Any], *names: str, together: bool = False) -> Path:
    """Run a workload, and return the record."""
    with benchmark_run(*names, together=together, **given) as run:
        assert [problems for _, problems in run.measure_all() if problems] == []
    (path,) = given["settings"].results.glob("*.jsonl")
    assert isinstance(path, Path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "trained", "deciding"),
    [
        ("builder+decider", {"builder": [None, "4MB"], "decider": [["made_by_builder"], "4MB"]}, [["made_by_builder"], "4"]),
        ("setter+decider", {"setter": [None, "4MB"], "decider": [None, "7MB"]}, [None, "4"]),
        ("setter+builder+decider", {"builder": [None, "7MB"], "decider": [["made_by_builder"], "7MB"]}, [["made_by_builder"], "4"]),
        ("builder+other+decider", {"other": [["made_by_builder"], "4MB"]}, [["made_by_builder"], "1.5"]),
        ("other+builder+decider", {"builder": [None, "4MB"]}, [["made_by_builder"], "1.5"]),
        ("builder+second+decider", {"second": [["made_by_builder"], "4MB"]}, [["made_by_builder", "made_by_second"], "4"]),
    ],
)
def test_each_learns_on_what_is_prepared(
    given: dict[str, Any], database: Database, name: str, trained: dict[str, object], deciding: list[object]
) -> None:
    """Indexes of a copy, settings of sessions and another server reach whoever comes later, in training and in measuring."""
    path = measured(given, name)
    assert {part: Noting.found[part] for part in trained} == trained
    assert Noting.found["deciding"] == deciding
    record = read_record(path)
    assert [(report.side, report.algorithm) for report in record.training] == [(name, part) for part in name.split("+")]
    assert record.header.sides == ("baseline", name)
    reports = {report.side: report for report in record.reports}
    assert (reports[name].steered_ratio, reports[name].left) == (1.0, None)
    files = [Path(artifact) for report in record.training for artifact in report.artifacts]
    assert [(file.parent.name, file.read_text()) for file in files] == [(part, part) for part in name.split("+")]
    with database.session() as session:
        assert session.scalar(INDEXES) is None
        assert session.scalar("SELECT count(*) FROM pg_database WHERE datname LIKE '%toy%'") == 2


def test_two_preparers_are_a_side_that_steers_nothing(given: dict[str, Any]) -> None:
    """Their changes add up, and the plan is the only thing that they change."""
    record = read_record(measured(given, "builder+second"))
    (report,) = (report for report in record.reports if report.side == "builder+second")
    assert report.steered_ratio is None
    assert report.plan is not None
    assert Noting.found["second"] == [["made_by_builder"], "4MB"]


def test_joined_sides_take_turns_with_others(given: dict[str, Any]) -> None:
    """In a comparison each side has its own preparation; the baseline is measured as the data was loaded."""
    record = read_record(measured(given, "builder+estimator", "builder", "decider", together=True))
    assert [(report.side, report.algorithm) for report in record.training] == [
        ("builder+estimator", "builder"),
        ("builder+estimator", "estimator"),
        ("builder", None),
        ("decider", None),
    ]
    assert Noting.found["deciding"] == [None, "4"]
    ratios = {report.side: report.steered_ratio for report in record.reports}
    assert ratios == {"baseline": None, "builder+estimator": 1.0, "builder": None, "decider": 1.0}


def test_a_variant_is_joined_with_algorithms(given: dict[str, Any], database: Database, registry: Registry) -> None:
    """Its settings reach whoever comes later; the record and the runs of a comparison say what they are, and that something is learned."""
    settings = replace(given["settings"], variants=(variant("mem:work_mem=9MB"),))
    register_variants(registry, settings.variants)
    with under_conditions(database, settings) as opened:
        path = measured({**given, "database": opened, "settings": settings}, "mem+builder+decider", "mem", "decider", together=True)
    assert Noting.found["builder"] == [None, "9MB"]
    record = read_record(path)
    assert record.header.variants == {"mem+builder+decider": "work_mem=9MB", "mem": "work_mem=9MB"}
    runs = {run.header.algorithm: run.header for run in runs_of(record)}
    own = {name: (header.tags.get("variant"), header.parameters["enable_training"]) for name, header in runs.items()}
    assert own == {
        "baseline": (None, False),
        "mem+builder+decider": ("work_mem=9MB", True),
        "mem": ("work_mem=9MB", False),
        "decider": (None, True),
    }


def test_runs_joined_with_other_variants_of_one_name_are_not_comparable(
    given: dict[str, Any], database: Database, registry: Registry
) -> None:
    """A gate names both."""
    settings = [replace(given["settings"], variants=(variant(f"mem:work_mem={size}MB"),)) for size in (8, 9)]
    found = []
    for one in settings:
        with under_conditions(database, one) as opened:
            header = run_header("mem+decider", database=opened, workload=given["workload"], queries=(), settings=one)
        assert header.tags["variant"] == header.variants["mem+decider"]
        found.append(replace(record_of({side: {"q0": [10.0, 11.0, 12.0]} for side in header.sides}), header=header))
    texts = [state.text for state in states_between(*found) if state.kind == "other-conditions"]
    assert texts == ["the runs differ in mem+decider: work_mem=8MB here, work_mem=9MB in the reference"]


def test_the_decider_is_supervised_in_the_prepared_database(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that it leaves behind there ends its side, by name."""
    monkeypatch.setattr(Decider, "leaves", True)
    message = (
        "builder+decider left 1 change behind after its decision on query 'q2', so the sides would not be independent: setting enable_sort"
    )
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}"):
        measured(given, "builder+decider")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "decider+builder",
            "--algo decider+builder: decider changes nothing in the database that the next one could build on; put what prepares a "
            "database (such as index, knob) first, and at most one that decides for each query last",
        ),
        (
            "builder+estimator+decider",
            "--algo builder+estimator+decider: estimator changes nothing in the database that the next one could build on; put what "
            "prepares a database (such as index, knob) first, and at most one that decides for each query last",
        ),
        ("builder+noting", "--algo builder+noting: noting neither decides for each query nor prepares a database; leave it out"),
        ("builder+builder", "--algo builder+builder names an algorithm twice; leave one of them out"),
        ("mem+mem", "--algo mem+mem names an algorithm twice; leave one of them out"),
    ],
)
def test_what_does_not_go_together(registry: Registry, name: str, message: str) -> None:
    """A usage error says why, before anything starts."""
    register_variants(registry, Settings(variants=(variant("mem:work_mem=9MB"),)).variants)
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        registry.parts(name)


def test_names(registry: Registry) -> None:
    """An unknown part is named, and a name with a + that is registered is one algorithm."""
    with pytest.raises(UnknownName, match=r"^unknown algorithm 'bilder'; did you mean 'builder'"):
        registry.parts("bilder+decider")
    with pytest.raises(UnknownName, match=r"^unknown algorithm ''; known: "):
        registry.parts("builder+")
    registry.add_algorithm("builder+decider", Noting, origin=__name__)
    assert [part.name for part in registry.parts("builder+decider")] == ["builder+decider"]
    assert [part.name for part in builtin_registry().parts("index+knob+mscn")] == ["index", "knob", "mscn"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"load_model": "0123456789abcdef"},
            "--load-model 0123456789abcdef is one model, and index+mscn has 2; use --load-model best, which takes the best of each "
            "algorithm by itself",
        ),
        ({"dask": "local:1"}, "--dask: the workers have the data without what index prepares for index+mscn; leave --dask out"),
    ],
)
def test_options_that_joined_algorithms_cannot_have(options: dict[str, Any], message: str) -> None:
    """A model is that of one algorithm, and workers have the data as it was loaded."""
    bench = Bench(
        settings=Settings(algorithms=("index+mscn",), **options),
        registry=builtin_registry(),
        say=lambda line: None,
        progress=lambda text, steps: nullcontext(lambda done: None),
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        bench.check()


def test_a_long_name_is_cut_in_the_names_of_files(given: dict[str, Any], registry: Registry) -> None:
    """Three names of 60 characters are more than a file system takes."""
    names = [letter * 60 for letter in "abc"]
    for name, kind in zip(names, (Builder, Setter, Decider), strict=True):
        registry.add_algorithm(name, kind, origin=__name__)
    path = measured(given, "+".join(names))
    assert len(path.name) < 140
    assert read_record(path).header.algorithm == "+".join(names)


@pytest.mark.slow
def test_mlflow_has_both(given: dict[str, Any], tmp_path: Path) -> None:
    """Parameters, series and figures are named after the algorithm, each has a folder for its files, and the run its own experiment."""
    store = f"sqlite:///{tmp_path}/mlflow.db"
    record = read_record(measured(given, "builder+decider"))
    tracker = begin(record.header, tracking_uri=store)
    complete(tracker, record)
    (run,) = MLflowTracker.list_runs("builder+decider_toy", tracking_uri=store)
    assert {name: run[f"params.{name}"] for name in ("builder.model_id", "decider.model_id", "num_training")} == {
        "builder.model_id": "builder",
        "decider.model_id": "decider",
        "num_training": "1",
    }
    assert (run["metrics.builder.num_notes"], run["metrics.decider.loss"]) == (1.0, 1.0)
    assert "params.model_id" not in run
    files = {file.path for folder in ("builder", "decider") for file in tracker.client.list_artifacts(tracker.started_id, folder)}
    assert files == {"builder/notes.txt", "decider/notes.txt"}


@pytest.mark.slow
def test_selected_indexes_and_learned_estimates(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--algo index+mscn` as typed: one run with both reports, and all of MSCN's rows in plans over the selected indexes."""
    with tempfile.TemporaryDirectory(prefix="pilotscope-joined-") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("PILOTSCOPE_CACHE", folder)
        result = measure(
            pytester, "--algo", "index+mscn", "--limit", "4", "--training-size", "20", "--epochs", "2", "--index-start", "none"
        )
    assert result.ret == 0, result.stdout.str()
    (path,) = (pytester.path / "results").glob("index+mscn_stats_tiny_*.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    trained = [line for line in lines if line["kind"] == "training"]
    assert [(line["side"], line["algorithm"]) for line in trained] == [("index+mscn", "index"), ("index+mscn", "mscn")]
    assert trained[0]["metrics"]["num_indexes_selected"][-1] > 0
    reports = [line for line in lines if line["kind"] == "query_report" and line["side"] == "index+mscn"]
    assert {line["steered_ratio"] for line in reports} == {1.0}
    assert "pilotscope_" in json.dumps([line["plan"] for line in reports])

"""`pytest benchmarks --algo ... --db ...` from the command line to the records, on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.settings_note import SettingsNote, identity, note_path
from pytest_pilotscope.provision.database import steering_libraries
from pytest_pilotscope.tracking.tracker import MLflowTracker
from tests.postgres.test_embedded import VARIABLES
from tests.projects import BENCHMARK, SMALL, measure, record_lines, summary

pytestmark = pytest.mark.usefixtures("prepared_cache")


@pytest.mark.slow
def test_a_baseline_run_leaves_every_record(pytester: pytest.Pytester) -> None:
    """Record, summary, MLflow run, pytest-benchmark JSON and storage tell of the same A/A pair; pytest-benchmark reads the last two."""
    result = measure(
        pytester, "--algo", "baseline", "--queries", "q00*", "--limit", "3", "--benchmark-json=out.json", "--benchmark-autosave"
    )
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    lines = record_lines(pytester.path)
    assert [line["kind"] for line in lines[:2]] == ["header", "training"]
    assert lines[-1]["kind"] == "end"
    assert lines[-1]["status"] == "FINISHED"
    runs = [line for line in lines if line["kind"] == "query_run"]
    assert len(runs) == 3 * 2 * (1 + 2)
    assert {run["query_id"] for run in runs} == {"q001", "q002", "q003"}
    assert {run["side"] for run in runs} == {"baseline", "baseline-again"}
    assert all(run["planning_ms"] > 0 and run["execution_ms"] > 0 for run in runs)

    metrics = summary(pytester.path)["metrics"]
    assert metrics["query_count"] == 3

    store = f"sqlite:///{pytester.path}/mlflow.db"
    (run,) = MLflowTracker.list_runs("baseline_stats_tiny", tracking_uri=store)
    assert run["status"] == "FINISHED"
    assert run["metrics.test_total_time"] == pytest.approx(metrics["total_time"])
    assert run["metrics.test_speedup_ci_low"] <= run["metrics.test_speedup"] <= run["metrics.test_speedup_ci_high"]
    assert (run["params.no_ai"], run["params.direct_execution"], run["params.num_training"]) == ("True", "True", "0")
    assert (run["tags.stage"], run["tags.dataset.name"]) == ("tested", "stats_tiny")
    assert run["run_name"] == lines[0]["run_name"]
    assert run["tags.partial"] == "3 of 146 queries"
    assert MLflowTracker.get_best_run("baseline_stats_tiny", "test_total_time", True, tracking_uri=store) is None

    entries = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))["benchmarks"]
    assert [entry["name"] for entry in entries[:2]] == ["q001[baseline-stats_tiny]", "q001[baseline-again-stats_tiny]"]
    assert len(entries) == 6
    samples = [run for run in runs if run["query_id"] == "q001" and run["side"] == "baseline" and run["repetition"]]
    assert entries[0]["stats"]["data"] == [
        pytest.approx((sample["inference_ms"] + sample["planning_ms"] + sample["execution_ms"]) / 1e3) for sample in samples
    ]
    reader = [sys.executable, "-m", "pytest_benchmark"]
    compared = subprocess.run([*reader, "compare"], capture_output=True, text=True, check=True, cwd=pytester.path)
    assert "q003[baseline-again-stats_tiny]" in compared.stdout
    listed = subprocess.run([*reader, "list"], capture_output=True, text=True, check=True, cwd=pytester.path)
    assert listed.stdout.strip().endswith(".json")


@pytest.mark.slow
def test_the_terminal_shows_progress_and_a_table(pytester: pytest.Pytester) -> None:
    """A log has plain lines: the server, how many queries have ended, the table with both sides, and where the record is."""
    result = measure(pytester, "--algo", "baseline", "--limit", "2", "--no-mlflow", "--pg-version", "16")
    text = result.stdout.str()
    assert "pilotscope: stats_tiny on embedded PostgreSQL 16." in text
    assert "no assertions, optimized; statistics " in text
    assert "baseline on stats_tiny: 2/2, " in text
    assert "An A/A pair: both sides are plain PostgreSQL, so the interval is the noise of this machine." in text
    assert "MLflow: off (--no-mlflow)" in text
    assert "benchmark: " not in text.split("pilotscope ===")[-1]  # pytest-benchmark does not print our entries once more
    assert not (pytester.path / "mlflow.db").exists()


@pytest.mark.slow
def test_a_failing_query_fails_the_run_and_not_the_others(pytester: pytest.Pytester) -> None:
    """It is recorded with PostgreSQL's message, shown, the run is FAILED and the exit code 1; the other queries are measured."""
    conftest = """
        from dataclasses import replace
        from pytest_pilotscope.queries.queries import Query
        from pytest_pilotscope.datasets.stats import StatsDataset

        class Broken(StatsDataset):
            def workload(self):
                good = super().workload()
                return replace(good, test=(Query(id="bad", sql="SELECT count(*) / 0 FROM users"), good.test[0]))

        def pytest_pilotscope_register(registry):
            registry.add_dataset("broken", Broken, origin=__name__)
    """
    result = measure(pytester, "--db", "broken", conftest=conftest)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "query 'bad' failed on side 'baseline': " in result.stdout.str()
    assert "division by zero" in result.stdout.str()
    lines = record_lines(pytester.path)
    assert lines[-1]["status"] == "FAILED"
    assert sorted(lines[-1]["failures"]) == ["baseline", "baseline-again"]
    assert [line["error"] is None for line in lines if line["kind"] == "query_run" and line["query_id"] == "bad"] == [False, False]
    assert len([line for line in lines if line["kind"] == "query_run" and line["query_id"] == "q001"]) == 6
    (run,) = MLflowTracker.list_runs("baseline_broken", tracking_uri=f"sqlite:///{pytester.path}/mlflow.db")
    assert run["status"] == "FAILED"
    assert "division by zero" in run["tags.error"]
    assert "metrics.test_total_time" not in run


@pytest.mark.slow
def test_a_timed_out_query_is_censored_not_dropped(pytester: pytest.Pytester) -> None:
    """Every repetition has the limit as its time and is counted; the total is shown as a lower bound."""
    conftest = """
        from dataclasses import replace
        from pytest_pilotscope.queries.queries import Query
        from pytest_pilotscope.datasets.stats import StatsDataset

        class Slow(StatsDataset):
            def workload(self):
                return replace(super().workload(), test=(Query(id="slow", sql="SELECT pg_sleep(30)"),))

        def pytest_pilotscope_register(registry):
            registry.add_dataset("slow", Slow, origin=__name__)
    """
    result = measure(pytester, "--db", "slow", "--query-timeout-ms", "50", "--no-mlflow", conftest=conftest)
    assert result.ret == 0, result.stdout.str()
    runs = [line for line in record_lines(pytester.path) if line["kind"] == "query_run"]
    assert len(runs) == 6
    assert all(run["timed_out"] and run["execution_ms"] == 50 for run in runs)
    assert ">= 0.050" in result.stdout.str()
    assert summary(pytester.path)["metrics"]["timeout_count"] == 1


@pytest.mark.slow
def test_no_collection_without_labels_says_so(pytester: pytest.Pytester) -> None:
    """Queries without labels name the option that forbids counting; asking for more training queries than there are is reported."""
    result = measure(
        pytester, "--algo", "oracle,mscn", "--no-collection", "--training-size", "5000", "--seed", "7", "--limit", "1", "--no-mlflow"
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert {
        "pilotscope: stats_tiny: --training-size 5000 asks for more training queries than there are: 1000",
        "oracle has no rows for query 'q001': --no-collection was given, and the cache has no labels of it for this data; "
        "run once without --no-collection",
        "mscn has nothing to learn from: --no-collection was given, and the cache has no labels of 1000 training queries for this data; "
        "run once without --no-collection",
    } <= set(result.outlines)


@pytest.mark.slow
def test_a_store_that_does_not_answer_loses_nothing(pytester: pytest.Pytester) -> None:
    """The run is measured and its record whole; beside the record, and once more at the very end, it says what was not sent."""
    result = measure(pytester, "--limit", "1", "--rounds", "1", "--tracking-uri", "http://127.0.0.1:1")
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert record_lines(pytester.path)[-1]["status"] == "FINISHED"
    result.stdout.fnmatch_lines(
        [
            "baseline-again: the interval of 1 round of 1 query is too wide to be useful; measure more rounds or more queries",
            "record: results/baseline_stats_tiny_*.jsonl; MLflow: not sent (the MLflow server 'http://127.0.0.1:1' does not answer: *); "
            "the record is complete, `pilotscope sync` sends it later",
            "*= pilotscope: conclusion =*",
            "not sent to MLflow: 1 of 1 runs; `pilotscope sync` sends them, or says what is wrong",
        ]
    )


@pytest.mark.slow
def test_an_interrupt_leaves_a_whole_record_and_no_server(pytester: pytest.Pytester) -> None:
    """After Ctrl-C the record has its end, the MLflow run is KILLED, and no server process of this run is left."""
    pytester.makepyfile(test_workload=BENCHMARK)
    command = [sys.executable, "-m", "pytest", "test_workload.py", *SMALL, "--rounds", "1000000", "--limit", "1"]
    with subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        record = _first_runs(pytester.path, process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=600)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    end = json.loads(record.read_text(encoding="utf-8").splitlines()[-1])
    assert (end["kind"], end["status"]) == ("end", "KILLED")
    (run,) = MLflowTracker.list_runs("baseline_stats_tiny", tracking_uri=f"sqlite:///{pytester.path}/mlflow.db")
    assert run["status"] == "KILLED"
    assert _children_named("postgres", of=process.pid) == []


def _first_runs(folder: Path, process: subprocess.Popen[str]) -> Path:
    """Wait until the first executions are in the record."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), True)
    while process.poll() is None:
        for record in (folder / "results").glob("*.jsonl"):
            if '"query_run"' in record.read_text(encoding="utf-8"):
                return record
        time.sleep(0.1)
    raise AssertionError(process.stdout.read())


def _children_named(name: str, *, of: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return [int(pid) for pid, parent, command in rows if int(parent) == of and name in command]


def test_own_queries_on_an_own_server(pytester: pytest.Pytester, newest_server: EmbeddedServer, newest_scratch: Session) -> None:
    """A given server's database is measured as it is, with queries from files; nothing is left there, and its header says what it is."""
    newest_scratch.execute("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 1000) AS g")
    (pytester.path / "mine.sql").write_text("a\tSELECT count(*) FROM t\nb\tSELECT count(*) FROM t AS x, t AS y WHERE x.id = y.id\n")
    dsn = f"{newest_server.dsn.reveal()} dbname={newest_scratch.database}"
    result = measure(pytester, "--server", dsn, "--queries-dir", "mine.sql", "--no-mlflow")
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert f"pilotscope: {newest_scratch.database} on given PostgreSQL " in result.stdout.str()
    lines = record_lines(pytester.path)
    assert list(lines[0]["queries"]) == ["a", "b"]
    assert lines[-1]["status"] == "FINISHED"
    assert [name for (name,) in newest_scratch.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")] == ["t"]


@pytest.mark.slow
def test_indexes_for_an_own_database(pytester: pytest.Pytester, newest_server: EmbeddedServer) -> None:
    """They are selected and measured in copies, although our sessions are open in the original; it keeps its own, and no copy is left."""
    binaries = newest_server.binaries
    with EmbeddedServer(binaries, libraries=steering_libraries(binaries.bindir)) as server, server.connect() as administrator:
        administrator.execute("CREATE DATABASE mine")
        with server.connect("mine") as session:
            session.execute("CREATE TABLE t AS SELECT g AS id, g % 7 AS v FROM generate_series(1, 1000) AS g")
        (pytester.path / "test.sql").write_text("SELECT count(*) FROM t WHERE id = 3;")
        (pytester.path / "train.sql").write_text("SELECT count(*) FROM t WHERE id = 5;")
        dsn = f"{server.dsn.reveal()} dbname=mine"
        arguments = ("--algo", "index", "--server", dsn, "--queries-dir", ".", "--no-mlflow")
        refused = measure(pytester, *arguments)
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        expected = (
            "ERROR: --algo index would make the database 'pilotscope_mine_...' on this server: nobody has allowed that: add "
            "--allow-changes databases; or use --server embedded"
        )
        assert expected in refused.stderr.str()
        result = measure(pytester, *arguments, "--allow-changes", "databases")
        assert result.ret == 0, result.stdout.str() + result.stderr.str()
        assert record_lines(pytester.path)[-1]["status"] == "FINISHED"
        assert len(list(pytester.path.glob("results/*/model/*"))) == 1
        with server.connect("mine") as session:
            assert session.execute("SELECT indexname FROM pg_indexes WHERE tablename = 't'") == []
        assert administrator.execute("SELECT datname FROM pg_database WHERE datname LIKE 'mine%'") == [("mine",)]


SINGLE = "SELECT count(*) FROM t WHERE id = 3;"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("--db", "stats_tiny"),
            r"loading dataset 'stats_tiny' would make the database 'pilotscope_stats_tiny_[0-9a-f]{8}' on this server: nobody has allowed "
            r"that: add --allow-changes databases; or use --server embedded",
        ),
        (
            ("--algo", "index", "--queries-dir", "mine.sql"),
            r"--algo index would make the database 'pilotscope_scratch_\d+_\.\.\.' on this server: nobody has allowed that: "
            r"add --allow-changes databases; or use --server embedded",
        ),
        (
            ("--algo", "baseline,knob", "--queries-dir", "mine.sql", "--allow-changes", "databases"),
            r"knob tuning would change settings of the whole server with ALTER SYSTEM, and put them back at its end: nobody has allowed "
            r"that: add --allow-changes settings, or --read-only to tune settings of sessions only",
        ),
    ],
)
def test_a_given_server_is_changed_with_consent_only(
    pytester: pytest.Pytester, newest_server: EmbeddedServer, newest_scratch: Session, arguments: tuple[str, ...], expected: str
) -> None:
    """A superuser's DSN allows nothing: exit code 4 before anything is measured, and one line that says what would be done."""
    newest_scratch.execute("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 1000) AS g")
    (pytester.path / "mine.sql").write_text(SINGLE)
    state = "SELECT (SELECT array_agg(datname ORDER BY datname) FROM pg_database), (SELECT array_agg(f::text) FROM pg_file_settings AS f)"
    before = newest_scratch.execute(state)
    dsn = f"{newest_server.dsn.reveal()} dbname={newest_scratch.database}"
    result = measure(pytester, *arguments, "--server", dsn, "--no-mlflow")
    assert result.ret == pytest.ExitCode.USAGE_ERROR, result.stdout.str() + result.stderr.str()
    assert re.search(f"^ERROR: {expected}$", result.stderr.str(), re.MULTILINE), result.stderr.str()
    assert newest_scratch.execute(state) == before
    assert not list(pytester.path.glob("results/*"))


@pytest.mark.slow
def test_variables_of_libpq_are_not_measured(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on a server of ours is the same with all of them: it ends well, and has the same settings."""
    found = []
    for variables in ({}, VARIABLES):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        result = measure(pytester, "--limit", "2", "--no-mlflow", "--server", "embedded", "--results", f"of_{len(variables)}")
        assert result.ret == 0, result.stdout.str() + result.stderr.str()
        (path,) = (pytester.path / f"of_{len(variables)}").glob("*.jsonl")
        header = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
        found.append((header["server"]["provider"], header["settings"], header["fingerprints"]))
    assert found[0] == found[1]


WORRIED = """
    import logging

    class Worried:
        name = "worried"

        def train(self, training):
            for _ in range(2):
                logging.getLogger("pytest_pilotscope.algorithms.worried").warning("training is odd")
            return training.report()

    def pytest_pilotscope_register(registry):
        registry.add_algorithm("worried", Worried, origin=__name__)

    def pytest_unconfigure():
        logging.getLogger("pytest_pilotscope.odd").warning("stopping is odd")
"""


@pytest.mark.parametrize(
    ("live", "by_us", "in_all"),
    [((), (1, 1, 1), (1, 1, 1)), pytest.param(("--log-cli-level=WARNING",), (0, 0, 1), (1, 2, 1), marks=pytest.mark.slow)],
)
def test_each_warning_is_shown_once(
    live: tuple[str, ...],
    by_us: tuple[int, ...],
    in_all: tuple[int, ...],
    pytester: pytest.Pytester,
    newest_server: EmbeddedServer,
    newest_scratch: Session,
) -> None:
    """Of opening the server, of a test that passes, and of what comes after the summary; what pytest shows when it is logged, it shows."""
    here = identity(newest_scratch)
    note = note_path(here)
    note.parent.mkdir(exist_ok=True)
    SettingsNote(path=note, server=here, before={"bgwriter_delay": None}, ours={"bgwriter_delay": ["7"]}).write()
    (pytester.path / "mine.sql").write_text("SELECT 1;")
    dsn = f"{newest_server.dsn.reveal()} dbname={newest_scratch.database}"
    arguments = (
        "--algo",
        "worried",
        "--server",
        dsn,
        "--read-only",
        "--queries-dir",
        "mine.sql",
        "--generate-training=0",
        "--no-mlflow",
        *live,
    )
    result = measure(pytester, *arguments, conftest=WORRIED)
    note.unlink()
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    opening = (
        "a run that was killed had changed bgwriter_delay on this server, and this run does not put the old values back, which are in "
        f"{note}: --read-only forbids it"
    )
    text = result.stdout.str() + result.stderr.str()
    warnings = (opening, "training is odd", "stopping is odd")
    assert tuple(text.count(f"pilotscope: warning: {warning}") for warning in warnings) == by_us
    assert tuple(text.count(warning) for warning in warnings) == in_all

"""`--parallel`, `--jit` and `--cold`: conditions of production."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pilotscope.algorithms import get_baseline_preset_scheduler
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.gate.comparable import states_between
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.provision.variants import under_conditions
from pytest_pilotscope.runs.slices import check_connections
from tests.projects import measure, record_lines
from tests.record.building import record_of
from tests.toy import Toy

IN_PARALLEL = "SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0"


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Open the toy dataset as `--parallel 3 --jit` does."""
    config = PostgreSQLConfig.from_settings(Settings(server="embedded", parallel=3, jit=True), db="toy")
    with open_database(config, Toy()) as opened:
        yield opened


@pytest.mark.slow
def test_conditions_are_those_of_every_session(database: Database) -> None:
    """Sessions of the database, of a copy of it and of a second server with other settings have them; a setting given there wins."""
    shown = "SELECT current_setting('max_parallel_workers_per_gather'), current_setting('jit')"
    with database.copy() as copy, copy.measuring_session() as session:
        assert session.execute(shown) == [("3", "on")]
    with database.twin({"jit": "off", "shared_buffers": "16MB"}) as twin, twin.session() as session:
        assert session.execute(shown) == [("3", "off")]
    with database.measuring_session() as session:
        assert session.execute(shown) == [("3", "on")]
        session.execute(IN_PARALLEL)
        explained = session.execute("EXPLAIN (ANALYZE) SELECT count(*) FROM a JOIN b ON b.a = a.id")
        assert any("Workers Launched" in line for (line,) in explained)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            Settings(parallel=2000),
            "^--parallel 2000: PostgreSQL refuses max_parallel_workers_per_gather=2000: 2000 is outside the valid range for parameter "
            r'"max_parallel_workers_per_gather" \(0 .. 1024\)$',
        ),
        (
            Settings(parallel=9),
            "^--parallel 9: the server has max_worker_processes = 8; ask for at most 8, or raise it on a server of yours$",
        ),
    ],
)
def test_a_server_without_the_workers_is_refused(database: Database, settings: Settings, message: str) -> None:
    """PostgreSQL would silently start fewer."""
    with pytest.raises(UsageError, match=message), under_conditions(database, settings):
        pass


def test_caches_of_others_are_not_dropped(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of the user's, and one in a container, are refused with the reason."""
    for provider, reason in {"given": "other people may use them", "container": "its files are not on this machine"}.items():
        monkeypatch.setattr(type(database.server), "provider", provider)
        message = f"^--cold: the caches of {provider} PostgreSQL cannot be dropped: {reason}; leave it out$"
        with pytest.raises(UsageError, match=message), under_conditions(database, Settings(cold=True)):
            pass


def test_conditions_are_part_of_what_a_gate_compares() -> None:
    """Runs of different conditions are not comparable, whichever has more; runs of the same are."""
    plain = record_of({side: {"q0": [10.0, 11.0, 12.0]} for side in ("baseline", "mscn")})
    cold = replace(plain, header=replace(plain.header, conditions=Settings(parallel=0, jit=True, cold=True).conditions))
    assert [(state.kind, state.text) for state in states_between(cold, plain)] == [
        ("other-conditions", "the runs differ in their conditions: --parallel 0 --jit --cold here, none in the reference")
    ]
    assert [state.kind for state in states_between(plain, cold)] == ["other-conditions"]
    assert list(states_between(cold, cold)) == []


@pytest.mark.slow
def test_a_cold_run_reads_from_files(pytester: pytest.Pytester, cache: Path) -> None:
    """The header and the table have the conditions; a gate refuses a reference of others, before the times; from Python it is the same."""
    chosen = ("--no-mlflow", "--limit", "2", "--rounds", "3")
    result = measure(pytester, *chosen, "--cold", "--jit", "--parallel", "2", "--variant", "memory:work_mem=64MB")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(["*FINISHED, 3 rounds, seed 0, --parallel 2 --jit --cold"])
    assert record_lines(pytester.path)[0]["conditions"] == {"parallel": 2, "jit": 1, "cold": 1}
    gated = measure(pytester, *chosen, "--variant", "memory:work_mem=64MB", "--gate", "results")
    assert gated.ret == 1
    gated.stdout.fnmatch_lines(["*the runs differ in their conditions: none here, --parallel 2 --jit --cold in the reference*"])

    scheduler, _ = get_baseline_preset_scheduler(PostgreSQLConfig("stats_tiny", server="embedded", scale=0.01), use_mlflow=False)
    scheduler.settings = replace(scheduler.settings, cold=True, parallel=2)
    with scheduler:
        scheduler.execute("SELECT count(*) FROM posts")
        ((explained,),) = scheduler.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT count(*) FROM posts").rows
        plan = (json.loads(explained) if isinstance(explained, str) else explained)[0]["Plan"]
        assert (plan["Shared Hit Blocks"], plan["Shared Read Blocks"] > 0) == (0, True)
        assert scheduler.execute("SELECT current_setting('max_parallel_workers_per_gather')").rows == [("2",)]


def test_clients_that_a_server_cannot_have_are_refused(database: Database) -> None:
    """Each side needs a session for each client; two sides of one server share its connections."""
    check_connections([database, database], 20)
    message = "^--clients 40: 2 sides need 87 connections, and the server has max_connections = 60; ask for fewer clients or sides$"
    with pytest.raises(UsageError, match=message):
        check_connections([database, database], 40)


@pytest.mark.slow
def test_clients_that_a_server_cannot_have_are_refused_before_training(pytester: pytest.Pytester, cache: Path) -> None:
    """Whoever trains for an hour would else hear of it afterwards."""
    result = measure(pytester, "--limit", "1", "--algo", "index", "--clients", "40")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --clients 40: 2 sides need 87 connections, and the server has max_connections = 60; ask for fewer clients or sides"]
    )


@pytest.mark.slow
def test_clients_take_turns_in_slices(pytester: pytest.Pytester, cache: Path) -> None:
    """
    Each slice is one side with all clients, and every query has an execution of each; the table has throughput and latency.

    A side that steers replays its decisions in every session. What contradicts clients is refused before anything is measured.
    """
    for other, message in {
        "--cold": "ERROR: --cold: each client would drop the caches of the others; leave --cold or --clients out",
        "--rounds=auto": "ERROR: --rounds auto measures query by query, and --clients all queries at once; give the number of slices with "
        "--rounds",
    }.items():
        refused = measure(pytester, "--no-mlflow", "--clients", "2", other)
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        refused.stderr.fnmatch_lines([message])
    chosen = ("--no-mlflow", "--limit", "3", "--rounds", "3", "--clients", "2", "--benchmark-json", "out.json", "--report", "page.html")
    result = measure(pytester, *chosen, "--algo", "oracle", "--variant", "memory:work_mem=64MB", "--compare")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(["*FINISHED, 3 rounds, seed 0, --clients 2", "*executions/s*", "*throughput*", "*latency p95*"])
    lines = record_lines(pytester.path)
    assert lines[0]["conditions"] == {"clients": 2}
    slices = [line for line in lines if line["kind"] == "time_slice"]
    sides = ["baseline", "memory", "oracle"]
    assert [sorted(one["side"] for one in slices if one["repetition"] == number) for number in (1, 2, 3)] == [sides] * 3
    assert {one["executions"] for one in slices} == {6}
    assert [one["side"] for one in slices[:3]] != [one["side"] for one in slices[3:6]]
    runs = [line for line in lines if line["kind"] == "query_run" and line["repetition"] == 2 and line["side"] == "oracle"]
    assert sorted((run["query_id"], run["client"]) for run in runs) == [(f"q00{query}", client) for query in (1, 2, 3) for client in (1, 2)]

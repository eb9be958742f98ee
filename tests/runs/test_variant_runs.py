"""`--variant` through a whole pytest session on a real PostgreSQL."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pilotscope.algorithms import get_variant_preset_scheduler
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.gate.comparable import states_between
from pytest_pilotscope.postgres.binaries import available_binaries
from pytest_pilotscope.provision.database import PostgreSQLConfig
from pytest_pilotscope.record.projection import runs_of
from pytest_pilotscope.record.results import QueryReport
from pytest_pilotscope.report.remarks import variant_remarks
from pytest_pilotscope.statistics.summary import summarize
from pytest_pilotscope.tracking.tracker import MLflowTracker
from tests.projects import measure, record_lines
from tests.record.building import record_of

CHOSEN = ("--limit", "3", "--rounds", "3")


@pytest.mark.slow
def test_variants_of_settings_are_one_table(pytester: pytest.Pytester, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Two variants and an algorithm take turns with the baseline; record, table, page, benchmark JSON, MLflow and gate know each by its name.

    A run of the same variants passes a gate or fails by its figures; one with another value under the same name is not comparable.
    """
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    both = ("--variant", "geqo:geqo_threshold=2", "--variant", "jit:jit=on")
    result = measure(pytester, *CHOSEN, *both, "--algo", "oracle", "--compare", "--report", "page.html", "--benchmark-json", "out.json")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(["*baseline*oracle*geqo*jit*", "geqo: geqo_threshold=2", "jit: jit=on"])
    header = record_lines(pytester.path)[0]
    assert (header["sides"], header["variants"]) == (
        ["baseline", "oracle", "geqo", "jit"],
        {"geqo": "geqo_threshold=2", "jit": "jit=on"},
    )
    assert "geqo_threshold=2" in (pytester.path / "page.html").read_text(encoding="utf-8")
    names = [entry["name"] for entry in json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))["benchmarks"]]
    assert any("geqo" in name for name in names)
    (run,) = MLflowTracker.list_runs("geqo_stats_tiny", tracking_uri=f"sqlite:///{pytester.path}/mlflow.db")
    assert (run["params.variant"], run["params.enable_training"], run["tags.variant"]) == ("geqo_threshold=2", "False", "geqo_threshold=2")

    gate = ("--no-mlflow", "--gate", "out.json", "--gate-delta", "1000%", "--gate-query-delta", "10000%")
    passed = measure(pytester, *CHOSEN, *both, *gate)
    assert passed.ret == 0, passed.stdout.str()
    refused = measure(pytester, *CHOSEN, "--variant", "geqo:geqo_threshold=3", *gate)
    assert refused.ret == 1
    refused.stdout.fnmatch_lines(["*the runs differ in geqo: geqo_threshold=3 here, geqo_threshold=2 in the reference*"])


@pytest.mark.slow
@pytest.mark.parametrize("major", [16, 15])
def test_builds_take_turns(pytester: pytest.Pytester, cache: Path, major: int) -> None:
    """Another major version and a setting are sides of one run; the table says that the pairs of the build are between servers."""
    if all(one.major != major for one in available_binaries()):
        pytest.skip(f"no PostgreSQL {major} on this machine")
    result = measure(pytester, *CHOSEN, "--no-mlflow", "--variant", f"old@{major}", "--variant", "geqo:geqo_threshold=2")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            f"pilotscope: variant old on embedded PostgreSQL {major}.*: the same data on another server",
            f"old: PostgreSQL {major}.* (embedded; *), on a server of its own: its pairs are between servers, so differences*",
            "geqo: geqo_threshold=2",
        ]
    )
    lines = record_lines(pytester.path)
    assert (lines[0]["sides"], lines[0]["other_servers"]) == (["baseline", "old", "geqo"], ["old"])
    first = [line for line in lines if line.get("query_id") == "q001"]
    rounds = [[line["side"] for line in first if line.get("repetition") == number] for number in (1, 2)]
    assert rounds[0] != rounds[1]
    assert {len(sides) for sides in rounds} == {3}


@pytest.mark.slow
def test_a_wrong_variant_ends_a_session_before_it_measures(pytester: pytest.Pytester, cache: Path) -> None:
    """Exit code 4, one sentence, no record; also for the name of an algorithm and a name that records use."""
    for text, message in {
        "x:jti=on": "ERROR: --variant x: PostgreSQL has no setting 'jti'; did you mean 'jit'*",
        "mscn:jit=on": "ERROR: algorithm 'mscn' is registered twice: by pytest-pilotscope and by --variant mscn; rename one of them",
        "compare:jit=on": "ERROR: algorithm 'compare' (registered by --variant compare): records use this name themselves; rename it",
    }.items():
        result = measure(pytester, "--no-mlflow", "--variant", text)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([message])
    calibrated = measure(pytester, "--no-mlflow", "--calibrate", "--variant", "a:jit=on")
    calibrated.stderr.fnmatch_lines(["ERROR: --calibrate measures PostgreSQL against itself; leave --algo, --variant and --compare out"])
    assert not (pytester.path / "results").exists()


@pytest.mark.slow
def test_a_variant_runs_from_python(cache: Path) -> None:
    """Its scheduler runs statements with its settings; a wrong one is refused before there is a server, or before the first statement."""
    config = PostgreSQLConfig("stats_tiny", server="embedded", scale=0.01)
    scheduler, _ = get_variant_preset_scheduler(config, "geqo:geqo_threshold=2", use_mlflow=False)
    with scheduler:
        assert scheduler.execute("SELECT current_setting('geqo_threshold')").rows == [("2",)]
    with pytest.raises(UsageError, match=r"^variants: expected NAME"):
        get_variant_preset_scheduler(config, "geqo", use_mlflow=False)
    several, _ = get_variant_preset_scheduler(config, "a:jit=on", use_mlflow=False)
    several.settings = replace(several.settings, clients=2)
    with pytest.raises(UsageError, match=r"^a scheduler runs one statement at a time, so that it cannot have clients=...; leave it out$"):
        several.execute("SELECT 1")
    wrong, _ = get_variant_preset_scheduler(config, "x:jti=on", use_mlflow=False)
    with pytest.raises(UsageError, match=r"^--variant x: PostgreSQL has no setting 'jti'"), wrong:
        pass


def test_plans_that_cost_the_same_are_tied() -> None:
    """Of plans that differ, those with equal costs are named; a plan that costs more is another one, and the same plan is no tie."""
    record = record_of({side: {f"q{i}": [10.0, 11.0] for i in range(3)} for side in ("baseline", "mscn")})
    plans = {"q0": ("b", 100.0), "q1": ("b", 101.0), "q2": ("a", 100.0)}
    reports = [
        *(QueryReport(query_id=query_id, side="baseline", plan_shape="a", plan_cost=100.004) for query_id in plans),
        *(QueryReport(query_id=query_id, side="mscn", plan_shape=shape, plan_cost=cost) for query_id, (shape, cost) in plans.items()),
    ]
    record = replace(record, reports=tuple(reports))
    against = summarize(record).sides["mscn"].against
    assert against is not None
    assert against.plans is not None
    assert (against.plans.changed, against.plans.tied) == (2, ("q0",))
    assert [remark.text for remark in variant_remarks(record, summarize(record))] == [
        "mscn: plans that differ from the baseline's by ties of cost only: q0"
    ]


def test_a_variant_is_part_of_its_run_of_a_comparison() -> None:
    """Each run of a record of several has its own variant only, and runs whose variants differ are not comparable."""
    record = record_of({side: {"q0": [10.0, 11.0, 12.0]} for side in ("baseline", "a", "b")}, algorithm="compare")
    header = replace(record.header, variants={"a": "jit=on", "b": "PostgreSQL 16.4"}, other_servers=("b",))
    runs = {run.header.algorithm: run for run in runs_of(replace(record, header=header))}
    assert {name: (dict(run.header.variants), run.header.other_servers) for name, run in runs.items()} == {
        "baseline": ({}, ()),
        "a": ({"a": "jit=on"}, ()),
        "b": ({"b": "PostgreSQL 16.4"}, ("b",)),
    }
    other = replace(runs["a"], header=replace(runs["a"].header, variants={"a": "jit=off"}))
    assert [(state.kind, state.text) for state in states_between(other, runs["a"])] == [
        ("other-conditions", "the runs differ in a: jit=off here, jit=on in the reference")
    ]
    assert [remark.text for remark in variant_remarks(runs["b"], summarize(runs["b"]))] == [
        "b: PostgreSQL 16.4, on a server of its own: its pairs are between servers, so differences of the servers count, too"
    ]

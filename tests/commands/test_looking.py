"""`pilotscope list`, `runs`, `best` and `compare` on a real store."""

from __future__ import annotations

import json
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pytest_pilotscope.commands.differences import Result, compare
from pytest_pilotscope.commands.two_runs import experiment_names
from pytest_pilotscope.record.projection import COMPARISON
from pytest_pilotscope.statistics.direction import direction
from pytest_pilotscope.tracking import find
from tests.commands.conftest import AddRun, Command, WriteRecord


def test_list_shows_every_experiment_with_its_newest_run(pilotscope: Command, add_run: AddRun) -> None:
    """The table is aligned and uncut; MLflow's own empty experiment is left out."""
    add_run("mscn_toy", "mscn_toy_20260102_030405")
    add_run("mscn_toy", "mscn_toy_20260102_050405", hour=2, status="FAILED")
    add_run("baseline_toy", "baseline_toy_20260102_030405")
    result = pilotscope("list")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "experiment    runs  newest run                    status    started (UTC)\n"
        "baseline_toy     1  baseline_toy_20260102_030405  FINISHED  2026-01-02 03:04\n"
        "mscn_toy         2  mscn_toy_20260102_050405      FAILED    2026-01-02 05:04\n"
    )


def test_list_reads_a_local_store_without_mlflow(pilotscope: Command, add_run: AddRun, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers at once, because MLflow's imports take seconds; what it says is what MLflow's client says."""
    add_run("mscn_toy", "mscn_toy_20260102_030405", metrics={"a": 1.5, "b": inf, "c": 1e-300}, params={"x": "y z"}, tags={"ä": "ö"})
    MlflowClient(store).delete_run(add_run("mscn_toy", "mscn_toy_20260102_050405", hour=2, metrics={"a": 2.5}, status="KILLED"))
    add_run("gone", "gone_20260102_030405")
    MlflowClient(store).delete_experiment("2")
    MlflowClient(store).create_experiment("empty")
    program = "import sys; from pytest_pilotscope.commands.cli import cli; cli(['list', '--json'], standalone_mode=False); "
    program += "assert 'mlflow' not in sys.modules"
    listed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert listed.stderr == ""
    monkeypatch.setattr(find, "read_experiments", lambda path, limit: None)
    assert json.loads(listed.stdout) == json.loads(pilotscope("list", "--json").stdout)
    assert [(one["name"], one["runs"]) for one in json.loads(listed.stdout)] == [("empty", 0), ("mscn_toy", 1)]


def test_list_of_an_empty_store_says_how_to_fill_it(pilotscope: Command, store: str) -> None:
    """Without experiments, the output names the command that makes one."""
    assert pilotscope("list").stdout == "no experiments yet; a benchmark makes one: pytest benchmarks --algo baseline --db stats_tiny\n"
    assert json.loads(pilotscope("list", "--json").stdout) == []


def test_looking_makes_no_store(pilotscope: Command, workplace: Path) -> None:
    """In a wrong folder, reading must not leave an empty store behind."""
    result = pilotscope("list")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: there is no MLflow store: {workplace}/mlflow.db does not exist; run a benchmark first, or name the store with "
        "--tracking-uri or MLFLOW_TRACKING_URI\n"
    )
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ["compare", "nosuch", "other"],
            "Error: no run 'nosuch': there is no MLflow store {store}; check the name, --tracking-uri and --results\n",
        ),
        (
            ["runs", "nosuch"],
            "Error: unknown experiment 'nosuch': there is no MLflow store {store}; check --tracking-uri, or run a benchmark first\n",
        ),
        (
            ["best", "nosuch"],
            "Error: unknown experiment 'nosuch': there is no MLflow store {store}; check --tracking-uri, or run a benchmark first\n",
        ),
    ],
)
def test_a_name_without_a_store_is_wrong_usage(command: list[str], said: str, pilotscope: Command, workplace: Path) -> None:
    """A name that is nowhere ends with exit code 2, whether there is a store or not."""
    result = pilotscope(*command)
    assert (result.exit_code, result.stderr) == (2, said.format(store=workplace / "mlflow.db"))


def test_a_file_that_is_no_store_is_named(pilotscope: Command, workplace: Path) -> None:
    """The database's own error comes without its statement and stack."""
    (workplace / "other.db").write_bytes(b"no database " * 100)
    result = pilotscope("list", "--tracking-uri", "sqlite:///other.db")
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: the MLflow store could not be used for 'sqlite:///{workplace}/other.db': (sqlite3.DatabaseError) file is not a database\n",
    )


def test_a_dead_server_is_noticed_at_once_and_its_password_stays_hidden(pilotscope: Command) -> None:
    """MLflow by itself would retry for minutes."""
    result = pilotscope("list", "--tracking-uri", "http://me:geheim@127.0.0.1:1")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: the MLflow server 'http://me:***@127.0.0.1:1' does not answer: Connection refused; check the address, "
        "or name another store with --tracking-uri\n",
    )


def test_runs_are_newest_first_and_limited(pilotscope: Command, add_run: AddRun) -> None:
    """The table has the main figures; a missing one is a dash."""
    figures = {"test_total_time": 12.3456, "test_speedup": 1.25, "test_speedup_ci_low": 1.2, "test_speedup_ci_high": 1.3}
    ids = [add_run("mscn_toy", f"run{hour}", hour=hour) for hour in range(2)]
    ids.append(add_run("mscn_toy", "run2", hour=2, metrics=figures, tags={"partial": "4 of 146 queries"}))
    result = pilotscope("runs", "mscn_toy", "--limit", "2")
    assert result.stdout == (
        "run       name  status    started (UTC)     took s   queries  total s  p95 s  speed-up      interval  timeouts  errors\n"
        f"{ids[2][:8]}  run2  FINISHED  2026-01-02 05:04      90  4 of 146   12.346      -     1.250  1.200..1.300         -       -\n"
        f"{ids[1][:8]}  run1  FINISHED  2026-01-02 04:04      90         -        -      -         -             -         -       -\n"
    )
    listed = json.loads(pilotscope("runs", "mscn_toy", "--json").stdout)
    assert [run["run_id"] for run in listed] == ids[::-1]
    assert listed[0]["metrics.test_speedup"] == 1.25
    assert listed[0]["start_time"] == "2026-01-02T05:04:05+00:00"


def test_an_unknown_experiment_lists_the_near_ones(pilotscope: Command, add_run: AddRun) -> None:
    """The message for a typo suggests near names."""
    add_run("mscn_toy", "run")
    for command in ("runs", "best"):
        result = pilotscope(command, "mscn_tiy")
        assert result.exit_code == 2
        assert result.stderr == "Error: unknown experiment 'mscn_tiy'; did you mean 'mscn_toy'? known: Default, mscn_toy\n"


def test_best_goes_by_the_direction_of_the_metric(pilotscope: Command, add_run: AddRun) -> None:
    """By default the smallest time and the largest speed-up are the best; an option overrides it."""
    slow = add_run("lero_toy", "slow", metrics={"test_total_time": 9.0, "test_speedup": 0.5}, params={"seed": 7})
    fast = add_run(
        "lero_toy", "fast", metrics={"test_total_time": 3.0, "test_speedup": 1.5}, params={"seed": 8, "algorithm": "lero", "limit": None}
    )
    artifacts = json.loads(pilotscope("best", "lero_toy", "--json").stdout)["artifact_uri"]
    assert pilotscope("best", "lero_toy").stdout == (
        "test_total_time = 3 s, the smallest of the finished runs\n"
        f"run {fast}  fast\n"
        f"artifacts {artifacts}\n"
        "\n"
        "parameter  value\n"
        "algorithm  lero\n"
        "seed       8\n"
    )
    for expected, arguments in (
        (fast, ["--metric", "test_speedup"]),
        (slow, ["--maximize"]),
        (slow, ["--metric", "test_speedup", "--minimize"]),
    ):
        assert json.loads(pilotscope("best", "lero_toy", "--json", *arguments).stdout)["run_id"] == expected


def test_best_leaves_out_what_measured_a_part(pilotscope: Command, add_run: AddRun) -> None:
    """A run of a few queries is not compared with complete runs; `--partial` includes it, and the message mentions it."""
    part = add_run("mscn_toy", "part", metrics={"test_total_time": 1.0}, tags={"partial": "4 of 146 queries"})
    result = pilotscope("best", "mscn_toy")
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: experiment 'mscn_toy' has no finished run of the whole workload with 'test_total_time', only runs of some of its queries; "
        "use --partial to include these\n",
    )
    whole = add_run("mscn_toy", "whole", metrics={"test_total_time": 9.0})
    assert json.loads(pilotscope("best", "mscn_toy", "--json").stdout)["run_id"] == whole
    assert json.loads(pilotscope("best", "mscn_toy", "--json", "--partial").stdout)["run_id"] == part


def test_best_says_why_there_is_none(pilotscope: Command, add_run: AddRun) -> None:
    """A missing metric and a missing finished run have different messages."""
    add_run("mscn_toy", "run", metrics={"test_total_time": 1.0})
    result = pilotscope("best", "mscn_toy", "--metric", "test_total_tiem")
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: unknown metric 'test_total_tiem' of experiment 'mscn_toy'; did you mean 'test_total_time'? known: test_total_time\n",
    )
    assert pilotscope("best", "mscn_toy", "--metric", "a`b").exit_code == 2
    add_run("lero_toy", "run", metrics={"test_total_time": 1.0}, status="FAILED")
    result = pilotscope("best", "lero_toy")
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: experiment 'lero_toy' has no finished run; `pilotscope runs lero_toy` shows the others\n",
    )


def test_compare_shows_differences_and_which_way_they_are_good(pilotscope: Command, add_run: AddRun) -> None:
    """Runs by the beginning of an id or by name; better and worse by the metric's direction; parameters equal or not."""
    common = {"seed": 7, "rounds": 5}
    first = add_run(
        "mscn_toy",
        "old",
        metrics={"test_total_time": 10.0, "test_speedup": 1.5, "rounds_run": 5, "test_timeout_count": 0},
        params={**common, "num_epoch": 50},
        tags={"fingerprint.build": "a", "fingerprint.data": "x"},
    )
    second = add_run(
        "mscn_toy",
        "new",
        metrics={"test_total_time": 8.0, "test_speedup": 1.25, "rounds_run": 6, "test_timeout_count": 0, "steered_ratio": 1},
        params={**common, "num_epoch": 100, "lr": 0.5},
        tags={"fingerprint.build": "b", "fingerprint.data": "x"},
        status="FAILED",
    )
    result = pilotscope("compare", first[:12], "new")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "        name  status    what\n"
        f"first   old   FINISHED  {first}\n"
        f"second  new   FAILED    {second}\n"
        "\n"
        "metric              first  second  difference  percent  second is\n"
        "rounds_run              5       6          +1  +20.0 %  -\n"
        "steered_ratio           -       1           -        -  -\n"
        "test_speedup          1.5    1.25       -0.25  -16.7 %  worse\n"
        "test_timeout_count      0       0          +0        -  equal\n"
        "test_total_time        10       8          -2  -20.0 %  better\n"
        "\n"
        "parameter  first  second\n"
        "lr         -      0.5\n"
        "num_epoch  50     100\n"
        "equal parameters: rounds, seed\n"
        "\n"
        "The two differ in build, so their times are not comparable; the speed-up, which each has over its own baseline, is.\n"
    )
    compared = json.loads(pilotscope("compare", "old", second, "--json").stdout)
    assert compared["different"] == ["build"]
    assert compared["metrics"][-1] == {
        "name": "test_total_time",
        "first": 10.0,
        "second": 8.0,
        "difference": -2.0,
        "percent": -20.0,
        "verdict": "better",
    }
    assert compared["parameters"][0] == {"name": "lr", "first": None, "second": "0.5", "equal": False}


@pytest.mark.parametrize(("second", "overlap"), [((1.15, 1.5), True), ((1.3, 1.5), False), ((0.8, 1.0), False)])
def test_compare_says_when_speed_ups_are_not_told_apart(
    pilotscope: Command, add_run: AddRun, second: tuple[float, float], overlap: bool
) -> None:
    """If the intervals overlap, the output says that neither is surely faster."""
    for name, (low, high) in (("one", (1.1, 1.2)), ("two", second)):
        add_run("mscn_toy", name, metrics={"test_speedup": 1.2, "test_speedup_ci_low": low, "test_speedup_ci_high": high})
    said = "\nThe intervals of the two speed-ups overlap: neither is surely the faster one.\n"
    assert (said in pilotscope("compare", "one", "two").stdout) == overlap
    assert json.loads(pilotscope("compare", "one", "two", "--json").stdout)["speedups_overlap"] is overlap


def test_compare_lists_the_candidates_of_an_ambiguous_reference(pilotscope: Command, add_run: AddRun) -> None:
    """A name that two runs have does not choose one of them silently."""
    ids = [add_run("mscn_toy", "same", hour=hour) for hour in range(2)]
    result = pilotscope("compare", "same", ids[0])
    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: 'same' matches several runs; give more of the id:\n  {ids[1][:12]}  same  FINISHED\n  {ids[0][:12]}  same  FINISHED\n",
    )


def test_compare_lists_the_nearest_runs_of_an_unknown_reference(pilotscope: Command, store: str, add_run: AddRun) -> None:
    """Near names if there are any, else the newest runs, so many and no more."""
    result = pilotscope("compare", "3f2a", "91bc")
    assert (result.exit_code, result.stderr) == (2, f"Error: no run '3f2a': there are no runs at all in {_default()}\n")
    ids = [add_run("mscn_toy", f"mscn_{hour}", hour=hour) for hour in range(9)]
    result = pilotscope("compare", "mscm_7", ids[0])
    assert result.stderr.startswith(
        f"Error: no run of {_default()} has the name 'mscm_7' or an id that starts with it; did you mean:\n"
        f"  {ids[8][:12]}  mscn_8  FINISHED\n"
    )
    result = pilotscope("compare", "it's", ids[0])
    newest = "".join(f"  {ids[hour][:12]}  mscn_{hour}  FINISHED\n" for hour in range(8, 0, -1))
    assert (
        result.stderr
        == f'Error: no run of {_default()} has the name "it\'s" or an id that starts with it; the newest runs:\n{newest}  ...\n'
    )


def _default() -> str:
    return "sqlite:///mlflow.db"


@pytest.mark.parametrize("arguments", [(), ("one",), ("a", "b", "c"), ("a", "b", "--files", "x", "y"), ("--db", "toy")])
def test_compare_wants_exactly_one_pair(pilotscope: Command, arguments: tuple[str, ...]) -> None:
    """No, one or three references, or two kinds at once, are rejected before anything is read."""
    result = pilotscope("compare", *arguments)
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: name two runs, or two records with --files A.jsonl B.jsonl, or two algorithms with --latest ALGO ALGO\n",
    )


def test_compare_files(pilotscope: Command, write_record: WriteRecord) -> None:
    """Records need no store; the figures have the names that they have there."""
    for name, algorithm in (("a", "mscn"), ("b", "lero")):
        write_record(name, algorithm=algorithm)
    assert pilotscope("compare", "--files", "results/a.jsonl", "results/b.jsonl").stdout == (
        "        name  status    what\n"
        "first   a     FINISHED  results/a.jsonl\n"
        "second  b     FINISHED  results/b.jsonl\n"
        "\n"
        "metric                  first  second  difference  percent  second is\n"
        "test_average_time           1       1          +0   +0.0 %  equal\n"
        "test_db_execution_time      2       2          +0   +0.0 %  equal\n"
        "test_error_count            0       0          +0        -  equal\n"
        "test_losses                 0       0          +0        -  equal\n"
        "test_overhead_time          0       0          +0        -  equal\n"
        "test_p50_time               1       1          +0   +0.0 %  equal\n"
        "test_p95_time               1       1          +0   +0.0 %  equal\n"
        "test_p99_time               1       1          +0   +0.0 %  equal\n"
        "test_query_count            2       2          +0   +0.0 %  equal\n"
        "test_speedup                2       2          +0   +0.0 %  equal\n"
        "test_speedup_ci_high        2       2          +0   +0.0 %  equal\n"
        "test_speedup_ci_low         2       2          +0   +0.0 %  equal\n"
        "test_ties                   0       0          +0        -  -\n"
        "test_timeout_count          0       0          +0        -  equal\n"
        "test_total_time             2       2          +0   +0.0 %  equal\n"
        "test_wins                   2       2          +0   +0.0 %  equal\n"
        "\n"
        "parameter  first  second\n"
        "algorithm  mscn   lero\n"
        "equal parameters: dataset, num_epoch\n"
        "\n"
        "The intervals of the two speed-ups overlap: neither is surely the faster one.\n"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, ": cannot be read: No such file or directory"),
        ("", ":1: the record is empty; the run died before it wrote its header"),
        ("[]\n", ":1: a line must be an object with a 'kind'"),
    ],
    ids=["missing", "empty", "other"],
)
def test_compare_says_which_file_is_no_record(
    pilotscope: Command, workplace: Path, write_record: WriteRecord, content: str | None, reason: str
) -> None:
    """The message begins with the file."""
    write_record("a")
    if content is not None:
        (workplace / "b.jsonl").write_text(content)
    result = pilotscope("compare", "--files", "results/a.jsonl", "b.jsonl")
    assert (result.exit_code, result.stderr) == (2, f"Error: b.jsonl{reason}\n")


def test_compare_files_wants_one_run_of_each(pilotscope: Command, write_record: WriteRecord) -> None:
    """A record of several runs is rejected, because one of them has to be chosen."""
    write_record("compare_toy_20260102_030405", algorithm=COMPARISON)
    path = "results/compare_toy_20260102_030405.jsonl"
    result = pilotscope("compare", "--files", path, path)
    message = f"Error: {path}: it holds 2 runs, and one is compared; `pilotscope report {path}` shows all of them\n"
    assert (result.exit_code, result.stderr) == (2, message)


def test_compare_latest_takes_the_newest_of_each(pilotscope: Command, workplace: Path, write_record: WriteRecord) -> None:
    """By the moment in the name, also the second run of one second; runs that have not ended and other files do not count."""
    for name in ("mscn_toy_20260101_000000", "mscn_toy_20260102_000000", "mscn_toy_20260102_000000_2"):
        write_record(name)
    write_record("mscn_toy_20260104_000000", ended=False)
    write_record("mscn_wide_toy_20260103_000000", algorithm="mscn_wide")
    write_record("lero_toy_20250101_000000", algorithm="lero")
    (workplace / "results" / "other.jsonl").write_text("[1]\n")
    (workplace / "results" / "empty.jsonl").write_text("")
    compared = json.loads(pilotscope("compare", "--latest", "lero", "mscn", "--json").stdout)
    assert (compared["first"]["name"], compared["second"]["name"]) == ("lero_toy_20250101_000000", "mscn_toy_20260102_000000_2")
    compared = json.loads(pilotscope("compare", "--latest", "mscn", "mscn", "--json").stdout)
    assert (compared["first"]["name"], compared["second"]["name"]) == ("mscn_toy_20260102_000000", "mscn_toy_20260102_000000_2")


def test_compare_latest_finds_the_sides_of_a_comparison(pilotscope: Command, write_record: WriteRecord) -> None:
    """A record of several algorithms has the newest run of each of them."""
    write_record("mscn_toy_20260101_000000")
    write_record("compare_toy_20260102_000000", algorithm=COMPARISON)
    compared = json.loads(pilotscope("compare", "--latest", "baseline", "mscn", "--json").stdout)
    assert [compared[which]["name"] for which in ("first", "second")] == ["baseline_toy_20260102_000000", "mscn_toy_20260102_000000"]


def test_compare_latest_never_mixes_databases(pilotscope: Command, write_record: WriteRecord) -> None:
    """Without `--db` there must be exactly one common database."""

    def refusal(*arguments: str) -> str:
        result = pilotscope("compare", "--latest", *arguments)
        assert result.exit_code == 2
        return result.stderr

    def write(algorithm: str, dataset: str) -> None:
        write_record(f"{algorithm}_{dataset}_20260101_000000", algorithm=algorithm, dataset=dataset)

    nothing = "Error: no records of ended runs in results; run a benchmark first, or name the folder with --results\n"
    assert refusal("mscn", "lero") == nothing
    write("mscn", "toy")
    write("lero", "big")
    assert refusal("mscn", "leor") == "Error: unknown algorithm in results 'leor'; did you mean 'lero'? known: lero, mscn\n"
    there = "there are: lero on big, mscn on toy"
    assert refusal("mscn", "lero") == f"Error: 'mscn' and 'lero' were never run on the same database; {there}\n"
    assert refusal("mscn", "lero", "--db", "big") == f"Error: no record of 'mscn' on 'big' in results; {there}\n"
    assert refusal("mscn", "mscn") == "Error: only one record of 'mscn' on 'toy' in results: nothing to compare it with\n"
    write("mscn", "big")
    write("lero", "toy")
    assert refusal("mscn", "lero") == "Error: 'mscn' and 'lero' were both run on big, toy; choose one with --db\n"
    assert pilotscope("compare", "--latest", "mscn", "lero", "--db", "big").exit_code == 0


def test_verdicts_of_what_has_no_direction() -> None:
    """NaN is neither better nor worse, from zero there is no percentage, and a knob search's best depends on what it was after."""
    first = Result(reference="", name="", metrics={"x_time": float("nan"), "y_time": 0.0, "best_performance": 2.0})
    second = Result(reference="", name="", metrics={"x_time": 1.0, "y_time": 1.0, "best_performance": 3.0})
    verdicts = {pair.name: (pair.percent, pair.verdict) for pair in compare(first, second).metrics}
    assert verdicts["y_time"] == (None, "worse")
    assert verdicts["x_time"][1] is None
    assert verdicts["best_performance"] == (50.0, None)
    assert direction("best_performance", target="throughput") == "higher"
    assert direction("best_performance", target="total_time") == "lower"


@pytest.mark.parametrize(("other", "verdict"), [("mscn", "better"), ("lero", None)])
def test_losses_of_different_algorithms_are_different_functions(other: str, verdict: str | None) -> None:
    """The smaller one is better only where both are of the same."""
    first = Result(reference="", name="", metrics={"train_loss": 2.0}, parameters={"algorithm": "mscn"})
    second = Result(reference="", name="", metrics={"train_loss": 1.0}, parameters={"algorithm": other})
    assert [pair.verdict for pair in compare(first, second).metrics] == [verdict]


@pytest.mark.parametrize(
    ("metric", "good"),
    [
        ("test_total_time", "lower"),
        ("p95_time", "lower"),
        ("test_qerror_p99", "lower"),
        ("test_timeout_count", "lower"),
        ("test_losses", "lower"),
        ("train_loss", "lower"),
        ("index_size_bytes", "lower"),
        ("test_break_even", "lower"),
        ("whatif_cache_hits", "higher"),
        ("test_speedup_ci_low", "higher"),
        ("validation_pair_accuracy", "higher"),
        ("test_query_count", "higher"),
        ("steered_ratio", "higher"),
        ("test_ties", None),
        ("num_indexes_selected", None),
        ("rounds", None),
    ],
)
def test_direction_of_a_metric(metric: str, good: str | None) -> None:
    """The direction of every recorded metric follows from its name."""
    assert direction(metric) == good


def test_experiments_complete_from_the_names_of_records(write_record: WriteRecord) -> None:
    """The shell completes names without waiting for MLflow."""
    for name in ("mscn_toy_20260102_030405", "mscn_toy_20260102_030405_2", "lero_toy_20260102_030405"):
        folder = write_record(name).parent
    assert experiment_names(folder) == ("lero_toy", "mscn_toy")

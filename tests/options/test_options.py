"""The command line and the ini file, through a real pytest."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.options import commandline as options
from pytest_pilotscope.options import values
from pytest_pilotscope.options.settings import OPTIONS, Settings, checked
from pytest_pilotscope.plugin import REGISTRY
from tests.projects import measure

EXIT_USAGE = pytest.ExitCode.USAGE_ERROR


@pytest.fixture
def read(pytester: pytest.Pytester) -> Callable[..., Settings]:
    """Parse a command line in an empty project and return its settings."""
    return lambda *arguments: options.settings(pytester.parseconfig("-p", "pytest_pilotscope.plugin", *arguments))


def test_defaults_are_those_of_settings(read: Callable[..., Settings]) -> None:
    """Nothing on the command line gives exactly `Settings()`; the two cannot drift apart."""
    assert read() == Settings()


@pytest.mark.parametrize(("dump", "name"), [("data/shop.sql.gz", "shop"), ("shop", "shop"), (".hidden", ".hidden")])
def test_a_dump_names_its_data(read: Callable[..., Settings], dump: str, name: str) -> None:
    """Without --db, the data of a dump has the name of its file."""
    assert read("--dump", dump).datasets == (name,)
    assert read("--dump", dump, "--db", "mart").datasets == ("mart",)


@pytest.fixture
def chosen(pytester: pytest.Pytester) -> Callable[..., dict[str, dict[str, Any]]]:
    """Parse a command line in an empty project and return its values for the options that algorithms declare."""

    def parse(*arguments: str) -> dict[str, dict[str, Any]]:
        config = pytester.parseconfig("-p", "pytest_pilotscope.plugin", *arguments)
        found = options.algorithm_options(config, config.stash[REGISTRY])
        return {algorithm: values for algorithm, values in found.items() if values}

    return parse


def test_every_field_of_settings_can_be_chosen() -> None:
    """Every field has an option, except for `options`, which algorithms declare."""
    assert {option.key for option in OPTIONS} == {field.name for field in fields(Settings)} - {"options"}


def test_options_of_algorithms(pytester: pytest.Pytester, chosen: Callable[..., dict[str, dict[str, Any]]]) -> None:
    """The command line, by short and by prefixed name, and the ini file set them; by default none is set."""
    assert chosen() == {}
    pytester.makeini("[pytest]\npilotscope_knob_trials = 7\npilotscope_index_start = none\npilotscope_index_covering = true")
    arguments = ("--mscn-batch-size", "64", "--pilotscope-mscn-learning-rate", "0.01", "--index-start", "existing", "--lero-dynamic")
    assert chosen(*arguments) == {
        "mscn": {"batch_size": 64, "learning_rate": 0.01},
        "index": {"start": "existing", "covering": True},
        "knob": {"trials": 7},
        "lero": {"dynamic": True},
    }


def test_names_repeat_and_split_at_commas(read: Callable[..., Settings]) -> None:
    """`--algo a,b --algo c` and its prefixed form add up, in order, each name once."""
    settings = read("--algo", "baseline,mscn", "--algo", "lero", "--pilotscope-algo", "mscn", "--db", "stats_tiny, stats_small")
    assert settings.algorithms == ("baseline", "mscn", "lero")
    assert settings.datasets == ("stats_tiny", "stats_small")


def test_names_of_algorithms_and_datasets_split_at_blanks(pytester: pytest.Pytester, read: Callable[..., Settings]) -> None:
    """In quotes, in the ini file and in Python, too; names of queries are those of files, which may have blanks."""
    assert read("--algo", "baseline mscn", "--queries", "my query,q2").algorithms == ("baseline", "mscn")
    assert read("--queries", "my query,q2").queries == ("my query", "q2")
    pytester.makeini("[pytest]\npilotscope_db = stats_tiny stats_small, joins\n")
    assert read().datasets == ("stats_tiny", "stats_small", "joins")
    assert checked("algorithms", "baseline mscn", argument="algorithms") == ("baseline", "mscn")


def test_factors_of_lero_are_numbers(chosen: Callable[..., dict[str, dict[str, Any]]]) -> None:
    """`--lero-factors 0.1,10` is a list of numbers, of which the help shows the default."""
    assert chosen("--lero-factors", "0.1, 10", "--lero-margin", "0")["lero"] == {"factors": (0.1, 10.0), "margin": 0.0}
    assert builtin_registry().declared["lero"]["factors"].help_with_default.endswith("(default: 0.01,0.1,1.0,10.0,100.0)")


def test_percentages_are_shares(read: Callable[..., Settings]) -> None:
    """`3%` and `0.03` are the same, and more than 100 % can be allowed."""
    settings = read("--gate-delta", "0.03", "--gate-query-delta", "150%")
    assert (settings.gate_delta, settings.gate_query_delta) == (0.03, 1.5)
    assert read("--gate-delta", "3%").gate_delta == 0.03
    assert [read("--max-unsteered", text).max_unsteered for text in ("0", "12%", "0.5", "100%", "1.0")] == [0.0, 0.12, 0.5, 1.0, 1.0]


def test_ini_keys_count_below_the_command_line(pytester: pytest.Pytester, read: Callable[..., Settings]) -> None:
    """Every option has an ini key `pilotscope_NAME`; the command line wins."""
    pytester.makeini(
        "[pytest]\npilotscope_rounds = 9\npilotscope_algo = mscn,lero\npilotscope_no_mlflow = true\npilotscope_seed = 3\n"
        "pilotscope_allow_changes = settings, databases"
    )
    settings = read("--seed", "4")
    assert settings.allow_changes == ("settings", "databases")
    assert (settings.rounds, settings.algorithms, settings.mlflow, settings.seed) == (9, ("mscn", "lero"), False, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "argument --rounds: expected auto or a whole number of at least 1, got '0'"),
        (["--limit", "many"], "argument --limit: expected a whole number of at least 1, got 'many'"),
        (["--scale", "-1"], "argument --scale: expected a number above 0, got '-1'"),
        (["--scale", "nan"], "argument --scale: expected a number above 0, got 'nan'"),
        (
            ["--query-timeout-ms", "0"],
            "argument --query-timeout-ms: expected a number of milliseconds above 0, up to 2147483647, got '0'",
        ),
        (
            ["--query-timeout-ms", "1e12"],
            "argument --query-timeout-ms: expected a number of milliseconds above 0, up to 2147483647, got '1e12'",
        ),
        (
            ["--training-timeout-s", "1e9"],
            "argument --training-timeout-s: expected a number of seconds above 0, up to 2147483, got '1e9'",
        ),
        (["--seed", "-2"], "argument --seed: expected a whole number of at least 0, got '-2'"),
        (["--lero-factors", "0.1,none"], "argument --lero-factors: expected a number above 0, got 'none'"),
        (["--container-cpus", "0.001"], "argument --container-cpus: expected a number of at least 0.01, got '0.001'"),
        (["--container-memory", "2"], "argument --container-memory: expected a size such as 512m or 2g, at least 64m, got '2'"),
        (["--container-memory", "63m"], "argument --container-memory: expected a size such as 512m or 2g, at least 64m, got '63m'"),
        (
            ["--dask", "local:0"],
            "argument --dask: expected local:N or the address of a scheduler such as tcp://host:8786, got 'local:0'",
        ),
        (["--lero-margin", "-1"], "argument --lero-margin: expected auto or a number of at least 0, got '-1'"),
        (["--lero-effort", "some"], "argument --lero-effort: expected auto or all, got 'some'"),
        (["--gate-delta", "3"], "argument --gate-delta: expected a percentage such as 3% or a share below 1 such as 0.03, got '3'"),
        (
            ["--gate-query-delta=-1%"],
            "argument --gate-query-delta: expected a percentage such as 3% or a share below 1 such as 0.03, got '-1%'",
        ),
        (["--max-unsteered", "101%"], "argument --max-unsteered: expected a percentage from 0% to 100%, got '101%'"),
        (["--max-unsteered", "1"], "argument --max-unsteered: expected a percentage such as 3% or a share below 1 such as 0.03, got '1'"),
        (["--gate", "mlflow:"], "argument --gate: expected a file, mlflow:EXPERIMENT, baseline or none, got 'mlflow:'"),
        (["--gate-on-missing", "pass"], "argument --gate-on-missing: expected fail or warn, got 'pass'"),
        (["--report", "report.pdf"], "argument --report: expected the name of an HTML file such as report.html, got 'report.pdf'"),
        (["--algo", ""], "argument --algo: expected at least one name, got ''"),
        (["--db", ""], "argument --db: expected at least one name, got ''"),
        (["--algo", ","], "argument --algo: expected at least one name, got ','"),
        (["--queries", " , "], "argument --queries: expected at least one name, got ' , '"),
        (["--gate-exact", ""], "argument --gate-exact: expected at least one name, got ''"),
        (["--mscn-hidden-units", "0"], "argument --mscn-hidden-units: expected a whole number of at least 1, got '0'"),
        (["--allow-changes", "databases,roles"], "argument --allow-changes: expected databases or settings, got 'roles'"),
        (["--allow-changes", ""], "argument --allow-changes: expected at least one name, got ''"),
        (["--device", "tpu"], "argument --device: expected auto, cpu or cuda, got 'tpu'"),
    ],
)
def test_a_senseless_value_is_a_usage_error(pytester: pytest.Pytester, arguments: list[str], message: str) -> None:
    """Exit code 4, and one line that says what was expected and what was found."""
    result = pytester.runpytest_subprocess(*arguments)
    assert result.ret == EXIT_USAGE
    assert f": error: {message}" in result.stderr.str()


def test_a_senseless_ini_value_is_a_usage_error(pytester: pytest.Pytester) -> None:
    """The message names the key and the file; an option of an algorithm is read when something is to be measured."""
    ini = pytester.makeini("[pytest]\npilotscope_rounds = 0")
    result = pytester.runpytest_subprocess()
    assert result.ret == EXIT_USAGE
    assert f"ERROR: pilotscope_rounds in {ini}: expected auto or a whole number of at least 1, got '0'" in result.stderr.lines
    pytester.makeini("[pytest]\npilotscope_index_start = all")
    result = measure(pytester, "--algo", "index")
    assert result.ret == EXIT_USAGE
    assert result.stderr.lines == [f"ERROR: pilotscope_index_start in {ini}: expected existing or none, got 'all'", ""]


def test_a_short_name_taken_by_a_conftest_is_left_to_it(pytester: pytest.Pytester) -> None:
    """Another plugin's `--db` keeps working; ours keeps its prefixed name, and the header says so once."""
    pytester.makeconftest(
        """
        def pytest_addoption(parser):
            parser.addoption("--db", default="theirs")
        """
    )
    pytester.makepyfile(
        """
        def test_theirs(pytestconfig):
            assert pytestconfig.getoption("db") == "mine"
            assert pytestconfig.getoption("pilotscope_db") == ["stats_small"]
        """
    )
    result = pytester.runpytest_subprocess("--db", "mine", "--pilotscope-db", "stats_small")
    result.assert_outcomes(passed=1)
    lines = [line for line in result.outlines if line.startswith("pilotscope:")]
    assert lines == ["pilotscope: taken by another plugin, use the prefix --pilotscope-: --db"]


def test_help_shows_short_names_in_groups(pytester: pytest.Pytester) -> None:
    """`pytest --help` lists every short name with its default below the heading of its group, and one ini key for all."""
    text = pytester.runpytest_subprocess("--help").stdout.str()
    groups = {part.partition(":\n")[0]: part.partition(":\n")[2].split("\n\n")[0] for part in text.split("\npilotscope, ")[1:]}
    declared = [option for of_algorithm in builtin_registry().declared.values() for option in of_algorithm.values()]
    assert list(groups)[:6] == ["what to run", "server", "data", "measuring", "gate and report", "learning"]
    assert set(groups) == {option.group for option in (*OPTIONS, *declared)}
    for option in (*OPTIONS, *declared):
        assert re.search(rf"^  --{option.name}\b", groups[option.group], re.MULTILINE)
    assert "(default: stats_tiny)" in " ".join(groups["what to run"].split())
    assert "--mscn-batch-size=auto|N subplans that mscn learns from in one step; auto: " in " ".join(groups["mscn"].split())
    keys = re.findall(r"^  (pilotscope_\w+) \(", text, re.MULTILINE)
    assert keys == ["pilotscope_algo"]


@pytest.mark.parametrize(
    ("arguments", "algorithms", "datasets"),
    [
        (("--algo", "baseline", "mscn"), ("baseline", "mscn"), ("stats_tiny",)),
        (("--algo=baseline", "mscn", "--db", "stats_tiny", "tpch", "-q"), ("baseline", "mscn"), ("stats_tiny", "tpch")),
        (("--algo", "baseline,mscn", "lero", "test_here.py", "--pilotscope-db", "a", "b"), ("baseline", "mscn", "lero"), ("a", "b")),
        (("--algo", "mscn", "folder", "--db", "b", "folder/test_gone.py", "x::y"), ("mscn",), ("b",)),
    ],
)
def test_names_may_follow_each_other(
    read: Callable[..., Settings],
    pytester: pytest.Pytester,
    arguments: tuple[str, ...],
    algorithms: tuple[str, ...],
    datasets: tuple[str, ...],
) -> None:
    """Blanks are as good as commas; a file, a folder or a test is no name."""
    pytester.makepyfile(test_here="")
    pytester.mkdir("folder")
    settings = read(*arguments)
    assert (settings.algorithms, settings.datasets) == (algorithms, datasets)


def test_a_place_after_names_stays_a_place(pytester: pytest.Pytester) -> None:
    """`pytest --algo baseline mscn test_here.py` still collects that file."""
    pytester.makepyfile(test_here="")
    config = pytester.parseconfig("-p", "pytest_pilotscope.plugin", "--algo", "baseline", "mscn", "test_here.py", "test_gone.py")
    assert config.args == ["test_here.py", "test_gone.py"]


def test_own_queries_on_an_own_server_mean_its_database(read: Callable[..., Settings]) -> None:
    """With a DSN and `--queries-dir`, the dataset is the database in the DSN; `--db` overrides it."""
    own = ("--server", "postgresql://me@127.0.0.1/mine", "--queries-dir", "q")
    assert read(*own).datasets == ("mine",)
    assert read("--server", "host=127.0.0.1 dbname='my db'", "--queries-dir", "q").datasets == ("my db",)
    assert read(*own, "--db", "stats_tiny").datasets == ("stats_tiny",)
    assert read(*own[:2]).datasets == ("stats_tiny",)


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("container-memory", "9" * 400 + "g", f"expected a size such as 512m or 2g, at least 64m, got '{'9' * 100}...{'9' * 49}g'"),
        ("scale", "1e12", "expected at most 2147483647, got '1e12'"),
        ("rounds", "9" * 12, "expected at most 2147483647, got '999999999999'"),
        ("server", "host=\udcff", r"expected a text in UTF-8 without NUL, got 'host=\udcff'"),
        ("gate", "a" * 256, f"expected names of at most 255 bytes, 4095 in all, got '{'a' * 100}...{'a' * 50}'"),
        ("results", "é" * 128, f"expected names of at most 255 bytes, 4095 in all, got '{'é' * 128}'"),
        ("load-model", "/b" * 2048, f"expected names of at most 255 bytes, 4095 in all, got '{'/b' * 50}...{'/b' * 25}'"),
        ("report", "a\0.html", r"expected a text in UTF-8 without NUL, got 'a\x00.html'"),
    ],
)
def test_values_that_nothing_can_use(option: str, text: str, message: str) -> None:
    """They are refused before anything starts."""
    (declared,) = (one for one in OPTIONS if one.name == option)
    with pytest.raises(argparse.ArgumentTypeError, match=f"^{re.escape(message)}$"):
        declared.read(text)


@pytest.mark.parametrize("value", ["256m", "256MB", "0.25g", 256 << 20])
def test_a_size_has_a_unit_or_is_bytes(value: str | int) -> None:
    """The command line, the ini file and Python read the same sizes."""
    assert checked("label_memory_bytes", value, argument="label_memory") == values.size(str(value)) == 256 << 20


def test_the_default_of_a_size_is_shown_with_its_unit() -> None:
    """Nobody reads bytes."""
    (declared,) = (one for one in OPTIONS if one.name == "label-memory")
    assert declared.help_with_default.endswith("(default: 1g)")


@pytest.mark.parametrize(
    ("name", "default"),
    [("max-unsteered", "5%"), ("gate-write-delta", "10%"), ("steer-timeout-ms", "10000"), ("rounds-limit-s", "600"), ("db", "stats_tiny")],
)
def test_a_default_is_shown_as_a_user_writes_it(name: str, default: str) -> None:
    """0.05 of an option that takes a percentage would read as a twentieth of one, and whole numbers have no decimals."""
    (declared,) = (one for one in OPTIONS if one.name == name)
    assert declared.help_with_default.endswith(f"(default: {default})")

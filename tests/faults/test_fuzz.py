"""Inputs that nobody would write: each is accepted or refused with an error of ours, and none ends in a traceback."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.commands.cli import cli
from pytest_pilotscope.datasets.files import load_workload_files
from pytest_pilotscope.datasets.logs import extract
from pytest_pilotscope.datasets.published.dump_text import is_dump
from pytest_pilotscope.errors import PilotscopeError, RecordError, UsageError, WorkloadError
from pytest_pilotscope.gate.judging import JSON_KEY, exact_figures, read_references
from pytest_pilotscope.labels.atomicfiles import file_name
from pytest_pilotscope.options.settings import OPTIONS, Settings
from pytest_pilotscope.places.dsn import Dsn, is_dsn
from pytest_pilotscope.places.secret import StoreUri, redact
from pytest_pilotscope.provision.database import PostgreSQLConfig
from pytest_pilotscope.queries.templates import template_of
from pytest_pilotscope.record.record import read_record
from pytest_pilotscope.tracking.store import is_server, resolve_uri, sqlite_path
from tests.record.test_record import DECISION, END, PREPARATION, REPORT, RUN, TRAINING, write

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of an input that failed

INPUTS = 10_000
"""The number of inputs of all slow tests together."""

SHARDS = 8
FEW = 15
"""The inputs of each kind in the quick tests."""

# ------------------------------------------------------------------------------------------------------------------- inputs

ODD = (
    "", " ", "\0", "\n", "..", "/", "a/b", "~", "%2F", "?", "\udcff", "é" * 200, "a" * 300, "x" * 70_000, "-1", "0", "1e12", "1e999", "nan",
    "9" * 400, "9" * 400 + "g", "1" * 5000, "٣", "1_000", "0x10", "true", "None", "[", "{", "'", '"', "';--", "=", "==", "host=", "auto",
    "postgresql://", "postgresql://[", "postgresql://u:p@h:x/d", "sqlite:///", "http://[::1", "mlflow:", "mlflow:a/b", "local:0", "none",
)  # fmt: skip
WORDS = (
    "select",
    "from",
    "where",
    "(",
    ")",
    "*",
    ",",
    ";",
    "'",
    '"',
    "$$",
    "$a$",
    "/*",
    "*/",
    "--",
    "\n",
    "1",
    "a",
    "b",
    ".",
    "=",
    "or",
    "\\c",
)
TEXTS = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(exclude_categories=()), max_size=30),
    st.lists(st.sampled_from(ODD), min_size=2, max_size=3).map("".join),
    st.from_regex(r"(postgres(ql)?|https?|sqlite|databricks)://[^ ]{0,30}", fullmatch=True),
    st.from_regex(r"(host|dbname|password|port) ?= ?.{0,20}", fullmatch=True),
)
STATEMENTS = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join),
    st.integers(1, 2000).map(lambda depth: f"SELECT * FROM a WHERE {'(' * depth}a.b = 1{')' * depth}"),
    st.integers(1, 3000).map(lambda number: "SELECT * FROM a WHERE " + " OR ".join(["a.b = 1"] * number)),
    st.integers(1, 20_000).map(lambda number: f"SELECT * FROM a, b WHERE a.x = b.x AND a.b IN ({', '.join(['1'] * number)})"),
    st.integers(1, 500).map(lambda depth: "SELECT * FROM " + "(SELECT * FROM " * depth + "a" + ") AS s" * depth),
    TEXTS,
)
CONTENTS = st.one_of(STATEMENTS.map(lambda text: text.encode(errors="surrogatepass")), st.binary(max_size=200))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from([-1, -1e300, 10**400, 2**63]), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
DEEP = st.tuples(st.sampled_from(["[]", '{"a":}']), st.sampled_from([10, 900, 5000, 200_000])).map(
    lambda deep: (deep[0][:-1] * deep[1] + "1" + deep[0][-1] * deep[1]).encode()
)


def _lines() -> list[bytes]:
    """Return the lines of a record with every kind of line."""
    with TemporaryDirectory() as folder:
        entries = (TRAINING, PREPARATION, RUN, replace(RUN, repetition=0), REPORT, DECISION, END)
        return write(Path(folder, "r.jsonl"), *entries).read_bytes().splitlines()


RECORD_LINES = _lines()


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """Draw a record in which some value, field or line was changed."""
    lines: list[Any] = [json.loads(line) for line in RECORD_LINES]
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(_places(lines))))
        change = draw(st.sampled_from(["value", "value", "remove", "add"]))
        if change == "remove":
            with suppress(KeyError, IndexError):
                del holder[key]
        elif change == "add" and isinstance(holder, dict):
            holder[draw(st.text(max_size=5))] = draw(VALUES)
        elif isinstance(holder, dict) or key < len(holder):
            holder[key] = draw(VALUES)
    content = b"\n".join(json.dumps(line).encode() for line in lines)
    return content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 4)) == 0 else content + b"\n"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


# ------------------------------------------------------------------------------------------------------------------- checks


def _option(case: tuple[int, str]) -> None:
    options = [*OPTIONS, *(option for declared in builtin_registry().declared.values() for option in declared.values())]
    option, text = options[case[0] % len(options)], case[1]
    if option.is_flag:
        return
    with suppress(argparse.ArgumentTypeError):
        option.read(text)
    with suppress(UsageError):
        option.checked(text, option.key)


def _python(case: tuple[int, Any]) -> None:
    option = OPTIONS[case[0] % len(OPTIONS)]
    with suppress(UsageError):
        option.checked(case[1], option.key)


def _address(text: str) -> None:
    for address in (Dsn(text), StoreUri(text)):
        assert address.scrub(str(address)) is not None
        assert repr(address)
        assert address.secrets() is not None
    assert Dsn(text).ambiguous in (True, False)
    assert is_dsn(text) in (True, False)
    Dsn(text).database  # noqa: B018  # must not raise
    redact(text)


def _store(text: str) -> None:
    uri = resolve_uri(text)
    is_server(uri)
    sqlite_path(uri)


def _config(text: str) -> None:
    with suppress(PilotscopeError):
        PostgreSQLConfig(server=text)
    with suppress(PilotscopeError):
        replace(Settings(), server=text, tracking_uri=text)
    registry = builtin_registry()
    for find in (registry.dataset, registry.algorithm):
        with suppress(PilotscopeError):
            find(text)
    with suppress(PilotscopeError):
        exact_figures([text])
    file_name(text.encode(errors="replace").decode())


def _written(name: str, content: bytes, read: Callable[[Path], object], *errors: type[Exception]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        with suppress(*errors):
            read(path)


def _queries(content: bytes) -> None:
    _written("q.sql", content, lambda path: load_workload_files(path, "d", None), WorkloadError)
    _written("q.sql", content, is_dump)


def _log(content: bytes) -> None:
    for name in ("log.json", "log.csv", "log.log"):
        _written(name, content, extract, PilotscopeError)


def _record(content: bytes) -> None:
    _written("r.jsonl", content, read_record, RecordError)
    _written("r.jsonl", content, read_references, UsageError)
    _written("r.json", content, read_references, UsageError)
    lines = b", ".join(content.splitlines())
    _written("r.json", b'{"%s": [[' % JSON_KEY.encode() + lines + b"]]}", read_references, UsageError)


def _template(text: str) -> None:
    template_of(text)


def _stored(content: bytes) -> None:
    for arguments in (["gate", "r.jsonl", "r.jsonl"], ["export", "r.jsonl"], ["trend", "mscn_stats_tiny", "--results", "."]):
        _command(arguments, content)


def _command(arguments: list[str], content: bytes | None = None) -> None:
    before = Path.cwd()
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "execve", lambda *command: sys.exit())  # a good port would turn this process into MLflow's page
        os.chdir(folder)
        try:
            if content is not None:
                Path("r.jsonl").write_bytes(content)
            answer = CliRunner().invoke(cli, arguments)
        finally:
            os.chdir(before)
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    assert answer.exit_code in (0, 1, 2)


ARGUMENTS = TEXTS.filter(lambda text: "\0" not in text and len(text) < 5000)
COMMANDS = st.one_of(
    ARGUMENTS.map(lambda text: ["compare", "--files", text, text]),
    ARGUMENTS.map(lambda text: ["compare", "--latest", text, "mscn", "--db", text]),
    ARGUMENTS.map(lambda text: ["workload", "from-log", text]),
    ARGUMENTS.map(lambda text: ["report", "--results", text, "--", "nothing"]),
    ARGUMENTS.map(lambda text: ["gate", "--gate-delta", text, "--", text, text]),
    ARGUMENTS.map(lambda text: ["trend", "--metric", text, "--", text]),
    ARGUMENTS.map(lambda text: ["export", "--algo", text, "--", text]),
    ARGUMENTS.map(lambda text: ["sync", f"--results={text}"]),
    ARGUMENTS.map(lambda text: ["ui", f"--port={text}"]),
    ARGUMENTS.map(lambda text: ["subplans", f"--queries-dir={text}", "--limit=x"]),
    ARGUMENTS.map(lambda text: [text]),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of input, and the check of one."""

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], None]
    share: int = 1


KINDS = (
    Kind(name="options", inputs=st.tuples(st.integers(0, 500), TEXTS), check=_option, share=6),
    Kind(name="arguments in Python", inputs=st.tuples(st.integers(0, 500), VALUES), check=_python, share=2),
    Kind(name="connection strings", inputs=TEXTS, check=_address, share=2),
    Kind(name="tracking URIs", inputs=TEXTS, check=_store),
    Kind(name="names and servers", inputs=TEXTS, check=_config, share=2),
    Kind(name="queries", inputs=CONTENTS, check=_queries, share=2),
    Kind(name="templates", inputs=STATEMENTS, check=_template),
    Kind(name="logs", inputs=st.one_of(CONTENTS, DEEP), check=_log),
    Kind(name="records and gates", inputs=st.one_of(records(), records(), records(), DEEP, CONTENTS), check=_record, share=6),
    Kind(name="commands", inputs=COMMANDS, check=_command),
    Kind(name="commands with records", inputs=records(), check=_stored),
)
SUM = sum(kind.share for kind in KINDS)


def _fuzz(kind: Kind, number: int, shard: int) -> None:
    @seed(shard)
    @settings(max_examples=number, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(kind.inputs)
    def check(case: Any) -> None:
        kind.check(case)

    check()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_few_odd_inputs(kind: Kind) -> None:
    """Each is accepted, or refused by an error of ours."""
    _fuzz(kind, FEW, 0)


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(1, SHARDS + 1))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_ten_thousand_odd_inputs(kind: Kind, shard: int) -> None:
    """Each is accepted, or refused by an error of ours."""
    _fuzz(kind, -(-INPUTS * kind.share // (SUM * SHARDS)), shard)

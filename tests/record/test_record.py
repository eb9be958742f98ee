"""A record can be read after its run died, and rejects wrong entries and lines."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pilotscope.errors import RecordError
from pytest_pilotscope.record.json_values import from_json, to_line
from pytest_pilotscope.record.record import Entry, RecordWriter, read_record
from pytest_pilotscope.record.results import (
    BuiltIndex,
    ChangedSetting,
    PlanNode,
    Preparation,
    QueryDecision,
    QueryReport,
    QueryRun,
    RunEnd,
    RunHeader,
    SubplanEstimate,
    TrainingReport,
)
from pytest_pilotscope.statistics.pairs import pairs_of
from tests.record.building import record_of

HEADER = RunHeader(
    run_name="mscn_stats_tiny_20250101_000000",
    algorithm="mscn",
    dataset="stats_tiny",
    started_at="2025-01-01T00:00:00+00:00",
    sides=("baseline", "mscn"),
    rounds=5,
    seed=7,
    suite_version="0.1.0",
    queries={"q1": "SELECT count(*) FROM users WHERE name = 'é\n'"},
    parameters={"num_epoch": 100, "lr": 1e-3, "no_ai": False, "model": None, "loss": "q-error"},
    tags={"git": "abc"},
    fingerprints={"build": "16.4"},
    server={"version_num": 160004, "debug_assertions": False},
    settings={"jit": "off"},
    timeout_ms=1000.0,
)
RUN = QueryRun(
    query_id="q1", side="mscn", repetition=1, order=1, inference_ms=0.5, planning_ms=1.25, execution_ms=3.0, row_count=1, answer_hash="ff"
)
FAILED_RUN = QueryRun(
    query_id="q1", side="mscn", repetition=2, order=0, inference_ms=0.0, planning_ms=0.0, execution_ms=0.0, error='division by "zero"\n'
)
REPORT = QueryReport(
    query_id="q1",
    side="mscn",
    steered_ratio=0.5,
    steering_reasons=("subplan p u was not asked for",),
    plan_shape="00ff",
    plan=PlanNode(
        operation="Hash Join",
        rows=3,
        cost=12.5,
        conditions=("p.owneruserid = u.id",),
        children=(
            PlanNode(operation="Seq Scan", relation="posts", alias="p", rows=4, cost=7.25, actual_rows=4.5, loops=1),
            PlanNode(operation="Index Scan", subplan="SubPlan 1", relation="users", alias="u", index="users_pkey", rows=1, cost=0.5),
        ),
    ),
    plan_cost=12.5,
    estimates=(SubplanEstimate(aliases=("p", "u"), estimated=3.0, true=4.0),),
    p_error=1.0,
)
TRAINING = TrainingReport(
    side="mscn",
    duration_s=1.5,
    metrics={"train_loss": (3.0, 2.0), "best": (float("inf"), 1.0)},
    parameters={"batch_size": 2048},
    scalars={"whatif_calls": 12, "training_time_seconds": 1.5, "worst": float("-inf")},
    artifacts=("model/mscn.safetensors",),
)
DECISION = QueryDecision(query_id="q1", side="mscn", facts={"looked": True, "factor": 0.1, "size": None, "planner_calls": 3})
PREPARATION = Preparation(
    side="mscn",
    indexes=(
        BuiltIndex(
            schema="public",
            table="posts",
            name="by_score",
            definition="CREATE INDEX by_score ON public.posts USING btree (score)",
            size_bytes=8192,
            inserted_rows=1000,
            insert_ms=(1.0, 1.5),
            insert_with_index_ms=(2.0, 2.5),
            wal_bytes=64000,
        ),
    ),
    dropped=("CREATE INDEX old ON public.posts USING btree (id)",),
    settings=(ChangedSetting(name="work_mem", value="64MB", level="session", before="4MB"),),
)
END = RunEnd(status="FAILED", finished_at="2025-01-01T00:01:00+00:00", error="q1 failed", failures={"mscn": "q1 failed"})


def write(path: Path, *entries: Entry) -> Path:
    """Write a closed record with these entries."""
    with RecordWriter(path, HEADER) as writer:
        for entry in entries:
            writer.write(entry)
    return path


def refuse(path: Path, message: str) -> None:
    """Expect the reader to refuse the file with exactly this message."""
    with pytest.raises(RecordError, match=f"^{re.escape(f'{path}{message}')}$"):
        read_record(path)


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    """Header, runs, reports, training, preparations and end are equal after a round trip, infinities included."""
    record = read_record(write(tmp_path / "new" / "r.jsonl", TRAINING, PREPARATION, RUN, FAILED_RUN, DECISION, REPORT, END))
    assert (record.header, record.training, record.preparations, record.runs, record.decisions, record.reports, record.end) == (
        HEADER,
        (TRAINING,),
        (PREPARATION,),
        (RUN, FAILED_RUN),
        (DECISION,),
        (REPORT,),
        END,
    )
    assert (record.status, record.truncated, record.ignored) == ("FAILED", False, {})


def test_integers_stay_integers(tmp_path: Path) -> None:
    """A count read back is an int, also where a float could have been: exact figures are compared exactly."""
    scalars = read_record(write(tmp_path / "r", TRAINING)).training[0].scalars
    assert [type(value) for value in scalars.values()] == [int, float, float]


TEXT = st.text(st.characters(exclude_characters="\0"))
NUMBER = st.floats(allow_nan=False)


@given(NUMBER, TEXT, st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | NUMBER | TEXT))
def test_any_value_survives_a_line(number: float, text: str, parameters: dict[str, str | int | float | bool | None]) -> None:
    """Any value of a parameter or a series, except NaN, comes back equal, and the text is one line of valid JSON."""
    report = TrainingReport(side=text, duration_s=number, metrics={"m": (number,)}, parameters=parameters)
    line = to_line("training", report)
    plain = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert "\n" not in line
    assert plain.pop("kind") == "training"
    assert from_json(TrainingReport, plain) == report


def test_numpy_numbers_are_numbers() -> None:
    """NumPy numbers are written as JSON numbers."""
    report = TrainingReport(side="a", duration_s=np.float32(0.5), scalars={"n": np.int64(3)})
    assert '"duration_s":0.5' in to_line("training", report)
    assert '"n":3' in to_line("training", report)


def test_nodes_of_plans_are_short() -> None:
    """A line has every field, but a plan has many nodes, and a node only the fields that are not at their defaults."""
    line = to_line("query_report", QueryReport(query_id="q1", side="mscn", plan=PlanNode(operation="Hash", rows=3, cost=0.5)))
    assert '"plan_shape":null,"plan":{"operation":"Hash","rows":3,"cost":0.5},"plan_cost":null' in line


def test_each_line_is_on_disk_before_the_next(tmp_path: Path) -> None:
    """While the writer is open, everything written so far can be read: kill -9 loses nothing that was finished."""
    with RecordWriter(tmp_path / "r", HEADER) as writer:
        assert read_record(writer.path).runs == ()
        writer.write(RUN)
        assert read_record(writer.path).runs == (RUN,)
        assert read_record(writer.path).status == "INTERRUPTED"


def test_a_full_disk_is_named_and_loses_nothing_before(tmp_path: Path) -> None:
    """The message names file and reason; the lines before can be read, and closing raises nothing."""
    path = tmp_path / "r"
    with RecordWriter(path, HEADER) as writer:
        writer.write(RUN)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
        try:
            expected = (
                f"{path}: the record cannot be written: {os.strerror(errno.EFBIG)}; the lines before are whole; make room, or name another "
                "folder with --results, and measure again"
            )
            with pytest.raises(RecordError, match=f"^{re.escape(expected)}$"):
                writer.write(RUN)
            writer.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_record(path).runs == (RUN,)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (float("nan"), "is NaN; a record holds no NaN, leave the value out or fail the run"),
        (10**400, "is too large for a number of 64 bits; leave the value out or fail the run"),
    ],
)
def test_a_number_that_json_cannot_hold_is_refused_and_leaves_no_trace(tmp_path: Path, value: float, fault: str) -> None:
    """It is named with the path to it, and the record stays as it was."""
    with RecordWriter(tmp_path / "r", HEADER) as writer:
        with pytest.raises(ValueError, match=f"^{re.escape(f'training.metrics.train_loss[1] {fault}')}$"):
            writer.write(TrainingReport(side="mscn", duration_s=1.0, metrics={"train_loss": (1.0, value)}))
        writer.write(RUN)
    assert read_record(tmp_path / "r").runs == (RUN,)


@pytest.mark.parametrize(
    "report", [TrainingReport(side="\0inf", duration_s=1.0), TrainingReport(side="a", duration_s=1.0, scalars={"\0": 1})]
)
def test_a_nul_character_is_refused(report: TrainingReport) -> None:
    """A NUL in a text or a name is refused: no database text holds one, and the reader could take it for a number."""
    with pytest.raises(ValueError, match=r"^training\.\w+ holds a NUL character, found '\\x00\w*'$"):
        to_line("training", report)


def test_something_that_is_no_value_is_refused() -> None:
    """An object that JSON cannot hold is a TypeError with its path, never its repr in the record."""
    with pytest.raises(TypeError, match=r"^training\.parameters\.path must be text, a number, true, false or null, found PosixPath$"):
        to_line("training", TrainingReport(side="a", duration_s=1.0, parameters={"path": Path("x")}))  # type: ignore[dict-item]


def test_nothing_follows_the_end(tmp_path: Path) -> None:
    """An entry after the end is refused by the writer and by the reader."""
    path = tmp_path / "r"
    with RecordWriter(path, HEADER) as writer:
        writer.write(END)
        with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: the record has ended; no entry can follow')}$"):
            writer.write(RUN)
    with path.open("a") as file:
        file.write(to_line("query_run", RUN) + "\n")
    refuse(path, ":3: a query_run after the end of the record")


def test_an_execution_is_recorded_once(tmp_path: Path) -> None:
    """Of two lines about one execution one is wrong, and nobody knows which; other rounds, sides and clients are other executions."""
    others = [replace(RUN, **changed) for changed in ({"repetition": 2}, {"side": "baseline"}, {"query_id": "q0"}, {"client": 1})]
    warm = replace(RUN, repetition=0)
    path = write(tmp_path / "r", warm, warm, RUN, *others)
    assert len(read_record(path).runs) == 7
    for run, whose in ((RUN, ""), (replace(RUN, client=1), " by client 1")):
        path = write(tmp_path / f"again{whose}", RUN, *others, replace(run, execution_ms=0.0))
        refuse(path, f":7: a second run of query {RUN.query_id!r} on side {RUN.side!r} in round {RUN.repetition}{whose}")


def test_a_side_of_another_run_is_refused(tmp_path: Path) -> None:
    """An entry belongs to one of the header's sides, when written and when read."""
    path = tmp_path / "r"
    stranger = QueryReport(query_id="q1", side="lero")
    message = "side 'lero' is not one of the record's sides ['baseline', 'mscn']"
    with RecordWriter(path, HEADER) as writer, pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        writer.write(stranger)
    with path.open("a") as file:
        file.write(to_line("query_report", stranger) + "\n")
    refuse(path, f":2: {message}")


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    """A second run of the same name does not touch the first one's record."""
    path = write(tmp_path / "r", RUN)
    message = f"{path}: the record exists already; move it away, or wait a second to get another name"
    with pytest.raises(RecordError, match=f"^{re.escape(message)}$"):
        RecordWriter(path, HEADER)
    assert read_record(path).runs == (RUN,)


def test_a_last_line_that_was_cut_off_is_tolerated_and_reported(tmp_path: Path) -> None:
    """At whatever byte a record was cut, the whole lines are read and the rest is reported."""
    whole = write(tmp_path / "whole", RUN, replace(RUN, repetition=2)).read_bytes()
    two_lines = whole[: whole[:-1].rindex(b"\n") + 1]
    cut = tmp_path / "cut"
    for length in range(len(two_lines) + 1, len(whole) - 1):
        cut.write_bytes(whole[:length])
        record = read_record(cut)
        assert (record.runs, record.truncated, record.status) == ((RUN,), True, "INTERRUPTED")


def test_bytes_that_are_no_text_survive(tmp_path: Path) -> None:
    """An error message with bytes that could not be decoded (surrogates) comes back equal."""
    run = replace(FAILED_RUN, error="caf\udce9")
    assert read_record(write(tmp_path / "r", run)).runs == (run,)


def test_only_the_newline_missing_loses_nothing(tmp_path: Path) -> None:
    """A last line that is whole counts even without its end of line."""
    path = write(tmp_path / "r", RUN)
    path.write_bytes(path.read_bytes()[:-1])
    assert (read_record(path).runs, read_record(path).truncated) == ((RUN,), False)


def test_unknown_kinds_are_counted(tmp_path: Path) -> None:
    """Lines that a later version or a plugin added do not stop an older reader, and it says how many it skipped."""
    path = write(tmp_path / "r", RUN)
    with path.open("a") as file:
        file.write('{"kind":"note","text":"a"}\n{"kind":"note"}\n')
    assert (read_record(path).ignored, read_record(path).runs) == ({"note": 2}, (RUN,))


def test_warm_ups_are_not_measured(tmp_path: Path) -> None:
    """`measured` leaves out warm-ups and other sides."""
    warm = QueryRun(query_id="q1", side="mscn", repetition=0, order=0, inference_ms=0, planning_ms=0, execution_ms=9)
    other = QueryRun(query_id="q0", side="baseline", repetition=1, order=0, inference_ms=0, planning_ms=0, execution_ms=9)
    record = read_record(write(tmp_path / "r", warm, other, RUN))
    assert record.measured("mscn") == (RUN,)
    assert record.query_ids() == ("q1", "q0")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not a line of JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        (b"", "not a line of JSON (Expecting value: line 1 column 1 (char 0))"),
        (b'{"kind":"training","side":"mscn","duration_s":NaN}', "not a line of JSON (NaN is no number of JSON)"),
        (
            b'{"kind":"training","side":"mscn","duration_s":1,"scalars":{"x":-Infinity}}',
            "not a line of JSON (-Infinity is no number of JSON)",
        ),
        (b"[1]", "a line must be an object with a 'kind'"),
        (b'{"kind":1}', "a line must be an object with a 'kind'"),
        (b'{"kind":"header"}', "a second header; a file holds one record"),
        (b'{"kind":"end","status":"FINISHED"}', "field 'finished_at' is missing"),
        (b'{"kind":"end","status":"DONE","finished_at":"x"}', "field 'status' must be one of FINISHED, FAILED, KILLED, found \"DONE\""),
        (b'{"kind":"end","status":"FINISHED","finished_at":"x","colour":1}', "unknown field 'colour'"),
        (b'{"kind":"end","status":"KILLED","finished_at":"x","error":1}', "field 'error' must be text or null, found 1"),
        (b'{"kind":"training","side":"mscn","duration_s":"1"}', "field 'duration_s' must be a number, found \"1\""),
        (b'{"kind":"training","side":"mscn","duration_s":1%s}' % (b"0" * 400), f"field 'duration_s' must be a number, found 1{'0' * 79}"),
        (b'{"kind":"training","side":"mscn","duration_s":true}', "field 'duration_s' must be a number, found true"),
        (b'{"kind":"training","side":"mscn","duration_s":1,"metrics":[]}', "field 'metrics' must be an object, found []"),
        (b'{"kind":"training","side":"mscn","duration_s":1,"metrics":{"m":1}}', "field 'metrics.m' must be a list, found 1"),
        (
            b'{"kind":"query_run","query_id":"q","side":"mscn","repetition":1,"order":0,"inference_ms":0,"planning_ms":0,"execution_ms":-1}',
            "execution_ms of query 'q', side 'mscn' must be from 0 to 1e+12, found -1.0",
        ),
    ],
)
def test_a_bad_line_is_named_with_file_and_line(tmp_path: Path, line: bytes, message: str) -> None:
    """A wrong line in the middle stops the reader, which names the file, the line and the error."""
    path = write(tmp_path / "r", RUN)
    with path.open("ab") as file:
        file.write(line + b'\n{"kind":"note"}\n')
    refuse(path, f":3: {message}")


def test_a_file_without_a_header_is_no_record(tmp_path: Path) -> None:
    """An empty file, a cut-off header, another format and another first line each have their own message."""
    path = tmp_path / "r"
    path.write_text("")
    refuse(path, ":1: the record is empty; the run died before it wrote its header")
    path.write_text('{"kind":"hea')
    refuse(path, ":1: not a line of JSON (Unterminated string starting at: line 1 column 9 (char 8))")
    path.write_text('{"kind":"header","format":4}\n')
    refuse(path, ":1: format 4, but this version of pytest-pilotscope reads the formats 1, 2, 3; read it with the version that wrote it")
    path.write_text('{"kind":"note"}\n')
    refuse(path, ":1: a record starts with its header, found a note")


@pytest.mark.parametrize(
    ("entry", "field", "value"), [(REPORT, "p_error", -1.5), (REPORT, "plan_cost", -0.5), (RUN, "row_count", -1), (RUN, "repetition", -2)]
)
def test_impossible_values_are_refused(tmp_path: Path, entry: Entry, field: str, value: float) -> None:
    """A negative count or cost is named with its field."""
    path = write(tmp_path / "r.jsonl", entry)
    header, line = path.read_bytes().splitlines()
    path.write_bytes(header + b"\n" + json.dumps({**json.loads(line), field: value}).encode() + b"\n")
    refuse(path, f":2: field '{field}' must be at least 0, found {value}")


def test_a_negative_true_row_count_is_refused(tmp_path: Path) -> None:
    """The p-errors and q-errors of such a record would mean nothing."""
    path = write(tmp_path / "r.jsonl", REPORT)
    header, line = path.read_bytes().splitlines()
    report = json.loads(line)
    report["estimates"][0]["true"] = -7
    path.write_bytes(header + b"\n" + json.dumps(report).encode() + b"\n")
    refuse(path, ":2: field 'true' must be at least 0, found -7.0")


def test_deep_json_is_refused(tmp_path: Path) -> None:
    """A line nested more deeply than Python follows is named."""
    path = write(tmp_path / "r.jsonl", RUN)
    path.write_bytes(path.read_bytes() + b"[" * 100_000 + b"]" * 100_000 + b"\n")
    with pytest.raises(RecordError, match=f"^{re.escape(str(path))}:3: not a line of JSON "):
        read_record(path)


@pytest.mark.parametrize(("chosen", "rounds"), [("auto", 3), (2, 2)])
def test_a_run_that_chose_its_rounds_has_those_that_all_queries_have(tmp_path: Path, chosen: str | int, rounds: int) -> None:
    """Of 4 and 3 rounds, 3 count, also of a run that was interrupted; a query with fewer than the header says does not."""
    record = record_of({side: {"q0": [1.0] * 4, "q1": [1.0] * 3, "q2": [1.0]} for side in ("baseline", "mscn")})
    path = tmp_path / "r.jsonl"
    with RecordWriter(path, replace(record.header, rounds=2, parameters={"rounds": chosen})) as writer:
        for run in record.runs:
            writer.write(run)
    read = read_record(path)
    assert read.header.rounds == rounds
    pairs = pairs_of(read, "mscn")
    assert (pairs.query_ids, pairs.rounds, pairs.left_out) == (("q0", "q1"), rounds, {"q2": f"measured in 1 of {rounds} rounds"})


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_that_was_read_is_searched_for_garbage(tmp_path: Path, enabled: bool) -> None:
    """Python's collector, which would visit every value again and again, waits, also if a line is wrong, and takes a record for old."""
    path = write(tmp_path / "run.jsonl", *(replace(RUN, repetition=repetition) for repetition in range(1, 3001)))
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_bytes(path.read_bytes() + b"[]\n")
    searches: list[str] = []

    def count(phase: str, _: dict[str, int]) -> None:
        searches.append(phase)

    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    gc.collect()
    gc.callbacks.append(count)
    try:
        record = read_record(path)
        found = len(searches)
        assert any(value is record.runs for value in gc.get_objects(generation=2)) is enabled
        with pytest.raises(RecordError, match=r"a line must be an object with a 'kind'$"):
            read_record(wrong)
        assert gc.isenabled() is enabled
    finally:
        gc.callbacks.remove(count)
        (gc.enable if before else gc.disable)()
    assert len(record.runs) == 3000
    assert found <= 2  # one may begin as soon as reading has ended

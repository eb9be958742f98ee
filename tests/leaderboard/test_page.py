"""The page of the leaderboard."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.leaderboard.__main__ import page
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryReport
from tests.record.building import record_of

TIMES = {
    "baseline": {"q1": [100.0] * 5, "q2": [40.0] * 5},
    "mscn": {"q1": [50.0] * 5, "q2": [41.0] * 5},
    "oracle": {"q1": [25.0] * 5, "q2": [20.0] * 5},
}


def _record(**header: object) -> Record:
    record = record_of(TIMES, algorithm="compare")
    given = {"server": {"version": "18.4"}, "parameters": {"rounds": 5, "scale": None}, **header}
    return replace(record, header=replace(record.header, **given))  # type: ignore[arg-type]


def test_records_of_one_world_stand_under_one_heading() -> None:
    """The fastest comes first; the command and the fingerprints are there."""
    text = page([_record(), _record(run_name="b")], machine="On two cores.")
    assert text.count("## stats_tiny, PostgreSQL 18.4") == 1
    assert "On two cores." in text
    assert text.count("`pytest benchmarks --compare --algo mscn,oracle --db stats_tiny --rounds 5`") == 2
    assert "Fingerprints: build `16.4`, data `bb`, statistics `aa`." in text
    rows = [line for line in text.splitlines() if line.startswith("| 1-3 | oracle | 3.111 [")]
    assert len(rows) == 2


def test_the_command_allows_what_the_run_allowed() -> None:
    """A run of which sides left more queries than is allowed by default was measured with `--max-unsteered`."""
    record = _record()
    left = QueryReport(query_id="q1", side="mscn", left="it has an outer join")
    text = page([replace(record, reports=(*record.reports, left))], machine="")
    assert "--algo mscn,oracle --db stats_tiny --rounds 5 --max-unsteered 100%`" in text


def test_other_data_are_another_table() -> None:
    """Only equal fingerprints can be compared."""
    text = page([_record(), _record(fingerprints={"data": "cc"})], machine="")
    assert text.count("## stats_tiny, PostgreSQL 18.4") == 2


def test_other_conditions_are_another_table() -> None:
    """Heading and command have them, and all else that the run had beside the defaults."""
    parameters = {"rounds": 5, "seed": 3, "num_epoch": 7, "query_timeout_ms": 900.0, "writes": "w.sql@2", "writes_per_query": 5.0}
    busy = _record(conditions={"parallel": 2, "jit": 1, "clients": 4}, parameters=parameters, variants={"mscn": "work_mem=9MB,a='b c'"})
    text = page([_record(), busy], machine="")
    conditions = "--parallel 2 --jit --clients 4 --writes w.sql@2 --writes-per-query 5"
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## stats_tiny, PostgreSQL 18.4",
        f"## stats_tiny, PostgreSQL 18.4, {conditions}",
    ]
    variant = """--variant 'mscn:work_mem=9MB,a='"'"'b c'"'"''"""
    options = "--seed 3 --rounds 5 --epochs 7 --query-timeout-ms 900.0"
    assert f"`pytest benchmarks --compare --algo oracle {variant} --db stats_tiny {options} {conditions}`" in text


def test_a_part_of_a_workload_is_left_out_by_name() -> None:
    """So are a run that did not finish, one of changing data or on several servers, and times taken beside other workers."""
    unfinished = replace(_record(run_name="u"), end=None)
    text = page(
        [_record(run_name="p", tags={"partial": "20 of 146 queries"}), unfinished, _record(run_name="w", parallel=True)], machine=""
    )
    assert text.endswith(
        "Left out:\n\n- p: it measured 20 of 146 queries\n- u: it is INTERRUPTED\n- w: its times were taken beside other workers\n"
    )
    streamed = _record(run_name="s", tags={"stream": "12 queries"})
    apart = _record(run_name="o", other_servers=("mscn",))
    assert page([streamed, apart], machine="").endswith(
        "Left out:\n\n- s: its data or queries change (--stream)\n- o: mscn ran on another server\n"
    )
    alone = _record(run_name="b", algorithm="baseline", sides=("baseline",))
    assert page([alone], machine="").endswith("Left out:\n\n- b: it has the baseline alone, which the other runs share\n")

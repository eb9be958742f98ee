"""`pilotscope export` writes as SQL what made queries faster beyond noise, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_pilotscope.queries.statements import split_statements
from pytest_pilotscope.record.record import Entry, Record, RecordWriter
from pytest_pilotscope.record.results import BuiltIndex, ChangedSetting, Preparation, QueryReport, RunEnd
from tests.commands.conftest import Command
from tests.commands.test_hint_plan import node, scan
from tests.projects import measure, record_lines
from tests.record.building import record_of

FACTORS = {"won": 0.5, "lost": 2.0, "tied": 1.0, "same": 0.4, "hidden": 0.3}
"""The times of the queries as multiples of the baseline's."""

SQL = 'SELECT count(*) FROM t AS a, t AS "b;" WHERE a.x = 1 -- to the end'


def measured(side: str = "mscn", **factors: float) -> Record:
    """Return a run with 1 % noise."""
    random = np.random.default_rng(3)
    times = {
        name: {
            query: [40.0 * (factor if name == side else 1.0) * float(np.exp(random.normal(0, 0.01))) for _ in range(5)]
            for query, factor in (factors or FACTORS).items()
        }
        for name in ("baseline", side)
    }
    record = record_of(times, algorithm=side)
    header = replace(
        record.header,
        queries=dict.fromkeys(record.header.queries, SQL),
        server={"version": "16.4", "version_num": 160004},
        tags={"dataset.db": 'my"db'},
    )
    return replace(record, header=header)


def steered(record: Record, side: str = "mscn") -> Record:
    """Add the plans of an estimator: another one than PostgreSQL's, but for one query; one has no hints."""
    join = node("Hash Join", scan("a"), node("Hash", scan("b;", "Index Scan", index="t_x")))
    plans = dict.fromkeys(FACTORS, (join, "other")) | {"same": (join, "own"), "hidden": (node("Aggregate", scan("t_1")), "other")}
    reports = [
        QueryReport(
            query_id=query, side=of, plan=plan, plan_shape=shape if of == side else "own", steered_ratio=1.0 if of == side else None
        )
        for query, (plan, shape) in plans.items()
        for of in ("baseline", side)
    ]
    return replace(record, reports=tuple(reports))


def prepared(record: Record, side: str, *, plans: dict[str, str] | None = None, **changes: Any) -> Record:
    """Add what a side has changed; `plans` are the indexes in the plans of its queries."""
    reports = tuple(
        QueryReport(query_id=query, side=side, plan=node("Append", *(scan("a", "Index Scan", index=name) for name in indexes.split())))
        for query, indexes in (plans or {}).items()
    )
    return replace(record, reports=reports, preparations=(Preparation(side=side, **changes),))


def index(name: str, **more: Any) -> BuiltIndex:
    """Return an index as it was built."""
    definition = f"CREATE INDEX {name} ON public.t USING btree (x)"
    return BuiltIndex(**{"schema": "public", "table": "t", "name": name, "definition": definition, "size_bytes": 81920, **more})


def written(path: Path, record: Record) -> Path:
    """Write a record to a file."""
    with RecordWriter(path, record.header) as writer:
        entries: tuple[Entry, ...] = (*record.runs, *record.reports, *record.preparations)
        for entry in (*entries, *([record.end] if record.end else [])):
            writer.write(entry)
    return path


def exported(pilotscope: Command, workplace: Path, record: Record, *options: str) -> str:
    """Return the script of a record."""
    path = written(workplace / "run.jsonl", record)
    result = pilotscope("export", str(path), *options)
    path.unlink()
    assert result.exit_code == 0, result.stderr
    return result.stdout


def statements(script: str) -> list[str]:
    """Return the statements of a script, as psql divides it."""
    return [one.sql for one in split_statements(script)]


def test_hints_are_those_of_won_queries(pilotscope: Command, workplace: Path) -> None:
    """Only the won query with another plan than PostgreSQL's has hints, before its text; the others are named with the reason."""
    script = exported(pilotscope, workplace, steered(measured()))
    load, explain = statements(script)
    assert load == "LOAD 'pg_hint_plan'"
    head, _, rest = explain.partition("*/\n")
    assert head == (
        'EXPLAIN (COSTS off)\n/*+\n    Leading((a "b;"))\n'
        '    HashJoin(a "b;")\n    SeqScan(a)\n    IndexScan("b;" t_x)\n    Rows(a "b;" #5)\n'
    )
    assert rest.startswith("/* won: 1.98 times as fast [")
    assert rest.endswith(f" */\n{SQL}")
    assert "\n-- no hints for same, 2.5" in script
    assert "]: its plan is PostgreSQL's own\n" in script
    assert "]: the alias t_1 is not in the statement, and hints go by alias\n" in script
    introduction = script.splitlines()[1]
    assert introduction.startswith(
        "-- Of 5 queries, 3 were faster beyond noise (95 %, corrected for all of them), 1 slower, 1 neither, 0 not"
    )
    assert "-- Slower, so nothing of these is exported: lost 0.5" in script


def test_decided_settings_are_hints_too(pilotscope: Command, workplace: Path) -> None:
    """A decision of settings for one query is `Set`, also where the plan itself has no hints."""
    record = steered(measured())
    reports = tuple(replace(one, settings={"enable_nestloop": "off", "random_page_cost": "1.5"}) for one in record.reports)
    script = exported(pilotscope, workplace, replace(record, reports=reports))
    sets = '    Set(enable_nestloop off)\n    Set(random_page_cost "1.5")\n'
    heads = {one.partition("/* ")[2].split(":")[0]: one.partition("*/")[0] for one in statements(script)[1:]}
    assert heads["hidden"] == f"EXPLAIN (COSTS off)\n/*+\n{sets}"
    assert heads["won"].startswith(f'EXPLAIN (COSTS off)\n/*+\n{sets}    Leading((a "b;"))\n')


def test_settings_that_the_execution_reads_are_set_for_it_too(pilotscope: Command, workplace: Path) -> None:
    """A hint holds while a statement is planned: more memory would be planned with, and not be there."""
    record = steered(measured())
    reports = tuple(replace(one, settings={"enable_nestloop": "off", "work_mem": "64MB"}) for one in record.reports)
    script = exported(pilotscope, workplace, replace(record, reports=reports))
    text = "; Set holds while the statement is planned only, so execute it in a transaction after SET LOCAL work_mem = '64MB'; */"
    assert script.count(text) == len(statements(script)) - 1 == 2


def test_the_conditions_of_the_run_are_said(pilotscope: Command, workplace: Path) -> None:
    """Plans and times of another number of workers may be others."""
    record = steered(measured())
    script = exported(pilotscope, workplace, replace(record, header=replace(record.header, conditions={"parallel": 2, "jit": 1})))
    assert script.splitlines()[3] == "-- Measured with --parallel 2 --jit: without, other plans and times are possible."
    assert "Measured with" not in exported(pilotscope, workplace, record)


def test_an_index_is_that_of_a_won_query(pilotscope: Command, workplace: Path) -> None:
    """An index has its interval, its space and its cost of writing; one that only lost or tied queries use is named, not exported."""
    cost = {"inserted_rows": 1000, "insert_ms": (1.0, 1.1, 0.9), "insert_with_index_ms": (1.5, 1.5, 1.5), "wal_bytes": 66000}
    built = (index("good", **cost), index("bad"), index("idle"), index("unused"), index("both"))
    plans = {"won": "good both", "tied": "idle", "lost": "bad both"}
    script = exported(
        pilotscope, workplace, prepared(measured("index"), "index", plans=plans, indexes=built, dropped=("CREATE INDEX old ON t",))
    )
    assert statements(script) == ["CREATE INDEX CONCURRENTLY good ON public.t USING btree (x)"]
    reasons = script.split("\n\n")[1].splitlines()
    assert reasons[0].startswith("-- good on public.t: the 1 query with it in the plan: 1.98 times as fast [")
    assert reasons[1].startswith("-- faster: won 1.98 times as fast [")
    assert reasons[2] == "-- space: 81.9 kB"
    assert reasons[3] == (
        "-- cost of writing: +0.50 µs for each inserted row [+0.40, +0.60; the smallest and the largest of 3 rounds], which takes 1.00 µs "
        "without any index, and 66 bytes more WAL; 1000 rows inserted into a table of their own"
    )
    for name in ("bad", "idle", "unused"):
        assert f"-- not exported: {name} on public.t: in the plan of no query that is faster beyond noise" in script
    assert "; slower with it: lost 0.5" in script
    assert "-- not exported: both on public.t: the 2 queries with it in the plan: 0.8" in script
    assert "measured without these indexes, but nothing shows that dropping them made a query faster: CREATE INDEX old ON t\n" in script
    assert script.endswith('-- DROP INDEX CONCURRENTLY IF EXISTS "public"."good";\n')


def test_undo_is_a_script_of_its_own(pilotscope: Command, workplace: Path) -> None:
    """The statements that undo are those of the exported changes, the last first."""
    record = prepared(measured("index"), "index", plans={"won": "one two"}, indexes=(index("one"), index("two", schema='s"')))
    undo = statements(exported(pilotscope, workplace, record, "--undo"))
    assert undo == ['DROP INDEX CONCURRENTLY IF EXISTS "s"""."two"', 'DROP INDEX CONCURRENTLY IF EXISTS "public"."one"']
    assert "cost of writing: not measured" in exported(pilotscope, workplace, record)


def test_a_partitioned_table_has_no_concurrent_index(pilotscope: Command, workplace: Path) -> None:
    """PostgreSQL refuses CONCURRENTLY there: the statement goes without, and the comment says what it locks."""
    built = index("parted", definition="CREATE INDEX parted ON ONLY public.t USING btree (x)")
    script = exported(pilotscope, workplace, prepared(measured("index"), "index", plans={"won": "parted"}, indexes=(built,)))
    assert statements(script) == ["CREATE INDEX parted ON public.t USING btree (x)"]
    assert "-- the table is partitioned: this locks it for writing; or build each partition's index concurrently, and attach it\n" in script
    assert script.endswith('-- DROP INDEX IF EXISTS "public"."parted";\n')


SETTINGS = (
    ChangedSetting(name="work_mem", value="64MB", level="session", before="4MB"),
    ChangedSetting(name="io_workers", value="it's", level="reload"),
    ChangedSetting(name="shared_buffers", value="1GB", level="restart", before="128MB"),
    ChangedSetting(name="bgwriter_delay", value="10ms", level="reload", baseline_too=True),
)
FASTER = {f"q{n}": 0.5 for n in range(9)}


def test_settings_are_set_where_they_belong(pilotscope: Command, workplace: Path) -> None:
    """Settings of sessions go to the database or a role, others to the system; each has its interval and its undoing."""
    record = prepared(measured("knob", **FASTER), "knob", settings=SETTINGS)
    script = exported(pilotscope, workplace, record)
    assert statements(script) == [
        'ALTER DATABASE "my""db" SET "work_mem" = \'64MB\'',
        "ALTER SYSTEM SET \"io_workers\" = 'it''s'",
        "ALTER SYSTEM SET \"shared_buffers\" = '1GB'",
        "SELECT pg_reload_conf()",
    ]
    assert "-- work_mem: 4MB before; together with the others 2.0" in script
    assert "-- io_workers: the default before; together" in script
    assert "-- restart the server for shared_buffers\n" in script
    assert "-- not exported: bgwriter_delay: the baseline had the same value, so it was not measured\n" in script
    assert statements(exported(pilotscope, workplace, record, "--undo")) == [
        "SELECT pg_reload_conf()",
        'ALTER SYSTEM RESET "shared_buffers"',
        'ALTER SYSTEM RESET "io_workers"',
        'ALTER DATABASE "my""db" RESET "work_mem"',
    ]
    first = [statements(exported(pilotscope, workplace, record, *options))[0] for options in (["--role", "r"], ["--database", "d"])]
    assert first == ['ALTER ROLE "r" SET "work_mem" = \'64MB\'', 'ALTER DATABASE "d" SET "work_mem" = \'64MB\'']
    both = exported(pilotscope, workplace, record, "--role", "r", "--database", "d")
    assert statements(both)[0] == 'ALTER ROLE "r" IN DATABASE "d" SET "work_mem" = \'64MB\''


def test_settings_within_noise_stay(pilotscope: Command, workplace: Path) -> None:
    """If the workload is not faster beyond noise, no setting is exported, and the script says so."""
    record = prepared(measured("knob", won=0.5, **{f"q{n}": 1.0 for n in range(9)}), "knob", settings=SETTINGS[:2])
    script = exported(pilotscope, workplace, record)
    assert statements(script) == []
    assert "-- not exported: work_mem, io_workers: 2 settings measured together: the workload is 1." in script
    assert "in total, which is not faster beyond noise\n" in script


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_nothing_won_is_nothing_exported(pilotscope: Command, workplace: Path, factor: float) -> None:
    """A run of ties or losses has no statement, and says so."""
    script = exported(pilotscope, workplace, steered(measured("mscn", **dict.fromkeys(FACTORS, factor))))
    assert statements(script) == []
    assert "-- No query was faster beyond noise.\n" in script


def test_an_older_record_says_what_it_lacks(pilotscope: Command, workplace: Path) -> None:
    """Before 0.3.0 a record had no indexes: the script says so, although queries were won."""
    script = exported(pilotscope, workplace, measured("index"))
    assert statements(script) == []
    assert "-- nothing to export: the record has neither indexes, settings nor decisions (0.2.0 recorded no indexes)\n" in script


def test_comments_stay_comments(pilotscope: Command, workplace: Path) -> None:
    """No name of a record ends a comment and becomes SQL."""
    odd = "a\nDROP TABLE t; --*/ DROP TABLE u; /*"
    record = steered(measured("mscn", **{odd: 0.5}))
    reports = tuple(replace(report, query_id=odd) for report in record.reports if report.query_id == "won")
    script = exported(pilotscope, workplace, replace(record, reports=reports))
    assert [one.partition(" ")[0] for one in statements(script)] == ["LOAD", "EXPLAIN"]


@pytest.mark.parametrize("sql", ["SELECT 1; DROP TABLE t", "SELECT 1\n\\! touch gone", "SELECT '\\' || x FROM t"])
def test_texts_of_a_record_run_nothing_else(pilotscope: Command, workplace: Path, sql: str) -> None:
    """A record may be somebody else's: of its queries and definitions only single statements without psql's commands are exported."""
    record = steered(measured())
    foreign = replace(record, header=replace(record.header, queries=dict.fromkeys(record.header.queries, sql)))
    script = exported(pilotscope, workplace, foreign)
    assert statements(script) == []
    assert "]: it is not one statement, or has a backslash, which psql reads as a command\n" in script
    built = (index("a", definition=f"CREATE INDEX a ON t (x); {sql}"), index("b", definition="DROP TABLE t"))
    script = exported(pilotscope, workplace, prepared(measured("index"), "index", plans={"won": "a b"}, indexes=built))
    assert statements(script) == []
    assert "-- not exported: b on public.t: its definition is no CREATE INDEX: DROP TABLE t\n" in script


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            {"end": RunEnd(status="FAILED", finished_at="2025-01-01T00:10:00+00:00")},
            [],
            "mscn_stats_tiny_20250101_000000 is not exported: the run is FAILED, so it proves nothing; see its error and run it again",
        ),
        ({}, ["--algo", "lero"], "one run is exported, found 0; choose it with --algo; there are: mscn on stats_tiny"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    pilotscope: Command, workplace: Path, changes: dict[str, Any], options: list[str], message: str
) -> None:
    """Exit code 2, with the reason."""
    written(workplace / "run.jsonl", replace(measured(), **changes))
    result = pilotscope("export", "run.jsonl", *options)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"Error: {message}\n")


def test_a_file_gets_the_script(pilotscope: Command, workplace: Path) -> None:
    """With -o the script is in the file, and the terminal names it."""
    written(workplace / "results" / "mine.jsonl", measured())
    result = pilotscope("export", "mine", "-o", "out/mine.sql")
    assert (result.exit_code, result.stdout) == (0, "out/mine.sql: mscn_stats_tiny_20250101_000000\n")
    assert (workplace / "out" / "mine.sql").read_text(encoding="utf-8").startswith("-- mscn on stats_tiny: run mscn_stats_tiny_2025")


@pytest.mark.slow
def test_a_real_run_of_an_index_advisor_is_exported(pilotscope: Command, pytester: pytest.Pytester) -> None:
    """Its record has the indexes with their costs of writing; each is exported, or named with the reason."""
    result = measure(pytester, "--algo", "index", "--limit", "6", "--no-mlflow", "--index-start", "none", "--training-size", "50")
    assert result.ret == 0, result.stdout.str()
    (preparation,) = (line for line in record_lines(pytester.path) if line["kind"] == "preparation")
    assert preparation["indexes"]
    assert preparation["dropped"]
    assert all(index["inserted_rows"] and index["wal_bytes"] > 0 for index in preparation["indexes"])
    (path,) = (pytester.path / "results").glob("*.jsonl")
    told = pilotscope("export", str(path))
    assert told.exit_code == 0, told.stderr
    assert all(index["name"] in told.stdout for index in preparation["indexes"])


def test_a_comparison_is_exported_by_algorithm(pilotscope: Command, workplace: Path) -> None:
    """Of several algorithms in one record one has to be chosen."""
    mscn = measured("mscn")
    lero = tuple(replace(run, side="lero") for run in mscn.runs if run.side == "mscn")
    header = replace(mscn.header, algorithm="compare", sides=("baseline", "mscn", "lero"))
    record = replace(mscn, header=header, runs=(*mscn.runs, *lero))
    assert exported(pilotscope, workplace, record, "--algo", "lero").startswith("-- lero on stats_tiny: ")
    with RecordWriter(workplace / "run.jsonl", record.header) as writer:
        writer.write(RunEnd(status="FINISHED", finished_at="2025-01-01T00:10:00+00:00"))
    result = pilotscope("export", "run.jsonl")
    assert result.exit_code == 2
    assert (
        result.stderr == "Error: one run is exported, found 2; choose it with --algo; there are: mscn on stats_tiny, lero on stats_tiny\n"
    )

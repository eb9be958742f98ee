"""The script of `pilotscope export`: statements, hints, their reasons as comments, and the statements that undo them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_pilotscope.commands.export.changes import Change, Scope, index_changes, setting_changes
from pytest_pilotscope.commands.export.hint_plan import NoHints, executed_settings, hints_of, settings_hints
from pytest_pilotscope.commands.export.outcomes import Won, comment, is_plain, listed, times_as_fast
from pytest_pilotscope.errors import UsageError, counted
from pytest_pilotscope.gate.comparable import states_of
from pytest_pilotscope.record.conditions import conditions_text
from pytest_pilotscope.record.projection import runs_of
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import BASELINE_AGAIN
from pytest_pilotscope.report.figure_table import started_text
from pytest_pilotscope.statistics.intervals import QueryRatio


def chosen_run(records: Sequence[Record], algorithm: str | None) -> Record:
    """Return the only run of one algorithm; raise `UsageError` for none, for several, and for one whose times prove nothing."""
    runs = [run for record in records for run in runs_of(record) if len(run.header.sides) > 1]
    found = [run for run in runs if algorithm in (None, run.header.algorithm)]
    if len(found) != 1:
        there = ", ".join(f"{run.header.algorithm} on {run.header.dataset}" for run in runs) or "none that was measured beside a baseline"
        raise UsageError(f"one run is exported, found {len(found)}; choose it with --algo; there are: {there}")
    (run,) = found
    if run.header.sides[-1] == BASELINE_AGAIN:
        raise UsageError(
            f"{run.header.run_name} measured PostgreSQL against itself, so it has nothing to export; name a run of an algorithm"
        )
    for state in states_of(run):
        if state.kind != "too-few-rounds":  # the intervals tell that
            raise UsageError(f"{run.header.run_name} is not exported: {state.text}")
    return run


def script(run: Record, scope: Scope, *, undo: bool = False) -> str:
    """Return the script of a run; with `undo` the statements that undo it."""
    won = Won.of(run, next(side for side in run.header.sides if side != run.header.baseline_side))
    changes = [*_changes(won, scope)]
    undone = [change.undo for change in reversed(changes) if change.undo]
    if undo:
        lines = [comment(f"undoes what `pilotscope export {run.header.run_name}` does; hints are undone by taking them away"), *undone]
    else:
        lines = [*_introduction(won), *_statements(changes), *_hints(won)]
        if undone:
            lines += ["", comment("To undo all of it (`pilotscope export --undo` writes this as statements):"), *map(comment, undone)]
    return "\n".join(lines) + "\n"


def _introduction(won: Won) -> Iterator[str]:
    header = won.record.header
    wins, losses, ties = (won.queries(outcome) for outcome in ("win", "loss", "tie"))
    server = f"PostgreSQL {header.server.get('version', 'of an unknown version')}"
    yield comment(
        f"{won.side} on {header.dataset}: run {header.run_name} of {started_text(header)}, {server}, {counted(header.rounds, 'round')}"
    )
    yield comment(
        f"Of {counted(len(header.queries), 'query', 'queries')}, {len(wins)} were faster beyond noise (95 %, corrected for all of them), "
        f"{len(losses)} slower, {len(ties)} neither, {len(won.pairs.left_out)} not measured. Only what made queries faster is here."
    )
    yield comment(
        "Intervals of 95 % are in brackets. Run this with psql, outside a transaction; measure again there: data and load differ."
    )
    if header.conditions:
        yield comment(f"Measured with {conditions_text(header.conditions)}: without, other plans and times are possible.")
    if losses:
        yield comment(f"Slower, so nothing of these is exported: {listed(losses)}")
    if not wins:
        yield comment("No query was faster beyond noise.")


def _changes(won: Won, scope: Scope) -> Iterator[Change]:
    for preparation in won.record.preparations:
        yield from index_changes(won, preparation)
        yield from setting_changes(won, preparation.settings, scope)
    if not won.record.preparations and not _steers(won):
        yield Change(reasons=("nothing to export: the record has neither indexes, settings nor decisions (0.2.0 recorded no indexes)",))


def _statements(changes: Sequence[Change]) -> Iterator[str]:
    for change in changes:
        yield from ("", *map(comment, change.reasons), *([change.statement] if change.statement else []))


def _steers(won: Won) -> bool:
    return any(report.steered_ratio is not None for report in won.reports.values())


def _hints(won: Won) -> Iterator[str]:
    """Yield an EXPLAIN with hints for each query that is faster beyond noise, then the queries that hints cannot help."""
    hinted, without = [], []
    for ratio in won.queries("win") if _steers(won) else ():
        try:
            hinted.append(_explained(won, ratio))
        except NoHints as reason:
            without.append(comment(f"no hints for {ratio.query_id}, {times_as_fast(ratio.ratio.inverse)}: {reason}"))
    if hinted:
        yield from (
            "",
            comment("Hints of pg_hint_plan, each for one statement with these constants. EXPLAIN shows the plan and executes nothing."),
            comment("Put the hints at the front of the statement, or into the table hint_plan.hints; to undo, take them away."),
            "LOAD 'pg_hint_plan';",
            *hinted,
        )
    yield from (["", *without] if without else [])


def _explained(won: Won, ratio: QueryRatio) -> str:
    """Return the hints before the statement, and the speed-up behind them, because pg_hint_plan reads the first comment only."""
    report, baseline = won.reports.get(ratio.query_id), won.baseline.get(ratio.query_id)
    sql = won.record.header.queries.get(ratio.query_id)
    if report is None or report.plan is None or sql is None:
        raise NoHints("the record has no plan of it")
    if not is_plain(sql):
        raise NoHints("it is not one statement, or has a backslash, which psql reads as a command")
    if baseline is not None and baseline.plan_shape == report.plan_shape:
        raise NoHints("its plan is PostgreSQL's own")
    version_num = won.record.header.server.get("version_num")
    hints = settings_hints(report.settings)
    try:
        hints += hints_of(report.plan, sql, version_num=version_num if isinstance(version_num, int) else 0)
    except NoHints:
        if not hints:
            raise
    if not hints:
        raise NoHints("its plan has neither joins nor scans of tables")
    label = f"{ratio.query_id}: {times_as_fast(ratio.ratio.inverse)}"
    if also := executed_settings(report.settings):
        label += f"; Set holds while the statement is planned only, so execute it in a transaction after {also}"
    label = label.replace("*/", "* /").replace("/*", "/ *")
    return "\n".join(["EXPLAIN (COSTS off)", "/*+", *(f"    {hint}" for hint in hints), "*/", f"/* {label} */", f"{sql.rstrip('; ')}\n;"])

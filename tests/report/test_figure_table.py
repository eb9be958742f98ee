"""The table of figures, as text and as Markdown."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryReport, RunEnd, SubplanEstimate, TrainingReport
from pytest_pilotscope.report.figure_table import bound_text, factor_text, figure_table, markdown, started_text
from pytest_pilotscope.report.terminal import render_records
from pytest_pilotscope.report.text_tables import text_table
from pytest_pilotscope.statistics.summary import summarize
from tests.record.building import record_of
from tests.statistics.test_ranking import record_of_sides


def with_figures() -> Record:
    """Return a fast side with estimates and training, and a slow one that is steered only in part."""
    record = record_of_sides(fast=0.5, slow=2.0)
    estimate = SubplanEstimate(aliases=("u",), estimated=10, true=20)
    reports = (
        QueryReport(query_id="q0", side="baseline", plan_shape="a"),
        QueryReport(query_id="q0", side="fast", plan_shape="b", estimates=(estimate,), p_error=1.5, steered_ratio=1.0),
        QueryReport(query_id="q0", side="slow", plan_shape="a", steered_ratio=0.5, steering_reasons=("Seq Scan u | v",)),
    )
    training = (TrainingReport(side="fast", duration_s=12.0),)
    return replace(record, reports=reports, training=training, end=RunEnd(status="FINISHED", finished_at="2025-01-01T00:10:00+00:00"))


def rows(record: Record) -> dict[str, tuple[str, ...]]:
    """Return the cells by figure."""
    return {figure.name: cells for figure, cells in figure_table(summarize(record)).rows}


def test_every_figure_has_a_cell_for_every_side() -> None:
    """A figure that does not apply to a side is a dash; the others have the unit in their name."""
    table = rows(with_figures())
    assert table["rank"] == ("2", "1", "3")
    assert table["queries"] == ("20", "20", "20")
    assert table["won/lost/tied"] == ("-", "20/0/0", "0/20/0")
    assert table["plans changed"] == ("-", "1 of 1", "0 of 1")
    assert table["of these won/lost"] == ("-", "1/0", "-")
    assert table["steered"] == ("-", "100.0%", "50.0%")
    assert table["training s"] == ("-", "12.0", "-")
    assert table["q-error"] == ("-", "2.00 / 2.00 / 2.00", "-")
    assert table["p-error"] == ("-", "1.50 / 1.50 / 1.50", "-")
    assert [float(cell) for cell in table["total s"]] == [round(float(cell), 3) for cell in table["total s"]]
    speedup = float(table["speed-up [95 %]"][1].split()[0])
    assert 1.95 < speedup < 2.05
    saved_s = float(table["total s"][0]) - float(table["total s"][1])
    break_even = table["break-even [95 %]"][1]
    assert abs(float(break_even.split()[0]) - 12.0 / saved_s) < 1.1
    assert rows(replace(with_figures(), training=(TrainingReport(side="slow", duration_s=1.0),)))["break-even [95 %]"] == (
        "-",
        "-",
        "never",
    )
    assert table["planning + inference"][0] == f"{20 * 1.0 / (1e3 * float(table['total s'][0])):.1%}"  # each run has 1 ms of planning


def test_figures_that_apply_to_no_side_are_left_out() -> None:
    """A comparison without estimators has no q-error, one without training no break-even."""
    assert {"q-error", "p-error", "training s", "break-even [95 %]", "steered"}.isdisjoint(rows(record_of_sides(fast=0.5)))


def test_a_time_out_makes_a_total_a_lower_bound() -> None:
    """Its total is marked."""
    record = record_of({"baseline": {"q": [1.0, 1.0]}, "slow": {"q": [">50", ">50"]}, "other": {"q": [1.0, 1.0]}}, algorithm="compare")
    table = rows(record)
    assert table["total s"] == ("0.001", ">= 0.050", "0.001")
    assert table["timeouts"] == ("0", "1", "0")


def test_a_side_without_a_complete_query_has_no_times() -> None:
    """A failed side has dashes, not zeros, which would be the best times of all."""
    record = record_of({"baseline": {"q": [1.0, 1.0]}, "broken": {"q": ["boom", "boom"]}}, algorithm="compare")
    table = rows(record)
    assert (table["total s"], table["errors"], table["rank"]) == (("0.001", "-"), ("0", "1"), ("1", "-"))


def test_the_terminal_has_a_column_for_each_side() -> None:
    """After the verdict, the title names the run, and a line below names the unused steering."""
    lines = render_records([with_figures()], width=None, color=False).splitlines()
    assert lines[0].startswith("fast is 2.00 times as fast as PostgreSQL on stats_tiny (")
    assert lines[4].strip() == "compare_stats_tiny_20250101_000000: FINISHED, 5 rounds, seed 0"
    assert [line.split() for line in lines if line.strip().startswith("baseline")] == [["baseline", "fast", "slow"]]
    assert lines[-1] == "q0: slow steered 50.0%: Seq Scan u | v"


@pytest.mark.parametrize("width", [None, 120, 80, 20])
def test_no_cell_is_cut_on_a_narrow_terminal(width: int | None) -> None:
    """Sides that do not fit next to each other are below each other, in lines that fit unless a single side does not."""
    others = [f"opponent-with-a-long-name-{number}" for number in range(6)]
    record = record_of_sides(**dict.fromkeys(others, 1.0))
    shown = render_records([record], width=width, color=False).splitlines()
    lines = shown[next(place for place, line in enumerate(shown) if line.startswith("compare_")) :] if width != 20 else shown
    lines = [line for line in lines if not line.startswith("opponent")]  # remarks below the table
    sides = [line.split() for line in lines if "opponent" in line or line.split() == ["baseline"]]
    assert [name for names in sides for name in names] == ["baseline", *others]
    speedups = [line.count("[") - 1 for line in lines if line.strip().startswith("speed-up")]
    assert sum(speedups) == len(others)
    assert "…" not in "".join(lines)
    assert {None: 1, 120: 2, 80: 4, 20: 7}[width] == len(sides)
    assert width in (None, 20) or max(map(len, lines)) <= width


def test_markdown_is_a_table_with_its_explanation() -> None:
    """Every row has as many cells as there are sides, special characters are escaped, and every figure shown is explained."""
    text = markdown(with_figures())
    lines = text.splitlines()
    assert lines[0] == "# stats_tiny: baseline, fast, slow"
    table = [line for line in lines if line.startswith("| ")]
    assert table[:3] == ["|  | baseline | fast | slow |", "| --- | ---: | ---: | ---: |", "| rank | 2 | 1 | 3 |"]
    assert {line.replace("\\|", "").count("|") for line in table} == {5}
    assert [line for line in lines if line.startswith("- **slow is significantly slower on 20 of 20 queries: ")]
    assert "- **q0: slow steered 50.0%: Seq Scan u \\| v**" in lines
    assert len([line for line in lines if line.startswith("*")]) == len(rows(with_figures()))


def test_large_factors_have_no_digits_behind_the_point() -> None:
    """Factors have three digits, and more only before the point."""
    assert [factor_text(value) for value in (1.234, 12.34, 123.4, 12345.6)] == ["1.23", "12.3", "123", "12,346"]


def test_an_open_end_is_shown_as_infinity() -> None:
    """A single round has no spread, so its interval is open."""
    assert (bound_text(float("inf")), bound_text(12345.678), bound_text(1.23456)) == ("∞", "1.23e+04", "1.235")


@pytest.mark.parametrize(
    ("started_at", "told"),
    [("2025-01-01T00:59:59.123456+00:00", "2025-01-01 00:59 UTC"), ("2025-01-01T00:10:00+02:00", "2024-12-31 22:10 UTC")],
)
def test_a_run_started_at_a_minute_in_utc(started_at: str, told: str) -> None:
    """Nobody reads microseconds."""
    assert started_text(replace(with_figures().header, started_at=started_at)) == told


def test_text_in_brackets_is_no_markup() -> None:
    """A cell or a column such as [bold] is shown as it is."""
    buffer = StringIO()
    Console(file=buffer, width=200).print(text_table(["", "[red]"], [["[bold]", "0.367 [unknown]"]]))
    assert all(text in buffer.getvalue() for text in ("[red]", "[bold]", "0.367 [unknown]"))


def test_a_side_alone_has_no_rank() -> None:
    """There is nothing to rank one side against."""
    alone = record_of({"baseline": {"q0": [10.0, 10.1]}}, algorithm="baseline")
    assert "rank" not in [figure.name for figure, _ in figure_table(summarize(alone)).rows]

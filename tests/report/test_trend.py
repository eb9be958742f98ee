"""The page of a trend: one file, with a line for each set of comparable runs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import unquote

from pytest_pilotscope.report.trend import TrendRun, lines_of, write_trend
from tests.report.samples import HOSTILE
from tests.report.test_page import Reader

START = datetime(2026, 1, 2, tzinfo=timezone.utc)


def run(day: int, value: float, build: str = "18.4", *, name: str = "") -> TrendRun:
    """Return the run of a day."""
    return TrendRun(
        name=name or f"run {day}",
        started_at=START + timedelta(days=day),
        value=value,
        low=value * 0.99,
        high=value * 1.01,
        commit=f"c{day}",
        conditions={"build": build, "data": "aa"},
    )


def read(path: Path) -> Reader:
    """Read a page."""
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    return reader


def test_only_runs_with_equal_fingerprints_are_on_one_line() -> None:
    """A run on another build has a line of its own, wherever it stands in time; the lines tell the difference."""
    lines, differing = lines_of([run(3, 1.0), run(0, 1.0), run(1, 2.0, "19.0"), run(2, 1.0)])
    assert differing == ("build",)
    assert [[one.name for one in line.runs] for line in lines] == [["run 0", "run 2", "run 3"], ["run 1"]]
    assert [line.about for line in lines] == ["3 runs, build 18.4", "1 run, build 19.0"]


def test_a_change_between_lines_is_none(tmp_path: Path) -> None:
    """Another build with other speed-ups is another line, not a change; the same on one line is a change."""
    slow, fast = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0], [1.5, 1.51, 1.49, 1.52, 1.48, 1.5]
    builds = [run(day, value, "18.4" if day < 6 else "19.0") for day, value in enumerate(slow + fast)]
    assert write_trend(tmp_path / "trend.html", "a trend", "test_speedup", builds, left_out={}) == ()
    same = [run(day, value) for day, value in enumerate(slow + fast)]
    (change,) = write_trend(tmp_path / "trend.html", "a trend", "test_speedup", same, left_out={})
    assert (change.line, change.run.name, round(change.before, 2), round(change.after, 2)) == ("1", "run 6", 1.0, 1.5)
    text = " ".join(" ".join(read(tmp_path / "trend.html").words).split())
    assert "Line 1, from run 6 (commit c6) on: 1 before, 1.5 after (medians), p = " in text


def test_the_page_is_one_file(tmp_path: Path) -> None:
    """Tags nest, every link is to a run of the page, nothing is fetched, no script runs, and texts stay texts."""
    runs = [run(0, 1.0), run(1, 1.1, name=HOSTILE), TrendRun(name="bare", started_at=START, value=-2.0)]
    write_trend(tmp_path / "a" / "trend.html", HOSTILE, "worst error", runs, left_out={"lost": f"it is {HOSTILE}"})
    found = read(tmp_path / "a" / "trend.html")
    assert found.open == []
    assert found.sources == []
    assert found.tags.count("script") == 0
    assert {unquote(link.removeprefix("#")) for link in found.links if link.startswith("#")} <= set(found.ids)
    assert [link for link in found.links if not link.startswith("#")] == ["data:,"]
    text = "".join(found.words)
    assert f"lost: it is {HOSTILE}" in text
    assert "No change point was found." in text
    assert (tmp_path / "a" / "trend.html").stat().st_mode & 0o777 == 0o600

"""The page as text: complete, well-formed, and safe with any text in a record."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote
from xml.dom import minidom

import pytest
from markupsafe import escape

from pytest_pilotscope.record.projection import COMPARISON, runs_of
from pytest_pilotscope.record.results import TrainingReport
from pytest_pilotscope.report.content import queries_of
from pytest_pilotscope.report.page import drawn, page, write_page, write_plots
from pytest_pilotscope.report.plots import plots_of
from pytest_pilotscope.report.svg import COLOURS
from pytest_pilotscope.statistics.summary import summarize
from tests.record.building import record_of
from tests.report.samples import HOSTILE, comparison, large, minimal

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Reader(HTMLParser):
    """The ids, links, scripts and visible text of a page whose nesting is checked."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag, its id and its link."""
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name == "href" or name == "xlink:href":
                self.links.append(value or "")
            if name in ("src", "srcset", "action", "data"):
                self.sources.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag without content."""
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that the tag that was opened last ends."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect the text between the tags."""
        self.words.append(data)


@pytest.fixture(scope="module")
def read() -> Reader:
    """Read a page of two records."""
    reader = Reader()
    reader.feed(page([comparison(), minimal()]))
    reader.close()
    return reader


def test_the_page_is_well_formed_and_its_links_lead_somewhere(read: Reader) -> None:
    """Tags nest, no id is there twice, and every link is to an id of the page itself; nothing is fetched."""
    assert read.open == []
    assert len(read.ids) == len(set(read.ids))
    inside = [link for link in read.links if link.startswith("#")]
    assert {unquote(link.removeprefix("#")) for link in inside} <= set(read.ids)
    assert [link for link in read.links if not link.startswith("#")] == ["data:,"]
    assert read.sources == []


def test_what_a_record_holds_is_text(read: Reader) -> None:
    """SQL, messages, reasons and conditions that are HTML are shown as they are; the only script is the page's own."""
    assert read.tags.count("script") == 1
    text = "".join(read.words)
    assert f"slow failed: {HOSTILE}" in text
    assert f"the plan has 20 {HOSTILE}" in text
    assert "[text <> '</td><script>x</script>']" in text
    assert repr(HOSTILE) in text
    assert f"how {HOSTILE}" in text


def test_every_record_has_its_section(read: Reader) -> None:
    """Several records have a list at the top; each query has its own anchor in its own run."""
    assert {"r0-run", "r1-run", "r0-q0", "r0-q19", "r1-only"} <= set(read.ids)
    text = " ".join(" ".join(read.words).split())
    assert text.count("mscn_stats_tiny_20250101_000000: INTERRUPTED, 1 round, seed 0") == 2
    assert "The run was interrupted; its figures cover what was measured." in text
    assert "slow is significantly slower on 19 of 19 queries: " in text
    assert "fast runs another plan than baseline" in text
    assert "fast runs the same plan as baseline" in text
    assert "PostgreSQL 18.4 (embedded)" in text
    assert "looked yes factor 0.1 join size none how" in text
    assert "of 40 validation queries with all candidate plans executed" in text


def test_any_text_may_be_the_id_of_a_query() -> None:
    """Links to a query named with quotes, blanks and per cent signs are encoded and find it."""
    odd = 'q "1" <&> 5%@x'
    reader = Reader()
    reader.feed(page([record_of({side: {odd: [1.0, 2.0], "b": [1.0, 2.0]} for side in ("baseline", "mscn")})]))
    assert f"r0-{odd}" in reader.ids
    links = [unquote(link) for link in reader.links if unquote(link) == f"#r0-{odd}"]
    assert len(links) == 3  # from the table, the bars and the points


def test_a_page_is_the_same_every_time() -> None:
    """Nothing in it depends on the moment of writing."""
    assert page([minimal()]) == page([minimal()])


def test_figures_are_drawn_of_what_there_is() -> None:
    """A record with everything has every kind of plot; one without estimates and training has fewer."""
    record = comparison()
    names = [plot.name for plot in plots_of(record, summarize(record))]
    training = ["training-fast-train_loss", "training-fast-validation_-q_error", "importance-fast"]
    assert names == ["speedup-fast", "speedup-slow", "scatter", "q-errors", "p-errors", *training]
    assert [plot.name for plot in plots_of(minimal(), summarize(minimal()))] == ["speedup-mscn", "scatter"]


def test_a_single_value_is_no_curve() -> None:
    """A series with one finite value, of however many steps, has no plot."""
    metrics = {"one": (1.0,), "alone": (float("nan"), 2.0, float("inf")), "two": (1.0, float("nan"), 3.0)}
    record = replace(minimal(), training=(TrainingReport(side="mscn", duration_s=1.0, metrics=metrics),))
    assert [plot.name for plot in plots_of(record, summarize(record)) if plot.small] == ["training-mscn-two"]


def test_figures_follow_the_page_and_lead_to_the_queries() -> None:
    """On the page no colour is fixed, and the mark of a query links to it and shows its figures."""
    record = comparison()
    plots = {plot.name: plot.for_page("r7-") for plot in plots_of(record, summarize(record))}
    assert not [colour for svg in plots.values() for colour in COLOURS if colour in svg]
    assert "var(--win)" in plots["speedup-fast"]
    assert '<a href="#r7-q5"><title>q5: ' in plots["speedup-fast"]
    assert '<a href="#r7-q5"><title>q5: ' in plots["scatter"]
    assert "query:" not in "".join(plots.values())


def test_figures_as_files_stand_alone(tmp_path: Path) -> None:
    """Each is an XML document with a size, fixed colours and no link."""
    folder = write_plots(tmp_path / "plots", drawn(comparison()))
    files = sorted(folder.iterdir())
    assert len(files) == 8
    for file in files:
        root = minidom.parse(str(file)).documentElement  # noqa: S318 - we have just written it
        assert root is not None
        assert root.hasAttribute("width")
        assert not root.getElementsByTagName("a")
        assert "var(--" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("time_ms", [0.0, 1e12])
def test_times_at_the_edge_are_drawn(time_ms: float) -> None:
    """A record may hold them, so a page of it can be made."""
    slow, fast = [time_ms] * 3, [0.0] * 3
    assert "speed-up" in page([record_of({"baseline": {"q": slow, "p": slow}, "mscn": {"q": fast, "p": slow}})])


def test_the_folder_of_a_page_is_made(tmp_path: Path) -> None:
    """Writing a page creates its folder."""
    path = write_page(tmp_path / "new" / "report.html", [minimal()])
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>\n")


def test_a_page_of_146_queries_and_three_sides_is_below_a_megabyte() -> None:
    """Plans of a real size, those of both sides unlike the baseline's in half of the queries, fit with figures, SQL and tables."""
    text = page([large()])
    assert text.count("<tbody id=") == 146
    assert len(text.encode()) < 1_000_000


def test_sides_with_the_same_plan_share_its_table() -> None:
    """Each different plan is there once, with the estimates of every side that runs it."""
    queries = {query.id: query for query in queries_of(comparison(), summarize(comparison()))}
    assert [table.sides for table in queries["q0"].plans] == [("baseline", "fast")]
    assert [table.sides for table in queries["q1"].plans] == [("baseline", "slow"), ("fast",)]
    assert [table.columns for table in queries["q0"].plans] == [(("baseline",), ("fast",))]
    assert [table.columns for table in queries["q1"].plans] == [(("baseline", "slow"),), (("fast",),)]  # with the same estimates, too
    text = page([comparison()])
    assert "fast runs the same plan as baseline. " in text
    assert "fast runs another plan than baseline. " in text


def test_queries_that_lose_nothing_are_sorted_by_what_they_save() -> None:
    """The order of lost times goes on below zero: what saves most comes last, however the workload is ordered."""
    times = {"baseline": {"q1": [20.0] * 3, "q2": [20.0] * 3, "q3": [20.0] * 3, "q4": [20.0] * 3}}
    faster = {"q1": [2.0] * 3, "q2": [18.0] * 3, "q3": [22.0] * 3, "q4": [9.0] * 3}
    text = page([record_of({**times, "fast": faster})])
    assert re.findall(r'<tbody id="r0-(\w+)"', text) == ["q3", "q2", "q4", "q1"]


def test_the_chart_says_when_a_bar_has_a_colour() -> None:
    """An interval that excludes 1 is not enough among many queries, and the caption says so with their number."""
    first = plots_of(comparison(), summarize(comparison()))[0]
    assert first.caption == (
        "Sorted, with the 95 % interval of each query; above 1 is faster. Of 20 intervals some exclude 1 by chance, "
        "so a bar has a colour only if its difference is significant among all 20 queries."
    )


def test_the_colours_of_faster_and_slower_mean_nothing_else() -> None:
    """No side, link, mark or warning has one of the two, on a light and on a dark screen, and in files."""
    style = files("pytest_pilotscope.report").joinpath("page.css").read_text(encoding="utf-8")
    for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]:
        colours = re.findall(r"--([\w-]+): (#\w{6})", block)
        for outcome in ("win", "loss"):
            assert [name for name, colour in colours if colour == dict(colours)[outcome]] == [outcome]
    in_files = [colour for _, colour in COLOURS.values()]
    assert len(set(in_files)) == len(in_files)
    rules = [rule for rule in re.findall(r"([^{}]+)\{([^{}]*)\}", style) if re.search(r"var\(--(win|loss)\)", rule[1])]
    assert [selector.strip() for selector, _ in rules] == [".win", ".loss"]


def test_a_pair_of_postgresqls_has_no_winner() -> None:
    """No query of an A/A pair is coloured or counted as faster or slower."""
    times = {f"q{i}": [20.0 + i, 20.1 + i, 19.9 + i] for i in range(6)}
    record = record_of({"baseline": times, "baseline-again": {**times, "q5": [200.0, 201.0, 199.0]}}, algorithm="baseline")
    text = page([record])
    assert "This machine is too noisy for single queries" in text
    assert 'class="loss"' not in text
    assert "fill: var(--loss)" not in text
    assert not re.search(r'data-flags="[^"]*(win|loss)', text)


def test_packed_details_are_those_of_the_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each query's row of details and its SQL are in the block, by anchor, as they would be on the page, and nothing of them is twice."""
    inline = page([comparison()])
    monkeypatch.setattr("pytest_pilotscope.report.page.PACKED_FROM", 0)
    text = page([comparison()])
    assert text == page([comparison()])
    block = re.findall(r'<script type="application/gzip" class="details">([^<]*)</script>', text)
    details = json.loads(gzip.decompress(base64.b64decode(block[0])))
    assert details.keys() == {f"r0-q{number}" for number in range(20)}
    for sql, detail in details.values():
        assert detail in inline
        assert detail not in text
        assert escape(sql) in detail
    reader = Reader()
    reader.feed(text)
    assert (reader.open, reader.sources, reader.tags.count("script")) == ([], [], 2)
    assert len(text) < len(inline)


def test_a_baseline_that_others_share_is_at_the_end_of_the_page() -> None:
    """A reader meets a comparison first."""
    record = record_of({side: {"q0": [10.0, 10.1]} for side in ("baseline", "mscn")}, algorithm=COMPARISON)
    runs = [replace(run, header=replace(run.header, shared_baseline="mscn on stats_tiny, then")) for run in runs_of(record)]
    titles = re.findall(r"<h2[^>]*>\s*(\w+)_stats_tiny", page(runs, plots=()))
    assert titles == ["mscn", "baseline"]

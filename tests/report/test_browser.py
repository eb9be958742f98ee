"""The page in a real browser: it opens, sorts, filters, follows links and keys, is accessible, and loads nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.commands.ui import announce
from pytest_pilotscope.places.secret import StoreUri
from pytest_pilotscope.record.results import PlanNode, TrainingReport
from pytest_pilotscope.report.page import write_page
from pytest_pilotscope.tracking.store import open_client
from tests.commands.test_command_line import running_ui
from tests.record.building import record_of
from tests.report.samples import comparison, large, minimal

MISSING = "selenium is not installed: pip install 'pytest-pilotscope[test]'"
webdriver = pytest.importorskip("selenium.webdriver", reason=MISSING)
support = pytest.importorskip("selenium.webdriver.support.wait", reason=MISSING)

ROWS = """
return Array.from(document.querySelectorAll("#r0-queries > tbody")).filter(b => !b.hidden).map(b => b.rows[0].cells[0].textContent)
"""
HEADINGS = "Array.from(document.querySelectorAll('#r0-queries > thead button'))"
CLICK = f"{HEADINGS}.filter(b => b.textContent === arguments[0])[arguments[1]].click()"
OPENED = "return [...document.querySelectorAll('#r0-queries > tbody.open')].map(b => b.id)"
PRESS = "dispatchEvent.call(document.activeElement, new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))"
TYPE = """
const field = document.querySelector("form.filter").elements[arguments[0]];
field.value = arguments[1];
field.dispatchEvent(new Event("input", {bubbles: true}));
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Give a headless Chromium that reports its console and its network."""
    chromium = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no browser: install chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1400,900", *sandbox):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


@pytest.fixture(scope="module")
def axe() -> str:
    """Return the text of axe-core, which a package of the extra `test` brings."""
    package = pytest.importorskip("axe_core_python", reason="axe-core is not installed: pip install 'pytest-pilotscope[test]'")
    return Path(package.__file__).with_name("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of the page."""
    return write_page(tmp_path_factory.mktemp("page") / "report.html", [comparison(), minimal()]).as_uri()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    """Open the page anew; check afterwards that the console is empty and that nothing was fetched but the page."""
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get("about:blank")
    browser.get(address)
    yield browser
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    assert {url for url in requests if not url.startswith(("data:", "about:"))} == {address}


def test_queries_are_sorted_by_lost_time(opened: Any) -> None:
    """The query that failed comes first, then those that lose most on any side; the lost time has its sign."""
    assert opened.execute_script(ROWS) == ["q3", *(f"q{i}" for i in range(19, -1, -1) if i != 3)]
    lost = "return [2, 6].map(i => document.getElementById('r0-q19').rows[0].cells[i].textContent)"
    fast, slow = opened.execute_script(lost)
    assert (fast[0], slow[0]) == ("-", "+")


def test_a_click_on_a_heading_sorts(opened: Any) -> None:
    """A click sorts numbers upwards, then downwards; rows without a number stay at the end; by name, the workload's order returns."""
    opened.execute_script(CLICK, "query", 0)
    in_order = opened.execute_script(ROWS)
    assert in_order == [f"q{i}" for i in range(20)]
    opened.execute_script(CLICK, "speed-up", 1)  # of slow, on which q3 failed
    ascending = opened.execute_script(ROWS)
    assert sorted(ascending) == sorted(in_order)
    assert ascending != in_order
    assert ascending[-1] == "q3"
    values = opened.execute_script(
        "return Array.from(document.querySelectorAll('#r0-queries > tbody')).map(b => Number(b.rows[0].cells[7].dataset.value || null))"
    )
    numbers = [value for value in values if value]
    assert len(numbers) == 19
    assert numbers == sorted(numbers)
    opened.execute_script(CLICK, "speed-up", 1)
    assert opened.execute_script(ROWS)[-1] == "q3"
    marked = opened.execute_script("return Array.from(document.querySelectorAll('[aria-sort=descending]')).map(th => th.textContent)")
    assert marked == ["speed-up"]
    opened.execute_script(CLICK, "query", 0)
    assert opened.execute_script(ROWS) == in_order


def test_typing_and_choosing_filter(opened: Any) -> None:
    """The form filters by id, SQL and outcome, and shows the number of queries."""
    opened.execute_script(CLICK, "query", 0)
    said = "return document.querySelector('form.filter output').value"
    assert opened.execute_script(said) == "20 queries"
    opened.execute_script(TYPE, "text", "alert")
    assert opened.execute_script(ROWS) == ["q4"]
    assert opened.execute_script(said) == "1 of 20 queries"
    assert opened.execute_script("return document.getElementById('r0-q5').hidden")
    opened.execute_script(TYPE, "text", "")
    opened.execute_script(TYPE, "flag", "trouble")
    assert opened.execute_script(ROWS) == ["q1", "q2", "q3"]
    opened.execute_script(TYPE, "flag", "plan")
    assert opened.execute_script(ROWS) == [f"q{i}" for i in range(1, 20, 2)]
    opened.execute_script(TYPE, "text", "q1")
    assert opened.execute_script(ROWS) == ["q1", "q11", "q13", "q15", "q17", "q19"]
    opened.execute_script(TYPE, "flag", "")
    opened.execute_script(TYPE, "text", "")
    assert len(opened.execute_script(ROWS)) == 20


def test_all_that_the_filter_shows_can_be_opened(opened: Any) -> None:
    """A click opens the queries that the filter shows, for printing; a second click closes them."""
    opened.execute_script(CLICK, "query", 0)
    opened.execute_script(TYPE, "flag", "trouble")
    click = "const b = document.querySelector('form.filter button'); b.click(); return b.textContent"
    assert opened.execute_script(click) == "close all"
    assert opened.execute_script(OPENED) == ["r0-q1", "r0-q2", "r0-q3"]
    assert opened.execute_script(click) == "open all"
    assert opened.execute_script(OPENED) == []


def test_a_query_opens_below_its_row(opened: Any) -> None:
    """A click on the row opens it and closes it again; nothing is below the table, and the legend is beside the plans."""
    shown = "return document.querySelector('#r0-q1 .query').getBoundingClientRect().height"
    assert opened.execute_script(shown) == 0
    opened.execute_script("document.getElementById('r0-q1').rows[0].cells[3].click()")
    assert opened.execute_script(OPENED) == ["r0-q1"]
    assert opened.execute_script(shown) > 100
    edges = "const [row, detail] = [...document.getElementById('r0-q1').rows].map(r => r.getBoundingClientRect());"
    assert abs(opened.execute_script(f"{edges} return detail.top - row.bottom")) < 2
    assert opened.execute_script("return document.querySelector('#r0-q1 a').getAttribute('aria-expanded')") == "true"
    legend = opened.execute_script("return document.querySelector('#r0-q1 .plans .legend').textContent")
    assert "Off by is the factor between estimated and true rows, marked from 10 on." in legend
    opened.execute_script("document.getElementById('r0-q1').rows[0].cells[3].click()")
    assert opened.execute_script(OPENED) == []


def test_keys_go_to_the_next_and_the_previous_query(opened: Any) -> None:
    """`j` opens the next query that is shown and closes this one, `k` the one before; a field that takes letters keeps them."""
    opened.execute_script(CLICK, "query", 0)
    opened.execute_script(TYPE, "flag", "plan")
    for key, expected in (("j", "r0-q1"), ("j", "r0-q3"), ("j", "r0-q5"), ("k", "r0-q3"), ("k", "r0-q1"), ("k", "r0-q1")):
        opened.execute_script(PRESS, key)
        assert opened.execute_script(OPENED) == [expected]
    assert opened.execute_script("return document.activeElement.textContent") == "q1"
    opened.execute_script("document.querySelector('form.filter input').focus()")
    opened.execute_script(PRESS, "j")
    assert opened.execute_script(OPENED) == ["r0-q1"]


def test_a_chart_is_one_tab_stop(opened: Any) -> None:
    """Tab reaches each chart once; arrow keys go through its queries, and each mark is a link with a name."""
    stops = "return [...document.querySelectorAll('figure')].map(f => f.querySelectorAll('[tabindex=\"0\"], a:not([tabindex])').length)"
    assert set(opened.execute_script(stops)) == {1}
    opened.execute_script("document.querySelector('figure svg').focus()")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        opened.execute_script(PRESS, key)
    first = "return [document.activeElement.tagName, document.activeElement === document.querySelector('figure svg a')]"
    assert opened.execute_script(first) == ["a", True]
    assert opened.execute_script("return document.activeElement.querySelector('title').textContent").startswith("q")


def test_a_link_opens_its_query_from_the_table_and_from_a_figure(opened: Any) -> None:
    """The query is open and in view, even if the filter had hidden it."""
    opened.execute_script(TYPE, "text", "q1")
    opened.execute_script("location.hash = '#r0-q7'")
    state = (
        "const b = document.getElementById(arguments[0]); const top = b.getBoundingClientRect().top;"
        "return [b.classList.contains('open'), b.hidden, top >= -1 && top < innerHeight / 2]"
    )
    wait = support.WebDriverWait(opened, 10)
    wait.until(lambda driver: driver.execute_script(state, "r0-q7") == [True, False, True])
    edges = "const t = document.getElementById('r0-queries'); return [t.tHead, arguments[0]].map(e => e.getBoundingClientRect())"
    heading, row = opened.execute_script(edges, opened.find_element("css selector", "#r0-q7 > tr"))
    assert heading["bottom"] <= row["top"] + 1  # the headings stay on the screen, and must not cover it
    opened.execute_script("const e = new MouseEvent('click', {bubbles: true}); document.querySelector('figure svg a').dispatchEvent(e)")
    wait.until(lambda driver: driver.execute_script("return location.hash") != "#r0-q7")
    assert opened.execute_script("return document.getElementById(location.hash.slice(1)).classList.contains('open')")


def test_differences_of_plans_are_marked_beside_each_other(opened: Any) -> None:
    """The page shows both plans; differences have a mark besides a colour, and bad estimates are marked."""
    opened.execute_script("location.hash = '#r0-q1'")
    pair = "document.querySelector('#r0-q1 .plans .pair')"
    captions = opened.execute_script(f"return Array.from({pair}.querySelectorAll('caption')).map(c => c.textContent)")
    assert captions == ["baseline, slow", "fast"]
    marked = opened.execute_script(f"return Array.from({pair}.querySelectorAll('tr.method td:first-child')).map(n => n.textContent)")
    assert marked == [
        "≠ Hash Join [c.userid = u.id]",
        "≠ Seq Scan comments c [text <> '</td><script>x</script>']",
        "≠ Hash",
        "≠ Nested Loop",
        "≠ Index Scan comments c using idx_comments_userid [userid = u.id]",
    ]
    assert opened.execute_script(f"return Array.from({pair}.querySelectorAll('td.off')).map(c => c.textContent)") == ["48.6x"]
    columns = opened.execute_script(f"return new Set(Array.from({pair}.children).map(c => c.getBoundingClientRect().top)).size")
    assert columns == 1


def test_deep_plans_can_be_read_on_paper(browser: Any, tmp_path: Path) -> None:
    """On a page of A4 the plans are one below the other, and a node at depth 15 still has room for a line of text."""
    deep = PlanNode(operation="Seq Scan", relation="comments", alias="c", conditions=("c.creationdate >= 1327063006",), rows=1, cost=1.0)
    for _ in range(15):
        deep = PlanNode(operation="Nested Loop", rows=1, cost=2.0, children=(deep,))
    record = comparison()
    reports = tuple(
        replace(report, plan=deep) if report.query_id == "q1" and report.side == "fast" else report for report in record.reports
    )
    browser.get(write_page(tmp_path / "deep.html", [replace(record, reports=reports)]).as_uri())
    browser.execute_script("document.querySelector('#r0-q1 a').click()")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 718, "height": 1000, "deviceScaleFactor": 1, "mobile": False})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    plans = browser.execute_script("return [...document.querySelectorAll('#r0-q1 .plan')].map(p => p.getBoundingClientRect().left)")
    node = "const td = document.querySelector('#r0-q1 td.d15'); const s = getComputedStyle(td);"
    width = browser.execute_script(f"{node} return td.clientWidth - parseFloat(s.paddingLeft)")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert len(plans) == 2
    assert len(set(plans)) == 1
    assert width > 200


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1400, 900)])
def test_the_page_is_never_wider_than_the_screen(opened: Any, width: int, height: int) -> None:
    """On a phone and on a desk only tables and plans scroll sideways."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened.execute_script("location.hash = '#r0-q1'")
    assert opened.execute_script("return document.documentElement.scrollWidth") == width
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("width", [800, 1100, 1440])
def test_a_table_of_many_sides_scrolls_by_itself(browser: Any, tmp_path: Path, width: int) -> None:
    """With more sides than fit the page stays as wide as the screen, and the last column can be reached, by the keyboard, too."""
    times = {f"reviews_by_country_and_region_{place}": [100.0 + place] * 5 for place in range(4)}
    record = record_of(dict.fromkeys(("baseline", "oracle", "mscn", "index", "knob"), times), algorithm="compare")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
    browser.get(write_page(tmp_path / "wide.html", [record]).as_uri())
    area = "const area = document.querySelector('.window');"
    page, shown, there, focus = browser.execute_script(
        f"{area} return [document.documentElement.scrollWidth, area.clientWidth, area.scrollWidth, area.tabIndex]"
    )
    reached = browser.execute_script(f"{area} area.scrollLeft = 1e6; return area.scrollLeft + area.clientWidth === area.scrollWidth")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert page == width
    assert there > shown
    assert focus == 0
    assert reached


def test_three_algorithms_fit_a_sheet_of_paper(browser: Any, tmp_path: Path) -> None:
    """On A4 no column of the queries or of an opened plan is beyond the edge."""
    record = comparison()
    times = {f"query_{place}": [1000.0 + place] * 5 for place in range(4)}
    sides = ("baseline", "oracle", "mscn", "index")
    reports = tuple(
        replace(report, query_id="query_1", side=side)
        for side in sides
        for report in record.reports
        if (report.query_id, report.side) == ("q1", "fast" if side in ("mscn", "index") else "baseline")
    )
    record = replace(record_of(dict.fromkeys(sides, times), algorithm="compare"), reports=reports)
    browser.get(write_page(tmp_path / "three.html", [record]).as_uri())
    browser.execute_script("document.querySelector('#r0-query_1 a').click()")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 718, "height": 1000, "deviceScaleFactor": 1, "mobile": False})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    edges = browser.execute_script(
        "return [...document.querySelectorAll('.queries, .queries table')].map(found => found.getBoundingClientRect().right)"
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert len(edges) > 3
    assert max(edges) <= 719


def test_a_long_name_of_a_metric_stays_in_its_chart(browser: Any, tmp_path: Path) -> None:
    """Its title is broken where it has to be, and so is the label of the axis, all of which is in the picture."""
    name = "index_optimization_time_in_seconds_of_all_queries"
    training = TrainingReport(side="mscn", duration_s=1.0, metrics={name: (3.0, 2.0, 1.0)})
    browser.get(write_page(tmp_path / "long.html", [replace(minimal(), training=(training,))]).as_uri())
    figure = "const figure = document.querySelector('.plots.small figure');"
    assert browser.execute_script(f"{figure} return figure.scrollWidth === figure.clientWidth")
    found = browser.execute_script(
        f"{figure} const box = e => e.getBoundingClientRect(); const svg = box(figure.querySelector('svg'));"
        "return [...figure.querySelectorAll('text')].map(t => [t.textContent, box(t).top - svg.top, svg.bottom - box(t).bottom])"
    )
    assert "".join(text for text, _, _ in found if "_" in text) == name
    assert min(room for _, *rooms in found for room in rooms) >= -1


def test_one_query_is_counted_as_one(opened: Any) -> None:
    """The page says how many queries there are and how many the filter leaves."""
    count = "return [...document.querySelectorAll('form.filter output')].map(field => field.value)"
    assert opened.execute_script(count) == ["20 queries", "1 query"]
    opened.execute_script(TYPE, "text", "q11")
    assert opened.execute_script(count) == ["1 of 20 queries", "1 query"]


def test_the_arrow_of_a_query_stays_beside_its_name(opened: Any) -> None:
    """However narrow the column is, the name is not below it."""
    opened.execute_script(
        "const a = document.querySelector('#r0-q1 a'); a.textContent = 'reviews_by_country'; a.parentElement.style.width = '1px'"
    )
    link, name = opened.execute_script(
        "const a = document.querySelector('#r0-q1 a'); const range = document.createRange(); range.selectNodeContents(a);"
        "return [a, range].map(found => found.getBoundingClientRect())"
    )
    assert abs(name["top"] - link["top"]) < name["height"] / 2


def test_light_dark_and_paper_have_contrast(opened: Any) -> None:
    """Text stands out from its ground with at least 4.5:1 (WCAG AA) in each; paper is light whatever the screen is."""
    grounds = {}
    opened.execute_script("document.querySelector('#r0-q1 a').click()")
    for name, media, scheme in (("light", "screen", "light"), ("dark", "screen", "dark"), ("paper", "print", "dark")):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
        style = "return ['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k])"
        ink, ground = (_luminance(colour) for colour in opened.execute_script(style))
        quiet = _luminance(opened.execute_script("return getComputedStyle(document.querySelector('figcaption')).color"))
        panel = _luminance(opened.execute_script("return getComputedStyle(document.querySelector('figure')).backgroundColor"))
        assert _contrast(ink, ground) > 7
        assert _contrast(quiet, panel) > 4.5
        grounds[name] = ground
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert grounds["dark"] < 0.05 < 0.95 < grounds["light"] == grounds["paper"]


def test_it_prints(opened: Any) -> None:
    """Chromium makes a document of it, which has the open queries and not the closed ones."""
    closed = len(opened.print_page())
    opened.execute_script("document.querySelector('form.filter button').click()")
    assert closed > 20_000
    assert len(opened.print_page()) > closed + 20_000


def test_paper_has_what_a_click_would_open(opened: Any) -> None:
    """Folded details are printed open and folded afterwards; headings are text, because boxes of buttons are on the first page only."""
    folded = "document.querySelectorAll('details:not([open])').length"
    before = opened.execute_script(f"addEventListener('beforeprint', () => {{ window.printed = {folded} }}); return {folded}")
    opened.print_page()
    assert opened.execute_script(f"return [window.printed, {folded}]") == [0, before]
    assert before > 0
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = "return ['.queries button', '.plans .legend', 'summary'].map(q => getComputedStyle(document.querySelector(q)).display)"
    opened.execute_script("document.querySelector('#r0-q1 a').click()")
    assert opened.execute_script(shown) == ["contents", "none", "none"]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing_serious(opened: Any, axe: str, width: int, scheme: str) -> None:
    """No rule of axe-core with a serious or critical impact fails, on a phone and on a desk, in light and in dark."""
    metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [{"name": "prefers-color-scheme", "value": scheme}]})
    opened.execute_script("for (const id of ['q1', 'q2', 'q3']) document.querySelector(`#r0-${id} a`).click()")
    opened.execute_script(axe)
    opened.set_script_timeout(120)
    run = "const done = arguments[0]; axe.run().then(found => done(found.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html)])))"
    found = opened.execute_async_script(run)
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert [violation for violation in found if violation[0] in ("serious", "critical")] == []


def test_the_first_stop_skips_to_the_verdict(opened: Any) -> None:
    """A skip link is first, there is a `nav`, and headings go down one level at a time."""
    first = "const a = document.querySelector('a, button, [tabindex]'); a.focus();"
    assert opened.execute_script(f"{first} return [a.className, a.hash, a.getBoundingClientRect().left >= 0]") == ["skip", "#main", True]
    assert opened.execute_script("return document.querySelectorAll('header nav[aria-label] a').length") == 10
    levels = opened.execute_script("return [...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])")
    assert levels == [1, *(2, 3, 3, 3, 3) * 2]
    after = opened.execute_script("return [...document.querySelector('.run').children].map(e => e.className || e.tagName).slice(0, 4)")
    assert after == ["H2", "verdict", "first", "first"]


def test_a_phone_shows_the_side_that_matters(opened: Any) -> None:
    """At 390 px, the first column, the narrow baseline and the other side's speed-up are on the screen; so are `true` and `off by`."""
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True})
    opened.execute_script("document.querySelector('#r0-q1 a').click()")
    right = "return [...document.querySelectorAll(arguments[0])].map(e => e.getBoundingClientRect().right)"
    row = opened.execute_script(right, "#r0-q1 > tr:first-child > *")
    figures = opened.execute_script(right, "#r0-run table.summary > thead th")
    sticky = opened.execute_script("return getComputedStyle(document.querySelector('table.summary th[scope=row]')).position")
    plans = [opened.execute_script(right, f"#r0-q1 .plan:last-child tbody td:nth-child({place})") for place in (2, 4)]
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert row[3] < 390
    assert figures[1] < 390
    assert sticky == "sticky"
    assert max(map(max, plans)) < 390


def test_figures_are_really_drawn(opened: Any) -> None:
    """Each has an area, on a page of two records."""
    areas = opened.execute_script(
        "return Array.from(document.querySelectorAll('figure svg')).map(s => s.getBoundingClientRect()).map(r => r.width * r.height)"
    )
    assert len(areas) == 10
    assert min(areas) > 10_000


@pytest.mark.slow
def test_mlflow_shows_experiments_at_the_address_that_is_told(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The address of `pilotscope ui` opens the list of trainings, in which the experiments of the suite are."""
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    open_client(store).create_experiment("mscn_stats_tiny", tags={"mlflow.experimentKind": "custom_model_development"})
    with running_ui() as address:
        announce(StoreUri(store), int(address.rpartition(":")[2]), as_json=True)
        browser.get(json.loads(capsys.readouterr().out)["url"])
        found = "return document.body.innerText.includes('mscn_stats_tiny')"
        assert support.WebDriverWait(browser, 120).until(lambda driver: driver.execute_script(found))


def _luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2)."""
    channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(a: float, b: float) -> float:
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


@pytest.fixture(scope="module")
def packed_address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a page whose details are packed."""
    path = write_page(tmp_path_factory.mktemp("packed") / "report.html", [large(), comparison()])
    assert path.read_text(encoding="utf-8").count('class="details"') == 1
    return path.as_uri()


@pytest.fixture
def packed(browser: Any, packed_address: str) -> Iterator[Any]:
    """Open the page anew, at a query; check afterwards that the console is empty and that nothing was fetched but the page."""
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get("about:blank")
    browser.get(f"{packed_address}#r0-q007")
    support.WebDriverWait(browser, 10).until(lambda driver: driver.execute_script("return document.querySelector('.unpacking') === null"))
    yield browser
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    assert {url.partition("#")[0] for url in requests if not url.startswith(("data:", "about:", "blob:"))} == {packed_address}


DETAILS = "return document.querySelectorAll('#r0-queries .detail').length"


def test_packed_details_are_made_when_a_query_is_opened(packed: Any) -> None:
    """The query of the link is open; the details of others are added once, by a click, by keys, and by the button for all."""
    assert packed.execute_script(OPENED) == ["r0-q007"]
    assert packed.execute_script("return document.querySelector('#r0-q007 .query').getBoundingClientRect().height") > 100
    assert "a_number >= 1000" in packed.execute_script("return document.querySelector('#r0-q007 .sql').textContent")
    assert len(packed.execute_script("return [...document.querySelectorAll('#r0-q007 .plan .legend, #r0-q007 .plans > .legend')]")) == 1
    for _ in range(3):
        packed.execute_script("document.getElementById('r0-q008').rows[0].cells[3].click()")
    assert packed.execute_script(DETAILS) == 2
    packed.execute_script(CLICK, "query", 0)
    for expected in (2, 3):  # from q007 to q008, whose details are there, and to q009
        packed.execute_script(PRESS, "j")
        assert packed.execute_script(DETAILS) == expected
    packed.execute_script(TYPE, "text", "q01")
    packed.execute_script("document.querySelector('form.filter button').click()")
    assert packed.execute_script(f"{OPENED}.length") >= 10
    assert packed.execute_script("return document.querySelectorAll('#r1-queries .detail').length") == 20


def test_packed_sql_is_found(packed: Any) -> None:
    """The filter reads the SQL of queries that were never opened."""
    packed.execute_script(TYPE, "text", "t4.a_number")
    assert len(packed.execute_script(ROWS)) == 146
    packed.execute_script(TYPE, "text", "no such text")
    assert packed.execute_script(ROWS) == []
    assert packed.execute_script(DETAILS) == 1


@pytest.mark.parametrize("width", [390, 1440])
def test_packed_details_are_accessible(packed: Any, axe: str, width: int) -> None:
    """axe-core finds nothing serious in details that were added, and the page is as wide as the screen."""
    metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
    packed.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    packed.execute_script("document.querySelector('#r0-q009 a').click()")
    assert packed.execute_script("return document.documentElement.scrollWidth") == width
    packed.execute_script(axe)
    packed.set_script_timeout(120)
    run = "const done = arguments[0]; axe.run('#r0-q009').then(found => done(found.violations.map(v => [v.impact, v.id])))"
    found = packed.execute_async_script(run)
    packed.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert [violation for violation in found if violation[0] in ("serious", "critical")] == []


def test_without_scripts_a_packed_page_says_so(browser: Any, packed_address: str) -> None:
    """The tables are there, and a sentence tells how to see the details."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(packed_address)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    said = browser.find_element("css selector", ".unpacking").text
    assert said == "The SQL, times and plans of the queries are packed: unpacking them needs a browser with scripts, of 2023 or newer."

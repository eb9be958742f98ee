"""Judge stored runs; tell the verdicts to people, to programs, to CI systems as JUnit XML, and to GitHub as annotations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click

from pytest_pilotscope.commands.output import say, show_json
from pytest_pilotscope.commands.reporting import RECORD, records_of
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.gate.judging import BASELINE, MLFLOW, NONE, Gate, Judgement, gate_of, gate_with, judge, test_name
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.options.values import parts
from pytest_pilotscope.places.privatefiles import private_folder, write_private
from pytest_pilotscope.places.secret import StoreUri
from pytest_pilotscope.record.projection import runs_of

SUITE = "pilotscope"
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""The characters that XML 1.0 cannot hold."""


def judged(
    base: str, head: str, policy: Mapping[str, Any], *, results: Path = Path("results"), tracking_uri: str | StoreUri | None = None
) -> Judgement:
    """
    Judge the runs of HEAD by those of BASE; `policy` has the options of the gate by their keys, None or empty if they were not given.

    Raise `UsageError` if one of the two cannot be found or read, `TrackingError` for a store that does not answer.
    """
    given: dict[str, Any] = {
        key: parts(",".join(value)) if isinstance(value, tuple) else value for key, value in policy.items() if value not in (None, ())
    }
    settings = Settings(results=results, tracking_uri=tracking_uri, **given)
    gate = _gate(base, settings)
    heads = records_of((head,), results=results, tracking_uri=tracking_uri)
    if not heads:
        raise UsageError(f"{head}: there is no record in it; name a run, or a folder or JSON file with records")
    judgement = judge(gate, heads, ())
    same = any(run in (gate.references or {}).values() for record in heads for run in runs_of(record))
    remark = "BASE and HEAD are the same run, so nothing could be worse"
    return replace(judgement, remarks=(*judgement.remarks, remark)) if same else judgement


def _gate(base: str, settings: Settings) -> Gate:
    """Return the gate with the references of BASE: one that `--gate` knows, or a run by its name or id."""
    path = Path(base)
    if base == NONE or not (base == BASELINE or base.startswith(MLFLOW) or path.exists() or path.suffix in (RECORD, ".json")):
        return gate_with(settings, records_of((base,), results=settings.results, tracking_uri=settings.tracking_uri))
    from pytest_pilotscope.tracking.record_artifacts import newest_record
    from pytest_pilotscope.tracking.store import missing_store

    if base.startswith(MLFLOW) and (store := missing_store(settings.tracking_uri)) is not None:
        raise UsageError(f"{base}: there is no MLflow store {store}; name another BASE, or the store with --tracking-uri")
    gate = gate_of(base, settings, partial(newest_record, tracking_uri=settings.tracking_uri))
    if gate.missing and settings.gate_on_missing == "fail":
        raise UsageError(f"{gate.missing}; name another BASE, or let HEAD pass without one: --gate-on-missing warn")
    return gate


def show_judgement(judgement: Judgement, *, annotate: bool, as_json: bool) -> None:
    """Show the verdicts with their reasons. With annotations each is one line, because a second one could be a command to GitHub."""
    if as_json:
        runs = [
            {"algorithm": algorithm, "dataset": dataset, "verdict": report.verdict, "exit_code": report.exit_code, **asdict(report)}
            for (algorithm, dataset), report in judgement.reports.items()
        ]
        show_json({"exit_code": judgement.exit_code, "runs": runs, "remarks": judgement.remarks})
        return
    for line in judgement.lines:
        if annotate:
            click.echo(" ".join(line.splitlines()))
        else:
            say(line)
    for line in github_lines(judgement) if annotate else ():
        click.echo(line)


def github_lines(judgement: Judgement) -> Iterator[str]:
    """
    Yield a workflow command of GitHub Actions for each verdict that fails (an error) or has reservations (a warning).

    Escape texts as `escapeData` and `escapeProperty` of GitHub's @actions/core (command.ts) do.
    """
    failures = judgement.failures
    warnings = {
        test_name(case): judgement.described[case]
        for case, report in judgement.reports.items()
        if report.exit_code == 0 and (report.states or report.blind)
    }
    for level, found in (("error", failures), ("warning", warnings)):
        for name, lines in found.items():
            title = _escaped(f"{SUITE}: {name}").replace(":", "%3A").replace(",", "%2C")
            yield f"::{level} title={title}::{_escaped(chr(10).join(lines))}"


def write_junit(path: Path, judgement: Judgement) -> None:
    """Write each verdict as a test: a failed one has the verdict as its message and all lines as its text."""
    failures = judgement.failures
    tests = {test_name(case): lines for case, lines in judgement.described.items()} or failures
    counts = {"name": SUITE, "tests": str(len(tests)), "failures": str(len(failures)), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", counts)
    for name, lines in tests.items():
        test = ElementTree.SubElement(suite, "testcase", classname=SUITE, name=_legal(name), time="0")
        failed = {"message": _legal(lines[0])} if name in failures else {}
        ElementTree.SubElement(test, "failure" if failed else "system-out", failed).text = _legal("\n".join(lines))
    private_folder(path.parent)
    write_private(path, f"<?xml version='1.0' encoding='utf-8'?>\n{ElementTree.tostring(root, encoding='unicode')}\n")


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _legal(text: str) -> str:
    """Return a text with escapes in place of the characters that XML cannot hold."""
    return _NO_XML.sub(lambda found: ascii(found[0])[1:-1], text)

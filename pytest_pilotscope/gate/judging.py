"""
The `--gate` option: `open_gate` reads the references before the measurement, `judge` decides on the runs afterwards, or on stored ones.

This file pairs each run of an algorithm on a dataset with the stored run of the same algorithm and dataset, from any store, measured
alone or in a comparison. `gate.decision` then compares the pair.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_pilotscope.errors import RecordError, UnknownName, UsageError
from pytest_pilotscope.gate.calibrations import calibrated, calibration_folder
from pytest_pilotscope.gate.comparable import State
from pytest_pilotscope.gate.exact_figures import FIGURES
from pytest_pilotscope.gate.rules import GateReport, Policy, decide, decide_against_baseline, describe, describe_power
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.places.givenfiles import read_given
from pytest_pilotscope.record.projection import is_comparison, runs_of
from pytest_pilotscope.record.record import Record, read_record, record_of_lines
from pytest_pilotscope.record.results import BASELINE as YARDSTICK

Case = tuple[str, str]
"""An algorithm and a dataset."""

JSON_KEY = "pilotscope"
"""The key of the records in a pytest-benchmark JSON."""

NewestRecord = Callable[[str], Record | None]
"""Reads the newest finished record of an MLflow experiment."""

NONE, BASELINE, MLFLOW = "none", "baseline", "mlflow:"
DEFAULT_DELTA, DEFAULT_QUERY_DELTA = Policy().delta, Policy().query_delta


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """
    The `references` of runs by algorithm and dataset; None compares each run with its own baseline.

    If there are none, `missing` says where `open_gate` looked. `compared` are the datasets on which the reference has the baseline only
    beside other algorithms; there it has no run of its own to judge.
    """

    settings: Settings
    references: Mapping[Case, Record] | None
    missing: str = ""
    calibrations: Path | None = None
    compared: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The gate's decisions and lines by algorithm and dataset, and `remarks` on the whole."""

    reports: Mapping[Case, GateReport] = field(default_factory=dict)
    described: Mapping[Case, tuple[str, ...]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """All lines for a terminal; the first of each run is its verdict."""
        return (*(line for lines in self.described.values() for line in lines), *self.remarks)

    @property
    def blind(self) -> frozenset[str]:
        """The verdicts of runs that passed, but were too noisy."""
        return frozenset(self.described[case][0] for case, report in self.reports.items() if "blind below" in report.verdict)

    @property
    def failures(self) -> dict[str, tuple[str, ...]]:
        """The lines of each run that did not pass, the verdict first, by its name as a test."""
        if not self.reports:
            return {"gate": self.remarks}
        return {test_name(case): self.described[case] for case, report in self.reports.items() if report.exit_code}

    @property
    def exit_code(self) -> int:
        """0 if every run passed, else 1."""
        return max((report.exit_code for report in self.reports.values()), default=1)


def test_name(case: Case) -> str:
    """Return the name of a run's verdict as a test, for JUnit XML."""
    return f"gate[{'-'.join(case)}]"


def open_gate(settings: Settings, newest_record: NewestRecord) -> Gate | None:
    """Read the references of `--gate` as `gate_of` does; return None without a gate."""
    return None if settings.gate in (None, NONE) else gate_of(settings.gate, settings, newest_record)


def gate_of(chosen: str, settings: Settings, newest_record: NewestRecord) -> Gate:
    """
    Read the references of a value of `--gate`.

    A missing reference becomes a state of the decision. Raise `UsageError` for a file that cannot be read and for an unknown figure;
    `newest_record` raises `TrackingError` if the store does not answer.
    """
    exact_figures(settings.gate_exact)
    if chosen == BASELINE:
        return Gate(settings=settings, references=None, calibrations=calibration_folder())
    records, missing = _from_store(chosen, newest_record) if chosen.startswith(MLFLOW) else _from_files(Path(chosen))
    return gate_with(settings, records, missing)


def gate_with(settings: Settings, records: Sequence[Record], missing: str = "") -> Gate:
    """Return the gate with these references."""
    compared = frozenset(record.header.dataset for record in records if is_comparison(record.header) or _is_baseline(record))
    return Gate(settings=settings, references=_by_case(records), missing=missing, calibrations=calibration_folder(), compared=compared)


def judge(gate: Gate, records: Iterable[Record], expected: Iterable[Case]) -> Judgement:
    """Decide on every run; report a state for an expected run that was not measured."""
    records = tuple(records)
    runs = _by_case(records)
    shared = {case: None for record in records if _is_baseline(record) and (case := (YARDSTICK, record.header.dataset)) not in runs}
    reports, described, remarks = {}, {}, []
    for case in dict.fromkeys((*expected, *shared, *runs)):
        if case in shared or _is_yardstick(gate, case):
            whose = "the comparison in the reference" if _is_yardstick(gate, case) else "the other runs"
            remarks.append(f"{case[0]} on {case[1]}: not gated: it is the yardstick of {whose}, so nothing judges it")
            continue
        policy, remark = _policy(gate, runs.get(case))
        report = reports[case] = _decide(gate, runs.get(case), case, policy)
        first, *rest = describe(report)
        described[case] = (f"{case[0]} on {case[1]}: {first}", *rest, *describe_power(report), f"  {remark}")
    if not reports:
        remarks.append(f"gate: NOT COMPARABLE: nothing {'else ' if remarks else ''}was measured")
    if others := [case for case in gate.references or () if case not in reports and case not in shared]:
        remarks.append(f"only in the reference, so not gated: {_listed(others)}")
    return Judgement(reports=reports, described=described, remarks=tuple(remarks))


def _is_baseline(record: Record) -> bool:
    """Tell whether a record has the baseline alone, which runs with records of their own share."""
    return record.header.sides == (record.header.baseline_side,)


def _is_yardstick(gate: Gate, case: Case) -> bool:
    """Tell whether the reference measured this baseline only beside other algorithms."""
    return case[0] == YARDSTICK and case[1] in gate.compared and case not in (gate.references or ())


def _decide(gate: Gate, run: Record | None, case: Case, policy: Policy) -> GateReport:
    if run is None:
        text = f"{case[0]} was not measured on {case[1]}: deselected, skipped, or ended before it began; nothing of it was gated"
        state = State(kind="empty", text=text)
        return GateReport(
            against="baseline" if gate.references is None else "reference", policy=policy, compared=(), regressions=(), states=(state,)
        )
    if gate.references is None:
        return decide_against_baseline(run, policy)
    report = decide(run, gate.references.get(case), policy)
    return report if case in gate.references else _told_where(report, gate.missing or _not_among(case, gate.references))


def _told_where(report: GateReport, where: str) -> GateReport:
    states = (replace(state, text=f"{where}; {state.text}") if state.kind == "missing-reference" else state for state in report.states)
    return replace(report, states=tuple(states))


def _not_among(case: Case, references: Mapping[Case, Record]) -> str:
    return f"no run of {case[0]} on {case[1]} is stored, only {_listed(references)}"


def _listed(cases: Iterable[Case]) -> str:
    return ", ".join(f"{algorithm} on {dataset}" for algorithm, dataset in cases)


def _policy(gate: Gate, run: Record | None) -> tuple[Policy, str]:
    """Return the given deltas, else those calibrated for such a run on this machine, else the defaults; and a sentence about them."""
    settings = gate.settings
    (delta, query_delta), sources = deltas(settings, run, gate.calibrations)
    exact = exact_figures(settings.gate_exact)
    policy = Policy(
        delta=delta,
        query_delta=query_delta,
        write_delta=settings.gate_write_delta,
        exact=exact,
        on_missing=settings.gate_on_missing,
        on_blind=settings.gate_on_blind,
        seed=run.header.seed if run is not None else settings.seed,
    )
    ignored = f"; not compared: {', '.join(sorted(FIGURES - exact))}" if exact != FIGURES else ""
    writes = run is not None and run.header.parameters.get("writes") is not None
    scripts = f"; scripts of --writes +{settings.gate_write_delta:.1%}" if writes else ""
    return policy, f"allowed: workload +{delta:.1%}, single query +{query_delta:.0%} ({', '.join(sources)}){scripts}{ignored}"


def deltas(settings: Settings, run: Record | None, calibrations: Path | None) -> tuple[tuple[float, float], Collection[str]]:
    """Return the allowed slow-downs of the workload and of a query, and where they come from."""
    found = calibrated(run, calibrations) if run is not None and calibrations is not None else None
    own = (found.gate_delta, found.gate_query_delta) if found else (DEFAULT_DELTA, DEFAULT_QUERY_DELTA)
    given = (settings.gate_delta, settings.gate_query_delta)
    source = f"calibrated on this machine by {found.run_name}" if found else "default"
    delta, query_delta = (default if value is None else value for value, default in zip(given, own, strict=True))
    return (delta, query_delta), dict.fromkeys(source if value is None else "as given" for value in given)


def exact_figures(names: Sequence[str]) -> frozenset[str]:
    """Return the exact figures of these names, which have dashes, or `all`, or `none`; raise `UnknownName` for any other."""
    known = {figure.replace(" ", "-"): figure for figure in FIGURES}
    if set(names) in ({"all"}, {NONE}):
        return FIGURES if names[0] == "all" else frozenset()
    for name in names:
        if name not in known:
            raise UnknownName("exact figure of --gate-exact", name, {*known, "all", NONE})
    return frozenset(known[name] for name in names)


def _by_case(records: Iterable[Record]) -> dict[Case, Record]:
    """Return the last single run of each algorithm and dataset; leave out the baseline of a comparison, which has no other side."""
    runs = [run for record in records for run in runs_of(record)]
    return {(run.header.algorithm, run.header.dataset): run for run in runs if len(run.header.sides) > 1}


def _from_store(chosen: str, newest_record: NewestRecord) -> tuple[Sequence[Record], str]:
    experiment = chosen.removeprefix(MLFLOW)
    record = newest_record(experiment)
    return ((record,), "") if record else ((), f"MLflow experiment {experiment!r} has no finished run with a record")


def _from_files(path: Path) -> tuple[Sequence[Record], str]:
    if path.is_dir():
        found = sorted(read_references(path), key=lambda record: record.header.started_at)
        return found, "" if found else f"there is no finished record in the folder {path}"
    return (read_references(path), "") if path.exists() else ((), f"{path} does not exist")


def read_references(path: Path) -> tuple[Record, ...]:
    """
    Read a record, the finished records of a folder, or the records in a pytest-benchmark JSON.

    Raise `UsageError`, which starts with the file, for anything else.
    """
    try:
        if path.is_dir():
            return tuple(record for file in sorted(path.glob("*.jsonl")) if (record := read_record(file)).status == "FINISHED")
        return _embedded(path) if path.suffix == ".json" else (read_record(path),)
    except RecordError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error


def _embedded(path: Path) -> tuple[Record, ...]:
    try:
        content = json.loads(read_given(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON ({error}); a gate needs a record (.jsonl) or a pytest-benchmark JSON") from error
    records = content.get(JSON_KEY) if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(lines, list) for lines in records):
        raise UsageError(
            f"{path}: a JSON file without records of pytest-pilotscope; a gate needs a record (.jsonl), or what "
            "`pytest benchmarks --benchmark-json=FILE` writes"
        )
    return tuple(record_of_lines([*(json.dumps(line).encode() for line in lines), b""], path) for lines in records)


def embed(output: dict[str, Any], record_paths: Iterable[Path]) -> None:
    """Add whole records to the `output` of pytest-benchmark, so that `--gate` can read its JSON file."""
    output[JSON_KEY] = [[json.loads(line) for line in path.read_bytes().splitlines()] for path in record_paths]

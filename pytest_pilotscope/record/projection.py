"""Splitting a measurement of several algorithms into one run for each of them: stores, summaries and the gate work on single runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import uuid4

from pytest_pilotscope.record.names import file_name
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import RunEnd, RunHeader, Scalar

COMPARISON = "compare"
"""The algorithm in the header of a record that compares several; no side has this name."""

_NOTHING_LEARNED: Mapping[str, Scalar] = {
    "enable_collection": False,
    "enable_training": False,
    "num_epoch": 0,
    "num_training": 0,
    "num_collection": 0,
    "register_model": False,
}


def is_comparison(header: RunHeader) -> bool:
    """Tell whether the record of this header compares several algorithms."""
    return header.algorithm not in header.sides


def runs_of(record: Record) -> tuple[Record, ...]:
    """Return the record itself if it has one algorithm, else a record for each side with the baseline, and one for the baseline alone."""
    return tuple(_of_side(record, side) for side in record.header.sides) if is_comparison(record.header) else (record,)


def header_of(header: RunHeader, side: str) -> RunHeader:
    """Return the header of a run of this side alone; it keeps the tags of the record, also `record_id`."""
    return _part(header, side, (side,), {"comparison": header.run_name})


def own_header(header: RunHeader, algorithm: str, sides: tuple[str, ...]) -> RunHeader:
    """Return the header of a record of these sides alone. The other sides take turns with them, and have the same baseline."""
    shared = f"{', '.join(side for side in header.sides if side != header.baseline_side)} on {header.dataset}, {header.started_at}"
    part = _part(header, algorithm, sides, {"record_id": uuid4().hex, "shared_baseline": shared})
    return replace(part, shared_baseline=shared)


def baselines_last(records: Sequence[Record]) -> list[Record]:
    """Return the records in their order, but last those of a baseline alone: the runs that share it have its executions, too."""
    return sorted(records, key=lambda record: record.header.shared_baseline is not None and len(record.header.sides) == 1)


def _part(header: RunHeader, algorithm: str, sides: tuple[str, ...], tags: Mapping[str, str]) -> RunHeader:
    rest = header.run_name.removeprefix(header.algorithm)
    learns = any(side not in (header.baseline_side, *header.variants) or "+" in side for side in sides)
    own: Mapping[str, Scalar] = {**({} if learns else _NOTHING_LEARNED), "algorithm": algorithm}
    return replace(
        header,
        run_name=f"{file_name(algorithm)}{rest}",
        algorithm=algorithm,
        sides=tuple(dict.fromkeys((header.baseline_side, *sides))),
        variants={name: difference for name, difference in header.variants.items() if name in sides},
        other_servers=tuple(name for name in header.other_servers if name in sides),
        parameters={name: own.get(name, value) for name, value in header.parameters.items()},
        tags={**header.tags, **tags, **({"variant": variant} if (variant := header.variants.get(algorithm)) else {})},
    )


def _of_side(record: Record, side: str) -> Record:
    header = header_of(record.header, side)
    return replace(
        record,
        header=header,
        runs=tuple(run for run in record.runs if run.side in header.sides),
        slices=tuple(one for one in record.slices if one.side in header.sides),
        writes=tuple(one for one in record.writes if one.side in header.sides),
        reports=tuple(report for report in record.reports if report.side in header.sides),
        decisions=tuple(decision for decision in record.decisions if decision.side in header.sides),
        steps=tuple(step for step in record.steps if step.side in header.sides),
        training=tuple(training for training in record.training if training.side == side),
        preparations=tuple(preparation for preparation in record.preparations if preparation.side == side),
        end=end_of(record.end, header.sides) if record.end else None,
    )


def end_of(end: RunEnd, sides: tuple[str, ...]) -> RunEnd:
    """Drop the failures of other sides, which do not fail this one."""
    failures = {side: why for side, why in end.failures.items() if side in sides}
    others_only = end.status == "FAILED" and end.error is None and not failures
    return replace(end, failures=failures, status="FINISHED" if others_only else end.status)

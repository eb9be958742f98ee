"""
Make the leaderboard of stored records: one table for each world whose fingerprints agree.

    python -m benchmarks.leaderboard results > docs/leaderboard.md

A row is a side of a finished comparison of a whole workload. The order is that of the speed-up in total; sides whose intervals overlap
share ranks, so the order among them means nothing.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pytest_pilotscope.errors import named
from pytest_pilotscope.notebook.results import read_results
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.record.conditions import conditions_text
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import PARTIAL
from pytest_pilotscope.report.figure_table import cell_of
from pytest_pilotscope.runs.unsteered import too_many_left
from pytest_pilotscope.statistics.figures import SideSummary
from pytest_pilotscope.statistics.ranking import ranks
from pytest_pilotscope.statistics.summary import Summary, summarize

HEAD = """# Leaderboard

<!-- Made by `python -m benchmarks.leaderboard results > docs/leaderboard.md`; do not edit. -->

Each row is an algorithm as it is shipped, measured in turns with PostgreSQL on one machine. Only records with equal fingerprints of data,
statistics, settings, indexes, build and workload, and the same conditions, stand in one table. Sides whose intervals overlap share ranks.
Speed-ups are over PostgreSQL without steering, deciding included; above 1 is faster.
"""
COLUMNS = ("rank", "algorithm", "total [95 %]", "per query [95 %]", "won/lost/tied", "q-error 95 %", "steered", "training s")


class World(NamedTuple):
    """The properties that rows of one table have in common: the dataset, the server, the conditions, and the fingerprints by name."""

    dataset: str
    server: str
    scale: str
    conditions: str
    fingerprints: tuple[tuple[str, str], ...]


def world_of(record: Record) -> World:
    """Return the world that a record measured."""
    header = record.header
    return World(
        dataset=header.dataset,
        server=f"PostgreSQL {header.server.get('version')}",
        scale=str(header.parameters.get("scale") or "its own"),
        conditions=" ".join(filter(None, (conditions_text(header.conditions), _writes(record)))),
        fingerprints=tuple(sorted(header.fingerprints.items())),
    )


def page(records: Iterable[Record], *, machine: str) -> str:
    """Return the page of these records; records that do not count are named below the tables, with the reason."""
    tables: dict[World, list[Record]] = {}
    left_out: list[str] = []
    for record in records:
        why = _unfit(record)
        if why:
            left_out.append(f"- {record.header.run_name}: {why}")
        else:
            tables.setdefault(world_of(record), []).append(record)
    parts = [HEAD, f"{machine}\n" if machine else ""]
    parts += [_table(world, tables[world]) for world in sorted(tables)]
    return "\n".join([*filter(None, parts), *(["Left out:\n", *left_out] if left_out else [])]).rstrip() + "\n"


def _unfit(record: Record) -> str | None:
    if record.status != "FINISHED":
        return f"it is {record.status}"
    if changing := [name for name in ("drift", "stream") if name in record.header.tags]:
        return f"its data or queries change (--{changing[0]})"
    if record.header.other_servers:
        return f"{named(record.header.other_servers)} ran on another server"
    if PARTIAL in record.header.tags:
        return f"it measured {record.header.tags[PARTIAL]}"
    if record.header.sides == (record.header.baseline_side,):
        return "it has the baseline alone, which the other runs share"
    return "its times were taken beside other workers" if record.header.parallel else None


def _table(world: World, records: Sequence[Record]) -> str:
    scale = f", scale {world.scale}" if world.scale != "its own" else ""
    conditions = f", {world.conditions}" if world.conditions else ""
    lines = [f"## {world.dataset}{scale}, {world.server}{conditions}", ""]
    for record in records:
        lines += [f"`{_command(record)}`", "", _row(COLUMNS), _row(["---"] * len(COLUMNS)), *_rows(summarize(record)), ""]
    fingerprints = ", ".join(f"{name} `{value}`" for name, value in world.fingerprints)
    return "\n".join([*lines, f"Fingerprints: {fingerprints}.", ""])


def _rows(summary: Summary) -> Iterator[str]:
    places = ranks(summary)
    sides = [side for name, side in summary.sides.items() if name != summary.header.baseline_side]
    for side in sorted(sides, key=lambda one: -(one.against.speedup.estimate if one.against else 0.0)):
        yield _row([str(places.get(side.side, "-")), *_cells(side)])


def _cells(side: SideSummary) -> list[str]:
    errors = side.q_errors
    names = ("speed-up [95 %]", "per query [95 %]", "won/lost/tied", "steered", "training s")
    total, per_query, outcomes, steered, training = (cell_of(name, side) for name in names)
    return [side.side, total, per_query, outcomes, f"{(errors.nonempty or errors.all).p95:.1f}" if errors else "-", steered, training]


def _command(record: Record) -> str:
    """Return the command that measures the same again."""
    header = record.header
    variants = {name: difference for name, difference in header.variants.items() if "+" not in name}
    compared = [name for name in header.sides if name not in (header.baseline_side, *variants)]
    parts = ["pytest benchmarks --compare", *([f"--algo {','.join(compared)}"] if compared else [])]
    parts += [f"--variant {shlex.quote(f'{name}:{difference}')}" for name, difference in variants.items()]
    usual = {"seed": 0, "num_epoch": Settings().epochs if header.parameters.get("num_epoch") else 0}
    options = {"scale": "scale", "seed": "seed", "rounds": "rounds", "num_epoch": "epochs", "load_model": "load-model"}
    options |= {"query_timeout_ms": "query-timeout-ms"}
    chosen = {option: header.parameters.get(name) for name, option in options.items() if header.parameters.get(name) != usual.get(name)}
    parts += [f"--db {header.dataset}", *(f"--{option} {shlex.quote(str(value))}" for option, value in chosen.items() if value is not None)]
    parts += filter(None, (conditions_text(header.conditions), _writes(record)))
    return " ".join([*parts, *(["--max-unsteered 100%"] if too_many_left(record, Settings().max_unsteered) else [])])


def _writes(record: Record) -> str:
    parameters = record.header.parameters
    return f"--writes {parameters['writes']} --writes-per-query {parameters['writes_per_query']:g}" if "writes" in parameters else ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    found = [record for folder in sys.argv[1:2] for record in read_results(Path(folder)).records]
    sys.stdout.write(page(found, machine=" ".join(sys.argv[2:])))

"""
Make the leaderboard of stored records: one table for each world whose fingerprints agree.

    python -m benchmarks.leaderboard results > docs/leaderboard.md

A row is a side of a finished comparison of a whole workload. The order is that of the speed-up in total; sides whose intervals overlap
share ranks, so the order among them means nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pytest_pilotscope.notebook.results import read_results
from pytest_pilotscope.options.settings import Settings
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
statistics, settings, indexes, build and workload stand in one table. Sides whose intervals overlap share ranks. Speed-ups are over
PostgreSQL without steering, deciding included; above 1 is faster.
"""
COLUMNS = ("rank", "algorithm", "total [95 %]", "per query [95 %]", "won/lost/tied", "q-error 95 %", "steered", "training s")


class World(NamedTuple):
    """The properties that rows of one table have in common: the dataset, the server, and the fingerprints by name."""

    dataset: str
    server: str
    scale: str
    fingerprints: tuple[tuple[str, str], ...]


def world_of(record: Record) -> World:
    """Return the world that a record measured."""
    header = record.header
    return World(
        dataset=header.dataset,
        server=f"PostgreSQL {header.server.get('version')}",
        scale=str(header.parameters.get("scale") or "its own"),
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
    if PARTIAL in record.header.tags:
        return f"it measured {record.header.tags[PARTIAL]}"
    if record.header.sides == (record.header.baseline_side,):
        return "it has the baseline alone, which the other runs share"
    return "its times were taken beside other workers" if record.header.parallel else None


def _table(world: World, records: Sequence[Record]) -> str:
    scale = f", scale {world.scale}" if world.scale != "its own" else ""
    lines = [f"## {world.dataset}{scale}, {world.server}", ""]
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
    compared = [name for name in header.sides if name != header.baseline_side]
    options = {name: header.parameters.get(name) for name in ("scale", "seed", "rounds")}
    chosen = " ".join(f"--{name} {value}" for name, value in options.items() if value not in (None, 0 if name == "seed" else None))
    left = " --max-unsteered 100%" if too_many_left(record, Settings().max_unsteered) else ""
    return f"pytest benchmarks --compare --algo {','.join(compared)} --db {header.dataset} {chosen}".rstrip() + left


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    found = [record for folder in sys.argv[1:2] for record in read_results(Path(folder)).records]
    sys.stdout.write(page(found, machine=" ".join(sys.argv[2:])))

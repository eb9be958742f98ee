"""Databases with queries that the proofs are held on, and what is asked of them again and again."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.queries import Query

MODES: dict[str, dict[str, str]] = {
    "serial": {"max_parallel_workers_per_gather": "0"},
    "parallel": {
        "max_parallel_workers_per_gather": "2",
        "parallel_setup_cost": "0",
        "parallel_tuple_cost": "0",
        "min_parallel_table_scan_size": "0",
        "min_parallel_index_scan_size": "0",
    },
    "geqo": {"max_parallel_workers_per_gather": "0", "geqo_threshold": "2", "geqo_effort": "1"},
    "no nestloop": {"max_parallel_workers_per_gather": "0", "enable_nestloop": "off"},
    "only nestloop": {"max_parallel_workers_per_gather": "0", "enable_hashjoin": "off", "enable_mergejoin": "off"},
}
"""Ways to plan: by name, the settings that bring them about."""

_COPY = re.compile(r"^COPY (\S+) \((.*)\) FROM stdin;$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Queries with two sessions in their database: one with the library, one that is stock PostgreSQL."""

    name: str
    queries: tuple[Query, ...]
    steered: Session
    stock: Session

    def queries_for(self, mode: str) -> tuple[Query, ...]:
        """All queries where it matters most, that is serially and on the newest version; every eighth elsewhere, to save time."""
        return self.queries if mode == "serial" or self.steered.server_version >= 180000 else self.queries[::8]

    def set(self, settings: dict[str, str]) -> None:
        """Set the same in both sessions."""
        for session in (self.steered, self.stock):
            for name, value in settings.items():
                session.execute("SELECT set_config(%s, %s, false)", (name, value))


def text_plan(session: Session, sql: str) -> str:
    """EXPLAIN VERBOSE as people see it."""
    return "\n".join(str(row[0]) for row in session.execute(f"EXPLAIN (VERBOSE) {sql}"))


def chance(seed: int | str) -> random.Random:
    """Random numbers that are the same in every run."""
    return random.Random(seed)  # noqa: S311 - draws plans, not secrets


def load_dump(session: Session, path: Path) -> None:
    """Run a plain pg_dump: its statements, and its COPY blocks."""
    lines = iter(path.read_text(encoding="utf-8").splitlines(keepends=True))
    statement = ""
    for line in lines:
        copy = _COPY.match(line)
        if copy:
            columns = [column.strip().strip('"') for column in copy[2].split(",")]
            session.copy_in(copy[1], columns, _copied(lines))
        elif not statement and (line.startswith("--") or not line.strip()):
            continue
        else:
            statement += line
            if line.rstrip().endswith(";"):
                session.execute(statement)
                statement = ""


def _copied(lines: Iterator[str]) -> Iterator[bytes]:
    for line in lines:
        if line == "\\.\n":
            return
        yield line.encode()

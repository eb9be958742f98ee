"""Queries with times that a test sets, and a fake server for trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_pilotscope.algorithms.knob import measuring
from pytest_pilotscope.algorithms.knob.loaded import Load, LoadSessions
from pytest_pilotscope.algorithms.knob.measuring import Selected
from pytest_pilotscope.algorithms.knob.objective import Objective, Target
from pytest_pilotscope.algorithms.knob.space import Values
from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.postgres.knobs import Level
from pytest_pilotscope.queries.queries import Query

QUERIES = tuple(Query(id=f"q{n}", sql=str(n)) for n in range(20))
SELECTED = Selected(queries=QUERIES, default_s=(0.1,) * 20, too_long=0)


def objective(target: Target = "total_time") -> Objective:
    """For the twenty queries above."""
    return Objective(target=target, count=20)


@dataclass
class Clock:
    """A session on which a query takes what `times_s` says for its text; the last limit that was set is kept."""

    times_s: Mapping[str, float]
    limit_s: float = math.inf
    runs: list[str] = field(default_factory=list)

    def time(self, sql: str, limit_s: float) -> float:
        """The time of a query, or the limit."""
        self.runs.append(sql)
        self.limit_s = limit_s
        return min(self.times_s[sql], limit_s)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries take what their session says, without a server."""
    monkeypatch.setattr(measuring, "time_s", lambda session, sql, limit_s: session.time(sql, limit_s))


def times(factor: float = 1.0, **slow: float) -> Clock:
    """Every query takes 0.1 s times a factor, some another time."""
    return Clock({query.sql: slow.get(query.id, 0.1 * factor) for query in QUERIES})


@dataclass
class Tried:
    """A fake server whose settings make queries `factor(values)` times as slow, and which does not start with 16 MB of shared_buffers."""

    session: Any = field(default_factory=times)
    applied: list[Values] = field(default_factory=list)
    cold: bool = True

    def ready(self) -> None:
        """There is no server that could be lost."""

    def clients(self, load: Load) -> AbstractContextManager[LoadSessions]:
        """No trial here is under load."""
        raise NotImplementedError

    def apply(self, values: Values) -> Level | None:
        """Refuse, or take the time that the settings make."""
        if values["shared_buffers"] == "2048":
            raise ServerError("PostgreSQL stopped while starting")
        self.applied.append(values)
        self.session = times(float(values["random_page_cost"]) / 4)
        return "session"

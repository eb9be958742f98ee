"""
A run of several algorithms: each is trained in turn, then all take turns within each query.

If an algorithm fails, in training or later, the others go on; the run ends FAILED for that algorithm only.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from pytest_pilotscope.errors import DifferentAnswer, SideFailed, raise_interrupt_behind
from pytest_pilotscope.learning.algorithm import CardinalityEstimator
from pytest_pilotscope.measurement.protocol import Line
from pytest_pilotscope.measurement.sides import GuardedSide, Side
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import WARM_UP, QueryRun
from pytest_pilotscope.runs.learn import made
from pytest_pilotscope.runs.single import BenchmarkRun

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class ComparisonRun(BenchmarkRun):
    """
    A run of several sides. A side whose algorithm fails leaves the run; one with a different answer leaves that query.

    The last side is measured only if `baseline_alone` is set: then the baseline has a record of its own.
    """

    baseline_alone: bool = False

    def train(self, algorithms: Mapping[str, Any], stack: ExitStack) -> Sequence[SideFailed]:
        """Train and set up one algorithm after the other; return the failures, which leave their algorithms out."""
        broken: list[SideFailed] = []
        sides: list[Side] = []
        estimators = 0
        for name, makers in algorithms.items():
            try:
                parts = made(name, makers)
                sides.append(GuardedSide(side=self.trained_side(name, parts, stack)))
                estimators += isinstance(parts[-1], CardinalityEstimator)
            except Exception as error:  # raised again after the other algorithms are measured
                raise_interrupt_behind(error)
                failure = SideFailed(name, error)
                failure.__cause__ = error
                broken.append(failure)
                self.ended(failure)
                logger.warning("%s", failure)
        self.begin(sides, count_truths=estimators > 0)
        return broken

    def measure(self, query: Query) -> list[str]:
        """Measure one query on all remaining sides; return one sentence for every problem."""
        problems: list[str] = []
        sides = self.sides
        while len(sides) > (0 if self.baseline_alone else 1):
            try:
                return [*problems, *self.failures_of(query, self._measured_whole(query, sides))]
            except DifferentAnswer as error:
                problems.append(self._without(error.side, query, str(error)))
                sides = _others(sides, error.side)
            except SideFailed as error:
                problems.append(self._without(error.side, query, f"query {query.id!r} on side {error.side!r}: {error.reason}"))
                self.ended(error)
                self.sides = sides = _others(sides, error.side)
        return problems

    def _measured_whole(self, query: Query, sides: Sequence[Side]) -> tuple[QueryRun, ...]:
        """Measure one query; write its lines at the end, so that an attempt that is repeated leaves none in the record."""
        lines: list[Line] = []
        try:
            return self.measured(query, sides, lines.append)
        except (DifferentAnswer, SideFailed):
            lines.clear()
            raise
        finally:
            for line in lines:
                self.writer.write(line)

    def _without(self, side: str, query: Query, reason: str) -> str:
        """Write to the record that a side has no times for a query; return the reason."""
        failed: dict[str, Any] = {"query_id": query.id, "side": side, "repetition": WARM_UP, "order": 0, "error": reason}
        self.writer.write(QueryRun(**failed, inference_ms=0.0, planning_ms=0.0, execution_ms=0.0))
        return self.failed(side, query, reason)


def _others(sides: Sequence[Side], name: str) -> tuple[Side, ...]:
    return tuple(side for side in sides if side.name != name)

"""
Runs that take turns: each has a record, a test and a verdict of its own, and all of them share one baseline.

They are measured as the sides of a comparison are. An error of one algorithm ends its own run only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pytest_pilotscope.errors import SideFailed, TooManyLeft
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import BASELINE
from pytest_pilotscope.runs.comparison import ComparisonRun


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """
    The run of some sides that was measured in turns with others before its own test began.

    `problems` are sentences by query. `error` is what ended the run; the test raises it at its end.
    """

    problems: Sequence[tuple[Query, list[str]]] = ()
    error: Exception | None = None

    def measure_all(self) -> Iterator[tuple[Query, list[str]]]:
        """Yield each query that was measured, with one sentence for every problem."""
        yield from self.problems


@dataclass(slots=True, kw_only=True)
class SharedRun(ComparisonRun):
    """A comparison whose sides are in different runs: it knows the problems and the errors of each side."""

    done: list[Query] = field(default_factory=list)
    noted: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    errors: dict[str, tuple[int, Exception]] = field(default_factory=dict)

    def failed(self, side: str, query: Query, reason: str) -> str:
        """Note that a side has failed on the query that is measured now, and return the reason."""
        self.noted.setdefault((len(self.done), side), []).append(reason)
        return ComparisonRun.failed(self, side, query, reason)

    def ended(self, error: SideFailed) -> None:
        """Note the error that ends a side, and after how many queries; it is told once, and not as a problem of the query, too."""
        cause = error.__cause__
        self.errors[error.side] = (len(self.done), cause if isinstance(cause, Exception) else error)
        self.noted.pop((len(self.done), error.side), None)
        ComparisonRun.ended(self, error)

    def measure_everything(self) -> None:
        """Measure all queries."""
        for query, _ in self.measure_all():
            self.done.append(query)

    def part(self, sides: Sequence[str], error: Exception | None) -> MeasuredRun:
        """Return the run of these sides. `error` ended all of them."""
        ends = [self.errors.get(side, (len(self.done), None)) for side in sides] or [(len(self.done), None)]
        problems = [
            (query, [reason for side in (BASELINE, *sides) for reason in self.noted.get((number, side), ())])
            for number, query in enumerate(self.done[: max(count for count, _ in ends)])
        ]
        left = [self.failures[side] for side in sides if side in self.failures and side not in {noted for _, noted in self.noted}]
        own = next(filter(None, (found for _, found in ends)), None) or (TooManyLeft(". ".join(left)) if left else None)
        return MeasuredRun(problems=problems, error=own or error)

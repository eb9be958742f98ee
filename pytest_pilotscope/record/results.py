"""
The values that a measurement produces: one per timed execution, per query and side, per training, and for the run.

The record's description (docs/record.md) is made from them: `python -m pytest_pilotscope.record.schema > docs/record.md`.

A *side* is one competitor within a run: `baseline`, an algorithm's name, or `baseline-again` when the baseline is measured against itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

BASELINE = "baseline"
"""The side every other one is paired with: PostgreSQL left alone."""

BASELINE_AGAIN = "baseline-again"
"""The second baseline of an A/A run, which shows the noise of the machine."""

WARM_UP = 0
"""The repetition number of warm-up runs, which count in no figure."""

PARTIAL = "partial"
"""The tag of a run of some of the test queries; it says of how many."""

Scalar = str | int | float | bool | None
"""What a parameter may be: everything that a tracking store and JSON can both hold."""

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended, in the words of MLflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRun:
    """
    One timed execution of one query.

    `query_id` is an id of the header's `queries`, `side` one of its `sides`. `repetition` is the round (0 is the warm-up) and `order` the
    position within the round, from 0. `planning_ms` and `execution_ms` are the server's own figures, `inference_ms` is client wall clock. A
    run cut off by the statement timeout has `timed_out` set and the limit as its `execution_ms`, so sums over it are lower bounds. A run
    that failed has the message in `error` and no meaningful times. `row_count` is the number of rows in the answer. `answer_hash` does not
    depend on the order of the rows, and `empty` says that the query found nothing; only warm-ups have these two.
    """

    query_id: str
    side: str
    repetition: int
    order: int
    inference_ms: float
    planning_ms: float
    execution_ms: float
    timed_out: bool = False
    error: str | None = None
    row_count: int | None = None
    answer_hash: str | None = None
    empty: bool | None = None

    def __post_init__(self) -> None:
        for name in ("inference_ms", "planning_ms", "execution_ms"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"{name} of query {self.query_id!r}, side {self.side!r} must be finite and >= 0, found {value}")

    @property
    def end_to_end_ms(self) -> float:
        """The time a client would have waited."""
        return self.inference_ms + self.planning_ms + self.execution_ms

    @property
    def server_ms(self) -> float:
        """Planning and execution: what the server spent."""
        return self.planning_ms + self.execution_ms

    @property
    def warm_up(self) -> bool:
        """Whether this run only warmed the caches."""
        return self.repetition == WARM_UP


@dataclass(frozen=True, slots=True, kw_only=True)
class SubplanEstimate:
    """The `estimated` and `true` rows of one subplan, which is named by its sorted `aliases`."""

    aliases: tuple[str, ...]
    estimated: float
    true: float

    @property
    def joins(self) -> int:
        """The number of joins inside: one less than there are relations."""
        return len(self.aliases) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanNode:
    """
    One node of a plan, with the nodes below it in `children`, the outer side first.

    `operation` is the node's type as people say it: `Parallel Hash Left Join`. `subplan` names the part of the query that begins here
    (`InitPlan 1`, `CTE recent`). `relation` is the table, the CTE or the function that a scan reads, `alias` its name in the query,
    `index` the index in use, and `conditions` are those of the index, the join and the filter. `rows` are estimated per execution.
    `actual_rows` were counted per execution, in so many `loops`; a plan that was not run with counters has neither. `cost` is the total
    cost in optimizer units.
    """

    operation: str
    rows: float
    cost: float
    subplan: str | None = None
    relation: str | None = None
    alias: str | None = None
    index: str | None = None
    conditions: tuple[str, ...] = ()
    actual_rows: float | None = None
    loops: float | None = None
    children: tuple[PlanNode, ...] = ()

    def nodes(self, depth: int = 0) -> Iterator[tuple[int, PlanNode]]:
        """Yield each node with its depth, parents before their children."""
        yield depth, self
        for child in self.children:
            yield from child.nodes(depth + 1)

    @property
    def aliases(self) -> frozenset[str]:
        """The aliases of the relations at and below this node."""
        return frozenset(node.alias for _, node in self.nodes() if node.alias is not None)

    @property
    def title(self) -> str:
        """The node in words, without its conditions and numbers: `Index Scan comments c using comments_pkey`."""
        relation = None if self.relation == self.alias else self.relation
        index = f"using {self.index}" if self.index else None
        return " ".join(filter(None, (self.subplan and f"{self.subplan}:", self.operation, relation, self.alias, index)))

    @property
    def text(self) -> str:
        """The node in words, without its numbers."""
        return " ".join((self.title, *(f"[{condition}]" for condition in self.conditions)))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryReport:
    """
    The exact figures of one query (`query_id`) on one `side`: they are the same in every round, so they are recorded once.

    `steered_ratio` (0..1) is the share of the scans and joins of the plan that carry what was injected for them; `steering_reasons` says
    why the others do not. `plan_shape` is a hash of the plan without its numbers, `plan` its root (with actual rows where they are known),
    `plan_cost` its cost in optimizer units. `estimates` and `p_error` exist for cardinality estimators only; `p_error_reason` says why a
    p-error is not known.
    """

    query_id: str
    side: str
    steered_ratio: float | None = None
    steering_reasons: tuple[str, ...] = ()
    plan_shape: str | None = None
    plan: PlanNode | None = None
    plan_cost: float | None = None
    estimates: tuple[SubplanEstimate, ...] | None = None
    p_error: float | None = None
    p_error_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryDecision:
    """
    The decision that the algorithm of a `side` took for one query (`query_id`), explained by `facts` under names of its own, with units.

    No figure is made of it.
    """

    query_id: str
    side: str
    facts: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeader:
    """
    The first line of a record: the run that it is of.

    `run_name` is unique in its folder, `algorithm` is `compare` if the run compares several, and `dataset` is the name after `--db`.
    `started_at` is ISO 8601 in UTC. `sides` are in the order of the first round and contain `baseline_side`. Each query is measured in so
    many `rounds` after its warm-up; `seed` is that of everything random. `suite_version` is the version that wrote the record. `queries`
    maps the ids that are to be measured to their SQL, in order. `parameters` and `tags` go to the tracking store as they are.
    `fingerprints` identify what must be equal for two runs to be comparable: `data`, `statistics`, `settings`, `indexes`, `build`,
    `workload`. `server` describes the server (provider, version, build flags), and `settings` are those that differ from PostgreSQL's own.
    `timeout_ms` is null where the limit follows the baseline. `parallel` marks times taken beside other workers, which no gate accepts.
    """

    run_name: str
    algorithm: str
    dataset: str
    started_at: str
    sides: tuple[str, ...]
    rounds: int
    seed: int
    suite_version: str
    baseline_side: str = BASELINE
    queries: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    server: Mapping[str, Scalar] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    timeout_ms: float | None = None
    parallel: bool = False

    def __post_init__(self) -> None:
        if self.baseline_side not in self.sides:
            raise ValueError(f"the baseline side {self.baseline_side!r} of run {self.run_name!r} is not among its sides {list(self.sides)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """
    The outcome of training one `side`, which `train()` returns and the suite records.

    Training took `duration_s`. `metrics` are series with one value per step (epoch, trial or update), from step 0. `parameters` are
    hyper-parameters. `scalars` are figures that training ends with; integers among them (such as `whatif_calls`) are exact and gated as
    such. `artifacts` are paths.
    """

    side: str
    duration_s: float
    metrics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    scalars: Mapping[str, int | float] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """
    The last line of a record: the run ended with this `status`.

    `finished_at` is ISO 8601 in UTC. `failures` maps the sides that failed to the reason, `error` is the run's own.
    """

    status: Status
    finished_at: str
    error: str | None = None
    failures: Mapping[str, str] = field(default_factory=dict)

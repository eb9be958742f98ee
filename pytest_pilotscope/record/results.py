"""
The lines of a record as values: one for each timed execution, for each query and side, for each training, and for the run.

`python -m pytest_pilotscope.record.schema > docs/record.md` makes the published description from them.

A *side* is what a run measures: `baseline`, an algorithm by its name, or `baseline-again` if PostgreSQL is measured against itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

BASELINE = "baseline"
"""The side that every other one is paired with: PostgreSQL without steering."""

BASELINE_AGAIN = "baseline-again"
"""The second baseline of an A/A run, which shows the noise of the machine."""

WARM_UP = 0
"""The repetition number of warm-up runs, which no figure uses."""

LONGEST_MS = 1e12
"""No time is longer (32 years), so that sums and ratios of times are numbers."""

PARTIAL = "partial"
"""The tag of a run with a part of the test queries; its value is their number."""

Scalar = str | int | float | bool | None
"""A parameter: the values that both a tracking store and JSON can hold."""

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""The ends of a run, in the words of MLflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRun:
    """
    One timed execution of one query.

    `query_id` is an id of the header's `queries`, `side` one of its `sides`. `repetition` is the round (0 is the warm-up), and `order` is
    the position within the round, from 0. The server measures `planning_ms` and `execution_ms`; the client measures `inference_ms` (wall
    clock) and `inference_processor_ms`, the processor time of its own process in it. If the statement timeout cut the run off, `timed_out`
    is set and `execution_ms` is the limit, so sums over it are lower bounds. If the run failed, `error` is the message, and the times mean
    nothing. `row_count` is the number of rows in the answer. Only warm-ups have `answer_hash`, which does not depend on the order of the
    rows, and `empty`, which is set if the query found nothing. `client` is the number of the client, from 1, or 0 if the sides ran in
    turns.
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
    client: int = 0
    inference_processor_ms: float | None = None

    def __post_init__(self) -> None:
        for name in ("inference_ms", "planning_ms", "execution_ms"):
            value = getattr(self, name)
            if not 0 <= value <= LONGEST_MS:
                raise ValueError(f"{name} of query {self.query_id!r}, side {self.side!r} must be from 0 to {LONGEST_MS:g}, found {value}")
        _check_not_negative(self, "repetition", "order", "row_count", "client", "inference_processor_ms")

    @property
    def end_to_end_ms(self) -> float:
        """The time that a client would have waited."""
        return self.inference_ms + self.planning_ms + self.execution_ms

    @property
    def server_ms(self) -> float:
        """The time that the server spent: planning and execution."""
        return self.planning_ms + self.execution_ms

    @property
    def warm_up(self) -> bool:
        """True if this run only warmed the caches."""
        return self.repetition == WARM_UP


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSlice:
    """
    The time in which a `side` had the machine, and all its clients ran every query once.

    `repetition` is the round, `order` the position within it, from 0. It took `duration_s` until the last client was ready; `executions`
    of all clients ended by themselves. Their `query_run`s have the same `side` and `repetition`. So have their `write_run`s, of which there
    are `writes`.
    """

    side: str
    repetition: int
    order: int
    duration_s: float
    executions: int
    writes: int = 0

    def __post_init__(self) -> None:
        _check_not_negative(self, "repetition", "order", "duration_s", "executions", "writes")


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRun:
    """
    One run of a `script` of `--writes`, by a `client` (from 1) in the time slice of `side` and `repetition`.

    The client waited `latency_ms` for all its statements together, by its own clock.
    """

    side: str
    script: str
    repetition: int
    client: int
    latency_ms: float

    def __post_init__(self) -> None:
        _check_not_negative(self, "repetition", "client", "latency_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubplanEstimate:
    """The `estimated` and `true` rows of one subplan; its sorted `aliases` name it."""

    aliases: tuple[str, ...]
    estimated: float
    true: float

    def __post_init__(self) -> None:
        _check_not_negative(self, "estimated", "true")

    @property
    def joins(self) -> int:
        """The number of joins inside: one fewer than relations."""
        return len(self.aliases) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanNode:
    """
    One node of a plan, with the nodes below it in `children`, the outer side first.

    `operation` is the node's type in words: `Parallel Hash Left Join`. `subplan` names the part of the query that begins here
    (`InitPlan 1`, `CTE recent`). `relation` is the table, the CTE or the function that a scan reads, `alias` its name in the query,
    `index` the index in use, and `conditions` are those of the index, the join and the filter. The planner estimated `rows` per execution.
    The executor counted `actual_rows` per execution and the executions (`loops`); a plan that ran without counters has neither. `cost` is
    the total cost in optimizer units.
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

    def __post_init__(self) -> None:
        _check_not_negative(self, "rows", "cost", "actual_rows", "loops")

    def nodes(self, depth: int = 0) -> Iterator[tuple[int, PlanNode]]:
        """Yield each node with its depth, parents before children."""
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
    The exact figures of one query (`query_id`) on one `side`, recorded once because they are the same in every round.

    `steered_ratio` (0..1) is the share of the decision that PostgreSQL followed: of the plan's scans and joins those that have the injected
    values, and the decided joins, methods and settings; `steering_reasons` says why it did not follow the rest. `left` is the reason why
    the query was left to PostgreSQL: the side could not decide, or PostgreSQL used nothing of its decision. `settings` are the planner's
    settings in a decision. `plan` is the root of the plan (with actual rows if they are known), `plan_shape` a hash of the plan without its
    numbers, and `plan_cost` its cost in optimizer units. Only cardinality estimators have `estimates` and `p_error`; `p_error_reason` says
    why a p-error is not known. `not_comparable` says what SQL leaves open in the answer, if the side's answer differs from the baseline's
    for that reason.
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
    not_comparable: str | None = None
    left: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_not_negative(self, "steered_ratio", "plan_cost", "p_error")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryDecision:
    """
    The decision of a `side` for one query (`query_id`), explained by `facts`, whose names the algorithm chooses, with units.

    No figure uses it.
    """

    query_id: str
    side: str
    facts: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStep:
    """
    A query of a stream (`query_id`) on one `side`: all runs with this id took place before the next one's.

    `original` is the id of the same query in the workload. As a `repeat` it is the first of its template (`new`), the same as an earlier
    one (`exact`), or another one of an earlier template (`template`). The statement `write` ran before it, if any, after `writes` others.
    The side learned from it for `learning_ms`, which is in no query's time. `regret_ms` is the end-to-end time of the side minus the
    baseline's, both the medians of the rounds, summed up from the beginning of the stream to this query; a query without a pair adds
    nothing.
    """

    query_id: str
    side: str
    original: str
    repeat: Literal["new", "exact", "template"]
    regret_ms: float
    learning_ms: float = 0.0
    writes: int = 0
    write: str | None = None

    def __post_init__(self) -> None:
        _check_not_negative(self, "learning_ms", "writes")


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineLoad:
    """
    The load of the client's machine at one moment.

    `load_average` is that of the last minute, for so many `processors` that the client may use. Since the start of the machine, its
    hypervisor kept all processors together from running for `stolen_s`, out of `elapsed_s`; both are null if that is not known.
    """

    processors: int
    load_average: float
    stolen_s: float | None = None
    elapsed_s: float | None = None

    def __post_init__(self) -> None:
        _check_not_negative(self, "processors", "load_average", "stolen_s", "elapsed_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeader:
    """
    The first line of a record: the description of its run.

    `run_name` is unique in its folder, `algorithm` is `compare` if the run compares several, and `dataset` is the name after `--db`.
    `started_at` is ISO 8601 in UTC. `sides` are in the order of the first round and contain `baseline_side`. `variants` maps the sides that
    are PostgreSQL with other settings or of another server, alone or joined with an algorithm, to the difference; those of `other_servers`
    ran on a server of their own.
    `conditions` are those of production, by the names of their options: `parallel` workers per gather, `jit` and `cold` (1 if chosen),
    `clients` at once. The
    run measures each query in `rounds` rounds after its warm-up, or in more if the parameter `rounds` is `auto`; then readers count the
    rounds that all queries have. Everything random uses `seed`. `suite_version` is the version that wrote the record. `queries` maps
    the ids of the planned queries to their SQL, in order. `parameters` and `tags` go to the tracking store unchanged. Two runs are
    comparable if their `fingerprints` are equal: `data`, `statistics`, `settings`, `indexes`, `build`, `workload`. `server` describes the
    server (provider, version, build flags), and `settings` are those that differ from PostgreSQL's defaults. `timeout_ms` is null if the
    limit follows the baseline. `parallel` marks times measured while other workers ran, which no gate accepts. `machine_load` is the load
    when the run began. `shared_baseline` names the measurement if several runs took turns against one baseline: the records with the same
    name have the same executions of it, which are one sample.
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
    variants: Mapping[str, str] = field(default_factory=dict)
    other_servers: tuple[str, ...] = ()
    conditions: Mapping[str, int] = field(default_factory=dict)
    queries: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    server: Mapping[str, Scalar] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    timeout_ms: float | None = None
    parallel: bool = False
    shared_baseline: str | None = None
    machine_load: MachineLoad | None = None

    def __post_init__(self) -> None:
        _check_not_negative(self, "rounds", "timeout_ms")
        if self.baseline_side not in self.sides:
            raise ValueError(f"the baseline side {self.baseline_side!r} of run {self.run_name!r} is not among its sides {list(self.sides)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """
    The outcome of training one `side`, as `train()` returned it.

    Training took `duration_s`. `metrics` are series with one value per step (epoch, trial or update), from step 0. `parameters` are
    hyper-parameters. `scalars` are the final figures; the gate compares the integers among them (such as `whatif_calls`) exactly.
    `artifacts` are paths. `num_training` is the number of queries that were learned from. `algorithm` names the one that was trained if
    the side joins several (`index+mscn`), which have a report each, in the order of training.
    """

    side: str
    duration_s: float
    metrics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    scalars: Mapping[str, int | float] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    num_training: int | None = None
    algorithm: str | None = None

    @property
    def prefix(self) -> str:
        """The beginning of the names of its figures where those of all reports of a side stand together."""
        return "" if self.algorithm is None else f"{self.algorithm.replace('+', '_')}."


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIndex:
    """
    An index, `name`, that a side built on the table `table` of `schema`. `definition` is PostgreSQL's own; it takes `size_bytes`.

    To measure its cost, `inserted_rows` rows of the table were inserted in turns into two other tables, one of which has such an index:
    `insert_ms` are the times of the one without, by round, `insert_with_index_ms` those of the one with it, and `wal_bytes` is how much
    more WAL the latter wrote. `inserted_rows` is null if that was not measured.
    """

    schema: str
    table: str
    name: str
    definition: str
    size_bytes: int
    inserted_rows: int | None = None
    insert_ms: tuple[float, ...] = ()
    insert_with_index_ms: tuple[float, ...] = ()
    wal_bytes: int | None = None

    def __post_init__(self) -> None:
        _check_not_negative(self, "size_bytes", "inserted_rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedSetting:
    """
    A setting, `name`, that a side changed to `value`, with its unit; it was `before`, null for PostgreSQL's default.

    `level` is what a change needs: a new session, a reload of the configuration, or a restart. `baseline_too` marks a setting that the
    baseline's sessions had as well, because there was only one server.
    """

    name: str
    value: str
    level: Literal["session", "reload", "restart"]
    before: str | None = None
    baseline_too: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """
    The changes that a `side` made to its database for the measurement: `indexes` that it built, `dropped` ones by their definitions, and
    `settings`.
    """

    side: str
    indexes: tuple[BuiltIndex, ...] = ()
    dropped: tuple[str, ...] = ()
    settings: tuple[ChangedSetting, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """
    The last line of a record: the run ended with this `status`.

    `finished_at` is ISO 8601 in UTC. `failures` maps each side that failed to the reason; `error` is the reason if the whole run failed.
    `machine_load` is the load when the run ended.
    """

    status: Status
    finished_at: str
    error: str | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    machine_load: MachineLoad | None = None

    def failure_texts(self) -> dict[str, str]:
        """Return a sentence for each side that failed; a reason that begins with its name is one already."""
        return {side: why if why.startswith(f"{side} ") else f"{side} failed: {why}" for side, why in self.failures.items()}


def _check_not_negative(value: object, *names: str) -> None:
    """Raise ValueError, with its name, for a negative number or NaN in a field; None is neither."""
    for name in names:
        number = getattr(value, name)
        if number is not None and not number >= 0:
            raise ValueError(f"field {name!r} must be at least 0, found {number}")

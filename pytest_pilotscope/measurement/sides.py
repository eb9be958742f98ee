"""The sides of a measurement: each decides on a query and steers its session while the query runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from pytest_pilotscope.errors import (
    AlgorithmError,
    QueryTimeout,
    SideFailed,
    StatementFailed,
    SteeringError,
    UnsupportedQuery,
    counted,
    errors_of,
    raise_interrupt_behind,
)
from pytest_pilotscope.learning.algorithm import (
    A_SCALAR,
    Algorithm,
    Cardinalities,
    CardinalityEstimator,
    Decider,
    Explaining,
    LearningOn,
    Observing,
    TextSteering,
    is_scalar,
    unknown_of,
)
from pytest_pilotscope.learning.decision import Decision, check_decision, check_rows
from pytest_pilotscope.measurement.clocks import Stopwatch
from pytest_pilotscope.measurement.supervision import Supervision
from pytest_pilotscope.postgres.adherence import LEFT_OUT, uninjected
from pytest_pilotscope.postgres.timelimit import training_limit
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import Scalar

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """
    The decision of a side for one query, and the ms that deciding took, by the wall clock and of processor time.

    `estimates` are the rows of a cardinality estimator, which has some for every subplan; the rows of a `decision` only force a plan. Both
    are None for PostgreSQL left alone. `facts` explain the decision, if the algorithm does. `unsupported` is the reason why the side could
    not decide and left PostgreSQL alone.
    """

    inference_ms: float
    inference_processor_ms: float = 0.0
    estimates: Cardinalities | None = None
    decision: Decision | None = None
    unsupported: str | None = None
    facts: Mapping[str, Scalar] = field(default_factory=dict)


class Side(Protocol):
    """One side of a measurement."""

    @property
    def name(self) -> str:
        """The name under which its figures are recorded."""

    @property
    def session(self) -> Session:
        """The session in which its queries run."""

    def steered(self, query: Query) -> AbstractContextManager[Steering]:
        """Decide, and keep the session steered for the length of the block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainSide:
    """PostgreSQL left alone on the session's database: the baseline, and algorithms that change the database instead of the plan."""

    name: str
    session: Session

    @contextmanager
    def steered(self, query: Query) -> Iterator[Steering]:
        """Decide nothing."""
        yield Steering(inference_ms=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorSide:
    """
    A cardinality estimator: it estimates every subplan, and its estimates are injected.

    `gaps` has, by the text of each query so far, a sentence about the subplans that it missed, or None.
    """

    name: str
    session: Session
    algorithm: CardinalityEstimator
    supervision: Supervision = field(default_factory=Supervision)
    gaps: dict[str, str | None] = field(default_factory=dict, init=False)
    _by_text: TextSteering | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if isinstance(self.algorithm, TextSteering):  # once, because Python looks through all names of the protocol
            object.__setattr__(self, "_by_text", self.algorithm)

    @contextmanager
    def steered(self, query: Query) -> Iterator[Steering]:
        """Enumerate, estimate, check and inject; all of it is inference time. A query without subplans is left to PostgreSQL."""
        with _applied(self, query, self._estimated, lambda rows: Decision(rows=rows), self._complete) as (steering, rows):
            yield replace(steering, estimates=rows)

    def _estimated(self, query: Query) -> Cardinalities:
        """Return the estimates of all subplans; the planner lists them if the text is not enough."""
        estimates = self._by_text.steer_by_text(query) if self._by_text else None
        if estimates is not None:
            check_rows(self.name, query, estimates)
            return estimates
        with _planning(query):
            subplans = self.session.subplans(query.sql)
        estimates = self.algorithm.steer(query, dict(subplans))  # a copy: ours tells what is missing
        check_rows(self.name, query, estimates)
        self.gaps[query.sql] = missed(subplans, estimates)
        return estimates

    def _complete(self, query: Query, estimates: Cardinalities) -> Mapping[str, Scalar]:
        """Raise `UnsupportedQuery` for estimates that miss a subplan; list the subplans of each query that was read from its text once."""
        if query.sql not in self.gaps:
            with _planning(query):
                self.gaps[query.sql] = missed(self.session.subplans(query.sql), estimates)
        if gap := self.gaps[query.sql]:
            raise UnsupportedQuery(gap, query.sql)
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeciderSide:
    """An algorithm that decides for each query; its decisions are applied to the session."""

    name: str
    session: Session
    algorithm: Decider
    supervision: Supervision = field(default_factory=Supervision)

    @contextmanager
    def steered(self, query: Query) -> Iterator[Steering]:
        """Decide and apply; all of it is inference time. Learning, which is done before, and explaining are not."""
        if isinstance(self.algorithm, LearningOn):
            limit = training_limit(self.name, self.supervision.training_timeout_s)
            with self.supervision.put_back_on_error(), errors_of(self.name, f"on query {query.id!r}"), limit:
                self.algorithm.learn_on(replace(query))
        with _applied(self, query, self._decided, lambda decision: decision, self._facts) as (steering, decision):
            yield replace(steering, decision=decision)

    def _facts(self, query: Query, decision: Decision) -> Mapping[str, Scalar]:
        facts = self.algorithm.explain(query) if isinstance(self.algorithm, Explaining) else {}
        check_facts(self.name, query, facts)
        return facts

    def _decided(self, query: Query) -> Decision:
        """Return the decision. A statement of the algorithm that fails is its error, unless PostgreSQL does not plan the query itself."""
        try:
            return check_decision(self.name, query, self.algorithm.decide(query, self.session))
        except (QueryTimeout, StatementFailed) as error:
            if self.session.closed:
                raise
            if not self.session.transaction_open:
                with _planning(query):
                    self.session.explain(query.sql)
            raise AlgorithmError(f"{self.name} failed on query {query.id!r}: {error}") from error


@dataclass(slots=True, kw_only=True)
class ObservingSide:
    """A side whose algorithm learns from executions; it keeps the last decision on a query, None if the query was left to PostgreSQL."""

    side: EstimatorSide | DeciderSide
    algorithm: Observing
    _decision: Decision | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """Of the observing side."""
        return self.side.name

    @property
    def session(self) -> Session:
        """Of the observing side."""
        return self.side.session

    @contextmanager
    def steered(self, query: Query) -> Iterator[Steering]:
        """Decide as the side does."""
        with self.side.steered(query) as steering:
            self._decision = steering.decision if steering.estimates is None else Decision(rows=steering.estimates)
            yield steering

    def observe(self, query: Query, execution_ms: float) -> float:
        """Hand the execution of the last decision to the algorithm; return the ms that it learned for. Raise what the algorithm raises."""
        clock, supervision = Stopwatch(), self.side.supervision
        if self._decision is not None:
            limit = training_limit(self.name, supervision.training_timeout_s)
            with supervision.put_back_on_error(), errors_of(self.name, f"on the execution of query {query.id!r}"), limit, clock:
                self.algorithm.observe(replace(query), self._decision, execution_ms)
            supervision.check(self.name, f"learning from query {query.id!r}")
        return clock.elapsed_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedSide:
    """A side whose algorithm may raise any error: it becomes `SideFailed`, so that the other sides go on."""

    side: Side

    @property
    def name(self) -> str:
        """Of the guarded side."""
        return self.side.name

    @property
    def session(self) -> Session:
        """Of the guarded side."""
        return self.side.session

    @contextmanager
    def steered(self, query: Query) -> Iterator[Steering]:
        """Decide as the guarded side does; errors inside the block are not changed."""
        with ExitStack() as stack:
            try:
                steering = stack.enter_context(self.side.steered(query))
            except Exception as error:
                raise_interrupt_behind(error)
                raise SideFailed(self.name, error) from error
            yield steering


@contextmanager
def _applied(
    side: EstimatorSide | DeciderSide,
    query: Query,
    decide: Callable[[Query], T],
    as_decision: Callable[[T], Decision],
    explain: Callable[[Query, T], Mapping[str, Scalar]],
) -> Iterator[tuple[Steering, T | None]]:
    """
    Apply what `decide` returns, and give it.

    A query that it does not support is left to PostgreSQL; `explain` may find that out, too. Deciding, checking the answer and applying are
    inference time; explaining, and checking what the algorithm left behind, are not.
    """
    if side.session.closed:
        raise StatementFailed(query.sql, reason="the connection to the server is closed")
    name, supervision = side.name, side.supervision
    given = replace(query)  # so that nothing an algorithm does to it reaches the other sides
    clock = Stopwatch()
    decided: T | None = None
    unsupported: str | None = None
    facts: Mapping[str, Scalar] = {}
    with ExitStack() as stack:
        try:
            with supervision.put_back_on_error(), errors_of(name, f"on query {query.id!r}"), supervision.limited(name, query):
                with clock:
                    decided = decide(given)
                facts = explain(given, decided)
        except UnsupportedQuery as error:
            decided, unsupported = None, error.reason
        supervision.check(name, f"its decision on query {query.id!r}")
        if decided is not None:
            with clock, _named(name, query):
                apply_decision(side.session, as_decision(decided), stack)
        steering = Steering(inference_ms=clock.elapsed_ms, inference_processor_ms=clock.processor_ms, unsupported=unsupported, facts=facts)
        yield steering, decided


@contextmanager
def _named(algorithm: str, query: Query) -> Iterator[None]:
    """Say whose decision it is that PostgreSQL does not take."""
    try:
        yield
    except SteeringError as error:
        raise SteeringError(f"{algorithm} decided on query {query.id!r}: {error}") from error


def apply_decision(session: Session, decision: Decision, stack: ExitStack) -> None:
    """Steer a session by a decision until `stack` closes."""
    if decision.settings:
        stack.enter_context(session.planner_settings(decision.settings))
    if decision.join_order is not None or decision.methods:
        stack.enter_context(session.hints(join_order=decision.join_order, methods=decision.methods or None))
    if decision.rows:
        stack.enter_context(session.cardinalities(decision.rows))


@contextmanager
def _planning(query: Query) -> Iterator[None]:
    """Raise `UnsupportedQuery` when PostgreSQL does not plan a query; a lost connection stays an error."""
    try:
        yield
    except QueryTimeout as error:
        raise UnsupportedQuery(f"planning it takes more than {error.timeout_ms} ms", query.sql) from error
    except StatementFailed as error:
        if not error.sqlstate:
            raise
        raise UnsupportedQuery(f"PostgreSQL does not plan it: {error.reason}", query.sql) from error


def side_of(name: str, algorithm: Algorithm, session: Session, supervision: Supervision | None = None) -> Side:
    """Return the side of an algorithm by the decision it takes over; `supervision` limits it."""
    supervision = supervision or Supervision()
    if isinstance(algorithm, CardinalityEstimator):
        return EstimatorSide(name=name, session=session, algorithm=algorithm, supervision=supervision)
    if isinstance(algorithm, Decider):
        return DeciderSide(name=name, session=session, algorithm=algorithm, supervision=supervision)
    return PlainSide(name=name, session=session)


def missed(subplans: Cardinalities, estimates: Cardinalities) -> str | None:
    """Return a sentence if estimates have neither rows nor a reason for subplans of the planner's list."""
    unknown = unknown_of(estimates)
    left_out = [subplan for subplan, why in uninjected(estimates, subplans, subplans, unknown).items() if why == LEFT_OUT]
    if not left_out:
        return None
    first = min(left_out, key=lambda subplan: (len(subplan), sorted(subplan)))
    missing = f"it has no rows for {len(left_out)} of {counted(len(subplans), 'subplan')}, among them {' '.join(sorted(first))}"
    return f"{missing}; return {{**subplans, ...}} to keep PostgreSQL's own rows of the others"


def check_facts(algorithm: str, query: Query, facts: object) -> None:
    """Raise `AlgorithmError` for facts that the record cannot hold, by their names or their values."""
    named = isinstance(facts, Mapping) and all(isinstance(name, str) and "\0" not in name for name in facts)
    if not isinstance(facts, Mapping) or not named:
        raise AlgorithmError(f"{algorithm} explained query {query.id!r} with {facts!r}; it must be a mapping from names (texts) to values")
    for name, value in facts.items():
        if not is_scalar(value):
            raise AlgorithmError(f"{algorithm} explained query {query.id!r} with {value!r} as {name!r}; a fact must be {A_SCALAR}")

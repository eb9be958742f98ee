"""The sides of a measurement: each decides on a query and steers its session while the query runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from pytest_pilotscope.errors import (
    AlgorithmError,
    IncompleteEstimate,
    InvalidEstimate,
    QueryTimeout,
    SideFailed,
    StatementFailed,
    UnsupportedQuery,
    raise_interrupt_behind,
)
from pytest_pilotscope.learning.algorithm import (
    A_SCALAR,
    Algorithm,
    Cardinalities,
    CardinalityEstimator,
    Explaining,
    LearningOn,
    PlanChooser,
    TextSteering,
    is_finite,
    is_scalar,
    unknown_of,
)
from pytest_pilotscope.measurement.clocks import Stopwatch
from pytest_pilotscope.measurement.supervision import Supervision
from pytest_pilotscope.postgres.timelimit import training_limit
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import Scalar

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """
    The decision of a side for one query: the injected cardinalities (none for PostgreSQL left alone), and the ms that deciding took.

    `facts` explain the decision, if the algorithm does. With `by_candidate` the cardinalities are used only to force a plan.
    `unsupported` is the reason why the side could not decide and left PostgreSQL alone.
    """

    inference_ms: float
    cardinalities: Cardinalities | None = None
    unsupported: str | None = None
    facts: Mapping[str, Scalar] = field(default_factory=dict)
    by_candidate: bool = False


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
    """A cardinality estimator: it estimates every subplan, and its estimates are injected."""

    name: str
    session: Session
    algorithm: CardinalityEstimator
    supervision: Supervision = field(default_factory=Supervision)

    @contextmanager
    def steered(self, query: Query) -> Iterator[Steering]:
        """Enumerate, estimate, check and inject; all of it is inference time. A query without subplans is left to PostgreSQL."""
        with _injected(self, query, lambda: self._estimated(query)) as steering:
            yield steering

    def _estimated(self, query: Query) -> tuple[Cardinalities, Cardinalities]:
        """Return the subplans that were asked for, none if the text was enough, and their estimates."""
        by_text = self.algorithm.steer_by_text(query) if isinstance(self.algorithm, TextSteering) else None
        if by_text is not None:
            return {}, by_text
        with _planning(query):
            subplans = self.session.subplans(query.sql)
        return subplans, self.algorithm.steer(query, subplans)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChooserSide:
    """A plan chooser: it compares candidate plans, and the cardinalities that force its choice are injected."""

    name: str
    session: Session
    algorithm: PlanChooser
    supervision: Supervision = field(default_factory=Supervision)

    @contextmanager
    def steered(self, query: Query) -> Iterator[Steering]:
        """Choose and inject; all of it is inference time. Learning, which is done before, and explaining are not."""
        if isinstance(self.algorithm, LearningOn):
            with self.supervision.put_back_on_error(), training_limit(self.name, self.supervision.training_timeout_s):
                self.algorithm.learn_on(query)
        with _injected(self, query, lambda: self._chosen(query), self._facts) as steering:
            yield replace(steering, by_candidate=steering.unsupported is None)

    def _facts(self, query: Query) -> Mapping[str, Scalar]:
        facts = self.algorithm.explain(query) if isinstance(self.algorithm, Explaining) else {}
        check_facts(self.name, query, facts)
        return facts

    def _chosen(self, query: Query) -> tuple[Cardinalities, Cardinalities]:
        with _planning(query):
            return {}, self.algorithm.choose(query, self.session)


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
def _injected(
    side: EstimatorSide | ChooserSide,
    query: Query,
    decide: Callable[[], tuple[Cardinalities, Cardinalities]],
    explain: Callable[[Query], Mapping[str, Scalar]] = lambda query: {},
) -> Iterator[Steering]:
    """
    Inject the cardinalities that `decide` returns beside the subplans that must be among them.

    A query that it does not support is left to PostgreSQL. Deciding, checking the answer and injecting are inference time; explaining, and
    checking what the algorithm left behind, are not.
    """
    name, supervision = side.name, side.supervision
    clock = Stopwatch()
    decided: Cardinalities | None = None
    unsupported: str | None = None
    facts: Mapping[str, Scalar] = {}
    with ExitStack() as stack:
        try:
            with supervision.put_back_on_error(), supervision.limited(name, query):
                with clock:
                    subplans, decided = decide()
                    check_estimates(name, query, subplans, decided)
                facts = explain(query)
        except UnsupportedQuery as error:
            unsupported = error.reason
        supervision.check(name, f"its decision on query {query.id!r}")
        if decided is not None:
            with clock:
                stack.enter_context(side.session.cardinalities(decided))
        yield Steering(inference_ms=clock.elapsed_ms, cardinalities=decided, unsupported=unsupported, facts=facts)


@contextmanager
def _planning(query: Query) -> Iterator[None]:
    """Raise `UnsupportedQuery` when PostgreSQL does not plan a statement; a lost connection stays an error."""
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
    if isinstance(algorithm, PlanChooser):
        return ChooserSide(name=name, session=session, algorithm=algorithm, supervision=supervision)
    return PlainSide(name=name, session=session)


def check_estimates(algorithm: str, query: Query, subplans: Cardinalities, estimates: Cardinalities) -> None:
    """
    Raise `IncompleteEstimate` for a subplan without an estimate or a reason, `InvalidEstimate` for an estimate that is not finite and >= 0,
    and `AlgorithmError` for an answer that is no mapping of subplans to numbers.
    """
    if not isinstance(estimates, Mapping):
        raise AlgorithmError(
            f"{algorithm} answered query {query.id!r} with {estimates!r}; it must be a mapping of subplans (frozensets of aliases) to rows"
        )
    missing = subplans.keys() - estimates.keys() - unknown_of(estimates).keys()
    if missing:
        raise IncompleteEstimate(algorithm, query_id=query.id, missing=len(missing), total=len(subplans))
    for subplan, rows in estimates.items():
        if not isinstance(subplan, frozenset) or not all(isinstance(alias, str) for alias in subplan):
            raise AlgorithmError(
                f"{algorithm} answered query {query.id!r} with rows for {subplan!r}; a subplan is a frozenset of aliases, such as "
                "frozenset({'c', 'u'})"
            )
        if not is_finite(rows) or rows < 0:
            raise InvalidEstimate(algorithm, query_id=query.id, subplan=subplan, rows=rows if isinstance(rows, float) else repr(rows))
    for subplan, reason in unknown_of(estimates).items():
        if not isinstance(reason, str):
            raise AlgorithmError(
                f"{algorithm} answered query {query.id!r} with {reason!r} as the reason for {' '.join(sorted(subplan))}; it must be a text"
            )


def check_facts(algorithm: str, query: Query, facts: object) -> None:
    """Raise `AlgorithmError` for facts that the record cannot hold, by their names or their values."""
    named = isinstance(facts, Mapping) and all(isinstance(name, str) and "\0" not in name for name in facts)
    if not isinstance(facts, Mapping) or not named:
        raise AlgorithmError(f"{algorithm} explained query {query.id!r} with {facts!r}; it must be a mapping from names (texts) to values")
    for name, value in facts.items():
        if not is_scalar(value):
            raise AlgorithmError(f"{algorithm} explained query {query.id!r} with {value!r} as {name!r}; a fact must be {A_SCALAR}")

"""Collection of Lero's training data: the candidates of every training query, timed on the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

from pytest_pilotscope.algorithms.lero.candidates import Candidates, all_slots, explore, look
from pytest_pilotscope.algorithms.lero.collected import FORMAT, CollectedQuery, CollectionStore, collected, from_json, to_json
from pytest_pilotscope.algorithms.plans.collecting import PlanSessions, Steer, collected_queries, limited, store_path
from pytest_pilotscope.algorithms.plans.signature import signature_of
from pytest_pilotscope.algorithms.plans.timing import TimingRules, time_plans
from pytest_pilotscope.postgres.steering import cardinalities
from pytest_pilotscope.queries.queries import Query

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionRules:
    """The rules of looking for plans and of timing them; they are part of a collection's key."""

    factors: tuple[float, ...]
    max_candidates: int
    timing: TimingRules


def rules_of(training: Training) -> CollectionRules:
    """Return the rules that the user's settings give."""
    options = training.options
    return CollectionRules(factors=options["factors"], max_candidates=options["max_candidates"], timing=limited(TimingRules(), training))


def store_of(training: Training, rules: CollectionRules) -> CollectionStore:
    """Open and read the store of this data, these statistics, this server and these rules."""
    store = CollectionStore(store_path(training, asdict(rules), format_number=FORMAT), to_json, from_json)
    store.read()
    return store


def collect(training: Training, queries: Sequence[Query], store: CollectionStore, rules: CollectionRules) -> list[CollectedQuery]:
    """Return these queries with their timed candidates, in order, see `collected_queries`."""
    return collected_queries(training, queries, store, partial(collect_one, rules=rules))


def collect_one(query: Query, sessions: PlanSessions, *, rules: CollectionRules) -> CollectedQuery:
    """Find the candidates of a query and time them; see `collecting.Collect`."""
    session = sessions.first
    found = look(session, query.sql)
    candidates = explore(session, query.sql, found, all_slots(found.subplans, rules.factors), max_candidates=rules.max_candidates)
    with sessions.prepared(query.sql, steering_of(candidates)) as run:
        outcomes = time_plans(len(candidates.plans), run, rules.timing)
    return collected(query, signature_of(query.sql), candidates, outcomes)


def steering_of(candidates: Candidates) -> list[Steer]:
    """Return the way to each candidate: the cardinalities to inject."""
    return [partial(cardinalities, rows=candidates.cardinalities(plan)) for plan in range(len(candidates.plans))]

"""Candidate plans on a real server."""

from __future__ import annotations

import re

import pytest

from pytest_pilotscope.algorithms.lero.candidates import Candidates, Slot, all_slots, explore, look
from pytest_pilotscope.algorithms.plans.shape import shape_key
from pytest_pilotscope.errors import MissingExtension, StatementFailed
from pytest_pilotscope.postgres.explain import parse_plan
from pytest_pilotscope.postgres.planning import planned_with
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database

from .forum import queries

FACTORS = (0.01, 0.1, 1.0, 10.0, 100.0)
QUERIES = {query.id: query.sql for query in queries("t", 24)}
FOUR = QUERIES["t2"]


def candidates_of(session: Session, sql: str, *, max_candidates: int = 20) -> Candidates:
    """Everything there is to find."""
    found = look(session, sql)
    return explore(session, sql, found, all_slots(found.subplans, FACTORS), max_candidates=max_candidates)


def test_postgresqls_own_plan_is_first_and_no_plan_twice(forum_session: Session) -> None:
    """For every query: the first candidate is what EXPLAIN gives, all shapes differ, and some queries have several."""
    most = 0
    for sql in QUERIES.values():
        found = candidates_of(forum_session, sql)
        hashes = [parse_plan([{"Plan": plan}]).shape_hash for plan in found.plans]
        assert hashes[0] == forum_session.explain(sql).shape_hash
        assert len(set(hashes)) == len(hashes)
        assert found.look.subplans == forum_session.subplans(sql)
        most = max(most, len(hashes))
    assert most >= 4


def test_the_injected_cardinalities_make_postgresql_run_the_candidate(forum_session: Session) -> None:
    """With the cardinalities of a candidate injected, the statement itself is planned as that candidate."""
    found = candidates_of(forum_session, FOUR)
    assert found.cardinalities(0) == {}
    for number, plan in enumerate(found.plans):
        with forum_session.cardinalities(found.cardinalities(number)):
            assert shape_key(planned_with(forum_session, FOUR, found.cardinalities(number))) == shape_key(plan)
            assert forum_session.explain(FOUR).shape_hash == parse_plan([{"Plan": plan}]).shape_hash


def test_shapes_are_those_of_the_shape_hash(forum_session: Session) -> None:
    """The cheap key and the hash of the typed plan agree on every pair of plans of several queries."""
    plans = [
        planned_with(forum_session, sql, slot.cardinalities(subplans))
        for sql in list(QUERIES.values())[:8]
        for subplans in [forum_session.subplans(sql)]
        for slot in all_slots(subplans, FACTORS)
    ]
    keys = [shape_key(plan) for plan in plans]
    hashes = [parse_plan([{"Plan": plan}]).shape_hash for plan in plans]
    assert len(set(keys)) == len(set(hashes)) == len(set(zip(keys, hashes, strict=True)))


def test_every_planner_call_is_recorded(forum_session: Session) -> None:
    """One call for the own plan and the estimates, one for each slot that was tried, each with its time and the plan it led to."""
    found = candidates_of(forum_session, FOUR)
    slots = all_slots(found.look.subplans, FACTORS)
    assert slots[:5] == [Slot(0.01, 4), Slot(0.1, 4), Slot(10.0, 4), Slot(100.0, 4), Slot(0.01, 3)]
    assert len(slots) == 12
    assert {attempt.slot for attempt in found.attempts} <= set(slots)
    assert found.planner_calls == 1 + len(found.attempts)
    assert {attempt.plan for attempt in found.attempts} | {0} == set(range(len(found.plans)))
    assert found.elapsed_ms == pytest.approx(found.look.elapsed_ms + sum(attempt.elapsed_ms for attempt in found.attempts))
    assert all(attempt.elapsed_ms > 0 for attempt in found.attempts)


def test_limits_of_candidates_and_calls(forum_session: Session) -> None:
    """The search ends with so many plans, PostgreSQL's own among them, or after so many calls."""
    assert len(candidates_of(forum_session, FOUR, max_candidates=2).plans) == 2
    assert candidates_of(forum_session, FOUR, max_candidates=1).planner_calls == 1
    found = look(forum_session, FOUR)
    slots = all_slots(found.subplans, FACTORS)
    assert explore(forum_session, FOUR, found, slots, max_candidates=20, max_calls=3).planner_calls == 4


def test_slots_that_change_nothing_cost_no_call(forum_session: Session) -> None:
    """Estimates of one row cannot get smaller, and then 0.01 is the same as 0.1: neither is asked for."""
    sql = "SELECT count(*) FROM posts AS p, votes AS v WHERE p.id = v.postid AND p.id = 1 AND v.id = 3"
    found = look(forum_session, sql)
    assert set(found.subplans.values()) == {1.0}
    slots = [Slot(0.01, 2), Slot(0.1, 2), Slot(10.0, 2), Slot(10.0, 2)]
    assert [attempt.slot for attempt in explore(forum_session, sql, found, slots, max_candidates=20).attempts] == [Slot(10.0, 2)]


def test_a_query_without_joins_has_its_own_plan_only(forum_session: Session) -> None:
    """There is nothing to scale, so the planner is asked once."""
    found = candidates_of(forum_session, "SELECT count(*) FROM users AS u WHERE u.age < 7")
    assert (len(found.plans), found.planner_calls) == (1, 1)


def test_queries_with_subqueries_have_candidates(forum_session: Session) -> None:
    """Levels that are planned on their own are scaled too, and keep apart."""
    sql = (
        "SELECT count(*) FROM users AS u, posts AS p WHERE u.id = p.userid AND p.score > "
        "(SELECT avg(c.score) FROM comments AS c, votes AS v, users AS w WHERE c.postid = v.postid AND c.userid = w.id AND v.kind = 1)"
    )
    found = candidates_of(forum_session, sql)
    assert len(found.plans) >= 2
    for number, plan in enumerate(found.plans):
        with forum_session.cardinalities(found.cardinalities(number)):
            assert forum_session.explain(sql).shape_hash == parse_plan([{"Plan": plan}]).shape_hash


def test_the_session_is_left_as_it_was(forum_session: Session) -> None:
    """Neither the enumeration nor any cardinality stays, also when the statement fails."""
    own = parse_plan([{"Plan": look(forum_session, FOUR).plan}]).shape_hash
    candidates_of(forum_session, FOUR)
    with pytest.raises(StatementFailed, match=r'^statement failed: relation "nowhere" does not exist \[42P01\]: SET LOCAL .*nowhere$'):
        look(forum_session, "SELECT 1 FROM nowhere")
    assert forum_session.scalar("SHOW pilotscope.enumerate") == "off"
    assert forum_session.scalar("SHOW pilotscope.cardinalities") == ""
    assert forum_session.explain(FOUR).shape_hash == own
    assert forum_session.take_notices() == []


def test_percent_signs_and_quotes_are_just_characters(forum_session: Session) -> None:
    """A LIKE pattern and a quoted alias go through as they are."""
    sql = """
        SELECT count(*) FROM users AS "it's", posts AS p, comments AS c
        WHERE "it's".id = p.userid AND p.id = c.postid AND c.score = 3 AND 'a%s' LIKE 'a%'
    """
    assert len(candidates_of(forum_session, sql).plans) >= 2


def test_without_the_library_it_says_what_is_missing(newest_scratch: Session) -> None:
    """Candidates need injection, for which there is no substitute."""
    text = (
        f"{newest_scratch.dsn} cannot be steered: the pilotscope library is not loaded, and lero chooses plans by injecting cardinalities; "
        "use the embedded server (--server embedded), or load the library (see docs/steering.md)"
    )
    with pytest.raises(MissingExtension, match=f"^{re.escape(text)}$"):
        look(newest_scratch, "SELECT 1")


def test_planner_calls_are_one_message_each(forum: Database, forum_session: Session) -> None:
    """Cardinalities of an outer block hold again after a call with others."""
    with forum_session.cardinalities({frozenset({"p", "v"}): 77.0}):
        planned_with(forum_session, QUERIES["t3"], {frozenset({"p", "v"}): 3.0})
        assert forum_session.subplans(QUERIES["t3"])[frozenset({"p", "v"})] == 77.0

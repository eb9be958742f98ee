"""Collecting on a real server: what is timed, what is kept, and that a killed collection goes on where it was."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pilotscope.algorithms.lero.candidates import all_slots, explore, look
from pytest_pilotscope.algorithms.lero.collection import CollectionRules, collect, collect_one, rules_of, steering_of, store_of
from pytest_pilotscope.algorithms.plans.collecting import PlanSessions
from pytest_pilotscope.algorithms.plans.timed import sql_key
from pytest_pilotscope.algorithms.plans.timing import TimingRules
from pytest_pilotscope.options.progress import Advance
from pytest_pilotscope.postgres.explain import parse_plan
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database
from pytest_pilotscope.queries.queries import Query

from .forum import queries, training

RULES = CollectionRules(factors=(0.01, 0.1, 10.0, 100.0), max_candidates=20, timing=TimingRules(rounds=2))
FOUR = queries("t", 24)[2]


@pytest.fixture
def own_cache(cache: Path, forum: Database) -> Path:
    """An empty cache for collections; the server is there already."""
    return cache


def test_every_candidate_is_timed(forum: Database) -> None:
    """PostgreSQL's own plan is the first; each plan has times or the limit that cut it off, and the best one was run in every round."""
    with closing(PlanSessions(forum)) as sessions:
        found = collect_one(FOUR, sessions, rules=RULES)
        again = collect_one(queries("t", 24)[0], sessions, rules=RULES)
    assert found.slots[0] is None
    assert len(found.plans) == len(found.slots) == len(found.outcomes) >= 3
    assert all((outcome.ms is None) != (outcome.censored_ms is None) for outcome in found.outcomes)
    assert max(len(outcome.times_ms) for outcome in found.outcomes) == 2
    assert found.best_ms is not None
    assert found.best_ms <= found.own.at_least_ms
    assert found.largest == 4
    assert found.signature == "c.postid=p.id p.id=v.postid p.userid=u.id"
    assert again.query_id == "t0"


def test_a_session_runs_its_candidate(forum: Database, forum_session: Session) -> None:
    """The plan that a session executes has the shape of the candidate; it is planned once, and the sessions are clean afterwards."""
    found = look(forum_session, FOUR.sql)
    candidates = explore(forum_session, FOUR.sql, found, all_slots(found.subplans, RULES.factors), max_candidates=20)
    with closing(PlanSessions(forum)) as opened:
        with opened.prepared(FOUR.sql, steering_of(candidates)) as run:
            for plan, session in enumerate(run.sessions):
                wanted = parse_plan([{"Plan": candidates.plans[plan]}]).shape_hash
                assert session.explain("EXECUTE pilotscope_candidate").shape_hash == wanted
                assert session.timed("EXECUTE pilotscope_candidate").planning_ms == 0
                assert run(plan, 10_000) is not None
            sessions = run.sessions
        for session in sessions:
            assert session.execute("SELECT name FROM pg_prepared_statements") == []
            assert session.scalar("SHOW pilotscope.cardinalities") == ""
    assert all(session.closed for session in sessions)


def test_a_run_that_takes_too_long_is_cut_off(forum: Database, forum_session: Session) -> None:
    """The limit is PostgreSQL's statement timeout, and the session can be used afterwards."""
    found = look(forum_session, slow := "SELECT count(*) FROM comments AS c, votes AS v WHERE c.id + v.id < 0")
    candidates = explore(forum_session, slow, found, [], max_candidates=1)
    with closing(PlanSessions(forum)) as sessions:
        with sessions.prepared(slow, steering_of(candidates)) as run:
            assert run(0, 5) is None
        with sessions.prepared("SELECT count(*) FROM users", steering_of(candidates)) as run:
            assert (run(0, 10_000) or 0) > 0


def test_collected_queries_are_not_run_again(forum: Database, forum_session: Session, own_cache: Path, tmp_path: Path) -> None:
    """The second time everything is in the store; only what is missing is run, and `--no-collection` runs nothing."""
    given = training(forum, forum_session, tmp_path)
    some = queries("t", 24)[:3]
    assert collect(replace(given, settings=replace(given.settings, collection=False)), some, store_of(given, RULES), RULES) == []
    first = collect(given, some[:2], store_of(given, RULES), RULES)
    steps: list[int] = []

    @contextmanager
    def counting(description: str, total: int) -> Iterator[Advance]:
        steps.append(total)
        yield steps.append

    given.progress = counting
    again = collect(given, [*some, some[0]], store_of(given, RULES), RULES)
    assert steps == [1, 1]
    assert again[:2] == first
    assert [found.query_id for found in again] == ["t0", "t1", "t2", "t0"]
    (path,) = own_cache.rglob("*.jsonl")
    assert path.parent.parent == own_cache / "lero"
    assert path.parent.name == given.data_fingerprint.replace("~", "estimated-")


def test_other_rules_are_another_collection(forum: Database, forum_session: Session, own_cache: Path, tmp_path: Path) -> None:
    """Other factors find other plans, another limit and other settings of a session other times: none is taken for the usual ones."""
    given = training(forum, forum_session, tmp_path)
    usual = store_of(given, rules_of(given)).path
    other = training(forum, forum_session, tmp_path, options={"factors": (0.5, 2.0)})
    limited = training(forum, forum_session, tmp_path, query_timeout_ms=100.0)
    assert rules_of(limited).timing.last_limit_ms == 100
    parallel = training(replace(forum, session_settings={"max_parallel_workers_per_gather": "2"}), forum_session, tmp_path)
    jit = training(replace(forum, session_settings={"jit": "on"}), forum_session, tmp_path)
    assert len({store_of(given, rules_of(given)).path for given in (given, other, limited, parallel, jit)}) == 5
    assert store_of(training(forum, forum_session, tmp_path), rules_of(given)).path == usual


def test_a_query_that_postgresql_refuses_is_left_out(
    forum: Database, forum_session: Session, own_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named in a warning, and the others are collected; one that would change the data is refused as well."""
    given = training(forum, forum_session, tmp_path)
    some = [Query(id="bad", sql="SELECT nothing FROM nowhere"), queries("t", 24)[3], Query(id="writes", sql="DELETE FROM votes")]
    with caplog.at_level(logging.WARNING):
        found = collect(given, some, store_of(given, RULES), RULES)
    assert [each.query_id for each in found] == ["t3"]
    assert 'lero does not learn from query bad: statement failed: relation "nowhere" does not exist' in caplog.text
    assert "lero does not learn from query writes: statement failed: cannot execute DELETE in a read-only transaction" in caplog.text
    assert forum_session.scalar("SELECT count(*) FROM votes") == 12_000


_COLLECTOR = """
import sys
from contextlib import contextmanager
from pathlib import Path
from pytest_pilotscope.algorithms.lero.collection import collect, rules_of, store_of
from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database
from tests.algorithms.forum import Forum, queries, training

@contextmanager
def told(description, total):
    yield lambda steps: print("collected", flush=True)

with open_database(PostgreSQLConfig("forum", server="embedded"), Forum()) as database, database.session() as session:
    given = training(database, session, Path(sys.argv[1]))
    given.progress = told
    rules = rules_of(given)
    collect(given, queries("t", 12), store_of(given, rules), rules)
"""


@pytest.mark.slow
def test_a_killed_collection_goes_on_where_it_was(forum: Database, forum_session: Session, own_cache: Path, tmp_path: Path) -> None:
    """`kill -9` in the middle: what was on disk stays as it is, the rest is collected, and nothing twice."""
    command = [sys.executable, "-c", _COLLECTOR, str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGKILL)
        assert lines == ["collected\n"] * 3, "".join(lines) + process.stdout.read()
    wanted = queries("t", 12)
    given = training(forum, forum_session, tmp_path)
    rules = rules_of(given)
    store = store_of(given, rules)
    kept = [line for line in store.path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert 3 <= len(kept) < 12
    found = collect(given, wanted, store, rules)
    assert [each.query_id for each in found] == [query.id for query in wanted]
    after = store.path.read_bytes().splitlines(keepends=True)
    assert after[: len(kept)] == kept
    whole = [json.loads(line)["sql_key"] for line in after if line.endswith(b"}\n")]
    assert sorted(whole) == sorted(sql_key(query.sql) for query in wanted)

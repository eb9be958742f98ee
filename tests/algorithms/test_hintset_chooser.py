"""`--algo hintset` from running training queries on a real server to chosen arms, and back from disk."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_pilotscope.algorithms.hintset.arms import OWN, arms_of
from pytest_pilotscope.algorithms.hintset.chooser import Hintset
from pytest_pilotscope.algorithms.hintset.collected import Budget, collect, collect_one, plan_arms, rules_of, store_of
from pytest_pilotscope.algorithms.hintset.matrix import NEVER_RUN
from pytest_pilotscope.algorithms.hintset.policy import KnownArm, best_known
from pytest_pilotscope.algorithms.lero.chooser import Lero
from pytest_pilotscope.algorithms.plans.collecting import PlanSessions
from pytest_pilotscope.algorithms.plans.savings import Skipping
from pytest_pilotscope.algorithms.plans.shape import shape_key
from pytest_pilotscope.algorithms.plans.timed import sql_key
from pytest_pilotscope.errors import AlgorithmError, ModelError, UsageError
from pytest_pilotscope.learning.decision import Decision
from pytest_pilotscope.measurement.sides import side_of
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.steering import has_extension
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import TrainingReport
from tests.projects import measure, record_lines

from .forum import Forum, queries, training

TEST = queries("q", 8)
FOUR = queries("t", 24)[2]
ARMS = "enable_nestloop=off; enable_hashjoin=off,enable_mergejoin=off; enable_seqscan=off"
OPTIONS = {"arms": ARMS, "networks": 2}


@pytest.fixture(scope="module")
def cached(forum: Database) -> Iterator[Path]:
    """A cache of timed plans for all tests here; the server is there already."""
    with tempfile.TemporaryDirectory(prefix="pilotscope-test-") as folder, pytest.MonkeyPatch.context() as patch:
        Path(folder).chmod(0o755)
        patch.setenv("PILOTSCOPE_CACHE", folder)
        yield Path(folder)


@pytest.fixture(scope="module")
def session(forum: Database) -> Iterator[Session]:
    """A session in the forum."""
    with forum.session() as opened:
        yield opened


@pytest.fixture(scope="module")
def trained(forum: Database, session: Session, cached: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Hintset, TrainingReport]:
    """A trained hintset and its report."""
    found = Hintset()
    given = training(forum, session, tmp_path_factory.mktemp("hintset"), algorithm="hintset", options=OPTIONS)
    return found, found.train(given)


@pytest.fixture
def eager(trained: tuple[Hintset, TrainingReport]) -> Hintset:
    """A hintset that plans all arms of every unknown query, and takes an arm for the smallest predicted gain."""
    hintset, _ = trained
    assert hintset.model is not None
    found = Hintset()
    policy = replace(hintset.model.policy, arms=(1, 2, 3), least_ms=0.0, gain=0.0, skipping=Skipping())
    found.model, found._metadata, found.model_id = replace(hintset.model, policy=policy), hintset._metadata, hintset.model_id
    return found


def test_training_reports_what_others_read(trained: tuple[Hintset, TrainingReport]) -> None:
    """The fixed names are there, the figures add up, and every distinct plan of every query ran."""
    hintset, report = trained
    assert re.fullmatch(r"hintset_\d{8}_\d{6}", hintset.model_id)
    assert set(report.metrics) == {"train_loss", "validation_loss", "validation_within_2"}
    assert {len(values) for values in report.metrics.values()} == {5}
    assert report.parameters["model_id"] == hintset.model_id
    assert report.parameters["hintset_arms"] == ARMS
    assert report.scalars["num_training_queries"] == 24
    assert report.scalars["num_planner_calls"] == 24 * 4
    assert report.scalars["num_executed_plans"] == report.scalars["num_distinct_plans"] >= 48
    assert {"best_validation_loss", "validation_speedup", "validation_own_regret", "training_time_seconds"} <= set(report.scalars)


def test_the_plans_of_the_arms_are_timed_under_their_settings(forum: Database, session: Session, cached: Path, tmp_path: Path) -> None:
    """PostgreSQL's own plan is first and has a time; the others have a time or a limit of 1.5 times the best; the sessions are clean."""
    rules = rules_of(training(forum, session, tmp_path, algorithm="hintset", options=OPTIONS))
    sessions = PlanSessions(forum)
    try:
        found = collect_one(FOUR, sessions, rules=rules)
        assert sessions.first.scalar("SHOW enable_nestloop") == "on"
        assert sessions.first.scalar("SELECT count(*) FROM pg_prepared_statements") == 0
    finally:
        sessions.close()
    assert found.arms[0] == 0
    assert found.own.ms is not None
    assert NEVER_RUN not in found.outcomes
    best = min(min(filter(None, (*outcome.times_ms, outcome.warm_up_ms)), default=1e9) for outcome in found.outcomes)
    assert all(outcome.censored_ms is None or outcome.censored_ms >= 1.5 * best * 0.999 for outcome in found.outcomes)
    for arm, settings in enumerate(rules.arms):
        with session.planner_settings(settings):
            plan = session.scalar(f"EXPLAIN (FORMAT JSON) {FOUR.sql}")[0]["Plan"]
        assert shape_key(plan) == shape_key(found.plans[found.arms[arm]])


def test_arms_share_a_plan_unless_it_runs_otherwise(session: Session) -> None:
    """Disabling what a plan does not use changes nothing; more memory may, whatever the shape of the plan."""
    query = Query(id="one", sql="SELECT count(*) FROM votes")
    arms = arms_of("enable_nestloop=off; work_mem=64MB; enable_hashjoin=off,work_mem=64MB; enable_sort=off")
    assert plan_arms(query, session, arms).arms == (0, 0, 1, 1, 0)


def test_a_statement_of_the_training_gets_its_best_known_arm(trained: tuple[Hintset, TrainingReport], session: Session) -> None:
    """The decision is one of executions, whatever a network would predict, and the time that it had is in the facts."""
    hintset, _ = trained
    assert hintset.model is not None
    known = dict(hintset.model.policy.known)
    assert set(known) == {sql_key(query.sql) for query in queries("t", 24)}
    found = Hintset()
    policy = replace(hintset.model.policy, known={**known, sql_key(FOUR.sql): KnownArm(arm=2, ms=7.5)})
    found.model, found._metadata = replace(hintset.model, policy=policy), hintset._metadata
    assert found.decide(FOUR, session) == Decision(settings={"enable_hashjoin": "off", "enable_mergejoin": "off"})
    facts = found.explain(FOUR)
    assert facts.pop("choosing_ms") is not None
    assert facts == {
        "arm": "enable_hashjoin=off,enable_mergejoin=off",
        "chosen_by": "executions",
        "predicted_ms": 7.5,
        "own_predicted_ms": None,
        "planner_calls": 0,
    }


def test_an_unknown_statement_gets_the_arm_with_the_best_prediction(eager: Hintset, session: Session) -> None:
    """The arm's plan has the smallest predicted time of all, and the facts have that time and the one of PostgreSQL's own plan."""
    assert eager.model is not None
    arms = eager.model.arms
    chosen = set()
    for query in TEST:
        decision, facts = eager.decide(query, session), eager.explain(query)
        planned = plan_arms(query, session, arms)
        logs = eager.model.ensemble.logs(planned.plans)
        assert logs[planned.arms[arms.index(decision.settings)]] == pytest.approx(logs.min(), rel=1e-5)
        assert (facts["chosen_by"], facts["planner_calls"]) == ("network", 4)
        assert isinstance(facts["predicted_ms"], float)
        assert isinstance(facts["own_predicted_ms"], float)
        assert facts["predicted_ms"] <= facts["own_predicted_ms"]
        assert (facts["arm"] == OWN) is (decision == Decision())
        chosen.add(facts["arm"])
    assert session.scalar("SHOW enable_nestloop") == "on"
    assert chosen != {OWN}


@pytest.mark.parametrize(
    ("change", "chosen_by", "calls"),
    [
        ({"arms": ()}, "joins", 0),
        ({"skipping": Skipping(skip_unknown=True)}, "joins", 0),
        ({"least_ms": 1e9}, "network", 1),
        ({"gain": 1e9}, "network", 4),
    ],
)
def test_a_query_that_does_not_pay_is_left_as_it_is(
    eager: Hintset, session: Session, change: dict[str, Any], chosen_by: str, calls: int
) -> None:
    """PostgreSQL's own plan is a decision; the policy says how many planner calls it took."""
    assert eager.model is not None
    eager.model = replace(eager.model, policy=replace(eager.model.policy, **change))
    assert eager.decide(TEST[0], session) == Decision()
    facts = eager.explain(TEST[0])
    assert (facts["arm"], facts["chosen_by"], facts["planner_calls"]) == (OWN, chosen_by, calls)


def test_a_decision_is_applied_and_put_back(eager: Hintset, session: Session) -> None:
    """Within the block of a side the session has the settings of the arm; after it PostgreSQL's own."""
    assert eager.model is not None
    eager.model = replace(eager.model, policy=replace(eager.model.policy, known={sql_key(FOUR.sql): KnownArm(arm=1, ms=1.0)}))
    with side_of("hintset", eager, session).steered(FOUR) as steering:
        assert steering.decision == Decision(settings={"enable_nestloop": "off"})
        assert session.scalar("SHOW enable_nestloop") == "off"
        assert steering.facts["arm"] == "enable_nestloop=off"
    assert session.scalar("SHOW enable_nestloop") == "on"


def test_timed_plans_are_not_run_again(
    forum: Database, session: Session, cached: Path, trained: tuple[Hintset, TrainingReport], tmp_path: Path
) -> None:
    """A second training finds them in the cache and makes the same model, also with `--no-collection`; other arms are others."""
    (first, _), again = trained, Hintset()
    given = training(forum, session, tmp_path, algorithm="hintset", options=OPTIONS, collection=False)
    again.train(given)
    assert first.model is not None
    assert again.model is not None
    assert again.model.policy == first.model.policy
    plans = plan_arms(TEST[0], session, arms_of(ARMS)).plans
    assert again.model.ensemble.logs(plans).tolist() == first.model.ensemble.logs(plans).tolist()
    other = training(forum, session, tmp_path, algorithm="hintset", options={"arms": "enable_sort=off"}, collection=False)
    path = store_of(other, rules_of(other)).path
    text = (
        f"hintset has nothing to learn from: --no-collection was given, and {path} has none of 24 training queries for this data, server, "
        "limit and these arms; run once without --no-collection"
    )
    with pytest.raises(AlgorithmError, match=f"^{re.escape(text)}$"):
        Hintset().train(other)


@pytest.mark.parametrize("algorithm", [Hintset, Lero])
def test_a_missing_device_is_named_before_anything_is_collected(
    algorithm: type[Hintset] | type[Lero],
    forum: Database,
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Collecting takes minutes, and a typo in `--device` would void them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PILOTSCOPE_CACHE", str(tmp_path / "cache"))
    given = training(forum, session, tmp_path, algorithm=algorithm.name, device="cuda")
    text = "--device cuda was asked for, but this installation of PyTorch finds no CUDA device; use --device cpu or auto"
    with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
        algorithm().train(given)
    assert not (tmp_path / "cache").exists()


def test_the_number_of_training_queries_is_bounded(forum: Database, session: Session, cached: Path, tmp_path: Path) -> None:
    """`--hintset-queries` limits what is run; without training queries there is nothing to learn from."""
    given = training(forum, session, tmp_path, algorithm="hintset", options={**OPTIONS, "queries": 5}, epochs=1)
    assert Hintset().train(given).scalars["num_training_queries"] == 5
    given.queries = ()
    text = "hintset has no training queries; raise --training-size or give a workload that has some"
    with pytest.raises(AlgorithmError, match=f"^{re.escape(text)}$"):
        Hintset().train(given)
    with pytest.raises(ModelError, match=r"^hintset has no model yet; train it, or load one$"):
        Hintset().decide(FOUR, session)


def test_the_offline_form_runs_some_plans_only(
    forum: Database, session: Session, cached: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """PostgreSQL's own plan of every query has a time; with a small budget most others never ran. A refused query is named."""
    given = training(forum, session, tmp_path, algorithm="hintset", options={"arms": "all", "offline": True, "budget": 0.3})
    rules = rules_of(given)
    some = [*queries("t", 12), Query(id="bad", sql="SELECT nothing FROM nowhere"), Query(id="writes", sql="DELETE FROM votes")]
    with caplog.at_level(logging.WARNING):
        found = collect(given, some, store_of(given, rules), rules)
    assert [query.query_id for query in found] == [query.id for query in some[:12]]
    assert all(query.own.ms is not None for query in found)
    never = sum(outcome == NEVER_RUN for query in found for outcome in query.outcomes)
    assert 0 < never < sum(len(query.plans) - 1 for query in found)
    assert 'hintset does not learn from query bad: statement failed: relation "nowhere" does not exist' in caplog.text
    assert "hintset does not learn from query writes: statement failed: cannot execute DELETE in a read-only transaction" in caplog.text
    assert collect(given, some[:12], store_of(given, rules), rules) == found
    more = training(forum, session, tmp_path, algorithm="hintset", options={"arms": "all", "offline": True, "budget": 0.6})
    assert store_of(more, rules_of(more)).path != store_of(given, rules).path


def test_a_budget_is_that_of_the_offline_form(forum: Database, session: Session, tmp_path: Path) -> None:
    """It is 2 unless given, and is refused without the form that has one."""
    given = training(forum, session, tmp_path, algorithm="hintset", options={"offline": True})
    assert rules_of(given).offline == Budget(multiple=2.0, seed=0)
    text = "--hintset-budget limits what --hintset-offline runs; add that option, or leave the budget out"
    with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
        Hintset().train(training(forum, session, tmp_path, algorithm="hintset", options={"budget": 3.0}))


def test_an_arm_under_which_a_query_fails_counts_as_cut_off(
    forum: Database, session: Session, cached: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A plan may fail where PostgreSQL's own does not: the offline form names it and goes on, the other form leaves the query out."""
    by_arm = "1 / CASE current_setting('enable_hashjoin') WHEN 'off' THEN 0 ELSE 1 END"
    query = Query(id="fails", sql=f"SELECT count(*) FROM users AS u JOIN posts AS p ON p.userid = u.id HAVING {by_arm} = 1")
    options = {"arms": "enable_hashjoin=off", "offline": True, "budget": 1000.0}
    given = training(forum, session, tmp_path, algorithm="hintset", options=options)
    rules = rules_of(given)
    with caplog.at_level(logging.WARNING):
        (found,) = collect(given, [query], store_of(given, rules), rules)
    assert found.own.ms is not None
    assert (found.outcomes[1].ms, best_known(found).arm) == (None, 0)
    assert "query fails fails under enable_hashjoin=off, which counts as cut off: statement failed: division by zero" in caplog.text
    every = replace(rules, offline=None)
    assert collect(given, [query], store_of(given, every), every) == []
    assert "hintset does not learn from query fails: statement failed: division by zero" in caplog.text


@pytest.mark.slow
def test_it_needs_no_library(cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server without the pilotscope library it learns from the client's times, and decides."""
    monkeypatch.setattr("pytest_pilotscope.provision.database.steering_libraries", lambda bindir: ())
    with open_database(PostgreSQLConfig("forum", server="embedded"), Forum()) as database, database.session() as session:
        assert not has_extension(session)
        given = training(database, session, tmp_path, algorithm="hintset", options={**OPTIONS, "queries": 6}, epochs=1)
        hintset = Hintset()
        assert hintset.train(given).scalars["num_executed_plans"] >= 6
        with side_of("hintset", hintset, session).steered(queries("t", 24)[0]) as steering:
            assert steering.facts["chosen_by"] == "executions"
            assert isinstance(steering.facts["predicted_ms"], float)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--hintset-offline",)])
def test_a_run(pytester: pytest.Pytester, more: tuple[str, ...]) -> None:
    """`pytest benchmarks --algo hintset` measures every query, decides on each, and loads the model that it saved."""
    few = ("--algo", "hintset", "--limit", "6", "--training-size", "12", "--epochs", "3", "--no-mlflow")
    measure(pytester, *few, *more).assert_outcomes(passed=1)
    lines = record_lines(pytester.path)
    (report,) = [line for line in lines if line["kind"] == "training"]
    assert report["scalars"]["num_training_queries"] == 12
    decisions = [line for line in lines if line["kind"] == "query_decision"]
    assert len(decisions) == 6
    assert all({"arm", "chosen_by", "predicted_ms"} <= set(line["facts"]) for line in decisions)
    (folder,) = (pytester.path / "results").glob("*/model")
    measure(pytester, *few, "--results", "again", "--load-model", str(folder.parent)).assert_outcomes(passed=1)


def test_on_the_way_an_arm_is_tried_compared_and_kept_or_left(eager: Hintset, session: Session) -> None:
    """The chosen arm runs first, PostgreSQL's own plan when the statement comes again, and then what was faster, without a planner call."""
    query = next(query for query in TEST if eager.decide(query, session) != Decision())
    chosen = eager.decide(query, session)
    eager.observe(query, chosen, 30.0)
    assert eager.decide(query, session) == Decision()
    assert eager.explain(query)["chosen_by"] == "comparison"
    eager.observe(query, Decision(), 20.0)
    assert eager.decide(query, session) == Decision()
    facts = eager.explain(query)
    assert (facts["chosen_by"], facts["predicted_ms"], facts["own_predicted_ms"], facts["planner_calls"]) == ("executions", 20.0, 20.0, 0)
    eager.observe(query, Decision(), 40.0)  # the data have changed
    assert eager.decide(query, session) == chosen
    assert eager.explain(query)["predicted_ms"] == 30.0


def test_on_the_way_the_networks_learn_from_executions(
    forum: Database, session: Session, cached: Path, trained: tuple[Hintset, TrainingReport], tmp_path: Path
) -> None:
    """After every N executions they are trained again, with the plans that ran; the policy knows a statement when two of them ran."""
    found = Hintset()
    found.train(training(forum, session, tmp_path, algorithm="hintset", options=OPTIONS, update_every=3))
    assert found.model is not None
    first, arms = found.model, found.model.arms
    found.observe(TEST[0], Decision(settings=arms[1]), 5.0)
    found.observe(TEST[1], Decision(), 5.0)
    assert found.model is first
    found.observe(TEST[0], Decision(), 7.0)
    assert found.model is not first
    known = found.model.policy.known
    assert known.keys() - first.policy.known.keys() <= {sql_key(TEST[0].sql)}
    assert sql_key(TEST[1].sql) not in known
    assert session.scalar("SHOW enable_nestloop") == "on"

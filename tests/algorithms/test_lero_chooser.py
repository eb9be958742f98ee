"""`--algo lero` from collecting on a real server to chosen plans, and back from disk."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import pytest
import torch

from pytest_pilotscope.algorithms.lero import trainer
from pytest_pilotscope.algorithms.lero.candidates import Candidates, Look, Slot
from pytest_pilotscope.algorithms.lero.choice import Choice, choose
from pytest_pilotscope.algorithms.lero.chooser import Lero, validation_queries
from pytest_pilotscope.algorithms.lero.collection import rules_of, store_of
from pytest_pilotscope.algorithms.lero.policy import Policy
from pytest_pilotscope.algorithms.lero.scoring import TrainedModel
from pytest_pilotscope.algorithms.plans.timed import sql_key
from pytest_pilotscope.errors import AlgorithmError, MissingExtension, ModelError, StatementFailed, UsageError
from pytest_pilotscope.learning.decision import Decision
from pytest_pilotscope.measurement import clocks, supervision
from pytest_pilotscope.measurement.clocks import clock_of
from pytest_pilotscope.measurement.protocol import Line, QueryMeasurement
from pytest_pilotscope.measurement.sides import DeciderSide, PlainSide, side_of
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.steering import verify
from pytest_pilotscope.postgres.subplans import LeveledSubplan, key_text
from pytest_pilotscope.provision import pool as cluster
from pytest_pilotscope.provision.database import Database
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import QueryReport, TrainingReport
from pytest_pilotscope.runs.learn import learn

from .forum import queries, training
from .lero_example import random_plans

TEST = queries("q", 8)
ALL = {"effort": "all", "margin": 0}


@pytest.fixture(scope="module")
def cached(forum: Database) -> Iterator[Path]:
    """A cache of collections for all tests here; the server is there already."""
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
def trained(forum: Database, session: Session, cached: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lero, TrainingReport, Path]:
    """Lero that tries everything and follows every score, its report, and the folder of its artifacts."""
    folder = tmp_path_factory.mktemp("lero") / "artifacts"
    found = Lero()
    return found, found.train(training(forum, session, folder, options=ALL)), folder


@pytest.fixture
def contrary(trained: tuple[Lero, TrainingReport, Path], forum: Database, session: Session, tmp_path: Path) -> Lero:
    """A model that takes what the trained one ranks last, so that other plans than PostgreSQL's own are taken."""
    lero, _, _ = trained
    lero.save(tmp_path / "contrary")
    found = Lero()
    found.load(tmp_path / "contrary", training(forum, session, tmp_path))
    assert found.model is not None
    for parameter in found.model.network.output.parameters():
        parameter.data.neg_()
    return found


def test_training_reports_what_others_read(trained: tuple[Lero, TrainingReport, Path]) -> None:
    """The fixed names are there, with a value per epoch where there should be one."""
    lero, report, _ = trained
    assert re.fullmatch(r"lero_pair_\d{8}_\d{6}", lero.model_id)
    assert set(report.metrics) == {"train_loss", "validation_loss", "validation_pair_accuracy"}
    assert {len(values) for values in report.metrics.values()} == {5}
    assert all(0 <= accuracy <= 1 for accuracy in report.metrics["validation_pair_accuracy"])
    assert report.parameters["model_id"] == lero.model_id
    assert (report.parameters["batch_size"], report.parameters["lero_factors"]) == (64, "0.01,0.1,1,10,100")
    numbers = report.scalars
    assert numbers["training_time_seconds"] > 0
    assert numbers["num_training_pairs"] > 24
    assert numbers["num_collected_queries"] == 32
    assert numbers["num_planner_calls"] > numbers["num_distinct_plans"] > 64
    assert {"validation_top1_accuracy", "validation_regret", "validation_regressions", "training_regret"} <= set(numbers)
    assert report.duration_s >= numbers["training_time_seconds"]


def test_gpus_that_are_not_used_change_nothing(
    forum: Database, session: Session, cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU the batches, and so the weights, are the same on a machine with GPUs; on these they are larger."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: nullcontext())
    report = Lero().train(training(forum, session, tmp_path, device="cpu", options=ALL))
    assert (report.parameters["device"], report.parameters["batch_size"]) == ("cpu", 64)
    assert trainer._batch_size(torch.device("cuda")) == 256


def test_choices_are_explained(trained: tuple[Lero, TrainingReport, Path]) -> None:
    """There is a line for every validation query: candidates with scores and times, the choice, its true rank, its regret."""
    _, report, folder = trained
    assert str(folder / "lero_validation.jsonl") in report.artifacts
    lines = [json.loads(line) for line in (folder / "lero_validation.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["query"] for line in lines] == [query.id for query in queries("v", 8)]
    for line in lines:
        assert 1 <= line["rank"] <= len(line["candidates"])
        assert line["regret_ms"] >= 0
        assert (line["difference"] == []) == (line["chosen"] == 0)


def test_the_chosen_plan_is_the_one_with_the_best_score(contrary: Lero, session: Session) -> None:
    """The injected cardinalities make PostgreSQL choose exactly the plan with the best score, and some of these are not its own."""
    assert contrary.model is not None
    chosen = []
    for query in TEST:
        decision = choose(contrary.model, session, query.sql)
        assert contrary.decide(query, session) == Decision(rows=decision.cardinalities)
        assert decision.candidates is not None
        if decision.scores:
            assert decision.plan == int(np.argmin(decision.scores))
        with session.cardinalities(decision.cardinalities):
            plan = session.explain(query.sql)
        assert verify(plan, decision.cardinalities, only_injected=True).steered_ratio == 1
        chosen.append(decision.plan)
        assert (plan.shape_hash == session.explain(query.sql).shape_hash) == (decision.plan == 0)
    assert any(chosen)


def test_the_side_of_a_measurement_runs_the_chosen_plan(contrary: Lero, session: Session) -> None:
    """Inside the block PostgreSQL plans the chosen plan, and after it its own again; choosing is inference time."""
    side = side_of("lero", contrary, session)
    assert isinstance(side, DeciderSide)
    for query in TEST:
        own = session.explain(query.sql).shape_hash
        with side.steered(query) as steering:
            assert steering.inference_ms > 0
            assert (steering.facts["chosen"] == 0) == (steering.decision == Decision())
            assert steering.facts["margin"] == 0
            assert (session.explain(query.sql).shape_hash == own) == (steering.decision == Decision())
        assert session.explain(query.sql).shape_hash == own


def test_scaled_cardinalities_are_nobodys_estimates(contrary: Lero, session: Session) -> None:
    """They are a means to get a plan: a chooser has no q-error, but its plans have a p-error, beside the baseline's."""
    written: list[Line] = []
    sides = [PlainSide(name="baseline", session=session), side_of("lero", contrary, session)]
    truth = {subplan: round(rows) for subplan, rows in session.subplans(TEST[2].sql).items()}
    QueryMeasurement(query=TEST[2], sides=sides, timeout_ms=None, write=written.append, clock=clock_of(session), truth=truth).run(1)
    baseline, lero = (entry for entry in written if isinstance(entry, QueryReport))
    assert baseline.estimates
    assert lero.estimates is None
    assert lero.p_error is not None
    assert lero.p_error >= 1


def test_every_first_choice_is_noted(session: Session, contrary: Lero, trained: tuple[Lero, TrainingReport, Path], tmp_path: Path) -> None:
    """With its slot, its scores, the planner calls it took and the difference between the plans; asking again adds nothing."""
    _, report, folder = trained
    assert str(folder / "lero_choices.jsonl") in report.artifacts
    asked(contrary, session, (*TEST, *TEST))
    lines = [json.loads(line) for line in (tmp_path / "lero_choices.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["query"] for line in lines] == [query.id for query in TEST]
    taken = [line for line in lines if line["chosen"]]
    assert taken
    for line in taken:
        assert line["factor"] in (0.01, 0.1, 10, 100)
        assert 2 <= line["size"] <= 4
        assert len(line["scores"]) == line["distinct_plans"] > 1
        assert line["planner_calls"] >= line["distinct_plans"]
        assert any(text.startswith("+") for text in line["difference"])


def test_a_loaded_model_chooses_the_same(
    forum: Database, session: Session, trained: tuple[Lero, TrainingReport, Path], tmp_path: Path
) -> None:
    """Weights, features and policy come back from disk."""
    lero, _, _ = trained
    lero.save(tmp_path / "saved")
    loaded = Lero()
    loaded.load(tmp_path / "saved", training(forum, session, tmp_path / "run"))
    assert loaded.model_id == lero.model_id
    assert loaded.model is not None
    assert lero.model is not None
    assert loaded.model.policy == lero.model.policy
    assert [loaded.decide(query, session) for query in TEST] == [lero.decide(query, session) for query in TEST]


def test_a_model_of_other_data_is_refused(
    forum: Database, session: Session, trained: tuple[Lero, TrainingReport, Path], tmp_path: Path
) -> None:
    """Both fingerprints are in the message."""
    lero, _, _ = trained
    lero.save(tmp_path / "saved")
    (path,) = (tmp_path / "saved" / "metadata").iterdir()
    about = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**about, "data_fingerprint": "other"}), encoding="utf-8")
    text = (
        f"model {lero.model_id} was trained on other data: its fingerprint is other, that of this database is {forum.fingerprint.data}; "
        "use the dataset it was trained on, or train again"
    )
    with pytest.raises(ModelError, match=f"^{re.escape(text)}$"):
        Lero().load(tmp_path / "saved", training(forum, session, tmp_path / "run"))


@pytest.fixture
def served(contrary: Lero, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """The contrary model, saved and served."""
    contrary.save(tmp_path / "served")
    monkeypatch.setenv("PILOTSCOPE_DSN", str(session.dsn))
    return Lero.decider(tmp_path / "served")


def test_a_served_model_says_what_it_chooses_and_why(contrary: Lero, session: Session, served: Callable[[str], dict[str, Any]]) -> None:
    """SQL in; the plan, its slot, the scores, the margin and the cardinalities that lead to it out, as JSON."""
    answers = [json.loads(json.dumps(served(query.sql))) for query in TEST]
    for query, answer in zip(TEST, answers, strict=True):
        cardinalities = contrary.decide(query, session).rows
        assert answer.pop("cardinalities") == {key_text(subplan): rows for subplan, rows in cardinalities.items()}
        scores = answer.pop("scores")
        assert answer["score_gain"] == (pytest.approx(scores[0] - min(scores), abs=2e-5) if scores else None)
        facts = contrary.explain(query)
        assert answer.keys() == facts.keys()
        assert {name: answer[name] for name in _untimed(facts)} == _untimed(facts)
        assert (answer["factor"] is None) == (answer["chosen"] == 0) == (not cardinalities)
    assert any(answer["chosen"] for answer in answers)


def _untimed(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if value is None else pytest.approx(value, abs=2e-5) for name, value in facts.items() if not name.endswith("_ms")}


def test_a_served_model_needs_a_database(contrary: Lero, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one it says which variable to set."""
    contrary.save(tmp_path / "saved")
    monkeypatch.delenv("PILOTSCOPE_DSN", raising=False)
    text = (
        "lero needs the planner of the database it was trained on to find candidate plans: set PILOTSCOPE_DSN to its connection string, "
        "postgresql://user@host:port/database"
    )
    with pytest.raises(ModelError, match=f"^{re.escape(text)}$"):
        Lero.decider(tmp_path / "saved")


def test_a_served_model_refuses_other_databases(
    contrary: Lero, forum: Database, newest_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the library, without the tables and with other data: it does not start, and says what it found."""
    contrary.save(tmp_path / "saved")
    with newest_server.connect() as bare, forum.server.connect("postgres") as empty, forum.session() as right:
        library, tables, data = str(bare.dsn), str(empty.dsn), str(right.dsn)
    monkeypatch.setenv("PILOTSCOPE_DSN", library)
    text = (
        " cannot be steered: the pilotscope library is not loaded; use the embedded server (--server embedded), or build the "
        "library on the server's machine and load it with session_preload_libraries (see docs/steering.md)"
    )
    with pytest.raises(MissingExtension, match=f"^user=postgres .+{re.escape(text)}$"):
        Lero.decider(tmp_path / "saved")
    monkeypatch.setenv("PILOTSCOPE_DSN", tables)
    with pytest.raises(ModelError, match=f"^model {contrary.model_id} was trained on another schema: its fingerprint is "):
        Lero.decider(tmp_path / "saved")
    monkeypatch.setenv("PILOTSCOPE_DSN", data)
    (path,) = (tmp_path / "saved" / "metadata").iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "data_fingerprint": "other"}), encoding="utf-8")
    text = (
        f"model {contrary.model_id} was trained on other data: its fingerprint is other, that of this database is "
        f"{forum.fingerprint.data}; use the dataset it was trained on, or train again"
    )
    with pytest.raises(ModelError, match=f"^{re.escape(text)}$"):
        Lero.decider(tmp_path / "saved")


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELEC", 'syntax error at or near "SELEC" [42601]'),
        ("", "syntax error at end of input [42601]"),
        ("DROP TABLE users", 'syntax error at or near "DROP" [42601]'),
        ("ANALYZE SELECT 1", 'syntax error at or near "ANALYZE" [42601]'),
        ("SELECT COUNT(*) FROM nope n", 'relation "nope" does not exist [42P01]'),
    ],
)
def test_a_served_model_refuses_what_cannot_be_planned(
    contrary: Lero, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str, reason: str
) -> None:
    """Also where its policy finds no query worth a look, so that it would have no need to ask."""
    assert contrary.model is not None
    contrary.model = replace(contrary.model, policy=replace(contrary.model.policy, skip_unknown=True, known=frozenset()))
    contrary.save(tmp_path / "served")
    monkeypatch.setenv("PILOTSCOPE_DSN", str(session.dsn))
    served = Lero.decider(tmp_path / "served")
    text = f"statement failed: {reason}: EXPLAIN (COSTS off) {sql}".strip()
    with pytest.raises(StatementFailed, match=f"^{re.escape(text)}$"):
        served(sql)
    assert served("SELECT count(*) FROM users AS u")["looked"] is False


def test_a_served_model_takes_one_statement(session: Session, served: Callable[[str], dict[str, Any]]) -> None:
    """A second statement after a semicolon does not run: it is refused before anything is sent."""
    text = (
        "lero chooses a plan for one statement, and this may be more than one: SELECT 1; DELETE FROM users; ask for each by itself, and "
        "leave out backslashes (where a text has both a semicolon and a backslash, its literals end by the settings of the server)"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
        served("SELECT 1; DELETE FROM users")
    assert session.scalar("SELECT count(*) FROM users") == 800


def test_a_served_model_writes_nothing(forum: Database, served: Callable[[str], dict[str, Any]]) -> None:
    """Planning runs functions that say they are immutable, whatever they do."""
    with forum.session() as owner:
        owner.execute(
            "CREATE TABLE noted (i int);"
            "CREATE FUNCTION note() RETURNS int LANGUAGE sql AS 'INSERT INTO noted VALUES (1) RETURNING i';"
            "CREATE FUNCTION constant() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN note(); END'"
        )
        try:
            with pytest.raises(StatementFailed, match=r"^statement failed: cannot execute INSERT in a read-only transaction \[25006\]: "):
                served("SELECT count(*) FROM users AS u, posts AS p WHERE u.id = p.userid AND u.age < constant()")
            assert owner.scalar("SELECT count(*) FROM noted") == 0
        finally:
            owner.execute("DROP FUNCTION constant(); DROP FUNCTION note(); DROP TABLE noted")


def test_a_served_model_answers_one_thread_after_the_other(served: Callable[[str], dict[str, Any]]) -> None:
    """MLflow's server calls it from several threads, and it has one session: each gets the answer to its own statement."""
    asked = [query.sql for query in TEST] * 4
    alone = [served(sql) for sql in asked]
    with ThreadPoolExecutor(8) as threads:
        beside = list(threads.map(served, asked))
    assert [_untimed(answer["cardinalities"]) for answer in beside] == [answer["cardinalities"] for answer in alone]
    assert [answer["planner_calls"] for answer in beside] == [answer["planner_calls"] for answer in alone]


def test_a_served_answer_keeps_the_levels_of_subplans() -> None:
    """Equal aliases of a query and of its subquery are two subplans, and both are there."""
    own, other = random_plans(2)
    subplans: dict[frozenset[str], float] = {LeveledSubplan(level, "ab"): 10.0 * level for level in (1, 2)}
    found = Candidates(look=Look(plan=own, subplans=subplans, elapsed_ms=1.0), plans=(own, other), slots=(None, Slot(10.0, 2)), attempts=())
    answer = Choice(plan=1, candidates=found, scores=(0.5, 0.25), elapsed_ms=2.0).served(0.125)
    assert answer["cardinalities"] == {"1:a b": 100.0, "2:a b": 200.0}
    assert (answer["chosen"], answer["factor"], answer["size"]) == (1, 10.0, 2)
    assert (answer["score_gain"], answer["margin"], answer["scores"]) == (0.25, 0.125, [0.5, 0.25])


def test_nothing_is_chosen_without_a_model(session: Session) -> None:
    """Neither choosing nor saving makes up a model."""
    for attempt in (lambda: Lero().decide(TEST[0], session), lambda: Lero().save(Path("nowhere"))):
        with pytest.raises(ModelError, match=r"^lero has no model yet; train it, or load one$"):
            attempt()


def test_without_collection_and_with_an_empty_cache_training_fails(forum: Database, session: Session, cache: Path, tmp_path: Path) -> None:
    """Nothing to learn from, no model: it is an error that says what to do, and not a fast success."""
    given = training(forum, session, tmp_path, collection=False)
    text = (
        f"lero has nothing to learn from: --no-collection was given, and {store_of(given, rules_of(given)).path} has none of 24 "
        "training queries for this data, server, limit and these factors; run once without --no-collection"
    )
    with pytest.raises(AlgorithmError, match=f"^{re.escape(text)}$"):
        Lero().train(given)


def test_when_every_query_is_refused_training_fails(forum: Database, session: Session, cache: Path, tmp_path: Path) -> None:
    """There is no model of nothing, and the warnings have PostgreSQL's reasons."""
    given = training(forum, session, tmp_path)
    given.queries, given.validation = (Query(id="bad", sql="SELECT nothing FROM nowhere"),), ()
    text = "lero collected none of 1 training query: PostgreSQL refused all; the warnings above say why"
    with pytest.raises(AlgorithmError, match=f"^{re.escape(text)}$"):
        Lero().train(given)


def test_without_training_queries_training_fails(forum: Database, session: Session, cache: Path, tmp_path: Path) -> None:
    """Nobody refused anything: there is nothing to collect."""
    given = training(forum, session, tmp_path)
    given.queries = ()
    text = "lero has no training queries; raise --training-size or give a workload that has some"
    with pytest.raises(AlgorithmError, match=f"^{re.escape(text)}$"):
        Lero().train(given)


def test_a_score_that_is_no_number_fails_the_run(trained: tuple[Lero, TrainingReport, Path], session: Session) -> None:
    """A broken network does not silently fall back to PostgreSQL's plan."""
    lero, _, _ = trained
    assert lero.model is not None
    broken = Lero()
    network = type(lero.model.network)(lero.model.featurizer.width)
    network.output.bias.data.fill_(float("nan"))
    broken.model, broken._metadata = replace(lero.model, network=network), lero._metadata
    with pytest.raises(AlgorithmError, match=r"^lero gave the score nan to one of \d+ plans; train it again$"):
        broken.decide(TEST[2], session)


def test_a_query_not_worth_a_look_costs_no_planner_call(trained: tuple[Lero, TrainingReport, Path], session: Session) -> None:
    """PostgreSQL's own plan is run at once; the session is not even touched."""
    lero, _, _ = trained
    assert lero.model is not None
    policy = replace(lero.model.policy, skip_unknown=True)
    decision = choose(replace(lero.model, policy=policy), session, TEST[0].sql)
    assert (decision.candidates, decision.cardinalities) == (None, {})
    about = decision.explained("q0")
    assert (about["looked"], about["planner_calls"], about["chosen"], about["difference"]) == (False, 0, 0, [])


def test_fewer_planner_calls_for_a_share_of_the_time(trained: tuple[Lero, TrainingReport, Path], session: Session) -> None:
    """With no time to spend, the planner is asked once and its own plan is run."""
    lero, _, _ = trained
    assert lero.model is not None
    decision = choose(replace(lero.model, policy=_hasty(lero.model)), session, TEST[2].sql)
    assert decision.candidates is not None
    assert (decision.candidates.planner_calls, decision.plan) == (1, 0)


def _hasty(model: TrainedModel) -> Policy:
    return replace(model.policy, share=0.0, planner=replace(model.policy.planner, overall=1.0))


def test_the_usual_policy_is_learned(forum: Database, session: Session, cached: Path, tmp_path: Path) -> None:
    """With the effort `auto` the slots are pruned and ordered, and every training signature is known."""
    lero = Lero()
    report = lero.train(training(forum, session, tmp_path))
    assert lero.model is not None
    policy = lero.model.policy
    assert policy.slots is not None
    assert len(policy.slots) < 12
    assert all(slot.size < 4 for slot in policy.slots)  # scaling the whole query's estimate changes nothing below a count
    assert policy.largest == 4
    assert len(policy.known) == 4
    assert policy.planner.overall > 0
    assert report.parameters["lero_effort"] == "auto"


def asked(lero: Lero, session: Session, some: Iterable[Query]) -> None:
    """Queries as a run has them: one side after the other, without executing anything."""
    side = side_of("lero", lero, session)
    for query in some:
        with side.steered(query):
            pass


def updates_in(folder: Path) -> list[dict[str, Any]]:
    """The lines about updates."""
    return [json.loads(line) for line in (folder / "lero_updates.jsonl").read_text(encoding="utf-8").splitlines()]


def test_dynamic_mode_learns_on(forum: Database, session: Session, cached: Path, tmp_path: Path) -> None:
    """After every N new queries they are collected and learned from, before the next new one; asking again counts once."""
    lero = Lero()
    report = lero.train(training(forum, session, tmp_path, update_every=3, options={**ALL, "dynamic": True}))
    first = lero.model
    assert str(tmp_path / "lero_updates.jsonl") in report.artifacts
    asked(lero, session, (*TEST[:3], *TEST[:3]))
    assert lero.model is first
    assert updates_in(tmp_path) == []
    asked(lero, session, TEST[3:4])
    assert lero.model is not first
    asked(lero, session, TEST[4:])
    updates = updates_in(tmp_path)
    assert [(update["update"], update["queries"], update["num_collected_queries"]) for update in updates] == [(1, 3, 35), (2, 3, 38)]
    again = Lero()
    again.load(tmp_path / "updated", training(forum, session, tmp_path / "again"))
    assert again.model_id == lero.model_id == updates[-1]["model_id"]


@pytest.mark.slow
def test_dynamic_mode_learns_from_a_query_once(forum: Database, session: Session, cached: Path, tmp_path: Path) -> None:
    """Asking for the workload again, or for what was trained on, is nothing new; a loaded model finds out with its first update."""
    chosen: Any = {"update_every": 3, "options": {**ALL, "dynamic": True}}
    lero = Lero()
    lero.train(training(forum, session, tmp_path / "trained", **chosen))
    asked(lero, session, (*TEST[:4], *TEST[:4], *queries("t", 24), *queries("v", 8)))
    assert [update["num_collected_queries"] for update in updates_in(tmp_path / "trained")] == [35]
    loaded = Lero()
    lero.save(tmp_path / "saved")
    loaded.load(tmp_path / "saved", training(forum, session, tmp_path / "loaded", **chosen))
    asked(loaded, session, (*queries("t", 24)[:2], *TEST[:2], *queries("t", 24), *TEST[:2]))
    assert [(update["queries"], update["num_collected_queries"]) for update in updates_in(tmp_path / "loaded")] == [(3, 33)]


def test_updating_is_in_no_querys_time(contrary: Lero, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A side has the algorithm learn before it starts its clock, and write its choice down after it has stopped it."""
    happened: list[str] = []

    def noted(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def then(*given: Any) -> Any:
            happened.append(name)
            return work(*given)

        return then

    monkeypatch.setattr(supervision, "_INSTRUMENTS", ())  # the clock is replaced on purpose
    monkeypatch.setattr(supervision, "_LOADED_SINCE", {})
    monkeypatch.setattr(clocks, "perf_counter_ns", noted("clock", perf_counter_ns))
    for name in ("learn_on", "decide", "_note"):
        monkeypatch.setattr(contrary, name, noted(name, getattr(contrary, name)))
    asked(contrary, session, TEST[:1])
    assert happened == ["learn_on", "clock", "decide", "clock", "_note", "clock", "clock"]  # the last two: injecting


def test_workers_are_let_go_after_an_update(
    forum: Database, session: Session, cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `--dask` an update calls the workers back, and nothing of them runs beside the query that comes next."""
    pools: list[_PoolHere] = []

    @contextmanager
    def pool_here(address: str, database: Database) -> Iterator[_PoolHere]:
        pools.append(_PoolHere(database))
        yield pools[-1]
        pools[-1].closed = True

    monkeypatch.setattr(cluster, "open_pool", pool_here)
    given = training(forum, session, tmp_path, update_every=2, dask="local:1", options={**ALL, "dynamic": True})
    lero = Lero()
    learn(lero, given, given={})
    before = len(pools)
    asked(lero, session, queries("new", 3))
    assert len(updates_in(tmp_path)) == 1
    assert len(pools) == before + 1
    assert all(pool.closed for pool in pools)


@pytest.fixture
def last_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every model rank the last candidate first, whatever it has learned."""
    monkeypatch.setattr(TrainedModel, "scores", lambda self, plans, subplans: -np.arange(len(plans), dtype=np.float32))


def eager(model: TrainedModel | None) -> TrainedModel:
    """Return a model that looks at every query, and follows every score."""
    assert model is not None
    return replace(model, policy=Policy(factors=model.policy.factors, max_candidates=model.policy.max_candidates))


@pytest.mark.usefixtures("last_first")
def test_on_the_way_a_plan_is_tried_compared_and_kept_or_left(contrary: Lero, session: Session) -> None:
    """The chosen plan runs first, PostgreSQL's own when the statement comes again, and then what was faster, without a look."""
    contrary.model = eager(contrary.model)
    query = next(query for query in TEST if contrary.decide(query, session))
    chosen = contrary.decide(query, session)
    contrary.observe(query, chosen, 10.0)
    assert contrary.decide(query, session) == Decision()
    contrary.observe(query, Decision(), 20.0)
    assert contrary.decide(query, session) == chosen
    assert contrary.explain(query) == {"looked": False, "chosen_by": "executions", "own_plan": False}
    contrary.observe(query, chosen, 30.0)  # the data have changed
    assert contrary.decide(query, session) == Decision()
    assert contrary.explain(query) == {"looked": False, "chosen_by": "executions", "own_plan": True}


@pytest.mark.usefixtures("last_first")
def test_on_the_way_compared_plans_are_ranked_anew(forum: Database, session: Session, cached: Path, tmp_path: Path) -> None:
    """When two plans of N more statements have run, the network goes on learning, from the pairs of their times; each counts once."""
    lero = Lero()
    lero.train(training(forum, session, tmp_path, update_every=2, options=ALL))
    lero.model = eager(lero.model)
    started = lero.model
    some = [query for query in TEST if lero.decide(query, session)][:2]
    for query in some:
        for ms in (5.0, 9.0):
            assert lero.model is started
            lero.observe(query, lero.decide(query, session), ms)
    assert lero.model is not started
    (update,) = updates_in(tmp_path)
    assert (update["update"], update["queries"], update["num_collected_queries"]) == (1, 2, 34)
    known = {query.sql_key: query for query in lero._records[0]}
    for query in some:
        times = sorted(outcome.ms for outcome in known[sql_key(query.sql)].outcomes if outcome.ms is not None)
        assert times == [5.0, 9.0]


class _PoolHere:
    """A pool that runs tasks in this process."""

    def __init__(self, database: Database) -> None:
        self.place = cluster.Worker(database=database, stack=ExitStack())
        self.done: list[tuple[str, Any]] = []
        self.closed = False

    def submit(self, key: str, work: cluster.TaskFunction, task: Any) -> None:
        self.done.append((key, work(self.place, task)))

    def next(self) -> tuple[str, Any]:
        return self.done.pop(0)


def test_validation_queries_grow_with_the_training_queries(forum: Database, session: Session, tmp_path: Path) -> None:
    """A fifth of the training queries, at least 20, at most what there are."""
    given = training(forum, session, tmp_path)
    given.validation = queries("v", 90)
    sizes: list[Any] = []
    for count in (3, 200, 1000):
        given.queries = queries("t", count)
        sizes.append(len(validation_queries(given)))
    assert sizes == [20, 40, 90]

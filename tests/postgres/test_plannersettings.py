"""Settings of the planner for the length of a block, and their comparison with a plan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from pytest_pilotscope.errors import StatementFailed, SteeringError
from pytest_pilotscope.postgres.plannersettings import settings_in_force, verify_settings
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.sessionstate import state_of

SQL = "SELECT * FROM generate_series(1, 9) AS a JOIN generate_series(1, 9) AS b ON a = b"
DECIDED = {
    "enable_hashjoin": "off",
    "join_collapse_limit": "1",
    "random_page_cost": "1.25",
    "work_mem": "65536",
    "hash_mem_multiplier": "3.5",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}


def test_settings_hold_within_the_block(scratch: Session) -> None:
    """EXPLAIN shows each, also one with another unit and one that is PostgreSQL's default again; they are put back after an error, too."""
    scratch.execute("SET enable_mergejoin = off; SET work_mem = '8MB'")
    before = state_of(scratch)
    decided = {**DECIDED, "enable_mergejoin": "on"}
    with scratch.planner_settings(decided):
        in_force = settings_in_force(scratch, decided)
        plan = scratch.explain(SQL, settings=True)
    assert state_of(scratch) == before
    with pytest.raises(StatementFailed, match="division by zero"), scratch.planner_settings(decided):
        scratch.execute("SELECT 1 / 0")
    assert state_of(scratch) == before
    assert (in_force["work_mem"], in_force["enable_mergejoin"]) == ("64MB", None)
    adherence = verify_settings(plan, in_force)
    assert (adherence.steered_ratio, adherence.compared, adherence.reasons) == (1.0, len(decided), ())
    assert not any(node.node_type == "Hash Join" for node in plan.nodes())


def test_a_setting_that_explain_does_not_show_was_not_followed(newest_scratch: Session) -> None:
    """Each has a line with the decided value and the one that was found."""
    with newest_scratch.planner_settings({"work_mem": "64MB", "enable_nestloop": "off"}):
        in_force = settings_in_force(newest_scratch, ["work_mem", "enable_nestloop", "default_statistics_target"])
    plan = newest_scratch.explain(SQL, settings=True)
    adherence = verify_settings(plan, in_force)
    assert adherence.steered_ratio == pytest.approx(1 / 3)
    assert sorted(adherence.reasons) == [
        "enable_nestloop: off was decided, EXPLAIN shows the default",
        "work_mem: 64MB was decided, EXPLAIN shows the default",
    ]


@pytest.mark.parametrize(
    ("name", "category", "context"),
    [
        ("statement_timeout", "Client Connection Defaults / Statement Behavior", "user"),
        ("search_path", "Client Connection Defaults / Statement Behavior", "user"),
        ("default_transaction_read_only", "Client Connection Defaults / Statement Behavior", "user"),
        ("shared_buffers", "Resource Usage / Memory", "postmaster"),
        ("max_stack_depth", "Resource Usage / Memory", "superuser"),
        ("maintenance_work_mem", "Resource Usage / Memory", "user"),
        ("row_security", "Client Connection Defaults / Statement Behavior", "user"),
    ],
)
def test_other_settings_are_refused(scratch: Session, name: str, category: str, context: str) -> None:
    """PostgreSQL's own category and context tell; nothing of the decision is set."""
    before = state_of(scratch)
    message = (
        f"a decision cannot set '{name}' (category '{category}', context '{context}'): it may only set what a user may set for the "
        "planner, in the category 'Query Tuning', and memory and parallel workers of a query"
    )
    with pytest.raises(SteeringError, match=f"^{re.escape(message)}$"), scratch.planner_settings({"enable_sort": "off", name: "1"}):
        pass
    assert state_of(scratch) == before


def test_a_name_or_a_value_that_postgresql_does_not_know_is_refused(newest_scratch: Session) -> None:
    """The message names the setting; those before it are put back."""
    before = state_of(newest_scratch)
    message = "a decision cannot set 'enable_telepathy': this server has no setting of that name"
    with pytest.raises(SteeringError, match=f"^{message}$"), newest_scratch.planner_settings({"enable_telepathy": "off"}):
        pass
    for settings in ({"enable_sort": "off", "enable_nestloop": "perhaps"}, {"enable_sort": "off", "work_mem": "1kB"}):
        with (
            pytest.raises(SteeringError, match=r"^PostgreSQL did not take (enable_nestloop|work_mem): "),
            newest_scratch.planner_settings(settings),
        ):
            pass
    assert state_of(newest_scratch) == before


def test_all_settings_of_a_decision_cost_one_message_each_way(newest_scratch: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are; the one that is refused is named, and all of them have their old values afterwards."""
    settings = {"enable_sort": "off", "work_mem": "1MB", "enable_nestloop": "off"}
    with newest_scratch.planner_settings(settings):  # asks once which of them may be set
        pass
    before = state_of(newest_scratch)
    sent: list[str] = []
    execute = Session.execute

    def noted(session: Session, sql: str, params: Sequence[str] | None = None) -> list[tuple[Any, ...]]:
        sent.append(sql)
        return execute(session, sql, params)

    monkeypatch.setattr(Session, "execute", noted)
    with newest_scratch.planner_settings(settings):
        assert len(sent) == 1
    assert len(sent) == 2
    for name in settings:
        with (
            pytest.raises(SteeringError, match=f"^PostgreSQL did not take {name}: "),
            newest_scratch.planner_settings({**settings, name: "perhaps"}),
        ):
            pass
    assert len(sent) == 5
    monkeypatch.undo()
    assert state_of(newest_scratch) == before

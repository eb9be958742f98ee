"""Arms of hintset: reading them from an option, and refusing wrong ones before training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_pilotscope.algorithms.hintset.arms import BAO, JOINS, SCANS, arm_text, arms_of, check_arms
from pytest_pilotscope.algorithms.hintset.chooser import Hintset
from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database

from .forum import training


def test_the_empty_arm_is_always_there_and_first() -> None:
    """PostgreSQL's own plan is an arm whatever was given, and an arm that is given twice is one."""
    assert arms_of("enable_nestloop=off ; work_mem = 64MB,Enable_Hashjoin=off;enable_nestloop=off;") == (
        {},
        {"enable_nestloop": "off"},
        {"work_mem": "64MB", "enable_hashjoin": "off"},
    )


def test_all_leaves_a_join_and_a_scan() -> None:
    """The 48 hint sets of the paper besides PostgreSQL's own plan: at least one way to join and one to scan stay on, and none repeats."""
    arms = arms_of("all")
    assert len(arms) == 49
    assert len({arm_text(arm) for arm in arms}) == 49
    assert all(not {*JOINS} <= arm.keys() and not {*SCANS} <= arm.keys() for arm in arms)


def test_bao_has_the_five_arms_of_its_code() -> None:
    """The default; all of them are among those of the paper."""
    arms = arms_of("bao")
    assert len(arms) == 5
    assert arms == arms_of(BAO)
    assert all(arm in arms_of("all") for arm in arms)
    assert builtin_registry().options("hintset", {})["arms"] == "bao"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no arm besides PostgreSQL's own plan"),
        (" ; ;", "there is no arm besides PostgreSQL's own plan"),
        ("enable_nestloop", "'enable_nestloop' is no setting=value"),
        ("enable_nestloop=", "'enable_nestloop=' is no setting=value"),
        ("=off", "'=off' is no setting=value"),
        ("enable_nestloop=off,", "'' is no setting=value"),
        ("enable nestloop=off", "'enable nestloop=off' is no setting=value"),
        ("enable_nestloop=off; a=1, A=2", "'A' is twice in one arm"),
        ("Bao", "'Bao' is no setting=value"),
    ],
)
def test_a_text_that_has_no_arms_is_a_usage_error(text: str, reason: str) -> None:
    """The message has the text and the part that is wrong."""
    wanted = f"arms: expected bao|all|SETTING=VALUE,...;..., got {text!r} ({reason})"
    with pytest.raises(UsageError, match=f"^{re.escape(wanted)}$"):
        builtin_registry().options("hintset", {"hintset": {"arms": text}})


def test_postgresql_refuses_wrong_arms_before_training(forum: Database, forum_session: Session, tmp_path: Path, cache: Path) -> None:
    """All wrong arms are named with their reasons, no query has run, and the session is as it was."""
    given = training(
        forum,
        forum_session,
        tmp_path,
        algorithm="hintset",
        options={"arms": "enable_nestlop=off; enable_hashjoin=maybe; enable_nestloop=off; fsync=off"},
    )
    with pytest.raises(UsageError) as caught:
        Hintset().train(given)
    text = str(caught.value)
    assert text.startswith(
        "--hintset-arms: PostgreSQL refuses 3 of 4 arms: 'enable_nestlop=off' (a decision cannot set 'enable_nestlop': this server has no "
        "setting of that name); 'enable_hashjoin=maybe' (PostgreSQL did not take enable_hashjoin: "
    )
    assert "'fsync=off' (a decision cannot set 'fsync'" in text
    assert text.endswith("; give settings of the planner, with values that SET takes")
    assert list(cache.rglob("hintset/*/*")) == []
    assert forum_session.scalar("SHOW enable_nestloop") == "on"
    check_arms(forum_session, arms_of("all"))

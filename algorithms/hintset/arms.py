"""Arms: settings of the planner that a query can run under. The first arm is always the empty one, PostgreSQL's own plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import SteeringError, UsageError

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

Arm = Mapping[str, str]

JOINS = ("enable_hashjoin", "enable_mergejoin", "enable_nestloop")
SCANS = ("enable_seqscan", "enable_indexscan", "enable_indexonlyscan")

BAO = "enable_nestloop=off; enable_mergejoin=off,enable_indexscan=off; enable_nestloop=off,enable_mergejoin=off,enable_indexscan=off; \
enable_mergejoin=off"
"""The arms that Bao's published code has switched on, besides PostgreSQL's own plan (`set_arm_options` in its `bao_planner.h`)."""

OWN = "PostgreSQL's own plan"

_SETTING = re.compile(r"[a-z_][a-z0-9_]*", re.IGNORECASE)


def readable_arms(text: str) -> str:
    """Return the text of an option unless `arms_of` raises ValueError for it."""
    arms_of(text)
    return text


def arms_of(text: str) -> tuple[Arm, ...]:
    """
    Read arms: `bao`, `all`, or each as `setting=value,setting=value`, separated by semicolons. Each arm is kept once.

    ValueError for a text without an arm, and for a part that is no `setting=value`, or names a setting twice in an arm.
    """
    if text == "all":
        named = [_switched_off(kept) for kept in product((True, False), repeat=len(JOINS) + len(SCANS))]
        made = [arm for arm in named if not ({*JOINS} <= arm.keys() or {*SCANS} <= arm.keys())]
    else:
        made = [_arm(part) for part in (BAO if text == "bao" else text).split(";") if part.strip()]
    found: list[Arm] = [{}]
    found += [arm for number, arm in enumerate(made) if arm and arm not in made[:number]]
    if len(found) == 1:
        raise ValueError("there is no arm besides PostgreSQL's own plan")
    return tuple(found)


def _switched_off(kept: tuple[bool, ...]) -> dict[str, str]:
    return {name: "off" for name, keep in zip((*JOINS, *SCANS), kept, strict=True) if not keep}


def _arm(text: str) -> dict[str, str]:
    arm: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (equals and value and _SETTING.fullmatch(name)):
            raise ValueError(f"{part.strip()!r} is no setting=value")
        if name.lower() in arm:
            raise ValueError(f"{name!r} is twice in one arm")
        arm[name.lower()] = value
    return arm


def arm_text(arm: Arm) -> str:
    """Return an arm as an option has it; the empty one in words."""
    return ",".join(f"{name}={value}" for name, value in arm.items()) or OWN


def check_arms(session: Session, arms: tuple[Arm, ...]) -> None:
    """Raise `UsageError` with every arm that PostgreSQL refuses, and the reason."""
    refused = []
    for arm in arms:
        try:
            with session.planner_settings(arm):
                pass
        except SteeringError as error:
            refused.append(f"{arm_text(arm)!r} ({error})")
    if refused:
        raise UsageError(
            f"--hintset-arms: PostgreSQL refuses {len(refused)} of {len(arms) - 1} arms: {'; '.join(refused)}; give settings of the "
            "planner, with values that SET takes"
        )

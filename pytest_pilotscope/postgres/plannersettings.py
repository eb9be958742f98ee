"""
The planner's settings for one query: set them for the length of a block, and compare them with a plan.

PostgreSQL itself says which settings the planner has, by their category, and which of them a user may set, by their context. EXPLAIN
(SETTINGS) shows those that differ from PostgreSQL's defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pytest_pilotscope.errors import SteeringError
from pytest_pilotscope.postgres.adherence import Adherence, Tally
from pytest_pilotscope.postgres.steering import exchanged

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.explain import Plan
    from pytest_pilotscope.postgres.session import Session

_HAS_FLAGS = 150_000
_PLANNERS = r"context = 'user' AND (category LIKE 'Query Tuning / %%' OR category LIKE 'Resource Usage / %%' AND {})"
_SHOWN = "'EXPLAIN' = ANY (pg_settings_get_flags(name))"
_SHOWN_BEFORE = "category IN ('Resource Usage / Memory', 'Resource Usage / Worker Processes', 'Resource Usage / Asynchronous Behavior')"
_FOUND = "SELECT name, category, context, {} FROM pg_catalog.pg_settings WHERE name = ANY (%s)"
_IN_FORCE = """
    SELECT name, CASE WHEN setting IS DISTINCT FROM boot_val THEN current_setting(name) END
    FROM pg_catalog.pg_settings WHERE name = ANY (%s)
"""

_ALLOWED: WeakKeyDictionary[Session, set[str]] = WeakKeyDictionary()


@contextmanager
def planner_settings(session: Session, settings: Mapping[str, str]) -> Iterator[None]:
    """
    Set planner settings for the length of the block, then put the old values back.

    Raise `SteeringError` for a name that is no setting of the planner or that a user may not set, and for a value that PostgreSQL refuses.
    """
    _check_names(session, settings)
    with exchanged(session, settings):
        yield


def settings_in_force(session: Session, names: Iterable[str]) -> dict[str, str | None]:
    """Return the present values of settings as EXPLAIN (SETTINGS) shows them: None for a default of PostgreSQL, which it leaves out."""
    return dict(session.execute(_IN_FORCE, (list(names),)))


def verify_settings(plan: Plan, in_force: Mapping[str, str | None]) -> Adherence:
    """Compare the settings that a plan was made with (EXPLAIN with SETTINGS) with those that were in force when it was asked for."""
    shown = plan.details.get("Settings", {})
    tally = Tally()
    for name, value in in_force.items():
        if shown.get(name) == value:
            tally.carried += 1
        else:
            tally.reasons.append(f"{name}: {value or 'the default'} was decided, EXPLAIN shows {shown.get(name, 'the default')}")
    return tally.adherence()


def _check_names(session: Session, settings: Mapping[str, str]) -> None:
    allowed = _ALLOWED.setdefault(session, set())
    asked = sorted(settings.keys() - allowed)
    if not asked:
        return
    shown = _SHOWN if session.server_version >= _HAS_FLAGS else _SHOWN_BEFORE
    rows = {row[0]: row[1:] for row in session.execute(_FOUND.format(_PLANNERS.format(shown)), (asked,))}
    for name in asked:
        if name not in rows:
            raise SteeringError(f"a decision cannot set {name!r}: this server has no setting of that name")
        category, context, planners = rows[name]
        if not planners:
            raise SteeringError(
                f"a decision cannot set {name!r} (category {category!r}, context {context!r}): it may only set what a user may set for the "
                "planner, in the category 'Query Tuning', and memory and parallel workers of a query"
            )
    allowed.update(asked)

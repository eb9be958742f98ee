"""The statements of a piece of work, and failures at one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_pilotscope.postgres.session import Session


def kind(sql: Any) -> str:
    """The first words of a statement, which say what it does."""
    return " ".join(re.findall(r"\w+", str(sql))[:3])


def steps(monkeypatch: pytest.MonkeyPatch, work: Callable[[], None]) -> list[str]:
    """The kinds of statements that sessions run during some work, in order of first appearance."""
    seen: list[str] = []
    original = Session.execute

    def execute(self: Session, sql: Any, params: Any = None) -> Any:
        seen.append(kind(sql))
        return original(self, sql, params)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "execute", execute)
        work()
    return list(dict.fromkeys(seen))


@contextmanager
def failing_at(monkeypatch: pytest.MonkeyPatch, statement: str, *, once: bool = False) -> Iterator[None]:
    """Raise KeyboardInterrupt where a session would run a statement of this kind: every time, or the first time only."""
    original = Session.execute
    failed = False

    def execute(self: Session, sql: Any, params: Any = None) -> Any:
        nonlocal failed
        if kind(sql) == statement and not (once and failed):
            failed = True
            raise KeyboardInterrupt(statement)
        return original(self, sql, params)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "execute", execute)
        yield

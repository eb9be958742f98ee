"""Values as text that loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_pilotscope.postgres.steering import exchanged

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

_EXACT = {"extra_float_digits": "1", "DateStyle": "ISO", "IntervalStyle": "postgres"}


@contextmanager
def exact_text(session: Session) -> Iterator[None]:
    """Let PostgreSQL write values within the block so that every session reads the same values again."""
    with exchanged(session, _EXACT):
        yield

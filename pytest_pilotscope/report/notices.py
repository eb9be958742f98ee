"""Warnings of ours, shown to the user: pytest throws away what is logged outside a test, and shows nothing of a test that passes."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pytest_pilotscope.report.progress import Say

LOGGERS = ("pytest_pilotscope", "algorithms")
"""Whose warnings are shown."""


class Notices(logging.Handler):
    """Says each distinct warning once, when it is logged; one that is `shown_already` by somebody else is left to them."""

    def __init__(self, *, say: Say, shown_already: Callable[[logging.LogRecord], bool]) -> None:
        super().__init__(logging.WARNING)
        self._say = say
        self._shown_already = shown_already
        self.shown: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Say the message of a record."""
        if not self._shown_already(record):
            self.show(record.getMessage())

    def show(self, text: str) -> None:
        """Say a text, unless it was said before."""
        if text not in self.shown:
            self.shown[text] = None
            self._say(f"pilotscope: warning: {text}")

"""Our logged warnings, shown to the user: pytest drops warnings logged outside a test, and hides those of a test that passes."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pytest_pilotscope.report.progress import Say

LOGGERS = ("pytest_pilotscope", "algorithms")
"""The loggers whose warnings are shown."""


class Notices(logging.Handler):
    """A log handler that shows each distinct warning once, except those that another handler has `shown_already`."""

    def __init__(self, *, say: Say, shown_already: Callable[[logging.LogRecord], bool]) -> None:
        super().__init__(logging.WARNING)
        self._say = say
        self._shown_already = shown_already
        self.shown: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Show the message of a log record."""
        if not self._shown_already(record):
            self.show(record.getMessage())

    def show(self, text: str) -> None:
        """Show a text, unless it was shown before."""
        if text not in self.shown:
            self.shown[text] = None
            self._say(f"pilotscope: warning: {text}")

"""
Hide the environment variables of libpq, which obeys PGHOSTADDR, PGSERVICE, PGOPTIONS and others whatever the connection string says.

libpq reads them in C. They are taken out of the process's own environment while a connection is made; `os.environ` keeps them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SESSION_VARIABLES = ("PGDATESTYLE", "PGGEQO", "PGOPTIONS", "PGTZ")
"""The variables that set something in a session; the others say which server to connect to and how."""

_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def hidden_variables(*, everything: bool) -> Iterator[None]:
    """Hide all PG* variables from libpq within the block, or only `SESSION_VARIABLES`. Threads that connect wait for each other."""
    present = {name: value for name, value in os.environ.items() if name.startswith("PG")}
    if not present:
        yield
        return
    hidden = [name for name in present if everything or name in SESSION_VARIABLES]
    with _ONE_AT_A_TIME:
        try:
            for name in hidden:
                os.unsetenv(name)
            yield
        finally:
            for name in hidden:
                os.putenv(name, present[name])

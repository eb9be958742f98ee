"""
Stop a program at named functions, until the test that started it lets it go on.

Python imports this file at the start of every program that has its folder in PYTHONPATH. PILOTSCOPE_TEST_STOPS has the functions, as
`module:name` or `module:Class.name`, and PILOTSCOPE_TEST_SOCKET the socket of the test. `@TEXT` behind a function means the first call with
TEXT among its arguments, `#N` the N-th call, `A|B` the first call of either. The program writes the number of its stop and its process id
to the socket, and waits for an answer. A signal interrupts the waiting as it would interrupt the function.
"""

from __future__ import annotations

import functools
import importlib.abc
import os
import re
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_FORM = re.compile(r"(?P<module>[\w.]+):(?P<name>[\w.]+)(?:@(?P<text>.+?))?(?:#(?P<call>\d+))?")
_STOPS = enumerate(os.environ.get("PILOTSCOPE_TEST_STOPS", "").split(","))
STOPS = [(number, stop) for number, either in _STOPS for stop in map(_FORM.fullmatch, either.split("|")) if stop is not None]


def wait_at(number: int) -> None:
    """Tell the test that this process is at a stop, and wait: go on when it closes the connection, and raise when it answers."""
    answer = b""
    with suppress(FileNotFoundError, ConnectionError), socket.socket(socket.AF_UNIX) as test:
        test.connect(os.environ["PILOTSCOPE_TEST_SOCKET"])
        test.sendall(f"{number} {os.getpid()}\n".encode())
        answer = test.recv(1)
    if answer:
        raise RuntimeError("it broke")


def stopping(function: Callable[..., Any], number: int, text: str | None, call: int) -> Callable[..., Any]:
    """Return the function with a stop before it."""
    calls = 0

    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        if text is None or any(text in str(getattr(argument, "args", argument)) for argument in (*arguments, *named.values())):
            calls += 1
            if calls == call:
                wait_at(number)
        return function(*arguments, **named)

    return wrapper


def add_stops(module: ModuleType) -> None:
    """Replace the named functions of a module."""
    for number, stop in STOPS:
        if stop["module"] != module.__name__:
            continue
        *owners, name = stop["name"].split(".")
        owner = functools.reduce(getattr, owners, module)
        setattr(owner, name, stopping(getattr(owner, name), number, stop["text"], int(stop["call"] or 1)))


class Stopping(importlib.abc.Loader):
    """Executes a module as its own loader does, and adds the stops before anybody can import a function from it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Make the module."""
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module."""
        self._loader.exec_module(module)
        add_stops(module)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that have stops."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the specification that the other finders have, with a loader that adds the stops."""
        if not any(stop["module"] == fullname for _, stop in STOPS):
            return None
        for finder in sys.meta_path[1:]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                spec.loader = Stopping(spec.loader)
                return spec
        return None


class Finders(list[Any]):
    """A list whose first finder stays the first: pytest inserts its own, which would find our modules before."""

    def insert(self, index: Any, finder: Any) -> None:
        """Insert behind the first."""
        super().insert(max(index, 1), finder)


if STOPS:
    for loaded in {stop["module"]: sys.modules[stop["module"]] for _, stop in STOPS if stop["module"] in sys.modules}.values():
        add_stops(loaded)
    sys.meta_path = Finders([Finder(), *sys.meta_path])

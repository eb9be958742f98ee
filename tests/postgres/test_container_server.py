"""The container server, as far as it goes without a Docker daemon."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_pilotscope.errors import CannotConnect, MissingServer, ServerError
from pytest_pilotscope.postgres import containers as module
from pytest_pilotscope.postgres.container_server import ContainerServer
from pytest_pilotscope.postgres.containers import LABEL, explained, remove_leftovers, wait_until_ready
from tests.postgres.children import start_child


@dataclass
class FakeContainer:
    """Goes through a list of states, one at each look."""

    states: list[str]
    log: bytes = b""
    labels: dict[str, str] = field(default_factory=dict)
    short_id: str = "abc"
    removed: bool = False
    status: str = "created"
    attrs: dict[str, Any] = field(default_factory=lambda: {"State": {"ExitCode": 1}})

    def reload(self) -> None:
        """Look again."""
        self.status = self.states.pop(0)

    def logs(self, tail: int) -> bytes:
        """The last lines."""
        return b"\n".join(self.log.splitlines()[-tail:])

    def remove(self, *, force: bool, v: bool) -> None:
        """Note that it was asked for."""
        self.removed = force and v


def test_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says where nothing answers."""
    pytest.importorskip("testcontainers")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    reason = r" \(.*No such file or directory.*\)"
    expected = rf"^no Docker daemon answers at unix:///nonexistent/docker\.sock{reason}; start Docker, or set DOCKER_HOST$"
    with pytest.raises(MissingServer, match=expected):
        ContainerServer()


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    for name in ("testcontainers", "testcontainers.core", "testcontainers.core.container"):
        monkeypatch.setitem(sys.modules, name, None)
    expected = r"^a container needs testcontainers \(import of testcontainers.* halted; None in sys.modules\); "
    with pytest.raises(MissingServer, match=expected + re.escape("install it with: pip install 'pytest-pilotscope[container]'") + "$"):
        ContainerServer()


def test_a_dead_container_is_noticed_at_once() -> None:
    """The error carries the end of its log."""
    container = FakeContainer(states=["running", "exited"], log=b"FATAL: no\nbye\n")
    asked: list[int] = []

    def ask() -> None:
        asked.append(1)
        raise ServerError("not yet")

    expected = "the container of image 'some:1' stopped while starting: exited with status 1; its log ends with:\n    FATAL: no\n    bye"
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        wait_until_ready(container, "some:1", ask)
    assert asked == [1]


def test_ready_when_it_answers() -> None:
    """Refusals while it starts are not errors, and it is asked again until it answers."""
    answers: Iterator[ServerError | None] = iter([ServerError("starting up"), None])

    def ask() -> None:
        answer = next(answers)
        if answer is not None:
            raise answer

    container = FakeContainer(states=["created", "running"])
    wait_until_ready(container, "some:1", ask)
    assert [*answers] == []
    assert container.states == []


def test_a_container_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is limited, and the last refusal is in the message."""
    monkeypatch.setattr(module, "START_LIMIT_S", -1.0)

    def refuse() -> None:
        raise ServerError("not today")

    expected = "the container of image 'some:1' did not answer within -1 s: not today; its log ends with: (the log is empty)"
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        wait_until_ready(FakeContainer(states=["running"]), "some:1", refuse)


def test_a_container_that_refuses_us() -> None:
    """Trying again does not help, so there is one try."""
    asked: list[int] = []

    def refuse() -> None:
        asked.append(1)
        raise CannotConnect("who are you")

    expected = "the container of image 'some:1' runs, but cannot be used: who are you; its log ends with: (the log is empty)"
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        wait_until_ready(FakeContainer(states=["running"]), "some:1", refuse)
    assert asked == [1]


def test_a_daemon_that_goes_while_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is shut down ends its containers first: it may be there for the state, and gone for the log."""
    requests = pytest.importorskip("requests")
    monkeypatch.setenv("DOCKER_HOST", "unix:///going.sock")
    container = FakeContainer(states=["exited"])

    def gone(tail: int) -> bytes:
        raise requests.ConnectionError("aborted")

    monkeypatch.setattr(container, "logs", gone)
    found = explained(container, ServerError("refused"))
    assert str(found) == "the Docker daemon at unix:///going.sock no longer answers (aborted), nor does container abc"


def test_leftovers_of_killed_processes_are_removed(caplog: pytest.LogCaptureFixture) -> None:
    """Only containers with our label whose owner on this machine is dead; process ids of another container mean nothing here."""
    dead = start_child("")
    dead.communicate()
    here = module._place()
    owners = {
        "dead": f"{here}:{dead.pid}",
        "ours": f"{here}:{os.getpid()}",
        "elsewhere": f"another-{here}:{dead.pid}",
        "in a container": f"{socket.gethostname()}:pid:[1]:{dead.pid}",
    }
    containers = {name: FakeContainer(states=[], labels={LABEL: owner}) for name, owner in owners.items()}

    class Client:
        class containers:  # noqa: N801 - docker's name
            @staticmethod
            def list(*, all: bool, filters: dict[str, Any], ignore_removed: bool) -> list[FakeContainer]:
                assert (all, filters, ignore_removed) == (True, {"label": LABEL}, True)
                return [*containers.values()]

    remove_leftovers(Client())
    assert {name for name, container in containers.items() if container.removed} == {"dead"}
    assert caplog.messages == [f"removing container abc, left by the killed process {dead.pid}"]

"""What happens to containers when the daemon or we die."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from typing import Any

import pytest

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.postgres.container import ContainerServer
from tests.docker.engine import Engine, our_containers
from tests.postgres.children import start_child, wait_for_end


def test_a_daemon_that_dies_in_the_middle(docker: Any, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """The message says that it is the daemon; stopping raises nothing, and the container is removed when the daemon is back."""
    server = ContainerServer()
    short_id = server._container.get_wrapped_container().short_id
    engine.end()
    try:
        expected = (
            rf"^the Docker daemon at {engine.url} no longer answers \(.*(Connection refused|No such file or directory).*\), "
            rf"nor does container {short_id}$"
        )
        with pytest.raises(ServerError, match=expected):
            server.connect()
        server.stop()
        assert re.fullmatch(
            rf"container {short_id} is not removed \(.*(Connection refused|No such file or directory).*\); it will be at the next start",
            caplog.messages[-1],
        )
    finally:
        engine.start()
        docker.containers.get(short_id).remove(force=True, v=True)


START = """
import os, sys
from pytest_pilotscope.postgres.container import ContainerServer
server = ContainerServer()
print(server.container_id, server._reaper._process.pid, flush=True)
sys.stdin.read()
"""


def test_nothing_outlives_a_killed_process(docker: Any, caplog: pytest.LogCaptureFixture) -> None:
    """After `kill -9` the container goes by itself; after a `kill -9` of its reaper as well, the next server removes it."""
    with start_child(START) as child:
        container_id, reaper = _started(child)
        child.kill()
    assert wait_for_end(reaper)
    assert container_id not in our_containers(docker)
    with start_child(START) as child:
        container_id, reaper = _started(child)
        os.kill(reaper, signal.SIGKILL)
        child.kill()
    assert wait_for_end(child.pid)
    assert container_id in our_containers(docker)
    with ContainerServer() as server:
        assert container_id not in our_containers(docker)
        assert server.container_id in our_containers(docker)
    assert caplog.messages == [f"removing container {container_id[:12]}, left by the killed process {child.pid}"]


def _started(child: subprocess.Popen[str]) -> tuple[str, int]:
    assert child.stdout is not None
    container_id, reaper = child.stdout.readline().split()
    return container_id, int(reaper)

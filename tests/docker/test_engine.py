"""
The container server and docker-compose.yml on a real Docker engine, with the image of docker/postgres.

All in one file: pytest-xdist gives a file to one worker, and there can be one engine at a time on a machine (they share a network bridge).
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.algorithms.knob.trial_server import open_trial_server, reach_of, space_of
from pytest_pilotscope.errors import CannotConnect, MissingServer, ServerError, StatementFailed, UsageError
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.postgres import container_server as module
from pytest_pilotscope.postgres import hypopg
from pytest_pilotscope.postgres.container_server import ContainerServer
from pytest_pilotscope.postgres.containers import Limits, new_container
from pytest_pilotscope.postgres.given import GivenServer
from pytest_pilotscope.postgres.steering import has_extension
from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database
from pytest_pilotscope.runs.single import BenchmarkRun
from tests.docker import rootfs
from tests.docker.conftest import SECRETS, Compose
from tests.docker.engine import BASE, IMAGE, Engine, our_containers
from tests.lost import measure_and_lose
from tests.postgres.children import REPOSITORY, start_child, wait_for_end
from tests.postgres.test_embedded import VARIABLES
from tests.toy import Toy

pytestmark = pytest.mark.slow

JOIN = "SELECT count(*) FROM a JOIN b ON b.a = a.id"


def test_the_image(docker: Any) -> None:
    """It is healthy when it serves, has the library in every session, HypoPG, and no password of its own."""
    container = docker.containers.run(IMAGE, detach=True, environment={"POSTGRES_PASSWORD": "secret"})
    try:
        deadline_s = time.monotonic() + 60
        while container.attrs.get("State", {}).get("Health", {}).get("Status") != "healthy" and time.monotonic() < deadline_s:
            time.sleep(0.1)
            container.reload()
        statements = ["SHOW pilotscope.subplans", "CREATE EXTENSION hypopg", "SELECT count(*) FROM hypopg_list_indexes"]
        command = ["psql", "-U", "postgres", "-At", *(part for statement in statements for part in ("-c", statement))]
        assert container.exec_run(command) == (0, b"[]\nCREATE EXTENSION\n0\n")
        assert container.attrs["State"]["Health"]["Status"] == "healthy"
    finally:
        container.remove(force=True, v=True)
    refused = docker.containers.create(IMAGE)
    try:
        refused.start()
        assert refused.wait()["StatusCode"] == 1
        assert b"superuser password is not specified" in refused.logs()
    finally:
        refused.remove(force=True, v=True)


def test_settings_limits_and_restarts(docker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Pinned settings as everywhere, buffers that fit the memory, and limits that the kernel enforces, all in the report.

    Settings of the last restart are replaced; refused ones leave the old ones in force, and the log says what was wrong. No variable of
    libpq has a say, and another server in its place would be refused.
    """
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    with ContainerServer(limits=Limits(memory_bytes=256 << 20, cpus=1.5), settings={"work_mem": "5MB"}) as server:
        _check_limits(server, docker)
        _check_restarts(server)
        server._token = server._token[::-1]
        with pytest.raises(CannotConnect, match=r"^another server than the one that was started here answers at .*password=\*\*\*"):
            server.connect()


def _check_limits(server: ContainerServer, docker: Any) -> None:
    limits = docker.containers.get(server.container_id).attrs["HostConfig"]
    assert (limits["Memory"], limits["MemorySwap"], limits["NanoCpus"]) == (256 << 20, 256 << 20, 1_500_000_000)
    report = server.report()
    assert report.why == f"image {IMAGE}, 256 MB of memory, 1.5 CPUs, --server container"
    wanted = {"jit": "off", "autovacuum": "off", "work_mem": "5MB", "shared_buffers": "64MB"}
    assert {name: report.settings[name] for name in wanted} == wanted
    assert report.settings["session_preload_libraries"] == "pilotscope"


def _check_restarts(server: ContainerServer) -> None:
    server.restart({"work_mem": "6MB", "max_connections": "40"})
    with server.connect() as session:
        assert session.execute("SELECT current_setting('work_mem'), current_setting('max_connections')") == [("6MB", "40")]
    expected = (
        r"^the old settings are back, these were refused: \{'shared_preload_libraries': 'nonsense'\}: the container of image "
        rf"'{IMAGE}' stopped while starting: exited with status 1; its log ends with:(\n    .*)*"
        r"\n    .* FATAL:  could not access file \"nonsense\": No such file or directory(\n    .*)*$"
    )
    with pytest.raises(ServerError, match=expected):
        server.restart({"shared_preload_libraries": "nonsense"})
    with server.connect() as session:
        assert session.execute("SELECT current_setting('work_mem'), current_setting('max_connections')") == [("6MB", "40")]


@pytest.mark.usefixtures("docker")
def test_settings_that_are_refused_at_the_start() -> None:
    """The container does not start, its log says why, and what would end a statement never gets there."""
    expected = r'its log ends with:(\n    .*)*ERROR:  unrecognized configuration parameter "no_such"(\n    .*)*$'
    with pytest.raises(ServerError, match=rf"^the container of image '{IMAGE}' stopped while starting: exited with status 3; " + expected):
        ContainerServer(settings={"no_such": "it's"})
    with pytest.raises(ServerError, match=r"^'work_mem = 1; DROP' is not the name of a PostgreSQL setting$"):
        ContainerServer(settings={"work_mem = 1; DROP": "1"})


@pytest.mark.usefixtures("docker")
def test_a_dataset_in_a_container() -> None:
    """The whole way: loaded, copied, steered, with HypoPG; a twin is another container."""
    config = PostgreSQLConfig("toy", server="container", container_memory_bytes=512 << 20)
    with open_database(config, Toy()) as database, database.session() as session:
        assert session.scalar(JOIN) == 100
        assert has_extension(session)
        with session.cardinalities({frozenset({"a", "b"}): 77}):
            assert session.subplans(JOIN)[frozenset({"a", "b"})] == 77
        with database.copy() as copy, copy.session() as other:
            hypopg.install(other)
            assert copy.fingerprint.data == database.fingerprint.data
        with database.twin({"work_mem": "7MB"}) as twin, twin.session() as other:
            assert (other.scalar("SHOW work_mem"), session.scalar("SHOW work_mem")) == ("7MB", "4MB")
            assert "512 MB of memory" in twin.report.why


def test_knobs_in_a_container(docker: Any) -> None:
    """A restart keeps the settings of a reload; a container that was killed is started again, with the defaults."""
    with open_database(PostgreSQLConfig("toy", server="container"), Toy()) as database:
        with database.session() as session:
            reach = reach_of(database)
            space = space_of(session, reach, ("shared_buffers", "bgwriter_lru_maxpages"))
        others = {container.id for container in docker.containers.list()}
        with open_trial_server(database, space, reach) as trial_server:
            values = space.complete({"bgwriter_lru_maxpages": "7"})
            assert trial_server.apply(values) == "reload"
            assert trial_server.apply({**values, "shared_buffers": "4096"}) == "restart"
            assert trial_server.session.scalar("SHOW bgwriter_lru_maxpages") == "7"
            (container,) = (each for each in docker.containers.list() if each.id not in others)
            container.kill()
            trial_server.ready()
            shown = trial_server.session.execute("SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (list(values),))
            assert dict(shown) == space.defaults


def test_limits_need_a_container() -> None:
    """They are refused where nothing would keep to them."""
    expected = "--container-memory and --container-cpus limit a container, and the server is 'auto'; add --server container"
    with pytest.raises(UsageError, match=f"^{re.escape(expected)}$"):
        PostgreSQLConfig(container_cpus=1.0)


@pytest.mark.usefixtures("docker")
def test_more_processors_than_there_are() -> None:
    """Docker refuses, and says how many there are."""
    expected = (
        rf"^Docker cannot start a container of image '{IMAGE}': Range of CPUs is from 0\.01 to \d+\.00, as there are only \d+ CPUs .*e$"
    )
    with pytest.raises(ServerError, match=expected):
        ContainerServer(limits=Limits(cpus=1000.0))


def test_an_image_of_another_version(docker: Any) -> None:
    """It is not measured in place of the one that was asked for."""
    before = our_containers(docker)
    expected = f"the image '{IMAGE}' has PostgreSQL {rootfs.MAJOR}, and --pg-version asks for 17; leave one of them out"
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        ContainerServer(version=17)
    assert our_containers(docker) == before


@pytest.mark.usefixtures("docker")
def test_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names it and says what to do."""
    monkeypatch.setenv("PILOTSCOPE_IMAGE", "localhost:9/nosuch:1")
    expected = (
        r"^there is no image 'localhost:9/nosuch:1' on this Docker daemon, and it cannot be pulled \(Get \"?https?://localhost:9/v2/\"?: .*"
        r"connection refused\); build one \(docs/servers\.md\), or name another in PILOTSCOPE_IMAGE$"
    )
    with pytest.raises(MissingServer, match=expected):
        ContainerServer()


@pytest.mark.parametrize(
    ("entrypoint", "expected"),
    [
        (
            '["ls", "/nowhere"]',
            "the container of image 'pilotscope-test-wrong' stopped while starting: exited with status 2; its log ends with:"
            "\n    ls: cannot access '/nowhere': No such file or directory",
        ),
        (
            '["/nowhere"]',
            "Docker cannot start a container of image 'pilotscope-test-wrong': failed to create shim task: OCI runtime create failed: "
            'runc create failed: unable to start container process: exec: "/nowhere": stat /nowhere: no such file or directory: '
            "unknown; is it an image of PostgreSQL?",
        ),
    ],
    ids=["ends", "cannot start"],
)
def test_wrong_image(docker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entrypoint: str, expected: str) -> None:
    """An image of something else is noticed at once, and its container is gone."""
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nENTRYPOINT {entrypoint}\nCMD []\n")
    docker.images.build(path=str(tmp_path), tag="pilotscope-test-wrong")
    monkeypatch.setenv("PILOTSCOPE_IMAGE", "pilotscope-test-wrong")
    before = our_containers(docker)
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        ContainerServer()
    assert our_containers(docker) == before


def test_port_taken(docker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker may choose again; when no port is free, the message says which one was not, and the container is gone."""
    before = our_containers(docker)
    with socket.create_server(("0.0.0.0", 0)) as taken:  # noqa: S104 - Docker publishes there
        port = taken.getsockname()[1]
        monkeypatch.setattr(module, "new_container", lambda *arguments: new_container(*arguments).with_bind_ports(5432, port))
        expected = (
            rf"^Docker found no free port for a container of image '{IMAGE}' in 3 attempts: driver failed programming "
            rf"external connectivity on endpoint pilotscope-[\w-]+ \(\w+\): .*:{port}: bind: address already in use; "
            "see which program listens there$"
        )
        with pytest.raises(ServerError, match=expected):
            ContainerServer()
    assert our_containers(docker) == before


@pytest.mark.usefixtures("docker")
def test_a_container_that_stops_in_the_middle() -> None:
    """The open session breaks, and connecting again says what has become of the container."""
    with ContainerServer() as server, server.connect() as session:
        container = server._container.get_wrapped_container()
        container.kill()
        container.wait()
        with pytest.raises(StatementFailed, match=r"^statement failed: .*(closed|terminat).*: SELECT 1$"):
            session.scalar("SELECT 1")
        expected = rf"^container {container.short_id} stopped: exited with status 137; its log ends with:(\n    .*)+$"
        with pytest.raises(ServerError, match=expected):
            server.connect()
        container.remove(v=True)
        with pytest.raises(ServerError, match=rf"^container {container.short_id} was removed by somebody else: "):
            server.connect()


@pytest.mark.usefixtures("docker")
def test_a_measurement_whose_container_stops(tmp_path: Path) -> None:
    """It ends at the query that it was at, with what has become of the container."""

    def kill(run: BenchmarkRun) -> None:
        server = run.database.server
        assert isinstance(server, ContainerServer)
        container = server._container.get_wrapped_container()
        container.kill()
        container.wait()

    expected = r"^container \w+ stopped: exited with status 137; its log ends with:(\n    .*)+$"
    finished = measure_and_lose(tmp_path, "container", kill, expected=expected)
    assert finished.record.status == "FAILED"
    assert {run.query_id for run in finished.record.runs} == {"q2", "q3"}


def test_every_worker_has_its_own(docker: Any, tmp_path: Path) -> None:
    """Two workers of pytest-xdist have two containers at the same time, named after them."""
    (tmp_path / "test_own.py").write_text(
        "import os, time, pytest\n"
        "from pathlib import Path\n"
        "from pytest_pilotscope.postgres.container_server import ContainerServer\n"
        "@pytest.mark.parametrize('number', [0, 1])\n"
        "def test_one(number):\n"
        "    with ContainerServer() as server:\n"
        "        name = server._container.get_wrapped_container().name\n"
        "        others = server._container.get_docker_client().client.containers.list(filters={'label': 'pytest-pilotscope.owner'})\n"
        "        assert os.environ['PYTEST_XDIST_WORKER'] in name\n"
        "        Path(f'{number}.txt').write_text(name)\n"
        "        server.connect().close()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"} | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "pytest", "-n2", "-q", "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    before = our_containers(docker)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    names = [(tmp_path / f"{number}.txt").read_text() for number in (0, 1)]
    assert sorted(name.split("-")[1] for name in names) == ["gw0", "gw1"]
    assert our_containers(docker) == before


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
        with pytest.raises(ServerError, match=expected):
            server.restart({})
        with pytest.raises(ServerError, match=expected):
            server._wait()
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
from pytest_pilotscope.postgres.container_server import ContainerServer
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


def test_the_servers_start(compose: Compose, engine: Engine, docker: Any) -> None:
    """The measured server can be steered and is set up as ours are; the tracking server's is another one, with its own data."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**SECRETS, "DOCKER_HOST": engine.url, "POSTGRES_PORT": str(port)}
    environment |= dict.fromkeys(("PG_MAJOR", "TRACKING_PG_MAJOR"), str(rootfs.MAJOR))
    try:
        done = compose("up", "--detach", "--no-build", "postgres", "tracking-store", **environment)
        assert done.returncode == 0, done.stderr
        of_ours = {"event": "health_status", "label": "com.docker.compose.project=pilotscope-test"}
        events = docker.events(decode=True, since=0, until=int(time.time()) + 120, filters=of_ours)
        healthy: set[str] = set()
        for event in events:
            if event["status"].endswith(": healthy"):
                healthy.add(event["Actor"]["Attributes"]["com.docker.compose.service"])
            if healthy == {"postgres", "tracking-store"}:
                break
        events.close()
        assert healthy == {"postgres", "tracking-store"}
        server = GivenServer(Dsn(f"postgresql://postgres:not-random@127.0.0.1:{port}/postgres"))
        with server.connect() as session:
            assert has_extension(session)
            assert session.execute("SELECT current_setting('jit'), current_setting('autovacuum')") == [("off", "off")]
        (store,) = docker.containers.list(filters={"label": "com.docker.compose.service=tracking-store"})
        asked = store.exec_run(["psql", "-U", "mlflow", "-At", "-c", "SELECT current_database()"])
        assert asked == (0, b"mlflow\n")
        assert store.attrs["NetworkSettings"]["Ports"] in ({}, {"5432/tcp": None})
    finally:
        down = compose("down", "--volumes", **environment)
        assert down.returncode == 0, down.stderr

"""docker-compose.yml, read by the compose tool, and the secrets for it; test_engine.py starts what there are images for."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import yaml

from tests.docker.conftest import SECRETS, Compose
from tests.docker.engine import REPOSITORY


def test_the_file_is_valid(compose: Compose) -> None:
    """The tool accepts it; ports are open to this machine only, volumes have names, services an order, and results the source's owner."""
    done = compose("config", **SECRETS)
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    services = found["services"]
    assert services["bench"]["user"] == SECRETS["SUITE_OWNER"]
    allowed = "--pilotscope-server=postgresql://postgres@postgres/postgres --pilotscope-allow-changes=databases,settings"
    assert services["bench"]["environment"]["PYTEST_ADDOPTS"] == allowed
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:5000:5000/tcp", "127.0.0.1:5432:5432/tcp"]
    mounts = [volume.split(":")[0] for service in services.values() for volume in service["volumes"]]
    assert {mount for mount in mounts if not mount.startswith("/")} == set(found["volumes"])
    assert [mount for mount in mounts if mount.startswith("/")] == [str(REPOSITORY)]
    order = {name: set(service.get("depends_on", {})) for name, service in services.items()}
    assert order == {"postgres": set(), "tracking-store": set(), "mlflow": {"tracking-store"}, "bench": {"postgres", "mlflow"}}
    conditions = {dependency["condition"] for service in services.values() for dependency in service.get("depends_on", {}).values()}
    assert conditions == {"service_healthy"}


def test_secrets_are_random_and_stay(tmp_path: Path) -> None:
    """They are written once, for the owner's eyes only, different every time; what is there is not overwritten."""
    texts = []
    for name in ("one", "two"):
        script = tmp_path / name / "docker" / "make_env.py"
        script.parent.mkdir(parents=True)
        shutil.copyfile(REPOSITORY / "docker" / "make_env.py", script)
        subprocess.run([sys.executable, str(script)], check=True)
        target = tmp_path / name / ".env"
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        texts.append(target.read_text())
    again = subprocess.run([sys.executable, str(script)], check=False, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (
        1,
        f"{target} is there already, and volumes may know its passwords: remove both (docker compose down --volumes) or keep both\n",
    )
    assert target.read_text() == texts[1]
    values = [dict(line.split("=", 1) for line in text.splitlines()) for text in texts]
    assert all(set(found) == set(SECRETS) for found in values)
    owner = target.parent.stat()
    assert {found.pop("SUITE_OWNER") for found in values} == {f"{owner.st_uid}:{owner.st_gid}"}
    assert all(len(value) >= 32 for found in values for value in found.values())
    assert not set(values[0].values()) & set(values[1].values())


def test_nothing_starts_without_secrets(compose: Compose) -> None:
    """A missing one is named, with what writes it."""
    for name in SECRETS:
        done = compose("config", **{**SECRETS, name: ""})
        assert done.returncode != 0
        assert "it is in .env, which docker/make_env.py writes" in done.stderr

"""Programs get the environment variables that they need, and no secret."""

from __future__ import annotations

import pytest

from pytest_pilotscope.places.environment import COMPILING, clean_environment

SECRETS = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_URI",
    "AWS_SECRET_ACCESS_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "GITHUB_TOKEN",
    "PGPASSWORD",
    "SOMETHING_NEW",
)


def test_only_listed_variables_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that nobody listed stays here, whatever it is called; those that are named are passed on."""
    for name in (*SECRETS, "CPATH", "TMPDIR", "LANG"):
        monkeypatch.setenv(name, f"/{name}")
    assert not set(SECRETS) & clean_environment(*COMPILING).keys()
    assert clean_environment()["TMPDIR"] == "/TMPDIR"
    assert "CPATH" not in clean_environment()
    assert clean_environment(*COMPILING)["CPATH"] == "/CPATH"
    assert {"LANG", "LC_ALL"} & clean_environment().keys() == {"LC_ALL"}

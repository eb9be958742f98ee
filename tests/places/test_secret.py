"""Secrets are not shown: neither by themselves nor in the addresses, messages and tracebacks that hold them."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.places.secret import Secret, StoreUri, redact, redact_variables

SHOWN = {
    "http://me:s3cret@store:5000": "http://me:***@store:5000",
    "http://me:s3/cr@et@store:5000/x": "http://me:***@store:5000/x",
    "http://me:s3?cr#et@store": "http://me:***@store",
    "http://me:s3:cret@store": "http://me:***@store",
    "http://me:s3 cr\tet@store": "http://me:***@store",
    "http://m/e:s3cret@store": "http://***@store",
    "https://s3cret@store": "https://***@store",
    "https://s3/cr@et@store/path": "https://***@store/path",
    "databricks://s3cret@store": "databricks://***@store",
    "HTTPS://:s3cret@store": "HTTPS://:***@store",
    "http://store?token=s3cret": "http://store?token=***",
    "http://store/?a=b&access_token=s3'cr)et&c=d": "http://store/?a=b&access_token=***&c=d",
    "http://store/?API_KEY=s3cret;x": "http://store/?API_KEY=***",
    "http://store/?X-Amz-Signature=s3cret": "http://store/?X-Amz-Signature=***",
    "postgresql://store/mlflow?user=me&password=s3cret": "postgresql://store/mlflow?user=me&password=***",
    "mysql+pymysql://me:s3/cret@store/mlflow": "mysql+pymysql://me:***@store/mlflow",
    "mssql://me:s3cret@store/mlflow?driver=x": "mssql://me:***@store/mlflow?driver=x",
    "http://store:5000/path": "http://store:5000/path",
    "postgresql://me@store/mlflow": "postgresql://me@store/mlflow",
    "sqlite:////home/me/mlflow.db": "sqlite:////home/me/mlflow.db",
    "databricks": "databricks",
    "models:/name/1": "models:/name/1",
}


@pytest.mark.parametrize(("text", "expected"), SHOWN.items())
def test_the_address_of_a_store(text: str, expected: str) -> None:
    """Passwords and tokens are hidden, however they are written; the rest is shown."""
    uri = StoreUri(text)
    assert (str(uri), repr(uri), f"{uri}") == (expected, f"StoreUri({expected!r})", expected)
    assert uri.reveal() == text
    assert "cr" not in uri.scrub(f"cannot use '{text}' or {text}, please")


def test_a_secret() -> None:
    """It shows as three stars, equals itself only, and survives a trip to another process."""
    hidden = Secret("s3cret")
    assert (str(hidden), repr(hidden), f"{hidden}") == ("***", "Secret('***')", "***")
    assert hidden == Secret("s3cret") != Secret("other")
    assert hidden != "s3cret"
    assert Secret("a") != StoreUri("a") != Dsn("a")
    assert pickle.loads(pickle.dumps(hidden)).reveal() == "s3cret"  # noqa: S301 - what was just made


def test_settings_show_no_secret() -> None:
    """The DSN and the address of the store are secrets from the moment that Python passes them."""
    settings = Settings(server="postgresql://me:s3cret@db/x", tracking_uri="http://me:s3cret@store")
    assert "s3cret" not in repr(settings) + str(settings)
    assert replace(settings, rounds=3).server == Dsn("postgresql://me:s3cret@db/x")
    assert Settings(server="embedded").server == "embedded"


def test_messages_of_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses are found within a text, and the values of variables that are called a password or a token."""
    text = "Failed to parse: 'http://me:s3/cret@store', see https://store/?token=s3cret, or (http://x?sig_token=s3cret)."
    assert redact(text) == "Failed to parse: 'http://me:***@store', see https://store/?token=***, or (http://x?sig_token=***)."
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abcdefgh")
    monkeypatch.setenv("SHORT_TOKEN", "a")
    assert redact_variables("header value 'Bearer s3cret\\n' of abcdefgh") == "header value 'Bearer ***\\n' of ***"

"""Passwords do not leave a connection string."""

from __future__ import annotations

import pytest

from pytest_pilotscope.places.dsn import Dsn, is_dsn
from pytest_pilotscope.places.secret import redact

REDACTED = {
    "postgresql://me:s3cret@db.example/mydb": "postgresql://me:***@db.example/mydb",
    "postgres://me:p%40ss%2Fw@db.example:5433/mydb?sslmode=require": "postgres://me:***@db.example:5433/mydb?sslmode=require",
    "postgresql://me:pa@ss@db.example/mydb": "postgresql://me:***@db.example/mydb",
    "postgresql://me:pa/ss@db.example/mydb": "postgresql://me:***@db.example/mydb",
    "postgresql://:s3cret@db.example": "postgresql://:***@db.example",
    "postgresql://db.example/mydb?user=me&password=s3cret&sslmode=require": "postgresql://db.example/mydb?user=me&password=***&sslmode=require",
    "postgresql://db.example/mydb?password=s3cret": "postgresql://db.example/mydb?password=***",
    "POSTGRESQL://me:s3cret@db.example": "POSTGRESQL://me:***@db.example",
    "host=db.example user=me password=s3cret dbname=mydb": "host=db.example user=me password=*** dbname=mydb",
    "host=db.example password = 's3 cr\\'et' dbname=mydb": "host=db.example password = *** dbname=mydb",
    "password=s3\\ cret host=db.example": "password=*** host=db.example",
    "host=db.example PASSWORD=s3cret": "host=db.example PASSWORD=***",
    "sslpassword=s3cret host=db.example": "sslpassword=*** host=db.example",
    "pytest --server postgresql://me:s3cret@db.example/mydb --db x": "pytest --server postgresql://me:***@db.example/mydb --db x",
    "postgresql://me@db.example/mydb": "postgresql://me@db.example/mydb",
    "postgresql://me:@db.example/mydb": "postgresql://me:@db.example/mydb",
    "postgresql://db.example:5433/mydb": "postgresql://db.example:5433/mydb",
    "postgresql://[::1]:5433/mydb": "postgresql://[::1]:5433/mydb",
    "host=db.example user=me passfile=/home/me/.pgpass": "host=db.example user=me passfile=/home/me/.pgpass",
    "": "",
}


@pytest.mark.parametrize(("text", "expected"), REDACTED.items())
def test_redact(text: str, expected: str) -> None:
    """Only the password is replaced, in URLs, key=value pairs and command lines, escaped or wrongly unescaped."""
    assert redact(text) == expected
    assert str(Dsn(text)) == expected
    assert repr(Dsn(text)) == f"Dsn({expected!r})"


def test_reveal_gives_the_driver_what_was_typed() -> None:
    """The text itself is unchanged."""
    assert Dsn("postgresql://me:s3cret@db").reveal() == "postgresql://me:s3cret@db"


@pytest.mark.parametrize(
    ("dsn", "message", "expected"),
    [
        ("postgresql://me:p%40ss@db", "server says p@ss and p%40ss", "server says *** and ***"),
        ("password='s3 \\'cret' host=db", "s3 'cret is wrong", "*** is wrong"),
        ("postgresql://db?password=s3cret", "at postgresql://db?password=s3cret it is s3cret", "at postgresql://db?password=*** it is ***"),
        ("postgresql://me@db", "nothing to hide", "nothing to hide"),
    ],
)
def test_scrub_takes_every_spelling_out_of_a_message(dsn: str, message: str, expected: str) -> None:
    """Decoded, encoded and quoted forms of the password are all replaced."""
    assert Dsn(dsn).scrub(message) == expected


def test_equality_is_of_the_whole_text() -> None:
    """Two DSNs with different passwords are different, although they look the same."""
    assert Dsn("postgresql://me:a@db") == Dsn("postgresql://me:a@db")
    assert Dsn("postgresql://me:a@db") != Dsn("postgresql://me:b@db")
    assert len({Dsn("postgresql://me:a@db"), Dsn("postgresql://me:a@db")}) == 1


@pytest.mark.parametrize(("text", "expected"), [("auto", False), ("stats_tiny", False), ("postgresql://x", True), ("host=x", True)])
def test_is_dsn(text: str, expected: bool) -> None:
    """Connection strings are distinguished from names of providers and datasets."""
    assert is_dsn(text) is expected
